// Package queue carries order messages through SQS: it sends them and knows which sends can be
// undone, receives, keeps received messages invisible, deletes them, and writes dead letters.
package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// VisibilityTimeout is how long workers hide a message that they receive, unless a heartbeat
	// renews it.
	VisibilityTimeout = 60 * time.Second

	// MaxEntries is SQS's limit of messages in a request: to send, to receive or to delete them.
	MaxEntries = 10
	// maxMessageBytes is SQS's limit of a message, and of a batch, attributes included.
	maxMessageBytes = 1 << 20
	// maxBatchBytes stays below that limit.
	maxBatchBytes = maxMessageBytes - 16<<10
	// callTimeout bounds one request, long polling aside. SQS answers in tens of milliseconds.
	callTimeout = 3 * time.Second
	// maxConns bounds the connections to SQS that one process keeps; the SDK's 10 idle ones are too few.
	maxConns = 128
)

// Queue is a connection to the queue of orders and its dead-letter queue. It is safe for concurrent use.
type Queue struct {
	api      *sqs.Client
	url, dlq string
	observe  func(call string, took time.Duration, err error)
}

// Open finds the two queues by name. Region, endpoint and credentials come from the environment, as
// the AWS SDK reads it.
//
// The SDK's own retries are off: its retry would hide that an earlier attempt may have succeeded,
// which decides whether an order may still be cancelled.
func Open(ctx context.Context, name, dlq string) (*Queue, error) {
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = callTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = maxConns, maxConns, maxConns
		})

	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		return nil, fmt.Errorf("read AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("AWS_REGION is not set")
	}

	// The names are resolved once: a queue keeps its URL.
	q := &Queue{observe: func(string, time.Duration, error) {}}
	q.api = sqs.NewFromConfig(cfg, sqs.WithAPIOptions(KeepConnections, q.measure))
	if q.url, err = q.find(ctx, name); err != nil {
		return nil, err
	}
	if q.dlq, err = q.find(ctx, dlq); err != nil {
		return nil, err
	}
	return q, nil
}

// KeepConnections hands the bodies of requests to net/http as the bytes in memory that they are. The SDK wraps them in
// a reader of its own, which it closes as soon as the head of the answer is there. When net/http only then looks
// whether the body has more to come, it takes that for a failure of the request, and closes the connection while the
// answer is still being read (github.com/aws/aws-sdk-go-v2/issues/1825): messages received would be lost until they
// become visible again, and the outcome of a send would be unknown. Besides, a request whose body is known to be in
// memory goes out in one packet with its head.
func KeepConnections(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("KeepConnections", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		if r, ok := in.Request.(*smithyhttp.Request); ok {
			if body, ok := r.GetStream().(*bytes.Reader); ok {
				plain, err := r.SetStream(nil)
				if err != nil {
					return middleware.DeserializeOutput{}, middleware.Metadata{}, err
				}
				own := *body // of this attempt: another one reads the same bytes from their start
				plain.Body, plain.ContentLength = io.NopCloser(&own), int64(own.Len())
				in.Request = plain
			}
		}
		return next.HandleDeserialize(ctx, in)
	}), middleware.After)
}

// Observe has f called after each request, with the name of its operation in SQS, how long it took and how it ended. It
// is called before the queue is used.
func (q *Queue) Observe(f func(call string, took time.Duration, err error)) { q.observe = f }

func (q *Queue) measure(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Measure", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		start := time.Now()
		out, metadata, err := next.HandleInitialize(ctx, in)
		q.observe(middleware.GetOperationName(ctx), time.Since(start), err)
		return out, metadata, err
	}), middleware.Before)
}

// DeadLetters is the dead-letter queue, as a queue to receive from.
func (q *Queue) DeadLetters() *Queue { return &Queue{api: q.api, url: q.dlq, dlq: q.dlq} }

func (q *Queue) find(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := q.api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", fmt.Errorf("find queue %q: %w", name, err)
	}
	return aws.ToString(out.QueueUrl), nil
}

// Ping asks whether the queue answers.
func (q *Queue) Ping(ctx context.Context) error {
	_, err := q.Depth(ctx)
	return err
}

// Depth counts messages. SQS calls its counts approximate: they may lag by up to a minute.
type Depth struct {
	// Visible messages wait, InFlight ones were received and not deleted, Delayed ones are not yet due.
	Visible  int64 `json:"visible"`
	InFlight int64 `json:"in_flight"`
	Delayed  int64 `json:"delayed"`
	// Dead counts the messages of the dead-letter queue, received or not.
	Dead int64 `json:"dead"`
}

// Empty reports whether no order is on its way.
func (d Depth) Empty() bool { return d.Visible+d.InFlight+d.Delayed == 0 }

// Depth reads the lengths of the queue and the dead-letter queue.
func (q *Queue) Depth(ctx context.Context) (Depth, error) {
	n, err := q.Counts(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("read the queue's length: %w", err)
	}
	dead, err := q.DeadLetters().Counts(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("read the dead-letter queue's length: %w", err)
	}
	return Depth{n.Visible, n.InFlight, n.Delayed, dead.Visible + dead.InFlight + dead.Delayed}, nil
}

// Counts are the messages of one queue by state, as in Depth.
type Counts struct{ Visible, InFlight, Delayed int64 }

// Counts reads the length of this queue only.
func (q *Queue) Counts(ctx context.Context) (Counts, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	out, err := q.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: names})
	if err != nil {
		return Counts{}, err
	}
	var n [3]int64
	for i, name := range names {
		if n[i], err = strconv.ParseInt(out.Attributes[string(name)], 10, 64); err != nil {
			return Counts{}, fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return Counts{n[0], n[1], n[2]}, nil
}

// refused reports whether a request that ended with err has certainly had no effect: the service blames the request, or
// there was no connection. An error on the service's own side (5xx, also 503) leaves it open.
func refused(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	var response *awshttp.ResponseError
	var api smithy.APIError
	if !errors.As(err, &response) || !errors.As(err, &api) {
		return false
	}
	status := response.HTTPStatusCode()
	return status >= 400 && status < 500
}
