// Package mysql is the way to MySQL that the packages with tables of their own share (ledger and account): the pool,
// transactions, the classes of errors, the schema, and the log of what staff have changed. It runs unchanged on MySQL
// 8.4 and 9, MariaDB 10.11 and 11, and Aurora MySQL.
//
// Times go in and come out in UTC.
package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

const (
	// maxConns bounds the connections of one process. Deciders of one product wait for each other's row lock, so more
	// connections than this only make the queue for it longer.
	maxConns = 32
	// connLifetime is under the five minutes after which load balancers and servers are known to cut connections, and
	// lets connections find a new primary after a fail-over.
	connLifetime = 4 * time.Minute

	defaultDialTimeout  = 5 * time.Second
	defaultReadTimeout  = 30 * time.Second
	defaultWriteTimeout = 10 * time.Second

	// MaxLockWait is how long a statement waits for a row lock before the server refuses it with error 1205. It must be
	// shorter than the read timeout, or a long wait looks like a lost connection.
	MaxLockWait = 5 * time.Second

	// maxAttempts bounds how often one transaction is run. A deadlock or a lost race to insert the same row is over
	// after one repetition or two; more of them in a row are a fault that the caller should see.
	maxAttempts = 8
	// maxPause is the longest pause before the second attempt; it grows by the same amount with each further one.
	maxPause = 5 * time.Millisecond

	// MaxInList bounds an IN list. From 1,000 elements on MariaDB rewrites a list into a join with a derived table, for
	// which it may choose to scan (its variable in_predicate_conversion_threshold).
	MaxInList = 500

	// MaxPage is the most rows that one call returns which reads a page.
	MaxPage = 1_000

	// sessionMode makes the server refuse a value that does not fit, however it is configured, where it might otherwise
	// store a shortened one.
	sessionMode = "'TRADITIONAL,ONLY_FULL_GROUP_BY'"
)

// DB is a pool of connections to one database. Its methods may be called concurrently. Those of the embedded pool are
// for statements outside of transactions; InTx is for all others.
type DB struct {
	*sqlx.DB
	config  *mysql.Config
	observe func(call string, took time.Duration, err error)
}

// CallTransaction is a call that Observe tells of: a transaction from its begin to its commit or failure, one attempt.
const CallTransaction = "transaction"

// Open reads a DSN in the form of github.com/go-sql-driver/mysql, user:password@tcp(host:port)/database?parameters,
// and does not connect yet. What correctness rests on (times in UTC, interpolated parameters, strict SQL
// mode and such) is set whatever the DSN says; timeouts are set where the DSN has none. No error contains the password.
func Open(dsn string) (*DB, error) {
	config, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	pool, err := openPool(config)
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(maxConns)
	pool.SetMaxIdleConns(maxConns)
	pool.SetConnMaxLifetime(connLifetime)
	return &DB{DB: pool, config: config, observe: func(string, time.Duration, error) {}}, nil
}

// Observe has f called after each call, with how long it took and how it ended. It is called before the pool is used.
func (db *DB) Observe(f func(call string, took time.Duration, err error)) { db.observe = f }

// Ended tells who observes that a call which began at start has ended, and how.
func (db *DB) Ended(call string, start time.Time, err error) {
	db.observe(call, time.Since(start), failure(err))
}

// Pool is the pool of connections, for those who watch it.
func (db *DB) Pool() *sql.DB { return db.DB.DB }

// Ping says whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("ping mysql: %w", err)
	}
	return nil
}

// OpenPatient opens a pool without a read timeout, for the few statements that may rightly take minutes. They are
// bounded by their context. The caller closes the pool.
func (db *DB) OpenPatient() (*sqlx.DB, error) {
	config := db.config.Clone()
	config.ReadTimeout = 0
	return openPool(config)
}

// Snapshot calls f with a transaction that sees one moment of the database and writes nothing. Its statements are
// bounded by the context alone: it is for the few that read whole tables.
func (db *DB) Snapshot(ctx context.Context, f func(tx *sqlx.Tx) error) (err error) {
	pool, err := db.OpenPatient()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	tx, err := pool.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin a snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	return f(tx)
}

func openPool(config *mysql.Config) (*sqlx.DB, error) {
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("mysql DSN: %s", dsnFault("", err))
	}
	return sqlx.NewDb(sql.OpenDB(repeatable{connector}), "mysql"), nil
}

// repeatable makes connections whose transactions are repeatable reads, however the server is configured. To ask for it
// with each transaction would be a round trip more, and no variable has one name on all servers.
type repeatable struct{ driver.Connector }

// Connect makes a connection.
func (c repeatable) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	const set = `SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ`
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, set, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set the isolation of transactions: %w", err), conn.Close())
	}
	return conn, nil
}

