package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// ErrTooFew: fewer units are for sale than are to be taken out.
var ErrTooFew = errors.New("fewer units are for sale")

// errCancelled: a correction took so long that reconcile has cancelled it. It can be repeated.
var errCancelled = errors.New("the correction was cancelled since it took too long")

// Corrected looks, before a correction, whether there can be one, and returns what was done under its id before, if
// something was. Units are those to be taken out. Its errors are those of Correct.
func (l *Ledger) Corrected(ctx context.Context, productID order.ProductID, units int64,
	id string) (done Restock, before bool, err error) {
	err = validateRestock(units, id)
	if err == nil && productID > order.MaxProductID {
		err = mysql.ErrNotFound
	}
	var product order.Product
	if err == nil {
		product, err = l.Product(ctx, productID.Stock())
	}
	if err == nil {
		done, before, err = restockedBefore(ctx, l.db, productID, -units, id)
	}
	if err == nil && !before {
		err = correctable(product.Buckets)
	}
	if err != nil {
		return Restock{}, false, fmt.Errorf("correction %q of product %d: %w", id, productID, err)
	}
	return done, before, nil
}

// correctable refuses split products: their units would have to be taken from several buckets at once.
func correctable(buckets int64) error {
	if buckets > 0 {
		return mysql.Invalidf("units cannot be taken out of a product that is split into buckets")
	}
	return nil
}

// Correct takes the units of a transfer without a receiver out of the stock of its donor, which is a product, once for
// each id of a restock. They must be on their way in Redis. If they were taken out under this id before, by another
// transfer, it returns what that did, which is not Applied, and the units are to be given back.
//
// ErrTooFew: the stock has fewer units. Its other errors are those of Restock, and an ErrInvalid for a product with
// buckets. Undone reports of an error whether the units may be given back.
func (l *Ledger) Correct(ctx context.Context, t Transfer, id string) (done Restock, err error) {
	if err := validateRestock(t.Units, id); err != nil {
		return Restock{}, fmt.Errorf("correction: %w", err)
	}
	if err := failpoint.Before(failpoint.Move); err != nil {
		return Restock{}, fmt.Errorf("correction %q: %w", id, err)
	}

	err = l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		if done, err = correct(ctx, tx, t, id); err != nil {
			return err
		}
		return failpoint.Before(failpoint.MoveCommit)
	})

	if err == nil {
		if err = failpoint.After(failpoint.MoveCommit); err != nil {
			err = fmt.Errorf("%w: %w", mysql.ErrCommit, err)
		}
	}
	if err != nil {
		return Restock{}, fmt.Errorf("correction %q of product %d: %w", id, t.Donor, err)
	}
	return done, nil
}

func correct(ctx context.Context, tx *sqlx.Tx, t Transfer, id string) (Restock, error) {
	productID := order.ProductID(t.Donor) // a bucket is refused as no product
	rows, err := lockWhole(ctx, tx, productID)
	if err != nil {
		return Restock{}, err
	}

	// Who cancels a correction leaves a row of it.
	var cancelled mysql.UUID
	err = tx.GetContext(ctx, &cancelled, `SELECT id FROM moves WHERE id = ?`, mysql.UUID(t.ID))
	switch {
	case err == nil:
		return Restock{}, errCancelled
	case !errors.Is(err, sql.ErrNoRows):
		return Restock{}, fmt.Errorf("read transfer: %w", err)
	}

	if done, before, err := restockedBefore(ctx, tx, productID, -t.Units, id); err != nil || before {
		return done, err
	}
	product := rows[0]
	if err := correctable(product.Buckets); err != nil {
		return Restock{}, err
	}
	if product.Stock < t.Units {
		return Restock{}, ErrTooFew
	}

	at := mysql.Now()
	change := ledgerRow{
		StockID: product.ID, Version: product.Version + 1, Delta: -t.Units, Balance: product.Stock - t.Units,
		Reason: ledgerCorrection, Ref: []byte(id), CreatedAt: at,
	}
	if err := changeStock(ctx, tx, &product, []ledgerRow{change}); err != nil {
		return Restock{}, err
	}

	// Who ends the transfer reads here that it was decided.
	err = insertTransfer(ctx, tx, transferRow{
		ID: mysql.UUID(t.ID), Donor: product.ID, Units: t.Units, DonorVersion: change.Version, DecidedAt: at,
	})
	if err != nil {
		return Restock{}, err
	}

	done := newRestock(productID, id, []ledgerRow{change})
	done.Applied = true
	before, after := mysql.Values{"stock": product.Stock}, mysql.Values{"stock": change.Balance, "restock_id": id}
	return done, mysql.LogChange(ctx, tx, actProductRestock, aboutProduct(productID), before, after)
}
