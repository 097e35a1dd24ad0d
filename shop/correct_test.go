package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/apitest"
	"stampede/internal/buckets"
	"stampede/internal/catalog"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/internal/token"
)

// TestCorrection takes unsold units out of a product, once for each id, and never those of accepted orders.
func TestCorrection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 4)
	w.WantSettledOutbox(p.ID)
	before, redis := w.Stored(p.ID), fmt.Sprint(w.Dump())
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", `{"units":-7}`), 409, problem.TooFewUnits)
	if after := w.Stored(p.ID); after.Stock != before.Stock || after.Version != before.Version ||
		fmt.Sprint(w.Dump()) != redis {
		t.Errorf("a correction that was refused has changed %+v to %+v, or Redis", before, after)
	}

	want := fmt.Sprintf(`{"product_id":%d,"restock_id":"a","units":-5,"stock":5}`, p.ID)
	if r := w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", `{"units":-5}`); r.Status != 201 || r.Body != want {
		t.Errorf("got %v, want %s", r, want)
	}
	if r := w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", `{"units":-5}`); r.Status != 200 || r.Body != want {
		t.Errorf("again got %v, want %s", r, want)
	}
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", `{"units":-1}`), 409,
		problem.RestockMismatch)
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", `{"units":5}`), 409,
		problem.RestockMismatch)
	w.WantLevel(p.ID, 1, 4, 0)
	w.Whole(p)
	w.MustPost(2, p.ID, 1)
	apitest.WantProblem(t, w.Post(3, p.ID, 1), 409, problem.SoldOut)
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/b", `{"units":-1}`), 409, problem.TooFewUnits)
	w.Decided(p.ID)
	w.WantLevel(p.ID, 0, 0, 0)

	sales, err := w.Ledger.Sales(t.Context(), []order.ProductID{p.ID.Product()})
	w.Must(err)
	if sales[0].Sold != 5 {
		t.Errorf("%d units are sold, not 5", sales[0].Sold)
	}
	w.Audit()

	// One that Redis does not have is loaded first; one in buckets cannot be corrected.
	other, split := w.AddProduct(3), w.AddSplit(4, 2)
	if r := w.Manage("PUT", apitest.PathOf(other)+"/restocks/a", `{"units":-3}`); r.Status != 201 ||
		!strings.Contains(r.Body, `"stock":0`) {
		t.Errorf("got %v", r)
	}
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(split)+"/restocks/a", `{"units":-1}`), 422,
		problem.InvalidRestock)
	w.Whole(split)
	w.Audit()
}

// TestCorrectionInACrowd corrects while buyers come: what is accepted is completed, and each id counts once.
func TestCorrectionInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(60)
	// At most 40 units are lent at a time, so that there are some for buyers at any time.
	replies := apitest.Crowd(90, func(i int) apitest.Reply {
		if i%9 > 0 {
			return w.Post(order.UserID(i+1), p.ID, 1)
		}
		return w.Manage("PUT", fmt.Sprintf("%s/restocks/r%d", apitest.PathOf(p), i%45), `{"units":-4}`)
	})
	for _, r := range replies {
		if r.Status >= 500 {
			t.Errorf("got %v", r)
		}
	}
	w.WantSettledOutbox(p.ID)
	if l := w.Whole(p); l.InTransfer != 0 || l.Available < 0 {
		t.Errorf("in the end Redis has %+v", l)
	}
	for id, d := range w.Decided(p.ID) {
		if d.Status != order.Completed {
			t.Errorf("the accepted order %s is %s", id, d.Status)
		}
	}
	w.Whole(p)
	w.Audit()
}

