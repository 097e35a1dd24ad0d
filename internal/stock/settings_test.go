package stock

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
)

// configure makes a change of the settings, of the next revision, and brings it to Redis, where the product is loaded.
func (s *shop) configure(t testing.TB, change func(*order.Product)) {
	t.Helper()
	change(&s.product)
	s.product.Revision++
	if held, err := s.Configure(t.Context(), s.product); err != nil || !held {
		t.Fatalf("Configure = %v, %v", held, err)
	}
}

func testConfigure(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser, p.StartsAt = 3, time.UnixMilli(1_700_000_000_123) })
	s.order(t, 1, 2, "k")
	want := s.contents(t)
	s.configure(t, func(p *order.Product) {
		p.Price, p.State, p.LimitPerUser, p.PointsPrice = order.MaxUnitPrice, order.OffSale, 0, 25
		p.StartsAt, p.EndsAt = time.Time{}, time.UnixMilli(4_000_000_000_000)
	})
	want.sale = map[string]string{
		"version": "5", "born": "5", "seen": "5", "price": "1000000000000", "currency": "EUR", "buckets": "0",
		"starts_at": "0", "ends_at": "4000000000000", "limit": "0", "state": "off_sale", "revision": "4",
		"points_price": "25",
	}
	equal(t, "contents", s.contents(t), want)
	s.unchanged(t, "the same again", func() {
		if held, err := s.Configure(t.Context(), s.product); !held || err != nil {
			t.Errorf("Configure = %v, %v", held, err)
		}
	})
	s.unchanged(t, "an older change", func() {
		old := s.product
		old.Revision, old.Price = 3, 1
		if held, err := s.Configure(t.Context(), old); held || err != nil {
			t.Errorf("Configure = %v, %v", held, err)
		}
	})
	if ttl := must(s.rdb.TTL(t.Context(), s.keys.sale).Result())(t); ttl != -1 {
		t.Errorf("the settings expire in %v", ttl)
	}
}

func testConfigureNotLoaded(t *testing.T, s *shop) {
	changed := s.product
	changed.Revision, changed.Price = 4, 5
	if held, err := s.Configure(t.Context(), changed); held || err != nil {
		t.Errorf("Configure = %v, %v", held, err)
	}
	equal(t, "contents", s.contents(t), contents{sale: map[string]string{"revision": "4"}})
	s.unchanged(t, "a load from before the change, and an older change", func() {
		// That its stock is newer does not help.
		stale := s.product
		stale.Version = 99
		if loaded, err := s.Load(t.Context(), stale); loaded || !errors.Is(err, ErrStale) {
			t.Errorf("Load = %v, %v", loaded, err)
		}
		if held, err := s.Configure(t.Context(), s.product); held || err != nil {
			t.Errorf("Configure = %v, %v", held, err)
		}
	})
	if _, err := s.Currency(t.Context(), s.product.ID); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Currency: %v", err)
	}
	s.product = changed
	s.load(t, nil)
	equal(t, "price", s.order(t, 1, 1, "").UnitPrice, 5)
}

// testConfigureInEveryOrder plays two changes, and edges that load what they have read before, between and after
// them, in every order.
func testConfigureInEveryOrder(t *testing.T, first *shop) {
	type step struct {
		configures bool
		revision   int64
	}
	var play func(done, left []step)
	play = func(done, left []step) {
		for i, next := range left {
			play(append(slices.Clone(done), next), slices.Concat(left[:i], left[i+1:]))
		}
		if len(left) > 0 {
			return
		}
		s := newShop(first.Stock)
		row := func(revision int64) order.Product {
			p := s.product
			p.Revision, p.Price = revision, 100*revision
			return p
		}
		var mark, inForce int64 // the newest change that Redis has heard of, and the settings by which it sells
		for _, next := range append(done, step{false, 5}) {
			var got, want bool
			var err, wantErr error
			if next.configures {
				mark = max(mark, next.revision)
				want = inForce > 0 && next.revision == mark
				got, err = s.Configure(t.Context(), row(next.revision))
			} else {
				want = inForce == 0 && next.revision >= mark
				if inForce == 0 && !want {
					wantErr = ErrStale
				}
				got, err = s.Load(t.Context(), row(next.revision))
			}
			if want {
				inForce, mark = next.revision, next.revision
			}
			if got != want || !errors.Is(err, wantErr) {
				t.Fatalf("%+v, at %+v: %v, %v, want %v, %v", done, next, got, err, want, wantErr)
			}
			if inForce > 0 {
				equal(t, fmt.Sprint(done), s.contents(t).sale["price"], fmt.Sprint(100*inForce))
			}
		}
		if inForce != 5 {
			t.Errorf("after %+v revision %d is in force", done, inForce)
		}
	}
	play(nil, []step{{true, 4}, {true, 5}, {false, 3}, {false, 4}, {false, 5}})
}

