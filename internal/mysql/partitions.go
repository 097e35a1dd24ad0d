package mysql

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// The table orders has a partition for each month in which ids of orders were made, so that what an order is inserted
// into does not grow with all that was sold before. Migrations make them ahead, so that the programs need no right to
// change the schema.
const (
	// monthsAhead is for how long an installation may go without a migration until orders land in the last partition,
	// which takes all that is later. There they are no less safe, and a migration spreads them.
	monthsAhead = 24
	// maxMonthsBack bounds the partitions of orders from before the partitions. What is older shares the first one.
	maxMonthsBack = 60
	// lastPartition holds what is later than all others.
	lastPartition = "later"
)

// keysKept is for how long the migration keeps idempotency keys: their lifetime, and that of a message in the queue.
const keysKept = 15 * 24 * time.Hour

// addCounted adds up to which version of a product the table bought counts its orders.
var addCounted = addColumns(23, `ALTER TABLE products ADD COLUMN counted BIGINT NOT NULL DEFAULT 0`)

// addOrderVersion adds to each order the version that its product had when it was decided: of a completed one, that of
// its row in the ledger. Workers of before do not know the column, which has no default, so that none of them can
// insert an order any more, not even in a rehearsal: they find that nothing can be decided, and wait. For those who
// only read, the idempotency key stays as a column that is always empty.
var addOrderVersion = goose.NewGoMigration(24, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
	if lacks, err := lacksColumn(ctx, db, "orders", "version"); !lacks || err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, `ALTER TABLE orders
		CHANGE COLUMN idempotency_key key_before VARBINARY(255) NULL,
		ADD COLUMN idempotency_key VARBINARY(255) GENERATED ALWAYS AS (NULL) VIRTUAL,
		ADD COLUMN version BIGINT NOT NULL`)
	return err
}}, nil)

// copyOrderKeys copies the idempotency keys that may still matter. A key has been held since the order's id was made,
// or since it was reserved, whichever came first.
var copyOrderKeys = goose.NewGoMigration(25, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
	if done, err := lacksColumn(ctx, db, "orders", "key_before"); done || err != nil {
		return err
	}
	oldest := idBound(time.Now().Add(-keysKept))
	_, err := db.ExecContext(ctx, `INSERT IGNORE INTO order_keys
			(product_id, user_id, idempotency_key, order_id, used_at)
		SELECT product_id, user_id, key_before, id, LEAST(reserved_at,
			COALESCE('1970-01-01' + INTERVAL CONV(HEX(LEFT(id, 6)), 16, 10) * 1000 MICROSECOND, reserved_at))
		FROM orders WHERE id >= `+oldest+` AND key_before IS NOT NULL`)
	return err
}}, nil)

// countLimited counts what was bought of the products that have a limit. Those of others are counted when they get one.
var countLimited = goose.NewGoMigration(26, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO bought (product_id, user_id, units)
		SELECT o.product_id, o.user_id, SUM(o.quantity) FROM products p JOIN orders o ON o.product_id = p.id
		WHERE p.limit_per_user > 0 AND p.counted = 0 AND o.status = 'completed' GROUP BY o.product_id, o.user_id
		ON DUPLICATE KEY UPDATE units = VALUES(units)`)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE products SET counted = version WHERE limit_per_user > 0 AND counted = 0`)
	return err
}}, nil)

// partitionOrders spreads the orders over partitions by their ids, and drops what its own tables hold now. It copies
// the table. Nothing is decided meanwhile, and reading goes on.
var partitionOrders = goose.NewGoMigration(27, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
	if done, err := lacksColumn(ctx, db, "orders", "key_before"); done || err != nil {
		return err
	}
	var oldest []byte
	err := db.QueryRowContext(ctx, `SELECT MIN(id) FROM orders`).Scan(&oldest)
	if err != nil {
		return err
	}
	start := time.Now()
	if made := madeAt(oldest); !made.IsZero() && made.Before(start) {
		start = Later(made, start.AddDate(0, -maxMonthsBack, 0))
	}
	_, err = db.ExecContext(ctx, `ALTER TABLE orders
		DROP KEY orders_idempotency, DROP KEY orders_limit, DROP COLUMN key_before, ADD KEY orders_decided (decided_at)
		PARTITION BY RANGE COLUMNS (id) (`+partitionsBetween(start, lastMonth())+`)`)
	return err
}}, nil)

