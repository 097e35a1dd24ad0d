package stock

import (
	"errors"
	"testing"

	"stampede/internal/order"
)

func returnOf(id order.OrderID, user order.UserID, units, takenAt, returnedAt int64) order.Returned {
	return order.Returned{OrderID: id, UserID: user, Quantity: units, TakenAt: takenAt, ReturnedAt: returnedAt}
}

func (s *shop) giveBack(t testing.TB, orders ...order.Returned) int64 {
	t.Helper()
	return must(s.Return(t.Context(), s.product.ID, orders))(t)
}

func testReturn(t *testing.T, s *shop) {
	s.load(t, nil) // 10 units at version 5
	bought := func(user order.UserID, units, version int64) order.Order {
		o := s.order(t, user, units, "")
		s.settle(t, fresh(o, order.Completed, version))
		return o
	}
	first, second := bought(1, 2, 6), bought(1, 1, 7)
	a, b := returnOf(first.ID, 1, 2, 6, 8), returnOf(second.ID, 1, 1, 7, 9)
	old := returnOf(order.NewID(), 2, 4, 3, 4)    // sold and returned before the load
	older := returnOf(order.NewID(), 3, 3, 4, 10) // sold before the load
	for _, step := range []struct {
		what              string
		orders            []order.Returned
		units             int64
		stock, seen, have string
	}{
		{"one", []order.Returned{a}, 2, "9", "8", "1"},
		{"again, with another", []order.Returned{a, b}, 1, "10", "9", ""},
		{"all that the loaded stock has", []order.Returned{old}, 0, "10", "9", ""},
		{"what was sold before the load", []order.Returned{older, older}, 3, "13", "10", ""},
	} {
		equal(t, step.what, s.giveBack(t, step.orders...), step.units)
		c := s.contents(t)
		equal(t, step.what, []string{c.stock, c.sale["seen"], c.bought["1"]},
			[]string{step.stock, step.seen, step.have})
	}
	equal(t, "bought", s.contents(t).bought, map[string]string{})
	before := s.contents(t)
	equal(t, "all again", s.giveBack(t, a, b, old, older), 0)
	// A redelivered decision finds neither reservation nor anything to do.
	equal(t, "settled again", s.settle(t, again(first, order.Completed)), Settled{})
	equal(t, "contents after all again", s.contents(t), before)
}

func testReturnNotLoaded(t *testing.T, s *shop) {
	r := returnOf(order.NewID(), 1, 2, 6, 7)
	equal(t, "units", s.giveBack(t, r), 0)
	equal(t, "contents", s.contents(t), contents{sale: map[string]string{"seen": "7"}})
	if _, err := s.Load(t.Context(), s.product); !errors.Is(err, ErrStale) {
		t.Errorf("a product as it was before the return is loaded: %v", err)
	}
	s.load(t, func(p *order.Product) { p.Version = 7 })
	equal(t, "units of the loaded stock", s.giveBack(t, r), 0)
	equal(t, "stock", s.contents(t).stock, "10")
}

// The units of an order whose reservation was lost are returned before its decider settles it: for a moment its buyer
// has less than none.
func testReturnBeforeSettle(t *testing.T, s *shop) {
	s.load(t, nil)
	lost := order.Order{ID: order.NewID(), UserID: 1, Quantity: 2}
	equal(t, "units", s.giveBack(t, returnOf(lost.ID, 1, 2, 6, 7)), 2)
	c := s.contents(t)
	equal(t, "stock, bought", []string{c.stock, c.bought["1"]}, []string{"12", "-2"})
	s.settle(t, fresh(lost, order.Completed, 6))
	c = s.contents(t)
	equal(t, "stock", c.stock, "10")
	equal(t, "bought", c.bought, map[string]string{})
}
