package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/apitest"
	"stampede/internal/notice"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// TestClosed is what an edge remembers of a product, without a server.
func TestClosed(t *testing.T) {
	t.Parallel()
	c := newRefusalCache()
	now := time.Now()
	redis := now.Add(42 * time.Hour) // its clock may be another
	wants := func(what string, quantity int64, want problem.Code) {
		t.Helper()
		if got, _ := c.ask(1, quantity, time.Now()); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	wants("a product nobody has asked for", 1, "")

	c.learn(1, stock.Sale{Now: redis, Available: 2}, now)
	wants("two are left", 2, "")
	wants("two are left of three", 3, problem.SoldOut)
	if got, _ := c.ask(2, 3, time.Now()); got != "" {
		t.Errorf("another product: %q", got)
	}
	c.learn(1, stock.Sale{Now: redis}, now)
	wants("none is left", 1, problem.SoldOut)
	c.learn(1, stock.Sale{Now: redis, Available: -3}, now)
	wants("fewer than none are left", 1, problem.SoldOut)

	c.reopen(2, 1)
	wants("units came back", 1, "")
	c.learn(1, stock.Sale{Now: redis}, now)
	wants("an answer from before they came back", 1, "")
	c.learn(1, stock.Sale{Now: redis}, time.Now())
	wants("an answer from after", 1, problem.SoldOut)
	c.learn(1, stock.Sale{Now: redis, Available: order.MaxQuantity}, time.Now())
	wants("enough for any order", order.MaxQuantity, "")

	c.learn(1, stock.Sale{Now: redis, State: order.OffSale, Available: 1}, time.Now())
	wants("off sale", 1, problem.NotOnSale)

	c.reopen(1)
	c.learn(1, stock.Sale{Now: redis, EndsAt: redis}, time.Now())
	wants("the end", 1, problem.SaleEnded)
	c.learn(1, stock.Sale{Now: redis, EndsAt: redis.Add(1), Available: 1}, time.Now())
	wants("before the end", 1, "")
	c.learn(1, stock.Sale{Now: redis, StartsAt: redis.Add(time.Hour)}, time.Now())
	wants("before the start", 1, problem.SaleNotStarted)
	c.learn(1, stock.Sale{Now: redis, StartsAt: redis, Available: 1}, time.Now())
	wants("the start", 1, "")

	c = newRefusalCache()
	c.learn(1, stock.Sale{Now: redis, StartsAt: redis.Add(100 * time.Millisecond)},
		time.Now().Add(-101*time.Millisecond))
	wants("the start has come since", 1, "")

	c = newRefusalCache()
	c.learn(1, stock.Sale{Now: redis}, time.Now().Add(-refusalTTL-time.Millisecond))
	wants("an answer that is too old", 1, "")
}

// TestAnswerOnItsWay: Redis is asked, then units come back, and only then the edge hears that there were none. It must
// not answer others by that.
func TestAnswerOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.edge.refusalCache.reopen(p.ID) // else nobody is asked
	w.Redis.Hang()
	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Post(2, p.ID, 1) }()
	w.Eventually("Redis is asked", func() bool { return w.Redis.Holding() > 0 })
	w.edge.hear(notice.Notice{Reopened: []order.StockID{p.ID}})
	w.Redis.Heal()
	apitest.WantCode(t, "who has asked before", <-answered, http.StatusConflict, problem.SoldOut)
	if c, _ := w.edge.refusalCache.ask(p.ID, 1, time.Now()); c != "" {
		t.Errorf("who asks after units came back is told %q", c)
	}
}

// scriptCalls counts the scripts that a Redis has run.
func (w *world) scriptCalls() (calls int) {
	w.Helper()
	stats, err := w.RDB.Info(w.Context(), "commandstats").Result()
	w.Must(err)
	for line := range strings.Lines(stats) {
		var n int
		if _, err := fmt.Sscanf(line, "cmdstat_evalsha:calls=%d", &n); err == nil {
			calls += n
		}
	}
	return calls
}

// TestClosedAsksNobody sends a crowd to products that nobody can order, and counts the calls of Redis: none but
// the one that each refusalTTL allows.
func TestClosedAsksNobody(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	gone := w.AddProduct(1)
	early := w.AddProduct(5, func(p *order.Product) { p.StartsAt = time.Now().Add(time.Hour) })
	late := w.AddProduct(5, func(p *order.Product) { p.EndsAt = time.Now().Add(-time.Hour) })
	off := w.AddProduct(5, func(p *order.Product) { p.State = order.OffSale })
	first := w.MustPost(1, gone.ID, 1, "Idempotency-Key", "k")
	for _, test := range []struct {
		product order.Product
		code    problem.Code
		member  string
	}{{gone, problem.SoldOut, ""}, {early, problem.SaleNotStarted, "starts_at"}, {late, problem.SaleEnded, "ends_at"},
		{off, problem.NotOnSale, ""}} {
		r := w.Post(2, test.product.ID, 1)
		apitest.WantCode(t, "the first", r, http.StatusConflict, test.code)
		w.Eventually("the notice that the product was loaded is past", func() bool {
			before := w.scriptCalls()
			w.Post(2, test.product.ID, 1)
			return w.scriptCalls() == before
		})
		before, begin := w.scriptCalls(), time.Now()
		replies := apitest.Crowd(400, func(i int) apitest.Reply {
			return w.Post(order.UserID(i+2), test.product.ID,
				1)
		})
		calls, allowed := w.scriptCalls()-before, 1+int(time.Since(begin)/refusalTTL)
		t.Logf("%s: %d calls of Redis for %d answers", test.code, calls, len(replies))
		if got := apitest.Count(replies)["409 "+string(test.code)]; got != len(replies) {
			t.Errorf("%s: %v", test.code, apitest.Count(replies))
		}
		for _, other := range replies {
			if other.Told() != r.Told() {
				t.Errorf("from memory %v, from Redis %v", other, r)
				break
			}
		}
		// Each renewal may find some requests already on their way.
		if calls > 2*allowed {
			t.Errorf("%s: %d calls, %d allowed", test.code, calls, allowed)
		}
	}
	if again := w.MustPost(1, gone.ID, 1, "Idempotency-Key", "k"); again != first {
		t.Errorf("a retry after the last unit is sold gets order %s, not %s", again, first)
	}
}

