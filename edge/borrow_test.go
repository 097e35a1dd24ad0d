package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/account"
	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// addSplit puts a product on sale whose units are in buckets.
func (w *world) addSplit(units, buckets int64, change ...func(*order.Product)) order.Product {
	w.Helper()
	return w.addProduct(units, append(change, func(p *order.Product) { p.Buckets = buckets })...)
}

// usersOf are n users who buy from a bucket, of so many.
func usersOf(bucket int, buckets int64, n int) (users []int64) {
	for user := int64(1); len(users) < n; user++ {
		if order.BucketFor(user, buckets) == bucket {
			users = append(users, user)
		}
	}
	return users
}

// whole adds up what Redis and MySQL hold of a product's buckets, which must fit for each of them.
func (w *world) whole(p order.Product) (l stock.Level) {
	w.Helper()
	units, err := w.ledger.Stocks(w.Context(), p.StockIDs())
	w.must(err)
	for _, id := range p.StockIDs() {
		b := w.level(id)
		if b.Loaded && b.Available+b.Reserved+b.Lent != units[id] {
			w.Errorf("bucket %d has %d available + %d reserved + %d lent, MySQL %d", order.BucketOf(id), b.Available,
				b.Reserved, b.Lent, units[id])
		}
		l.Available += b.Available
		l.Reserved += b.Reserved
		l.Lent += b.Lent
		l.Outbox += b.Outbox
	}
	return l
}

// audit wants the books to be sound.
func (w *world) audit() {
	w.Helper()
	audits, err := w.ledger.Audit(w.Context())
	w.must(err)
	for _, a := range audits {
		for _, problem := range a.Problems {
			w.Errorf("product %d: %s", a.ID, problem)
		}
	}
}

// TestBucketsAreNotSeen buys from a split product and looks at every place where it is shown.
func TestBucketsAreNotSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(10, 4, func(p *order.Product) { p.LimitPerUser = 3 })
	r := w.post(1, p.ID, 3, "Idempotency-Key", "k")
	var accepted acceptedBody
	r.read(t, &accepted)
	if r.status != http.StatusAccepted || accepted.ProductID != p.ID {
		t.Fatalf("%v", r)
	}
	if again := w.post(1, p.ID, 3, "Idempotency-Key", "k"); again.body != r.body {
		t.Errorf("a retry is told %v, and was told %v", again, r)
	}
	wantProblem(t, w.post(1, p.ID, 1), http.StatusConflict, limitExceeded)
	wantProblem(t, w.post(1, p.ID, 2, "Idempotency-Key", "k"), http.StatusUnprocessableEntity, idempotencyMismatch)
	var shown orderBody
	w.get(1, "/api/orders/"+accepted.OrderID).read(t, &shown)
	if shown.ProductID != p.ID {
		t.Errorf("the order is shown as one of product %d", shown.ProductID)
	}
	o := w.orders()[0]
	if want := order.BucketID(p.ID, order.BucketFor(1, 4)); o.ProductID != want {
		t.Errorf("the order is one of product %d, want %d", o.ProductID, want)
	}
	_, err := w.ledger.Decide(t.Context(), o.ProductID, []order.Order{o})
	w.must(err)
	var history struct{ Orders []orderBody }
	w.get(1, "/api/orders").read(t, &history)
	if len(history.Orders) != 1 || history.Orders[0].ProductID != p.ID {
		t.Errorf("the history is %+v", history)
	}
	var product productBody
	w.get(1, fmt.Sprintf("/api/products/%d", p.ID)).read(t, &product)
	if product.ID != p.ID || product.Available != 7 {
		t.Errorf("the product is shown as %+v", product)
	}
	var list struct{ Products []productBody }
	w.get(1, "/api/products").read(t, &list)
	if len(list.Products) != 1 || list.Products[0].Available != 7 {
		t.Errorf("the list is %+v", list)
	}
	for _, id := range p.StockIDs() {
		wantProblem(t, w.post(2, id, 1), http.StatusNotFound, productNotFound)
		wantProblem(t, w.get(2, fmt.Sprintf("/api/products/%d", id)), http.StatusNotFound, productNotFound)
	}
}

