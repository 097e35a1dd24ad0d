package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Sale is a product with what was sold of it.
type Sale struct {
	// Product is whole but for its description. Stock counts the units of all its buckets.
	order.Product
	// Parts are the units not sold by the ids under which Redis has them: that of the product, or those of its buckets.
	Parts map[order.StockID]int64
	// Sold counts the units of completed orders.
	Sold int64
}

// Sales reads products by id, in the order of their ids. Those that do not exist are left out. What was sold follows
// from the ledger's rows that are not orders, of which a product has few: it costs as much after a million orders as
// after the first.
func (l *Ledger) Sales(ctx context.Context, ids []order.ProductID) ([]Sale, error) {
	rows, err := readSales(ctx, l.db, ids)
	if err != nil {
		return nil, fmt.Errorf("read sales: %w", err)
	}

	sales := make([]Sale, len(rows))
	place := map[order.ProductID]int{}
	var buckets []order.StockID
	for i, row := range rows {
		p := row.product()
		sales[i] = Sale{Product: p, Sold: row.Supplied - row.Stock, Parts: map[order.StockID]int64{p.ID: row.Stock}}
		if p.Buckets > 0 {
			clear(sales[i].Parts)
			place[p.ID.Product()] = i
			buckets = append(buckets, p.StockIDs()...)
		}
	}

	// The units of a split product are in its buckets.
	if rows, err = readSales(ctx, l.db, buckets); err != nil {
		return nil, fmt.Errorf("read sales of buckets: %w", err)
	}
	for _, row := range rows {
		sale := &sales[place[row.ID.Product()]]
		sale.Stock += row.Stock
		sale.Sold += row.Supplied - row.Stock
		sale.Parts[row.ID] = row.Stock
	}
	return sales, nil
}

type saleRow struct {
	productRow
	Supplied int64 `db:"supplied"`
}

// salesQuery is one statement, so that stock and ledger are of the same moment. It has a subquery for each reason:
// MariaDB reads all rows of a product for a list of reasons.
var salesQuery = func() string {
	var supplied []string
	for _, reason := range []string{ledgerInitial, ledgerRestock, ledgerCorrection, ledgerTransfer, ledgerSplit} {
		supplied = append(supplied, `(SELECT COALESCE(SUM(delta), 0) FROM stock_ledger FORCE INDEX (stock_ledger_once)
			WHERE product_id = p.id AND reason = '`+reason+`')`)
	}
	return `SELECT id, name, price, currency, stock, starts_at, ends_at, limit_per_user, version, created_at, state, revision,
		limit_ceiling, buckets, counted, payment, pay_within, points_price,
		` + strings.Join(supplied, " + ") + ` AS supplied
		FROM products AS p WHERE id IN (?) ORDER BY id`
}()

func readSales[ID order.ProductID | order.StockID](ctx context.Context, db *mysql.DB, ids []ID) ([]saleRow, error) {
	var all []saleRow
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(salesQuery, chunk)
		if err != nil {
			return nil, err
		}
		var rows []saleRow
		if err := db.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// Newest lists the ids of the products that were added last, the newest first. Buckets are not among them.
func (l *Ledger) Newest(ctx context.Context, limit int) ([]order.ProductID, error) {
	var ids []order.ProductID
	err := l.db.SelectContext(ctx, &ids, `SELECT id FROM products WHERE id <= ? ORDER BY id DESC LIMIT ?`,
		int64(order.MaxProductID), mysql.PageSize(limit))
	if err != nil {
		return nil, fmt.Errorf("list the newest products: %w", err)
	}
	return ids, nil
}
