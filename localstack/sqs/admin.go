package sqs

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// action is something a client can ask for, with what a Server remembers about it.
type action struct {
	name                           string
	run                            func(*Server, *call) *apiError
	answered, loseNext, refuseNext atomic.Int64
}

func newActions() map[string]*action {
	byName := map[string]*action{}
	for name, run := range map[string]func(*Server, *call) *apiError{
		"CreateQueue":                  (*Server).createQueue,
		"DeleteQueue":                  (*Server).deleteQueue,
		"GetQueueUrl":                  (*Server).getQueueURL,
		"ListQueues":                   (*Server).listQueues,
		"GetQueueAttributes":           (*Server).getQueueAttributes,
		"SetQueueAttributes":           (*Server).setQueueAttributes,
		"PurgeQueue":                   (*Server).purgeQueue,
		"ListDeadLetterSourceQueues":   (*Server).listDeadLetterSourceQueues,
		"SendMessage":                  (*Server).sendMessage,
		"SendMessageBatch":             (*Server).sendMessageBatch,
		"ReceiveMessage":               (*Server).receiveMessage,
		"DeleteMessage":                (*Server).deleteMessage,
		"DeleteMessageBatch":           (*Server).deleteMessageBatch,
		"ChangeMessageVisibility":      (*Server).changeMessageVisibility,
		"ChangeMessageVisibilityBatch": (*Server).changeMessageVisibilityBatch,
		"StartMessageMoveTask":         (*Server).startMessageMoveTask,
		"ListMessageMoveTasks":         (*Server).listMessageMoveTasks,
		"CancelMessageMoveTask":        (*Server).cancelMessageMoveTask,
	} {
		byName[name] = &action{name: name, run: run}
	}
	return byName
}

const (
	maxQueueNameBytes = 80   // SQS quota.
	maxListed         = 1000 // SQS quota for one page.
)

// queue returns the queue that a request's URL means.
func (s *Server) queue(c *call) (*queue, *apiError) {
	if len(c.queueURL) == 0 {
		return nil, missing("QueueUrl")
	}
	if q := (*s.queues.Load())[string(c.target())]; q != nil {
		return q, nil
	}
	return nil, errQueueDoesNotExist
}

func (s *Server) createQueue(c *call) *apiError {
	if len(c.queueName) == 0 {
		return missing("QueueName")
	}
	name := string(c.queueName)
	if strings.HasSuffix(name, ".fifo") {
		return errUnsupported.with("This server has standard queues only, so a queue name cannot end in .fifo.")
	}
	if len(name) > maxQueueNameBytes || !onlyNameBytes(name, "-_") {
		return invalid("QueueName", name,
			"Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	queues := *s.queues.Load()
	now := clock()
	q := queues[name]
	if q != nil {
		// As in SQS, attributes that are not given are not compared.
		have := q.config.Load()
		want, err := have.with(s, c.request.attributes)
		if err != nil {
			return err
		}
		if !have.same(want) {
			return errQueueNameExists
		}
	} else {
		cfg, err := defaultConfig(now).with(s, c.request.attributes)
		if err != nil {
			return err
		}
		if len(queues) == maxQueues {
			return errOverLimit.with("This server holds at most %d queues.", maxQueues)
		}
		q = newQueue(name, s.arn(name), s.url+"/"+accountID+"/"+name, cfg, now)
		queues = maps.Clone(queues)
		queues[name] = q
		s.queues.Store(&queues)
	}
	c.writeURL(q)
	return nil
}

func (c *call) writeURL(q *queue) {
	c.out = append(c.out, `{"QueueUrl":`...)
	c.out = append(appendQuoted(c.out, q.url), '}')
}

func (s *Server) deleteQueue(c *call) *apiError {
	s.mu.Lock()
	q, err := s.queue(c)
	if err == nil {
		queues := maps.Clone(*s.queues.Load())
		delete(queues, q.name)
		s.queues.Store(&queues)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	q.close()
	return nil
}

func (s *Server) getQueueURL(c *call) *apiError {
	if len(c.queueName) == 0 {
		return missing("QueueName")
	}
	q := (*s.queues.Load())[string(c.queueName)]
	if q == nil {
		return errQueueDoesNotExist
	}
	c.writeURL(q)
	return nil
}

func (s *Server) listQueues(c *call) *apiError {
	return s.list(c, "QueueUrls", func(q *queue) bool { return strings.HasPrefix(q.name, string(c.prefix)) })
}

func (s *Server) listDeadLetterSourceQueues(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	return s.list(c, "queueUrls", func(source *queue) bool { return source.config.Load().redrive.targetARN == q.arn })
}

// list writes one page of the queues that match, by name. The token for the next page is the last name on this one.
func (s *Server) list(c *call, field string, matches func(*queue) bool) *apiError {
	if c.maxResults.outside(1, maxListed) {
		return invalid("MaxResults", c.maxResults.n, "Must be between 1 and 1000.")
	}
	queues := *s.queues.Load()
	limit := int(c.maxResults.or(maxListed))
	listed, last := 0, ""
	c.out = append(c.out, `{"`...)
	c.out = append(c.out, field...)
	c.out = append(c.out, `":[`...)
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		q := queues[name]
		if bytes.Compare([]byte(name), c.nextToken) <= 0 || !matches(q) {
			continue
		}
		if listed == limit {
			c.out = append(c.out, ']')
			if c.maxResults.set {
				c.out = appendQuoted(append(c.out, `,"NextToken":`...), last)
			}
			c.out = append(c.out, '}')
			return nil
		}
		c.out = appendQuoted(c.comma(), q.url)
		listed, last = listed+1, name
	}
	c.out = append(c.out, "]}"...)
	return nil
}

// comma returns the answer so far, ready for the next element of a list or an object.
func (c *call) comma() []byte {
	if last := c.out[len(c.out)-1]; last != '[' && last != '{' {
		c.out = append(c.out, ',')
	}
	return c.out
}

func (s *Server) getQueueAttributes(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	if len(c.attributeNames) == 0 {
		return nil
	}
	var names []string
	known := slices.Concat(slices.Sorted(maps.Keys(numericAttributes)), storedAttributes, computedAttributes)
	for _, asked := range c.attributeNames {
		name := string(asked)
		switch {
		case name == "All":
			names = known
		case !slices.Contains(known, name) && !slices.Contains(fifoAttributes, name):
			return errAttributeName.with("Unknown Attribute %s.", name)
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	cfg, n := q.config.Load(), q.counts(clock())
	c.out = append(c.out, `{"Attributes":{`...)
	for _, name := range names {
		if value, ok := q.attribute(name, cfg, n); ok {
			c.out = appendQuoted(c.comma(), name)
			c.out = appendQuoted(append(c.out, ':'), value)
		}
	}
	c.out = append(c.out, "}}"...)
	return nil
}

func (s *Server) setQueueAttributes(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	if len(c.request.attributes) == 0 {
		return missing("Attributes")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	cfg, err := q.config.Load().with(s, c.request.attributes)
	if err != nil {
		return err
	}
	cfg.modifiedAt = clock()
	q.config.Store(cfg)
	return nil
}

func (s *Server) purgeQueue(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	return q.purge(clock())
}
