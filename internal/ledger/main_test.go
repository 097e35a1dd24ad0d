package ledger

import (
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

func open(t testing.TB, dsn string) *Ledger {
	t.Helper()
	db, err := mysql.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return New(db)
}

// newLedger opens an empty database with a current schema.
func newLedger(t testing.TB) *Ledger {
	t.Helper()
	l := open(t, stacktest.AnyDSN(t))
	if _, err := l.db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// addProduct adds a product with an id that the database chooses.
func addProduct(t testing.TB, l *Ledger, stock, limit int64) order.Product {
	t.Helper()
	p, err := l.AddProduct(t.Context(), order.Product{
		Name: "thing", Description: "a thing", Price: 1999, Currency: "EUR", Stock: stock, LimitPerUser: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newOrder(stockID order.StockID, userID order.UserID, quantity int64, key string) order.Order {
	return order.Order{
		ID: order.NewID(), UserID: userID, StockID: stockID, Quantity: quantity, UnitPrice: 1500,
		ReservedAt: time.Date(2026, 5, 4, 3, 2, 1, 987_654_321, time.FixedZone("", 3600)), IdempotencyKey: key,
	}
}

func mustDecide(t testing.TB, l *Ledger, stockID order.StockID, orders ...order.Order) []order.Decision {
	t.Helper()
	decisions, err := l.Decide(t.Context(), stockID, orders)
	if err != nil {
		t.Fatal(err)
	}
	if len(decisions) != len(orders) {
		t.Fatalf("%d decisions for %d orders", len(decisions), len(orders))
	}
	return decisions
}

func mustProduct(t testing.TB, l *Ledger, id order.StockID) order.Product {
	t.Helper()
	p, err := l.Product(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustBeSound audits the database and returns what it found by product.
func mustBeSound(t testing.TB, l *Ledger) map[order.StockID]ProductAudit {
	t.Helper()
	audits, err := l.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[order.StockID]ProductAudit, len(audits))
	for _, a := range audits {
		byID[a.ID] = a
		for _, problem := range a.Problems {
			t.Errorf("product %d: %s", a.ID, problem)
		}
		if a.DecidedTwice != 0 || a.UsersOverLimit != 0 {
			t.Errorf("product %d: %d decided twice, %d users over the limit", a.ID, a.DecidedTwice, a.UsersOverLimit)
		}
	}
	return byID
}

// short says what was decided: "completed" or the reason, with "again" if it was read from a row.
func short(d order.Decision) string {
	s := string(d.Status)
	if d.Status == order.Failed {
		s = string(d.FailedReason)
	}
	if !d.Fresh {
		s += " again"
	}
	return s
}

// exec runs a statement as somebody who does not use this package.
func exec(t testing.TB, l *Ledger, statement string, args ...any) {
	t.Helper()
	if _, err := l.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func idsOf(orders []order.Order) []order.OrderID {
	ids := make([]order.OrderID, len(orders))
	for i, o := range orders {
		ids[i] = o.ID
	}
	return ids
}