// TestLastUnits: whatever buckets the last units are in, who wants them gets them, and nobody more.
func TestLastUnits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(6, 3)
	first, second := usersOf(1, 3, 20), usersOf(2, 3, 1)
	w.mustPost(first[0], p.ID, 2)
	w.mustPost(first[1], p.ID, 1) // of another bucket
	w.mustPost(second[0], p.ID, 3)
	wantProblem(t, w.post(first[2], p.ID, 1), http.StatusConflict, soldOut)
	if l := w.whole(p); l.Available != 0 || l.Reserved != 6 || l.Lent != 0 {
		t.Errorf("%+v", l)
	}

	// All units of all buckets for one order, and one more than that.
	q := w.addSplit(12, 4)
	wantProblem(t, w.post(1, q.ID, 13), http.StatusConflict, soldOut)
	w.mustPost(1, q.ID, 12)
	wantProblem(t, w.post(2, q.ID, 1), http.StatusConflict, soldOut)
	w.audit()
}

// TestBucketsSellOut has a crowd of two edges buy more than there is, most of it from one bucket, with a restock in the
// middle. Everything is sold, and nothing twice.
func TestBucketsSellOut(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	_, _, addr := w.start()
	urls := []string{w.url, "http://" + addr}
	p := w.addSplit(300, 8, func(p *order.Product) { p.LimitPerUser = 2 })
	users := append(usersOf(3, 8, 150), usersOf(5, 8, 20)...)
	replies := crowd(500, func(i int) reply {
		at := *w
		at.url = urls[i%2]
		if i == 250 {
			done, err := w.ledger.Restock(context.Background(), p.ID, 11, "more")
			if err != nil {
				t.Error(err)
			}
			for _, part := range done.Parts {
				if _, err := w.stock.Restock(context.Background(), part.ProductID, part.Units, part.Version,
					"more"); err != nil {
					t.Error(err)
				}
			}
		}
		return at.post(users[i%len(users)], p.ID, 1, "Idempotency-Key", fmt.Sprint(i))
	})
	// Whoever is late finds what was on its way meanwhile.
	accepted := 0
	for _, r := range replies {
		if r.status == http.StatusAccepted {
			accepted++
		} else if c := r.code(); c != string(soldOut) && c != string(limitExceeded) {
			t.Errorf("%v", r)
		}
	}
	for user := int64(1_000_000); ; user++ {
		r := w.post(user, p.ID, 1)
		if r.code() == string(soldOut) {
			break
		}
		if r.status != http.StatusAccepted {
			t.Fatalf("%v", r)
		}
		accepted++
	}
	if accepted != 311 {
		t.Errorf("%d units were sold of 311: %v", accepted, count(replies))
	}
	if l := w.whole(p); l.Available != 0 || l.Reserved != 311 || l.Lent != 0 {
		t.Errorf("%+v", l)
	}
	w.audit()
}

// TestReopenedForAllBuckets: units that come back to one bucket are for sale to the buyers of the others.
func TestReopenedForAllBuckets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(4, 4)
	buyer, others := usersOf(1, 4, 1)[0], usersOf(2, 4, 2)
	w.mustPost(buyer, p.ID, 4)
	wantProblem(t, w.post(others[0], p.ID, 1), http.StatusConflict, soldOut)
	before := w.scriptCalls()
	wantProblem(t, w.post(others[1], p.ID, 1), http.StatusConflict, soldOut)
	if calls := w.scriptCalls() - before; calls > 0 {
		t.Logf("%d scripts were run by all tests meanwhile", calls)
	}
	o := w.orders()[0]
	_, err := w.stock.Settle(t.Context(), o.ProductID, []order.Decision{{Record: order.Record{Order: o,
		Status: order.Failed}}})
	w.must(err)
	since := time.Now()
	refused, err := w.until(w.url, others[0], p.ID, soldOut)
	w.must(err)
	if took := refused.Sub(since); took > 250*time.Millisecond {
		t.Errorf("the buyers of another bucket are refused until %v after units came back", took)
	}
}

