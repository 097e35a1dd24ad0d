package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

const (
	// MinArchiveAge is how old orders are at least that are archived: no message of one can be left, in the queue or
	// among the dead letters, where it is for 14 days at most each time that it is sent.
	MinArchiveAge = 30 * 24 * time.Hour
	// archiveBatch is how many versions of a product one statement deletes from the ledger.
	archiveBatch = 5_000
)

// ErrUnsound: what is to be archived could not be proven. The audit says what is wrong.
var ErrUnsound = mysql.OwnError("the books do not add up")

// ErrHeld: orders that are to be archived still await their payment, or are being cancelled.
var ErrHeld = mysql.OwnError("orders await their payment, or are being cancelled")

// Archived is what an archive has done.
type Archived struct {
	// Before is the beginning of the month of which, and of later ones, orders are kept.
	Before time.Time
	// Orders, Units and LedgerRows were taken into the opening balances by this call, and Deleted rows of the ledger
	// and Partitions of the orders were deleted. A call that goes on after one that was interrupted takes none.
	Orders, Units, LedgerRows, Deleted int64
	Partitions                         []string
}

// Archive deletes the orders whose ids were made before a month, with the rows of the ledger that are theirs, after it
// has proven all books, and has noted of each product what they add up to: with that opening balance the books of the
// later rows are proven. What users have bought still counts for limits. The month is that of the time that is given.
// It needs the right to change the schema.
//
// It may be interrupted at any moment and be repeated: rows do not count any more once the opening balances are there,
// whether they are deleted or not. ErrInvalid: the time is not MinArchiveAge ago. ErrUnsound and ErrHeld: nothing was
// changed. What became of orders that must be paid stays, in holds: they may be refunded, and return their units, after
// they are archived.
func (l *Ledger) Archive(ctx context.Context, before time.Time, options AuditOptions) (Archived, error) {
	done := Archived{Before: mysql.Month(before)}
	if time.Since(done.Before) < MinArchiveAge {
		return Archived{}, fmt.Errorf("archive: %w", mysql.Invalidf("orders are kept for %d days at least",
			int(MinArchiveAge/(24*time.Hour))))
	}
	if err := l.openBooks(ctx, options, &done); err != nil {
		return Archived{}, fmt.Errorf("archive: %w", err)
	}
	if err := l.deleteArchived(ctx, &done); err != nil {
		return done, fmt.Errorf("archive: the opening balances are noted, repeat the command to delete the rest: %w",
			err)
	}
	return done, nil
}

// openBooks notes the opening balances, unless those of the month are there.
func (l *Ledger) openBooks(ctx context.Context, options AuditOptions, done *Archived) error {
	if err := l.countProducts(ctx); err != nil {
		return err
	}
	var openings []bookRow
	options.All, options.archive = true, done.Before
	options.then = func(ctx context.Context, a *auditor) (err error) {
		if !a.books.archived.Before(done.Before) {
			return nil
		}
		if err := a.noneHeld(ctx, done.Before); err != nil {
			return err
		}
		if a.unsound() {
			return ErrUnsound
		}
		openings, err = a.openings(ctx, done)
		return err
	}
	a, err := l.audit(ctx, options)
	if err != nil || openings == nil {
		return err
	}

	return l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		err := writeBooks(ctx, tx, booksOpening, openings, false, done.Before, a.books.marks)
		if err != nil {
			return err
		}
		// A checkpoint includes what is archived.
		marks := maps.Clone(a.books.marks)
		marks[booksOpening] = done.Before.Format(time.RFC3339Nano)
		if err := writeBooks(ctx, tx, booksCheckpoint, a.checkpoint(), true, a.until, marks); err != nil {
			return err
		}
		return mysql.LogChange(ctx, tx, actArchive, "orders before "+done.Before.Format(time.DateOnly), nil,
			mysql.Values{"orders": done.Orders, "units": done.Units, "ledger_rows": done.LedgerRows})
	})
}

