package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jmoiron/sqlx"

	"stampede/internal/order"
)

// ProductAudit is what MySQL alone can prove, or disprove, of one product.
type ProductAudit struct {
	ID   order.StockID
	Name string
	// Known is false for a product that only orders or ledger rows name.
	Known bool
	// Buckets is the number of buckets that the product has, or of which this is one.
	Buckets int64
	// Stock is the number of units not sold, and Version the number of changes that led to it.
	Stock, Version int64
	// Initial and Restocked are the units ever put on sale, by the ledger, less those that were taken out again. Moved
	// are those that came from other buckets of the product, less those that went to them.
	Initial, Restocked, Moved int64
	// CompletedUnits, CompletedOrders and FailedOrders are counted from the orders.
	CompletedUnits, CompletedOrders, FailedOrders int64
	// LedgerRows is the number of changes in the ledger.
	LedgerRows int64
	// DecidedTwice counts ledger rows that took units for an order which is not completed, or which another row had
	// taken them for already.
	DecidedTwice int64
	// UsersOverLimit counts users with more units than the highest limit that the product ever had. It is 0 if the
	// product ever had none.
	UsersOverLimit int64
	// Problems says in words what does not fit together. It is empty for a sound product.
	Problems []string
}

// Audit checks every product against its orders and its ledger, in one snapshot of the database, so that it may run
// while orders are decided. The result is sorted by product id and holds every product that exists or is named by an
// order or a ledger row. It reads all rows; its statements are bounded by the context alone.
func (l *Ledger) Audit(ctx context.Context) (audits []ProductAudit, err error) {
	pool, err := l.db.OpenPatient()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	// Under REPEATABLE READ the first read takes the snapshot that all the others see.
	tx, err := pool.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("audit: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()

	a := auditor{tx: tx, findings: map[order.StockID]*findings{}}
	for _, q := range auditQueries {
		if err := a.read(ctx, q); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		audits = append(audits, a.findings[id].audit(id))
	}
	return audits, nil
}

// findings are the numbers that the audit reads of one product. Each query fills some of them.
type findings struct {
	StockID order.StockID  `db:"product_id"`
	Name    sql.NullString `db:"name"` // not NULL if the product exists
	Stock   int64          `db:"stock"`
	Version int64          `db:"version"`
	Buckets int64          `db:"buckets"`

	CompletedUnits  int64 `db:"completed_units"`
	CompletedOrders int64 `db:"completed_orders"`
	FailedOrders    int64 `db:"failed_orders"`
	OddOrders       int64 `db:"odd_orders"` // orders whose status is neither, or does not match their reason

	LedgerRows   int64 `db:"ledger_rows"`
	LedgerSum    int64 `db:"ledger_sum"`
	Initial      int64 `db:"initial_units"`
	InitialRows  int64 `db:"initial_rows"`
	Restocked    int64 `db:"restocked_units"`
	Moved        int64 `db:"moved_units"`
	LastVersion  int64 `db:"last_version"`
	LastBalance  int64 `db:"last_balance"`
	Gaps         int64 `db:"gaps"`          // rows whose predecessor is missing
	BrokenLinks  int64 `db:"broken_links"`  // rows whose balance is not their predecessor's plus their delta
	OddChanges   int64 `db:"odd_changes"`   // rows with an unknown reason, or a delta of the wrong sign
	BelowZero    int64 `db:"below_zero"`    // rows with a negative balance
	Unbooked     int64 `db:"unbooked"`      // completed orders without a ledger row
	WrongUnits   int64 `db:"wrong_units"`   // completed orders whose ledger row has other units
	Undue        int64 `db:"undue"`         // ledger rows for an order that is not completed
	Repeated     int64 `db:"repeated"`      // ledger rows for an order that has one already
	OverLimit    int64 `db:"over_limit"`    // users over the limit
	LimitCeiling int64 `db:"limit_ceiling"` // the limit that they are over

	// Of a split product, in the row of the product itself.
	WholeMoved int64 `db:"whole_moved"` // units moved between it and its buckets: what came less what went
	WholeOver  int64 `db:"whole_over"`  // users over the limit by what they have of all buckets together
	Strays     int64 `db:"strays"`      // buckets in use that are not in the row of the product, or the other way round
}

// auditQueries are set-based and read each table in the order of an index, once or twice in all.
var auditQueries = []string{
	`SELECT id AS product_id, name, stock, version, buckets FROM products`,

	`SELECT product_id,
		SUM(status = 'completed') AS completed_orders,
		SUM(CASE WHEN status = 'completed' THEN quantity ELSE 0 END) AS completed_units,
		SUM(status = 'failed') AS failed_orders
	FROM orders GROUP BY product_id`,

	`SELECT product_id, COUNT(*) AS odd_orders FROM orders
	WHERE status NOT IN ('completed', 'failed') OR (status = 'failed') <> (failed_reason IS NOT NULL)
	GROUP BY product_id`,

	`SELECT l.product_id,
		COUNT(*) AS ledger_rows, SUM(l.delta) AS ledger_sum, MAX(l.version) AS last_version,
		SUM(CASE WHEN l.reason = 'initial' THEN l.delta ELSE 0 END) AS initial_units,
		SUM(l.reason = 'initial') AS initial_rows,
		SUM(CASE WHEN l.reason IN ('restock', 'correction') THEN l.delta ELSE 0 END) AS restocked_units,
		SUM(CASE WHEN l.reason IN ('move', 'split') THEN l.delta ELSE 0 END) AS moved_units,
		SUM(p.version IS NULL AND l.version <> 1) AS gaps,
		SUM(CASE WHEN p.version IS NULL AND l.version <> 1 THEN 0 ELSE l.balance <> COALESCE(p.balance, 0) + l.delta END) AS broken_links,
		SUM(l.balance < 0) AS below_zero,
		SUM(CASE l.reason WHEN 'initial' THEN l.delta < 0 OR l.version <> 1 WHEN 'restock' THEN l.delta < 0 OR (l.delta = 0 AND l.product_id < 1099511627776)
			WHEN 'order' THEN l.delta >= 0 WHEN 'correction' THEN l.delta >= 0 WHEN 'split' THEN l.delta = 0 WHEN 'move' THEN l.delta = 0 OR l.product_id < 1099511627776 ELSE 1 END) AS odd_changes
	FROM stock_ledger l
	LEFT JOIN stock_ledger p ON p.product_id = l.product_id AND p.version = l.version - 1
	GROUP BY l.product_id`,

	`SELECT l.product_id, l.balance AS last_balance FROM stock_ledger l
	JOIN (SELECT product_id, MAX(version) AS version FROM stock_ledger GROUP BY product_id) AS last
		ON last.product_id = l.product_id AND last.version = l.version`,

	`SELECT o.product_id, SUM(l.product_id IS NULL) AS unbooked, SUM(COALESCE(l.delta <> -o.quantity, 0)) AS wrong_units
	FROM orders o
	LEFT JOIN stock_ledger l ON l.product_id = o.product_id AND l.reason = 'order' AND l.ref = o.id
	WHERE o.status = 'completed' GROUP BY o.product_id`,

	`SELECT l.product_id, COUNT(*) AS undue FROM stock_ledger l
	LEFT JOIN orders o ON o.id = l.ref AND o.product_id = l.product_id AND o.status = 'completed'
	WHERE l.reason = 'order' AND o.id IS NULL GROUP BY l.product_id`,

	`SELECT product_id, COUNT(*) - COUNT(DISTINCT ref) AS repeated FROM stock_ledger WHERE reason = 'order' GROUP BY product_id`,

	// A limit may be lowered below what users have bought, and set when they have bought, so the highest one counts.
	`SELECT product_id, COUNT(*) AS over_limit, MAX(limit_ceiling) AS limit_ceiling FROM (
		SELECT o.product_id, o.user_id, p.limit_ceiling FROM orders o
		JOIN products p ON p.id = o.product_id
		WHERE p.limit_ceiling > 0 AND o.status = 'completed'
		GROUP BY o.product_id, o.user_id, p.limit_ceiling
		HAVING SUM(o.quantity) > p.limit_ceiling
	) AS users GROUP BY product_id`,

	// The three below are of split products as a whole: the ids of buckets are above 2^40, and the rest of such an id
	// is the product's.
	`SELECT l.product_id & 1099511627775 AS product_id, SUM(l.delta) AS whole_moved FROM stock_ledger l
	WHERE l.reason IN ('move', 'split') GROUP BY l.product_id & 1099511627775`,

	`SELECT u.product_id, COUNT(*) AS whole_over, MAX(p.limit_ceiling) AS limit_ceiling FROM (
		SELECT o.product_id & 1099511627775 AS product_id, o.user_id, SUM(o.quantity) AS units FROM orders o
		WHERE o.product_id >= 1099511627776 AND o.status = 'completed'
		GROUP BY o.product_id & 1099511627775, o.user_id
	) AS u
	JOIN products p ON p.id = u.product_id
	WHERE p.limit_ceiling > 0 AND u.units > p.limit_ceiling
	GROUP BY u.product_id`,

	`SELECT p.id AS product_id, ABS(p.buckets - COUNT(b.id)) AS strays FROM products p
	LEFT JOIN products b ON b.id & 1099511627775 = p.id AND b.id >= 1099511627776 AND b.buckets = p.buckets
	WHERE p.buckets > 0 AND p.id < 1099511627776
	GROUP BY p.id, p.buckets HAVING strays > 0`,
}

type auditor struct {
	tx       *sqlx.Tx
	findings map[order.StockID]*findings
}

// read runs a query and scans each of its rows over what is known of the row's product.
func (a auditor) read(ctx context.Context, query string) error {
	rows, err := a.tx.QueryxContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		// The product is known only after the scan, so the row is scanned twice.
		var row findings
		if err := rows.StructScan(&row); err != nil {
			return err
		}

		f := a.findings[row.StockID]
		if f == nil {
			f = &findings{}
			a.findings[row.StockID] = f
		}
		if err := rows.StructScan(f); err != nil {
			return err
		}
	}
	return rows.Err()
}

