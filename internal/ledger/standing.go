package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Standing is what is true of a product, and of some of its orders, at one moment.
type Standing struct {
	Product order.Product
	// Decided holds those of the orders that have a row.
	Decided map[uuid.UUID]order.Record
}

// Standing reads a product and those of the orders that are decided, from one snapshot. ErrNotFound: no such product.
func (l *Ledger) Standing(ctx context.Context, productID int64, orders []uuid.UUID) (Standing, error) {
	st := Standing{}
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		var product productRow
		err := tx.GetContext(ctx, &product, `SELECT `+productColumns+` FROM products WHERE id = ?`, productID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return mysql.ErrNotFound
		case err != nil:
			return err
		}
		st = Standing{Product: product.product()}
		st.Decided, err = readDecided(ctx, tx, orders)
		return err
	})
	if err != nil {
		return Standing{}, fmt.Errorf("read the standing of product %d: %w", productID, err)
	}
	return st, nil
}

// Decided reads those of the orders that have a row.
func (l *Ledger) Decided(ctx context.Context, orders []uuid.UUID) (map[uuid.UUID]order.Record, error) {
	decided, err := readDecided(ctx, l.db, orders)
	if err != nil {
		return nil, fmt.Errorf("read decided orders: %w", err)
	}
	return decided, nil
}

// readDecided reads those of the orders that have a row, from a transaction or outside of one.
func readDecided(ctx context.Context, from sqlx.QueryerContext,
	orders []uuid.UUID) (map[uuid.UUID]order.Record, error) {
	decided := make(map[uuid.UUID]order.Record)
	for chunk := range slices.Chunk(orders, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT `+orderColumns+` FROM orders WHERE id IN (?)`, orderIDs(chunk))
		if err != nil {
			return nil, err
		}
		var rows []orderRow
		if err := sqlx.SelectContext(ctx, from, &rows, query, args...); err != nil {
			return nil, err
		}
		for _, row := range rows {
			decided[uuid.UUID(row.ID)] = row.record()
		}
	}
	return decided, nil
}

// Restocks reads what was added to the stock of a product or bucket by restocks, and by moves from other buckets, after
// a version of it, oldest first. A page of MaxPage may not be all: go on after the version of its last.
func (l *Ledger) Restocks(ctx context.Context, productID, afterVersion int64) ([]Restock, error) {
	var rows []ledgerRow
	err := l.db.SelectContext(ctx, &rows, `SELECT product_id, version, delta, balance, reason, ref, created_at
		FROM stock_ledger WHERE product_id = ? AND version > ? AND reason IN (?, ?) AND delta > 0 ORDER BY version LIMIT ?`,
		productID, afterVersion, ledgerRestock, ledgerMove, mysql.MaxPage)
	if err != nil {
		return nil, fmt.Errorf("read restocks of product %d: %w", productID, err)
	}
	restocks := make([]Restock, len(rows))
	for i, row := range rows {
		restocks[i] = Restock{ProductID: row.ProductID, ID: string(row.Ref), Units: row.Delta, Version: row.Version,
			Balance: row.Balance}
	}
	return restocks, nil
}

// Bought reads how many units of a product these users have by completed orders. Who has none is missing.
func (l *Ledger) Bought(ctx context.Context, productID int64, users []int64) (bought map[int64]int64, err error) {
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		bought, err = readBought(ctx, tx, productID, users)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("product %d: %w", productID, err)
	}
	return bought, nil
}

// Redrive takes back the failure of an order that failed as a dead letter, so that it can be decided anew, and notes
// that it has. ErrNotFound: the order has no row; ErrInvalid: it was decided otherwise, and that stands.
func (l *Ledger) Redrive(ctx context.Context, id uuid.UUID) error {
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		var row orderRow
		err := tx.GetContext(ctx, &row, `SELECT `+orderColumns+` FROM orders WHERE id = ? FOR UPDATE`, mysql.UUID(id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return mysql.ErrNotFound
		case err != nil:
			return err
		case row.Status != order.Failed || order.Reason(row.FailedReason.String) != order.DeadLetter:
			return fmt.Errorf("%w: it is %s %s", mysql.ErrInvalid, row.Status, row.FailedReason.String)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO redrives (order_id, redriven_at, product_id, user_id, failed_at)
			VALUES (?, ?, ?, ?, ?)`, row.ID, mysql.Now(), row.ProductID, row.UserID, row.DecidedAt)
		if err != nil {
			return err
		}
		if _, err = tx.ExecContext(ctx, `DELETE FROM orders WHERE id = ?`, row.ID); err != nil {
			return err
		}
		return mysql.LogChange(ctx, tx, actRedrive, "order "+id.String(),
			mysql.Values{"status": row.Status, "reason": row.FailedReason.String}, nil)
	})
	if err != nil {
		return fmt.Errorf("redrive order %s: %w", id, err)
	}
	return nil
}
