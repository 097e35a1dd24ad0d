// Package buckets transfers units from one bucket of a product to another: out of Redis at the donor, from row to row
// in MySQL, which decides, and into Redis at the receiver. A correction, which takes units out of a product, goes the
// same way without a receiver. Wherever that ends, reconcile finishes it.
//
// Like reconcile it ties two internal packages together, since edge and reconcile both need it.
package buckets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// ErrRefused says that MySQL has fewer units in the donor than Redis. Reconcile corrects that.
var ErrRefused = errors.New("MySQL has fewer units there than Redis")

// finishTimeout bounds what is done of a transfer after MySQL has decided it, or will not.
const finishTimeout = 3 * time.Second

// Stores are the two that hold the units of products and buckets.
type Stores struct {
	Redis *stock.Stock
	MySQL *ledger.Ledger
}

// Transfer moves up to so many units between two buckets of a product, and returns how many: 0 if the donor has none,
// or its sale is paused. ErrRefused: MySQL did not agree, and nothing was moved. After any other error reconcile
// finishes what has begun.
func (s Stores) Transfer(ctx context.Context, donor, receiver order.StockID, units int64) (int64, error) {
	transfer := stock.Transfer{ID: uuid.Must(uuid.NewV7()), Receiver: receiver}
	taken, err := s.Redis.BeginTransfer(ctx, donor, units, transfer)
	if err != nil {
		// Nobody else decides this transfer, so that what may have been taken can be given back.
		return 0, errors.Join(err, s.giveBack(ctx, donor, units, transfer))
	}
	if taken == 0 {
		return 0, nil
	}

	decided, err := s.MySQL.Transfer(ctx,
		ledger.Transfer{ID: transfer.ID, Donor: donor, Receiver: receiver, Units: taken})
	if err != nil {
		if mysql.Undone(err) {
			err = errors.Join(err, s.giveBack(ctx, donor, taken, transfer))
		}
		return 0, fmt.Errorf("transfer %d units from bucket %d to %d: %w", taken, donor, receiver, err)
	}

	if err := s.Finish(ctx, decided); err != nil {
		return 0, err
	}
	if !decided.Made() {
		return 0, fmt.Errorf("transfer %d units from bucket %d to %d: %w", taken, donor, receiver, ErrRefused)
	}
	return taken, nil
}

// Correct takes units out of a product's stock, once for each id of a restock. Only units that are for sale can be
// taken: those of accepted orders are not among them. Its errors are those of Ledger.Correct, and after any other
// reconcile finishes what has begun; the same call again tells how it ended.
func (s Stores) Correct(
	ctx context.Context, productID order.ProductID, units int64, id string,
) (ledger.Restock, error) {
	done, before, err := s.MySQL.Corrected(ctx, productID, units, id)
	if err != nil || before {
		return done, err
	}

	stockID := productID.Stock()
	_, err = s.Redis.Load(ctx, stockID, func(ctx context.Context) (order.Product, error) {
		return s.MySQL.Product(ctx, stockID)
	})
	if err != nil {
		return ledger.Restock{}, err
	}

	transfer := stock.Transfer{ID: uuid.Must(uuid.NewV7())}
	taken, err := s.Redis.BeginWholeTransfer(ctx, stockID, units, transfer)
	if err != nil {
		// Nobody else decides this correction, so that what may have been taken can be given back.
		return ledger.Restock{}, errors.Join(err, s.giveBack(ctx, stockID, units, transfer))
	}
	if !taken {
		return ledger.Restock{}, fmt.Errorf("correction %q of product %d: %w", id, productID, ledger.ErrTooFew)
	}

	done, err = s.MySQL.Correct(ctx, ledger.Transfer{ID: transfer.ID, Donor: stockID, Units: units}, id)
	switch {
	case err != nil && mysql.Undone(err):
		return done, errors.Join(err, s.giveBack(ctx, stockID, units, transfer))
	case err != nil:
		return done, err
	case !done.Applied: // another call with this id was first
		return done, s.giveBack(ctx, stockID, units, transfer)
	}

	decided := ledger.Transfer{ID: transfer.ID, Donor: stockID, Units: units, DonorVersion: done.Version, Fresh: true}
	if err := s.Finish(ctx, decided); err != nil {
		// The units are taken out of both; reconcile ends the transfer.
		slog.Warn("correction: its transfer is left to reconcile", "product", productID, "id", id, "error", err)
	}
	return done, nil
}

func (s Stores) giveBack(ctx context.Context, donor order.StockID, units int64, transfer stock.Transfer) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return s.Redis.EndTransfer(work, donor, units, 0, transfer, false)
}

// Finish brings a decided transfer to Redis. It may be repeated, by anybody, if the transfer is not fresh: the receiver
// gets the units once, and the donor's transfer is ended once. The receiver comes first, so that units on their way can
// be seen.
func (s Stores) Finish(ctx context.Context, decided ledger.Transfer) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if decided.Made() && decided.Receiver != 0 {
		_, err := s.Redis.Restock(work, decided.Receiver, decided.Units, decided.ReceiverVersion, decided.ID.String())
		if err != nil {
			return err
		}
	}
	transfer := stock.Transfer{ID: decided.ID, Receiver: decided.Receiver}
	return s.Redis.EndTransfer(work, decided.Donor, decided.Units, decided.DonorVersion, transfer, decided.Fresh)
}

// Restock brings a restock that MySQL has to Redis, each bucket's part of it. It reports whether units were added there
// by this call. Repeating it is harmless, and needed if the answer is an error.
func Restock(ctx context.Context, redis *stock.Stock, done ledger.Restock) (added bool, err error) {
	for _, part := range done.Parts {
		one, err := redis.Restock(ctx, part.StockID, part.Units, part.Version, done.ID)
		if err != nil {
			return added, err
		}
		added = added || one
	}
	return added, nil
}
