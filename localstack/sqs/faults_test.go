package sqs_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"stampede/localstack/sqs"
)

// local starts a server of its own for a test, with a client that tries once.
func local(t *testing.T, f *sqs.Faults) (*lab, *sqs.Server) {
	t.Helper()
	s := start(t, sqs.Options{Faults: f})
	return &lab{t, newClient(t, s.URL(), 1, localCredentials), true}, s
}

// sendN sends messages with their numbers as bodies.
func (l *lab) sendN(url string, n int) {
	l.Helper()
	for i := range n {
		l.send(url, strconv.Itoa(i))
	}
}

func (l *lab) trySend(url string) error {
	_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
	return err
}

func TestDuplicate(t *testing.T) {
	t.Parallel()
	l, _ := local(t, &sqs.Faults{Duplicate: 1})
	url := l.queue(nil)
	id := l.send(url, "x")
	first := l.receive(url, 1, 0)[0]
	second := l.receive(url, 1, 0)[0] // While the first is in flight.
	if *first.MessageId != id || *second.MessageId != id || *first.ReceiptHandle == *second.ReceiptHandle {
		t.Errorf("got %+v and %+v", first, second)
	}
	l.receive(url, 0, 0)
	l.remove(url, first)
	l.must(l.change(url, second, 0)) // Deleting one leaves the other.
	second = l.receive(url, 1, 0)[0]
	l.remove(url, second)
	l.receive(url, 0, 0)
}

func TestReorder(t *testing.T) {
	t.Parallel()
	order := func(f *sqs.Faults) (bodies []string) {
		l, _ := local(t, f)
		url := l.queue(nil)
		l.sendN(url, 30)
		for range 3 {
			for _, m := range l.receive(url, 10, 0) {
				bodies = append(bodies, *m.Body)
			}
		}
		return bodies
	}
	var sent []string
	for i := range 30 {
		sent = append(sent, strconv.Itoa(i))
	}
	if got := order(nil); !slices.Equal(got, sent) {
		t.Errorf("without the fault: %v", got)
	}
	first, again := order(&sqs.Faults{Reorder: 1, Seed: 7}), order(&sqs.Faults{Reorder: 1, Seed: 7})
	if slices.Equal(first, sent) || !slices.Equal(first, again) {
		t.Errorf("one seed gave %v and %v", first, again)
	}
	if other := order(&sqs.Faults{Reorder: 1, Seed: 8}); slices.Equal(first, other) {
		t.Error("two seeds gave the same order")
	}
	slices.Sort(first)
	slices.Sort(sent)
	if !slices.Equal(first, sent) {
		t.Error("reordering lost or doubled a message")
	}
}

func TestDelayedAnswer(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	s.SetFaults(sqs.Faults{Actions: []string{"SendMessage"}, Delay: 300 * time.Millisecond})
	begin := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- l.trySend(url) }()
	l.receive(url, 1, 5) // The effect comes before the answer.
	l.must(<-sent)
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("the answer came after %v", took)
	}
}

