package till

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/wallet"
)

// byPoints makes an order that is paid with points.
func byPoints(product order.StockID, user order.UserID, units, price int64) order.Order {
	return order.Order{
		ID: order.NewID(), UserID: user, StockID: product, Quantity: units, UnitPrice: price, Points: true,
		ReservedAt: time.Now(),
	}
}

// TestAThousandOrdersByPoints: buyers order several products at once, for more points than they have, while workers
// decide the same orders twice and points come in. No wallet is overdrawn, none pays twice, and what is spent is what
// completed orders cost.
func TestAThousandOrdersByPoints(t *testing.T) {
	t.Parallel()
	const (
		buyers, products, orders  = 20, 3, 1000
		given, price, batch, late = 100, 7, 10, 50
	)
	r := newRig(t)
	wallets := wallet.New(r.DB)
	var ids []order.StockID
	for range products {
		ids = append(ids, r.addProduct(t, orders).ID)
	}
	topUp := func(points int64, ref string) {
		for user := range order.UserID(buyers) {
			if _, _, err := wallets.TopUp(t.Context(), user+1, points, ref); err != nil {
				t.Error(err)
			}
		}
	}
	topUp(given, "first")

	// Each batch is decided by two, as after a redelivery.
	var workers sync.WaitGroup
	var mu sync.Mutex
	cost, bought := map[order.UserID]int64{}, 0
	for n := range orders / batch {
		product := ids[n%products]
		some := make([]order.Order, batch)
		for i := range some {
			some[i] = byPoints(product, order.UserID(1+rand.Int64N(buyers)), 1+rand.Int64N(3), price)
		}
		for range 2 {
			workers.Go(func() {
				decisions, err := r.ledger.Decide(t.Context(), product, some)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, d := range decisions {
					switch {
					case !d.Fresh:
					case d.Status == order.Held:
						cost[d.UserID] += d.TotalPrice()
						bought++
					case d.FailedReason != order.InsufficientPoints:
						t.Errorf("order %s failed: %s", d.ID, d.FailedReason)
					}
				}
			})
		}
	}
	workers.Go(func() { topUp(late, "late") })
	workers.Wait()

	for user := range order.UserID(buyers) {
		w, err := wallets.Get(t.Context(), user+1)
		if err != nil {
			t.Fatal(err)
		}
		if w.Spent != cost[user+1] || w.Balance != given+late-w.Spent || w.Balance < 0 {
			t.Errorf("user %d has %d points of %d, and bought for %d", user+1, w.Balance, given+late, cost[user+1])
		}
	}
	if bought == 0 || bought == orders {
		t.Errorf("%d of %d orders were paid, so that little is shown", bought, orders)
	}
	r.mustAddUp(t)
}

// TestRefundOfPoints: what was paid with points when it was decided can be given back, as points, once.
func TestRefundOfPoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	wallets := wallet.New(r.DB)
	if _, _, err := wallets.TopUp(t.Context(), 1, 100, "first"); err != nil {
		t.Fatal(err)
	}
	o := byPoints(r.product.ID, 1, 2, 30)
	if _, err := r.ledger.Decide(t.Context(), r.product.ID, []order.Order{o}); err != nil {
		t.Fatal(err)
	}
	r.mustBe(t, o.ID, order.Completed)
	ctx := mysql.WithActor(t.Context(), "user:7")
	refund, returned, err := r.RefundOrder(ctx, RefundRequest{
		OrderID: o.ID, Number: "R1", ReturnUnits: true, Note: "broken",
	})
	if err != nil || refund.Amount != 60 || refund.Currency != order.PointsCurrency || len(returned) != 1 {
		t.Errorf("refund %+v, %v, %v", refund, returned, err)
	}
	r.mustBe(t, o.ID, order.Refunded)
	if w, err := wallets.Get(t.Context(), 1); err != nil || w.Balance != 100 {
		t.Errorf("the wallet is %+v, %v", w, err)
	}
	r.mustAddUp(t)
}
