package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// What users have bought of a product, and not given back, is in the table bought, up to a version of the product that
// is in its row. While the product has a limit, each deciding transaction keeps it up with its orders. One without a
// limit costs nothing: its orders are counted by the ledger, which has them in the order of their versions, when
// somebody needs to know.

// countChunk is how many versions of a product are counted while its row is locked once.
const countChunk = 5_000

// readBought reads how many units of a product each of the users has bought. Users without any are not in the map.
func readBought(
	ctx context.Context, tx *sqlx.Tx, stockID order.StockID, users []order.UserID,
) (map[order.UserID]int64, error) {
	bought := make(map[order.UserID]int64, len(users))
	for chunk := range slices.Chunk(users, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT user_id, units FROM bought FORCE INDEX (PRIMARY)
			WHERE product_id = ? AND user_id IN (?)`, stockID, chunk)
		if err != nil {
			return nil, fmt.Errorf("read units bought: %w", err)
		}
		var rows []boughtRow
		if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("read units bought: %w", err)
		}
		for _, row := range rows {
			bought[row.UserID] = row.Units
		}
	}
	return bought, nil
}

type boughtRow struct {
	UserID order.UserID `db:"user_id"`
	Units  int64        `db:"units"`
}

// addBought adds units to what users have bought of a product whose row is locked.
func addBought(ctx context.Context, tx *sqlx.Tx, stockID order.StockID, units map[order.UserID]int64) error {
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(units)), mysql.MaxPage) {
		insert := mysql.NewInsert("bought", "product_id, user_id, units")
		for _, user := range chunk {
			insert.Row()
			insert.Ints(int64(stockID), int64(user), units[user])
		}
		if err := insert.Add(ctx, tx, "units"); err != nil {
			return fmt.Errorf("add units bought: %w", err)
		}
	}
	return nil
}

// count counts what was bought of a product, which is locked, in up to countChunk versions that are not counted yet.
func count(ctx context.Context, tx *sqlx.Tx, p *productRow) error {
	to := min(p.Version, p.Counted+countChunk)
	var rows []boughtRow
	err := tx.SelectContext(ctx, &rows, `SELECT o.user_id, SUM(-l.delta) AS units
		FROM stock_ledger AS l FORCE INDEX (PRIMARY)
		JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = l.ref AND o.product_id = l.product_id
		WHERE l.product_id = ? AND l.version > ? AND l.version <= ? AND l.reason IN (?, ?)
		GROUP BY o.user_id`, p.ID, p.Counted, to, ledgerOrder, ledgerReturn)
	if err != nil {
		return fmt.Errorf("count units bought: %w", err)
	}
	units := make(map[order.UserID]int64, len(rows))
	for _, row := range rows {
		units[row.UserID] = row.Units
	}
	if err := addBought(ctx, tx, p.ID, units); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE products SET counted = ? WHERE id = ?`, to, p.ID); err != nil {
		return fmt.Errorf("count units bought: %w", err)
	}
	p.Counted = to
	return nil
}

// countAll counts what was bought of a product, or bucket, without holding its lock for long.
func (l *Ledger) countAll(ctx context.Context, stockID order.StockID) error {
	for behind := true; behind; {
		err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
			row, err := lockProduct(ctx, tx, stockID)
			if err != nil {
				return err
			}
			if behind = row != nil && row.Counted < row.Version; !behind {
				return nil
			}
			return count(ctx, tx, row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// errUncounted says that more must be counted than while a product is locked.
var errUncounted = mysql.OwnError("too many orders are not counted yet")

// countLocked counts the rest of what was bought of products that are locked, or returns errUncounted.
func countLocked(ctx context.Context, tx *sqlx.Tx, rows []productRow) error {
	for i := range rows {
		if rows[i].Version-rows[i].Counted > countChunk {
			return errUncounted
		}
		if rows[i].Counted < rows[i].Version {
			if err := count(ctx, tx, &rows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bought reads how many units of a product these users have by their orders, less what was taken back. Who has never
// had any is missing.
func (l *Ledger) Bought(ctx context.Context, stockID order.StockID,
	users []order.UserID) (bought map[order.UserID]int64, err error) {
	if err := l.countAll(ctx, stockID); err != nil {
		return nil, fmt.Errorf("product %d: %w", stockID, err)
	}
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		bought, err = readBought(ctx, tx, stockID, users)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("product %d: %w", stockID, err)
	}
	return bought, nil
}
