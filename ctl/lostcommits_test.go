package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/localstack/stacktest"
)

// TestLostOrders has MySQL lose an order that was completed. It is found and put on the queue again;
// when MySQL is accepted Redis has what MySQL has. It is not parallel, as it changes the environment.
func TestLostOrders(t *testing.T) {
	queues := stacktest.Queues(t)
	for _, variable := range queues.Env() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	p, product := testParts(t, 10, 0)
	var err error
	if p.queue, err = queue.Open(t.Context(), os.Getenv("ORDERS_QUEUE"), os.Getenv("ORDERS_DLQ")); err != nil {
		t.Fatal(err)
	}
	var orders []order.Order
	for user := range int64(3) {
		o := p.buy(t, product, order.UserID(user+1))
		orders = append(orders, o)
	}
	lost := orders[2]
	for _, statement := range []string{"DELETE FROM orders WHERE id = ?", "DELETE FROM stock_ledger WHERE ref = ?"} {
		if _, err := p.db.Pool().ExecContext(t.Context(), statement, lost.ID[:]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.db.Pool().ExecContext(t.Context(),
		"UPDATE products SET stock = stock + 1, version = version - 1"); err != nil {
		t.Fatal(err)
	}

	// Whoever reconciles next keeps what Redis knows of them.
	r := reconcile.Reconciler{Redis: p.stock, MySQL: p.ledger, Apply: true}
	for range 2 {
		report, err := r.Product(t.Context(), product.ID)
		if err != nil || !report.LostCommits() {
			t.Fatalf("reconcile: %+v, %v", report, err)
		}
	}
	keys, err := p.redis.Keys(t.Context(), "kept:*").Result()
	if err != nil || len(keys) == 0 || p.redis.TTL(t.Context(), keys[0]).Val() < 24*time.Hour {
		t.Errorf("kept: %q, %v", keys, err)
	}

	var out bytes.Buffer
	if err := p.lostOrders(t.Context(), &out, product.ID.Product(), true); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, lost.ID.String()) {
		t.Errorf("lost orders: %s", text)
	}
	depth, err := p.queue.Depth(t.Context())
	if err != nil || depth.Empty() {
		t.Errorf("the queue has %+v, error %v", depth, err)
	}
	reports, err := p.acceptMySQL(t.Context(), product.ID.Product())
	if err != nil || len(reports) != 1 {
		t.Fatal(reports, err)
	}
	if _, err := p.acceptMySQL(t.Context(), product.ID.Product()); err != nil {
		t.Error(err)
	}
	if keys, err = p.redis.Keys(t.Context(), "kept:*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("when MySQL is accepted Redis keeps %q, %v", keys, err)
	}
	var level stock.Level
	if level, err = p.stock.Level(t.Context(), product.ID); err != nil || level.Available != 8 {
		t.Errorf("Redis has %+v, error %v", level, err)
	}
}
