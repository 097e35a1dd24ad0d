package queue

import (
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
		QueueUrl: &q.url, MaxNumberOfMessages: maxEntries,
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
			count = 1
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
	return inBatches(ctx, receipts, "delete", func(ctx context.Context, batch []string) (int, error) {
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
			return 0, err
		}
		return len(out.Failed), nil
	})
}

// Hide sets how long received messages stay hidden, from now and in whole seconds; 0 gives them back
// at once.
func (q *Queue) Hide(ctx context.Context, receipts []string, d time.Duration) error {
	return inBatches(ctx, receipts, "change the visibility of", func(ctx context.Context, batch []string) (int, error) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))
		for i := range batch {
			entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &batch[i], VisibilityTimeout: int32(d / time.Second),
			}
		}
		out, err := q.api.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil {
			return 0, err
		}
		return len(out.Failed), nil
	})
}

// inBatches calls f with as many receipts as a request may hold, and gathers what went wrong.
func inBatches(ctx context.Context, receipts []string, what string, f func(context.Context, []string) (failed int, err error)) error {
	var errs []error
	for len(receipts) > 0 {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s %d messages: %w", what, len(receipts), err))
			break
		}
		batch := receipts[:min(len(receipts), maxEntries)]
		receipts = receipts[len(batch):]
		call, cancel := context.WithTimeout(ctx, callTimeout)
		failed, err := f(call, batch)
		cancel()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s %d messages: %w", what, len(batch), err))
		case failed > 0:
			errs = append(errs, fmt.Errorf("%s %d messages: the queue refused %d", what, len(batch), failed))
		}
	}
	return errors.Join(errs...)
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
