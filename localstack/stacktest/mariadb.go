package stacktest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"stampede/localstack"
)

var databases atomic.Int64

// DSN returns the data source name of an empty database that is dropped when the test ends. The server is shared with
// the other tests: those that kill it use NewMariaDB.
func DSN(t testing.TB) string {
	t.Helper()
	if running.mariadb == nil {
		t.Fatal("TestMain has not asked for stacktest.MariaDB")
	}
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if err := running.mariadb.CreateDatabase(t.Context(), name); err != nil {
		t.Fatalf("making a database: %v", err)
	}
	t.Cleanup(func() {
		if err := running.mariadb.DropDatabase(context.Background(), name); err != nil {
			t.Errorf("dropping the database: %v", err)
		}
	})
	return running.mariadb.DSN(name)
}

// AnyDSN is DSN, but of another server if MYSQL_TEST_DSN, a DSN without a database, names one to run the tests against.
func AnyDSN(t testing.TB) string {
	t.Helper()
	other := os.Getenv("MYSQL_TEST_DSN")
	if other == "" {
		return DSN(t)
	}
	config, err := mysql.ParseDSN(other)
	if err != nil {
		t.Fatalf("MYSQL_TEST_DSN: %v", err)
	}
	server, err := sql.Open("mysql", other)
	if err != nil {
		t.Fatal(err)
	}
	config.DBName = fmt.Sprintf("mysql_test_%d_%d", os.Getpid(), databases.Add(1))
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

// NewMariaDB starts a server for this test alone, which may kill it. It is stopped when the test ends. Dir may be
// empty. It has no database yet.
func NewMariaDB(t testing.TB, o localstack.MariaDBOptions) *localstack.MariaDB {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	m, err := localstack.StartMariaDB(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}
