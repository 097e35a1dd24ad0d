package ledger

import (
	"fmt"
	"sync/atomic"
	"testing"

	"stampede/internal/order"
)

// BenchmarkDecide decides new orders of one product, that is under one row lock. An operation is one order.
func BenchmarkDecide(b *testing.B) {
	for _, bench := range []struct {
		size, callers int
		limit         int64
	}{
		{1, 16, 0}, {1, 16, 10}, {100, 4, 0}, {100, 4, 10}, {1000, 4, 0}, {1000, 4, 10},
	} {
		b.Run(fmt.Sprintf("size=%d/callers=%d/limit=%d", bench.size, bench.callers, bench.limit), func(b *testing.B) {
			l := newLedger(b)
			product := addProduct(b, l, MaxStock, bench.limit)
			var taken, user atomic.Int64
			b.ResetTimer()
			done := make(chan error, bench.callers)
			for range bench.callers {
				go func() {
					for taken.Add(int64(bench.size)) <= int64(b.N+bench.size-1) {
						orders := make([]order.Order, bench.size)
						for i := range orders {
							n := user.Add(1)
							orders[i] = newOrder(product.ID, order.UserID(n), 1, fmt.Sprintf("key-%032d", n))
						}
						if _, err := l.Decide(b.Context(), product.ID, orders); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range bench.callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(user.Load())/b.Elapsed().Seconds(), "orders/s")
		})
	}
}