func testOffSale(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.State = order.OffSale })
	s.unchanged(t, "an order while off sale", func() {
		equal(t, "loaded off sale", outcomes(s.reserve(t, ask(1, 1, "k"))), []Outcome{NotOnSale})
	})
	s.configure(t, func(p *order.Product) { p.State = order.OnSale })
	first, second := s.order(t, 1, 2, "k"), s.order(t, 2, 3, "")
	s.configure(t, func(p *order.Product) { p.State, p.EndsAt = order.OffSale, s.now(t).Add(-time.Hour) })
	results := s.reserve(t, ask(1, 2, "k"), ask(1, 3, "k"), ask(2, 1, ""),
		Request{OrderID: second.ID, UserID: 2, Quantity: 3})
	equal(t, "taken off sale", outcomes(results), []Outcome{Replayed, IdempotencyMismatch, NotOnSale, Replayed})
	equal(t, "the order of the key", results[0].Order.ID, first.ID)
	// Orders from before are cancelled, settled and counted as ever.
	settled := s.settle(t, fresh(first, order.Completed, 6), fresh(second, order.Failed, 6))
	equal(t, "settled", settled, Settled{GivenBack: 3})
	c := s.contents(t)
	equal(t, "stock and bought", []any{c.stock, c.bought}, []any{"8", map[string]string{"1": "2"}})
}

func testPriceOfTheFirstTime(t *testing.T, s *shop) {
	s.load(t, nil)
	keyed, bare := s.order(t, 1, 1, "k"), s.order(t, 2, 2, "")
	s.configure(t, func(p *order.Product) { p.Price = 5 })
	again := func(when string) {
		t.Helper()
		results := s.reserve(t, ask(1, 1, "k"), Request{OrderID: bare.ID, UserID: 2, Quantity: 2}, ask(3, 1, ""))
		equal(t, when+": outcomes", outcomes(results), []Outcome{Replayed, Replayed, Reserved})
		bare.IdempotencyKey = ""
		equal(t, when+": orders", []order.Order{results[0].Order, results[1].Order}, []order.Order{keyed, bare})
		equal(t, when+": price of a new order", results[2].Order.UnitPrice, 5)
	}
	again("in the outbox")
	prices := map[order.UserID]int64{}
	for _, o := range s.claim(t, 0) {
		prices[o.UserID] = o.UnitPrice
	}
	equal(t, "prices that the relay would send", prices, map[order.UserID]int64{1: 1999, 2: 1999, 3: 5})
	s.acknowledge(t, keyed)
	again("sent")
	s.settle(t, fresh(keyed, order.Completed, 6))
	again("decided")
}

func testLimitSetLater(t *testing.T, s *shop) {
	s.load(t, nil)
	s.order(t, 1, 3, "")
	decided := s.order(t, 2, 1, "")
	s.settle(t, fresh(decided, order.Completed, 6))
	s.configure(t, func(p *order.Product) { p.LimitPerUser = 2 })
	equal(t, "limit 2", outcomes(s.reserve(t, ask(1, 1, ""), ask(2, 2, ""), ask(2, 1, ""), ask(3, 3, ""))),
		[]Outcome{LimitExceeded, LimitExceeded, Reserved, LimitExceeded})
	s.configure(t, func(p *order.Product) { p.LimitPerUser = 4 })
	equal(t, "limit 4", outcomes(s.reserve(t, ask(1, 1, ""), ask(1, 1, ""))), []Outcome{Reserved, LimitExceeded})
	s.configure(t, func(p *order.Product) { p.LimitPerUser = 0 })
	equal(t, "no limit", outcomes(s.reserve(t, ask(1, 1, ""))), []Outcome{Reserved})
}
