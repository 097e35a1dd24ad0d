package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
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
	// CompletedUnits, CompletedOrders and FailedOrders are counted from the orders. An order that must be paid counts
	// as completed since it has its units, whatever became of it then.
	CompletedUnits, CompletedOrders, FailedOrders int64
	// HeldOrders are those of them that must be paid, and CancelledOrders those that were not. ReturnedUnits are the
	// units that were taken back, by the ledger.
	HeldOrders, CancelledOrders, ReturnedUnits int64
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

// AuditOptions say how much an audit looks at.
type AuditOptions struct {
	// All has every row looked at that was not archived, and not only what is new since the last checkpoint.
	All bool
	// Progress, if it is not nil, is told now and then how many rows of a table have been read.
	Progress func(table string, rows int64)

	margin  time.Duration // checkpointMargin, if it is 0
	archive time.Time     // ids of before will be archived
	// then is called in the audit's snapshot, if it is not nil, when everything was read.
	then func(ctx context.Context, a *auditor) error
}

// Audit checks every product against all its orders and its ledger, in one snapshot of the database, so that it may run
// while orders are decided. The result is sorted by product id and holds every product that exists or is named by an
// order or a ledger row. Its statements are bounded by the context alone. It writes nothing.
func (l *Ledger) Audit(ctx context.Context) ([]ProductAudit, error) {
	a, err := l.audit(ctx, AuditOptions{All: true})
	if err != nil {
		return nil, err
	}
	return a.audits(), nil
}

// AuditBooks is Audit, but starts from the last checkpoint unless everything is asked for, and leaves a checkpoint
// behind if it has found nothing. It sees whatever is wrong with rows that were written since, and not that somebody
// has changed older ones.
func (l *Ledger) AuditBooks(ctx context.Context, options AuditOptions) ([]ProductAudit, error) {
	a, err := l.audit(ctx, options)
	if err != nil {
		return nil, err
	}
	audits := a.audits()
	if a.unsound() {
		return audits, nil
	}
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		return writeBooks(ctx, tx, booksCheckpoint, a.checkpoint(), options.All || a.books.since.IsZero(), a.until,
			a.books.marks)
	})
	if err != nil && !errors.Is(err, errBooksChanged) { // by another audit, whose checkpoint is as good
		return nil, fmt.Errorf("audit: %w", err)
	}
	return audits, nil
}

// audit reads what an audit needs to know.
func (l *Ledger) audit(ctx context.Context, options AuditOptions) (a *auditor, err error) {
	pool, err := l.db.OpenPatient()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	tx, ledgerTx, err := snapshots(ctx, pool, options.All)
	if err != nil {
		return nil, fmt.Errorf("audit: begin: %w", err)
	}
	defer func() { _, _ = tx.Rollback(), ledgerTx.Rollback() }()
	if options.Progress == nil {
		options.Progress = func(string, int64) {}
	}
	if options.margin == 0 {
		options.margin = checkpointMargin
	}

	a = &auditor{
		tx: tx, ledgerTx: ledgerTx, options: options, findings: map[order.StockID]*findings{},
		until: time.Now().Add(-options.margin).UTC().Truncate(time.Microsecond),
	}
	if a.books, err = readBooks(ctx, tx, options.All); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.until = mysql.Later(a.until, a.books.since)
	if a.kept = a.books.firstID(); options.archive.After(a.books.archived) {
		a.kept = order.FirstID(options.archive)
	}
	err = inOrder(ctx, a.readProducts, a.readRows, a.readRedrives, a.readHolds, a.readBought, a.readWholes,
		a.readDetails)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if options.then != nil {
		return a, options.then(ctx, a)
	}
	return a, nil
}

