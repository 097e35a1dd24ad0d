package stock

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func (s *shop) look(t testing.TB) Look {
	t.Helper()
	return must(s.Look(t.Context(), s.product.ID))(t)
}

func (s *shop) pause(t testing.TB, length time.Duration) {
	t.Helper()
	if err := s.Pause(t.Context(), s.product.ID, length); err != nil {
		t.Fatal(err)
	}
}

func (s *shop) correct(t testing.TB, available int64) {
	t.Helper()
	if !must(s.Correct(t.Context(), s.product.ID, s.look(t), available, 10))(t) {
		t.Fatal("not corrected")
	}
}

// testLoadAcrossLoss: a row that was read before a loss is not loaded after it, by whoever began first.
func testLoadAcrossLoss(t *testing.T, s *shop) {
	reads := 0
	loaded, err := s.Stock.Load(t.Context(), s.product.ID, func(context.Context) (order.Product, error) {
		reads++
		p := s.product
		switch reads {
		case 1: // whether it exists at all
		case 2:
			s.load(t, nil) // another edge is faster, and orders are decided; then Redis loses it all
			s.settle(t, fresh(s.order(t, 1, 4, ""), order.Completed, 6))
			s.flush(t)
		default:
			p.Stock, p.Version = 6, 6
		}
		return p, nil
	})
	if err != nil || !loaded || reads != 3 {
		t.Errorf("Load = %v, %v after %d reads", loaded, err, reads)
	}
	equal(t, "stock", s.contents(t).stock, "6")

	s.flush(t)
	loaded, err = s.Stock.Load(t.Context(), s.product.ID, func(context.Context) (order.Product, error) {
		s.flush(t)
		return s.product, nil
	})
	if loaded || !errors.Is(err, ErrStale) {
		t.Errorf("a row that is always out of date: Load = %v, %v", loaded, err)
	}
	broken := errors.New("broken")
	s.flush(t)
	s.unchanged(t, "a row that cannot be read", func() {
		if loaded, err = s.Stock.Load(t.Context(), s.product.ID, func(context.Context) (order.Product, error) {
			return order.Product{}, broken
		}); loaded || !errors.Is(err, broken) {
			t.Errorf("a row that cannot be read: Load = %v, %v", loaded, err)
		}
	})
}

func testLook(t *testing.T, s *shop) {
	equal(t, "not loaded", s.look(t).Loaded, false)
	s.load(t, nil)
	must(s.Restock(t.Context(), s.product.ID, 1, 8, "r"))(t)
	a, b := s.order(t, 1, 2, ""), s.order(t, 2, 3, "")
	s.acknowledge(t, a)
	l := s.look(t)
	equal(t, "look", []any{l.Loaded, l.Available, l.Reserved, l.Outbox, l.Version, l.Revision, l.Restocks},
		[]any{true, 6, map[order.OrderID]int64{a.ID: 2, b.ID: 3}, map[order.OrderID]bool{b.ID: true}, 5,
			s.product.Revision,
			map[string]bool{"r": true}})
}

// testCorrect moves something in each way there is between look and correction.
func testCorrect(t *testing.T, s *shop) {
	s.load(t, nil)
	var a, b order.Order
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"reserve", func() { a, b = s.order(t, 1, 2, ""), s.order(t, 2, 3, "") }},
		{"cancel", func() { must(s.Cancel(t.Context(), s.product.ID, []order.Order{a}))(t) }},
		{"settle", func() { s.settle(t, fresh(b, order.Failed, 6)) }},
		{"settle what has no reservation", func() { s.settle(t, fresh(b, order.Completed, 7)) }},
		{"restock", func() { must(s.Restock(t.Context(), s.product.ID, 2, 8, "r"))(t) }},
		{"correct", func() { s.correct(t, 9) }},
		{"loss and load", func() {
			s.flush(t)
			s.load(t, func(p *order.Product) { p.Version = 10 })
		}},
		{"loss", func() { s.flush(t) }},
	} {
		l := s.look(t)
		step.do()
		s.unchanged(t, step.what+", then correct", func() {
			if must(s.Correct(t.Context(), s.product.ID, l, 77, 77))(t) {
				t.Errorf("%s: corrected by an old look", step.what)
			}
		})
	}
	s.load(t, nil)
	s.order(t, 1, 2, "")
	l := s.look(t)
	if !must(s.Correct(t.Context(), s.product.ID, l, 5, 12))(t) {
		t.Error("nothing has moved, and it is not corrected")
	}
	c := s.contents(t)
	equal(t, "stock and versions", []string{c.stock, c.sale["version"], c.sale["seen"]}, []string{"5", "12", "12"})
	// What was decided up to that version and has no reservation is in the stock already.
	late := order.Order{ID: order.NewID(), UserID: 3, Quantity: 1}
	s.settle(t, fresh(late, order.Completed, 12))
	equal(t, "stock after an old decision", s.contents(t).stock, "5")
	late.ID = order.NewID()
	s.settle(t, fresh(late, order.Completed, 13))
	equal(t, "stock after a new one", s.contents(t).stock, "4")
	// A correction is of the stock, and knows nothing of buyers: both orders are counted for theirs.
	equal(t, "bought", s.contents(t).bought, map[string]string{"1": "2", "3": "2"})
}

