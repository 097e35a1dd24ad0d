package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// maxHistory bounds the rows of each kind that History reads.
const maxHistory = 100

// Change is what an order has changed of the stock of its product, or of its bucket.
type Change struct {
	StockID order.StockID
	Version int64
	Delta   int64
	Balance int64 // the stock after it
	At      time.Time
}

// Redriven is a failure of an order that an operator has taken back.
type Redriven struct{ FailedAt, RedrivenAt time.Time }

// History is all that MySQL holds of an order, at one moment.
type History struct {
	// Record is nil if the order is not decided.
	Record *order.Record
	// Changes are one of an order that has taken units, and another one if they were taken back.
	Changes   []Change
	Redrivals []Redriven
}

// History reads an order and what it has changed. The ledger is searched by product: that of the order's row, and those
// that are given.
func (l *Ledger) History(ctx context.Context, id order.OrderID, stockIDs []order.StockID) (History, error) {
	var h History
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		h = History{}
		decided, err := readDecided(ctx, tx, []order.OrderID{id})
		if err != nil {
			return err
		}

		products := slices.Clone(stockIDs)
		if record, ok := decided[id]; ok {
			shown := []order.Record{record}
			if err := showHeld(ctx, tx, shown); err != nil {
				return err
			}
			h.Record = &shown[0]
			products = append(products, record.StockID)
		}

		if h.Changes, err = readChanges(ctx, tx, id, products); err != nil {
			return err
		}
		h.Redrivals, err = readRedrivals(ctx, tx, id)
		return err
	})
	if err != nil {
		return History{}, fmt.Errorf("read the history of order %s: %w", id, err)
	}
	return h, nil
}

// readChanges reads what an order has changed of the stock of some products, oldest first.
func readChanges(ctx context.Context, tx *sqlx.Tx, id order.OrderID, products []order.StockID) ([]Change, error) {
	var changes []Change
	for chunk := range slices.Chunk(products, mysql.MaxInList) {
		query, args, err := sqlx.In(
			`SELECT product_id, version, delta, balance, reason, ref, created_at FROM stock_ledger
			WHERE product_id IN (?) AND reason IN (?, ?) AND ref = ? ORDER BY created_at, product_id LIMIT ?`,
			chunk, ledgerOrder, ledgerReturn, id[:], maxHistory)
		if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		var rows []ledgerRow
		if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		for _, r := range rows {
			changes = append(changes, Change{r.StockID, r.Version, r.Delta, r.Balance, r.CreatedAt})
		}
	}
	return changes, nil
}

// readRedrivals reads how often an order was redriven, oldest first.
func readRedrivals(ctx context.Context, tx *sqlx.Tx, id order.OrderID) ([]Redriven, error) {
	var rows []struct {
		FailedAt   time.Time `db:"failed_at"`
		RedrivenAt time.Time `db:"redriven_at"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT failed_at, redriven_at FROM redrives WHERE order_id = ?
		ORDER BY redriven_at LIMIT ?`, mysql.UUID(id), maxHistory)
	if err != nil {
		return nil, fmt.Errorf("read redrives: %w", err)
	}
	all := make([]Redriven, len(rows))
	for i, row := range rows {
		all[i] = Redriven(row)
	}
	return all, nil
}
