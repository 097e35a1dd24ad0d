package ledger

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/order"
	"stampede/internal/wallet"
)

// byPoints makes an order that is paid with points, of which a unit costs 100.
func byPoints(stockID order.StockID, userID order.UserID, quantity int64) order.Order {
	o := newOrder(stockID, userID, quantity, "")
	o.UnitPrice, o.Points = 100, true
	return o
}

func mustTopUp(t testing.TB, l *Ledger, userID order.UserID, points int64) {
	t.Helper()
	if _, _, err := wallet.New(l.db).TopUp(t.Context(), userID, points, "first"); err != nil {
		t.Fatal(err)
	}
}

// mustHave wants a user's wallet to have so many points, and spent so many.
func mustHave(t testing.TB, l *Ledger, userID order.UserID, balance, spent int64) {
	t.Helper()
	w, err := wallet.New(l.db).Get(t.Context(), userID)
	if err != nil {
		t.Fatal(err)
	}
	if w.Balance != balance || w.Spent != spent {
		t.Errorf("user %d has %d points and spent %d, want %d and %d", userID, w.Balance, w.Spent, balance, spent)
	}
}

// TestPaidWithPoints: the points are taken by the decision, if there are enough after all the orders before, and an
// order that fails for another reason costs none.
func TestPaidWithPoints(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addProduct(t, l, 6, 4)
	mustTopUp(t, l, 1, 500)
	mustTopUp(t, l, 2, 1000)
	orders := []order.Order{
		byPoints(p.ID, 1, 2),      // 300 are left
		byPoints(p.ID, 2, 5),      // over the limit
		newOrder(p.ID, 1, 1, "k"), // for money
		byPoints(p.ID, 3, 1),      // who has no wallet
		byPoints(p.ID, 1, 1),      // 200 are left
		byPoints(p.ID, 2, 3),      // of two units
		byPoints(p.ID, 2, 2),
	}
	var got []string
	for _, d := range mustDecide(t, l, p.ID, orders...) {
		got = append(got, short(d))
	}
	want := []string{"held", "limit_exceeded", "completed", "insufficient_points", "held", "sold_out", "held"}
	if !slices.Equal(got, want) {
		t.Errorf("decided %q, want %q", got, want)
	}
	mustHave(t, l, 1, 200, 300)
	mustHave(t, l, 2, 800, 200)
	mustHave(t, l, 3, 0, 0)

	// To those who look, and to who decides again, they are completed and in points.
	for i, d := range mustDecide(t, l, p.ID, orders...) {
		if d.Fresh || d.Points != orders[i].Points {
			t.Errorf("order %d again: %+v", i, d)
		}
	}
	mustHave(t, l, 1, 200, 300)
	record := mustShow(t, l, orders[0].ID, order.Completed)
	if !record.Points || record.Currency != order.PointsCurrency || record.UnitPrice != 100 || !record.PayBy.IsZero() {
		t.Errorf("it is shown as %+v", record)
	}
	hold, err := l.Hold(t.Context(), orders[0].ID)
	if err != nil || hold.State != order.Completed || hold.PaidBy != PaidByPoints {
		t.Errorf("its hold is %+v, %v", hold, err)
	}
	if due, err := l.Due(t.Context()); err != nil || len(due) > 0 {
		t.Errorf("due are %v, %v", due, err)
	}
	mustBeSound(t, l)
	mustBeSoundFromCheckpoint(t, l)
}

// TestPaidWithPointsAtOnce: a product that must be paid awaits only the payment of those who do not pay with points.
func TestPaidWithPointsAtOnce(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 6, 0)
	mustTopUp(t, l, 1, 500)
	points, money := byPoints(p.ID, 1, 2), newOrder(p.ID, 1, 1, "")
	mustDecide(t, l, p.ID, points, money)
	mustShow(t, l, points.ID, order.Completed)
	mustShow(t, l, money.ID, order.AwaitingPayment)
	overdue(t, l, money.ID)
	if returned := expireAll(t, l); len(returned) != 1 || returned[0].OrderID != money.ID {
		t.Errorf("returned %+v", returned)
	}
	mustShow(t, l, points.ID, order.Completed)
	mustHave(t, l, 1, 300, 200)
	mustBeSound(t, l)
}

// TestNoDecisionWithoutItsPoints: an order whose points cannot be taken is not decided either.
func TestNoDecisionWithoutItsPoints(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addProduct(t, l, 6, 0)
	mustTopUp(t, l, 1, 500)
	orders := []order.Order{byPoints(p.ID, 1, 1), newOrder(p.ID, 2, 1, "")}
	exec(t, l, `INSERT INTO wallet_ledger (user_id, version, type, delta, balance, ref, note, created_at)
		VALUES (1, 9, 'spend', -1, 0, ?, '', NOW(6))`, orders[0].ID[:])
	if decisions, err := l.Decide(t.Context(), p.ID, orders); err == nil {
		t.Errorf("it was decided though its points could not be taken: %+v", decisions)
	}
	if decided, err := l.Decided(t.Context(), idsOf(orders)); err != nil || len(decided) > 0 {
		t.Errorf("decided are %v, %v", decided, err)
	}
	mustHave(t, l, 1, 500, 0)
	if stock := mustProduct(t, l, p.ID).Stock; stock != 6 {
		t.Errorf("%d units are left", stock)
	}
}

// TestPointsOfADecisionThatIsNotMade: who fails an order, or rehearses one, neither takes points nor waits for a
// wallet.
func TestPointsOfADecisionThatIsNotMade(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addProduct(t, l, 6, 0)
	mustTopUp(t, l, 1, 500)
	o := byPoints(p.ID, 1, 1)
	err := l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		if _, err := wallet.Lock(t.Context(), tx, []order.UserID{1}); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if d, err := l.Fail(ctx, o, order.DeadLetter); err != nil || short(d) != "dead_letter" {
			t.Errorf("Fail = %+v, %v", d, err)
		}
		if err := l.Rehearse(ctx, p.ID); err != nil {
			t.Error(err)
		}
		return l.RehearseAny(ctx)
	})
	if err != nil {
		t.Error(err)
	}
	mustHave(t, l, 1, 500, 0)
	if d := mustDecide(t, l, p.ID, o)[0]; short(d) != "dead_letter again" || !d.Points {
		t.Errorf("decided again: %+v", d)
	}
	unknown := byPoints(p.ID+1, 1, 1)
	if d := mustDecide(t, l, unknown.StockID, unknown)[0]; short(d) != "unknown_product" || !d.Points {
		t.Errorf("of an unknown product: %+v", d)
	}
	mustHave(t, l, 1, 500, 0)
	mustBeSound(t, l)
}
