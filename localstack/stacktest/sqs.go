package stacktest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/internal/queue"
	"stampede/localstack"
	"stampede/localstack/sqs"
)

// QueuePair is a queue and its dead-letter queue.
type QueuePair struct {
	Endpoint string // what AWS_ENDPOINT_URL_SQS takes
	Orders   string // the queue's name
	DLQ      string // the dead-letter queue's name
}

// Env returns the variables ("NAME=value") that lead a program to these queues.
func (q QueuePair) Env() []string {
	return append([]string{"ORDERS_QUEUE=" + q.Orders, "ORDERS_DLQ=" + q.DLQ}, localstack.SQSEnv(q.Endpoint)...)
}

// Client returns an AWS client for the server of these queues.
func (q QueuePair) Client() *awssqs.Client { return localstack.SQSClient(q.Endpoint) }

var queuePairs atomic.Int64

// Queues makes a queue and a dead-letter queue with the attributes that the programs expect. They are the test's own
// and are deleted when it ends. For faults see SQSServer.
func Queues(t testing.TB) QueuePair {
	t.Helper()
	server := SQSServer(t)
	n := queuePairs.Add(1)
	q := QueuePair{
		Endpoint: server.URL(),
		Orders:   fmt.Sprintf("test-%d-orders", n),
		DLQ:      fmt.Sprintf("test-%d-orders-dlq", n),
	}
	client := q.Client()
	if err := queue.Create(t.Context(), client, q.Orders, q.DLQ); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for _, name := range []string{q.Orders, q.DLQ} {
			found, err := client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: aws.String(name)})
			if err == nil {
				_, err = client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: found.QueueUrl})
			}
			if err != nil {
				t.Errorf("deleting queue %s: %v", name, err)
			}
		}
	})
	return q
}

// SQSServer returns the server that all tests share. Faults can be limited to one queue; those that are not, and
// Requests, reach parallel tests as well, which is what NewSQS is for. The test must end its faults before it ends.
func SQSServer(t testing.TB) *sqs.Server {
	t.Helper()
	if running.sqs == nil {
		t.Fatal("TestMain has not asked for stacktest.SQS")
	}
	return running.sqs
}

// NewSQS starts a server for this test alone, without queues. It is closed when the test ends.
func NewSQS(t testing.TB, o sqs.Options) *sqs.Server {
	t.Helper()
	s, err := sqs.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