// until orders one unit at an edge until it is accepted, and returns when the last request was sent that was refused,
// which must be with c.
func (w *world) until(
	url string, user order.UserID, product order.StockID, c problem.Code,
) (refused time.Time, err error) {
	at := *w.World
	at.URL = url
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		sent := time.Now()
		r := at.Post(user, product, 1)
		switch {
		case r.Status == http.StatusAccepted:
			return refused, nil
		case r.Code() != string(c):
			return refused, fmt.Errorf("%v, want %s", r, c)
		}
		refused = sent
		time.Sleep(5 * time.Millisecond) // the pace of the client
	}
	return refused, errors.New("no order was accepted")
}

// TestReopened gives units back in every way there is, while a crowd asks three edges that know the product as sold
// out, and measures when each of them sells again: within 250 ms, and within a second if nobody says so.
func TestReopened(t *testing.T) { // not parallel, for the sake of what is measured
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	urls := []string{w.URL}
	for range 2 {
		_, _, addr := w.start()
		urls = append(urls, "http://"+addr)
	}
	p := w.AddProduct(6)
	user := int64(100)
	w.MustPost(1, p.ID, 3)
	queued := w.Orders()[0]
	unsent := w.reserveUnsent(2, p, 3, "")
	for _, step := range []struct {
		what   string
		within time.Duration
		do     func()
	}{
		{"a failed order", 250 * time.Millisecond, func() {
			_, err := w.Stock.Settle(w.Context(), p.ID,
				[]order.Decision{{Record: order.Record{Order: queued, Status: order.Failed}}})
			w.Must(err)
		}},
		{"a restock", 250 * time.Millisecond, func() {
			done, err := w.Ledger.Restock(w.Context(), p.ID.Product(), 3, "r")
			w.Must(err)
			_, err = w.Stock.Restock(w.Context(), p.ID, 3, done.Version, "r")
			w.Must(err)
		}},
		{"a lost message", time.Second, func() {
			w.Must(w.RDB.IncrBy(w.Context(), fmt.Sprintf("stock:{%d}", p.ID), 3).Err())
		}},
		{"a cancelled order", 250 * time.Millisecond, func() {
			if ok, err := w.Stock.Cancel(w.Context(), p.ID, []order.Order{unsent}); err != nil || !ok[0] {
				w.Fatalf("cancel: %v, %v", ok, err)
			}
		}},
	} {
		for _, url := range urls { // all of them know it, from this moment on
			at := *w.World
			at.URL = url
			apitest.WantCode(t, step.what, at.Post(50, p.ID, 1), http.StatusConflict, problem.SoldOut)
		}
		var edges sync.WaitGroup
		began := make(chan struct{})
		var begin time.Time
		last := make([]time.Time, len(urls))
		for i, url := range urls {
			user++
			edges.Go(func() {
				<-began
				var err error
				if last[i], err = w.until(url, order.UserID(user+int64(i)), p.ID, problem.SoldOut); err != nil {
					t.Errorf("%s, edge %d: %v", step.what, i, err)
				}
			})
		}
		begin = time.Now()
		close(began)
		step.do()
		edges.Wait()
		if t.Failed() {
			return
		}
		for i, at := range last {
			took := at.Sub(begin)
			t.Logf("%s: edge %d has refused until %v after it", step.what, i, took.Round(time.Millisecond))
			if took > step.within {
				t.Errorf("%s: edge %d refuses after %v, want %v", step.what, i, took, step.within)
			}
		}
	}
}

// TestSaleOpens waits for a sale that opens in two seconds, at an edge that has known it as not started: no order
// before, orders right after.
func TestSaleOpens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opens, err := w.RDB.Time(t.Context()).Result()
	w.Must(err)
	opens = opens.Add(2 * time.Second)
	p := w.AddProduct(10, func(p *order.Product) { p.StartsAt = opens })
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			refused, err := w.until(w.URL, order.UserID(i+1), p.ID, problem.SaleNotStarted)
			if err != nil || refused.After(opens.Add(5*time.Millisecond)) {
				t.Errorf("client %d is refused until %v after the start, error %v", i, refused.Sub(opens), err)
			}
		})
	}
	clients.Wait()
	for _, o := range w.Orders() {
		if o.ReservedAt.Before(opens.Truncate(time.Millisecond)) {
			t.Errorf("an order was taken %v before the start", opens.Sub(o.ReservedAt))
		}
	}
}
