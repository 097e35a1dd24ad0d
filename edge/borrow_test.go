package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/apitest"
	"stampede/internal/buckets"
	"stampede/internal/catalog"
	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// usersOf are n users who buy from a bucket, of so many.
func usersOf(bucket int, buckets int64, n int) (users []order.UserID) {
	for user := order.UserID(1); len(users) < n; user++ {
		if order.BucketFor(user, buckets) == bucket {
			users = append(users, user)
		}
	}
	return users
}

// TestBucketsAreNotSeen buys from a split product and looks at every place where it is shown.
func TestBucketsAreNotSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(10, 4, func(p *order.Product) { p.LimitPerUser = 3 })
	r := w.Post(1, p.ID, 3, "Idempotency-Key", "k")
	var accepted acceptedBody
	r.Read(t, &accepted)
	if r.Status != http.StatusAccepted || accepted.StockID != p.ID {
		t.Fatalf("%v", r)
	}
	if again := w.Post(1, p.ID, 3, "Idempotency-Key", "k"); again.Body != r.Body {
		t.Errorf("a retry is told %v, and was told %v", again, r)
	}
	apitest.WantProblem(t, w.Post(1, p.ID, 1), http.StatusConflict, problem.LimitExceeded)
	apitest.WantProblem(t, w.Post(1, p.ID, 2, "Idempotency-Key", "k"), http.StatusUnprocessableEntity,
		problem.IdempotencyMismatch)
	var shown orderBody
	w.Get(1, "/api/orders/"+accepted.OrderID).Read(t, &shown)
	if shown.ProductID != p.ID.Product() {
		t.Errorf("the order is shown as one of product %d", shown.ProductID)
	}
	o := w.Orders()[0]
	if want := p.ID.Product().Bucket(order.BucketFor(1, 4)); o.StockID != want {
		t.Errorf("the order is one of product %d, want %d", o.StockID, want)
	}
	_, err := w.Ledger.Decide(t.Context(), o.StockID, []order.Order{o})
	w.Must(err)
	var history struct{ Orders []orderBody }
	w.Get(1, "/api/orders").Read(t, &history)
	if len(history.Orders) != 1 || history.Orders[0].ProductID != p.ID.Product() {
		t.Errorf("the history is %+v", history)
	}
	var product catalog.Product
	w.Get(1, fmt.Sprintf("/api/products/%d", p.ID)).Read(t, &product)
	if product.ID != p.ID.Product() || product.Available != 7 {
		t.Errorf("the product is shown as %+v", product)
	}
	var list struct{ Products []catalog.Product }
	w.Get(1, "/api/products").Read(t, &list)
	if len(list.Products) != 1 || list.Products[0].Available != 7 {
		t.Errorf("the list is %+v", list)
	}
	for _, id := range p.StockIDs() {
		apitest.WantProblem(t, w.Post(2, id, 1), http.StatusNotFound, problem.ProductNotFound)
		apitest.WantProblem(t, w.Get(2, fmt.Sprintf("/api/products/%d", id)), http.StatusNotFound,
			problem.ProductNotFound)
	}
}

// TestLastUnits: whatever buckets the last units are in, who wants them gets them, and nobody more.
func TestLastUnits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(6, 3)
	first, second := usersOf(1, 3, 20), usersOf(2, 3, 1)
	w.MustPost(first[0], p.ID, 2)
	w.MustPost(first[1], p.ID, 1) // of another bucket
	w.MustPost(second[0], p.ID, 3)
	apitest.WantProblem(t, w.Post(first[2], p.ID, 1), http.StatusConflict, problem.SoldOut)
	if l := w.Whole(p); l.Available != 0 || l.Reserved != 6 || l.InTransfer != 0 {
		t.Errorf("%+v", l)
	}

	// All units of all buckets for one order, and one more than that.
	q := w.AddSplit(12, 4)
	apitest.WantProblem(t, w.Post(1, q.ID, 13), http.StatusConflict, problem.SoldOut)
	w.MustPost(1, q.ID, 12)
	apitest.WantProblem(t, w.Post(2, q.ID, 1), http.StatusConflict, problem.SoldOut)
	w.Audit()
}

