package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"stampede/internal/failpoint"
)

const (
	// LongPoll is the longest that a receive waits for a message: SQS's maximum, which costs least.
	LongPoll = 20 * time.Second
	// AttemptsAttribute counts how often deciding an order has failed for its own reason.
	AttemptsAttribute = "stampede-attempts"
	// ReasonAttribute says why a message is in the dead-letter queue.
	ReasonAttribute = "stampede-reason"
	// FailuresAttribute says how often the order of a dead letter had failed. It is for people: an order that is
	// decided anew begins at none.
	FailuresAttribute = "stampede-failures"
	// deadLetterTimeout is how long writing a dead letter is tried for.
	deadLetterTimeout = 10 * time.Second
	// maxReasonBytes bounds the reason, which is for a person to read.
	maxReasonBytes = 1000
)

// Message is a received message.
type Message struct {
	ID   string
	Body string
	// Receipt names this receive of the message, to delete it or to change its visibility.
	Receipt string
	// ReceiveCount is how often the message was received, this time included. It counts receives,
	// not failures.
	ReceiveCount int
	// SentAt is when it was sent, by the clock of SQS; a move to the dead-letter queue does not change it.
	SentAt     time.Time
	Attributes map[string]string
}

// Receive waits for up to 10 messages, for at most LongPoll, and hides them from other receivers for a
// time; both are in whole seconds.
func (q *Queue) Receive(ctx context.Context, wait, hidden time.Duration) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	out, err := q.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: MaxEntries,
		WaitTimeSeconds: int32(wait / time.Second), VisibilityTimeout: int32(hidden / time.Second),
		MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameSentTimestamp,
		},
	})
	if err == nil && len(out.Messages) > 0 {
		err = failpoint.After(failpoint.Receive)
	}
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}

	messages := make([]Message, len(out.Messages))
	for i, m := range out.Messages {
		count, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
		if err != nil {
			count = 1 // the queue does not tell
		}

		messages[i] = Message{
			ID: aws.ToString(m.MessageId), Body: aws.ToString(m.Body), Receipt: aws.ToString(m.ReceiptHandle),
			ReceiveCount: count, SentAt: sentAt(m), Attributes: make(map[string]string, len(m.MessageAttributes)),
		}
		for name, value := range m.MessageAttributes {
			messages[i].Attributes[name] = aws.ToString(value.StringValue)
		}
	}
	return messages, nil
}

// sentAt is zero if the queue does not tell.
func sentAt(m types.Message) time.Time {
	ms, err := strconv.ParseInt(m.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Delete removes received messages for good. Deleting one twice is harmless. What
// could not be deleted comes back when its visibility ends.
func (q *Queue) Delete(ctx context.Context, receipts []string) error {
	return inBatches(ctx, receipts, "delete", func(ctx context.Context, batch []string) (refusals, error) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(batch))
		for i := range batch {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &batch[i]}
		}
		var out *sqs.DeleteMessageBatchOutput
		err := failpoint.Around(failpoint.Delete, func() (err error) {
			out, err = q.api.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: entries})
			return err
		})
		if err != nil {
			return nil, err
		}
		return out.Failed, nil
	})
}

// ChangeVisibility sets how long received messages stay hidden, from now and in whole seconds; 0 gives them back
// at once.
func (q *Queue) ChangeVisibility(ctx context.Context, receipts []string, d time.Duration) error {
	return inBatches(ctx, receipts, "change the visibility of",
		func(ctx context.Context, batch []string) (refusals, error) {
			entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))
			for i := range batch {
				entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
					Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &batch[i],
					VisibilityTimeout: int32(d / time.Second),
				}
			}
			out, err := q.api.ChangeMessageVisibilityBatch(ctx,
				&sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: entries})
			if err != nil {
				return nil, err
			}
			return out.Failed, nil
		})
}

// refusals are the entries of a request that the queue has refused. Their ids are their places in the request.
type refusals = []types.BatchResultErrorEntry

// inBatches calls f with as many receipts as a request may hold, a few times with those that have failed, and gathers
// what went wrong for good. What f does may be done twice.
func inBatches(ctx context.Context, receipts []string, what string,
	f func(context.Context, []string) (refusals, error)) error {
	var errs []error
	for len(receipts) > 0 {
		batch := receipts[:min(len(receipts), MaxEntries)]
		receipts = receipts[len(batch):]
		if err := persist(ctx, batch, f); err != nil {
			errs = append(errs, fmt.Errorf("%s %d messages: %w", what, len(batch), err))
		}
		if err := ctx.Err(); err != nil && len(receipts) > 0 {
			errs = append(errs, fmt.Errorf("%s %d messages: %w", what, len(receipts), err))
			break
		}
	}
	return errors.Join(errs...)
}

// persist calls f for one batch until it succeeds, or what is left of it has failed maxRefusals times.
func persist(ctx context.Context, batch []string, f func(context.Context, []string) (refusals, error)) error {
	var hopeless int // entries that are themselves at fault
	for attempt := 1; ; attempt++ {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		refused, err := f(call, batch)
		cancel()

		if err == nil { // what the queue itself could not do may succeed, what it blames the request for will not
			var again []string
			for _, entry := range refused {
				if i, err := strconv.Atoi(aws.ToString(entry.Id)); err == nil && i < len(batch) && !entry.SenderFault {
					again = append(again, batch[i])
				}
			}
			hopeless += len(refused) - len(again)
			batch = again
		}

		switch {
		case len(batch) == 0 && hopeless > 0:
			return fmt.Errorf("the queue refused %d", hopeless)
		case len(batch) == 0:
			return nil
		case attempt == maxRefusals && err == nil:
			return fmt.Errorf("the queue refused %d", hopeless+len(batch))
		case attempt == maxRefusals:
			return err
		}

		select {
		case <-ctx.Done():
			return cmp.Or(err, ctx.Err())
		case <-time.After(time.Duration(attempt) * retryWait):
		}
	}
}

// DeadLetter puts a message into the dead-letter queue with the reason why no worker can handle it. A
// message that leaves no room for the reason goes without, since SQS counts both against one limit.
// The caller deletes the message from the queue afterwards, and only if this succeeded.
func (q *Queue) DeadLetter(ctx context.Context, body, reason string, failures int) error {
	message := Outgoing{Body: body, Attributes: map[string]string{}}
	if failures > 0 {
		message.Attributes[FailuresAttribute] = strconv.Itoa(failures)
	}
	room := maxMessageBytes - len(body) - len(ReasonAttribute) - len("String")
	if text := printable(reason, min(room, maxReasonBytes)); text != "" {
		message.Attributes[ReasonAttribute] = text
	}

	ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
	defer cancel()
	var result Result
	q.send(ctx, q.dlq, []Outgoing{message}, func(_ int, r Result) { result = r })
	if result.Outcome != Sent {
		return fmt.Errorf("write dead letter: %w", result.Err)
	}
	return nil
}

// printable replaces what SQS does not allow in a text, which a reason may quote from a broken
// message, and cuts the text to at most so many bytes between two characters.
func printable(s string, maxBytes int) string {
	var clean strings.Builder
	for _, r := range s {
		if r < ' ' || r == '\uFFFE' || r == '\uFFFF' || r == utf8.RuneError {
			r = '?'
		}
		if clean.Len()+utf8.RuneLen(r) > maxBytes {
			break
		}
		clean.WriteRune(r)
	}
	return clean.String()
}
