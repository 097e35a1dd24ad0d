package stock

import (
	"context"
	"fmt"

	"stampede/internal/order"
)

// Readmit reserves the units of an order anew that failed and is to be decided again; the order is then in
// the outbox, claimed for the caller to send. The outcome is Reserved, Replayed if it was reserved already,
// or why not. It returns ErrNotLoaded if Redis does not have the product.
func (s *Stock) Readmit(ctx context.Context, o order.Order) (Outcome, error) {
	k := keysOf(o.StockID)
	n, err := readmitScript.Run(ctx, s.rdb, []string{k.stock, k.reserved, k.bought, k.sale, k.outbox},
		o.ID.String(), o.UserID, o.Quantity, keptPrice(o), packKey(o.IdempotencyKey), newBatch()).Int()
	switch {
	case err != nil:
		return 0, fmt.Errorf("reserve order %s anew: %w", o.ID, err)
	case n == 0:
		return 0, ErrNotLoaded
	}
	return Outcome(n), nil
}
