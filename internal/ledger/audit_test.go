package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
)

// TestAuditFindsCorruption spoils a sound database in one way after another, as a fault of this program or an
// operator's statement could, and expects the audit to name the damage.
func TestAuditFindsCorruption(t *testing.T) {
	t.Parallel()
	const completed = `(SELECT id FROM (SELECT id FROM orders WHERE product_id = 1 AND status = 'completed' ORDER BY id LIMIT 1) AS x)`
	const failed = `(SELECT id FROM (SELECT id FROM orders WHERE product_id = 1 AND status = 'failed' ORDER BY id LIMIT 1) AS x)`
	for _, test := range []struct {
		name       string
		statements []string
		want       []string // parts of problems of product 1, all of which must be found
		twice      int64
		over       int64
		old        bool // of rows that an earlier checkpoint includes
	}{
		{name: "stock raised", statements: []string{"UPDATE products SET stock = stock + 1 WHERE id = 1"},
			want: []string{"the stock is 95, but 100 initial + 7 restocked + 0 moved + 0 returned - 13 completed is 94",
				"add up to 94", "last balance in the ledger is 94"}},
		{name: "stock negative",
			statements: []string{"ALTER TABLE products DROP CONSTRAINT products_stock_not_negative",
				"UPDATE products SET stock = -3 WHERE id = 1"},
			want: []string{"the stock is negative: -3"}},
		{name: "version raised", statements: []string{"UPDATE products SET version = version + 1 WHERE id = 1"},
			want: []string{"last version in the ledger is 5, but the product's is 6"}},
		{name: "balance changed", statements: []string{"UPDATE stock_ledger SET balance = balance + 1 WHERE " +
			"product_id = 1 AND version = 3"},
			want: []string{"balance is not the balance before plus the change: 2"}},
		{name: "delta changed", statements: []string{"UPDATE stock_ledger SET delta = delta - 1 WHERE product_id = 1 " +
			"AND version = 3"},
			want: []string{"other units: 1", "before plus the change: 1", "add up to 93"}},
		{name: "ledger row lost", statements: []string{"DELETE FROM stock_ledger WHERE product_id = 1 AND version = 3"},
			want: []string{"gaps: 1", "completed orders without a ledger row: 1"}},
		{name: "last ledger row lost", statements: []string{"DELETE FROM stock_ledger WHERE product_id = 1 AND " +
			"version = 5"},
			want: []string{"last version in the ledger is 4, but the product's is 5", "without a ledger row: 1"}},
		{name: "first ledger row lost", statements: []string{"DELETE FROM stock_ledger WHERE product_id = 1 AND " +
			"version = 1"},
			want: []string{"0 initial rows, not 1", "gaps: 1", "0 initial + 7 restocked"}, old: true},
		{name: "whole ledger lost", statements: []string{"DELETE FROM stock_ledger WHERE product_id = 1"},
			want: []string{"0 initial rows, not 1", "last version in the ledger is 0", "without a ledger row: 3"},
			old:  true},
		{name: "second initial row", statements: []string{"INSERT INTO stock_ledger VALUES (1, 6, 0, 94, 'initial', " +
			"'other', NOW())", "UPDATE products SET version = 6 WHERE id = 1"},
			want: []string{"2 initial rows, not 1", "does not allow their change: 1"}},
		{name: "restock takes units", statements: []string{"UPDATE stock_ledger SET delta = -7 WHERE product_id = 1 " +
			"AND reason = 'restock'"},
			want: []string{"does not allow their change: 1"}},
		{name: "unknown reason", statements: []string{"UPDATE stock_ledger SET reason = 'gift' WHERE product_id = 1 " +
			"AND reason = 'restock'"},
			want: []string{"reason is unknown or does not allow their change: 1", "0 restocked"}},
		{name: "completed order lost", statements: []string{"DELETE FROM orders WHERE id = " + completed},
			want: []string{"not a completed order of this product: 1"}, twice: 1},
		{name: "completed order turned failed",
			statements: []string{"UPDATE orders SET status = 'failed', failed_reason = 'sold_out' WHERE id = " +
				completed},
			want: []string{"not a completed order of this product: 1"}, twice: 1},
		{name: "failed order turned completed",
			statements: []string{"UPDATE orders SET status = 'completed', failed_reason = NULL WHERE id = " + failed},
			want:       []string{"without a ledger row: 1", "24 completed", "users over the limit of 10: 1"}, over: 1},
		{name: "quantity changed", statements: []string{"UPDATE orders SET quantity = 2 WHERE id = " + completed},
			want: []string{"other units: 1"}},
		{name: "status unknown", statements: []string{"UPDATE orders SET status = 'lost' WHERE id = " + failed},
			want: []string{"neither completed, held, nor failed with a reason: 1"}},
		{name: "failed without a reason", statements: []string{"UPDATE orders SET failed_reason = NULL WHERE id = " +
			failed},
			want: []string{"neither completed, held, nor failed with a reason: 1"}},
		{name: "completed with a reason",
			statements: []string{"UPDATE orders SET failed_reason = 'sold_out' WHERE id = " + completed},
			want:       []string{"neither completed, held, nor failed with a reason: 1"}},
		{name: "decided twice under one product", statements: []string{
			"ALTER TABLE stock_ledger DROP KEY stock_ledger_once",
			"INSERT INTO stock_ledger SELECT product_id, 6, delta, 94 + delta, reason, ref, created_at FROM " +
				"stock_ledger WHERE product_id = 1 AND version = 2",
			"UPDATE products SET version = 6, stock = (SELECT balance FROM stock_ledger WHERE product_id = 1 AND " +
				"version = 6) WHERE id = 1"},
			want: []string{"one already: 1", "the stock is 93, but"}, twice: 1},
		{name: "decided twice under two products", statements: []string{
			"INSERT INTO stock_ledger SELECT 1, 6, delta, 94 + delta, reason, ref, created_at FROM stock_ledger " +
				"WHERE product_id = 2 AND version = 2",
			"UPDATE products SET version = 6, stock = (SELECT balance FROM stock_ledger WHERE product_id = 1 AND " +
				"version = 6) WHERE id = 1"},
			want: []string{"not a completed order of this product: 1"}, twice: 1},
		{name: "limit lowered", statements: []string{"UPDATE products SET limit_ceiling = 6 WHERE id = 1"},
			want: []string{"users over the limit of 6: 1"}, over: 1},
		{name: "product lost", statements: []string{"DELETE FROM products WHERE id = 1"},
			want: []string{"3 orders are completed, but the product does not exist", "the ledger has 5 rows, but"}},
	} {
		for _, books := range []bool{false, true} {
			if books && test.old {
				continue
			}
			t.Run(fmt.Sprintf("%s, from a checkpoint %t", test.name, books), func(t *testing.T) {
				t.Parallel()
				l := newLedger(t)
				for _, p := range []order.Product{
					{ID: 1, Name: "one", Currency: "EUR", Stock: 100, LimitPerUser: 10},
					{ID: 2, Name: "two", Currency: "EUR", Stock: 100},
				} {
					if _, err := l.AddProduct(t.Context(), p); err != nil {
						t.Fatal(err)
					}
				}
				audit := l.Audit
				if books {
					audit = func(ctx context.Context) ([]ProductAudit, error) {
						return l.AuditBooks(ctx, AuditOptions{})
					}
					if _, err := audit(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				// Versions 2 and 3, and an order over the limit.
				mustDecide(t, l, 1, newOrder(1, 1, 1, "a"), newOrder(1, 2, 5, ""), newOrder(1, 3, 11, ""))
				if _, err := l.Restock(t.Context(), 1, 7, "r"); err != nil { // version 4
					t.Fatal(err)
				}
				mustDecide(t, l, 1, newOrder(1, 1, 7, "b")) // version 5
				mustDecide(t, l, 2, newOrder(2, 1, 3, ""))
				mustDecide(t, l, 3, newOrder(3, 1, 1, ""), newOrder(3, 2, 1, ""))
				sound := mustBeSound(t, l)
				one := ProductAudit{ID: 1, Name: "one", Known: true, Stock: 94, Version: 5, Initial: 100, Restocked: 7,
					CompletedUnits: 13, CompletedOrders: 3, FailedOrders: 1, LedgerRows: 5}
				if !reflect.DeepEqual(sound[1], one) || len(sound) != 3 || sound[3].FailedOrders != 2 ||
					sound[3].Known {
					t.Fatalf("before: %+v", sound)
				}
				for _, statement := range test.statements {
					exec(t, l, statement)
				}
				audits, err := audit(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range audits {
					if a.ID != 1 {
						if len(a.Problems) != 0 {
							t.Errorf("product %d, which is sound: %q", a.ID, a.Problems)
						}
						continue
					}
					for _, want := range test.want {
						if !slices.ContainsFunc(a.Problems, func(p string) bool { return strings.Contains(p, want) }) {
							t.Errorf("no problem with %q in %q", want, a.Problems)
						}
					}
					if a.DecidedTwice != test.twice || a.UsersOverLimit != test.over {
						t.Errorf("%d decided twice, %d users over the limit", a.DecidedTwice, a.UsersOverLimit)
					}
				}
			})
		}
	}
}

// TestAuditFromCheckpoints has audits that start from the last checkpoint say the same as those of everything, whatever
// has happened in between.
func TestAuditFromCheckpoints(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	free, limited := addProduct(t, l, 1000, 0), addProduct(t, l, 1000, 3)
	split := addSplit(t, l, 100, 2, 0)
	random := rand.New(rand.NewPCG(5, 6))
	var dead []order.Order
	for round := range 12 {
		for range random.IntN(4) {
			for _, id := range []order.StockID{free.ID, limited.ID, split.StockIDs()[round%2], 404} {
				var orders []order.Order
				for range 1 + random.IntN(5) {
					orders = append(orders, newOrder(id, order.UserID(1+random.Int64N(9)), 1+random.Int64N(2), ""))
				}
				mustDecide(t, l, id, orders...)
			}
			o := newOrder(limited.ID, 1, 1, "")
			if _, err := l.Fail(t.Context(), o, order.DeadLetter); err != nil {
				t.Fatal(err)
			}
			dead = append(dead, o)
		}
		if len(dead) > 0 && random.IntN(2) == 0 {
			if err := l.Redrive(t.Context(), dead[0].ID); err != nil {
				t.Fatal(err)
			}
			if random.IntN(2) == 0 {
				mustDecide(t, l, limited.ID, dead[0])
			}
			dead = dead[1:]
		}
		if _, err := l.Restock(t.Context(), limited.ID.Product(), 1, fmt.Sprint(round)); err != nil {
			t.Fatal(err)
		}

		options := AuditOptions{All: round == 7, margin: time.Duration(1 + random.IntN(int(200*time.Millisecond)))}
		got, err := l.AuditBooks(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		want, err := l.Audit(t.Context())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d:\n got %+v\nwant %+v, error %v", round, got, want, err)
		}
		mustBeSound(t, l)
	}
	// Old rows that were changed are found by who looks at all.
	exec(t, l, `UPDATE orders SET quantity = quantity + 1 WHERE product_id = ? AND status = 'completed'
		ORDER BY id LIMIT 1`, free.ID)
	for _, all := range []bool{false, true} {
		audits, err := l.AuditBooks(t.Context(), AuditOptions{All: all})
		found := slices.ContainsFunc(audits, func(a ProductAudit) bool { return len(a.Problems) > 0 })
		if err != nil || found != all {
			t.Errorf("all %t: found %t, error %v", all, found, err)
		}
	}
}

// TestACheckpointIsOnlyOfSoundBooks: one is not stored over a problem, and it is not hidden by the next audit.
func TestACheckpointIsOnlyOfSoundBooks(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 100, 0)
	mustDecide(t, l, product.ID, newOrder(product.ID, 1, 1, ""), newOrder(product.ID, 2, 1, ""))
	exec(t, l, "UPDATE stock_ledger SET delta = -2, balance = balance - 1 WHERE version = 3")
	for range 2 {
		audits, err := l.AuditBooks(t.Context(), AuditOptions{margin: 1})
		if err != nil || len(audits) != 1 || len(audits[0].Problems) == 0 {
			t.Errorf("%+v, error %v", audits, err)
		}
	}
	exec(t, l, "UPDATE stock_ledger SET delta = -1, balance = balance + 1 WHERE version = 3")
	if audits, err := l.AuditBooks(t.Context(), AuditOptions{margin: 1}); err != nil || len(audits[0].Problems) > 0 {
		t.Errorf("%+v, error %v", audits, err)
	}
}