// TestBucketsChange: an edge goes by another number of buckets as soon as Redis does.
func TestBucketsChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(12, func(p *order.Product) { p.StartsAt = time.Now().Add(time.Hour) })
	for _, n := range []int64{4, 8, 0, 2} {
		wantProblem(t, w.post(1, p.ID, 1), http.StatusConflict, saleNotStarted) // so that the edge knows it as it is
		after, err := w.ledger.Split(t.Context(), p.ID, n)
		w.must(err)
		loaded, err := w.stock.Products(t.Context())
		w.must(err)
		r := reconcile.Reconciler{Redis: w.stock, MySQL: w.ledger, Apply: true}
		for _, id := range loaded {
			_, err := r.Product(t.Context(), id)
			w.must(err)
		}
		open, err := w.ledger.UpdateProduct(t.Context(), p.ID, func(p *order.Product) { p.StartsAt = time.Time{} })
		w.must(err)
		_, err = w.stock.Configure(t.Context(), open)
		w.must(err)
		w.eventually(fmt.Sprintf("it is sold from %d buckets", n), func() bool {
			r := w.post(n+1, p.ID, 13)
			return r.code() == string(soldOut)
		})
		if n == 2 {
			w.mustPost(1, p.ID, 12)
			w.whole(after)
			break
		}
		closed, err := w.ledger.UpdateProduct(t.Context(), p.ID, func(p *order.Product) {
			p.StartsAt = time.Now().Add(time.Hour)
		})
		w.must(err)
		_, err = w.stock.Configure(t.Context(), closed)
		w.must(err)
		w.eventually("its sale has not started", func() bool {
			return w.post(1, p.ID, 1).code() == string(saleNotStarted)
		})
	}
	w.audit()
}

// TestBorrowWithoutMySQL: what other buckets have cannot be borrowed, and nobody says that it is sold out. MySQL is not
// asked again and again.
func TestBorrowWithoutMySQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(40, 4)
	users := usersOf(1, 4, 60)
	w.mustPost(users[0], p.ID, 11) // so that all buckets are loaded
	before := w.whole(p).Available
	own := w.level(order.BucketID(p.ID, 1)).Available
	if own > 0 {
		w.mustPost(users[1], p.ID, own)
		before -= own
	}
	w.mysql.cut()
	begin := time.Now()
	replies := crowd(50, func(i int) reply { return w.post(users[i+2], p.ID, 1) })
	if took := time.Since(begin); took > borrowTimeout+2*time.Second {
		t.Errorf("the answers took %v", took)
	}
	for _, r := range replies {
		wantProblem(t, r, http.StatusServiceUnavailable, stockUnavailable)
	}
	l := w.whole(p)
	if l.Available+l.Lent != before {
		t.Errorf("%d are available and %d lent of %d", l.Available, l.Lent, before)
	}
	if l.Lent > 0 {
		t.Errorf("%d units are lent though MySQL was not reached", l.Lent)
	}
	w.mysql.heal()
	w.eventually("units can be borrowed again", func() bool {
		return w.post(users[2], p.ID, 1).status == http.StatusAccepted
	})
	w.audit()
}

