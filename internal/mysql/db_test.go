package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"stampede/localstack/stacktest"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for dsn, want := range map[string]string{
		"":                                     "empty",
		"u:" + secret:                          "slash",
		"u:" + secret + "@tcp(db:3306)":        "slash",
		"u:" + secret + "@tcp(db:3306)/":       "no database",
		"u:" + secret + "@tcp(db:3306/shop":    "brace",
		"u:" + secret + "@db:3306/shop":        "not of the form",
		"u:" + secret + "@udp(db:3306)/shop":   "neither tcp nor unix",
		"u:" + secret + "/" + secret + "@tcp(": "not of the form",
		"u:x/" + secret + "@tcp(db:3306)":      "not of the form",
		"@tcp(x)/" + secret + "@tcp(db:3306)":  "not the name of a database",
		"tcp(db:3306)/shop":                    "no user",
		"u:" + secret + "@tcp(db:3306)/shop?readTimeout=" + secret:      "readTimeout",
		"u:" + secret + "@tcp(db:3306)/shop?x=1&parseTime=" + secret:    "parseTime",
		"u:" + secret + "@tcp(db:3306)/shop?tls=" + secret:              "tls",
		"u:" + secret + "@tcp(db:3306)/shop?time_zone=%zz" + secret:     "not of the form",
		"u:" + secret + "@tcp(db:3306)/shop?maxAllowedPacket=" + secret: "maxAllowedPacket",
		"u:" + secret + "@tcp(db:3306)/%zz" + secret:                    "not of the form",
	} {
		_, err := Open(dsn)
		switch {
		case err == nil:
			t.Errorf("%q: no error", dsn)
		case !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "mysql DSN"):
			t.Errorf("%q: %v, want something with %q", dsn, err, want)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%q: the error shows the password: %v", dsn, err)
		}
	}
}

func TestOpenSettings(t *testing.T) {
	t.Parallel()
	c, err := parseDSN("u:p@tcp(db)/shop?parseTime=false&loc=Europe%2FParis&interpolateParams=false&multiStatements=true&charset=latin1&sql_mode=''")
	if err != nil {
		t.Fatal(err)
	}
	if !c.ParseTime || c.Loc != time.UTC || !c.InterpolateParams || !c.RejectReadOnly || c.MultiStatements ||
		c.Params["sql_mode"] != sessionMode {
		t.Errorf("settings of the DSN were kept: %+v", c)
	}
	if c.Timeout != 5*time.Second || c.ReadTimeout != 30*time.Second || c.WriteTimeout != 10*time.Second ||
		c.Params["innodb_lock_wait_timeout"] != "5" {
		t.Errorf("defaults: %v %v %v %v", c.Timeout, c.ReadTimeout, c.WriteTimeout, c.Params)
	}
	if strings.Contains(c.FormatDSN(), "latin1") {
		t.Errorf("the character set of the DSN was kept: %s", c.FormatDSN())
	}

	c, err = parseDSN("u:p@tcp(db)/shop?timeout=1s&readTimeout=4s&writeTimeout=3s")
	if err != nil {
		t.Fatal(err)
	}
	if c.Timeout != time.Second || c.ReadTimeout != 4*time.Second || c.WriteTimeout != 3*time.Second ||
		c.Params["innodb_lock_wait_timeout"] != "2" {
		t.Errorf("timeouts of the DSN: %v %v %v %v", c.Timeout, c.ReadTimeout, c.WriteTimeout, c.Params)
	}

	db := newDB(t)
	var mode, charset string
	if err := db.QueryRow("SELECT @@sql_mode, @@character_set_client").Scan(&mode, &charset); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(mode, "STRICT_ALL_TABLES") || charset != "utf8mb4" {
		t.Errorf("session: mode %s, character set %s", mode, charset)
	}
}

// lastMigration is the number of the last migration, in a file or in Go.
const lastMigration = 35

