package ledger

import (
	"errors"
	"testing"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

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
	for _, id := range []order.OrderID{o.ID, soldOut.ID} {
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
