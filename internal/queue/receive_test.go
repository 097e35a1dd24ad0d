package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"stampede/internal/queue"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

func mustReceive(t testing.TB, q *queue.Queue, hidden time.Duration) []queue.Message {
	t.Helper()
	messages, err := q.Receive(t.Context(), queue.LongPoll, hidden)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func TestReceiveTellsAllOfAMessage(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, queue.Outgoing{
		Body: "a body with \"quotes\" and ü", Attributes: map[string]string{queue.AttemptsAttribute: "2", "trace": "x"},
	})...)
	m := mustOne(t, mustReceive(t, q, queue.VisibilityTimeout))
	if m.Body != "a body with \"quotes\" and ü" || m.ID == "" || m.Receipt == "" || m.ReceiveCount != 1 ||
		len(m.Attributes) != 2 || m.Attributes[queue.AttemptsAttribute] != "2" || m.Attributes["trace"] != "x" {
		t.Errorf("received %+v", m)
	}
	mustDepth(t, q, queue.Depth{InFlight: 1})

	// Given back, it is there at once, with another receipt and one more receive.
	if err := q.ChangeVisibility(t.Context(), []string{m.Receipt}, 0); err != nil {
		t.Fatal(err)
	}
	again := mustOne(t, mustReceive(t, q, queue.VisibilityTimeout))
	if again.ID != m.ID || again.Receipt == m.Receipt || again.ReceiveCount != 2 {
		t.Errorf("received %+v after %+v", again, m)
	}
}

func TestReceiveHidesForTheTimeGiven(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, queue.Outgoing{Body: "x"})...)
	start := time.Now()
	mustOne(t, mustReceive(t, q, time.Second))
	m := mustOne(t, mustReceive(t, q, time.Second))
	if took := time.Since(start); took < time.Second || m.ReceiveCount != 2 {
		t.Errorf("received for the %d. time after %v", m.ReceiveCount, took)
	}
}

func TestHideProlongs(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, queue.Outgoing{Body: "x"})...)
	start := time.Now()
	m := mustOne(t, mustReceive(t, q, time.Second))
	if err := q.ChangeVisibility(t.Context(), []string{m.Receipt}, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	mustOne(t, mustReceive(t, q, queue.VisibilityTimeout))
	if took := time.Since(start); took < 3*time.Second {
		t.Errorf("it was visible after %v", took)
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := q.Receive(ctx, queue.LongPoll, queue.VisibilityTimeout)
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it goes on waiting")
	}
	server.RefuseNext("ReceiveMessage", 1)
	if _, err := q.Receive(t.Context(), queue.LongPoll, queue.VisibilityTimeout); err == nil {
		t.Error("a refused receive is no error")
	}
}

func receiveAll(t testing.TB, q *queue.Queue, n int) []string {
	t.Helper()
	var receipts []string
	for len(receipts) < n {
		receipts = append(receipts, receiptsOf(mustReceive(t, q, queue.VisibilityTimeout))...)
	}
	return receipts
}

func TestDeleteTakesAnyNumberOfMessages(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(23)...)...)
	receipts := receiveAll(t, q, 23)
	if err := q.Delete(t.Context(), receipts); err != nil {
		t.Fatal(err)
	}
	mustDepth(t, q, queue.Depth{})
	if n := server.Requests()["DeleteMessageBatch"]; n != 3 {
		t.Errorf("%d requests", n)
	}
	if err := q.Delete(t.Context(), receipts); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	if err := q.Delete(t.Context(), nil); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
}

func TestDeleteSaysWhatWasNotDeleted(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(23)...)...)
	receipts := receiveAll(t, q, 23)
	receipts[4] = "nonsense"
	if err := q.Delete(t.Context(), receipts[:15]); err == nil || !strings.Contains(err.Error(), "refused 1") {
		t.Errorf("error: %v", err)
	}
	mustDepth(t, q, queue.Depth{InFlight: 9})
	// A request that fails for good does not keep the others from being made.
	server.RefuseNext("DeleteMessageBatch", queue.MaxRefusals)
	if err := q.Delete(t.Context(), receipts[5:]); err == nil {
		t.Error("no error")
	}
	mustDepth(t, q, queue.Depth{InFlight: 1})
}

// TestDeletePersists: refusals, of requests and of entries, and lost answers are repeated, each entry until it is done.
func TestDeletePersists(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(40)...)...)
	receipts := receiveAll(t, q, 40)
	server.RefuseNext("DeleteMessageBatch", queue.MaxRefusals-1)
	if err := q.Delete(t.Context(), receipts[:10]); err != nil {
		t.Error(err)
	}
	server.LoseNext("DeleteMessageBatch", 1)
	if err := q.Delete(t.Context(), receipts[10:20]); err != nil {
		t.Error(err)
	}
	server.SetFaults(sqs.Faults{Actions: []string{"DeleteMessageBatch"}, FailEntry: .3})
	if err := q.Delete(t.Context(), receipts[20:]); err != nil && !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	server.SetFaults(sqs.Faults{})
	if d, err := q.Depth(t.Context()); err != nil || d.InFlight > 4 { // of 20, with three attempts each
		t.Errorf("%+v are left, %v", d, err)
	}
}

