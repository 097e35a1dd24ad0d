package queue

// The tests are outside the package, since the local stack that they use imports it.

const (
	MaxRefusals    = maxRefusals
	MaxReasonBytes = maxReasonBytes
)

// DeadLetters is the dead-letter queue, to be received from like the queue of orders.
func (q *Queue) DeadLetters() *Queue { return &Queue{api: q.api, url: q.dlq, dlq: q.url} }
