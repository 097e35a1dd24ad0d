package store

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"stampede/internal/order"
)

var users atomic.Int64

// newUser is the name of a user that is dropped when the test ends.
func newUser(t *testing.T, s *Store) string {
	name := fmt.Sprintf("app%d_%d", users.Add(1), time.Now().UnixNano()%1e6)
	t.Cleanup(func() {
		if _, err := s.db.Exec(`DROP USER IF EXISTS ?@'%'`, name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// as opens the database of s as another user.
func as(t *testing.T, s *Store, user, password string) *Store {
	t.Helper()
	config := s.config.Clone()
	config.User, config.Passwd = user, password
	return open(t, config.FormatDSN())
}

func TestEnsureUser(t *testing.T) {
	t.Parallel()
	owner := newStore(t)
	name := newUser(t, owner)
	const password = `pass'word"with\odd %_ signs;--`
	for range 2 { // it is repeatable
		if err := owner.EnsureUser(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
	}
	app := as(t, owner, name, password)

	// All that edge and worker do.
	if err := app.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	p := addProduct(t, app, 10, 4)
	if d := mustDecide(t, app, p.ID, newOrder(p.ID, 7, 3, "k")); short(d[0]) != "completed" {
		t.Errorf("decided %s", short(d[0]))
	}
	if _, err := app.Restock(t.Context(), p.ID, 5, "delivery"); err != nil {
		t.Error(err)
	}
	if _, err := app.UpdateProduct(t.Context(), p.ID, func(p *order.Product) { p.State = order.OffSale }); err != nil {
		t.Error(err)
	}
	if _, err := app.PurgeSessions(t.Context(), time.Now().AddDate(-1, 0, 0), 10); err != nil {
		t.Error(err)
	}
	mustBeSound(t, app)

	// Nothing else: neither the schema, nor other databases, even if their names look alike, nor other users.
	other := strings.ReplaceAll(owner.config.DBName, "_", "x")
	if other == owner.config.DBName {
		t.Fatalf("the name %q has no character that could stand for others", other)
	}
	exec(t, owner, "CREATE DATABASE "+other)
	t.Cleanup(func() { _, _ = owner.db.Exec("DROP DATABASE " + other) })
	exec(t, owner, "CREATE TABLE "+other+".t (id INT PRIMARY KEY)")
	for _, statement := range []string{
		"DROP TABLE stock_ledger", "TRUNCATE TABLE orders", "ALTER TABLE products ADD COLUMN x INT", "CREATE TABLE t (id INT)",
		"DROP DATABASE " + owner.config.DBName, "SELECT * FROM " + other + ".t", "SELECT user FROM mysql.user",
		"CREATE USER u", "GRANT SELECT ON *.* TO '" + name + "'@'%'",
	} {
		_, err := app.db.Exec(statement)
		if n := errorNumber(err); n != 1142 && n != 1044 && n != 1045 && n != 1227 && n != 1410 {
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
	if err := as(t, owner, name, password).Ping(t.Context()); errorNumber(err) != 1045 {
		t.Errorf("the password before: error %v", err)
	}
}

func TestEnsureUserRefuses(t *testing.T) {
	t.Parallel()
	owner := newStore(t)
	for name, password := range map[string]string{
		"": "hunter2", strings.Repeat("u", 33): "hunter2", owner.config.User: "hunter2", "app": "",
	} {
		err := owner.EnsureUser(t.Context(), name, password)
		if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
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
	if errorNumber(err) != 1227 || Classify(err) != Systemic || strings.Contains(err.Error(), "CREATE USER") {
		t.Errorf("without the right: error %v, want its number and none of the server's words", err)
	}

	// The server quotes what it does not understand.
	err = withoutStatement(&mysql.MySQLError{Number: 1064, Message: "near 'IDENTIFIED BY 'hunter2'' at line 1"})
	if errorNumber(err) != 1064 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
