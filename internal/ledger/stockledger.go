package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// The reasons for which a product's stock changes, as stored.
const (
	ledgerInitial  = "initial"
	ledgerOrder    = "order"
	ledgerRestock  = "restock"
	ledgerTransfer = "move"  // from one bucket to another
	ledgerSplit    = "split" // between a product and its buckets, when their number changes
	// Units of an order that were taken back: it was cancelled, or refunded with its units. Its ref is the order's id.
	ledgerReturn = "return"
	// Unsold units that were taken out. Its ref is the id of a restock.
	ledgerCorrection = "correction"
)

// ledgerRow is a row of the table stock_ledger.
type ledgerRow struct {
	StockID   order.StockID `db:"product_id"`
	Version   int64         `db:"version"`
	Delta     int64         `db:"delta"`
	Balance   int64         `db:"balance"`
	Reason    string        `db:"reason"`
	Ref       []byte        `db:"ref"`
	CreatedAt time.Time     `db:"created_at"`
}

// insertLedger writes rows, of which there must be at least one.
func insertLedger(ctx context.Context, tx *sqlx.Tx, rows []ledgerRow) error {
	insert := mysql.NewInsert("stock_ledger", "product_id, version, delta, balance, reason, ref, created_at")
	for i := range rows {
		r := &rows[i]
		insert.Row()
		insert.Ints(int64(r.StockID), r.Version, r.Delta, r.Balance)
		insert.Bytes([]byte(r.Reason))
		insert.Bytes(r.Ref)
		insert.Time(r.CreatedAt)
	}
	if err := insert.Exec(ctx, tx); err != nil {
		return fmt.Errorf("insert ledger: %w", err)
	}
	return nil
}

// changeStock writes the stock and version of a product that this transaction has locked, and the ledger rows that
// led from its old version to the new one. That the old version is still there is checked, so that a fault in locking
// is an error and never a wrong stock.
func changeStock(ctx context.Context, tx *sqlx.Tx, p *productRow, changes []ledgerRow) error {
	if len(changes) == 0 {
		return nil
	}
	if err := insertLedger(ctx, tx, changes); err != nil {
		return err
	}

	// While there is a limit, who completes orders counts them (addBought), and who takes units back always does. Other
	// changes leave nothing to count.
	last, counted := changes[len(changes)-1], p.Counted
	if p.Counted == p.Version && (last.Reason != ledgerOrder || p.LimitPerUser > 0) {
		counted = last.Version
	}
	result, err := tx.ExecContext(ctx, `UPDATE products SET stock = ?, version = ?, counted = ?
		WHERE id = ? AND version = ?`, last.Balance, last.Version, counted, p.ID, p.Version)
	if err != nil {
		return fmt.Errorf("update product %d: %w", p.ID, err)
	}

	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("update product %d: version %d is gone though its row is locked (%d rows, %v)", p.ID,
			p.Version, n, err)
	}
	return nil
}
