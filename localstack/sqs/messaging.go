package sqs

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

const (
	maxBatchEntries = 10 // SQS quota.
	maxEntryIDBytes = 80 // SQS quota.
	maxReceived     = 10 // SQS quota for one receive.
	maxWaitSeconds  = 20 // SQS quota.

	senderID = "AIDALOCALSTACKSENDER" // Who sent a message is not known here, but clients may ask.
)

func (s *Server) sendMessage(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	now := clock()
	m, err := s.newMessage(&c.entry, q.config.Load(), now)
	if err != nil {
		return err
	}
	c.out = append(c.out, '{')
	c.writeSent(m)
	c.out = append(c.out, '}')
	if !q.send(now, m) {
		return errQueueDoesNotExist
	}
	return nil
}

// newMessage makes a message and counts its bytes.
func (s *Server) newMessage(e *entry, cfg *config, now int64) (*message, *apiError) {
	m, err := newMessage(e, cfg, now)
	if err == nil {
		s.sentRaw.Add(int64(len(e.bodyRaw)))
		s.sent.Add(int64(len(e.body)))
	}
	return m, err
}

func (c *call) writeSent(m *message) {
	c.out = appendID(append(c.out, `"MessageId":"`...), &m.id)
	c.out = hex.AppendEncode(append(c.out, `","MD5OfMessageBody":"`...), m.bodyMD5[:])
	if len(m.attrs) > 0 {
		c.out = hex.AppendEncode(append(c.out, `","MD5OfMessageAttributes":"`...), m.attrsMD5[:])
	}
	if m.trace != "" {
		sum := attributesMD5([]attribute{{name: "AWSTraceHeader", dataType: "String", value: m.trace}})
		c.out = hex.AppendEncode(append(c.out, `","MD5OfMessageSystemAttributes":"`...), sum[:])
	}
	c.out = append(c.out, '"')
}

func (s *Server) sendMessageBatch(c *call) *apiError {
	now := clock()
	q, err := s.batch(c, func() *apiError {
		total := 0
		for i := range c.entries {
			if len(c.entries[i].body) == 0 {
				return missing("SendMessageBatchRequestEntry." + strconv.Itoa(i+1) + ".MessageBody")
			}
			total += c.entries[i].size()
		}
		if total > maxMessageBytes {
			return errBatchTooLong.with("Batch requests cannot be longer than %d bytes. You have sent %d bytes.",
				maxMessageBytes, total)
		}
		return nil
	}, func(q *queue, e *entry) *apiError {
		m, err := s.newMessage(e, q.config.Load(), now)
		if err != nil {
			return err
		}
		c.messages = append(c.messages, m)
		c.out = append(c.out, ',')
		c.writeSent(m)
		return nil
	})
	if err == nil && !q.send(now, c.messages...) {
		return errQueueDoesNotExist
	}
	return err
}

func (s *Server) deleteMessageBatch(c *call) *apiError {
	now := clock()
	_, err := s.batch(c, nil, func(q *queue, e *entry) *apiError { return q.deleteEntry(now, e) })
	return err
}

func (s *Server) changeMessageVisibilityBatch(c *call) *apiError {
	now := clock()
	_, err := s.batch(c, nil, func(q *queue, e *entry) *apiError { return q.changeEntry(now, e) })
	return err
}

// batch checks a batch as a whole, by what all batches have in common and by check, then runs each entry and writes
// which of them succeeded. An entry's own part of the answer is what run appends after the Id.
func (s *Server) batch(c *call, check func() *apiError, run func(*queue, *entry) *apiError) (*queue, *apiError) {
	q, err := s.queue(c)
	switch {
	case err != nil:
		return nil, err
	case len(c.entries) == 0:
		return nil, errEmptyBatch
	case len(c.entries) > maxBatchEntries:
		return nil, errTooManyEntries
	}
	for i := range c.entries {
		id := c.entries[i].id
		if len(id) == 0 || len(id) > maxEntryIDBytes || !onlyNameBytes(id, "-_") {
			return nil, errInvalidEntryID
		}
		for j := range i {
			if string(c.entries[j].id) == string(id) {
				return nil, errIdsNotDistinct.with("Id %s repeated.", id)
			}
		}
	}
	if check != nil {
		if err := check(); err != nil {
			return nil, err
		}
	}
	var failures [maxBatchEntries]*apiError
	failed := false
	c.out = append(c.out, `{"Successful":[`...)
	for i := range c.entries {
		e := &c.entries[i]
		before := len(c.out)
		c.out = appendQuoted(append(c.comma(), `{"Id":`...), e.id)
		if c.injector.roll(failEntry) {
			failures[i] = c.injector.failure()
		} else {
			failures[i] = run(q, e)
		}
		if failures[i] != nil {
			c.out, failed = c.out[:before], true
		} else {
			c.out = append(c.out, '}')
		}
	}
	c.out = append(c.out, ']')
	if failed {
		c.out = append(c.out, `,"Failed":[`...)
		for i, err := range failures[:len(c.entries)] {
			if err == nil {
				continue
			}
			c.out = appendQuoted(append(c.comma(), `{"Id":`...), c.entries[i].id)
			c.out = appendQuoted(append(c.out, `,"Code":`...), err.code)
			c.out = appendQuoted(append(c.out, `,"Message":`...), err.message)
			c.out = strconv.AppendBool(append(c.out, `,"SenderFault":`...), !err.receiver)
			c.out = append(c.out, '}')
		}
		c.out = append(c.out, ']')
	}
	c.out = append(c.out, '}')
	return q, nil
}

