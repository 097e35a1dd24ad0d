package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/internal/wallet"
)

// productOfPoints is a product of which a unit costs so many points.
func (r *rig) productOfPoints(units, price int64) order.Product {
	r.t.Helper()
	p, err := r.ledger.AddProduct(r.t.Context(), order.Product{
		Name: "gift", Price: 1999, Currency: "EUR", PointsPrice: price, Stock: units,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.load(p.ID)
	return p
}

// reserveByPoints reserves a unit for each of n new users, of whom every second has the points for it.
func (r *rig) reserveByPoints(p order.Product, n int) (rich, poor []order.Order) {
	r.t.Helper()
	requests := make([]stock.Request, n)
	for i := range requests {
		r.users++
		requests[i] = stock.Request{OrderID: order.NewID(), UserID: r.users, Quantity: 1}
		points := p.PointsPrice - int64(i%2)
		if _, _, err := wallet.New(r.db).TopUp(r.t.Context(), r.users, points, "first"); err != nil {
			r.t.Fatal(err)
		}
	}
	_, results, err := r.stock.ReserveByPoints(r.t.Context(), p.ID, 0, requests)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range results {
		if results[i].Outcome != stock.Reserved {
			r.t.Fatalf("request %d: outcome %d", i, results[i].Outcome)
		}
		if i%2 == 0 {
			rich = append(rich, results[i].Order)
		} else {
			poor = append(poor, results[i].Order)
		}
	}
	return rich, poor
}

// mustHavePaid wants the rich to have paid once, and the poor to have their points and the reason.
func (r *rig) mustHavePaid(rich, poor []order.Order) {
	r.t.Helper()
	r.mustBe("", rich...)
	r.mustBe(order.InsufficientPoints, poor...)
	for _, o := range append(rich[:len(rich):len(rich)], poor...) {
		w, err := wallet.New(r.db).Get(r.t.Context(), o.UserID)
		if err != nil || w.Balance != w.Earned%o.UnitPrice || w.Version > 2 {
			r.t.Errorf("the wallet of user %d is %+v, %v", o.UserID, w, err)
		}
	}
	if problems, err := wallet.New(r.db).Audit(r.t.Context()); err != nil || len(problems) > 0 {
		r.t.Errorf("wallets: %v, %v", problems, err)
	}
}

// TestPointsAreTakenOnce: an order that is paid with points costs them once, however often it arrives.
func TestPointsAreTakenOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.productOfPoints(20, 300)
	rich, poor := r.reserveByPoints(p, 10)
	for range 2 {
		if err := r.queue.SendOrders(t.Context(), append(rich[:len(rich):len(rich)], poor...)); err != nil {
			t.Fatal(err)
		}
	}
	r.acknowledge(append(rich[:len(rich):len(rich)], poor...)...)
	w := r.start()
	r.quiet(w)
	r.mustHavePaid(rich, poor)
	mustCount(t, len(rich), "completed", func(m *metrics) prometheus.Collector {
		return m.decisions.WithLabelValues(string(order.Completed), "")
	}, w)
	if l := r.level(p.ID); l.Available != 20-int64(len(rich)) {
		t.Errorf("%d units are available", l.Available)
	}
	r.audit()
}

// TestTheRelaySendsPoints: an order that its edge has left behind is still one that is paid with points.
func TestTheRelaySendsPoints(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.productOfPoints(20, 300)
	rich, poor := r.reserveByPoints(p, 10)
	w := r.start(func(w *Worker) { w.relayInterval, w.relayAge = 100*time.Millisecond, time.Second })
	r.quiet(w)
	r.mustHavePaid(rich, poor)
	r.audit()
}
