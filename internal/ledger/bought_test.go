package ledger

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// TestALimitCountsWhatWasBoughtBefore sets a limit on a product that has sold more orders without one than are counted
// at once, takes it away and sets it again, while orders are decided.
func TestALimitCountsWhatWasBoughtBefore(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, MaxStock/2, 0)
	const users, each = 700, 20
	limit := func(n int64) {
		t.Helper()
		p, err := l.UpdateProduct(t.Context(), product.ID.Product(), func(p *order.Product) { p.LimitPerUser = n })
		if err != nil || p.LimitPerUser != n {
			t.Fatalf("limit %d, want %d, error %v", p.LimitPerUser, n, err)
		}
	}
	buy := func(want string, quantity int64) {
		t.Helper()
		var orders []order.Order
		for user := range users {
			orders = append(orders, newOrder(product.ID, order.UserID(user+1), quantity, ""))
		}
		for _, d := range mustDecide(t, l, product.ID, orders...) {
			if short(d) != want {
				t.Fatalf("user %d: %s, want %s", d.UserID, short(d), want)
			}
		}
	}

	for range each {
		buy("completed", 1)
	}
	var counted int64
	if err := l.db.Get(&counted, "SELECT COUNT(*) FROM bought"); err != nil || counted != 0 {
		t.Errorf("%d users are counted without a limit, error %v", counted, err)
	}
	limit(each + 1)
	buy("limit_exceeded", 2)
	buy("completed", 1)
	buy("limit_exceeded", 1)
	limit(0)
	buy("completed", 3)
	if _, err := l.Restock(t.Context(), product.ID.Product(), 1, "r"); err != nil { // a version that is no order's
		t.Fatal(err)
	}
	limit(each + 5)
	buy("limit_exceeded", 2)
	buy("completed", 1)
	bought, err := l.Bought(t.Context(), product.ID, []order.UserID{1, users, users + 1})
	if want := map[order.UserID]int64{1: each + 5, users: each + 5}; err != nil || !maps.Equal(bought, want) {
		t.Errorf("bought %v, want %v, error %v", bought, want, err)
	}
	mustBeSound(t, l)
}

// TestALimitIsSetInACrowd sets a limit while workers decide: from then on it counts every order that was completed.
func TestALimitIsSetInACrowd(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, MaxStock, 0)
	const workers, rounds, users = 6, 12, 40
	functions := []func() error{func() error {
		for _, n := range []int64{50, 0, 30, 0, 20} {
			_, err := l.UpdateProduct(t.Context(), product.ID.Product(), func(p *order.Product) { p.LimitPerUser = n })
			if err != nil {
				return err
			}
		}
		return nil
	}}
	for range workers {
		functions = append(functions, func() error {
			for range rounds {
				var orders []order.Order
				for user := range users {
					orders = append(orders, newOrder(product.ID, order.UserID(user+1), 1, ""))
				}
				if _, err := l.Decide(t.Context(), product.ID, orders); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stacktest.Together(t, functions...)

	var wrong int
	err := l.db.Get(&wrong, `SELECT COUNT(*) FROM bought b JOIN (
			SELECT user_id, SUM(quantity) AS units FROM orders WHERE status = 'completed' GROUP BY user_id
		) AS o ON o.user_id = b.user_id WHERE o.units <> b.units`)
	if err != nil || wrong != 0 {
		t.Errorf("%d users have other units than their orders, error %v", wrong, err)
	}
	mustBeSound(t, l)
}

// TestALimitOfAProgramOfBefore sets a limit as a shop does that knows nothing of counting: the next decision counts.
func TestALimitOfAProgramOfBefore(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 100, 0)
	mustDecide(t, l, product.ID, newOrder(product.ID, 1, 2, ""), newOrder(product.ID, 2, 1, ""))
	exec(t, l, "UPDATE products SET limit_per_user = 3, revision = revision + 1 WHERE id = ?", product.ID)
	decided := mustDecide(t, l, product.ID, newOrder(product.ID, 1, 2, ""), newOrder(product.ID, 2, 2, ""))
	got := []string{short(decided[0]), short(decided[1])}
	if want := []string{"limit_exceeded", "completed"}; !slices.Equal(got, want) {
		t.Errorf("decided %q, want %q", got, want)
	}
	mustBeSound(t, l)
}

// TestRedriveReleasesTheKey: a redriven order is decided anew with its key, and not in conflict with itself.
func TestRedriveReleasesTheKey(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 100, 0)
	o := newOrder(product.ID, 1, 2, "k")
	if _, err := l.Fail(t.Context(), o, order.DeadLetter); err != nil {
		t.Fatal(err)
	}
	if err := l.Redrive(t.Context(), o.ID); err != nil {
		t.Fatal(err)
	}
	if d := mustDecide(t, l, product.ID, o)[0]; short(d) != "completed" || d.IdempotencyKey != "k" {
		t.Errorf("decided as %s with key %q", short(d), d.IdempotencyKey)
	}
	if d := mustDecide(t, l, product.ID, newOrder(product.ID, 1, 2, "k"))[0]; short(d) != "idempotency_conflict" {
		t.Errorf("another order under the key is %s", short(d))
	}
}

// TestOldKeysArePurged in bounded batches, and none that an order may still be in conflict with.
func TestOldKeysArePurged(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 1000, 0)
	var orders []order.Order
	for i := range 250 {
		o := newOrder(product.ID, 1, 1, fmt.Sprint(i))
		o.ReservedAt = time.Now().Add(-keysKept - time.Minute)
		if i < 50 {
			o.ReservedAt = time.Now().Add(-keysKept + time.Minute)
		}
		orders = append(orders, o)
	}
	mustDecide(t, l, product.ID, orders...)
	for _, want := range []int{150, 50, 0} {
		if n, err := l.PurgeOrderKeys(t.Context(), 150); err != nil || n != want {
			t.Errorf("%d keys are purged, want %d, error %v", n, want, err)
		}
	}
	var left int
	if err := l.db.Get(&left, "SELECT COUNT(*) FROM order_keys"); err != nil || left != 50 {
		t.Errorf("%d keys are left, error %v", left, err)
	}
	for _, d := range mustDecide(t, l, product.ID, orders...) {
		if d.Fresh {
			t.Fatalf("order %s is decided again", d.ID)
		}
	}
}
