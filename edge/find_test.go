package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
)

// A pending order of a product that is split is found in the bucket of its user, by an edge that does not know yet that
// there are buckets, and without MySQL.
func TestFindInABucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddSplit(100, 4)
	var locations []string
	for user := range order.UserID(8) {
		r := w.Post(user+1, p.ID, 1)
		if r.Status != 202 {
			t.Fatalf("got %v", r)
		}
		locations = append(locations, r.Header.Get("Location"))
	}

	_, _, addr := w.start()
	w.URL = "http://" + addr
	w.MySQL.Cut()
	for i, location := range locations {
		if r := w.Get(order.UserID(i+1), location); r.Status != 200 || !strings.Contains(r.Body, `"pending"`) {
			t.Errorf("the order of user %d: %v", i+1, r)
		}
	}
	w.MySQL.Heal()
	for i, location := range locations {
		without, _, _ := strings.Cut(location, "?")
		if r := w.Get(order.UserID(i+1), without); r.Status != 200 || !strings.Contains(r.Body, `"pending"`) {
			t.Errorf("the order of user %d without its product: %v", i+1, r)
		}
		if r := w.Get(order.UserID(i+2), without); r.Status != 404 {
			t.Errorf("the order of user %d is shown to another: %v", i+1, r)
		}
	}
}

// Many who ask at once for orders of one product cost Redis and MySQL a few calls.
func TestFindInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000)
	ids := make([]string, 200)
	user := func(i int) order.UserID { return order.UserID(i/20 + 1) } // so that none makes too many requests
	for i := range ids {
		ids[i] = w.MustPost(user(i), p.ID, 1)
	}
	find := func(want string) {
		t.Helper()
		replies := apitest.Crowd(len(ids), func(i int) apitest.Reply {
			return w.Get(user(i), fmt.Sprintf("/api/orders/%s?product_id=%d", ids[i], p.ID))
		})
		for _, r := range replies {
			if r.Status != 200 || !strings.Contains(r.Body, want) {
				t.Errorf("got %v", r)
			}
		}
	}
	w.WantSettledOutbox(p.ID)
	w.MySQL.Forget()
	find(`"pending"`)
	if n := w.MySQL.Asked("FROM orders"); n != 0 {
		t.Errorf("of pending orders MySQL was asked %d times", n)
	}

	for i, id := range ids {
		w.decide(id, user(i), order.Completed, "")
	}
	w.MySQL.Forget()
	find(`"completed"`)
	if n := w.MySQL.Asked("FROM orders"); n == 0 || n > len(ids)/2 {
		t.Errorf("of %d decided orders MySQL was asked %d times", len(ids), n)
	}
	w.MySQL.Forget()
	find(`"completed"`)
	if n := w.MySQL.Asked("FROM orders"); n != 0 {
		t.Errorf("once more MySQL was asked %d times", n)
	}
}

// An order that has failed as a dead letter may be decided anew, and is shown as it is then.
func TestFindAfterARedrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	id := w.MustPost(1, p.ID, 1)
	location := fmt.Sprintf("/api/orders/%s?product_id=%d", id, p.ID)
	o := w.Orders()[0]
	w.decide(id, 1, order.Failed, order.DeadLetter)
	for _, want := range []string{`"failed"`, `"pending"`, `"completed"`} {
		if r := w.Get(1, location); r.Status != 200 || !strings.Contains(r.Body, want) {
			t.Errorf("got %v, want %s", r, want)
		}
		switch want {
		case `"failed"`:
			_, err := w.Stock.Readmit(t.Context(), o)
			w.Must(err)
			w.Must(w.Ledger.Redrive(t.Context(), o.ID))
		case `"pending"`:
			w.decide(id, 1, order.Completed, "")
		}
	}
}

// Of too many searches some are refused, and none waits for ever.
func TestTooManySearches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.AddProduct(10)
	w.Redis.Hang()
	replies := apitest.Crowd(maxSearches+2*maxSearch, func(int) apitest.Reply {
		return w.Get(1, "/api/orders/"+order.NewID().String()) // fewer than are too many of a user
	})
	for _, r := range replies {
		apitest.WantProblem(t, r, 503, problem.OrdersUnavailable)
		if r.Took > lookupTimeout+5*time.Second {
			t.Errorf("an answer took %v", r.Took)
		}
	}
	w.Redis.Heal()
	apitest.WantProblem(t, w.Get(1, "/api/orders/"+order.NewID().String()), 404, problem.OrderNotSeenYet)
}
