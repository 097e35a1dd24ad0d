package stock

import (
	"context"
	"fmt"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Return puts the units of up to MaxBatch orders of one product, or of a bucket, back on sale, and takes them off what
// their buyers have. It may be called again with the same orders, and must be until it has succeeded. It returns how
// many units it has made available, which are none if the product is not loaded or the loaded stock has them already.
func (s *Stock) Return(ctx context.Context, stockID order.StockID, orders []order.Returned) (units int64, err error) {
	k := keysOf(stockID)
	args := make([]any, 0, 5*len(orders))
	for i := range orders {
		o := &orders[i]
		args = append(args, o.OrderID.String(), int64(o.UserID), o.Quantity, o.TakenAt, o.ReturnedAt)
	}
	units, err = s.rdb.Run(ctx, failpoint.Return, returnScript, []string{k.stock, k.bought, k.sale, k.settled},
		args...).Int64()
	if err != nil {
		return 0, fmt.Errorf("return units of product %d: %w", stockID, err)
	}
	return units, nil
}
