package stock

import (
	"testing"

	"stampede/internal/order"
)

func testSettleReserved(t *testing.T, s *shop) {
	for _, test := range []struct {
		what   string
		decide func(order.Order) order.Decision
		given  int64 // of 2 units
		seen   string
		mark   bool
	}{
		{"completed just now", func(o order.Order) order.Decision {
			return fresh(o, order.Completed, 6)
		}, 0, "6", false},
		{"completed before", func(o order.Order) order.Decision { return again(o, order.Completed) }, 0, "5", true},
		{"failed just now", func(o order.Order) order.Decision { return fresh(o, order.Failed, 6) }, 2, "6", false},
		{"failed before", func(o order.Order) order.Decision { return again(o, order.Failed) }, 2, "5", false},
	} {
		s := newShop(s.Stock)
		s.load(t, nil)
		o := s.order(t, 1, 2, "k")
		s.order(t, 1, 1, "")
		other := s.order(t, 2, 3, "")
		s.acknowledge(t, other)
		want := s.contents(t)

		equal(t, test.what, s.settle(t, test.decide(o)), Settled{GivenBack: test.given})
		delete(want.reserved, o.ID.String())
		delete(want.outbox, o.ID.String())
		want.sale["seen"] = test.seen
		if test.given > 0 {
			want.stock, want.bought["1"] = "6", "1"
		}
		if test.mark {
			want.settled = []string{o.ID.String()}
		}
		equal(t, test.what, s.contents(t), want)

		s.unchanged(t, test.what+", settled again", func() {
			equal(t, test.what, s.settle(t, again(o, test.decide(o).Status)), Settled{})
		})
		equal(t, test.what+": its key", s.reserve(t, ask(1, 2, "k"))[0], Reservation{Outcome: Replayed, Order: o})
	}

	// What is given back leaves no buyer behind.
	s.load(t, nil)
	s.settle(t, fresh(s.order(t, 1, 2, ""), order.Failed, 5))
	equal(t, "bought", s.contents(t).bought, map[string]string{})
}

func testSettleTwiceInCall(t *testing.T, s *shop) {
	s.load(t, nil)
	failed, done, lost := s.order(t, 1, 2, ""), s.order(t, 1, 3, ""),
		order.Order{ID: order.NewID(), UserID: 2, Quantity: 1}
	settled := s.settle(t,
		fresh(failed, order.Failed, 6), again(failed, order.Failed), fresh(failed, order.Failed, 6),
		fresh(done, order.Completed, 6), again(done, order.Completed), fresh(done, order.Completed, 6),
		fresh(lost, order.Completed, 6), again(lost, order.Completed), fresh(lost, order.Completed, 6))
	equal(t, "moved", settled, Settled{GivenBack: 2, TakenOut: 1})
	c := s.contents(t)
	equal(t, "stock, bought, marks", []any{c.stock, c.bought, c.settled},
		[]any{"6", map[string]string{"1": "3", "2": "1"}, []string{}})
}

// An order that was decided without a reservation is in the loaded stock already, or is taken out of it.
func testSettleWithoutReservation(t *testing.T, s *shop) {
	for _, test := range []struct {
		what     string
		decision order.Decision
		taken    int64 // of 2 units
		seen     string
	}{
		{"completed, newer than the load", fresh(order.Order{}, order.Completed, 6), 2, "6"},
		{"completed, as old as the load", fresh(order.Order{}, order.Completed, 5), 0, "5"},
		{"completed, older than the load", fresh(order.Order{}, order.Completed, 4), 0, "5"},
		{"completed before", again(order.Order{}, order.Completed), 0, "5"},
		{"failed just now", fresh(order.Order{}, order.Failed, 6), 0, "6"},
		{"failed before", again(order.Order{}, order.Failed), 0, "5"},
	} {
		s := newShop(s.Stock)
		s.load(t, nil)
		s.order(t, 1, 9, "")
		want := s.contents(t)
		test.decision.Order = order.Order{ID: order.NewID(), UserID: 1, Quantity: 2}
		equal(t, test.what, s.settle(t, test.decision), Settled{TakenOut: test.taken})
		if test.taken > 0 {
			want.stock, want.bought["1"] = "-1", "11" // below zero is sold out
		}
		want.sale["seen"] = test.seen
		equal(t, test.what, s.contents(t), want)
	}

	// The version of a call is that of its fresh decisions, and says nothing of the others.
	s.load(t, nil)
	lost := func() order.Order { return order.Order{ID: order.NewID(), UserID: 1, Quantity: 2} }
	settled := s.settle(t, again(lost(), order.Completed), fresh(lost(), order.Completed, 6),
		again(lost(), order.Completed))
	equal(t, "fresh and not", settled, Settled{TakenOut: 2})
}

// Somebody else has dropped the reservation; the decider that comes late finds the mark, and takes nothing out.
func testSettleMark(t *testing.T, s *shop) {
	s.load(t, nil)
	o := s.order(t, 1, 2, "")
	s.settle(t, again(o, order.Completed))
	equal(t, "late", s.settle(t, fresh(o, order.Completed, 6)), Settled{})
	c := s.contents(t)
	equal(t, "stock, bought, seen", []string{c.stock, c.bought["1"], c.sale["seen"]}, []string{"8", "2", "6"})
}

func testSettleNotLoaded(t *testing.T, s *shop) {
	o := order.Order{ID: order.NewID(), UserID: 1, Quantity: 2}
	equal(t, "settled", s.settle(t, fresh(o, order.Completed, 6)), Settled{})
	equal(t, "contents", s.contents(t), contents{sale: map[string]string{"seen": "6"}})
	s.unchanged(t, "an older decision", func() { s.settle(t, fresh(o, order.Completed, 3), again(o, order.Completed)) })
}