func (s *Server) deleteMessage(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	return q.deleteEntry(clock(), &c.entry)
}

func (s *Server) changeMessageVisibility(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	return q.changeEntry(clock(), &c.entry)
}

func (q *queue) deleteEntry(now int64, e *entry) *apiError {
	h, err := e.receipt()
	if err != nil {
		return err
	}
	return q.remove(now, h)
}

func (q *queue) changeEntry(now int64, e *entry) *apiError {
	h, err := e.receipt()
	if err != nil {
		return err
	}
	if !e.visibility.set {
		return missing("VisibilityTimeout")
	}
	if e.visibility.outside(0, maxVisibilitySeconds) {
		return invalid("VisibilityTimeout", e.visibility.n, "Must be between 0 and 43200.")
	}
	return q.changeVisibility(now, h, e.visibility.n)
}

func (e *entry) receipt() (handle, *apiError) {
	if len(e.handle) == 0 {
		return handle{}, missing("ReceiptHandle")
	}
	h, ok := parseHandle(e.handle)
	if !ok {
		return handle{}, errHandleInvalid.with("The input receipt handle %q is not a valid receipt handle.", e.handle)
	}
	return h, nil
}

func (s *Server) receiveMessage(c *call) *apiError {
	q, err := s.queue(c)
	if err != nil {
		return err
	}
	switch {
	case c.maxMessages.outside(1, maxReceived):
		return invalid("MaxNumberOfMessages", c.maxMessages.n, "Must be between 1 and 10, if provided.")
	case c.wait.outside(0, maxWaitSeconds):
		return invalid("WaitTimeSeconds", c.wait.n, "Must be >= 0 and <= 20, if provided.")
	case c.visibility.outside(0, maxVisibilitySeconds):
		return invalid("VisibilityTimeout", c.visibility.n, "Must be between 0 and 43200, if provided.")
	}
	system, err := systemAttributes(c)
	if err != nil {
		return err
	}
	if err := s.receive(c, q); err != nil {
		return err
	}
	if len(c.received) == 0 {
		return nil
	}
	c.out = append(c.out, `{"Messages":[`...)
	for i := range c.received {
		c.writeDelivery(&c.received[i], system)
	}
	c.out = append(c.out, "]}"...)
	return nil
}

// receive takes messages into c.received. If there are none it waits for as long as the client wants.
func (s *Server) receive(c *call, q *queue) *apiError {
	var w *waiter
	var timeout *time.Timer
	// A later change of the queue's is for later receives.
	start, wait := clock(), c.wait.or(q.config.Load().waitSeconds)*second
	for now := start; ; now = clock() {
		cfg := q.config.Load()
		dlq := s.byARN(cfg.redrive.targetARN)
		want := receiving{
			max: int(c.maxMessages.or(1)), visibility: c.visibility.or(cfg.visibilitySeconds) * second,
			hasDLQ: dlq != nil, injector: c.injector,
		}
		var dead []*message
		q.mu.Lock()
		if w != nil {
			q.dismiss(w)
		}
		if q.deleted {
			q.mu.Unlock()
			return errQueueDoesNotExist
		}
		c.received, dead = q.take(now, &want, c.received)
		over := wait == 0 && len(c.received) == 0 && q.inFlight >= maxInFlight
		waiting := len(c.received) == 0 && now-start < wait
		if waiting {
			if w == nil {
				w = &waiter{wake: make(chan struct{}, 1)}
				timeout = time.NewTimer(time.Duration(start + wait - now))
				defer timeout.Stop()
			}
			q.enlist(w)
		}
		q.changed(now)
		q.mu.Unlock()

		for _, m := range dead {
			if !dlq.send(now, m) {
				m.source = "" // The dead-letter queue has just been deleted.
				q.send(now, m)
			}
		}
		switch {
		case over:
			return errOverLimit
		case !waiting:
			return nil
		}
		select {
		case <-w.wake:
		case <-timeout.C:
		case <-s.done:
			return nil
		}
		c.injector = s.faultsFor(c)
		if c.injector != nil && c.injector.Unavailable || gone(c.conn) {
			q.mu.Lock()
			q.dismiss(w)
			q.changed(clock()) // The wake-up may have been the only one, so another receive gets it.
			q.mu.Unlock()
			return errDropped
		}
	}
}

func (s *Server) closing() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// systemSet is a set of the attributes that SQS itself gives a message.
type systemSet uint8

