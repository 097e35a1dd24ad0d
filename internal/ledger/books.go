package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// The kinds of rows of the table books, and the names of their marks.
const (
	booksOpening    = "opening"    // of what was archived; its mark says of which time the ids are before
	booksCheckpoint = "checkpoint" // of what an audit has found to be sound; its mark says before when it was decided
)

func booksMark(kind string) string { return "books." + kind }

// checkpointMargin is how old decisions are that a checkpoint includes: no transaction that decides takes longer to
// commit, nor are the clocks of workers further apart.
const checkpointMargin = 10 * time.Minute

// bookRow is a row of the table books: sums over a part of a product's orders and ledger.
type bookRow struct {
	StockID order.StockID `db:"product_id"`

	Version   int64 `db:"version"`
	Balance   int64 `db:"balance"`
	Initials  int64 `db:"initial_rows"`
	Initial   int64 `db:"initial_units"`
	Restocked int64 `db:"restocked_units"`
	Moved     int64 `db:"moved_units"`
	Booked    int64 `db:"booked_orders"`
	BookedSum int64 `db:"booked_sum"` // of order ids and units, in any order: see sumOfOrder

	ReturnedUnits int64 `db:"returned_units"`
	ReturnedSum   int64 `db:"returned_sum"` // of order ids and units, as BookedSum

	orderSums
}

// orderSums are over orders.
type orderSums struct {
	Completed    int64 `db:"completed_orders"`
	Units        int64 `db:"completed_units"`
	CompletedSum int64 `db:"completed_sum"` // what bookedSum is in the ledger
	BuyersSum    int64 `db:"buyers_sum"`    // of the completed orders' users and units: see sumOfBuyer
	Failed       int64 `db:"failed_orders"`
	Held         int64 `db:"held_orders"` // completed ones that must be paid, whatever became of them
	HeldSum      int64 `db:"held_sum"`
}

func (s *orderSums) add(o orderSums) {
	s.Completed += o.Completed
	s.Units += o.Units
	s.CompletedSum += o.CompletedSum
	s.BuyersSum += o.BuyersSum
	s.Failed += o.Failed
	s.Held += o.Held
	s.HeldSum += o.HeldSum
}

const bookColumns = `product_id, version, balance, initial_rows, initial_units, restocked_units, moved_units,
	booked_orders, booked_sum, completed_orders, completed_units, completed_sum, buyers_sum, failed_orders,
	held_orders, held_sum, returned_units, returned_sum`

// What is summed up of single rows. Sets of rows that are equal have equal sums, in whatever order they are read, and
// those that differ have, but for one in four billion, others: so two tables are compared without joining them. Whose
// sums differ are looked at row by row.
const (
	sumOfOrder  = `CRC32(CONCAT(id, quantity))`
	sumOfBooked = `CRC32(CONCAT(ref, -delta))`
	sumOfHeld   = `CRC32(CONCAT(order_id, quantity))`
	sumOfReturn = `CRC32(CONCAT(ref, delta))`
	// Smaller than the others, so that it can be multiplied by units.
	sumOfBuyer = `(CRC32(user_id) >> 12)`
	// A ledger row's stock after it, less its stock before it: over rows that follow one another all but the first and
	// the last cancel out. It is kept above zero.
	sumOfLink = `CRC32(CONCAT(version, ':', balance)) + 4294967296
		- CRC32(CONCAT(version - 1, ':', balance - delta))`
	linkOffset = 1 << 32
)

// linkSum is what sumOfLink has of a version and its stock.
func linkSum(version, balance int64) int64 {
	return int64(crc32.ChecksumIEEE(fmt.Appendf(nil, "%d:%d", version, balance)))
}

// books is what is known of the books before an audit: sums, and what they include.
type books struct {
	rows map[order.StockID]bookRow
	// archived is before which time the ids of orders are of which no row counts any more.
	archived time.Time
	// since is before when orders were decided that the sums include; zero if those of the archive alone.
	since time.Time
	marks map[string]string
}

