package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// insertReturned leaves reminders of units that Redis does not have yet.
func insertReturned(ctx context.Context, tx *sqlx.Tx, returned []order.Returned) error {
	insert := mysql.NewInsert("returned_units", returnedColumns)
	for i := range returned {
		r := &returned[i]
		insert.Row()
		insert.Ints(int64(r.StockID))
		insert.Bytes(r.OrderID[:])
		insert.Ints(int64(r.UserID), r.Quantity, r.TakenAt, r.ReturnedAt)
	}
	if err := insert.Exec(ctx, tx); err != nil {
		return fmt.Errorf("leave reminders of returned units: %w", err)
	}
	return nil
}

const returnedColumns = `product_id, order_id, user_id, quantity, taken_at, returned_at`

// returnedRow is a row of the table returned_units.
type returnedRow struct {
	StockID    order.StockID `db:"product_id"`
	OrderID    mysql.UUID    `db:"order_id"`
	UserID     order.UserID  `db:"user_id"`
	Quantity   int64         `db:"quantity"`
	TakenAt    int64         `db:"taken_at"`
	ReturnedAt int64         `db:"returned_at"`
}

// Returning reads up to MaxBatch units of each of so many products that MySQL has taken back, and of which nobody has
// noted that Redis has them.
func (l *Ledger) Returning(ctx context.Context) (map[order.StockID][]order.Returned, error) {
	returned, err := readReturned(ctx, l.db, `ORDER BY product_id, order_id LIMIT ?`, MaxBatch)
	if err != nil {
		return nil, err
	}
	byProduct := map[order.StockID][]order.Returned{}
	for _, r := range returned {
		byProduct[r.StockID] = append(byProduct[r.StockID], r)
	}
	return byProduct, nil
}

// CountReturning counts the orders whose units MySQL has taken back, and of which nobody has noted that Redis has them.
func (l *Ledger) CountReturning(ctx context.Context) (orders int64, err error) {
	if err := l.db.GetContext(ctx, &orders, `SELECT COUNT(*) FROM returned_units`); err != nil {
		return 0, fmt.Errorf("count returned units: %w", err)
	}
	return orders, nil
}

func readReturned(ctx context.Context, from sqlx.QueryerContext, suffix string, args ...any) ([]order.Returned, error) {
	var rows []returnedRow
	err := sqlx.SelectContext(ctx, from, &rows, `SELECT `+returnedColumns+` FROM returned_units `+suffix, args...)
	if err != nil {
		return nil, fmt.Errorf("read returned units: %w", err)
	}
	returned := make([]order.Returned, len(rows))
	for i, r := range rows {
		returned[i] = order.Returned{
			OrderID: order.OrderID(r.OrderID), UserID: r.UserID, StockID: r.StockID, Quantity: r.Quantity,
			TakenAt: r.TakenAt, ReturnedAt: r.ReturnedAt,
		}
	}
	return returned, nil
}

// ForgetReturned notes that Redis has the units of orders of one product.
func (l *Ledger) ForgetReturned(ctx context.Context, stockID order.StockID, ids []order.OrderID) error {
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		err := execIn(ctx, l.db, `DELETE FROM returned_units WHERE product_id = ? AND order_id IN (?)`, stockID,
			orderIDs(chunk))
		if err != nil {
			return fmt.Errorf("forget returned units of product %d: %w", stockID, err)
		}
	}
	return nil
}
