package main

import (
	"fmt"
	"testing"

	"stampede/internal/order"
	"stampede/internal/reconcile"
)

// decideAndSettle decides orders in one transaction and settles them, as a worker does.
func (r *rig) decideAndSettle(orders ...order.Order) {
	r.t.Helper()
	decisions, err := r.ledger.Decide(r.t.Context(), orders[0].StockID, orders)
	if err == nil {
		_, err = r.stock.Settle(r.t.Context(), orders[0].StockID, decisions)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// loseLast makes MySQL as it was before the last orders of a product, of one unit each: a replica that had not heard of
// them has become the primary.
func (r *rig) loseLast(stockID order.StockID, orders ...order.Order) {
	r.t.Helper()
	for _, o := range orders {
		r.exec("DELETE FROM orders WHERE id = ?", o.ID[:])
		r.exec("DELETE FROM stock_ledger WHERE product_id = ? AND ref = ?", stockID, o.ID[:])
		r.exec("UPDATE bought SET units = units - 1 WHERE product_id = ? AND user_id = ?", stockID, o.UserID)
		r.exec(`UPDATE products SET stock = stock + 1, version = version - 1, counted = LEAST(counted, version)
			WHERE id = ?`, stockID)
	}
}

// TestLostCommitsAreNotSoldAgain has MySQL lose orders that were completed and settled. Redis is not corrected, so that
// their units are not for sale again, until an operator accepts what MySQL has. It makes no difference whether somebody
// has looked before MySQL counts on, to the same version or past it.
func TestLostCommitsAreNotSoldAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		lost, next int
	}{{"nothing is sold since", 2, 0}, {"to the same version", 1, 1}, {"past it", 2, 3}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "")
			p := r.product(20, 3)
			w := r.reconciling()
			before := r.reserve(p.ID, 3, 1)
			r.acknowledge(before...)
			r.decideAndSettle(before...)
			lost := r.reserve(p.ID, test.lost, 1)
			r.acknowledge(lost...)
			for _, o := range lost {
				r.decideAndSettle(o)
			}
			r.reconcileNow(w)
			if n := found(t, w, reconcile.LostCommits); n != [2]int{} {
				t.Fatalf("found while all was well: %v", n)
			}

			r.loseLast(p.ID, lost...)
			if test.next > 0 {
				next := r.reserve(p.ID, test.next, 1)
				r.acknowledge(next...)
				r.decideAndSettle(next...)
			}
			available := int64(20 - 3 - test.lost - test.next)
			for range 2 {
				r.reconcileNow(w)
				if l := r.level(p.ID); l.Available != available {
					t.Errorf("%d units are available, want %d", l.Available, available)
				}
			}
			if n := found(t, w, reconcile.LostCommits); n[0] == 0 || n[1] != 0 {
				t.Errorf("found and repaired: %v", n)
			}
			mustShowLostCommits(t, w, 1)

			accept := reconcile.Reconciler{Redis: r.stock, MySQL: r.ledger, Apply: true, Pause: true, AcceptMySQL: true}
			if _, err := accept.Product(t.Context(), p.ID); err != nil {
				t.Fatal(err)
			}
			if l := r.level(p.ID); l.Available != available+int64(test.lost) {
				t.Errorf("when it is accepted %d units are available, want %d", l.Available, available+int64(test.lost))
			}
			if units := r.bought(p.ID, lost[0].UserID); units != "" {
				t.Errorf("the buyer of an order that is gone has %s units", units)
			}
			r.reconcileNow(w)
			mustShowLostCommits(t, w, 0)
			r.audit()
		})
	}
}

// TestCommitsThatAreSettledOutOfOrderAreNotLost has the later of two commits settled first.
func TestCommitsThatAreSettledOutOfOrderAreNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	w := r.reconciling()
	orders := r.reserve(p.ID, 7, 1)
	r.acknowledge(orders...)
	var commits [][]order.Decision
	for _, batch := range [][]order.Order{orders[:2], orders[2:3], orders[3:]} {
		decisions, err := r.ledger.Decide(t.Context(), p.ID, batch)
		if err != nil {
			t.Fatal(err)
		}
		commits = append(commits, decisions)
	}
	for _, i := range []int{1, 0, 2} {
		if _, err := r.stock.Settle(t.Context(), p.ID, commits[i]); err != nil {
			t.Fatal(err)
		}
		r.reconcileNow(w)
	}
	if n := found(t, w, reconcile.LostCommits); n != [2]int{} {
		t.Errorf("found: %v", n)
	}
	r.audit()
}

func mustShowLostCommits(t *testing.T, w *Worker, want float64) {
	t.Helper()
	if err := w.showLostCommits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := value(t, w.metrics.lostCommits); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stampede_mysql_lost_commits is %v, want %v", got, want)
	}
}