// audit draws the conclusions.
func (f *findings) audit(id order.StockID) ProductAudit {
	p := ProductAudit{
		ID: id, Name: f.Name.String, Known: f.Name.Valid, Stock: f.Stock, Version: f.Version, Buckets: f.Buckets,
		Initial: f.Initial, Restocked: f.Restocked, Moved: f.Moved,
		CompletedUnits: f.CompletedUnits, CompletedOrders: f.CompletedOrders, FailedOrders: f.FailedOrders,
		LedgerRows: f.LedgerRows, DecidedTwice: f.Undue + f.Repeated, UsersOverLimit: f.OverLimit + f.WholeOver,
	}

	problem := func(is bool, format string, args ...any) {
		if is {
			p.Problems = append(p.Problems, fmt.Sprintf(format, args...))
		}
	}

	problem(!p.Known && f.CompletedOrders > 0, "%d orders are completed, but the product does not exist",
		f.CompletedOrders)
	problem(!p.Known && f.LedgerRows > 0, "the ledger has %d rows, but the product does not exist", f.LedgerRows)
	problem(f.Stock < 0, "the stock is negative: %d", f.Stock)

	expected := f.Initial + f.Restocked + f.Moved - f.CompletedUnits
	problem(f.Stock != expected, "the stock is %d, but %d initial + %d restocked + %d moved - %d completed is %d",
		f.Stock, f.Initial, f.Restocked, f.Moved, f.CompletedUnits, expected)
	problem(f.WholeMoved != 0, "the moves between its buckets have made %d units, not 0", f.WholeMoved)
	problem(f.WholeOver > 0, "users over the limit of %d by all buckets together: %d", f.LimitCeiling, f.WholeOver)
	problem(f.Strays > 0, "the rows of its buckets are not those that it has: %d", f.Strays)

	problem(p.Known && f.InitialRows != 1, "the ledger has %d initial rows, not 1", f.InitialRows)
	problem(f.LedgerSum != f.Stock, "the changes in the ledger add up to %d, but the stock is %d", f.LedgerSum, f.Stock)
	problem(f.LastBalance != f.Stock, "the last balance in the ledger is %d, but the stock is %d", f.LastBalance,
		f.Stock)
	problem(f.LastVersion != f.Version, "the last version in the ledger is %d, but the product's is %d", f.LastVersion,
		f.Version)
	problem(f.Gaps > 0, "the ledger's versions have gaps: %d", f.Gaps)
	problem(f.BrokenLinks > 0, "ledger rows whose balance is not the balance before plus the change: %d", f.BrokenLinks)
	problem(f.BelowZero > 0, "ledger rows with a negative balance: %d", f.BelowZero)
	problem(f.OddChanges > 0, "ledger rows whose reason is unknown or does not allow their change: %d", f.OddChanges)

	problem(f.OddOrders > 0, "orders that are neither completed nor failed with a reason: %d", f.OddOrders)
	problem(f.Unbooked > 0, "completed orders without a ledger row: %d", f.Unbooked)
	problem(f.WrongUnits > 0, "completed orders whose ledger row has other units: %d", f.WrongUnits)
	problem(f.Undue > 0, "ledger rows for an order that is not a completed order of this product: %d", f.Undue)
	problem(f.Repeated > 0, "ledger rows for an order that has one already: %d", f.Repeated)
	problem(f.OverLimit > 0, "users over the limit of %d: %d", f.LimitCeiling, f.OverLimit)
	return p
}
