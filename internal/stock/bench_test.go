package stock

import (
	"fmt"
	"testing"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// benchFlush is after how many orders a benchmark starts with an empty Redis again.
const benchFlush = 100_000

func BenchmarkReserve(b *testing.B) {
	for _, test := range []struct {
		n     int
		limit int64
		keyed bool
	}{{1, 0, false}, {64, 0, false}, {500, 0, false}, {500, 2, false}, {500, 2, true}} {
		b.Run(fmt.Sprintf("orders=%d/limit=%d/keys=%v", test.n, test.limit, test.keyed), func(b *testing.B) {
			s := openShop(b, stacktest.RedisURL(b))
			requests := asks(test.n)
			orders, user := benchFlush, order.UserID(0)
			for b.Loop() {
				b.StopTimer()
				if orders >= benchFlush {
					s.flush(b)
					s.load(b, func(p *order.Product) { p.Stock, p.LimitPerUser = 10*benchFlush, test.limit })
					orders = 0
				}
				for i := range requests {
					user++
					requests[i].OrderID, requests[i].UserID = order.NewID(), user
					if !test.keyed {
						requests[i].IdempotencyKey = ""
					}
				}
				b.StartTimer()
				if results := s.reserve(b, requests...); results[test.n-1].Outcome != Reserved {
					b.Fatal(results[test.n-1].Outcome)
				}
				orders += test.n
			}
			b.ReportMetric(float64(b.N*test.n)/b.Elapsed().Seconds(), "orders/s")
		})
	}
}

func BenchmarkSettle(b *testing.B) {
	for _, status := range []order.Status{order.Completed, order.Failed} {
		b.Run(string(status), func(b *testing.B) {
			s := openShop(b, stacktest.RedisURL(b))
			s.load(b, func(p *order.Product) { p.Stock = 1 << 40 })
			decisions := make([]order.Decision, MaxBatch)
			for b.Loop() {
				b.StopTimer()
				requests := asks2(MaxBatch)
				for i, result := range s.reserve(b, requests...) {
					decisions[i] = fresh(result.Order, status, 6)
				}
				b.StartTimer()
				s.settle(b, decisions...)
			}
			b.ReportMetric(float64(b.N*MaxBatch)/b.Elapsed().Seconds(), "orders/s")
		})
	}
}
