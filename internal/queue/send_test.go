package queue_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

func numbered(n int) []queue.Outgoing {
	messages := make([]queue.Outgoing, n)
	for i := range messages {
		messages[i].Body = fmt.Sprint("message ", i)
	}
	return messages
}

func TestSendPutsEveryMessageOnTheQueueOnce(t *testing.T) {
	t.Parallel()
	q, f := newFront(t)
	messages := numbered(25)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, messages...)...)

	var sizes []int
	for _, request := range f.requests() {
		sizes = append(sizes, len(request))
	}
	if !slices.Equal(sizes, []int{10, 10, 5}) {
		t.Errorf("requests hold %v messages, want 10, 10 and 5", sizes)
	}
	got := bodiesOf(drain(t, q))
	for _, m := range messages {
		if got[m.Body] != 1 {
			t.Errorf("%q is on the queue %d times", m.Body, got[m.Body])
		}
	}
}

func TestSendOrders(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	var orders []order.Order
	for i := range 250 {
		orders = append(orders, order.Order{ID: order.NewID(), UserID: order.UserID(i + 1), StockID: 1, Quantity: 1,
			ReservedAt: time.Now()})
	}
	if err := q.SendOrders(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
	received := 0
	for _, m := range drain(t, q) {
		decoded, err := order.Decode([]byte(m.Body))
		if err != nil {
			t.Error(err)
		}
		received += len(decoded)
	}
	if n := server.Requests()["SendMessageBatch"]; received != 250 || n != 1 {
		t.Errorf("%d orders in %d requests", received, n)
	}
	server.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, Refuse: 1, RefuseWith: "OverLimit"})
	if err := q.SendOrders(t.Context(), orders); err == nil {
		t.Error("orders that were refused are sent")
	}
}

func TestSendOfNothing(t *testing.T) {
	t.Parallel()
	q, f := newFront(t)
	send(t, q, time.Second)
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests for no message", n)
	}
}

// SQS refuses a whole request over 1 MiB, however small its messages are, and counts attributes.
func TestSendSplitsRequestsBySize(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		messages []queue.Outgoing
		requests []int
	}{
		"bodies": {messagesOf(slices.Repeat([]string{strings.Repeat("x", 400<<10)}, 5)...), []int{2, 2, 1}},
		"the largest message": {
			messagesOf("small", strings.Repeat("x", 1<<20), "small"), []int{1, 1, 1},
		},
		"attributes": {slices.Repeat([]queue.Outgoing{{
			Body: strings.Repeat("x", 100<<10), Attributes: map[string]string{"a": strings.Repeat("y", 100<<10)},
		}}, 6), []int{5, 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, f := newFront(t)
			mustBe(t, queue.Sent, send(t, q, 10*time.Second, test.messages...)...)
			var sizes []int
			for _, request := range f.requests() {
				sizes = append(sizes, len(request))
			}
			if !slices.Equal(sizes, test.requests) {
				t.Errorf("requests hold %v messages, want %v", sizes, test.requests)
			}
		})
	}
}

func TestAMessageThatIsTooLargeIsRefusedAlone(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	results := send(t, q, 10*time.Second, messagesOf("before", strings.Repeat("x", 1<<20+1), "after")...)
	mustBe(t, queue.Sent, results[0], results[2])
	mustBe(t, queue.Refused, results[1])
}

func TestARefusalIsRepeatedAFewTimesAndThenFinal(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 403, 404, 413, 429} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			q, f := newFront(t, slices.Repeat([]step{status(code)}, 2*queue.MaxRefusals)...)
			mustBe(t, queue.Refused, send(t, q, 10*time.Second, numbered(2)...)...)
			if n := len(f.requests()); n != queue.MaxRefusals {
				t.Errorf("%d attempts, want %d", n, queue.MaxRefusals)
			}
			mustDepth(t, q, queue.Depth{})
		})
	}
}