func TestMigrateConcurrently(t *testing.T) {
	t.Parallel()
	dsn := stacktest.AnyDSN(t)
	db := open(t, dsn)
	err := db.CheckSchema(t.Context())
	if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "ctl migrate") || Classify(err) != Systemic {
		t.Errorf("an empty database: error %v", err)
	}
	var tables []string
	if err := db.Select(&tables, "SHOW TABLES"); err != nil || len(tables) != 0 {
		t.Errorf("the check made tables: %v, error %v", tables, err)
	}

	var functions []func() error
	for range 8 {
		starter := open(t, dsn)
		functions = append(functions, func() error {
			version, err := starter.Migrate(t.Context())
			if err == nil && version != lastMigration {
				err = fmt.Errorf("version %d", version)
			}
			return errors.Join(err, starter.CheckSchema(t.Context()))
		})
	}
	stacktest.Together(t, functions...)
	var twice int
	if err := db.Get(&twice, "SELECT COUNT(*) - COUNT(DISTINCT version_id) FROM goose_db_version"); err != nil ||
		twice != 0 {
		t.Errorf("%d migrations were applied twice, error %v", twice, err)
	}

	// A process that died between a statement and the note of its version leaves this.
	exec(t, db, "DELETE FROM goose_db_version WHERE version_id = ?", lastMigration)
	if err := db.CheckSchema(t.Context()); !errors.Is(err, ErrSchema) {
		t.Errorf("an older schema: error %v", err)
	}
	if version, err := db.Migrate(t.Context()); err != nil || version != lastMigration {
		t.Errorf("after a crash: version %d, error %v", version, err)
	}
	// A database that ran a later migration before an earlier one was written lacks that.
	exec(t, db, "DELETE FROM goose_db_version WHERE version_id = 19")
	var late int
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Errorf("a migration is missing: error %v", err)
	} else if err := db.Get(&late, "SELECT COUNT(*) FROM goose_db_version WHERE version_id = 19"); err != nil ||
		late != 1 {
		t.Errorf("the missing migration was applied %d times, error %v", late, err)
	}
	// One that died between making the table of versions and its first row leaves this.
	db = open(t, stacktest.AnyDSN(t))
	exec(t, db, `CREATE TABLE goose_db_version (id SERIAL, version_id BIGINT NOT NULL, is_applied BOOLEAN NOT NULL,
		tstamp TIMESTAMP NULL DEFAULT NOW())`)
	if version, err := db.Migrate(t.Context()); err != nil || version != lastMigration {
		t.Errorf("after an early crash: version %d, error %v", version, err)
	}
	// A newer program has been here.
	exec(t, db, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, TRUE)")
	if version, err := db.Migrate(t.Context()); err != nil || version != 99 {
		t.Errorf("a newer schema: version %d, error %v", version, err)
	}
	if err := db.CheckSchema(t.Context()); err != nil {
		t.Errorf("a newer schema: error %v", err)
	}
}

func TestMigrateWaitsForTheLock(t *testing.T) {
	t.Parallel()
	db := open(t, stacktest.AnyDSN(t))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name := migrationLockName(db.config.DBName)
	if err := lockSession(t.Context(), conn, name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := db.Migrate(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another holds the lock: error %v", err)
	}
	if err := unlockSession(t.Context(), conn, name); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Errorf("after that: error %v", err)
	}
}

func TestMigrationLockName(t *testing.T) {
	t.Parallel()
	if name := migrationLockName("shop"); !strings.Contains(name, "shop") {
		t.Errorf("%q", name)
	}
	a, b := migrationLockName(strings.Repeat("é", 63)+"a"), migrationLockName(strings.Repeat("é", 63)+"b")
	if a == b || len([]rune(a)) > maxLockName || !strings.Contains(a, "éé") {
		t.Errorf("%q and %q", a, b)
	}
}

