package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
)

// heldProduct is a product whose orders must be paid.
func (r *rig) heldProduct(units, limit int64) order.Product {
	r.t.Helper()
	p := r.product(units, limit)
	p, err := r.ledger.UpdateProduct(r.t.Context(), p.ID.Product(), func(p *order.Product) {
		p.Payment = order.PaymentRequired
	})
	if err == nil {
		_, err = r.stock.Configure(r.t.Context(), p)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// passTime has the time to pay of all orders pass.
func (r *rig) passTime() {
	r.t.Helper()
	past := time.Now().Add(-time.Second).UTC()
	r.exec(`UPDATE holds SET pay_by = ?, due_at = ? WHERE state = 'awaiting_payment'`, past, past)
}

func cancelled(w *Worker, t *testing.T) int { return int(value(t, w.metrics.cancelled)) }

// TestExpire: two workers cancel what was not paid. All its units and its buyers' counts are back in Redis, once.
func TestExpire(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.heldProduct(3_000, 2)
	one, two := r.start(), r.start()
	orders := r.reserve(p.ID, 1_200, 2)
	r.acknowledge(orders...)
	r.enqueue(100, orders...)
	r.quiet(one, two)
	if l := r.level(p.ID); l.Available != 600 || r.bought(p.ID, orders[0].UserID) != "2" {
		t.Errorf("before: %+v, the first buyer has %s", l, r.bought(p.ID, orders[0].UserID))
	}

	r.passTime()
	r.eventually(func() error {
		if l := r.level(p.ID); l.Available != 3_000 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	if n := cancelled(one, t) + cancelled(two, t); n != len(orders) {
		t.Errorf("%d orders were cancelled, want %d", n, len(orders))
	}
	for _, o := range []order.Order{orders[0], orders[1_199]} {
		if record, err := r.ledger.Order(t.Context(), o.ID); err != nil || record.Status != order.Cancelled {
			t.Errorf("order %s: %+v, %v", o.ID, record, err)
		}
		if n := r.bought(p.ID, o.UserID); n != "" {
			t.Errorf("buyer %d has %s", o.UserID, n)
		}
	}
	r.eventuallyTrue("no reminders are left", func() bool {
		returning, err := r.ledger.Returning(t.Context())
		return err == nil && len(returning) == 0
	})
	r.quiet(one, two)
}

// TestExpireAfterACrash: a worker has died between MySQL and Redis, before or after the script. Another one brings the
// units, and so does reconcile.
func TestExpireAfterACrash(t *testing.T) {
	t.Parallel()
	for _, scriptRan := range []bool{false, true} {
		for _, byReconcile := range []bool{false, true} {
			r := newRig(t, "", "")
			p := r.heldProduct(10, 0)
			orders := r.reserve(p.ID, 2, 3)
			r.acknowledge(orders...)
			decisions, err := r.ledger.Decide(t.Context(), p.ID, orders)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.stock.Settle(t.Context(), p.ID, decisions); err != nil {
				t.Fatal(err)
			}
			r.passTime()
			returned, err := r.ledger.Expire(t.Context(), p.ID, []order.OrderID{orders[0].ID, orders[1].ID})
			if err != nil || len(returned) != 2 {
				t.Fatalf("%+v, %v", returned, err)
			}
			if scriptRan {
				if _, err := r.stock.Return(t.Context(), p.ID, returned); err != nil {
					t.Fatal(err)
				}
			}

			w := r.reconciling()
			if byReconcile {
				r.reconcileNow(w)
			} else {
				w.expire(t.Context())
			}
			if l := r.level(p.ID); l.Available != 10 {
				t.Errorf("script ran %v, by reconcile %v: %+v", scriptRan, byReconcile, l)
			}
			if returning, err := r.ledger.Returning(t.Context()); err != nil || len(returning) != 0 {
				t.Errorf("reminders are left: %v, %v", returning, err)
			}
			if byReconcile && value(t, w.metrics.driftFound) != 0 {
				t.Errorf("units on their way count as a difference")
			}
			r.audit()
		}
	}
}

// TestExpireBeforeSettle: an order is cancelled before its decision is settled, and Redis has lost its data in between
// or not. In the end the units are there once.
func TestExpireBeforeSettle(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		r := newRig(t, "", "")
		p := r.heldProduct(10, 4)
		orders := r.reserve(p.ID, 2, 3)
		r.acknowledge(orders...)
		decisions, err := r.ledger.Decide(t.Context(), p.ID, orders)
		if err != nil {
			t.Fatal(err)
		}
		if lost {
			if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			r.load(p.ID)
		}
		r.passTime()
		w := r.worker()
		w.expire(t.Context())
		if _, err := r.stock.Settle(t.Context(), p.ID, decisions); err != nil {
			t.Fatal(err)
		}
		// A redelivery finds the orders held, whatever has become of them.
		again, err := r.ledger.Decide(t.Context(), p.ID, slices.Clone(orders))
		if err != nil || again[0].Status != order.Held || again[0].Fresh {
			t.Fatalf("%+v, %v", again, err)
		}
		if _, err := r.stock.Settle(t.Context(), p.ID, again); err != nil {
			t.Fatal(err)
		}
		if l := r.level(p.ID); l.Available != 10 || l.Reserved != 0 {
			t.Errorf("lost %v: %+v", lost, l)
		}
		if n := r.bought(p.ID, orders[0].UserID); n != "" {
			t.Errorf("lost %v: the buyer has %s", lost, n)
		}
		r.audit()
	}
}
