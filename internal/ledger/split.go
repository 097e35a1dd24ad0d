package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// splitMargin is how far off the start of a sale must be for its product to be split: enough for Redis and every edge
// to know of it.
const splitMargin = time.Minute

func validateBuckets(n int64) error {
	if n != 0 && (n < 2 || n > order.MaxBuckets) {
		return mysql.Invalidf("buckets must be 2 to %d, or 0 for none", order.MaxBuckets)
	}
	return nil
}

// Split spreads the units of a product over a number of buckets, as evenly as possible, or gives them back to the
// product itself if that is 0, and returns the product as it is then. The same number as before changes nothing.
//
// ErrNotFound: no such product. ErrOnSale: it is on sale and starts in less than a minute, or orders of it are
// completed or hold idempotency keys. That none are on their way is for the caller to find out. An InvalidError: there
// cannot be so many buckets.
func (l *Ledger) Split(ctx context.Context, id order.ProductID, buckets int64) (order.Product, error) {
	if err := validateBuckets(buckets); err != nil {
		return order.Product{}, fmt.Errorf("split: %w", err)
	}
	var product order.Product
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		if id > order.MaxProductID {
			return mysql.ErrNotFound
		}
		row, err := lockProduct(ctx, tx, id.Stock())
		switch {
		case err != nil:
			return err
		case row == nil:
			return mysql.ErrNotFound
		}
		if product = row.product(); product.Buckets == buckets {
			return nil
		}

		// Nobody may be buying it, and nobody may have bought it.
		if starts := product.StartsAt; product.State != order.OffSale && time.Until(starts) < splitMargin {
			return fmt.Errorf("%w: take it off sale, or let its sale start in more than %s", ErrOnSale, splitMargin)
		}
		all := id.Buckets(order.MaxBuckets)
		rows, err := lockRows(ctx, tx, all)
		if err != nil {
			return err
		}
		if sold, err := hasSold(ctx, tx, append([]order.StockID{id.Stock()}, all...)); err != nil {
			return err
		} else if sold {
			return fmt.Errorf("%w: it has orders", ErrOnSale)
		}

		after, err := split(ctx, tx, append([]productRow{*row}, rows...), buckets)
		if err != nil {
			return err
		}
		was := product.Buckets
		product = after.product()
		return mysql.LogChange(ctx, tx, actProductSplit, aboutProduct(id), mysql.Values{"buckets": was},
			mysql.Values{"buckets": product.Buckets})
	})
	if err != nil {
		return order.Product{}, fmt.Errorf("split product %d into %d buckets: %w", id, buckets, err)
	}
	return product, nil
}

// hasSold reports whether an order of one of the products is completed, or holds an idempotency key: its buyer's next
// request under the key must find it, and would look in a bucket.
func hasSold(ctx context.Context, tx *sqlx.Tx, ids []order.StockID) (sold bool, err error) {
	query, args, err := sqlx.In(`SELECT
		EXISTS (SELECT 1 FROM stock_ledger WHERE product_id IN (?) AND reason = ?)
		OR EXISTS (SELECT 1 FROM order_keys WHERE product_id IN (?))`, ids, ledgerOrder, ids)
	if err != nil {
		return false, err
	}
	return sold, tx.GetContext(ctx, &sold, query, args...)
}

// split spreads the units of all rows of a product, of which it comes first, over n buckets. The rows are locked, and
// those of buckets that are missing are made. It returns the product's row.
func split(ctx context.Context, tx *sqlx.Tx, rows []productRow, n int64) (productRow, error) {
	product := rows[0]
	product.Revision++
	product.Buckets = n

	want := map[order.StockID]int64{} // units, by id
	var total int64
	known := map[order.StockID]bool{}
	for _, row := range rows {
		total += row.Stock
		known[row.ID] = true
	}

	for i, id := range product.product().StockIDs() {
		want[id] = share(total, int(max(n, 1)), i)
		if known[id] {
			continue
		}
		fresh := product
		fresh.ID, fresh.Stock, fresh.Version, fresh.Counted, fresh.CreatedAt = id, 0, 1, 1, mysql.Now()
		if err := insertProduct(ctx, tx, &fresh); err != nil {
			return productRow{}, err
		}
		rows = append(rows, fresh)
	}

	// All rows have the product's settings, whatever units they have.
	at := mysql.Now()
	for _, row := range rows {
		next := product
		next.ID, next.Stock, next.Version, next.CreatedAt = row.ID, row.Stock, row.Version, row.CreatedAt
		if delta := want[row.ID] - row.Stock; delta != 0 {
			err := changeStock(ctx, tx, &row, []ledgerRow{{
				StockID: row.ID, Version: row.Version + 1, Delta: delta, Balance: row.Stock + delta,
				Reason: ledgerSplit, Ref: []byte(strconv.FormatInt(product.Revision, 10)), CreatedAt: at,
			}})
			if err != nil {
				return productRow{}, err
			}
			next.Stock, next.Version = want[row.ID], row.Version+1
		}
		if row.ID.Bucket() > int(n) {
			next.Buckets = 0
		}

		_, err := tx.NamedExecContext(ctx, `UPDATE products
			SET name = :name, description = :description, price = :price, currency = :currency, starts_at = :starts_at,
				ends_at = :ends_at, limit_per_user = :limit_per_user, limit_ceiling = :limit_ceiling, state = :state,
				revision = :revision, buckets = :buckets, payment = :payment, pay_within = :pay_within,
				points_price = :points_price
			WHERE id = :id`, next)
		if err != nil {
			return productRow{}, fmt.Errorf("write buckets: %w", err)
		}
		if row.ID == product.ID {
			product = next
		}
	}
	return product, nil
}

// share is part i of n parts that are as equal as possible, of units.
func share(units int64, n, i int) int64 {
	part := units / int64(n)
	if int64(i) < units%int64(n) {
		part++
	}
	return part
}
