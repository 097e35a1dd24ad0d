package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestStanding(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 2*mysql.MaxInList, 0)
	var ids []uuid.UUID
	want := map[uuid.UUID]order.Status{}
	for i := range mysql.MaxInList + 20 {
		o := newOrder(product.ID, int64(i+1), 1, "")
		ids = append(ids, o.ID)
		if i%2 == 0 {
			want[o.ID] = mustDecide(t, l, product.ID, o)[0].Status
		}
	}
	failed := newOrder(product.ID, 1, 999, "")
	ids, want[failed.ID] = append(ids, failed.ID), mustDecide(t, l, product.ID, failed)[0].Status
	got, err := l.Standing(t.Context(), product.ID, ids)
	if err != nil || got.Product != mustProduct(t, l, product.ID) || len(got.Decided) != len(want) {
		t.Fatalf("%+v, %d decided, want %d, error %v", got.Product, len(got.Decided), len(want), err)
	}
	for id, status := range want {
		if got.Decided[id].Status != status || got.Decided[id].ID != id {
			t.Errorf("order %s: %+v, want %s", id, got.Decided[id], status)
		}
	}
	if _, err := l.Standing(t.Context(), 404, nil); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a product that is not there: %v", err)
	}
}

// TestStandingIsOneMoment reads while orders are decided: the stock is always the initial one less the orders that the
// same reading finds completed.
func TestStandingIsOneMoment(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 300, 0)
	orders := make([]order.Order, 300)
	ids := make([]uuid.UUID, len(orders))
	for i := range orders {
		orders[i] = newOrder(product.ID, int64(i+1), 1, "")
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
			got, err := l.Standing(t.Context(), product.ID, ids)
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

func TestRestocks(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 5, 0)
	mustDecide(t, l, product.ID, newOrder(product.ID, 1, 1, ""))
	for i := range 3 {
		if _, err := l.Restock(t.Context(), product.ID, int64(i+1), fmt.Sprint("r", i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Restocks(t.Context(), product.ID, 3)
	if want := []Restock{{product.ID, "r1", 2, 4, 7, false, nil},
		{product.ID, "r2", 3, 5, 10, false, nil}}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v, error %v", got, want, err)
	}
	if got, err := l.Restocks(t.Context(), product.ID, 5); err != nil || len(got) != 0 {
		t.Errorf("after the last version: %+v, %v", got, err)
	}
}

func TestRedrive(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 5, 0)
	o := newOrder(product.ID, 1, 2, "k")
	if _, err := l.Fail(t.Context(), o, order.DeadLetter); err != nil {
		t.Fatal(err)
	}
	if err := l.Redrive(t.Context(), o.ID); err != nil {
		t.Fatal(err)
	}
	if err := l.Redrive(t.Context(), o.ID); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	// The key is the order's own again, and the decision a new one.
	if d := mustDecide(t, l, product.ID, o)[0]; short(d) != "completed" || d.IdempotencyKey != "k" {
		t.Errorf("%+v", d)
	}
	soldOut := newOrder(product.ID, 2, 9, "")
	mustDecide(t, l, product.ID, soldOut)
	for _, id := range []uuid.UUID{o.ID, soldOut.ID} {
		if err := l.Redrive(t.Context(), id); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("an order that did not fail as a dead letter: %v", err)
		}
	}
	var noted int
	if err := l.db.Get(&noted, "SELECT COUNT(*) FROM redrives WHERE order_id = ? AND user_id = 1",
		mysql.UUID(o.ID)); err != nil || noted != 1 {
		t.Errorf("%d redrives are noted, error %v", noted, err)
	}
	mustBeSound(t, l)
}
