package store

import (
	"database/sql"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

var databases atomic.Int64

// testDSN names an empty database that is the test's own. STORE_TEST_DSN, a DSN without a database, runs the tests
// against another server than the local MariaDB.
func testDSN(t testing.TB) string {
	t.Helper()
	other := os.Getenv("STORE_TEST_DSN")
	if other == "" {
		return stacktest.DSN(t)
	}
	config, err := mysql.ParseDSN(other)
	if err != nil {
		t.Fatalf("STORE_TEST_DSN: %v", err)
	}
	server, err := sql.Open("mysql", other)
	if err != nil {
		t.Fatal(err)
	}
	config.DBName = fmt.Sprintf("store_test_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := server.Exec("CREATE DATABASE " + config.DBName); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := server.Exec("DROP DATABASE " + config.DBName); err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
	return config.FormatDSN()
}

func open(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// newStore opens an empty database with a current schema.
func newStore(t testing.TB) *Store {
	t.Helper()
	s := open(t, testDSN(t))
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// addProduct adds a product with an id that the database chooses.
func addProduct(t testing.TB, s *Store, stock, limit int64) order.Product {
	t.Helper()
	p, err := s.AddProduct(t.Context(), order.Product{
		Name: "thing", Description: "a thing", Price: 1999, Currency: "EUR", Stock: stock, LimitPerUser: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newOrder(productID, userID, quantity int64, key string) order.Order {
	return order.Order{
		ID: order.NewID(), UserID: userID, ProductID: productID, Quantity: quantity, UnitPrice: 1500,
		ReservedAt: time.Date(2026, 5, 4, 3, 2, 1, 987_654_321, time.FixedZone("", 3600)), IdempotencyKey: key,
	}
}

func mustDecide(t testing.TB, s *Store, productID int64, orders ...order.Order) []order.Decision {
	t.Helper()
	decisions, err := s.Decide(t.Context(), productID, orders)
	if err != nil {
		t.Fatal(err)
	}
	if len(decisions) != len(orders) {
		t.Fatalf("%d decisions for %d orders", len(decisions), len(orders))
	}
	return decisions
}

func mustProduct(t testing.TB, s *Store, id int64) order.Product {
	t.Helper()
	p, err := s.Product(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustBeSound audits the database and returns what it found by product.
func mustBeSound(t testing.TB, s *Store) map[int64]ProductAudit {
	t.Helper()
	audits, err := s.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[int64]ProductAudit, len(audits))
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
func exec(t testing.TB, s *Store, statement string, args ...any) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func idsOf(orders []order.Order) []uuid.UUID {
	ids := make([]uuid.UUID, len(orders))
	for i, o := range orders {
		ids[i] = o.ID
	}
	return ids
}
