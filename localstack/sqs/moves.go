package sqs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxMovesPerSecond = 500 // SQS quota.
	maxTasksKept      = 10  // As many as ListMessageMoveTasks can show.
)

// moveTask moves the messages that were in a dead-letter queue when it began. All but its constants belongs to the
// lock of that queue, which has at most one task that is running or being cancelled.
type moveTask struct {
	handle      string
	destination string // ARN, or empty for each message's own source.
	rate        int64  // Messages per second, or zero for as fast as they go.
	startedAt   int64
	toMove      int64

	moved   int64
	status  string
	failure string
	cancel  chan struct{}
}

func (s *Server) startMessageMoveTask(c *call) *apiError {
	q, err := s.moveSource(c)
	if err != nil {
		return err
	}
	if c.rate.outside(1, maxMovesPerSecond) {
		return invalid("MaxNumberOfMessagesPerSecond", c.rate.n, "Must be between 1 and 500.")
	}
	destination := string(c.destinationARN)
	if destination != "" && s.byARN(destination) == nil {
		return errResourceNotFound.with("The resource that you specified for the DestinationArn parameter " +
			"doesn't exist.")
	}
	if destination == q.arn {
		return invalid("DestinationArn", destination, "Source queue arn and destination queue arn cannot be the same.")
	}
	if !s.isDeadLetterQueue(q) {
		return invalid("SourceArn", q.arn, "Source queue must be configured as a Dead Letter Queue.")
	}
	s.mu.Lock()
	s.tasks++
	handle := fmt.Sprintf("%s/%d", q.arn, s.tasks)
	s.mu.Unlock()

	now := clock()
	toMove := int64(q.counts(now).ready)
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.tasks); n > 0 && q.tasks[n-1].active() {
		return errInvalidParameter.with("There is already a task running. Only one active task is allowed for a " +
			"source queue arn at a given time.")
	}
	t := &moveTask{
		handle: handle, destination: destination, rate: c.rate.or(0), startedAt: now, toMove: toMove,
		status: "RUNNING", cancel: make(chan struct{}),
	}
	q.tasks = append(q.tasks, t)
	if len(q.tasks) > maxTasksKept {
		q.tasks = slices.Delete(q.tasks, 0, 1)
	}
	s.work.Go(func() { s.move(q, t) })
	c.out = append(appendQuoted(append(c.out, `{"TaskHandle":`...), t.handle), '}')
	return nil
}

func (t *moveTask) active() bool { return t.status == "RUNNING" || t.status == "CANCELLING" }

func (s *Server) moveSource(c *call) (*queue, *apiError) {
	if len(c.sourceARN) == 0 {
		return nil, missing("SourceArn")
	}
	q := s.byARN(string(c.sourceARN))
	if q == nil {
		return nil, errResourceNotFound.with("The resource that you specified for the SourceArn parameter " +
			"doesn't exist.")
	}
	return q, nil
}

func (s *Server) isDeadLetterQueue(q *queue) bool {
	for _, source := range *s.queues.Load() {
		if source.config.Load().redrive.targetARN == q.arn {
			return true
		}
	}
	return false
}

// move is the goroutine of a task. It ends when the messages counted at the start are moved, when there are no more,
// or when the task is cancelled or fails; the message at which it fails stays.
func (s *Server) move(q *queue, t *moveTask) {
	status, failure := "COMPLETED", ""
	var pace <-chan time.Time
	if t.rate > 0 {
		ticker := time.NewTicker(time.Second / time.Duration(t.rate))
		defer ticker.Stop()
		pace = ticker.C
	}
	for range t.toMove {
		if pace != nil {
			select {
			case <-pace:
			case <-t.cancel:
			case <-s.done:
			}
		}
		if isClosed(t.cancel) || s.closing() {
			status = "CANCELLED"
			break
		}
		now := clock()
		m := q.pop(now)
		if m == nil {
			break
		}
		if failure = s.moveOne(now, m, t.destination); failure != "" {
			status = "FAILED"
			q.send(now, m)
			break
		}
		q.mu.Lock()
		t.moved++
		q.mu.Unlock()
	}
	q.mu.Lock()
	t.status, t.failure = status, failure
	q.mu.Unlock()
}

// moveOne sends a copy with a new id, a new time of retention and no receives, and returns why it cannot.
func (s *Server) moveOne(now int64, m *message, destination string) (failure string) {
	if destination == "" {
		destination = m.source
	}
	if destination == "" {
		return "CouldNotDetermineMessageSource"
	}
	q := s.byARN(destination)
	fresh := &message{
		id: newID(), body: m.body, bodyMD5: m.bodyMD5, attrs: m.attrs, attrsMD5: m.attrsMD5, trace: m.trace,
		sentAt: now,
	}
	if q == nil || !q.send(now, fresh) {
		return errQueueDoesNotExist.code
	}
	return ""
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *Server) cancelMessageMoveTask(c *call) *apiError {
	if len(c.taskHandle) == 0 {
		return missing("TaskHandle")
	}
	arn, _, _ := strings.Cut(string(c.taskHandle), "/")
	q := s.byARN(arn)
	if q == nil {
		return errResourceNotFound.with("Task does not exist.")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.tasks, func(t *moveTask) bool { return t.handle == string(c.taskHandle) })
	if i < 0 {
		return errResourceNotFound.with("Task does not exist.")
	}
	t := q.tasks[i]
	if t.status != "RUNNING" {
		return errUnsupported.with("Only active tasks can be cancelled.")
	}
	t.status = "CANCELLING"
	close(t.cancel)
	c.out = append(c.out, `{"ApproximateNumberOfMessagesMoved":`...)
	c.out = append(strconv.AppendInt(c.out, t.moved, 10), '}')
	return nil
}

func (s *Server) listMessageMoveTasks(c *call) *apiError {
	q, err := s.moveSource(c)
	if err != nil {
		return err
	}
	if c.maxResults.outside(1, maxTasksKept) {
		return invalid("MaxResults", c.maxResults.n, "Must be between 1 and 10.")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c.out = append(c.out, `{"Results":[`...)
	for i, t := range slices.Backward(q.tasks) {
		if int64(len(q.tasks)-i) > c.maxResults.or(1) {
			break
		}
		c.writeTask(q, t)
	}
	c.out = append(c.out, "]}"...)
	return nil
}

func (c *call) writeTask(q *queue, t *moveTask) {
	c.out = appendQuoted(append(c.comma(), `{"Status":`...), t.status)
	c.out = appendQuoted(append(c.out, `,"SourceArn":`...), q.arn)
	c.out = strconv.AppendInt(append(c.out, `,"StartedTimestamp":`...), t.startedAt/int64(time.Millisecond), 10)
	c.out = strconv.AppendInt(append(c.out, `,"ApproximateNumberOfMessagesMoved":`...), t.moved, 10)
	c.out = strconv.AppendInt(append(c.out, `,"ApproximateNumberOfMessagesToMove":`...), t.toMove, 10)
	if t.status == "RUNNING" {
		c.out = appendQuoted(append(c.out, `,"TaskHandle":`...), t.handle)
	}
	if t.destination != "" {
		c.out = appendQuoted(append(c.out, `,"DestinationArn":`...), t.destination)
	}
	if t.rate > 0 {
		c.out = strconv.AppendInt(append(c.out, `,"MaxNumberOfMessagesPerSecond":`...), t.rate, 10)
	}
	if t.failure != "" {
		c.out = appendQuoted(append(c.out, `,"FailureReason":`...), t.failure)
	}
	c.out = append(c.out, '}')
}