// TestBucketsSellOut has a crowd of two edges buy more than there is, most of it from one bucket, with a restock in the
// middle. Everything is sold, and nothing twice.
func TestBucketsSellOut(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	_, _, addr := w.start()
	urls := []string{w.URL, "http://" + addr}
	p := w.AddSplit(300, 8, func(p *order.Product) { p.LimitPerUser = 2 })
	users := append(usersOf(3, 8, 150), usersOf(5, 8, 20)...)
	replies := apitest.Crowd(500, func(i int) apitest.Reply {
		at := *w.World
		at.URL = urls[i%2]
		if i == 250 {
			done, err := w.Ledger.Restock(context.Background(), p.ID.Product(), 11, "more")
			if err != nil {
				t.Error(err)
			}
			for _, part := range done.Parts {
				if _, err := w.Stock.Restock(context.Background(), part.StockID, part.Units, part.Version,
					"more"); err != nil {
					t.Error(err)
				}
			}
		}
		return at.Post(users[i%len(users)], p.ID, 1, "Idempotency-Key", fmt.Sprint(i))
	})
	// Whoever is late finds what was on its way meanwhile.
	accepted := 0
	for _, r := range replies {
		if r.Status == http.StatusAccepted {
			accepted++
		} else if c := r.Code(); c != string(problem.SoldOut) && c != string(problem.LimitExceeded) {
			t.Errorf("%v", r)
		}
	}
	for user := order.UserID(1_000_000); ; user++ {
		r := w.Post(user, p.ID, 1)
		if r.Code() == string(problem.SoldOut) {
			break
		}
		if r.Status != http.StatusAccepted {
			t.Fatalf("%v", r)
		}
		accepted++
	}
	if accepted != 311 {
		t.Errorf("%d units were sold of 311: %v", accepted, apitest.Count(replies))
	}
	if l := w.Whole(p); l.Available != 0 || l.Reserved != 311 || l.InTransfer != 0 {
		t.Errorf("%+v", l)
	}
	w.Audit()
}

// TestReopenedForAllBuckets: units that come back to one bucket are for sale to the buyers of the others.
func TestReopenedForAllBuckets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(4, 4)
	buyer, others := usersOf(1, 4, 1)[0], usersOf(2, 4, 2)
	w.MustPost(buyer, p.ID, 4)
	apitest.WantProblem(t, w.Post(others[0], p.ID, 1), http.StatusConflict, problem.SoldOut)
	before := w.scriptCalls()
	apitest.WantProblem(t, w.Post(others[1], p.ID, 1), http.StatusConflict, problem.SoldOut)
	if calls := w.scriptCalls() - before; calls > 0 {
		t.Logf("%d scripts were run by all tests meanwhile", calls)
	}
	o := w.Orders()[0]
	_, err := w.Stock.Settle(t.Context(), o.StockID, []order.Decision{{Record: order.Record{Order: o,
		Status: order.Failed}}})
	w.Must(err)
	since := time.Now()
	refused, err := w.until(w.URL, others[0], p.ID, problem.SoldOut)
	w.Must(err)
	if took := refused.Sub(since); took > 250*time.Millisecond {
		t.Errorf("the buyers of another bucket are refused until %v after units came back", took)
	}
}

// TestBucketsChange: an edge goes by another number of buckets as soon as Redis does.
func TestBucketsChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(12, func(p *order.Product) { p.StartsAt = time.Now().Add(time.Hour) })
	for _, n := range []int64{4, 8, 0, 2} {
		apitest.WantProblem(t, w.Post(1, p.ID, 1), http.StatusConflict,
			problem.SaleNotStarted) // so that the edge knows it as it is
		after, err := w.Ledger.Split(t.Context(), p.ID.Product(), n)
		w.Must(err)
		loaded, err := w.Stock.Products(t.Context())
		w.Must(err)
		r := reconcile.Reconciler{Redis: w.Stock, MySQL: w.Ledger, Apply: true}
		for _, id := range loaded {
			_, err := r.Product(t.Context(), id)
			w.Must(err)
		}
		open, err := w.Ledger.UpdateProduct(t.Context(), p.ID.Product(),
			func(p *order.Product) { p.StartsAt = time.Time{} })
		w.Must(err)
		_, err = w.Stock.Configure(t.Context(), open)
		w.Must(err)
		w.Eventually(fmt.Sprintf("it is sold from %d buckets", n), func() bool {
			r := w.Post(order.UserID(n+1), p.ID, 13)
			return r.Code() == string(problem.SoldOut)
		})
		if n == 2 {
			w.MustPost(1, p.ID, 12)
			w.Whole(after)
			break
		}
		closed, err := w.Ledger.UpdateProduct(t.Context(), p.ID.Product(), func(p *order.Product) {
			p.StartsAt = time.Now().Add(time.Hour)
		})
		w.Must(err)
		_, err = w.Stock.Configure(t.Context(), closed)
		w.Must(err)
		w.Eventually("its sale has not started", func() bool {
			return w.Post(1, p.ID, 1).Code() == string(problem.SaleNotStarted)
		})
	}
	w.Audit()
}

