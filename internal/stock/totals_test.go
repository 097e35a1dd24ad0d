package stock

import (
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestTotals(t *testing.T) {
	t.Parallel()
	s := openShop(t, stacktest.RedisURL(t))
	if got, err := s.Totals(t.Context()); err != nil || got != (Totals{}) {
		t.Fatalf("of nothing: %+v, %v", got, err)
	}
	s.load(t, func(p *order.Product) { p.Stock = 10 })
	before := time.Now().Add(-time.Millisecond)
	for user := range int64(3) {
		s.reserve(t, ask(order.UserID(user+1), 2, ""))
	}
	got, err := s.Totals(t.Context())
	if err != nil || got.Products != 1 || got.Available != 4 || got.Reserved != 3 || got.Outbox != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got.Oldest.Before(before) || got.Oldest.After(time.Now()) {
		t.Errorf("the oldest is of %s", got.Oldest)
	}
}
