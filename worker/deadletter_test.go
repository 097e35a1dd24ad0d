package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/localstack"
	"stampede/localstack/sqs"
)

// sabotage makes the database refuse the rows of some orders, as a fault of their own would.
func (r *rig) sabotage(condition string) {
	r.t.Helper()
	r.exec(`CREATE TRIGGER sabotage BEFORE INSERT ON orders FOR EACH ROW
		BEGIN IF ` + condition + ` THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = 'sabotage'; END IF; END`)
}

// completing is the condition that keeps a user's orders from being completed, but not from failing.
func completing(o order.Order) string {
	return fmt.Sprintf("NEW.user_id = %d AND NEW.status = 'completed'", o.UserID)
}

// refuse makes the database refuse orders for a reason that nobody has foreseen.
func (r *rig) refuse(condition string) {
	r.t.Helper()
	r.exec(`CREATE TRIGGER sabotage BEFORE INSERT ON orders FOR EACH ROW
		BEGIN IF ` + condition + ` THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1105, MESSAGE_TEXT = 'sabotage'; END IF; END`)
}

// TestAnUnforeseenReasonOfOneOrder: what one order fails for, and a sound one does not, is its own reason, though
// nobody has listed it. It stops no other order, neither those in its message nor those of other products.
func TestAnUnforeseenReasonOfOneOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, other := r.product(100, 0), r.product(100, 0)
	orders, others := r.reserve(p.ID, 10, 1), r.reserve(other.ID, 10, 1)
	r.refuse(completing(orders[4]))
	w := r.start(func(w *Worker) { w.attemptPause, w.productPause = 0, 10*time.Millisecond })
	r.send(10, orders...)
	r.send(10, others...)
	r.quiet(w)

	r.mustBe(order.DeadLetter, orders[4])
	r.mustBe("", slices.Concat(orders[:4], orders[5:], others)...)
	r.audit()
	if n := w.breaker.pause; n != 0 {
		t.Error("receiving has stopped for one order's sake")
	}
}

// TestAnUnforeseenReasonInADeadLetter: the same, of an order that no worker has decided and the queue has given up.
func TestAnUnforeseenReasonInADeadLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 2, 1)
	r.refuse(completing(orders[0]))
	r.send(2, orders...)
	r.giveUp()
	w := r.reconciling()
	w.productPause = 10 * time.Millisecond
	w.handleDeadLetters(t.Context())

	r.mustBe(order.DeadLetter, orders[0])
	r.mustBe("", orders[1])
	r.audit()
}

// TestABrokenProductStopsNoOther: a product of which no order can be decided waits alone.
func TestABrokenProductStopsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, other := r.product(100, 0), r.product(100, 0)
	orders, others := r.reserve(p.ID, 10, 1), r.reserve(other.ID, 10, 1)
	r.refuse(fmt.Sprintf("NEW.product_id = %d", p.ID))
	w := r.start(func(w *Worker) { w.productPause = 10 * time.Millisecond })
	r.send(5, orders...)
	r.eventuallyTrue("it has been tried several times", func() bool { return value(t, w.metrics.decideSeconds) > 10 })
	r.send(10, others...)
	r.eventuallyTrue("those of the other product are decided", func() bool {
		return r.level(other.ID).Reservations == 0
	})
	r.mustBe("", others...)
	r.mustBePending(orders...)
	w.breaker.mu.Lock()
	if w.breaker.pause > minProbeWait {
		t.Error("receiving has stopped more than once")
	}
	w.breaker.mu.Unlock()

	r.exec("DROP TRIGGER sabotage")
	r.quiet(w)
	r.mustBe("", orders...)
}

func TestAMessageThatCannotBeDecodedIsADeadLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 40, 1)
	broken := []string{
		"nonsense\x0bwith control characters and ü",
		`{"v":2,"orders":[]}`, `{"v":1,"orders":[]}`, `{"v":1,"orders":[{"order_id":"x"}]}`,
		strings.Repeat("x", order.MaxMessageBytes+1), strings.Repeat("y", 1<<20),
	}
	// XML's characters are all that SQS takes.
	broken[0] = strings.ReplaceAll(broken[0], "\x0b", "\t")
	for i, body := range broken {
		r.sendMessages(queue.Outgoing{Body: body})
		r.send(1, orders[i*5:i*5+5]...)
	}
	r.send(1, orders[30:]...)
	w := r.start()
	r.quiet(w)
	r.mustBe("", orders...)
	letters := r.deadLetters()
	if len(letters) != len(broken) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(broken))
	}
	for _, l := range letters {
		if !slices.Contains(broken, l.body) {
			t.Errorf("a dead letter's body is not what came: %.60q", l.body)
		}
		if len(l.body) < 1<<20 && !strings.Contains(l.reason, "cannot be decoded") {
			t.Errorf("the reason for %.60q is %q", l.body, l.reason)
		}
	}
	mustCount(t, len(broken), "dead letters", deadLetters, w)
}