func TestInTx(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	deadlock, duplicate := &mysql.MySQLError{Number: 1213}, &mysql.MySQLError{Number: 1062}
	for _, test := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("wrapped: %w", deadlock), maxAttempts},
		{fmt.Errorf("%w: %w", ErrLostRace, duplicate), maxAttempts},
		{duplicate, 1},
		{driver.ErrBadConn, 1},
		{errors.New("anything"), 1},
		{nil, 1},
	} {
		attempts := 0
		err := db.InTx(t.Context(), func(*sqlx.Tx) error { attempts++; return test.err })
		if attempts != test.want || !errors.Is(err, test.err) {
			t.Errorf("%v: %d attempts, error %v", test.err, attempts, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	err := db.InTx(ctx, func(*sqlx.Tx) error { attempts++; cancel(); return deadlock })
	if !errors.Is(err, context.Canceled) || Classify(err) != Systemic || attempts != 1 {
		t.Errorf("canceled: %d attempts, error %v", attempts, err)
	}
}

// A server, or a DSN, that is set up otherwise does not change what transactions see.
func TestTransactionsAreRepeatableReads(t *testing.T) {
	t.Parallel()
	dsn := newDB(t).config.Clone()
	dsn.Params["tx_isolation"] = "'READ-COMMITTED'"
	db, err := Open(dsn.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })

	var first, second int
	err = db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		const count = `SELECT COUNT(*) FROM bought`
		if err := tx.GetContext(t.Context(), &first, count); err != nil {
			return err
		}
		if _, err := db.ExecContext(t.Context(), `INSERT INTO bought VALUES (1, 1, 1)`); err != nil {
			return err
		}
		return tx.GetContext(t.Context(), &second, count)
	})
	if err != nil || first != second {
		t.Errorf("a transaction saw %d rows, and then %d (error %v)", first, second, err)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	number := func(n uint16, state string) error {
		e := &mysql.MySQLError{Number: n}
		copy(e.SQLState[:], state)
		return fmt.Errorf("wrapped: %w", e)
	}
	for _, test := range []struct {
		err  error
		want Class
	}{
		{nil, 0},
		{number(1213, "40001"), Transient}, {number(1205, "HY000"), Transient}, {number(1020, "HY000"), Transient},
		{fmt.Errorf("wrapped: %w", ErrLostRace), Transient},
		// What servers and proxies say while they are out of order, and what nobody has heard of yet.
		{number(1040, "08004"), Systemic}, {number(1053, "08S01"), Systemic}, {number(1290, "HY000"), Systemic},
		{number(1836, "HY000"), Systemic}, {number(1021, "HY000"), Systemic}, {number(1114, "HY000"), Systemic},
		{number(1203, "42000"), Systemic}, {number(1045, "28000"), Systemic}, {number(1927, "70100"), Systemic},
		{number(3024, "HY000"), Systemic}, {number(1146, "42S02"), Systemic}, {number(1064, "42000"), Systemic},
		{number(1698, "28000"), Systemic}, {number(1176, "42000"), Systemic}, {number(3032, "HY000"), Systemic},
		{number(3159, "HY000"), Systemic}, {number(1874, "HY000"), Systemic}, {number(1036, "HY000"), Systemic},
		{number(1105, "HY000"), Systemic}, {number(1524, "HY000"), Systemic}, {number(1412, "HY000"), Systemic},
		{number(1364, "HY000"), Systemic}, {number(9999, "XX000"), Systemic}, {number(9999, ""), Systemic},
		{number(1062, "23000"), Own}, {number(1406, "22001"), Own}, {number(1292, "22007"), Own},
		{number(1264, "22003"), Own},
		{number(1366, "HY000"), Own}, {number(3819, "HY000"), Own}, {number(4025, "23000"), Own},
		{number(1242, "21000"), Own},
		{context.Canceled, Systemic}, {context.DeadlineExceeded, Systemic},
		{driver.ErrBadConn, Systemic}, {mysql.ErrInvalidConn, Systemic}, {sql.ErrConnDone, Systemic},
		{sql.ErrTxDone, Systemic},
		{io.EOF, Systemic}, {io.ErrUnexpectedEOF, Systemic}, {syscall.ECONNREFUSED, Systemic},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, Systemic}, {&net.DNSError{}, Systemic},
		{ErrSchema, Systemic}, {errors.New("anything"), Systemic},
		{ErrInvalid, Own}, {ErrNotFound, Own}, {mysql.ErrPktTooLarge, Own},
	} {
		if got := Classify(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
}
