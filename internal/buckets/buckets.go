// Package buckets moves units from one bucket of a product to another: out of Redis at the donor, from row to row in
// MySQL, which decides, and into Redis at the receiver. A correction, which takes units out of a product, goes the same
// way without a receiver. Wherever that ends, reconcile finishes it.
//
// Like reconcile it ties two internal packages together, since edge and reconcile both need it.
package buckets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// ErrRefused says that MySQL has fewer units in the donor than Redis. Reconcile corrects that.
var ErrRefused = errors.New("MySQL has fewer units there than Redis")

// finishTimeout bounds what is done of a move after MySQL has decided it, or will not.
const finishTimeout = 3 * time.Second

// Mover moves units.
type Mover struct {
	Redis *stock.Stock
	MySQL *ledger.Ledger
}

// Move moves up to so many units between two buckets of a product, and returns how many: 0 if the donor has none, or
// its sale is paused. ErrRefused: MySQL did not agree, and nothing was moved. After any other error reconcile finishes
// what has begun.
func (m Mover) Move(ctx context.Context, donor, receiver, units int64) (int64, error) {
	loan := stock.Loan{Move: order.NewID(), Receiver: receiver}
	lent, err := m.Redis.Lend(ctx, donor, units, loan)
	if err != nil {
		// Nobody else decides this move, so that what may be lent can be given back.
		return 0, errors.Join(err, m.giveBack(ctx, donor, units, loan))
	}
	if lent == 0 {
		return 0, nil
	}

	decided, err := m.MySQL.Move(ctx, ledger.Move{ID: loan.Move, Donor: donor, Receiver: receiver, Units: lent})
	if err != nil {
		if mysql.Undone(err) {
			err = errors.Join(err, m.giveBack(ctx, donor, lent, loan))
		}
		return 0, fmt.Errorf("move %d units from bucket %d to %d: %w", lent, donor, receiver, err)
	}

	if err := m.Finish(ctx, decided); err != nil {
		return 0, err
	}
	if !decided.Moved() {
		return 0, fmt.Errorf("move %d units from bucket %d to %d: %w", lent, donor, receiver, ErrRefused)
	}
	return lent, nil
}

// Correct takes units out of a product's stock, once for each id of a restock. Only units that are for sale can be
// taken: those of accepted orders are not among them. Its errors are those of Ledger.Correct, and after any other
// reconcile finishes what has begun; the same call again tells how it ended.
func (m Mover) Correct(ctx context.Context, productID, units int64, id string) (ledger.Restock, error) {
	done, before, err := m.MySQL.Corrected(ctx, productID, units, id)
	if err != nil || before {
		return done, err
	}

	_, err = m.Redis.Load(ctx, productID, func(ctx context.Context) (order.Product, error) {
		return m.MySQL.Product(ctx, productID)
	})
	if err != nil {
		return ledger.Restock{}, err
	}

	loan := stock.Loan{Move: order.NewID()}
	lent, err := m.Redis.LendWhole(ctx, productID, units, loan)
	if err != nil {
		// Nobody else decides this correction, so that what may be lent can be given back.
		return ledger.Restock{}, errors.Join(err, m.giveBack(ctx, productID, units, loan))
	}
	if !lent {
		return ledger.Restock{}, fmt.Errorf("correction %q of product %d: %w", id, productID, ledger.ErrTooFew)
	}

	done, err = m.MySQL.Correct(ctx, ledger.Move{ID: loan.Move, Donor: productID, Units: units}, id)
	switch {
	case err != nil && mysql.Undone(err):
		return done, errors.Join(err, m.giveBack(ctx, productID, units, loan))
	case err != nil:
		return done, err
	case !done.Applied: // another call with this id was first
		return done, m.giveBack(ctx, productID, units, loan)
	}

	decided := ledger.Move{ID: loan.Move, Donor: productID, Units: units, DonorVersion: done.Version, Fresh: true}
	if err := m.Finish(ctx, decided); err != nil {
		// The units are taken out of both; reconcile clears the loan.
		slog.Warn("correction: its loan is left to reconcile", "product", productID, "id", id, "error", err)
	}
	return done, nil
}

func (m Mover) giveBack(ctx context.Context, donor, units int64, loan stock.Loan) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return m.Redis.SettleLoan(work, donor, units, 0, loan, false)
}

// Finish brings a decided move to Redis. It may be repeated, by anybody, if the move is not fresh: the receiver gets
// the units once, and the donor's loan is cleared once. The receiver comes first, so that units on their way can be
// seen.
func (m Mover) Finish(ctx context.Context, decided ledger.Move) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if decided.Moved() && decided.Receiver != 0 {
		_, err := m.Redis.Restock(work, decided.Receiver, decided.Units, decided.ReceiverVersion, decided.ID.String())
		if err != nil {
			return err
		}
	}
	loan := stock.Loan{Move: decided.ID, Receiver: decided.Receiver}
	return m.Redis.SettleLoan(work, decided.Donor, decided.Units, decided.DonorVersion, loan, decided.Fresh)
}

// Restock brings a restock that MySQL has to Redis, each bucket's part of it. It reports whether units were added there
// by this call. Repeating it is harmless, and needed if the answer is an error.
func Restock(ctx context.Context, redis *stock.Stock, done ledger.Restock) (added bool, err error) {
	for _, part := range done.Parts {
		one, err := redis.Restock(ctx, part.ProductID, part.Units, part.Version, done.ID)
		if err != nil {
			return added, err
		}
		added = added || one
	}
	return added, nil
}