func TestARefusalThatPassesIsNoRefusal(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	server.RefuseNext("SendMessageBatch", queue.MaxRefusals-1)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(3)...)...)
	mustDepth(t, q, queue.Depth{Visible: 3})
}

// An answer that does not say whether the messages are on the queue leaves it unknown.
func TestAnInternalErrorOrATimeOutIsUnknown(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]step{
		"500": status(500), "502": status(502), "503": status(503), "504": status(504),
		"an entry that failed by no fault of ours": failEntries(func(string) bool {
			return true
		}), "no answer": hang, "reset": reset,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, f := newFront(t, slices.Repeat([]step{s}, 100)...)
			start := time.Now()
			mustBe(t, queue.Unknown, send(t, q, 500*time.Millisecond, numbered(2)...)...)
			if n := len(f.requests()); n < 1 || n >= 100 {
				t.Errorf("%d attempts", n)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Within the deadline a lost answer is no reason to give up, though the message may then be there twice.
func TestALostAnswerIsRepeated(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps  []step
		copies int64
	}{
		"after its effect":        {[]step{reset, reset, reset, reset}, 5},
		"without effect":          {[]step{status(500), status(504), status(500), status(500)}, 1},
		"among refusals":          {[]step{status(403), status(500), status(403), status(502)}, 1},
		"slower than one call":    {[]step{hang}, 1},
		"refused, then sent":      {[]step{status(403), status(403)}, 1},
		"lost, then acknowledged": {[]step{reset, status(403)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := newFront(t, test.steps...)
			mustBe(t, queue.Sent, send(t, q, 20*time.Second, queue.Outgoing{Body: "x"})...)
			mustDepth(t, q, queue.Depth{Visible: test.copies})
		})
	}
}

// The rule that keeps an order from being cancelled while its message is on the queue.
func TestARefusalAfterAnUnknownAttemptIsUnknown(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]step{
		"first":  {reset, status(403), status(400), status(403)},
		"middle": {status(403), reset, status(400), status(403)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, f := newFront(t, steps...)
			mustBe(t, queue.Unknown, send(t, q, 10*time.Second, queue.Outgoing{Body: "x"})...)
			if n := len(f.requests()); n != len(steps) {
				t.Errorf("%d attempts, want %d", n, len(steps))
			}
			mustDepth(t, q, queue.Depth{Visible: 1})
		})
	}
}

func TestRefusalsUntilTheDeadlineAreRefused(t *testing.T) {
	t.Parallel()
	// The waits between attempts are random, and may be so short that the refusals run out first.
	for range 20 {
		q, f := newFront(t, status(403), status(403), status(403))
		mustBe(t, queue.Refused, send(t, q, 20*time.Millisecond, queue.Outgoing{Body: "x"})...)
		if len(f.requests()) < queue.MaxRefusals {
			return // the deadline came first
		}
	}
	t.Error("the deadline never came before the last refusal")
}

func TestOnlyTheEntriesThatFailedAreRepeated(t *testing.T) {
	t.Parallel()
	odd := func(id string) bool { return strings.Contains("13579", id) }
	q, f := newFront(t, failEntries(odd), failEntries(odd))
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(10)...)...)
	requests := f.requests()
	want := [][]string{
		nil,
		{"message 1", "message 3", "message 5", "message 7", "message 9"},
		{"message 3", "message 7"}, // the second and fourth entry of that request
	}
	if len(requests) != len(want) {
		t.Fatalf("%d requests, want %d", len(requests), len(want))
	}
	for i := 1; i < len(want); i++ {
		if !slices.Equal(requests[i], want[i]) {
			t.Errorf("request %d holds %q, want %q", i, requests[i], want[i])
		}
	}
}