// noneHeld reports orders with ids of before a time of which it is open whether they are paid: without its row nobody
// could pay one.
func (a *auditor) noneHeld(ctx context.Context, before time.Time) error {
	first := order.FirstID(before)
	var held int64
	err := a.tx.GetContext(ctx, &held, `SELECT COUNT(*) FROM holds
		WHERE order_id < ? AND state IN ('awaiting_payment', 'closing')`, mysql.UUID(first))
	if err == nil && held > 0 {
		err = fmt.Errorf("%w: %d of before %s", ErrHeld, held, before.Format(time.DateOnly))
	}
	return err
}

// countProducts counts what was bought of all products, since it cannot be once the orders are gone.
func (l *Ledger) countProducts(ctx context.Context) error {
	var ids []order.StockID
	if err := l.db.SelectContext(ctx, &ids, `SELECT id FROM products WHERE counted < version`); err != nil {
		return fmt.Errorf("count units bought: %w", err)
	}
	for _, id := range ids {
		if err := l.countAll(ctx, id); err != nil {
			return fmt.Errorf("product %d: %w", id, err)
		}
	}
	return nil
}

// openings are the opening balances of a month, in the snapshot of an audit that has read everything.
func (a *auditor) openings(ctx context.Context, done *Archived) ([]bookRow, error) {
	first := order.FirstID(done.Before)
	old := &auditor{
		tx: a.tx, ledgerTx: a.tx, options: a.options, books: a.books, findings: map[order.StockID]*findings{},
		until: time.Now().AddDate(1, 0, 0), before: first,
	}

	// The ledger is archived up to the first order that is kept, so that each of those has its row.
	var kept []struct {
		StockID order.StockID `db:"product_id"`
		Version int64         `db:"version"`
	}
	err := a.tx.SelectContext(ctx, &kept, `SELECT product_id, MIN(version) AS version FROM stock_ledger
		WHERE reason = ? AND ref >= ? GROUP BY product_id`, ledgerOrder, first[:])
	if err != nil {
		return nil, err
	}
	for id, f := range a.findings {
		old.of(id).head = f.head
	}
	for _, row := range kept {
		old.of(row.StockID).head = max(row.Version-1, a.books.rows[row.StockID].Version)
	}
	if err := inOrder(ctx, old.readLedger, old.readOrders); err != nil {
		return nil, err
	}

	rows := make([]bookRow, 0, len(old.findings))
	for _, id := range slices.Sorted(maps.Keys(old.findings)) {
		f, was := old.findings[id], a.books.rows[id]
		row := f.sums
		row.Version, row.Balance = was.Version+f.rows, was.Balance+f.delta
		rows = append(rows, row)
		done.Orders += row.Completed + row.Failed - was.Completed - was.Failed
		done.Units += row.Units - was.Units
		done.LedgerRows += row.Booked - was.Booked
	}
	return rows, nil
}

// deleteArchived deletes what does not count any more.
func (l *Ledger) deleteArchived(ctx context.Context, done *Archived) (err error) {
	a := books{}
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		a, err = readBooks(ctx, tx, true)
		return err
	})
	if err != nil || a.archived.IsZero() {
		return err
	}
	if done.Partitions, err = l.db.DropOrdersBefore(ctx, a.archived); err != nil {
		return err
	}
	for _, row := range a.rows {
		for from := int64(0); from < row.Version; from += archiveBatch {
			result, err := l.db.ExecContext(ctx, `DELETE FROM stock_ledger
				WHERE product_id = ? AND version > ? AND version <= ? AND reason = ?`,
				row.StockID, from, min(from+archiveBatch, row.Version), ledgerOrder)
			if err != nil {
				return fmt.Errorf("delete from the ledger: %w", err)
			}
			n, err := result.RowsAffected()
			if err != nil {
				return fmt.Errorf("delete from the ledger: %w", err)
			}
			done.Deleted += n
		}
	}
	return nil
}