func parseDSN(dsn string) (*mysql.Config, error) {
	if dsn == "" {
		return nil, errors.New("mysql DSN: it is empty; it looks like user:password@tcp(host:3306)/database")
	}
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("mysql DSN: %s", dsnFault(dsn, err))
	}
	// A slash or an @ in the wrong place makes the parser take a part of the password for something else, which would
	// then appear in the errors of connecting.
	switch {
	case config.Net != "tcp" && config.Net != "unix":
		return nil, errors.New("mysql DSN: the network before the address is neither tcp nor unix")
	case config.DBName == "":
		return nil, errors.New("mysql DSN: no database is named after the last slash")
	case strings.ContainsAny(config.DBName, "@()/:"):
		return nil, errors.New("mysql DSN: what follows the last slash is not the name of a database")
	case config.User == "":
		return nil, errors.New("mysql DSN: no user is named")
	}

	config.ParseTime = true
	config.Loc = time.UTC
	config.InterpolateParams = true // saves a round trip for each statement, most of them under a row lock
	config.RejectReadOnly = true    // a connection to a demoted primary is dropped instead of being used again
	config.MultiStatements = false
	config.ClientFoundRows = false
	config.Logger = &mysql.NopLogger{} // what it would print is returned as an error as well
	// The driver's escaping of interpolated parameters is safe in this character set, and not in some others.
	if err := config.Apply(mysql.Charset("utf8mb4", "utf8mb4_unicode_ci")); err != nil {
		return nil, fmt.Errorf("mysql DSN: %w", err)
	}
	if config.Timeout == 0 {
		config.Timeout = defaultDialTimeout
	}
	if config.ReadTimeout == 0 {
		config.ReadTimeout = defaultReadTimeout
	}
	if config.WriteTimeout == 0 {
		config.WriteTimeout = defaultWriteTimeout
	}
	if config.Params == nil {
		config.Params = map[string]string{}
	}
	config.Params["sql_mode"] = sessionMode
	if config.Params["innodb_lock_wait_timeout"] == "" {
		wait := max(time.Second, min(MaxLockWait, config.ReadTimeout/2))
		config.Params["innodb_lock_wait_timeout"] = strconv.Itoa(int(wait / time.Second))
	}
	return config, nil
}

// driverParams are the parameters whose values the driver checks.
var driverParams = []string{
	"allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext", "allowNativePasswords", "allowOldPasswords",
	"charset", "checkConnLiveness", "clientFoundRows", "collation", "columnsWithAlias", "compress",
	"connectionAttributes",
	"interpolateParams", "loc", "maxAllowedPacket", "multiStatements", "parseTime", "readTimeout", "rejectReadOnly",
	"serverPubKey", "strict", "timeTruncate", "timeout", "tls", "writeTimeout",
}

// dsnFault says what is wrong with a DSN that the driver refused. Many of the driver's texts quote the DSN, and a DSN
// that is malformed may have its password anywhere, so only the texts that quote nothing are passed on.
func dsnFault(dsn string, err error) string {
	if text, ok := strings.CutPrefix(err.Error(), "invalid DSN: "); ok {
		return text
	}
	if i := strings.LastIndexByte(dsn, '?'); i >= 0 {
		for param := range strings.SplitSeq(dsn[i+1:], "&") {
			name, _, _ := strings.Cut(param, "=")
			if !slices.Contains(driverParams, name) {
				continue
			}
			if _, err := mysql.ParseDSN("u@tcp(h:1)/d?" + param); err != nil {
				return "the value of its parameter " + name + " is not valid"
			}
		}
	}
	return "it is not of the form user:password@tcp(host:3306)/database?parameters"
}

// ErrLostRace marks a transaction that met a row which another transaction inserted after this one had looked.
var ErrLostRace = errors.New("another transaction inserted the row first")

// ErrRehearsed ends a transaction that was run only to see whether it can be.
var ErrRehearsed = errors.New("rehearsed")

// ErrCommit marks an error after which nobody knows whether the transaction was committed.
var ErrCommit = errors.New("commit")

// Undone reports whether the call that returned err has certainly changed nothing: it did not come as far as its
// commit.
func Undone(err error) bool { return err != nil && !errors.Is(err, ErrCommit) }

// InTx runs fn in a transaction and commits it. A transaction that the server undid for the sake of others, or that
// lost a race to insert a row, is run again from the start, so fn must set its results anew each time. Nothing else is
// repeated. After an error of the commit itself nobody knows whether the changes were made.
func (db *DB) InTx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.tryTx(ctx, fn)
		if Classify(err) != Transient {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("%d attempts: %w", attempt, err)
		}
		pause := time.NewTimer(rand.N(maxPause * time.Duration(attempt)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (db *DB) tryTx(ctx context.Context, fn func(tx *sqlx.Tx) error) (err error) {
	start := time.Now()
	defer func() { db.Ended(CallTransaction, start, err) }()
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// A lock wait timeout undoes only its statement, so the rollback must come from here. If it fails the connection is
	// thrown away, and the transaction with it. After a commit it does nothing.
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%w: %w", ErrCommit, err)
	}
	return nil
}

// failure is err, unless the fault lies in what was asked: then MySQL has done its work.
func failure(err error) error {
	if err == nil || Classify(err) == Own || errors.Is(err, ErrLostRace) || errors.Is(err, ErrRehearsed) {
		return nil
	}
	return err
}
