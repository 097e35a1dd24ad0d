package ledger

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// maxSuspects bounds the products that are looked at row by row. Where more are wrong, the rows of the first say why.
const maxSuspects = 1_000

// detailQueries say of single rows what is wrong, each of some products: what was archived apart, of which there are no
// orders, and no rows of the ledger up to a version. @archived stands for the first id that was not.
var detailQueries = []string{
	`SELECT product_id, COUNT(*) AS odd_orders FROM orders
	WHERE product_id IN (?) AND id >= @archived
		AND (status NOT IN ('completed', 'held', 'failed') OR (status = 'failed') <> (failed_reason IS NOT NULL))
	GROUP BY product_id`,

	`SELECT l.product_id,
		SUM(p.version IS NULL AND l.version <> COALESCE(b.version, 0) + 1) AS gaps,
		SUM(CASE WHEN p.version IS NULL AND l.version <> COALESCE(b.version, 0) + 1 THEN 0
			ELSE l.balance <> COALESCE(p.balance, b.balance, 0) + l.delta END) AS broken_links,
		SUM(l.balance < 0) AS below_zero,
		SUM(CASE l.reason WHEN 'initial' THEN l.delta < 0 OR l.version <> 1
			WHEN 'restock' THEN l.delta < 0 OR (l.delta = 0 AND l.product_id < 1099511627776)
			WHEN 'order' THEN l.delta >= 0 WHEN 'correction' THEN l.delta >= 0 
			WHEN 'return' THEN l.delta <= 0 WHEN 'split' THEN l.delta = 0
			WHEN 'move' THEN l.delta = 0 OR l.product_id < 1099511627776 ELSE 1 END) AS odd_changes
	FROM stock_ledger l
	LEFT JOIN books b ON b.kind = 'opening' AND b.product_id = l.product_id
	LEFT JOIN stock_ledger p ON p.product_id = l.product_id AND p.version = l.version - 1
	WHERE l.product_id IN (?) AND l.version > COALESCE(b.version, 0) GROUP BY l.product_id`,

	`SELECT l.product_id, l.balance AS last_balance FROM stock_ledger l
	JOIN (
		SELECT product_id, MAX(version) AS version FROM stock_ledger WHERE product_id IN (?) GROUP BY product_id
	) AS last ON last.product_id = l.product_id AND last.version = l.version`,

	`SELECT o.product_id, SUM(l.product_id IS NULL) AS unbooked, SUM(COALESCE(l.delta <> -o.quantity, 0)) AS wrong_units
	FROM orders o
	LEFT JOIN stock_ledger l ON l.product_id = o.product_id AND l.reason = 'order' AND l.ref = o.id
	WHERE o.product_id IN (?) AND o.id >= @archived AND o.status IN ('completed', 'held') GROUP BY o.product_id`,

	`SELECT l.product_id, COUNT(*) AS undue FROM stock_ledger l
	LEFT JOIN books b ON b.kind = 'opening' AND b.product_id = l.product_id
	LEFT JOIN orders o ON o.id = l.ref AND o.product_id = l.product_id AND o.status IN ('completed', 'held')
	WHERE l.product_id IN (?) AND l.reason = 'order' AND l.version > COALESCE(b.version, 0) AND l.ref >= @archived
		AND o.id IS NULL GROUP BY l.product_id`,

	`SELECT product_id, COUNT(*) - COUNT(DISTINCT ref) AS repeated FROM stock_ledger
	WHERE product_id IN (?) AND reason = 'order' GROUP BY product_id`,

	// A limit may be lowered below what users have bought, and set when they have bought, so the highest one counts.
	`SELECT product_id, COUNT(*) AS over_limit FROM (
		SELECT o.product_id, o.user_id FROM orders o
		JOIN products p ON p.id = o.product_id
		LEFT JOIN holds h ON h.order_id = o.id AND h.returned_version <> 0
		WHERE o.product_id IN (?) AND p.limit_ceiling > 0 AND o.status IN ('completed', 'held') AND h.order_id IS NULL
		GROUP BY o.product_id, o.user_id, p.limit_ceiling
		HAVING SUM(o.quantity) > p.limit_ceiling
	) AS users GROUP BY product_id`,
}

// wholeQueries are of split products as a whole: the ids of buckets are above 2^40, and the rest of such an id is the
// product's.
var wholeQueries = []string{
	`SELECT p.id & 1099511627775 AS product_id, SUM(l.delta) AS whole_moved FROM products p
	JOIN stock_ledger l ON l.product_id = p.id AND l.reason IN ('move', 'split')
	WHERE p.id & 1099511627775 IN (?) GROUP BY p.id & 1099511627775`,

	`SELECT u.product_id, COUNT(*) AS whole_over FROM (
		SELECT product_id & 1099511627775 AS product_id, user_id, SUM(units) AS units FROM bought
		WHERE product_id >= 1099511627776 GROUP BY product_id & 1099511627775, user_id
	) AS u
	JOIN products p ON p.id = u.product_id
	WHERE p.id IN (?) AND p.limit_ceiling > 0 AND u.units > p.limit_ceiling
	GROUP BY u.product_id`,

	`SELECT p.id AS product_id, ABS(p.buckets - COUNT(b.id)) AS strays FROM products p
	LEFT JOIN products b ON b.id & 1099511627775 = p.id AND b.id >= 1099511627776 AND b.buckets = p.buckets
	WHERE p.id IN (?) AND p.buckets > 0 AND p.id < 1099511627776
	GROUP BY p.id, p.buckets HAVING strays > 0`,
}

// readDetails finds out what is wrong with the products whose sums do not fit together.
func (a *auditor) readDetails(ctx context.Context) error {
	var ids []order.StockID
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		f := a.findings[id]
		f.LastBalance = f.Stock
		if f.wrong = f.suspect(a.books.rows[id]); f.wrong && len(ids) < maxSuspects {
			f.OverLimit = 0 // which is counted from the orders then
			ids = append(ids, id)
		}
	}
	return a.readEach(ctx, detailQueries, ids)
}

// readEach runs queries of some products, and scans each of their rows over what is known of the row's product.
func (a *auditor) readEach(ctx context.Context, queries []string, ids []order.StockID) error {
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		for _, query := range queries {
			query, args, err := sqlx.In(query, chunk)
			if err != nil {
				return err
			}
			if err := a.read(ctx, query, args); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *auditor) read(ctx context.Context, query string, args []any) error {
	first := a.books.firstID()
	query = strings.ReplaceAll(query, "@archived", "x'"+strings.ReplaceAll(first.String(), "-", "")+"'")
	rows, err := a.tx.QueryxContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		// The product is known only after the scan, so the row is scanned twice.
		var row struct {
			StockID order.StockID `db:"product_id"`
			details
		}
		if err := rows.StructScan(&row); err != nil {
			return err
		}
		row.details = a.of(row.StockID).details
		if err := rows.StructScan(&row); err != nil {
			return err
		}
		a.of(row.StockID).details = row.details
	}
	return rows.Err()
}

// readWholes looks at the split products as a whole.
func (a *auditor) readWholes(ctx context.Context) error {
	wholes := map[order.StockID]bool{}
	for id, f := range a.findings {
		if f.Name.Valid && (id.Bucket() > 0 || f.Buckets > 0) {
			wholes[id.Product().Stock()] = true
		}
	}
	return a.readEach(ctx, wholeQueries, slices.Sorted(maps.Keys(wholes)))
}