// TestBorrowWithoutMySQL: what other buckets have cannot be borrowed, and nobody says that it is sold out. MySQL is not
// asked again and again.
func TestBorrowWithoutMySQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(40, 4)
	users := usersOf(1, 4, 60)
	w.MustPost(users[0], p.ID, 11) // so that all buckets are loaded
	before := w.Whole(p).Available
	own := w.Level(p.ID.Product().Bucket(1)).Available
	if own > 0 {
		w.MustPost(users[1], p.ID, own)
		before -= own
	}
	w.MySQL.Cut()
	begin := time.Now()
	replies := apitest.Crowd(50, func(i int) apitest.Reply { return w.Post(users[i+2], p.ID, 1) })
	if took := time.Since(begin); took > borrowTimeout+2*time.Second {
		t.Errorf("the answers took %v", took)
	}
	for _, r := range replies {
		apitest.WantProblem(t, r, http.StatusServiceUnavailable, problem.StockUnavailable)
	}
	l := w.Whole(p)
	if l.Available+l.InTransfer != before {
		t.Errorf("%d are available and %d lent of %d", l.Available, l.InTransfer, before)
	}
	if l.InTransfer > 0 {
		t.Errorf("%d units are lent though MySQL was not reached", l.InTransfer)
	}
	w.MySQL.Heal()
	w.Eventually("units can be borrowed again", func() bool {
		return w.Post(users[2], p.ID, 1).Status == http.StatusAccepted
	})
	w.Audit()
}

// TestLateMoverChangesNothing stops a mover between its steps, until reconcile has finished or cancelled its move.
func TestLateMoverChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(20, 2)
	from, to := p.ID.Product().Bucket(1), p.ID.Product().Bucket(2)
	for _, id := range p.StockIDs() {
		row, err := w.Ledger.Product(t.Context(), id)
		w.Must(err)
		w.LoadNow(row)
	}
	mover := buckets.Stores{Redis: w.Stock, MySQL: w.Ledger}
	repair := func(want reconcile.Cause, apply ...order.StockID) {
		t.Helper()
		r := reconcile.Reconciler{Redis: w.Stock, MySQL: w.Ledger, Apply: true, TransferAge: time.Nanosecond}
		var found []reconcile.Cause
		for _, id := range apply {
			report, err := r.Product(t.Context(), id)
			w.Must(err)
			for _, f := range report.Findings {
				if f.Repaired {
					found = append(found, f.Cause)
				}
			}
		}
		if !slices.Contains(found, want) {
			t.Errorf("reconcile repaired %v, want %s", found, want)
		}
		w.Whole(p)
	}
	wants := func(what string, donor, receiver int64) {
		t.Helper()
		w.Whole(p)
		a, b := w.Level(from), w.Level(to)
		if a.Available != donor || b.Available != receiver || a.InTransfer+b.InTransfer != 0 {
			t.Errorf("%s: the donor has %+v, the receiver %+v; want %d and %d available", what, a, b, donor, receiver)
		}
	}
	lend := func() ledger.Transfer {
		t.Helper()
		m := ledger.Transfer{ID: uuid.Must(uuid.NewV7()), Donor: from, Receiver: to, Units: 3}
		n, err := w.Stock.BeginTransfer(t.Context(), from, 3, stock.Transfer{ID: m.ID, Receiver: to})
		w.Must(err)
		if n != 3 {
			t.Fatalf("%d units were lent", n)
		}
		return m
	}

	// It stops after the loan: reconcile cancels the move.
	m := lend()
	repair(reconcile.Transfer, from, to)
	wants("cancelled", 10, 10)
	decided, err := w.Ledger.Transfer(t.Context(), m)
	w.Must(err)
	if decided.Made() {
		t.Error("a move was made that was cancelled")
	}
	w.Must(mover.Finish(t.Context(), decided))
	wants("cancelled, then the mover comes", 10, 10)

	// It stops after the commit.
	m = lend()
	decided, err = w.Ledger.Transfer(t.Context(), m)
	w.Must(err)
	repair(reconcile.Transfer, from, to)
	wants("committed", 7, 13)
	w.Must(mover.Finish(t.Context(), decided))
	wants("committed, then the mover comes", 7, 13)

	// It stops after the receiver has got its part.
	m = lend()
	decided, err = w.Ledger.Transfer(t.Context(), m)
	w.Must(err)
	_, err = w.Stock.Restock(t.Context(), to, 3, decided.ReceiverVersion, m.ID.String())
	w.Must(err)
	repair(reconcile.Transfer, from, to)
	wants("half finished", 4, 16)
	w.Must(mover.Finish(t.Context(), decided))
	wants("half finished, then the mover comes", 4, 16)

	// Redis loses the donor meanwhile, and then the receiver.
	for _, lost := range []order.StockID{from, to} {
		m = ledger.Transfer{ID: uuid.Must(uuid.NewV7()), Donor: to, Receiver: from, Units: 2}
		if _, err = w.Stock.BeginTransfer(t.Context(), to, 2, stock.Transfer{ID: m.ID, Receiver: from}); err != nil {
			t.Fatal(err)
		}
		decided, err = w.Ledger.Transfer(t.Context(), m)
		w.Must(err)
		for key := range w.Dump() {
			if strings.Contains(key, fmt.Sprintf("{%d}", lost)) {
				w.Must(w.RDB.Del(t.Context(), key).Err())
			}
		}
		row, err := w.Ledger.Product(t.Context(), lost)
		w.Must(err)
		w.LoadNow(row)
		w.Must(mover.Finish(t.Context(), decided))
		w.Whole(p)
	}
	wants("after losses", 8, 12)
	w.Audit()
}
