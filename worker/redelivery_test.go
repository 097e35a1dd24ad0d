package main

import (
	"testing"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/internal/order"
	"stampede/localstack"
	"stampede/localstack/sqs"
)

func TestAMessageThatComesTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ReceiveMessage"}, Duplicate: 1, Seed: 1})
	p := r.product(250, 0)
	orders := r.reserve(p.ID, 200, 1)
	w := r.start()
	r.send(10, orders...)
	r.quiet(w)
	r.mustBe("", orders...)
	if l := r.level(p.ID); l.Available != 50 {
		t.Errorf("Redis has %+v", l)
	}
	mustCount(t, 200, "decisions", decisions, w)
	mustCount(t, 200, "repeated", repeated, w)
	mustCount(t, 0, "units given back", givenBack, w)
	mustCount(t, 0, "units taken out", takenOut, w)
}

func TestTheOrderOfMessagesDoesNotMatter(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 100, 1)
	// The messages come twice, and the second copy of one before the first of another.
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ReceiveMessage"}, Reorder: 1, Duplicate: 0.3, Seed: 9})
	r.send(1, orders...)
	r.enqueue(3, orders...)
	w := r.start()
	r.quiet(w)
	r.mustBe("", orders...)
	mustCount(t, 100, "decisions", decisions, w)
	if l := r.level(p.ID); l.Available != 0 {
		t.Errorf("Redis has %+v", l)
	}
}

// A worker died after its commit and before it could settle. The worker that receives the message next
// settles for it. If the first was only slow, it finds that out and takes nothing.
func TestADecisionThatWasNotSettledIsSettledByTheNextWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 2, 3)
	first, err := r.ledger.Decide(t.Context(), p.ID, orders)
	if err != nil {
		t.Fatal(err)
	}
	r.send(2, orders...)
	w := r.start()
	r.quiet(w)
	r.mustBe("", orders...)
	mustCount(t, 0, "decisions", decisions, w)
	mustCount(t, 2, "repeated", repeated, w)
	for _, o := range orders {
		if !r.hasTombstone(o) {
			t.Error("nothing is left for the decider to find")
		}
	}
	late, err := r.stock.Settle(t.Context(), p.ID, first)
	if err != nil {
		t.Fatal(err)
	}
	if late.TakenOut != 0 || late.GivenBack != 0 || r.level(p.ID).Available != 4 {
		t.Errorf("the decider's late settling moved %+v; Redis has %+v", late, r.level(p.ID))
	}
	r.audit()
}

// The same with a decision against the orders.
func TestAFailureThatWasNotSettledIsSettledByTheNextWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 1, 3)
	first, err := r.ledger.Fail(t.Context(), orders[0], order.DeadLetter)
	if err != nil {
		t.Fatal(err)
	}
	r.send(1, orders...)
	w := r.start()
	r.quiet(w)
	r.mustBe(order.DeadLetter, orders...)
	if late, err := r.stock.Settle(t.Context(), p.ID, []order.Decision{first}); err != nil || late.GivenBack != 0 {
		t.Errorf("settling again gave back %+v (%v)", late, err)
	}
	r.audit()
}

// Its orders may have killed the worker that had it, so that none may take others down with it.
func TestAMessageThatComesBackIsWorkedOrderByOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 8, 1)
	r.send(8, orders...)
	out, err := r.aws.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: r.url(localstack.QueueName)})
	if err != nil || len(out.Messages) != 1 {
		t.Fatal(out, err)
	}
	_, err = r.aws.ChangeMessageVisibility(t.Context(), &awssqs.ChangeMessageVisibilityInput{
		QueueUrl: r.url(localstack.QueueName), ReceiptHandle: out.Messages[0].ReceiptHandle, VisibilityTimeout: 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := r.start()
	r.quiet(w)
	r.mustBe("", orders...)
	if n := r.transactions(p.ID); n != len(orders) {
		t.Errorf("%d transactions for %d orders", n, len(orders))
	}
	mustCount(t, len(orders), "batches", batches, w)
}

// A message that cannot be deleted costs no place among the messages held, and nothing when it comes
// back.
func TestAMessageThatCannotBeDeletedComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"DeleteMessageBatch"}, Refuse: 1})
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 30, 1)
	w := r.start(impatient)
	r.send(1, orders...)
	r.eventuallyTrue("messages come back", func() bool { return value(t, w.metrics.repeated) >= 30 })
	r.sqs.SetFaults(sqs.Faults{})
	r.quiet(w)
	r.mustBe("", orders...)
	mustCount(t, 30, "decisions", decisions, w)
}