// inOrder calls one after the other, until one fails.
func inOrder(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// snapshotTries is how often two connections are opened until both see the same.
const snapshotTries = 5

// snapshots begins a transaction in which everything is read, and another one for the ledger, which sees the same: so
// that two processors of the server have work. It is the first one if only a little is to be read, or if the products
// change so fast that no two connections see them alike.
func snapshots(ctx context.Context, pool *sqlx.DB, two bool) (tx, ledgerTx *sqlx.Tx, err error) {
	for try := 1; ; try++ {
		tx, seen, err := snapshot(ctx, pool)
		if err != nil || !two || try == snapshotTries {
			return tx, tx, err
		}
		ledgerTx, again, err := snapshot(ctx, pool)
		if err == nil && again == seen {
			return tx, ledgerTx, nil
		}
		_ = tx.Rollback()
		if err != nil {
			return nil, nil, err
		}
		_ = ledgerTx.Rollback()
	}
}

// snapshot begins a transaction, and says what it sees of the products: every row of the ledger has raised a version,
// and none is ever lowered, so that those who see equal sums see equal ledgers.
func snapshot(ctx context.Context, pool *sqlx.DB) (tx *sqlx.Tx, seen [2]int64, err error) {
	// Under REPEATABLE READ the first read takes the snapshot that all the others see.
	tx, err = pool.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, seen, err
	}
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(version), 0) FROM products`).Scan(&seen[0], &seen[1])
	if err != nil {
		_ = tx.Rollback()
	}
	return tx, seen, err
}

// auditor is an audit while it reads.
type auditor struct {
	tx       *sqlx.Tx
	ledgerTx *sqlx.Tx // the same, or one that sees the same
	options  AuditOptions

	mu       sync.Mutex // guards the map, not what is in it, of which ledger and orders write other parts
	books    books
	until    time.Time     // orders that were decided before go into the next checkpoint
	before   order.OrderID // only orders with ids before it are read, unless it is zero
	kept     order.OrderID // the first id that is not archived, or will not be after this audit
	findings map[order.StockID]*findings
}

// of is what is found of a product, which begins with what the books have of it.
func (a *auditor) of(id order.StockID) *findings {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.findings[id]
	if f == nil {
		f = &findings{sums: a.books.rows[id]}
		f.sums.StockID = id
		a.findings[id] = f
	}
	return f
}

// progress tells how many rows of a table have been read.
func (a *auditor) progress(table string, rows int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.options.Progress(table, rows)
}

func (a *auditor) audits() []ProductAudit {
	audits := make([]ProductAudit, 0, len(a.findings))
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		audits = append(audits, a.findings[id].audit(id))
	}
	return audits
}

func (a *auditor) unsound() bool {
	return slices.ContainsFunc(a.audits(), func(p ProductAudit) bool { return len(p.Problems) > 0 })
}

// checkpoint is the sums that the next audit starts from, of the products that are not as in the books.
func (a *auditor) checkpoint() []bookRow {
	var rows []bookRow
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		row := a.findings[id].sums
		row.Version, row.Balance = a.findings[id].head, a.findings[id].Stock
		if known, ok := a.books.rows[id]; a.books.since.IsZero() || !ok || row != known {
			rows = append(rows, row)
		}
	}
	return rows
}

// findings are the numbers that the audit reads of one product.
type findings struct {
	productFacts
	sums      bookRow   // from the books, and of new rows; of orders those of the next checkpoint
	fresh     orderSums // of the other orders
	head      int64     // the last version in the ledger
	rows      int64     // new ones in the ledger
	delta     int64     // their sum
	links     int64     // the sum of their sumOfLink
	takenBack int64     // failures in the sums of orders that were redriven
	touched   bool      // orders of it were read
	oddLedger bool      // there are rows that cannot be, which the details say
	oddOrders bool
	wrong     bool // the sums do not fit together

	holdSums
	details
}

// productFacts are of a product's row.
type productFacts struct {
	StockID order.StockID  `db:"product_id"`
	Name    sql.NullString `db:"name"` // not NULL if the product exists
	Stock   int64          `db:"stock"`
	Version int64          `db:"version"`
	Buckets int64          `db:"buckets"`
	Counted int64          `db:"counted"`
	Ceiling int64          `db:"limit_ceiling"`
}

// details count single rows. They are read of products of which the sums say that something is wrong.
type details struct {
	LastBalance int64 `db:"last_balance"`
	Gaps        int64 `db:"gaps"`         // rows whose predecessor is missing
	BrokenLinks int64 `db:"broken_links"` // rows whose balance is not their predecessor's plus their delta
	OddChanges  int64 `db:"odd_changes"`  // rows with an unknown reason, or a delta of the wrong sign
	BelowZero   int64 `db:"below_zero"`   // rows with a negative balance
	OddOrders   int64 `db:"odd_orders"`   // orders whose status is neither, or does not match their reason
	Unbooked    int64 `db:"unbooked"`     // completed orders without a ledger row
	WrongUnits  int64 `db:"wrong_units"`  // completed orders whose ledger row has other units
	Undue       int64 `db:"undue"`        // ledger rows for an order that is not completed
	Repeated    int64 `db:"repeated"`     // ledger rows for an order that has one already
	OverLimit   int64 `db:"over_limit"`   // users over the limit
	Miscounted  bool  `db:"miscounted"`   // what users have is not what they have bought

	// Of a split product, in the row of the product itself.
	WholeMoved int64 `db:"whole_moved"` // units moved between it and its buckets: what came less what went
	WholeOver  int64 `db:"whole_over"`  // users over the limit by what they have of all buckets together
	Strays     int64 `db:"strays"`      // buckets in use that are not in the row of the product, or the other way round
}

// all are the sums over all orders.
func (f *findings) all() orderSums {
	sums := f.sums.orderSums
	sums.add(f.fresh)
	sums.Failed -= f.takenBack
	return sums
}

// linked reports whether the new rows of the ledger follow one another, from the books to the product's stock.
func (f *findings) linked(base bookRow) bool {
	return f.rows == f.head-base.Version &&
		f.links == linkSum(f.head, f.Stock)-linkSum(base.Version, base.Balance)
}

// suspect reports whether the sums do not fit together.
func (f *findings) suspect(base bookRow) bool {
	all := f.all()
	return f.oddLedger || f.oddOrders || f.OverLimit > 0 || f.Miscounted ||
		!f.Name.Valid && (all.Completed > 0 || f.head > 0) ||
		f.Name.Valid && (!f.linked(base) || f.sums.Initials != 1) ||
		f.sums.Booked != all.Completed || f.sums.BookedSum != all.CompletedSum ||
		!f.holdsFit() ||
		base.Balance+f.delta != f.Stock || f.head != f.Version
}

// audit draws the conclusions.
func (f *findings) audit(id order.StockID) ProductAudit {
	orders := f.all()
	p := ProductAudit{
		ID: id, Name: f.Name.String, Known: f.Name.Valid, Stock: f.Stock, Version: f.Version, Buckets: f.Buckets,
		Initial: f.sums.Initial, Restocked: f.sums.Restocked, Moved: f.sums.Moved,
		ReturnedUnits: f.sums.ReturnedUnits, HeldOrders: orders.Held, CancelledOrders: f.cancelled,
		CompletedUnits: orders.Units, CompletedOrders: orders.Completed, FailedOrders: orders.Failed,
		LedgerRows: f.sums.Version + f.rows, DecidedTwice: f.Undue + f.Repeated,
		UsersOverLimit: f.OverLimit + f.WholeOver,
	}
	ledgerSum := f.sums.Balance + f.delta

	problem := func(is bool, format string, args ...any) {
		if is {
			p.Problems = append(p.Problems, fmt.Sprintf(format, args...))
		}
	}

	problem(!p.Known && p.CompletedOrders > 0, "%d orders are completed, but the product does not exist",
		p.CompletedOrders)
	problem(!p.Known && p.LedgerRows > 0, "the ledger has %d rows, but the product does not exist", p.LedgerRows)
	problem(f.Stock < 0, "the stock is negative: %d", f.Stock)

	expected := p.Initial + p.Restocked + p.Moved + p.ReturnedUnits - p.CompletedUnits
	problem(f.Stock != expected,
		"the stock is %d, but %d initial + %d restocked + %d moved + %d returned - %d completed is %d",
		f.Stock, p.Initial, p.Restocked, p.Moved, p.ReturnedUnits, p.CompletedUnits, expected)
	problem(f.WholeMoved != 0, "the moves between its buckets have made %d units, not 0", f.WholeMoved)
	problem(f.WholeOver > 0, "users over the limit of %d by all buckets together: %d", f.Ceiling, f.WholeOver)
	problem(f.Strays > 0, "the rows of its buckets are not those that it has: %d", f.Strays)

	problem(p.Known && f.sums.Initials != 1, "the ledger has %d initial rows, not 1", f.sums.Initials)
	problem(ledgerSum != f.Stock, "the changes in the ledger add up to %d, but the stock is %d", ledgerSum, f.Stock)
	problem(f.LastBalance != f.Stock, "the last balance in the ledger is %d, but the stock is %d", f.LastBalance,
		f.Stock)
	problem(f.head != f.Version, "the last version in the ledger is %d, but the product's is %d", f.head,
		f.Version)
	problem(f.Gaps > 0, "the ledger's versions have gaps: %d", f.Gaps)
	problem(f.BrokenLinks > 0, "ledger rows whose balance is not the balance before plus the change: %d", f.BrokenLinks)
	problem(f.BelowZero > 0, "ledger rows with a negative balance: %d", f.BelowZero)
	problem(f.OddChanges > 0, "ledger rows whose reason is unknown or does not allow their change: %d", f.OddChanges)

	problem(f.OddOrders > 0, "orders that are neither completed, held, nor failed with a reason: %d", f.OddOrders)
	problem(f.Unbooked > 0, "completed orders without a ledger row: %d", f.Unbooked)
	problem(f.WrongUnits > 0, "completed orders whose ledger row has other units: %d", f.WrongUnits)
	problem(f.Undue > 0, "ledger rows for an order that is not a completed order of this product: %d", f.Undue)
	problem(f.Repeated > 0, "ledger rows for an order that has one already: %d", f.Repeated)
	f.holdProblems(problem)
	problem(f.OverLimit > 0, "users over the limit of %d: %d", f.Ceiling, f.OverLimit)
	problem(f.Miscounted, "the units that users have bought are not those that are counted for the limit")
	problem(len(p.Problems) == 0 && f.wrong, "the sums over its orders and its ledger do not match the books")
	return p
}
