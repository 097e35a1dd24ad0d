package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
)

// TestCorrection takes unsold units out of a product, once for each id, and never those of accepted orders.
func TestCorrection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.mustPost(1, p.ID, 4)
	w.wantSettledOutbox(p.ID)
	before, redis := w.stored(p.ID), fmt.Sprint(w.dump())
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/a", `{"units":-7}`), 409, tooFewUnits)
	if after := w.stored(p.ID); after.Stock != before.Stock || after.Version != before.Version ||
		fmt.Sprint(w.dump()) != redis {
		t.Errorf("a correction that was refused has changed %+v to %+v, or Redis", before, after)
	}

	want := fmt.Sprintf(`{"product_id":%d,"restock_id":"a","units":-5,"stock":5}`, p.ID)
	if r := w.manage("PUT", pathOf(p)+"/restocks/a", `{"units":-5}`); r.status != 201 || r.body != want {
		t.Errorf("got %v, want %s", r, want)
	}
	if r := w.manage("PUT", pathOf(p)+"/restocks/a", `{"units":-5}`); r.status != 200 || r.body != want {
		t.Errorf("again got %v, want %s", r, want)
	}
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/a", `{"units":-1}`), 409, restockMismatch)
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/a", `{"units":5}`), 409, restockMismatch)
	w.wantLevel(p.ID, 1, 4, 0)
	w.whole(p)
	w.mustPost(2, p.ID, 1)
	wantProblem(t, w.post(3, p.ID, 1), 409, soldOut)
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/b", `{"units":-1}`), 409, tooFewUnits)
	w.decided(p.ID)
	w.wantLevel(p.ID, 0, 0, 0)

	sales, err := w.ledger.Sales(t.Context(), []int64{p.ID})
	w.must(err)
	if sales[0].Sold != 5 {
		t.Errorf("%d units are sold, not 5", sales[0].Sold)
	}
	w.audit()

	// One that Redis does not have is loaded first; one in buckets cannot be corrected.
	other, split := w.addProduct(3), w.addSplit(4, 2)
	if r := w.manage("PUT", pathOf(other)+"/restocks/a", `{"units":-3}`); r.status != 201 ||
		!strings.Contains(r.body, `"stock":0`) {
		t.Errorf("got %v", r)
	}
	wantProblem(t, w.manage("PUT", pathOf(split)+"/restocks/a", `{"units":-1}`), 422, invalidRestock)
	w.whole(split)
	w.audit()
}

// TestCorrectionInACrowd corrects while buyers come: what is accepted is completed, and each id counts once.
func TestCorrectionInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(60)
	// At most 40 units are lent at a time, so that there are some for buyers at any time.
	replies := crowd(90, func(i int) reply {
		if i%9 > 0 {
			return w.post(int64(i+1), p.ID, 1)
		}
		return w.manage("PUT", fmt.Sprintf("%s/restocks/r%d", pathOf(p), i%45), `{"units":-4}`)
	})
	for _, r := range replies {
		if r.status >= 500 {
			t.Errorf("got %v", r)
		}
	}
	w.wantSettledOutbox(p.ID)
	if l := w.whole(p); l.Lent != 0 || l.Available < 0 {
		t.Errorf("in the end Redis has %+v", l)
	}
	for id, d := range w.decided(p.ID) {
		if d.Status != order.Completed {
			t.Errorf("the accepted order %s is %s", id, d.Status)
		}
	}
	w.whole(p)
	w.audit()
}

// TestReconcileFinishesCorrections stops a correction between its steps: what MySQL has not decided is given back, and
// what it has is cleared.
func TestReconcileFinishesCorrections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.loadNow(w.stored(p.ID))
	lend := func() ledger.Move {
		t.Helper()
		m := ledger.Move{ID: order.NewID(), Donor: p.ID, Units: 3}
		lent, err := w.stock.LendWhole(t.Context(), p.ID, 3, stock.Loan{Move: m.ID})
		if err != nil || !lent {
			t.Fatalf("lent %v, %v", lent, err)
		}
		return m
	}
	repair := func(available int64) {
		t.Helper()
		r := reconcile.Reconciler{Redis: w.stock, MySQL: w.ledger, Apply: true, LoanAge: time.Nanosecond}
		report, err := r.Product(t.Context(), p.ID)
		w.must(err)
		if f := report.Findings; len(f) != 1 || f[0].Cause != reconcile.Move || !f[0].Repaired || report.Lent != 0 {
			t.Errorf("reconcile reports %+v", report)
		}
		w.wantLevel(p.ID, available, 0, 0)
		w.whole(p)
		w.audit()
	}

	// It stops after the loan, and comes late.
	m := lend()
	repair(10)
	if done, err := w.ledger.Correct(t.Context(), m, "a"); err == nil || !mysql.Undone(err) {
		t.Errorf("a correction was made that was cancelled: %+v", done)
	}
	repeated, err := buckets.Mover{Redis: w.stock, MySQL: w.ledger}.Correct(t.Context(), p.ID, 3, "a")
	if err != nil || !repeated.Applied || repeated.Balance != 7 {
		t.Errorf("repeated: %+v, %v", repeated, err)
	}
	w.wantLevel(p.ID, 7, 0, 0)

	// It stops after the commit, and comes late.
	m = lend()
	done, err := w.ledger.Correct(t.Context(), m, "b")
	if err != nil || !done.Applied || done.Balance != 4 {
		t.Errorf("got %+v, %v", done, err)
	}
	repair(4)
	decided := ledger.Move{ID: m.ID, Donor: p.ID, Units: 3, DonorVersion: done.Version}
	w.must(buckets.Mover{Redis: w.stock, MySQL: w.ledger}.Finish(t.Context(), decided))
	w.wantLevel(p.ID, 4, 0, 0)

	// Another with the same id was first, and is known; its own loan is given back.
	m = lend()
	again, err := w.ledger.Correct(t.Context(), m, "b")
	if err != nil || again.Applied || again.Balance != 4 {
		t.Errorf("got %+v, %v", again, err)
	}
	repair(4)

	// Redis believes in more units than MySQL has.
	w.must(w.rdb.IncrBy(t.Context(), fmt.Sprintf("stock:{%d}", p.ID), 5).Err())
	_, err = buckets.Mover{Redis: w.stock, MySQL: w.ledger}.Correct(t.Context(), p.ID, 9, "c")
	if !errors.Is(err, ledger.ErrTooFew) {
		t.Errorf("got %v", err)
	}
	w.wantLevel(p.ID, 9, 0, 0)
}