func testPause(t *testing.T, s *shop) {
	s.load(t, nil)
	before := s.order(t, 1, 1, "k")
	s.pause(t, time.Hour)
	equal(t, "while paused", outcomes(s.reserve(t, ask(1, 1, ""), ask(1, 1, "k"), ask(2, 2, "k"))),
		[]Outcome{Paused, Replayed, Paused})
	equal(t, "readmit while paused", must(s.Readmit(t.Context(),
		order.Order{ID: order.NewID(), StockID: s.product.ID, UserID: 1, Quantity: 1}))(t), Paused)
	s.settle(t, fresh(before, order.Completed, 6)) // orders go on
	s.pause(t, 0)
	equal(t, "after the end", outcomes(s.reserve(t, ask(1, 1, ""))), []Outcome{Reserved})
	s.pause(t, time.Millisecond)
	stacktest.Eventually(t, 10*time.Second, func() error {
		if got := s.reserve(t, ask(1, 1, ""))[0].Outcome; got != Reserved {
			return errors.New("a pause does not end by itself")
		}
		return nil
	})
}

func testUnload(t *testing.T, s *shop) {
	s.load(t, nil)
	o := s.order(t, 1, 2, "")
	unload := func(l Look) bool { t.Helper(); return must(s.Unload(t.Context(), s.product.ID, l))(t) }
	s.unchanged(t, "unload with a reservation", func() { equal(t, "unloaded", unload(s.look(t)), false) })
	l := s.look(t)
	s.settle(t, fresh(o, order.Completed, 6))
	s.unchanged(t, "unload by an old look", func() { equal(t, "unloaded", unload(l), false) })
	equal(t, "unloaded", unload(s.look(t)), true)
	equal(t, "keys but for completed orders", len(s.dump(t)), 1)
	for _, id := range must(s.Products(t.Context()))(t) {
		if id == s.product.ID {
			t.Error("it is among the loaded products")
		}
	}
}

// listed reports whether the product is in the set of those that are loaded.
func (s *shop) listed(t testing.TB) bool {
	t.Helper()
	return slices.Contains(must(s.Products(t.Context()))(t), s.product.ID)
}

// testLoadMeetsForget: whoever comes last, a product that is loaded is in the set of those.
func testLoadMeetsForget(t *testing.T, s *shop) {
	forget := func() {
		if err := s.ForgetUnloaded(t.Context(), s.product.ID); err != nil {
			t.Error(err)
		}
	}
	loading := &between{name: "evalsha", do: forget}
	s.rdb.AddHook(loading)
	s.load(t, nil)
	equal(t, "forgotten while it was loaded: in the set", s.listed(t), true)

	// Nothing is loaded when it is looked at, and before it is taken out an edge has loaded it.
	if err := s.rdb.Del(t.Context(), s.keys.stock, s.keys.sale).Err(); err != nil {
		t.Fatal(err)
	}
	forgetting := &between{name: "srem", do: func() { s.load(t, nil) }}
	s.rdb.AddHook(forgetting)
	forget()
	equal(t, "loaded while it was forgotten: in the set", s.listed(t), true)
}

