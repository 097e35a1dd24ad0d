// Package ledger keeps in MySQL what is true of sales: products, the decision of every order, and a ledger of every
// change of stock. What changes a product's stock does so under the lock of the product's row.
//
// Each exported method owns its transaction. Times go in and come out in UTC.
package ledger

import (
	"context"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
)

// CallLock is a call that mysql.DB.Observe tells of: the wait for the lock of a product's row, with the reading of the
// row, to decide its orders.
const CallLock = "lock"

// Errors that callers tell apart, beside those of package mysql.
var (
	// ErrMismatch: the id was used before, for something else.
	ErrMismatch = mysql.OwnError("used before for something else")
	// ErrOnSale: it can be done only while nobody can buy the product, and nobody has.
	ErrOnSale = mysql.OwnError("the product is on sale, or has been")
)

// Ledger is the products and orders of one database. Its methods may be called concurrently.
type Ledger struct{ db *mysql.DB }

// New is the ledger in a database, whose schema is current.
func New(db *mysql.DB) *Ledger { return &Ledger{db} }

// execIn runs a statement with a list in it.
func execIn(ctx context.Context, to sqlx.ExecerContext, query string, args ...any) error {
	query, args, err := sqlx.In(query, args...)
	if err == nil {
		_, err = to.ExecContext(ctx, query, args...)
	}
	return err
}
