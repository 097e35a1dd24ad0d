package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"
)

const (
	// versionTable is where goose notes which migrations have been applied.
	versionTable = "goose_db_version"
	// lockPoll is how long one GET_LOCK waits. The whole wait is bounded by the context.
	lockPoll = 5 * time.Second
	// unlockTimeout bounds the release of the lock. Closing the connection releases it as well.
	unlockTimeout = 5 * time.Second
	// maxLockName is MySQL's limit of a user-level lock's name, in characters.
	maxLockName = 64
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// addBuckets adds the number of buckets to products. Other than the migrations in files it is no statement that MySQL
// could repeat.
var addBuckets = addColumns(10, `ALTER TABLE products ADD COLUMN buckets BIGINT NOT NULL DEFAULT 0`)

// addAccountTimes adds since when an account is disabled, and when its password was last changed.
var addAccountTimes = addColumns(16, `ALTER TABLE users
	ADD COLUMN password_changed_at DATETIME(6) NULL,
	ADD COLUMN disabled_at DATETIME(6) NULL`)

// addPayment adds whether the orders of a product must be paid, and for how many seconds one waits. A worker of before
// does not look at them: so they are set once all workers know them.
var addPayment = addColumns(30, `ALTER TABLE products
	ADD COLUMN payment VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'none',
	ADD COLUMN pay_within BIGINT NOT NULL DEFAULT 900`)

// addHeldSums adds to the books what they have of orders that must be paid, and of units that were taken back.
var addHeldSums = addColumns(32, `ALTER TABLE books
	ADD COLUMN held_orders BIGINT NOT NULL DEFAULT 0,
	ADD COLUMN held_sum BIGINT NOT NULL DEFAULT 0,
	ADD COLUMN returned_units BIGINT NOT NULL DEFAULT 0,
	ADD COLUMN returned_sum BIGINT NOT NULL DEFAULT 0`)

// addPointsPrice adds what a unit costs who pays with points, 0 if nobody can. An edge of before takes such an order
// for one of money: so it is set once there is none.
var addPointsPrice = addColumns(34, `ALTER TABLE products ADD COLUMN points_price BIGINT NOT NULL DEFAULT 0`)

// addColumns is a migration that adds columns, all of them together. It can be repeated: a column that is there already
// is no error.
func addColumns(version int64, statement string) *goose.Migration {
	return goose.NewGoMigration(version, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, statement)
		if ErrorNumber(err) == errDuplicateColumn {
			return nil
		}
		return err
	}}, nil)
}

// Migrate brings the schema up to what this program needs and returns the version that it has then. Several may call it
// at once: one works while the others wait, as long as their contexts allow. On a schema that is current, or newer, it
// changes nothing. There is no way back.
func (db *DB) Migrate(ctx context.Context) (version int64, err error) {
	pool, err := db.OpenPatient()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()

	// goose can take a lock itself, but it looks for its table, and makes it, before it does so. The lock here is held
	// by a connection that does nothing else, for as long as goose works.
	conn, err := pool.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	name := migrationLockName(db.config.DBName)
	if err := lockSession(ctx, conn, name); err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	defer func() { err = errors.Join(err, unlockSession(ctx, conn, name)) }()

	if err := repairVersions(ctx, conn); err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	provider, err := newProvider(pool.DB)
	if err != nil {
		return 0, err
	}
	if _, err := provider.Up(ctx); err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	if err := extendPartitions(ctx, conn); err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	guarded, err := guardStaffLog(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	if !guarded {
		slog.Warn("migrate: the server allows no triggers without SUPER, or log_bin_trust_function_creators: that " +
			"rows of staff_log are only added is not enforced")
	}
	return schemaVersion(ctx, pool.DB)
}

// repairVersions adds the row for version 0 to a table of versions that is empty: a process died after goose had made
// the table and before it wrote the row, and without it goose refuses to work.
func repairVersions(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `INSERT INTO `+versionTable+` (version_id, is_applied)
		SELECT 0, TRUE FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM `+versionTable+`)`)
	if err != nil && ErrorNumber(err) != errNoSuchTable {
		return fmt.Errorf("repair the table of versions: %w", err)
	}
	return nil
}

// CheckSchema returns an ErrSchema that says what to do if the schema is older than this program needs. A newer one is
// no error, since migrations only add what older programs do not mind.
func (db *DB) CheckSchema(ctx context.Context) error {
	provider, err := newProvider(db.DB.DB)
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	needed := sources[len(sources)-1].Version
	version, err := schemaVersion(ctx, db.DB.DB)
	if err != nil {
		return err
	}
	if version < needed {
		return fmt.Errorf("%w: it has version %d, this program needs %d; run `ctl migrate`", ErrSchema, version, needed)
	}
	return nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectMySQL, db, files, goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithAllowOutofOrder(true), // a database may have run a later one before an earlier one was written
		goose.WithGoMigrations(addBuckets, addAccountTimes, addCounted, addOrderVersion, copyOrderKeys, countLimited,
			partitionOrders, addPayment, addHeldSums, addPointsPrice))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return provider, nil
}

// schemaVersion reads the version of the schema, which is 0 where none was ever applied. It does not create the table
// of versions, so it needs no more than the right to read.
func schemaVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+versionTable+
		` WHERE is_applied`).Scan(&version)
	switch {
	case ErrorNumber(err) == errNoSuchTable:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

// migrationLockName names the lock after the database, because user-level locks are shared by all databases of a
// server.
func migrationLockName(database string) string {
	name := "stampede.migrate." + database
	if len(name) <= maxLockName {
		return name
	}
	// The end of a name that is too long gives way to a hash of the whole.
	sum := sha256.Sum256([]byte(database))
	hash := hex.EncodeToString(sum[:8])
	head := []rune(name)
	return string(head[:min(len(head), maxLockName-1-len(hash))]) + "." + hash
}

// lockSession waits for a user-level lock, which then belongs to the connection.
func lockSession(ctx context.Context, conn *sql.Conn, name string) error {
	for {
		var got sql.NullInt64
		err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(?, ?)`, name, int(lockPoll/time.Second)).Scan(&got)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the lock %q: %w", name, err)
		case got.Int64 == 1:
			return nil
		case !got.Valid:
			return fmt.Errorf("wait for the lock %q: the server refused", name)
		}
	}
}

// unlockSession releases the lock, also when the context has ended.
func unlockSession(ctx context.Context, conn *sql.Conn, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, `DO RELEASE_LOCK(?)`, name); err != nil {
		return fmt.Errorf("release the lock %q: %w", name, err)
	}
	return nil
}