// testForget: what a process that died while it loaded or unloaded a product has left in the set is taken out, and
// nothing that is loaded or on its way.
func testForget(t *testing.T, s *shop) {
	forget := func(what string, listed bool) {
		t.Helper()
		if err := s.ForgetUnloaded(t.Context(), s.product.ID); err != nil {
			t.Fatal(err)
		}
		equal(t, what+": in the set", s.listed(t), listed)
	}
	s.load(t, nil)
	forget("loaded", true)
	s.order(t, 1, 1, "")
	if err := s.rdb.Del(t.Context(), s.keys.stock).Err(); err != nil {
		t.Fatal(err)
	}
	forget("on its way", true)
	if err := s.rdb.Del(t.Context(), s.keys.reserved, s.keys.outbox).Err(); err != nil {
		t.Fatal(err)
	}
	forget("neither", false)
}

func testReadmit(t *testing.T, s *shop) {
	o := order.Order{ID: order.NewID(), StockID: s.product.ID, UserID: 7, Quantity: 3, UnitPrice: 1234,
		IdempotencyKey: "a key"}
	if _, err := s.Readmit(t.Context(), o); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("not loaded: %v", err)
	}
	// Its sale is over, and its price was another one.
	s.load(t, func(p *order.Product) { p.LimitPerUser, p.EndsAt = 4, s.now(t).Add(-time.Hour) })
	readmit := func(o order.Order) Outcome { t.Helper(); return must(s.Readmit(t.Context(), o))(t) }
	equal(t, "first", readmit(o), Reserved)
	c := s.contents(t)
	equal(t, "stock, reserved, bought", []any{c.stock, c.reserved, c.bought},
		[]any{"7", map[string]string{o.ID.String(): "3"}, map[string]string{"7": "3"}})
	dead := []order.Decision{{Record: order.Record{Order: o, Status: order.Failed, FailedReason: order.DeadLetter}}}
	s.unchanged(t, "settled by its old decision", func() {
		settled := must(s.SettleLeft(t.Context(), s.product.ID, dead))(t)
		equal(t, "settled", settled, Settled{Spared: 1})
	})
	equal(t, "again", readmit(o), Replayed)
	again := s.contents(t)
	equal(t, "stock, reserved, bought", []any{again.stock, again.reserved, again.bought},
		[]any{c.stock, c.reserved, c.bought})
	equal(t, "orders in the outbox", len(again.outbox), 1)
	equal(t, "cancel", s.cancel(t, o), []bool{false}) // it is claimed
	sent := s.claim(t, 0)
	if len(sent) != 1 || sent[0].UnitPrice != 1234 || sent[0].IdempotencyKey != "a key" || sent[0].ID != o.ID {
		t.Errorf("the relay would send %+v", sent)
	}
	other := order.Order{ID: order.NewID(), StockID: s.product.ID, UserID: 7, Quantity: 2}
	s.unchanged(t, "over the limit", func() { equal(t, "over the limit", readmit(other), LimitExceeded) })
	s.configure(t, func(p *order.Product) { p.LimitPerUser = 0 })
	other.Quantity = 8
	s.unchanged(t, "sold out", func() { equal(t, "sold out", readmit(other), SoldOut) })
}

// testLower: what buyers have is lowered only if nothing has moved since the look.
func testLower(t *testing.T, s *shop) {
	s.load(t, nil)
	s.settle(t, fresh(s.order(t, 1, 2, ""), order.Completed, 6))
	s.settle(t, fresh(s.order(t, 2, 1, ""), order.Completed, 7))
	l := s.look(t)
	equal(t, "counted", l.Counted(), false)
	o := s.order(t, 3, 1, "")
	s.unchanged(t, "lowered by an old look", func() {
		equal(t, "lowered", must(s.LowerBought(t.Context(), s.product.ID, l, map[order.UserID]int64{1: 0}, true))(t),
			false)
	})
	s.settle(t, fresh(o, order.Failed, 8))

	l = s.look(t)
	equal(t, "lowered", must(s.LowerBought(t.Context(), s.product.ID, l, map[order.UserID]int64{1: 0, 2: 1}, true))(t),
		true)
	equal(t, "bought", s.contents(t).bought, map[string]string{"2": "1"})
	equal(t, "counted", s.look(t).Counted(), true)
	s.order(t, 3, 1, "")
	equal(t, "counted", s.look(t).Counted(), false)
}
