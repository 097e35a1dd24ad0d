package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 2*mysql.MaxInList, 0)
	var ids []order.OrderID
	want := map[order.OrderID]order.Status{}
	for i := range mysql.MaxInList + 20 {
		o := newOrder(product.ID, order.UserID(i+1), 1, "")
		ids = append(ids, o.ID)
		if i%2 == 0 {
			want[o.ID] = mustDecide(t, l, product.ID, o)[0].Status
		}
	}
	failed := newOrder(product.ID, 1, 999, "")
	ids, want[failed.ID] = append(ids, failed.ID), mustDecide(t, l, product.ID, failed)[0].Status
	got, err := l.Snapshot(t.Context(), product.ID, ids)
	if err != nil || got.Product != mustProduct(t, l, product.ID) || len(got.Decided) != len(want) {
		t.Fatalf("%+v, %d decided, want %d, error %v", got.Product, len(got.Decided), len(want), err)
	}
	for id, status := range want {
		if got.Decided[id].Status != status || got.Decided[id].ID != id {
			t.Errorf("order %s: %+v, want %s", id, got.Decided[id], status)
		}
	}
	if _, err := l.Snapshot(t.Context(), 404, nil); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a product that is not there: %v", err)
	}
}

// TestSnapshotIsOneMoment reads while orders are decided: the stock is always the initial one less the orders that the
// same reading finds completed.
func TestSnapshotIsOneMoment(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 300, 0)
	orders := make([]order.Order, 300)
	ids := make([]order.OrderID, len(orders))
	for i := range orders {
		orders[i] = newOrder(product.ID, order.UserID(i+1), 1, "")
		ids[i] = orders[i].ID
	}
	ctx, cancel := context.WithCancel(t.Context())
	stacktest.Together(t, func() error {
		defer cancel()
		for i := 0; i < len(orders); i += 3 {
			if _, err := l.Decide(t.Context(), product.ID, orders[i:i+3]); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for ctx.Err() == nil {
			got, err := l.Snapshot(t.Context(), product.ID, ids)
			if err != nil {
				return err
			}
			if got.Product.Stock != 300-int64(len(got.Decided)) {
				return fmt.Errorf("stock %d with %d decided", got.Product.Stock, len(got.Decided))
			}
		}
		return nil
	})
}
