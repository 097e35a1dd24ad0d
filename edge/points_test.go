package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
)

// postPoints orders units that are to be paid with points.
func (w *world) postPoints(user order.UserID, product order.StockID, quantity int64, fields ...string) apitest.Reply {
	w.Helper()
	fields = append(fields, "Authorization", w.Bearer(user), "Content-Type", "application/json")
	return w.Send("POST", "/api/orders", fmt.Sprintf(`{"product_id":%d,"quantity":%d,"pay_with":"points"}`, product,
		quantity), fields...)
}

func costs(points int64) func(*order.Product) {
	return func(p *order.Product) { p.PointsPrice = points }
}

// TestPayWithPoints: an order that is paid with points says so in the 202, on the queue and while it is pending.
func TestPayWithPoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10, costs(300))
	r := w.postPoints(7, p.ID, 3, "Idempotency-Key", "k")
	var accepted acceptedBody
	r.Read(t, &accepted)
	want := fmt.Sprintf(`{"order_id":"%s","status":"pending","product_id":%d,"quantity":3,"unit_price":300,`+
		`"total_price":900,"currency":"PTS","pay_with":"points"}`, accepted.OrderID, p.ID)
	if r.Status != 202 || r.Body != want {
		t.Errorf("got  %s\nwant %s", r.Body, want)
	}
	orders := w.Orders()
	if len(orders) != 1 || !orders[0].Points || orders[0].UnitPrice != 300 {
		t.Errorf("the queue holds %+v", orders)
	}
	var body orderBody
	w.Get(7, "/api/orders/"+accepted.OrderID+"?product_id="+p.ID.String()).Read(t, &body)
	if body.PayWith != "points" || body.Currency != "PTS" || body.UnitPrice != 300 || body.TotalPrice != 900 {
		t.Errorf("while it is pending it is %+v", body)
	}

	// A retry is the same order; to pay it otherwise is another, and needs a key of its own.
	if again := w.postPoints(7, p.ID, 3, "Idempotency-Key", "k"); again.Body != want {
		t.Errorf("again: %v", again)
	}
	apitest.WantProblem(t, w.Post(7, p.ID, 3, "Idempotency-Key", "k"), 422, problem.IdempotencyMismatch)
	w.MustPost(7, p.ID, 1, "Idempotency-Key", "money")
	apitest.WantProblem(t, w.postPoints(7, p.ID, 1, "Idempotency-Key", "money"), 422, problem.IdempotencyMismatch)
	w.WantLevel(p.ID, 6, 4, 0)

	other := w.AddProduct(10)
	apitest.WantProblem(t, w.postPoints(7, other.ID, 1), 409, problem.NoPointsPrice)
	apitest.WantProblem(t, w.postPoints(7, other.ID, 1, "Idempotency-Key", "k"), 409, problem.NoPointsPrice)
	w.WantLevel(other.ID, 10, 0, 0)
}

// TestPointsAndMoneyInACrowd: orders of both kinds that come together share the units of a product, also those of all
// its buckets, and each is reserved at its own price.
func TestPointsAndMoneyInACrowd(t *testing.T) {
	t.Parallel()
	const units, buyers = 60, 80 // so that those of one kind cannot have them all
	w := newWorld(t)
	for _, p := range []order.Product{w.AddProduct(units, costs(300)), w.AddSplit(units, 4, costs(300))} {
		var crowd sync.WaitGroup
		var mu sync.Mutex
		var replies []apitest.Reply
		for user := range buyers {
			crowd.Go(func() {
				post := w.Post
				if user%2 == 1 {
					post = w.postPoints
				}
				r := post(order.UserID(user+1), p.ID, 1)
				mu.Lock()
				defer mu.Unlock()
				replies = append(replies, r)
			})
		}
		crowd.Wait()

		accepted := 0
		for _, r := range replies {
			if r.Status == 202 {
				accepted++
			} else {
				apitest.WantProblem(t, r, 409, problem.SoldOut)
			}
		}
		if accepted != units {
			t.Errorf("%d orders of %d units were accepted", accepted, units)
		}
		points := 0
		orders := slices.DeleteFunc(w.Orders(), func(o order.Order) bool {
			return o.StockID.Product() != p.ID.Product()
		})
		for _, o := range orders {
			if want := 1999 - 1699*(int64(o.UserID+1)%2); o.UnitPrice != want || o.Points != (want == 300) {
				t.Errorf("user %d is to pay %d, with points: %v", o.UserID, o.UnitPrice, o.Points)
			}
			if o.Points {
				points++
			}
		}
		if len(orders) != units || points == 0 || points == units {
			t.Errorf("the queue holds %d orders, and %d of points", len(orders), points)
		}
	}
}
