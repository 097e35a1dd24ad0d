package sqs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/valyala/fasthttp"

	"stampede/localstack/sqs"
)

// order is a message of one order, which is what the edge sends.
const order = `{"v":1,"orders":[{"order_id":"01890a5d-ac96-774b-bcce-b302099a8057","user_id":7,"product_id":1,"quantity":1,"unit_price":1999,"reserved_at":"2026-11-20T10:00:00.123Z","idempotency_key":"0123456789abcdef"}]}`

// full is the message of a rush: 100 orders.
var full = `{"v":1,"orders":[` + strings.Repeat(order[len(`{"v":1,"orders":[`):len(order)-len(`]}`)]+",", 99) +
	order[len(`{"v":1,"orders":[`):]

// BenchmarkRaw sends, receives and deletes ten messages per round, with as little client as possible.
func BenchmarkRaw(b *testing.B) {
	b.Run("order", func(b *testing.B) { benchmarkRaw(b, order) })
	b.Run("full", func(b *testing.B) { benchmarkRaw(b, full) })
}

func benchmarkRaw(b *testing.B, message string) {
	s := start(b, sqs.Options{})
	client := &fasthttp.Client{
		MaxConnsPerHost: 64,
		// fasthttp's own leaves a goroutine.
		Dial: func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) },
	}
	b.Cleanup(client.CloseIdleConnections)
	post := func(action, body string, into *[]string) error {
		req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
		defer fasthttp.ReleaseRequest(req)
		defer fasthttp.ReleaseResponse(resp)
		req.SetRequestURI(s.URL())
		req.Header.SetMethod("POST")
		req.Header.Set("X-Amz-Target", "AmazonSQS."+action)
		req.Header.SetContentType("application/x-amz-json-1.0")
		req.SetBodyString(body)
		if err := client.Do(req, resp); err != nil || resp.StatusCode() != 200 {
			return fmt.Errorf("%s: %v, %s", action, err, resp.Body())
		}
		if into != nil {
			*into = (*into)[:0]
			// no more of the answer than that, since a decoder would cost more than the server
			for rest := resp.Body(); ; {
				_, after, found := bytes.Cut(rest, []byte(`"ReceiptHandle":"`))
				if !found {
					break
				}
				handle, after, _ := bytes.Cut(after, []byte(`"`))
				*into, rest = append(*into, string(handle)), after
			}
		}
		return nil
	}
	if err := post("CreateQueue", `{"QueueName":"q"}`, nil); err != nil {
		b.Fatal(err)
	}
	text, _ := json.Marshal(message)
	var send strings.Builder
	for i := range 10 {
		fmt.Fprintf(&send, `,{"Id":"%d","MessageBody":%s}`, i, text)
	}
	sendBody := `{"QueueUrl":"http://x/q","Entries":[` + send.String()[1:] + `]}`
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := post("SendMessageBatch", sendBody, nil); err != nil {
				b.Error(err)
			}
			var got []string // receipt handles
			if err := post("ReceiveMessage", `{"QueueUrl":"http://x/q","MaxNumberOfMessages":10}`, &got); err != nil {
				b.Error(err)
			}
			var remove strings.Builder
			for i, handle := range got {
				fmt.Fprintf(&remove, `,{"Id":"%d","ReceiptHandle":"%s"}`, i, handle)
			}
			if remove.Len() == 0 {
				continue
			}
			if err := post("DeleteMessageBatch", `{"QueueUrl":"http://x/q","Entries":[`+remove.String()[1:]+`]}`,
				nil); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)*10/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkSDK does the same through the real client, to tell what the server costs beside it.
func BenchmarkSDK(b *testing.B) {
	s := start(b, sqs.Options{})
	client := newClient(b, s.URL(), 1, localCredentials)
	queue, err := client.CreateQueue(b.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		b.Fatal(err)
	}
	send := &awssqs.SendMessageBatchInput{QueueUrl: queue.QueueUrl}
	for i := range 10 {
		send.Entries = append(send.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)),
			MessageBody: aws.String(order)})
	}
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.SendMessageBatch(b.Context(), send); err != nil {
				b.Error(err)
			}
			got, err := client.ReceiveMessage(b.Context(),
				&awssqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, MaxNumberOfMessages: 10})
			if err != nil || len(got.Messages) == 0 {
				b.Error(err)
				continue
			}
			remove := &awssqs.DeleteMessageBatchInput{QueueUrl: queue.QueueUrl}
			for i, m := range got.Messages {
				remove.Entries = append(remove.Entries,
					types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
			}
			if _, err := client.DeleteMessageBatch(b.Context(), remove); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)*10/b.Elapsed().Seconds(), "messages/s")
}