// readBooks reads what an audit starts from: the last checkpoint or, to look at all that is there, what was archived.
func readBooks(ctx context.Context, tx *sqlx.Tx, all bool) (books, error) {
	b := books{rows: map[order.StockID]bookRow{}, marks: map[string]string{}}
	for _, kind := range []string{booksOpening, booksCheckpoint} {
		var value string
		err := tx.GetContext(ctx, &value, `SELECT value FROM marks WHERE name = ?`, booksMark(kind))
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		at, bad := time.Parse(time.RFC3339Nano, value)
		if err := errors.Join(err, bad); err != nil {
			return books{}, fmt.Errorf("read mark %s: %w", booksMark(kind), err)
		}
		b.marks[kind] = value
		if kind == booksOpening {
			b.archived = at
		} else if !all {
			b.since = at
		}
	}

	kind := booksOpening
	if !b.since.IsZero() {
		kind = booksCheckpoint
	}
	var rows []bookRow
	if err := tx.SelectContext(ctx, &rows, `SELECT `+bookColumns+` FROM books WHERE kind = ?`, kind); err != nil {
		return books{}, fmt.Errorf("read books: %w", err)
	}
	for _, row := range rows {
		b.rows[row.StockID] = row
	}
	return b, nil
}

// firstID is the least id of an order that counts.
func (b books) firstID() order.OrderID {
	if b.archived.IsZero() {
		return order.OrderID{}
	}
	return order.FirstID(b.archived)
}

// errBooksChanged says that somebody else has written books since they were read.
var errBooksChanged = mysql.OwnError("the books were written by somebody else meanwhile")

// writeBooks writes rows of a kind, and its mark, if the marks are still what they were read as. Rows of other products
// stay, unless all is set.
func writeBooks(ctx context.Context, tx *sqlx.Tx, kind string, rows []bookRow, all bool, at time.Time,
	read map[string]string) error {
	// The mark is locked by writing it, whether it is there or not.
	name := booksMark(kind)
	_, err := tx.ExecContext(ctx, `INSERT INTO marks (name, value) VALUES (?, '')
		ON DUPLICATE KEY UPDATE name = name`, name)
	if err != nil {
		return fmt.Errorf("write mark %s: %w", name, err)
	}
	for _, other := range []string{booksOpening, booksCheckpoint} {
		var value string
		err := tx.GetContext(ctx, &value, `SELECT value FROM marks WHERE name = ? FOR UPDATE`, booksMark(other))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read mark %s: %w", booksMark(other), err)
		}
		if value != read[other] {
			return errBooksChanged
		}
	}

	if all {
		if _, err := tx.ExecContext(ctx, `DELETE FROM books WHERE kind = ?`, kind); err != nil {
			return fmt.Errorf("write books: %w", err)
		}
	}
	for chunk := range slices.Chunk(rows, mysql.MaxInList) {
		if err := replaceBooks(ctx, tx, kind, chunk); err != nil {
			return fmt.Errorf("write books: %w", err)
		}
	}
	_, err = tx.ExecContext(ctx, `UPDATE marks SET value = ? WHERE name = ?`, at.UTC().Format(time.RFC3339Nano), name)
	if err != nil {
		return fmt.Errorf("write mark %s: %w", name, err)
	}
	return nil
}

func replaceBooks(ctx context.Context, tx *sqlx.Tx, kind string, rows []bookRow) error {
	insert := mysql.NewInsert("books", "kind, "+bookColumns)
	for i := range rows {
		r := &rows[i]
		insert.Row()
		insert.Bytes([]byte(kind))
		insert.Ints(int64(r.StockID), r.Version, r.Balance, r.Initials, r.Initial, r.Restocked, r.Moved, r.Booked,
			r.BookedSum, r.Completed, r.Units, r.CompletedSum, r.BuyersSum, r.Failed,
			r.Held, r.HeldSum, r.ReturnedUnits, r.ReturnedSum)
	}
	columns := strings.Split(bookColumns, ",")[1:]
	for i, column := range columns {
		column = strings.TrimSpace(column)
		columns[i] = column + " = VALUES(" + column + ")"
	}
	return insert.End(ctx, tx, " ON DUPLICATE KEY UPDATE "+strings.Join(columns, ", "))
}