// The dead-letter queue is out of order: the message stays where it is, and the others are decided.
func TestAMessageThatCannotBecomeADeadLetterComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.sqs.SetFaults(sqs.Faults{Queue: localstack.DLQName, Actions: []string{"SendMessageBatch"}, Refuse: 1,
		RefuseWith: "OverLimit"})
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 5, 1)
	w := r.start(impatient)
	r.sendMessages(queue.Outgoing{Body: "nonsense"})
	r.send(1, orders...)
	r.eventuallyTrue("the orders are settled", func() bool { return r.level(p.ID).Reserved == 0 && w.held.len() == 0 })
	if d := r.depth(); d.Empty() || d.Dead != 0 {
		t.Errorf("the queues have %+v", d)
	}
	r.sqs.SetFaults(sqs.Faults{})
	r.quiet(w)
	r.mustBe("", orders...)
	if n := len(r.deadLetters()); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}

func TestAnOrderThatFailsForItsOwnReasonFailsAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 5)
	orders := r.reserve(p.ID, 7, 2)
	bad, good := orders[3], slices.Concat(orders[:3], orders[4:])
	r.sabotage(completing(bad))
	start := time.Now()
	w := r.start()
	r.send(7, orders...)
	r.eventuallyTrue("the others are settled", func() bool { return r.level(p.ID).Reservations == 1 })
	r.mustBe("", good...)
	r.mustBePending(bad)
	r.eventuallyTrue("it waits for another attempt", func() bool {
		d := r.depth()
		return d.Delayed == 1 && d.InFlight+d.Visible == 0
	})

	r.quiet(w)
	// The envelope, two further attempts of one order, and its dead letter.
	if n := r.sqs.Requests()["SendMessageBatch"]; n != 4 {
		t.Errorf("%d requests to send, want 4", n)
	}
	if took := time.Since(start); took < 3*w.attemptPause {
		t.Errorf("three attempts took %v, which is less than the pauses between them", took)
	}
	r.mustBe(order.DeadLetter, bad)
	r.mustBe("", good...)
	if l := r.level(p.ID); l.Available != 8 {
		t.Errorf("Redis has %+v", l)
	}
	if n := r.bought(p.ID, bad.UserID); n != "" {
		t.Errorf("its buyer has %q", n)
	}
	letters := r.deadLetters()
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	l := letters[0]
	if again, err := order.Decode([]byte(l.body)); err != nil || len(again) != 1 || again[0].ID != bad.ID ||
		!again[0].ReservedAt.Equal(bad.ReservedAt) {
		t.Errorf("the dead letter holds %+v, %v", again, err)
	}
	if !strings.Contains(l.reason, "23000") || !strings.Contains(l.reason, bad.ID.String()) ||
		!strings.Contains(l.reason, "3 times") {
		t.Errorf("its reason is %q", l.reason)
	}
	// A redrive begins anew, so it must not bring its attempts along.
	if n := l.attributes[queue.AttemptsAttribute]; n != "" {
		t.Errorf("it has %q attempts", n)
	}
	mustCount(t, len(orders), "decisions", decisions, w)
	mustCount(t, 1, "dead letters", deadLetters, w)
	mustCount(t, 2, "units given back", givenBack, w)
}

// Many at once, in several envelopes, among orders of another product.
func TestManyOrdersFailForTheirOwnReasons(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	one, two := r.product(100, 0), r.product(100, 0)
	ones, twos := r.reserve(one.ID, 30, 1), r.reserve(two.ID, 30, 1)
	r.sabotage(fmt.Sprintf("NEW.product_id = %d AND NEW.user_id %% 3 = 0 AND NEW.status = 'completed'", one.ID))
	w := r.start(func(w *Worker) { w.attemptPause = 0 })
	var mixed []order.Order
	for i := range ones {
		mixed = append(mixed, ones[i], twos[i])
	}
	r.send(20, mixed...)
	r.quiet(w)
	for _, o := range ones {
		if o.UserID%3 == 0 {
			r.mustBe(order.DeadLetter, o)
		} else {
			r.mustBe("", o)
		}
	}
	r.mustBe("", twos...)
	if n := len(r.deadLetters()); n != 10 {
		t.Errorf("%d dead letters, want 10", n)
	}
}

