package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// UpdateProduct changes the settings of a product as change does, and returns the product as it is then. What change
// does to anything but the settings is without effect. The revision is raised if a setting has become another, so
// repeating a call is safe. The buckets of a split product get the same settings and revision. Change may be called
// more than once, each time with the product as it is. ErrNotFound: no such product. An InvalidError says what is wrong
// with the product as it would be.
//
// Orders that were accepted before keep their price, and are decided by the limit that is in force then.
func (l *Ledger) UpdateProduct(
	ctx context.Context, id order.ProductID, change func(*order.Product),
) (order.Product, error) {
	var changed order.Product
	var stockIDs []order.StockID
	update := func(tx *sqlx.Tx) error {
		rows, err := lockWhole(ctx, tx, id)
		if err != nil {
			return err
		}

		row := rows[0] // the product; its buckets get the same settings
		p := row.product()
		change(&p)
		next, err := row.with(p)
		if err != nil {
			return err
		}
		changed = next.product()
		if next == row {
			return nil
		}

		// A limit counts what was bought when there was none.
		if stockIDs = idsOfRows(rows); next.LimitPerUser > 0 {
			if err := countLocked(ctx, tx, rows); err != nil {
				return err
			}
		}
		if err := writeSettings(ctx, tx, next); err != nil {
			return err
		}
		before, after := changedSettings(row, next)
		return mysql.LogChange(ctx, tx, actProductChange, aboutProduct(id), before, after)
	}

	err := l.db.InTx(ctx, update)
	for errors.Is(err, errUncounted) {
		for _, stockID := range stockIDs {
			if err := l.countAll(ctx, stockID); err != nil {
				return order.Product{}, fmt.Errorf("update product %d: %w", id, err)
			}
		}
		err = l.db.InTx(ctx, update)
	}
	if err != nil {
		return order.Product{}, fmt.Errorf("update product %d: %w", id, err)
	}
	return changed, nil
}

func idsOfRows(rows []productRow) []order.StockID {
	ids := make([]order.StockID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	return ids
}

// with is the row with the settings of p, and the next revision if one of them is another.
func (r productRow) with(p order.Product) (productRow, error) {
	next := r
	next.Name, next.Description, next.Price, next.State = p.Name, p.Description, p.Price, p.State
	next.StartsAt, next.EndsAt = mysql.NullMillis(p.StartsAt), mysql.NullMillis(p.EndsAt)
	next.LimitPerUser = p.LimitPerUser
	next.Payment, next.PayWithin, next.PointsPrice = p.Payment, seconds(p.PayWithin), p.PointsPrice
	if err := validateProduct(next.product()); err != nil {
		return productRow{}, err
	}
	if next == r {
		return r, nil
	}

	next.Revision++
	next.LimitCeiling = max(r.LimitCeiling, next.LimitPerUser)
	if r.LimitCeiling == 0 || next.LimitPerUser == 0 {
		next.LimitCeiling = 0
	}
	return next, nil
}

// writeSettings writes the settings of a product that this transaction has locked as a whole, and of its buckets. That
// the revision before is still there is checked, as changeStock checks the version.
func writeSettings(ctx context.Context, tx *sqlx.Tx, row productRow) error {
	ids := append([]order.StockID{row.ID}, row.ID.Product().Buckets(row.Buckets)...)
	query, args, err := sqlx.Named(`UPDATE products
		SET name = :name, description = :description, price = :price, starts_at = :starts_at, ends_at = :ends_at,
			limit_per_user = :limit_per_user, limit_ceiling = :limit_ceiling, state = :state, revision = :revision,
			payment = :payment, pay_within = :pay_within, points_price = :points_price
		WHERE id IN (:ids) AND revision = :revision - 1`, struct {
		productRow
		IDs []order.StockID `db:"ids"`
	}{row, ids})
	if err == nil {
		query, args, err = sqlx.In(query, args...)
	}
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}

	// As many rows as there are ids, or the revision was another one.
	result, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n != int64(len(ids)) {
		return fmt.Errorf("write settings: revision %d is gone though its row is locked (%d rows, %v)",
			row.Revision-1, n, err)
	}
	return nil
}
