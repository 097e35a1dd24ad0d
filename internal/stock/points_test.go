package stock

import (
	"testing"
	"time"

	"stampede/internal/order"
)

// buyByPoints reserves orders that are paid with points.
func (s *shop) buyByPoints(t testing.TB, requests ...Request) []Reservation {
	t.Helper()
	_, results, err := s.ReserveByPoints(t.Context(), s.product.ID, 0, requests)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// testPoints: wherever an order goes that is paid with points, its price stays one in points.
func testPoints(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.PointsPrice = 300 })
	results := s.buyByPoints(t, ask(1, 2, "k"), ask(2, 1, ""))
	equal(t, "outcomes", outcomes(results), []Outcome{Reserved, Reserved})
	first, second := results[0].Order, results[1].Order
	if !first.Points || first.UnitPrice != 300 || !second.Points || second.UnitPrice != 300 {
		t.Errorf("reserved %+v and %+v", first, second)
	}

	want := []order.Order{first, second}
	records := must(s.Pending(t.Context(), s.product.ID, []order.OrderID{first.ID, second.ID}))(t).Records
	for i, record := range records {
		if record == nil || record.Order != want[i] || record.Currency != order.PointsCurrency {
			t.Errorf("pending is %+v, want %+v", record, want[i])
		}
	}
	places := must(s.Places(t.Context(), []order.StockID{s.product.ID}, first.ID))(t)
	if len(places) != 1 || places[0].Record.Order != first || places[0].Record.Currency != order.PointsCurrency {
		t.Errorf("it is at %+v", places)
	}

	// Its price changes, which is nothing to it.
	s.configure(t, func(p *order.Product) { p.PointsPrice = 400 })
	replayed := s.buyByPoints(t, ask(1, 2, "k"))[0]
	equal(t, "replayed", []any{replayed.Outcome, replayed.Order, replayed.Unsent}, []any{Replayed, first, true})
	s.age(t, first.ID, time.Minute)
	sent := s.claim(t, time.Second)
	if len(sent) != 2 || sent[0] != first && sent[1] != first {
		t.Errorf("the relay would send %+v, want %+v", sent, want)
	}
	s.acknowledge(t, first)

	s.settle(t, fresh(first, order.Completed, 6), fresh(second, order.Completed, 6))
	var completed []order.Order
	if err := s.Completed(t.Context(), s.product.ID, func(some []order.Order) error {
		completed = append(completed, some...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	equal(t, "completed", completed, want)
	equal(t, "replayed when it is decided", s.buyByPoints(t, ask(1, 2, "k"))[0],
		Reservation{Outcome: Replayed, Order: first})

	dead := second
	dead.ID = order.NewID()
	for _, outcome := range []Outcome{Reserved, Replayed} {
		equal(t, "readmitted", must(s.Readmit(t.Context(), dead))(t), outcome)
		again := must(s.Pending(t.Context(), s.product.ID, []order.OrderID{dead.ID}))(t).Records[0]
		if again == nil || !again.Points || again.UnitPrice != 300 {
			t.Errorf("readmitted is %+v", again)
		}
	}
}

// testPointsAndMoney: units are the same to both, and a key stands for an order that is paid in one way.
func testPointsAndMoney(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.PointsPrice, p.LimitPerUser = 300, 4 })
	money := s.order(t, 1, 2, "k")
	points := s.buyByPoints(t, ask(1, 1, "l"))[0].Order
	if money.Points || money.UnitPrice != 1999 || !points.Points || points.UnitPrice != 300 {
		t.Errorf("reserved %+v and %+v", money, points)
	}
	s.unchanged(t, "to pay otherwise", func() {
		equal(t, "the key of an order of money", outcomes(s.buyByPoints(t, ask(1, 2, "k"))),
			[]Outcome{IdempotencyMismatch})
		equal(t, "the key of an order of points", outcomes(s.reserve(t, ask(1, 1, "l"))),
			[]Outcome{IdempotencyMismatch})
		equal(t, "over the limit", outcomes(s.buyByPoints(t, ask(1, 2, ""))), []Outcome{LimitExceeded})
	})
	s.configure(t, func(p *order.Product) { p.LimitPerUser = 0 })
	equal(t, "sold out", outcomes(s.buyByPoints(t, ask(2, 8, ""))), []Outcome{SoldOut})
	equal(t, "cancelled", s.cancel(t, points), []bool{true})
	equal(t, "the key is free", outcomes(s.reserve(t, ask(1, 1, "l"))), []Outcome{Reserved})
}

// testNoPointsPrice: what has no price in points is not to be had for them, also if another program has loaded it.
func testNoPointsPrice(t *testing.T, s *shop) {
	s.load(t, nil)
	refused := func(what string) {
		t.Helper()
		s.unchanged(t, what, func() {
			equal(t, what, outcomes(s.buyByPoints(t, ask(1, 1, "k"), ask(2, 99, ""))),
				[]Outcome{NoPointsPrice, NoPointsPrice})
		})
	}
	refused("without a price")
	if err := s.rdb.HDel(t.Context(), s.keys.sale, "points_price").Err(); err != nil {
		t.Fatal(err)
	}
	refused("loaded by a program of before")

	s.configure(t, func(p *order.Product) { p.PointsPrice = 5 })
	first := s.buyByPoints(t, ask(1, 1, "k"))[0]
	equal(t, "with one", []any{first.Outcome, first.Order.UnitPrice}, []any{Reserved, 5})
	s.configure(t, func(p *order.Product) { p.PointsPrice = 0 })
	again := s.buyByPoints(t, ask(1, 1, "k"), ask(1, 1, ""))
	equal(t, "without one again", outcomes(again), []Outcome{Replayed, NoPointsPrice})
	equal(t, "the order of before", again[0].Order, first.Order)
	equal(t, "for money", outcomes(s.reserve(t, ask(1, 1, ""))), []Outcome{Reserved})
}
