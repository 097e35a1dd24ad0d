package access

import (
	"testing"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

// newDB opens an empty database with a current schema.
func newDB(t testing.TB) *mysql.DB {
	t.Helper()
	db, err := mysql.Open(stacktest.AnyDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func addUser(t testing.TB, accounts *account.Accounts) account.User {
	t.Helper()
	user, err := accounts.AddUser(t.Context(), account.User{
		Email: "ann@example.com", Name: "Ann", Role: account.Buyer,
		PasswordHash: "$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA$" +
			"aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",
	})
	if err != nil {
		t.Fatal(err)
	}
	return user
}