// lacksColumn reports whether a table has no such column.
func lacksColumn(ctx context.Context, db *sql.DB, table, column string) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?`, table, column).Scan(&n)
	return n == 0, err
}

// idBound is a literal of the first id that is made at a time, rounded down to the millisecond (RFC 9562, section 5.7).
func idBound(t time.Time) string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 0))<<16)
	return "x'" + hex.EncodeToString(id[:]) + "'"
}

// madeAt is when an id was made, or zero if there is none.
func madeAt(id []byte) time.Time {
	if len(id) < 8 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id) >> 16)).UTC()
}

// Month is the beginning of a time's month, by which the orders are divided.
func Month(t time.Time) time.Time {
	year, month, _ := t.UTC().Date()
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

// lastMonth is the last month that has a partition of its own.
func lastMonth() time.Time { return Month(time.Now()).AddDate(0, monthsAhead, 0) }

// partitionsBetween defines partitions of the months from one to another, and that of what is later. The first takes
// all that is older as well.
func partitionsBetween(first, last time.Time) string {
	var b strings.Builder
	for month := Month(first); !month.After(last); month = month.AddDate(0, 1, 0) {
		end := idBound(month.AddDate(0, 1, 0))
		fmt.Fprintf(&b, "PARTITION %s VALUES LESS THAN (%s), ", partitionName(month), end)
	}
	return b.String() + "PARTITION " + lastPartition + " VALUES LESS THAN (MAXVALUE)"
}

func partitionName(month time.Time) string { return month.Format("p200601") }

// partitionMonth is the month of a partition, or zero for the last one.
func partitionMonth(name string) time.Time {
	month, err := time.Parse("p200601", name)
	if err != nil {
		return time.Time{}
	}
	return month
}

// extendPartitions sees to it that there is a partition for each month that is to come. As long as the last one is
// empty that takes no time.
func extendPartitions(ctx context.Context, conn *sql.Conn) error {
	names, err := orderPartitions(ctx, conn)
	if err != nil || len(names) == 0 {
		return err
	}
	next := Month(time.Now())
	if len(names) > 1 {
		next = partitionMonth(names[len(names)-2]).AddDate(0, 1, 0)
	}
	if next.After(lastMonth()) {
		return nil
	}
	_, err = conn.ExecContext(ctx, `ALTER TABLE orders REORGANIZE PARTITION `+lastPartition+` INTO (`+
		partitionsBetween(next, lastMonth())+`)`)
	if err != nil {
		return fmt.Errorf("make partitions of orders: %w", err)
	}
	return nil
}

// DivideMonths spreads the orders that are older than all months which have partitions of their own, from a time on. It
// needs the right to change the schema, and copies the first partition.
func (db *DB) DivideMonths(ctx context.Context, from time.Time) error {
	names, err := orderPartitions(ctx, db)
	if err != nil {
		return err
	}
	first := partitionMonth(names[0])
	if first.IsZero() || !Month(from).Before(first) {
		return nil
	}
	months, _, _ := strings.Cut(partitionsBetween(from, first), ", PARTITION "+lastPartition)
	_, err = db.ExecContext(ctx, `ALTER TABLE orders REORGANIZE PARTITION `+names[0]+` INTO (`+months+`)`)
	if err != nil {
		return fmt.Errorf("divide the partition %s of orders: %w", names[0], err)
	}
	return nil
}

// DropOrdersBefore drops the partitions of the orders of all months before one, and returns their names. It needs the
// right to change the schema. Where a partition reaches into the month, it stays.
func (db *DB) DropOrdersBefore(ctx context.Context, month time.Time) (dropped []string, err error) {
	names, err := orderPartitions(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if first := partitionMonth(name); first.IsZero() || !first.Before(Month(month)) {
			break
		}
		if _, err := db.ExecContext(ctx, `ALTER TABLE orders DROP PARTITION `+name); err != nil {
			return dropped, fmt.Errorf("drop partition %s of orders: %w", name, err)
		}
		dropped = append(dropped, name)
	}
	return dropped, nil
}

// querier is a pool or one of its connections.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// orderPartitions lists the partitions of the orders, in the order of time.
func orderPartitions(ctx context.Context, from querier) (names []string, err error) {
	rows, err := from.QueryContext(ctx, `SELECT partition_name FROM information_schema.partitions
		WHERE table_schema = DATABASE() AND table_name = 'orders' AND partition_name IS NOT NULL
		ORDER BY partition_ordinal_position`)
	if err != nil {
		return nil, fmt.Errorf("list the partitions of orders: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("list the partitions of orders: %w", err)
		}
		names = append(names, name)
	}
	return names, rows.Err()
}
