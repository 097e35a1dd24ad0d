package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/localstack/sqs"
)

func TestOrdersAreDecidedSettledAndDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 3)
	orders := r.reserve(p.ID, 3, 2)
	r.send(2, orders...)
	r.mustBePending(orders...)
	w := r.start()
	r.quiet(w)
	r.mustBe("", orders...)
	if l := r.level(p.ID); l.Available != 4 || l.Reserved != 0 {
		t.Errorf("Redis has %+v", l)
	}
	for _, o := range orders {
		if n := r.bought(p.ID, o.UserID); n != "2" {
			t.Errorf("user %d has bought %q", o.UserID, n)
		}
		if r.hasTombstone(o) {
			t.Error("a worker that settles its own decision leaves a tombstone")
		}
	}
	if d := r.depth(); d.Dead != 0 {
		t.Errorf("%d dead letters", d.Dead)
	}
	mustCount(t, 3, "decisions", decisions, w)
	mustCount(t, 0, "repeated", repeated, w)
}

// What has gathered is decided in one transaction, as far as it is of one product.
func TestOneTransactionDecidesManyOrders(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	const messages, perMessage = 20, 50
	one, two := r.product(2000, 0), r.product(2000, 0)
	ones, twos := r.reserve(one.ID, 500, 1), r.reserve(two.ID, 500, 1)
	var mixed []order.Order
	for i := range ones {
		mixed = append(mixed, ones[i], twos[i])
	}
	unlock := r.lock(one.ID)
	r.send(perMessage, mixed...)
	w := r.start()
	r.eventuallyTrue("all messages are received", func() bool { return w.held.len() == messages })
	// The first transaction waits for the row; all else gathers.
	unlock()
	r.quiet(w)
	r.mustBe("", mixed...)
	if n := r.transactions(one.ID); n > 2 {
		t.Errorf("%d transactions for %d orders that were there", n, len(ones))
	}
	if n := r.transactions(two.ID); n > messages {
		t.Errorf("%d transactions for %d messages", n, messages)
	}
	mustCount(t, r.transactions(one.ID)+r.transactions(two.ID), "batches", batches, w)
}

// A product whose row is locked delays no other.
func TestProductsAreDecidedIndependently(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	stuck, free := r.product(10, 0), r.product(10, 0)
	stuckOrders, freeOrders := r.reserve(stuck.ID, 2, 1), r.reserve(free.ID, 2, 1)
	unlock := r.lock(stuck.ID)
	w := r.start()
	r.send(4, stuckOrders[0], freeOrders[0], stuckOrders[1], freeOrders[1])
	r.eventuallyTrue("the free product's orders are settled", func() bool { return r.level(free.ID).Reserved == 0 })
	r.mustBePending(stuckOrders...)
	if d := r.depth(); d.InFlight != 1 {
		t.Errorf("the envelope is gone before all of its orders are done: %+v", d)
	}
	unlock()
	r.quiet(w)
	r.mustBe("", slices.Concat(stuckOrders, freeOrders)...)
}

func TestManyWorkersDecideEachOrderOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ReceiveMessage"}, Duplicate: 0.5, Reorder: 1, Seed: 3})
	one, two := r.product(900, 0), r.product(900, 0)
	orders := slices.Concat(r.reserve(one.ID, 600, 1), r.reserve(two.ID, 600, 1))
	workers := []*Worker{r.start(), r.start(), r.start()}
	r.send(7, orders...)
	r.quiet(workers...)
	r.mustBe("", orders...)
	mustCount(t, len(orders), "decisions", decisions, workers...)
	if r.level(one.ID).Available != 300 || r.level(two.ID).Available != 300 {
		t.Errorf("Redis has %+v and %+v", r.level(one.ID), r.level(two.ID))
	}
}

// More messages than a worker may hold, so that each place has to become free again.
func TestALongQueueIsDrained(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(1000, 0)
	orders := r.reserve(p.ID, 3*maxDeliveries, 1)
	unlock := r.lock(p.ID)
	r.send(1, orders...)
	w := r.start()
	r.eventuallyTrue("the worker is full", func() bool { return w.held.len() >= maxDeliveries })
	r.throughout(100*time.Millisecond, func() error {
		if n := w.held.len(); n > maxDeliveries+10*pollers {
			t.Errorf("it holds %d messages", n)
		}
		return nil
	})
	unlock()
	r.quiet(w)
	r.mustBe("", orders...)
}

