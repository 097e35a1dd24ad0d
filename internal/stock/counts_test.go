package stock

import (
	"testing"

	"stampede/internal/order"
)

func testCounts(t *testing.T, s *shop) {
	s.load(t, nil)
	s.order(t, 1, 3, "")
	s.order(t, 2, 1, "")
	counts := must(s.Counts(t.Context(), []order.StockID{s.product.ID, 404}))(t)
	equal(t, "counts", counts, map[order.StockID]Count{s.product.ID: {Loaded: true, Available: 6, Reservations: 2},
		404: {}})
	equal(t, "of no product", must(s.Counts(t.Context(), nil))(t), map[order.StockID]Count{})
}
