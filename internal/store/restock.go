package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// MaxRestockIDBytes is the longest id of a restock.
const MaxRestockIDBytes = 64

// The reasons for which a product's stock changes, as stored.
const (
	ledgerInitial = "initial"
	ledgerOrder   = "order"
	ledgerRestock = "restock"
)

// ledgerRow is a row of the table stock_ledger.
type ledgerRow struct {
	ProductID int64     `db:"product_id"`
	Version   int64     `db:"version"`
	Delta     int64     `db:"delta"`
	Balance   int64     `db:"balance"`
	Reason    string    `db:"reason"`
	Ref       []byte    `db:"ref"`
	CreatedAt time.Time `db:"created_at"`
}

// insertLedger writes rows, of which there must be at least one.
func insertLedger(ctx context.Context, tx *sqlx.Tx, rows []ledgerRow) error {
	insert := newInsert("stock_ledger", "product_id, version, delta, balance, reason, ref, created_at")
	for i := range rows {
		r := &rows[i]
		insert.row()
		insert.ints(r.ProductID, r.Version, r.Delta, r.Balance)
		insert.bytes([]byte(r.Reason))
		insert.bytes(r.Ref)
		insert.time(r.CreatedAt)
	}
	if err := insert.exec(ctx, tx); err != nil {
		return fmt.Errorf("insert ledger: %w", err)
	}
	return nil
}

// Restock is units put on sale after the first.
type Restock struct {
	ProductID int64
	// ID tells a restock from another of the same product.
	ID    string
	Units int64
	// Version is the product's version that this restock made, and Balance the stock at that version.
	Version, Balance int64
	// Applied tells that this call added the units, and not an earlier one.
	Applied bool
}

// Restock adds units to a product's stock, once for each product and id. A repeated call changes nothing and returns
// what the first returned, but for Applied. ErrInvalid: the id is not 1 to MaxRestockIDBytes of visible ASCII, units are
// not positive or would take the stock over MaxStock, or the id was used with other units, which is an ErrMismatch as
// well. ErrNotFound: no such product.
func (s *Store) Restock(ctx context.Context, productID, units int64, id string) (Restock, error) {
	switch {
	case !isRestockID(id):
		return Restock{}, fmt.Errorf("restock: %w",
			invalidf("a restock's id must be 1 to %d characters of visible ASCII", MaxRestockIDBytes))
	case units <= 0 || units > MaxStock:
		return Restock{}, fmt.Errorf("restock: %w", invalidf("units must be 1 to %d", MaxStock))
	}
	var done Restock
	err := s.inTx(ctx, func(tx *sqlx.Tx) (err error) {
		done, err = restock(ctx, tx, productID, units, id)
		return err
	})
	if err != nil {
		return Restock{}, fmt.Errorf("restock %q of product %d: %w", id, productID, err)
	}
	return done, nil
}

func isRestockID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= MaxRestockIDBytes
}

func restock(ctx context.Context, tx *sqlx.Tx, productID, units int64, id string) (Restock, error) {
	product, err := lockProduct(ctx, tx, productID)
	switch {
	case err != nil:
		return Restock{}, err
	case product == nil:
		return Restock{}, ErrNotFound
	}
	done := Restock{ProductID: productID, ID: id, Units: units}

	var first ledgerRow
	err = tx.GetContext(ctx, &first, `SELECT product_id, version, delta, balance, reason, ref, created_at FROM stock_ledger
		WHERE product_id = ? AND reason = ? AND ref = ?`, productID, ledgerRestock, []byte(id))
	switch {
	case err == nil && first.Delta != units:
		return Restock{}, fmt.Errorf("%w: %w", ErrMismatch,
			invalidf("this restock was applied before with %d units, not %d", first.Delta, units))
	case err == nil:
		done.Version, done.Balance = first.Version, first.Balance
		return done, nil
	case !errors.Is(err, sql.ErrNoRows):
		return Restock{}, fmt.Errorf("read ledger: %w", err)
	case product.Stock > MaxStock-units:
		return Restock{}, invalidf("units would take the stock, which is %d, over %d", product.Stock, MaxStock)
	}

	done.Version, done.Balance, done.Applied = product.Version+1, product.Stock+units, true
	return done, changeStock(ctx, tx, product, []ledgerRow{{
		ProductID: productID, Version: done.Version, Delta: units, Balance: done.Balance,
		Reason: ledgerRestock, Ref: []byte(id), CreatedAt: now(),
	}})
}