func TestHideIsBoundedByItsContext(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, numbered(40)...)...)
	receipts := receiveAll(t, q, 40)
	server.SetFaults(sqs.Faults{Delay: time.Minute})
	defer server.SetFaults(sqs.Faults{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := q.ChangeVisibility(ctx, receipts, 0)
	if err == nil || strings.Count(err.Error(), "\n") > 1 {
		t.Errorf("error: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestADeadLetterHasItsReason(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ reason, want string }{
		"plain":              {"it is broken", "it is broken"},
		"not ASCII":          {"l'état, 状態, 🙂", "l'état, 状態, 🙂"},
		"control characters": {"a\x00b\nc\x1bd\uFFFEe\uFFFFf", "a?b?c?d?e?f"},
		"not UTF-8":          {"a\xff\xfeb", "a??b"},
		"long":               {strings.Repeat("x", 5000), strings.Repeat("x", queue.MaxReasonBytes)},
		"long and not ASCII": {"x" + strings.Repeat("語", 1700), "x" + strings.Repeat("語", (queue.MaxReasonBytes-1)/3)},
		"long and four bytes": {"xx" + strings.Repeat("🙂", 1250), "xx" +
			strings.Repeat("🙂", (queue.MaxReasonBytes-2)/4)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := newQueue(t)
			if err := q.DeadLetter(t.Context(), "the body", test.reason, 0); err != nil {
				t.Fatal(err)
			}
			mustDepth(t, q, queue.Depth{Dead: 1})
			m := mustOne(t, deadLetters(t, q))
			if got := m.Attributes[queue.ReasonAttribute]; m.Body != "the body" || got != test.want {
				t.Errorf("body %q, reason %q, want %q", m.Body, got, test.want)
			}
		})
	}
}

// Whatever could be received can become a dead letter, also if it is as large as a message may be.
func TestADeadLetterMayBeAsLargeAsAMessage(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	reason := strings.Repeat("é", 400)
	for _, missing := range []int{0, 1, 20, 40, 500, 2000} {
		body := strings.Repeat("x", 1<<20-missing)
		if err := q.DeadLetter(t.Context(), body, reason, 0); err != nil {
			t.Errorf("a body of 1 MiB - %d bytes: %v", missing, err)
			continue
		}
		// On a machine that is busy, an answer that came too late makes it two.
		letters := deadLetters(t, q)
		if len(letters) == 0 {
			t.Fatal("there is no dead letter")
		}
		m := letters[0]
		got := m.Attributes[queue.ReasonAttribute]
		if m.Body != body || !strings.HasPrefix(reason, got) || !utf8.ValidString(got) {
			t.Errorf("1 MiB - %d bytes: a body of %d bytes with the reason %q", missing, len(m.Body), got)
		}
		if want := min(len(reason), max(0, missing-len(queue.ReasonAttribute)-len("String"))/2*2); len(got) != want {
			t.Errorf("1 MiB - %d bytes: the reason has %d bytes, want %d", missing, len(got), want)
		}
	}
}

func TestADeadLetterThatIsRefusedIsAnError(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	server.SetFaults(sqs.Faults{Queue: dlqName, Refuse: 1})
	if err := q.DeadLetter(t.Context(), "x", "y", 0); err == nil {
		t.Error("no error")
	}
	server.SetFaults(sqs.Faults{})
	server.LoseNext("SendMessageBatch", 1)
	if err := q.DeadLetter(t.Context(), "x", "y", 0); err != nil {
		t.Error(err)
	}
	mustDepth(t, q, queue.Depth{Dead: 2})
}

func TestDepthCountsMessagesByState(t *testing.T) {
	t.Parallel()
	q, server := newQueue(t)
	if d := (queue.Depth{}); !d.Empty() || !(queue.Depth{Dead: 3}).Empty() {
		t.Error("an empty queue is not empty")
	}
	mustBe(t, queue.Sent, send(t, q, 10*time.Second, append(numbered(12),
		queue.Outgoing{Body: "later", Delay: time.Minute})...)...)
	stacktest.Eventually(t, 10*time.Second, func() error {
		if n := len(mustReceive(t, q, queue.VisibilityTimeout)); n == 0 {
			return fmt.Errorf("nothing received")
		}
		return nil
	})
	if err := q.DeadLetter(t.Context(), "x", "y", 0); err != nil {
		t.Fatal(err)
	}
	mustDepth(t, q, queue.Depth{Visible: 2, InFlight: 10, Delayed: 1, Dead: 1})
	for _, d := range []queue.Depth{{Visible: 1}, {InFlight: 1}, {Delayed: 1}} {
		if d.Empty() {
			t.Errorf("%+v is empty", d)
		}
	}
	if err := q.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	server.RefuseNext("GetQueueAttributes", 1)
	if err := q.Ping(t.Context()); err == nil {
		t.Error("a queue that refuses to answer is fine")
	}
}
