package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Snapshot is what is true of a product, and of some of its orders, at one moment.
type Snapshot struct {
	Product order.Product
	// Decided holds those of the orders that have a row.
	Decided map[order.OrderID]order.Record
	// Returning are units that MySQL has taken back, up to MaxBatch of them, and that Redis may not have yet.
	Returning []order.Returned
}

// Snapshot reads a product and those of the orders that are decided, from one snapshot. ErrNotFound: no such product.
func (l *Ledger) Snapshot(ctx context.Context, stockID order.StockID, orders []order.OrderID) (Snapshot, error) {
	snapshot := Snapshot{}
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		var product productRow
		err := tx.GetContext(ctx, &product, `SELECT `+productColumns+` FROM products WHERE id = ?`, stockID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return mysql.ErrNotFound
		case err != nil:
			return err
		}
		snapshot = Snapshot{Product: product.product()}
		if snapshot.Decided, err = readDecided(ctx, tx, orders); err != nil {
			return err
		}
		snapshot.Returning, err = readReturned(ctx, tx, `WHERE product_id = ? LIMIT ?`, stockID, MaxBatch)
		return err
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("read a snapshot of product %d: %w", stockID, err)
	}
	return snapshot, nil
}

// Decided reads those of the orders that have a row, and what has become of those that must be paid.
func (l *Ledger) Decided(ctx context.Context, orders []order.OrderID) (map[order.OrderID]order.Record, error) {
	decided, err := readDecided(ctx, l.db, orders)
	if err == nil {
		records := slices.Collect(maps.Values(decided))
		err = showHeld(ctx, l.db, records)
		for i := range records {
			decided[records[i].ID] = records[i]
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read decided orders: %w", err)
	}
	return decided, nil
}

// readDecided reads those of the orders that have a row, from a transaction or outside of one. Orders that must be paid
// are held, whatever has become of them.
func readDecided(ctx context.Context, from sqlx.QueryerContext,
	orders []order.OrderID) (map[order.OrderID]order.Record, error) {
	rows, err := readRows(ctx, from, orders)
	if err != nil {
		return nil, err
	}
	decided := make(map[order.OrderID]order.Record, len(rows))
	for i := range rows {
		decided[order.OrderID(rows[i].ID)] = rows[i].record()
	}
	return decided, nil
}

// readRows reads the rows of those of the orders that have one, with the keys that they hold.
func readRows(ctx context.Context, from sqlx.QueryerContext, orders []order.OrderID) (all []orderRow, err error) {
	for chunk := range slices.Chunk(orders, mysql.MaxInList) {
		query, args, err := sqlx.In(keyedOrders+`WHERE o.id IN (?)`, orderIDs(chunk))
		if err != nil {
			return nil, err
		}
		var rows []orderRow
		if err := sqlx.SelectContext(ctx, from, &rows, query, args...); err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}
