package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Outcome says what is known of a message after sending it.
type Outcome int

// The outcomes of sending.
const (
	// Unknown: at least one attempt got no answer, and none an acknowledgement. The message may be in
	// the queue.
	Unknown Outcome = iota
	// Sent: the queue has acknowledged the message.
	Sent
	// Refused: every attempt was refused. The message is certainly not in the queue.
	Refused
)

const (
	// maxRefusals is how often a message is offered to a queue that refuses it. Refusals that pass do
	// so at once; who waits longer had better be told to come back.
	maxRefusals = 3
	// retryWait is the longest wait after the first failed attempt; each further attempt doubles it.
	retryWait = 50 * time.Millisecond
	// maxRetryWait bounds the wait between two attempts.
	maxRetryWait = time.Second
)

// Outgoing is a message to send.
type Outgoing struct {
	Body string
	// Group says whose the message is: SQS serves the messages of quiet groups before those of one with a backlog
	// (Amazon SQS Developer Guide, "Fair queues"). It may be empty.
	Group string
	// Attributes are sent as message attributes of type String; their values must not be empty.
	Attributes map[string]string
	// Delay is for how long the queue hides the message at first: 0 to 15 minutes, in whole seconds.
	Delay time.Duration
}

// Result is the outcome of sending one message, with the last error of one that was not acknowledged.
type Result struct {
	Outcome Outcome
	Err     error
}

// Send puts messages on the queue and calls done with the result of each, once, as soon as it is
// final. Only what failed is tried again: an attempt without an answer until ctx ends, a refusal a few
// times. Sending a message again after a lost answer may put it on the queue twice.
func (q *Queue) Send(ctx context.Context, messages []Outgoing, done func(i int, r Result)) {
	q.send(ctx, q.url, messages, done)
}

// Pack makes messages of orders, each of orders of one product, which is their group. It returns the orders that each
// message holds, in order.
func Pack(orders []order.Order) (messages []Outgoing, groups [][]order.Order) {
	bodies, groups := order.Pack(orders)
	messages = make([]Outgoing, len(bodies))
	for i := range bodies {
		group := groups[i][0].StockID.Product().String()
		messages[i] = Outgoing{Body: string(bodies[i]), Group: group}
	}
	return messages, groups
}

// SendOrders puts orders on the queue, in as few messages as they fit into. The error is nil if the queue has
// acknowledged all of them; otherwise some may be on it, and none may be cancelled.
func (q *Queue) SendOrders(ctx context.Context, orders []order.Order) (err error) {
	messages, _ := Pack(orders)
	q.Send(ctx, messages, func(_ int, r Result) {
		if r.Outcome != Sent {
			err = errors.Join(err, r.Err)
		}
	})
	return err
}

func (q *Queue) send(ctx context.Context, url string, messages []Outgoing, done func(int, Result)) {
	results := make([]Result, len(messages))
	refusals := make([]int, len(messages))
	unknown := make([]bool, len(messages))
	open := make([]int, len(messages)) // indexes of the messages that are not yet done
	for i := range open {
		open[i] = i
	}

	for wait := retryWait; ; wait = min(2*wait, maxRetryWait) {
		failed := open[:0]
		for rest := open; len(rest) > 0; {
			n := batchLength(messages, rest)
			q.attempt(ctx, url, messages, rest[:n], results)

			for _, i := range rest[:n] {
				switch results[i].Outcome {
				case Unknown:
					unknown[i] = true
				case Refused:
					refusals[i]++
					if unknown[i] {
						results[i].Outcome = Unknown // an earlier attempt may have succeeded all the same
					}
				}

				if results[i].Outcome == Sent || refusals[i] == maxRefusals {
					done(i, results[i])
				} else {
					failed = append(failed, i)
				}
			}
			rest = rest[n:]
		}
		if open = failed; len(open) == 0 {
			return
		}

		select {
		case <-ctx.Done():
			for _, i := range open {
				done(i, results[i])
			}
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// batchLength is how many of the messages at these indexes fit one request; at least one.
func batchLength(messages []Outgoing, indexes []int) int {
	size := 0
	for n, i := range indexes {
		size += len(messages[i].Body)
		for name, value := range messages[i].Attributes {
			size += len(name) + len(value) + len("String")
		}
		if n > 0 && (n == MaxEntries || size > maxBatchBytes) {
			return n
		}
	}
	return len(indexes)
}

// attempt sends the messages at these indexes in one request and writes their results.
func (q *Queue) attempt(ctx context.Context, url string, messages []Outgoing, indexes []int, results []Result) {
	entries := make([]types.SendMessageBatchRequestEntry, len(indexes))
	for n, i := range indexes {
		m := &messages[i]
		entries[n] = types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(n)), MessageBody: &m.Body, DelaySeconds: int32(m.Delay / time.Second),
		}
		if m.Group != "" {
			entries[n].MessageGroupId = &m.Group
		}
		if len(m.Attributes) > 0 {
			attributes := make(map[string]types.MessageAttributeValue, len(m.Attributes))
			for name, value := range m.Attributes {
				attributes[name] = types.MessageAttributeValue{DataType: aws.String("String"),
					StringValue: aws.String(value)}
			}
			entries[n].MessageAttributes = attributes
		}
	}

	for _, i := range indexes {
		results[i] = Result{Unknown, errors.New("the queue's answer does not mention the message")}
	}

	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out *sqs.SendMessageBatchOutput
	err := failpoint.Around(failpoint.Send, func() (err error) {
		out, err = q.api.SendMessageBatch(call, &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
		return err
	})
	if err != nil { // it concerns all of them
		outcome := Unknown
		if refused(err) {
			outcome = Refused
		}
		for _, i := range indexes {
			results[i] = Result{outcome, err}
		}
		return
	}

	for _, ok := range out.Successful {
		if n, err := strconv.Atoi(aws.ToString(ok.Id)); err == nil && n < len(indexes) {
			results[indexes[n]] = Result{Outcome: Sent}
		}
	}
	for _, bad := range out.Failed {
		if n, err := strconv.Atoi(aws.ToString(bad.Id)); err == nil && n < len(indexes) {
			outcome := Unknown // an error of the service's own may have come after the effect
			if bad.SenderFault {
				outcome = Refused
			}
			refusal := &EntryError{Code: aws.ToString(bad.Code), Message: aws.ToString(bad.Message)}
			results[indexes[n]] = Result{outcome, refusal}
		}
	}
}

// EntryError is what the queue said of one message of a batch that failed.
type EntryError struct{ Code, Message string }

func (e *EntryError) Error() string {
	return "queue did not take the message: " + e.Code + ": " + e.Message
}