// TestLateMoverChangesNothing stops a mover between its steps, until reconcile has finished or cancelled its move.
func TestLateMoverChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(20, 2)
	from, to := order.BucketID(p.ID, 1), order.BucketID(p.ID, 2)
	for _, id := range p.StockIDs() {
		row, err := w.ledger.Product(t.Context(), id)
		w.must(err)
		w.loadNow(row)
	}
	mover := buckets.Mover{Redis: w.stock, MySQL: w.ledger}
	repair := func(want reconcile.Cause, apply ...int64) {
		t.Helper()
		r := reconcile.Reconciler{Redis: w.stock, MySQL: w.ledger, Apply: true, LoanAge: time.Nanosecond}
		var found []reconcile.Cause
		for _, id := range apply {
			report, err := r.Product(t.Context(), id)
			w.must(err)
			for _, f := range report.Findings {
				if f.Repaired {
					found = append(found, f.Cause)
				}
			}
		}
		if !slices.Contains(found, want) {
			t.Errorf("reconcile repaired %v, want %s", found, want)
		}
		w.whole(p)
	}
	wants := func(what string, donor, receiver int64) {
		t.Helper()
		w.whole(p)
		a, b := w.level(from), w.level(to)
		if a.Available != donor || b.Available != receiver || a.Lent+b.Lent != 0 {
			t.Errorf("%s: the donor has %+v, the receiver %+v; want %d and %d available", what, a, b, donor, receiver)
		}
	}
	lend := func() ledger.Move {
		t.Helper()
		m := ledger.Move{ID: order.NewID(), Donor: from, Receiver: to, Units: 3}
		n, err := w.stock.Lend(t.Context(), from, 3, stock.Loan{Move: m.ID, Receiver: to})
		w.must(err)
		if n != 3 {
			t.Fatalf("%d units were lent", n)
		}
		return m
	}

	// It stops after the loan: reconcile cancels the move.
	m := lend()
	repair(reconcile.Move, from, to)
	wants("cancelled", 10, 10)
	decided, err := w.ledger.Move(t.Context(), m)
	w.must(err)
	if decided.Moved() {
		t.Error("a move was made that was cancelled")
	}
	w.must(mover.Finish(t.Context(), decided))
	wants("cancelled, then the mover comes", 10, 10)

	// It stops after the commit.
	m = lend()
	decided, err = w.ledger.Move(t.Context(), m)
	w.must(err)
	repair(reconcile.Move, from, to)
	wants("committed", 7, 13)
	w.must(mover.Finish(t.Context(), decided))
	wants("committed, then the mover comes", 7, 13)

	// It stops after the receiver has got its part.
	m = lend()
	decided, err = w.ledger.Move(t.Context(), m)
	w.must(err)
	_, err = w.stock.Restock(t.Context(), to, 3, decided.ReceiverVersion, m.ID.String())
	w.must(err)
	repair(reconcile.Move, from, to)
	wants("half finished", 4, 16)
	w.must(mover.Finish(t.Context(), decided))
	wants("half finished, then the mover comes", 4, 16)

	// Redis loses the donor meanwhile, and then the receiver.
	for _, lost := range []int64{from, to} {
		m = ledger.Move{ID: order.NewID(), Donor: to, Receiver: from, Units: 2}
		if _, err = w.stock.Lend(t.Context(), to, 2, stock.Loan{Move: m.ID, Receiver: from}); err != nil {
			t.Fatal(err)
		}
		decided, err = w.ledger.Move(t.Context(), m)
		w.must(err)
		for key := range w.dump() {
			if strings.Contains(key, fmt.Sprintf("{%d}", lost)) {
				w.must(w.rdb.Del(t.Context(), key).Err())
			}
		}
		row, err := w.ledger.Product(t.Context(), lost)
		w.must(err)
		w.loadNow(row)
		w.must(mover.Finish(t.Context(), decided))
		w.whole(p)
	}
	wants("after losses", 8, 12)
	w.audit()
}

// TestRestockOfSplitProduct restocks by HTTP: every bucket gets its part, once.
func TestRestockOfSplitProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addSplit(4, 4)
	for _, user := range []int64{1, 2, 3, 4} {
		w.mustPost(user, p.ID, 1)
	}
	merchant := w.bearerOf(1, account.Merchant)
	var bodies []string
	for range 2 {
		r := w.send("PUT", fmt.Sprintf("/api/products/%d/restocks/monday", p.ID), `{"units":10}`,
			"Authorization", merchant, "Content-Type", "application/json")
		if r.status != http.StatusCreated && r.status != http.StatusOK {
			t.Fatal(r)
		}
		bodies = append(bodies, r.body)
	}
	var done restockBody
	w.must(json.Unmarshal([]byte(bodies[0]), &done))
	if bodies[0] != bodies[1] || done != (restockBody{p.ID, "monday", 10, 14}) {
		t.Errorf("%q", bodies)
	}
	if l := w.whole(p); l.Available != 10 {
		t.Errorf("%+v", l)
	}
	r := w.send("PATCH", fmt.Sprintf("/api/products/%d", p.ID), `{"price":5}`, "Authorization", merchant,
		"Content-Type", "application/json")
	var patched productBody
	r.read(t, &patched)
	if r.status != http.StatusOK || patched.Available != 10 || patched.Price != 5 {
		t.Errorf("%v", r)
	}
	for user := int64(11); user < 20; user++ { // whichever bucket it is
		accepted := acceptedBody{}
		w.post(user, p.ID, 1).read(t, &accepted)
		if accepted.UnitPrice != 5 {
			t.Errorf("user %d pays %d", user, accepted.UnitPrice)
		}
	}
	w.audit()
}