// TestReconcileFinishesCorrections stops a correction between its steps: what MySQL has not decided is given back, and
// what it has is cleared.
func TestReconcileFinishesCorrections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.LoadNow(w.Stored(p.ID))
	lend := func() ledger.Transfer {
		t.Helper()
		m := ledger.Transfer{ID: uuid.Must(uuid.NewV7()), Donor: p.ID, Units: 3}
		lent, err := w.Stock.BeginWholeTransfer(t.Context(), p.ID, 3, stock.Transfer{ID: m.ID})
		if err != nil || !lent {
			t.Fatalf("lent %v, %v", lent, err)
		}
		return m
	}
	repair := func(available int64) {
		t.Helper()
		r := reconcile.Reconciler{Redis: w.Stock, MySQL: w.Ledger, Apply: true, TransferAge: time.Nanosecond}
		report, err := r.Product(t.Context(), p.ID)
		w.Must(err)
		if f := report.Findings; len(f) != 1 || f[0].Cause != reconcile.Transfer || !f[0].Repaired ||
			report.InTransfer != 0 {
			t.Errorf("reconcile reports %+v", report)
		}
		w.WantLevel(p.ID, available, 0, 0)
		w.Whole(p)
		w.Audit()
	}

	// It stops after the loan, and comes late.
	m := lend()
	repair(10)
	if done, err := w.Ledger.Correct(t.Context(), m, "a"); err == nil || !mysql.Undone(err) {
		t.Errorf("a correction was made that was cancelled: %+v", done)
	}
	repeated, err := buckets.Stores{Redis: w.Stock, MySQL: w.Ledger}.Correct(t.Context(), p.ID.Product(), 3, "a")
	if err != nil || !repeated.Applied || repeated.Balance != 7 {
		t.Errorf("repeated: %+v, %v", repeated, err)
	}
	w.WantLevel(p.ID, 7, 0, 0)

	// It stops after the commit, and comes late.
	m = lend()
	done, err := w.Ledger.Correct(t.Context(), m, "b")
	if err != nil || !done.Applied || done.Balance != 4 {
		t.Errorf("got %+v, %v", done, err)
	}
	repair(4)
	decided := ledger.Transfer{ID: m.ID, Donor: p.ID, Units: 3, DonorVersion: done.Version}
	w.Must(buckets.Stores{Redis: w.Stock, MySQL: w.Ledger}.Finish(t.Context(), decided))
	w.WantLevel(p.ID, 4, 0, 0)

	// Another with the same id was first, and is known; its own loan is given back.
	m = lend()
	again, err := w.Ledger.Correct(t.Context(), m, "b")
	if err != nil || again.Applied || again.Balance != 4 {
		t.Errorf("got %+v, %v", again, err)
	}
	repair(4)

	// Redis believes in more units than MySQL has.
	w.Must(w.RDB.IncrBy(t.Context(), fmt.Sprintf("stock:{%d}", p.ID), 5).Err())
	_, err = buckets.Stores{Redis: w.Stock, MySQL: w.Ledger}.Correct(t.Context(), p.ID.Product(), 9, "c")
	if !errors.Is(err, ledger.ErrTooFew) {
		t.Errorf("got %v", err)
	}
	w.WantLevel(p.ID, 9, 0, 0)
}

// TestRestockOfSplitProduct restocks by HTTP: every bucket gets its part, once.
func TestRestockOfSplitProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(4, 4)
	for _, user := range []order.UserID{1, 2, 3, 4} {
		w.MustPost(user, p.ID, 1)
	}
	merchant := w.BearerOf(1, token.Merchant)
	var bodies []string
	for range 2 {
		r := w.Send("PUT", fmt.Sprintf("/api/products/%d/restocks/monday", p.ID), `{"units":10}`,
			"Authorization", merchant, "Content-Type", "application/json")
		if r.Status != http.StatusCreated && r.Status != http.StatusOK {
			t.Fatal(r)
		}
		bodies = append(bodies, r.Body)
	}
	var done restockBody
	w.Must(json.Unmarshal([]byte(bodies[0]), &done))
	if bodies[0] != bodies[1] || done != (restockBody{p.ID.Product(), "monday", 10, 14}) {
		t.Errorf("%q", bodies)
	}
	if l := w.Whole(p); l.Available != 10 {
		t.Errorf("%+v", l)
	}
	r := w.Send("PATCH", fmt.Sprintf("/api/products/%d", p.ID), `{"price":5}`, "Authorization", merchant,
		"Content-Type", "application/json")
	var patched catalog.Product
	r.Read(t, &patched)
	if r.Status != http.StatusOK || patched.Available != 10 || patched.Price != 5 {
		t.Errorf("%v", r)
	}
	for user := order.UserID(11); user < 20; user++ { // whichever bucket it is
		var order accepted
		w.Post(user, p.ID, 1).Read(t, &order)
		if order.UnitPrice != 5 {
			t.Errorf("user %d pays %d", user, order.UnitPrice)
		}
	}
	w.Audit()
}