// Each message has a fate of its own, and what is told of it is so.
func TestTheOutcomeOfEachEntryIsTrue(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	server.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, FailEntry: 0.7, Seed: 7,
		RefuseWith: "OverLimit"})
	messages := numbered(60)
	results := send(t, q, 10*time.Second, messages...)
	got := bodiesOf(drain(t, q))
	var sent, refused int
	for i, r := range results {
		switch r.Outcome {
		case queue.Sent:
			sent++
		case queue.Refused:
			refused++
			if _, ok := errors.AsType[*queue.EntryError](r.Err); !ok {
				t.Errorf("the error of message %d is %v", i, r.Err)
			}
		default:
			t.Errorf("message %d: outcome %v", i, r.Outcome)
		}
		if want := map[queue.Outcome]int{queue.Sent: 1}[r.Outcome]; got[messages[i].Body] != want {
			t.Errorf("message %d has outcome %v and is on the queue %d times", i, r.Outcome, got[messages[i].Body])
		}
	}
	if sent == 0 || refused == 0 {
		t.Errorf("%d sent and %d refused prove nothing", sent, refused)
	}
}

func TestARefusedConnectionIsARefusal(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	// A request on a connection from before the end gets no answer, which is another matter.
	stacktest.Eventually(t, 10*time.Second, func() error {
		if err := q.Ping(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	})
	start := time.Now()
	mustBe(t, queue.Refused, send(t, q, 10*time.Second, numbered(12)...)...)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A caller may answer its clients as soon as their own messages are safe.
func TestDoneIsCalledAsSoonAsAResultIsFinal(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	wait := func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		passOn(w, r, pass)
	}
	q, f := newFront(t, failEntries(func(id string) bool { return id == "4" }), wait)
	results := make(chan int, 20)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		q.Send(t.Context(), numbered(20), func(i int, r queue.Result) {
			if r.Outcome == queue.Sent {
				results <- i
			}
		})
	}()
	// The second request is under way, and nine messages of the first are done with.
	stacktest.Eventually(t, 10*time.Second, func() error {
		if n := len(f.requests()); n < 2 || len(results) < 9 {
			return fmt.Errorf("%d requests, %d results", n, len(results))
		}
		return nil
	})
	if n := len(results); n != 9 {
		t.Errorf("%d results before the second request was answered, want 9", n)
	}
	close(release)
	<-finished
	if n := len(results); n != 20 {
		t.Errorf("%d messages were sent, want 20", n)
	}
}

func TestAMessageIsDelayedByWholeSeconds(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	start := time.Now()
	mustBe(t, queue.Sent, send(t, q, 10*time.Second,
		queue.Outgoing{Body: "at once", Delay: 999 * time.Millisecond},
		queue.Outgoing{Body: "later", Delay: 1999 * time.Millisecond})...)
	mustDepth(t, q, queue.Depth{Visible: 1, Delayed: 1})
	if m := mustOne(t, drain(t, q)); m.Body != "at once" {
		t.Errorf("received %q first", m.Body)
	}
	messages, err := q.Receive(t.Context(), queue.LongPoll, queue.VisibilityTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if m := mustOne(t, messages); m.Body != "later" || time.Since(start) < time.Second {
		t.Errorf("received %q after %v", m.Body, time.Since(start))
	}
}

// TestEachProductIsAGroup: SQS's fair queues go by the group.
func TestEachProductIsAGroup(t *testing.T) {
	t.Parallel()
	orders := make([]order.Order, 3)
	for i, product := range []order.StockID{7, 7, order.ProductID(8).Bucket(2)} {
		orders[i] = order.Order{ID: order.NewID(), UserID: 1, StockID: product, Quantity: 1, ReservedAt: time.Now()}
	}
	q, server := newQueue(t)
	if err := q.SendOrders(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
	client := localstack.SQSClient(server.URL())
	url, err := client.GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(ordersName)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{
		QueueUrl: url.QueueUrl, MaxNumberOfMessages: 10,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageGroupId},
	})
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for _, m := range got.Messages {
		groups = append(groups, m.Attributes["MessageGroupId"])
	}
	if slices.Sort(groups); !slices.Equal(groups, []string{"7", "8"}) {
		t.Errorf("the messages are of the groups %q", groups)
	}
}