const (
	wantSender systemSet = 1 << iota
	wantSent
	wantReceives
	wantFirstReceived
	wantTrace
	wantSource
	wantGroup
	wantAll = 1<<iota - 1
)

// systemAttributes reads which of them a receive asks for, under the new name of that parameter and the old one.
func systemAttributes(c *call) (set systemSet, err *apiError) {
	for _, names := range [][][]byte{c.systemNames, c.attributeNames} {
		for _, name := range names {
			switch string(name) {
			case "All":
				set |= wantAll
			case "SenderId":
				set |= wantSender
			case "SentTimestamp":
				set |= wantSent
			case "ApproximateReceiveCount":
				set |= wantReceives
			case "ApproximateFirstReceiveTimestamp":
				set |= wantFirstReceived
			case "AWSTraceHeader":
				set |= wantTrace
			case "DeadLetterQueueSourceArn":
				set |= wantSource
			case "MessageGroupId":
				set |= wantGroup
			case "SequenceNumber", "MessageDeduplicationId":
				// They exist, but only messages of FIFO queues have them.
			default:
				return 0, errAttributeName.with("Unknown Attribute %s.", name)
			}
		}
	}
	return set, nil
}

func (c *call) writeDelivery(d *delivery, system systemSet) {
	c.out = appendID(append(c.comma(), `{"MessageId":"`...), &d.id)
	c.out = d.handle.append(append(c.out, `","ReceiptHandle":"`...))
	c.out = hex.AppendEncode(append(c.out, `","MD5OfBody":"`...), d.bodyMD5[:])
	c.out = append(append(c.out, `","Body":"`...), d.body...)
	c.out = append(c.out, '"')
	if system != 0 {
		c.out = append(c.out, `,"Attributes":{`...)
		if system&wantSender != 0 {
			c.writeSystem("SenderId", senderID)
		}
		if system&wantSent != 0 {
			c.writeSystemNumber("SentTimestamp", d.sentAt/int64(time.Millisecond))
		}
		if system&wantReceives != 0 {
			c.writeSystemNumber("ApproximateReceiveCount", int64(d.receives))
		}
		if system&wantFirstReceived != 0 {
			c.writeSystemNumber("ApproximateFirstReceiveTimestamp", d.firstReceived/int64(time.Millisecond))
		}
		if system&wantTrace != 0 && d.trace != "" {
			c.writeSystem("AWSTraceHeader", d.trace)
		}
		if system&wantSource != 0 && d.source != "" {
			c.writeSystem("DeadLetterQueueSourceArn", d.source)
		}
		if system&wantGroup != 0 && d.group != "" {
			c.writeSystem("MessageGroupId", d.group)
		}
		c.out = append(c.out, '}')
	}
	c.writeMessageAttributes(d.message)
	c.out = append(c.out, '}')
}

func (c *call) writeSystem(name, value string) {
	c.out = append(append(append(c.comma(), '"'), name...), `":`...)
	c.out = appendQuoted(c.out, value)
}

func (c *call) writeSystemNumber(name string, n int64) {
	c.out = append(append(append(c.comma(), '"'), name...), `":"`...)
	c.out = append(strconv.AppendInt(c.out, n, 10), '"')
}

// writeMessageAttributes writes the attributes that the receive asks for. Their digest covers only these, since a
// client can check nothing else.
func (c *call) writeMessageAttributes(m *message) {
	if len(m.attrs) == 0 || len(c.messageNames) == 0 {
		return
	}
	var chosen []attribute
	for i := range m.attrs {
		if c.wantsAttribute(m.attrs[i].name) {
			chosen = append(chosen, m.attrs[i])
		}
	}
	if len(chosen) == 0 {
		return
	}
	sum := m.attrsMD5
	if len(chosen) < len(m.attrs) {
		sum = attributesMD5(chosen)
	}
	c.out = hex.AppendEncode(append(c.out, `,"MD5OfMessageAttributes":"`...), sum[:])
	c.out = append(c.out, `","MessageAttributes":{`...)
	for i := range chosen {
		c.writeAttribute(&chosen[i])
	}
	c.out = append(c.out, '}')
}

// wantsAttribute matches a name with what was asked for: All, a name, or a prefix with .* at its end.
func (c *call) wantsAttribute(name string) bool {
	for _, asked := range c.messageNames {
		if string(asked) == "All" || string(asked) == name {
			return true
		}
		if prefix, ok := strings.CutSuffix(string(asked), ".*"); ok && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (c *call) writeAttribute(a *attribute) {
	c.out = appendQuoted(c.comma(), a.name)
	c.out = appendQuoted(append(c.out, `:{"DataType":`...), a.dataType)
	if a.hasBinary {
		c.out = base64.StdEncoding.AppendEncode(append(c.out, `,"BinaryValue":"`...), []byte(a.value))
		c.out = append(c.out, `"}`...)
	} else {
		c.out = append(appendQuoted(append(c.out, `,"StringValue":`...), a.value), '}')
	}
}
