package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Transfer is units of a bucket that are on their way to another, or those of a product that are being taken out of it.
type Transfer struct {
	// ID is that of the transfer in MySQL, a UUIDv7.
	ID uuid.UUID
	// Receiver is the id of the bucket to which they go, and 0 if they are taken out.
	Receiver order.StockID
}

// MadeAt is when the transfer's id was made, which says so in the same way as an order's.
func (t Transfer) MadeAt() time.Time { return order.OrderID(t.ID).MadeAt() }

// name is what a transfer is called in lent:{p}. It is no order's id, whoever takes it for one.
func (t Transfer) name() string {
	return "move:" + t.ID.String() + ":" + t.Receiver.String()
}

func parseTransfer(name string) (t Transfer, err error) {
	f := strings.Split(name, ":")
	if len(f) != 3 || f[0] != "move" {
		return t, fmt.Errorf("%q is no transfer", name)
	}
	if t.ID, err = uuid.Parse(f[1]); err != nil {
		return t, fmt.Errorf("transfer %q: %w", name, err)
	}
	receiver, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return t, fmt.Errorf("transfer %q: %w", name, err)
	}
	t.Receiver = order.StockID(receiver)
	return t, nil
}

// BeginTransfer takes up to so many available units out of a bucket and returns how many: 0 if there are none to be
// had, or the sale is paused. They stay on their way until EndTransfer. Repeating a call returns what the first did.
// After an error for which NotExecuted is false they may have been taken.
func (s *Stock) BeginTransfer(ctx context.Context, donor order.StockID, units int64, t Transfer) (int64, error) {
	k := keysOf(donor)
	n, err := s.rdb.Run(ctx, failpoint.Lend, transferScript, []string{k.stock, k.lent, k.sale}, t.name(), units).Int64()
	if err != nil {
		return 0, fmt.Errorf("begin a transfer from bucket %d: %w", donor, err)
	}
	return max(n, 0), nil
}

// errPaused: no transfer begins while a sale is paused.
var errPaused = errors.New("the sale is paused for a moment")

// BeginWholeTransfer is BeginTransfer from a product, but of all the units or none: it reports false if there are
// fewer, and then has changed nothing. A pause is an error, and so is a product that is not loaded.
func (s *Stock) BeginWholeTransfer(ctx context.Context, stockID order.StockID, units int64, t Transfer) (bool, error) {
	k := keysOf(stockID)
	n, err := s.rdb.Run(ctx, failpoint.Lend, transferScript, []string{k.stock, k.lent, k.sale}, t.name(), units,
		argWhole).Int64()
	switch {
	case err != nil:
	case n == -1:
		err = ErrNotLoaded
	case n < 0:
		err = errPaused
	}
	if err != nil {
		return false, fmt.Errorf("begin a transfer from product %d: %w", stockID, err)
	}
	return n > 0, nil
}

// EndTransfer clears a transfer that MySQL has decided. If it was made, version is the one that it made in the donor;
// otherwise it is 0 and the units are for sale again. It follows Settle in everything: a fresh decision may be settled
// as fresh once, by who made it, and otherwise settling again changes nothing.
func (s *Stock) EndTransfer(ctx context.Context, donor order.StockID, units, version int64, t Transfer,
	fresh bool) error {
	k := keysOf(donor)
	err := s.rdb.Run(ctx, failpoint.Lent, settleScript, settleKeys(k, k.lent), version, completedKept.Milliseconds(),
		t.name(), 0, units, bit(version > 0), bit(fresh)).Err()
	if err != nil {
		return fmt.Errorf("end a transfer from bucket %d: %w", donor, err)
	}
	return nil
}
