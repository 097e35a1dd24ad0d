package mysql_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

var users atomic.Int64

// newUser is the name of a user that is dropped when the test ends.
func newUser(t *testing.T, db *mysql.DB) string {
	name := fmt.Sprintf("app%d_%d", users.Add(1), time.Now().UnixNano()%1e6)
	t.Cleanup(func() {
		if _, err := db.Exec(`DROP USER IF EXISTS ?@'%'`, name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// as opens a database as another user.
func as(t *testing.T, db *mysql.DB, user, password string) *mysql.DB {
	t.Helper()
	config := db.Config().Clone()
	config.User, config.Passwd = user, password
	return mysql.OpenForTest(t, config.FormatDSN())
}

func TestEnsureUser(t *testing.T) {
	t.Parallel()
	owner := mysql.NewForTest(t)
	name := newUser(t, owner)
	const password = `pass'word"with\odd %_ signs;--`
	for range 2 { // it is repeatable
		if err := owner.EnsureUser(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
	}
	app := as(t, owner, name, password)

	sell(t, app)

	// Nothing else: neither the schema, nor other databases, even if their names look alike, nor other users.
	other := strings.ReplaceAll(owner.Config().DBName, "_", "x")
	if other == owner.Config().DBName {
		t.Fatalf("the name %q has no character that could stand for others", other)
	}
	mysql.ExecForTest(t, owner, "CREATE DATABASE "+other)
	t.Cleanup(func() { _, _ = owner.Exec("DROP DATABASE " + other) })
	mysql.ExecForTest(t, owner, "CREATE TABLE "+other+".t (id INT PRIMARY KEY)")
	for _, statement := range []string{
		"DROP TABLE stock_ledger", "TRUNCATE TABLE orders", "ALTER TABLE products ADD COLUMN x INT",
		"CREATE TABLE t (id INT)",
		"DROP DATABASE " + owner.Config().DBName, "SELECT * FROM " + other + ".t", "SELECT user FROM mysql.user",
		"CREATE USER u", "GRANT SELECT ON *.* TO '" + name + "'@'%'",
	} {
		_, err := app.Exec(statement)
		if n := mysql.ErrorNumber(err); n != 1142 && n != 1044 && n != 1045 && n != 1227 && n != 1410 {
			t.Errorf("%s: error %v, want one of missing rights", statement, err)
		}
	}

	// Another password.
	if err := owner.EnsureUser(t.Context(), name, "another one"); err != nil {
		t.Fatal(err)
	}
	if err := as(t, owner, name, "another one").Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := as(t, owner, name, password).Ping(t.Context()); mysql.ErrorNumber(err) != 1045 {
		t.Errorf("the password before: error %v", err)
	}
}

// sell does with a database all that edge and worker do.
func sell(t *testing.T, app *mysql.DB) {
	t.Helper()
	if err := app.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	books := ledger.New(app)
	p, err := books.AddProduct(t.Context(), order.Product{
		Name: "thing", Description: "a thing", Price: 1999, Currency: "EUR", Stock: 10, LimitPerUser: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	o := order.Order{
		ID: order.NewID(), UserID: 7, StockID: p.ID, Quantity: 3, UnitPrice: 1500,
		ReservedAt: time.Now(), IdempotencyKey: "k",
	}
	decided, err := books.Decide(t.Context(), p.ID, []order.Order{o})
	if err != nil || decided[0].Status != order.Completed || !decided[0].Fresh {
		t.Errorf("decided %+v, error %v", decided, err)
	}
	if _, err := books.Restock(t.Context(), p.ID.Product(), 5, "delivery"); err != nil {
		t.Error(err)
	}
	_, err = books.UpdateProduct(t.Context(), p.ID.Product(), func(p *order.Product) { p.State = order.OffSale })
	if err != nil {
		t.Error(err)
	}
	if _, err := account.New(app).PurgeSessions(t.Context(), time.Now().AddDate(-1, 0, 0), 10); err != nil {
		t.Error(err)
	}
	audits, err := books.Audit(t.Context())
	if err != nil || len(audits) != 1 {
		t.Fatalf("audit: %+v, error %v", audits, err)
	}
	if a := audits[0]; len(a.Problems)+int(a.DecidedTwice+a.UsersOverLimit) != 0 {
		t.Errorf("audit: %+v", a)
	}
}

func TestEnsureUserRefuses(t *testing.T) {
	t.Parallel()
	owner := mysql.NewForTest(t)
	for name, password := range map[string]string{
		"": "hunter2", strings.Repeat("u", 33): "hunter2", owner.Config().User: "hunter2", "app": "",
	} {
		err := owner.EnsureUser(t.Context(), name, password)
		if !errors.Is(err, mysql.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("user %q: error %v", name, err)
		}
	}
	if err := owner.Ping(t.Context()); err != nil {
		t.Error(err)
	}

	// A user without the right to make others.
	name := newUser(t, owner)
	if err := owner.EnsureUser(t.Context(), name, "password"); err != nil {
		t.Fatal(err)
	}
	err := as(t, owner, name, "password").EnsureUser(t.Context(), "somebody", "hunter2")
	if mysql.ErrorNumber(err) != 1227 || mysql.Classify(err) != mysql.Systemic ||
		strings.Contains(err.Error(), "CREATE USER") {
		t.Errorf("without the right: error %v, want its number and none of the server's words", err)
	}

	// The server quotes what it does not understand.
	err = mysql.WithoutStatement(&driver.MySQLError{Number: 1064, Message: "near 'IDENTIFIED BY 'hunter2'' at line 1"})
	if mysql.ErrorNumber(err) != 1064 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
