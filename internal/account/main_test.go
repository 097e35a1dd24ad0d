package account

import (
	"testing"

	"stampede/internal/mysql"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

// newAccounts opens an empty database with a current schema.
func newAccounts(t testing.TB) *Accounts {
	t.Helper()
	db, err := mysql.Open(stacktest.AnyDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return New(db)
}

// exec runs a statement as somebody who does not use this package.
func exec(t testing.TB, a *Accounts, statement string, args ...any) {
	t.Helper()
	if _, err := a.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