// MySQL has fewer units than Redis thought.
func TestAnOrderThatIsSoldOutGivesItsUnitsBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(5, 0)
	orders := r.reserve(p.ID, 2, 2)
	behind := []order.Order{{
		ID: order.NewID(), UserID: 999, StockID: p.ID, Quantity: 2, UnitPrice: 1, ReservedAt: time.Now(),
	}}
	sold, err := r.ledger.Decide(t.Context(), p.ID, behind)
	if err != nil {
		t.Fatal(err)
	}
	r.send(2, orders...)
	w := r.start()
	r.eventuallyTrue("the orders are settled", func() bool { return r.level(p.ID).Reserved == 0 && w.held.len() == 0 })
	r.mustBe("", orders[0])
	r.mustBe(order.SoldOut, orders[1])
	if l := r.level(p.ID); l.Available != 3 {
		t.Errorf("Redis has %+v", l)
	}
	if a, b := r.bought(p.ID, orders[0].UserID), r.bought(p.ID, orders[1].UserID); a != "2" || b != "" {
		t.Errorf("the buyers have %q and %q", a, b)
	}
	mustCount(t, 2, "units given back", givenBack, w)
	if _, err := r.stock.Settle(t.Context(), p.ID, sold); err != nil {
		t.Fatal(err)
	}
	r.quiet(w)
}

func TestAnOrderOverTheLimitGivesItsUnitsBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 2)
	orders := r.reserve(p.ID, 2, 2)
	other := orders[0]
	other.ID, other.IdempotencyKey, other.Quantity = order.NewID(), "", 1
	bought, err := r.ledger.Decide(t.Context(), p.ID, []order.Order{other})
	if err != nil {
		t.Fatal(err)
	}
	r.send(2, orders...)
	w := r.start()
	r.eventuallyTrue("the orders are settled", func() bool { return r.level(p.ID).Reserved == 0 && w.held.len() == 0 })
	r.mustBe(order.LimitExceeded, orders[0])
	r.mustBe("", orders[1])
	if n := r.bought(p.ID, orders[0].UserID); n != "" {
		t.Errorf("the buyer has %q", n)
	}
	if _, err := r.stock.Settle(t.Context(), p.ID, bought); err != nil {
		t.Fatal(err)
	}
	r.quiet(w)
	if n := r.bought(p.ID, orders[0].UserID); n != "1" {
		t.Errorf("the buyer has %q", n)
	}
}

func TestAnOrderOfAnUnknownProductFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	const unknown = 4711
	if _, err := r.stock.Load(t.Context(), unknown, func(context.Context) (order.Product, error) {
		return order.Product{ID: unknown, Price: 5, Currency: "EUR", Stock: 7, Version: 1}, nil
	}); err != nil {
		t.Fatal(err)
	}
	orders := r.reserve(unknown, 2, 3)
	r.send(2, orders...)
	w := r.start()
	r.eventuallyTrue("the orders are settled", func() bool { return r.level(unknown).Reserved == 0 })
	r.quiet(w)
	r.mustBe(order.UnknownProduct, orders...)
	if l := r.level(unknown); l.Available != 7 {
		t.Errorf("Redis has %+v", l)
	}
}

// Redis forgot the key and reserved for it again; MySQL knows it.
func TestAnIdempotencyKeyThatIsTakenFailsTheOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	first := r.reserve(p.ID, 1, 2)
	r.send(1, first...)
	w := r.start()
	r.quiet(w)
	if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.load(p.ID)
	second := r.reserveAll(p.ID, stock.Request{
		OrderID: order.NewID(), UserID: first[0].UserID, Quantity: 3, IdempotencyKey: first[0].IdempotencyKey,
	})
	r.send(1, second...)
	r.quiet(w)
	r.mustBe(order.IdempotencyConflict, second...)
	if l := r.level(p.ID); l.Available != 8 {
		t.Errorf("Redis has %+v", l)
	}
}
