package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/localstack/sqs"
)

// relaying makes a worker that takes orders for left behind soon.
func (r *rig) relaying() *Worker {
	return r.worker(func(w *Worker) { w.relayAge = 2 * time.Second })
}

// aged waits until the oldest orders in the outbox, or the claims on them, are so old that they may be
// claimed. The clock is that of Redis, on this machine.
func aged(w *Worker, since time.Time) {
	time.Sleep(time.Until(since.Add(w.relayAge + 10*time.Millisecond)))
}

// received decodes all messages on the queue and counts the orders by id.
func (r *rig) received() map[string]int {
	r.t.Helper()
	ids := make(map[string]int)
	for r.depth().Visible > 0 {
		messages, err := r.queue.Receive(r.t.Context(), queue.LongPoll, time.Minute)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, m := range messages {
			orders, err := order.Decode([]byte(m.Body))
			if err != nil {
				r.t.Fatal(err)
			}
			for _, o := range orders {
				ids[o.ID.String()]++
			}
		}
	}
	return ids
}

func TestTheRelaySendsWhatEdgesLeftBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	one, two := r.product(1000, 0), r.product(1000, 0)
	orders := slices.Concat(r.reserve(one.ID, 700, 1), r.reserve(two.ID, 3, 1))
	w := r.start(func(w *Worker) { w.relayInterval, w.relayAge = 100*time.Millisecond, time.Second })
	r.quiet(w)
	r.mustBe("", orders...)
	for _, o := range orders {
		record, err := r.ledger.Order(t.Context(), o.ID)
		if err != nil || record.IdempotencyKey != o.IdempotencyKey || !record.ReservedAt.Equal(o.ReservedAt) ||
			record.UserID != o.UserID {
			t.Fatalf("%+v was decided as %+v, %v", o, record, err)
		}
	}
	mustCount(t, len(orders), "relayed", relayed, w)
}

// TestAProductThatIsNotListedIsFound: of a product that is loaded and not in the set of the loaded ones, as two crashes
// may leave it, nobody would relay or compare anything. Nor is one in the set for ever that is not loaded.
func TestAProductThatIsNotListedIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, gone := r.product(10, 0), r.product(10, 0)
	decided, left := r.reserve(p.ID, 2, 1), r.reserve(p.ID, 3, 1)
	start := time.Now()
	r.acknowledge(decided...)
	r.decideOnly(decided...)
	for _, err := range []error{
		r.redis.SRem(t.Context(), "products", p.ID).Err(),
		r.redis.Del(t.Context(), fmt.Sprintf("stock:{%d}", gone.ID), fmt.Sprintf("sale:{%d}", gone.ID)).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	servers, err := r.redis.Servers(t.Context())
	if err == nil {
		err = r.db.SetMark(t.Context(), serversMark, servers) // nothing was started again
	}
	if err != nil {
		t.Fatal(err)
	}

	w := r.reconciling()
	w.relayAge = time.Second
	r.reconcileNow(w)
	aged(w, start)
	w.relay(t.Context())
	if got := r.received(); len(got) != len(left) {
		t.Errorf("of %d orders in the outbox %d were relayed", len(left), len(got))
	}
	if l := r.level(p.ID); l.Reservations != int64(len(left)) {
		t.Errorf("what is decided is not settled: Redis has %+v", l)
	}
	products, err := r.stock.Products(t.Context())
	if err != nil || !slices.Equal(products, []order.StockID{p.ID}) {
		t.Errorf("the loaded products are %v, %v", products, err)
	}
}

func TestTheRelayDoesNotTouchYoungOrders(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 3, 1)
	w := r.worker() // an edge has half a minute to send them
	w.relay(t.Context())
	if d := r.depth(); !d.Empty() {
		t.Errorf("the queue has %+v", d)
	}
	// An order that was claimed could not be cancelled.
	cancelled, err := r.stock.Cancel(t.Context(), p.ID, orders)
	if err != nil || slices.Contains(cancelled, false) {
		t.Errorf("the edge can no longer cancel: %v, %v", cancelled, err)
	}
}

// TestTheRelayKeepsWhatIsRefused: a batch that the queue has not acknowledged in full stays.
func TestTheRelayKeepsWhatIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 3, 1)
	start := time.Now()
	w := r.relaying()
	// The queue refuses, so that nothing but what comes before sending happens.
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, Refuse: 1})
	aged(w, start)
	w.relay(t.Context())
	r.mustBePending(orders...)

	// What was refused stays, claimed, and is sent when the claim is old.
	if l := r.level(p.ID); l.Outbox != 3 || l.Reserved != 3 {
		t.Errorf("Redis has %+v", l)
	}
	if cancelled, err := r.stock.Cancel(t.Context(), p.ID, orders); err != nil || slices.Contains(cancelled, true) {
		t.Errorf("the edge could cancel what was claimed: %v, %v", cancelled, err)
	}
	r.sqs.SetFaults(sqs.Faults{})
	claimed := time.Now()
	aged(w, claimed)
	w.relay(t.Context())
	if l := r.level(p.ID); l.Outbox != 0 {
		t.Errorf("what was acknowledged is still in the outbox: %+v", l)
	}
	if ids := r.received(); len(ids) != 3 {
		t.Errorf("%d orders were sent", len(ids))
	}
	mustCount(t, 3, "relayed", relayed, w)
}

