package ledger

import (
	"reflect"
	"slices"
	"strings"
	"testing"

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
	}{
		{name: "stock raised", statements: []string{"UPDATE products SET stock = stock + 1 WHERE id = 1"},
			want: []string{"the stock is 95, but 100 initial + 7 restocked + 0 moved - 13 completed is 94",
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
			want: []string{"0 initial rows, not 1", "gaps: 1", "0 initial + 7 restocked"}},
		{name: "whole ledger lost", statements: []string{"DELETE FROM stock_ledger WHERE product_id = 1"},
			want: []string{"0 initial rows, not 1", "last version in the ledger is 0", "without a ledger row: 3"}},
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
			want: []string{"neither completed nor failed with a reason: 1"}},
		{name: "failed without a reason", statements: []string{"UPDATE orders SET failed_reason = NULL WHERE id = " +
			failed},
			want: []string{"neither completed nor failed with a reason: 1"}},
		{name: "completed with a reason",
			statements: []string{"UPDATE orders SET failed_reason = 'sold_out' WHERE id = " + completed},
			want:       []string{"neither completed nor failed with a reason: 1"}},
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
		t.Run(test.name, func(t *testing.T) {
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
			if !reflect.DeepEqual(sound[1], one) || len(sound) != 3 || sound[3].FailedOrders != 2 || sound[3].Known {
				t.Fatalf("before: %+v", sound)
			}
			for _, statement := range test.statements {
				exec(t, l, statement)
			}
			audits, err := l.Audit(t.Context())
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
