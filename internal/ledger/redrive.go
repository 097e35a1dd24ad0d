package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Redrive takes back the failure of an order that failed as a dead letter, so that it can be decided anew, and notes
// that it has. ErrNotFound: the order has no row; ErrInvalid: it was decided otherwise, and that stands.
func (l *Ledger) Redrive(ctx context.Context, id order.OrderID) error {
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		var row orderRow
		err := tx.GetContext(ctx, &row, `SELECT `+orderColumns+` FROM orders AS o WHERE o.id = ? FOR UPDATE`,
			mysql.UUID(id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return mysql.ErrNotFound
		case err != nil:
			return err
		case row.Status != order.Failed || order.Reason(row.FailedReason.String) != order.DeadLetter:
			return fmt.Errorf("%w: it is %s %s", mysql.ErrInvalid, row.Status, row.FailedReason.String)
		}

		// That it was redriven is kept; its row and its key go, so that it can be decided anew.
		_, err = tx.ExecContext(ctx, `INSERT INTO redrives (order_id, redriven_at, product_id, user_id, failed_at)
			VALUES (?, ?, ?, ?, ?)`, row.ID, mysql.Now(), row.StockID, row.UserID, row.DecidedAt)
		if err != nil {
			return err
		}
		if _, err = tx.ExecContext(ctx, `DELETE FROM orders WHERE id = ?`, row.ID); err != nil {
			return err
		}

		_, err = tx.ExecContext(ctx, `DELETE FROM order_keys WHERE product_id = ? AND user_id = ? AND order_id = ?`,
			row.StockID, row.UserID, row.ID)
		if err != nil {
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
