package main

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/reconcile"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Redis|stacktest.MariaDB|stacktest.SQS) }

// testParts are MySQL and Redis of a test's own, with a product on sale.
func testParts(t *testing.T, units, limit int64) (parts, order.Product) {
	t.Helper()
	db, err := mysql.Open(stacktest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	rdb, err := redis.Open(stacktest.RedisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })

	p := newParts(db, rdb)
	product, err := p.ledger.AddProduct(t.Context(), order.Product{
		Name: "ticket", Price: 100, Currency: "EUR", Stock: units, LimitPerUser: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.stock.Load(t.Context(), product.ID, func(ctx context.Context) (order.Product, error) {
		return p.ledger.Product(ctx, product.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, product
}

// buy has an order reserved, decided and settled.
func (p parts) buy(t *testing.T, product order.Product, user order.UserID) order.Order {
	t.Helper()
	_, results, err := p.stock.Reserve(t.Context(), product.ID, 0,
		[]stock.Request{{OrderID: order.OrderID(uuid.Must(uuid.NewV7())), UserID: user, Quantity: 1}})
	if err != nil || results[0].Outcome != stock.Reserved {
		t.Fatal(results, err)
	}
	o := results[0].Order
	decisions, err := p.ledger.Decide(t.Context(), product.ID, []order.Order{o})
	if err == nil {
		_, err = p.stock.Settle(t.Context(), product.ID, decisions)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// mustHave checks what Redis has of a product, and that the audit has nothing to say of its buyers.
func (p parts) mustHave(t *testing.T, id order.StockID, available int64) {
	t.Helper()
	level, err := p.stock.Level(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if level.Available != available || level.Reservations != 0 || level.Outbox != 0 {
		t.Errorf("Redis has %+v, want %d available", level, available)
	}
	if problems := p.sale().Excess(t.Context(), id); len(problems) > 0 {
		t.Errorf("%q", problems)
	}
}

// TestRedriveOfATwin: an order has two dead letters, since a worker died between writing the one and deleting the
// other. The order is completed by the first. The second takes nothing out, and its buyer may buy what the limit
// allows.
func TestRedriveOfATwin(t *testing.T) {
	t.Parallel()
	p, product := testParts(t, 10, 2)
	o := p.buy(t, product, 7)
	result, redriven, err := p.redrive(t.Context(), o)
	if result != "was decided meanwhile" || !redriven || err != nil {
		t.Errorf("redrive: %q %v %v", result, redriven, err)
	}
	p.mustHave(t, product.ID, 9)
	p.buy(t, product, 7)
	p.mustHave(t, product.ID, 8)
}

// TestAuditOfWhatBuyersHave: a count that is too high is found, and repaired; one that is too low is nothing wrong.
func TestAuditOfWhatBuyersHave(t *testing.T) {
	t.Parallel()
	p, product := testParts(t, 10, 2)
	first, second := p.buy(t, product, 7), p.buy(t, product, 8)
	// As a redrive leaves it that dies after its reservation, once the relay has sent the order.
	for _, o := range []order.Order{first, second} {
		if _, err := p.stock.Readmit(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if _, err := p.stock.Settle(t.Context(), product.ID,
			[]order.Decision{{Record: order.Record{Order: o, Status: order.Completed}}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"2 buyers count as having 2 units more than their orders have, and are refused as many"}
	if problems := p.sale().Excess(t.Context(), product.ID); !slices.Equal(problems, want) {
		t.Errorf("the audit finds %q, want %q", problems, want)
	}
	r := reconcile.Reconciler{Redis: p.stock, MySQL: p.ledger, Apply: true}
	if _, err := r.Product(t.Context(), product.ID); err != nil {
		t.Fatal(err)
	}
	p.mustHave(t, product.ID, 8)
	p.buy(t, product, 7)
	p.mustHave(t, product.ID, 7)
}
