package ledger

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// MaxRestockIDBytes is the longest id of a restock.
const MaxRestockIDBytes = 64

// Restock is units put on sale after the first or, if they are negative, taken out: a correction.
type Restock struct {
	// StockID is the product, or one of its buckets among the Parts.
	StockID order.StockID
	// ID tells a restock from another of the same product.
	ID    string
	Units int64
	// Version is the product's version that this restock made, and Balance the stock at that version.
	Version, Balance int64
	// Applied reports whether this call added the units, and not an earlier one.
	Applied bool
	// Parts are what Redis is to be told of: the restock itself or, of a product that was split, what each bucket got
	// of it. The version is then that of the bucket; the restock itself has none.
	Parts []Restock
}

// Restock adds units to a product's stock, once for each product and id; of a split product they go to its buckets as
// evenly as possible. A repeated call changes nothing and returns what the first returned, but for Applied. ErrInvalid:
// the id is not 1 to MaxRestockIDBytes of visible ASCII, units are not positive or would take the stock over MaxStock,
// or the id was used with other units, which is an ErrMismatch as well. ErrNotFound: no such product.
func (l *Ledger) Restock(ctx context.Context, productID order.ProductID, units int64, id string) (Restock, error) {
	if err := validateRestock(units, id); err != nil {
		return Restock{}, fmt.Errorf("restock: %w", err)
	}
	var done Restock
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		done, err = restock(ctx, tx, productID, units, id)
		return err
	})
	if err != nil {
		return Restock{}, fmt.Errorf("restock %q of product %d: %w", id, productID, err)
	}
	return done, nil
}

func validateRestock(units int64, id string) error {
	switch {
	case !isRestockID(id):
		return mysql.Invalidf("a restock's id must be 1 to %d characters of visible ASCII", MaxRestockIDBytes)
	case units <= 0 || units > MaxStock:
		return mysql.Invalidf("units must be 1 to %d, or as many below zero to take them out", MaxStock)
	}
	return nil
}

func isRestockID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= MaxRestockIDBytes
}

func restock(ctx context.Context, tx *sqlx.Tx, productID order.ProductID, units int64, id string) (Restock, error) {
	rows, err := lockWhole(ctx, tx, productID)
	if err != nil {
		return Restock{}, err
	}
	if done, before, err := restockedBefore(ctx, tx, productID, units, id); err != nil || before {
		return done, err
	}

	var stock int64
	for _, row := range rows {
		stock += row.Stock
	}
	if stock > MaxStock-units {
		return Restock{}, mysql.Invalidf("units would take the stock, which is %d, over %d", stock, MaxStock)
	}
	if len(rows) > 1 {
		rows = rows[1:] // the buckets
	}

	// Each bucket has a row in the ledger even if it gets nothing, so that the balances add up to the whole.
	var changes []ledgerRow
	at := mysql.Now()
	for i, row := range rows {
		part := share(units, len(rows), i)
		change := ledgerRow{
			StockID: row.ID, Version: row.Version + 1, Delta: part, Balance: row.Stock + part,
			Reason: ledgerRestock, Ref: []byte(id), CreatedAt: at,
		}
		if err := changeStock(ctx, tx, &row, []ledgerRow{change}); err != nil {
			return Restock{}, err
		}
		changes = append(changes, change)
	}

	done := newRestock(productID, id, changes)
	done.Applied = true
	before, after := mysql.Values{"stock": stock}, mysql.Values{"stock": stock + units, "restock_id": id}
	return done, mysql.LogChange(ctx, tx, actProductRestock, aboutProduct(productID), before, after)
}

// restockedBefore looks for what was done under the id of a restock. It is an ErrMismatch if that had other units.
func restockedBefore(
	ctx context.Context, from sqlx.QueryerContext, productID order.ProductID, units int64, id string,
) (done Restock, before bool, err error) {
	// It may have been applied when the product had other buckets, or none.
	query, args, err := sqlx.In(`SELECT product_id, version, delta, balance, reason, ref, created_at FROM stock_ledger
		WHERE product_id IN (?) AND reason IN (?, ?) AND ref = ? ORDER BY product_id`,
		append([]order.StockID{productID.Stock()}, productID.Buckets(order.MaxBuckets)...),
		ledgerRestock, ledgerCorrection,
		[]byte(id))
	if err != nil {
		return Restock{}, false, fmt.Errorf("read ledger: %w", err)
	}

	var first []ledgerRow
	if err := sqlx.SelectContext(ctx, from, &first, query, args...); err != nil {
		return Restock{}, false, fmt.Errorf("read ledger: %w", err)
	}
	if len(first) == 0 {
		return Restock{}, false, nil
	}

	done = newRestock(productID, id, first)
	if done.Units != units {
		return Restock{}, false, fmt.Errorf("%w: %w", ErrMismatch,
			mysql.Invalidf("this restock was applied before with %d units, not %d", done.Units, units))
	}
	return done, true, nil
}

// newRestock adds up the ledger rows of a restock.
func newRestock(productID order.ProductID, id string, rows []ledgerRow) Restock {
	done := Restock{StockID: productID.Stock(), ID: id}
	for _, row := range rows {
		done.Units += row.Delta
		done.Balance += row.Balance
		if row.StockID == productID.Stock() {
			done.Version = row.Version
		}
		if row.Delta > 0 {
			done.Parts = append(done.Parts, Restock{
				StockID: row.StockID, ID: id, Units: row.Delta, Version: row.Version, Balance: row.Balance,
			})
		}
	}
	return done
}

// Restocks reads what was added to the stock of a product or bucket by restocks, and by moves from other buckets, after
// a version of it, oldest first. A page of MaxPage may not be all: go on after the version of its last.
func (l *Ledger) Restocks(ctx context.Context, stockID order.StockID, afterVersion int64) ([]Restock, error) {
	var rows []ledgerRow
	err := l.db.SelectContext(ctx, &rows, `SELECT product_id, version, delta, balance, reason, ref, created_at
		FROM stock_ledger WHERE product_id = ? AND version > ? AND reason IN (?, ?) AND delta > 0
		ORDER BY version LIMIT ?`,
		stockID, afterVersion, ledgerRestock, ledgerTransfer, mysql.MaxPage)
	if err != nil {
		return nil, fmt.Errorf("read restocks of product %d: %w", stockID, err)
	}
	restocks := make([]Restock, len(rows))
	for i, row := range rows {
		restocks[i] = Restock{StockID: row.StockID, ID: string(row.Ref), Units: row.Delta, Version: row.Version,
			Balance: row.Balance}
	}
	return restocks, nil
}
