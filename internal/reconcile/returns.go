package reconcile

import (
	"context"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// Return puts units of one product, or of a bucket, on sale again that MySQL has taken back, and drops the reminders
// when Redis has answered, and not before. It may be called again, by whoever finds the reminders. It returns how many
// units are available again by this call.
func Return(ctx context.Context, redis *stock.Stock, mysql *ledger.Ledger, stockID order.StockID,
	returned []order.Returned) (units int64, err error) {
	if len(returned) == 0 {
		return 0, nil
	}
	if units, err = redis.Return(ctx, stockID, returned); err != nil {
		return 0, err
	}
	ids := make([]order.OrderID, len(returned))
	for i := range returned {
		ids[i] = returned[i].OrderID
	}
	return units, mysql.ForgetReturned(ctx, stockID, ids)
}