func TestLostAnswer(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	lost := func(err error) {
		t.Helper()
		var api smithy.APIError
		if err == nil || errors.As(err, &api) {
			t.Errorf("got %v, want a broken connection", err)
		}
	}
	s.LoseNext("SendMessage", 1)
	lost(l.trySend(url))
	l.must(l.trySend(url))
	l.receive(url, 2, 0)
	s.SetFaults(sqs.Faults{Lose: 1, Actions: []string{"SendMessage"}})
	lost(l.trySend(url))
	s.SetFaults(sqs.Faults{})
	l.receive(url, 1, 0)
	if n := s.Requests()["SendMessage"]; n != 3 {
		t.Errorf("%d requests counted", n)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url, other := l.queue(nil), l.queue(nil)
	s.RefuseNext("SendMessage", 2)
	for range 2 {
		refused[*types.OverLimit](t, l.trySend(url), "OverLimit")
	}
	s.SetFaults(sqs.Faults{Refuse: 1, RefuseWith: "OverLimit", Actions: []string{"SendMessage"},
		Queue: url[len(s.URL())+len("/000000000000/"):]})
	refused[*types.OverLimit](t, l.trySend(url), "OverLimit")
	l.must(l.trySend(other)) // Another queue is spared.
	l.receive(url, 0, 0)     // And so is another action.
	s.SetFaults(sqs.Faults{})
	l.must(l.trySend(url))
	l.receive(url, 1, 0)

	s.SetFaults(sqs.Faults{Refuse: 1, Actions: []string{"SendMessage"}})
	refused[generic](t, l.trySend(url), "ServiceUnavailable")
}

func TestRefuseProbability(t *testing.T) {
	t.Parallel()
	l, _ := local(t, &sqs.Faults{Refuse: 0.5, Actions: []string{"SendMessage"}, Seed: 1})
	url := l.queue(nil)
	accepted := 0
	for range 200 {
		if l.trySend(url) == nil {
			accepted++
		}
	}
	if accepted < 70 || accepted > 130 {
		t.Errorf("%d of 200 accepted", accepted)
	}
	if got := l.attributes(url)["ApproximateNumberOfMessages"]; got != strconv.Itoa(accepted) {
		t.Errorf("%s arrived, %d accepted", got, accepted)
	}
}

func TestFailedEntries(t *testing.T) {
	t.Parallel()
	l, s := local(t, &sqs.Faults{FailEntry: 0.5, Seed: 3})
	url := l.queue(nil)
	var entries []types.SendMessageBatchRequestEntry
	for i := range 10 {
		entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)),
			MessageBody: aws.String(strconv.Itoa(i))})
	}
	out, err := l.SendMessageBatch(t.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
	l.must(err)
	if len(out.Failed) == 0 || len(out.Successful) == 0 || len(out.Failed)+len(out.Successful) != 10 {
		t.Fatalf("got %d and %d", len(out.Successful), len(out.Failed))
	}
	for _, f := range out.Failed {
		if f.SenderFault || *f.Code != "InternalError" {
			t.Errorf("got %+v", f)
		}
	}
	s.SetFaults(sqs.Faults{FailEntry: 1})
	messages := l.receive(url, len(out.Successful), 0)
	deleted, err := l.DeleteMessageBatch(t.Context(), &awssqs.DeleteMessageBatchInput{QueueUrl: &url,
		Entries: []types.DeleteMessageBatchRequestEntry{
			{Id: aws.String("0"), ReceiptHandle: messages[0].ReceiptHandle},
		}})
	l.must(err)
	if len(deleted.Failed) != 1 {
		t.Errorf("got %+v", deleted)
	}
	l.must(l.change(url, messages[0], 0))
	l.receive(url, 1, 0)
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	waiting := make(chan error, 1)
	go func() {
		_, err := l.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 1})
		waiting <- err
	}()
	l.eventually("the receive waits", func() bool { return s.Waiting() == 1 })
	s.SetFaults(sqs.Faults{Unavailable: true})
	if err := l.trySend(url); err == nil {
		t.Error("a request was answered")
	}
	if err := <-waiting; err == nil {
		t.Error("a waiting receive was answered")
	}
	s.SetFaults(sqs.Faults{})
	l.receive(url, 0, 0)
	l.must(l.trySend(url))
	l.receive(url, 1, 0)
}

func TestUnknownActionPanics(t *testing.T) {
	t.Parallel()
	_, s := local(t, nil)
	defer func() {
		if recover() == nil {
			t.Error("a misspelt action went unnoticed")
		}
	}()
	s.LoseNext("SendMesage", 1)
}

// A receive whose client has gone must not take messages: they would stay in flight with nobody.
func TestClientGone(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	l := &lab{t, newClient(t, s.URL(), 1, localCredentials), true}
	url := l.queue(nil)
	t.Run("dies", func(t *testing.T) {
		dying := newClient(t, s.URL(), 1, localCredentials)
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(ended)
			_, _ = dying.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
		}()
		l.eventually("the receive waits", func() bool { return s.Waiting() == 1 })
		cancel()
		<-ended
	})
	l.must(l.trySend(url))
	l.receive(url, 1, 0)
}