func TestTheRelayKeepsABatchThatIsSentInPart(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(1000, 0)
	orders := r.reserve(p.ID, stock.MaxBatch, 1)
	start := time.Now()
	w := r.relaying()
	w.relayInterval = 100 * time.Millisecond
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, FailEntry: 0.8, Seed: 1, RefuseWith: "OverLimit"})
	aged(w, start)
	w.relay(t.Context())
	r.sqs.SetFaults(sqs.Faults{})
	if sent := value(t, w.metrics.relayed); sent == 0 || int(sent) == len(orders) {
		t.Fatalf("%v of %d orders are sent: the test proves nothing", sent, len(orders))
	}
	if n := r.level(p.ID).Outbox; n != int64(len(orders)) {
		t.Errorf("%d orders are in the outbox", n)
	}

	// What is decided meanwhile is not sent once more, and in the end all is.
	r.run(w)
	r.quiet(w)
	r.mustBe("", orders...)
	mustCount(t, len(orders), "decisions", decisions, w)
}

func TestTwoRelaysSendEachOrderOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(2000, 0)
	orders := r.reserve(p.ID, 1500, 1)
	start := time.Now()
	workers := []*Worker{r.relaying(), r.relaying(), r.relaying()}
	for _, w := range workers {
		w.relayAge = 5 * time.Second // on a busy machine a relay takes seconds, and its claims must not be old by then
	}
	aged(workers[0], start)
	var relays sync.WaitGroup
	for _, w := range workers {
		relays.Go(func() { w.relay(t.Context()) })
	}
	relays.Wait()
	if l := r.level(p.ID); l.Outbox != 0 {
		t.Errorf("%d orders are still in the outbox", l.Outbox)
	}
	ids := r.received()
	for _, o := range orders {
		if n := ids[o.ID.String()]; n != 1 {
			t.Fatalf("an order was sent %d times", n)
		}
	}
	mustCount(t, len(orders), "relayed", relayed, workers...)
}

// A worker that claimed orders has died before it sent them.
func TestTheRelayTakesOverOldClaims(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	r.reserve(p.ID, 3, 1)
	start := time.Now()
	w := r.relaying()
	aged(w, start)
	if batches, _, err := r.stock.Claim(t.Context(), p.ID, w.relayAge, 0); err != nil || len(batches) != 1 ||
		len(batches[0].Orders) != 3 {
		t.Fatal(batches, err)
	}
	claimed := time.Now()
	w.relay(t.Context())
	if took := time.Since(claimed); took < w.relayAge {
		if d := r.depth(); !d.Empty() {
			t.Errorf("young claims were taken over: %+v", d)
		}
	}
	aged(w, time.Now())
	w.relay(t.Context())
	if ids := r.received(); len(ids) != 3 {
		t.Errorf("%d orders were sent", len(ids))
	}
}

// An edge died after the queue had its orders. They are decided; sending them again would be for nothing.
func TestADecidedOrderIsNotRelayed(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 3, 1)
	start := time.Now()
	r.enqueue(3, orders...) // and not acknowledged
	w := r.start(func(w *Worker) { w.relayAge = time.Second })
	r.quiet(w)
	sends := r.sqs.Requests()["SendMessageBatch"]
	aged(w, start)
	w.relay(t.Context())
	if n := r.sqs.Requests()["SendMessageBatch"]; n != sends {
		t.Errorf("%d more requests to send", n-sends)
	}
	r.mustBe("", orders...)
}

// A relay that cannot tell whether the queue has an order keeps it, and the order is decided once.
func TestTheRelaySendsAgainWhatMayBeLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 3, 1)
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, Lose: 1})
	w := r.worker(func(w *Worker) { w.relayAge = time.Second })
	aged(w, time.Now())
	w.relay(t.Context())
	if l := r.level(p.ID); l.Outbox != 3 {
		t.Errorf("%d orders are in the outbox", l.Outbox)
	}
	r.sqs.SetFaults(sqs.Faults{})
	r.run(w)
	r.quiet(w)
	r.mustBe("", orders...)
	mustCount(t, 3, "decisions", decisions, w)
}

// The outbox of one product does not keep the relay from that of another.
func TestTheRelayGoesOnAfterABrokenEntry(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	one, two := r.product(10, 0), r.product(10, 0)
	orders := slices.Concat(r.reserve(one.ID, 2, 1), r.reserve(two.ID, 2, 1))
	start := time.Now()
	if err := r.redis.HSet(t.Context(), fmt.Sprintf("outbox:{%d}", one.ID), order.NewID().String(),
		"1 0 nonsense").Err(); err != nil {
		t.Fatal(err)
	}
	w := r.relaying()
	aged(w, start)
	w.relay(t.Context())
	ids := r.received()
	for _, o := range orders {
		if ids[o.ID.String()] != 1 {
			t.Errorf("the order of product %d was not sent", o.StockID)
		}
	}
}