// Not even its failure can be stored. Then it is not deleted, costs no place, and delays nobody until
// the queue itself gives it up.
func TestAnOrderThatCannotFailIsGivenUpByTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 5, 2)
	bad, good := orders[2], slices.Concat(orders[:2], orders[3:])
	r.sabotage(fmt.Sprint("NEW.user_id = ", bad.UserID))
	r.setMaxReceives(3)
	w := r.start(impatient, func(w *Worker) { w.attemptPause = 0 })
	r.send(5, orders...)
	r.eventually(func() error {
		if d := r.depth(); !d.Empty() || d.Dead != 1 || w.held.len() != 0 {
			return fmt.Errorf("the queues have %+v, the worker holds %d", d, w.held.len())
		}
		return nil
	})
	r.mustBe("", good...)
	r.mustBePending(bad)
	if l := r.level(p.ID); l.Reservations != 1 || l.Reserved != 2 || l.Available != 10 {
		t.Errorf("Redis has %+v", l)
	}
	letters := r.deadLetters()
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	if o, err := order.Decode([]byte(letters[0].body)); err != nil || len(o) != 1 || o[0].ID != bad.ID {
		t.Errorf("the dead letter holds %+v, %v", o, err)
	}
	r.audit()
}

// The row says failed, but the dead letter could not be written: then the message must become one when
// it comes back, or an operator could never redrive it.
func TestADeadLetterThatWasNotWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	bad := r.reserve(p.ID, 1, 2)
	r.sabotage(completing(bad[0]))
	r.sqs.SetFaults(sqs.Faults{Queue: localstack.DLQName, Actions: []string{"SendMessageBatch"}, Refuse: 1,
		RefuseWith: "OverLimit"})
	w := r.start(func(w *Worker) { w.visibility, w.attemptPause = time.Second, 0 })
	r.send(1, bad...)
	r.eventuallyTrue("the row is written", func() bool {
		_, err := r.ledger.Order(t.Context(), bad[0].ID)
		return err == nil && w.held.len() == 0
	})
	if d := r.depth(); d.Empty() || d.Dead != 0 {
		t.Errorf("the queues have %+v", d)
	}
	r.sqs.SetFaults(sqs.Faults{})
	r.quiet(w)
	r.mustBe(order.DeadLetter, bad...)
	if l := r.level(p.ID); l.Available != 20 {
		t.Errorf("Redis has %+v", l)
	}
	if n := len(r.deadLetters()); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}

// An order that cannot be sent again stays on the queue under its old message.
func TestAnOrderThatCannotBeSentAgainComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 4, 1)
	bad, good := orders[0], orders[1:]
	r.sabotage(completing(bad))
	w := r.worker(func(w *Worker) { w.visibility, w.attemptPause = time.Second, 0 })
	r.send(4, orders...)
	r.sqs.SetFaults(sqs.Faults{Queue: localstack.QueueName, Actions: []string{"SendMessageBatch"}, Refuse: 1,
		RefuseWith: "OverLimit"})
	r.run(w)
	r.eventuallyTrue("the others are settled", func() bool {
		return r.level(p.ID).Reservations == 1 && w.held.len() == 0
	})
	r.mustBePending(bad)
	if d := r.depth(); d.Empty() {
		t.Errorf("the queues have %+v", d)
	}
	r.sqs.SetFaults(sqs.Faults{})
	r.quiet(w)
	r.mustBe("", good...)
	r.mustBe(order.DeadLetter, bad)
}

// While one worker makes its last attempt, another has decided the order: that is no dead letter.
func TestAnOrderThatWasDecidedMeanwhileIsNoDeadLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 1, 2)
	if _, err := r.ledger.Decide(t.Context(), p.ID, orders); err != nil {
		t.Fatal(err)
	}
	r.send(1, orders...)
	w := r.worker()
	messages, err := r.queue.Receive(t.Context(), queue.LongPoll, w.visibility)
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	d := &delivery{Message: messages[0]}
	d.open.Store(1)
	w.held.add(d, w.visibility)
	w.fail(&job{order: orders[0], from: d, attempts: maxAttempts - 1}, fmt.Errorf("a fault that has passed"))
	r.quiet(w)
	r.mustBe("", orders...)
	if d := r.depth(); d.Dead != 0 {
		t.Errorf("%d dead letters", d.Dead)
	}
	w.settles.Wait()
	w.deletes.Wait()
}
