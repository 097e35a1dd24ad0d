package reconcile

import (
	"context"

	"stampede/internal/order"
)

// returns puts units on sale again that MySQL has taken back, as the worker does that has taken them back unless it has
// died.
func (r *Reconciler) returns(ctx context.Context, stockID order.StockID, returned []order.Returned) error {
	if _, err := r.Redis.Return(ctx, stockID, returned); err != nil {
		return err
	}
	ids := make([]order.OrderID, len(returned))
	for i := range returned {
		ids[i] = returned[i].OrderID
	}
	return r.MySQL.ForgetReturned(ctx, stockID, ids)
}
