package stock

import (
	"context"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// Count is how much Redis holds of a product or bucket, to look at it often. Level says it exactly, and Look has all
// that there is.
type Count struct {
	// Loaded is false if Redis does not know the product's stock; Available is then 0.
	Loaded    bool
	Available int64
	// Reservations counts orders, and Transfers those under way from it to other buckets.
	Reservations, Transfers int64
}

// Counts reads several products or buckets, each at its own moment, at a cost that does not depend on how many orders
// they have. With an error it returns those that it could read.
func (s *Stock) Counts(ctx context.Context, stockIDs []order.StockID) (counts map[order.StockID]Count, err error) {
	available := make([]*goredis.StringCmd, len(stockIDs))
	reserved, transfers := make([]*goredis.IntCmd, len(stockIDs)), make([]*goredis.IntCmd, len(stockIDs))
	_, _ = s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error { // each command has its own error
		for i, id := range stockIDs {
			k := keysOf(id)
			// In this order, so that units whose transfer begins in between are seen twice and not missed. Those that
			// arrive in between can be missed: who finds nothing looks again.
			available[i], transfers[i], reserved[i] = p.Get(ctx, k.stock), p.HLen(ctx, k.lent), p.HLen(ctx, k.reserved)
		}
		return nil
	})

	counts = make(map[order.StockID]Count, len(stockIDs))
	for i, id := range stockIDs {
		units, failed := available[i].Int64()
		loaded := failed == nil
		if errors.Is(failed, goredis.Nil) {
			failed = nil
		}
		if failed = errors.Join(failed, transfers[i].Err(), reserved[i].Err()); failed != nil {
			if err == nil {
				err = fmt.Errorf("count units of product %d: %w", id, failed)
			}
			continue
		}
		counts[id] = Count{
			Loaded: loaded, Available: units, Reservations: reserved[i].Val(), Transfers: transfers[i].Val(),
		}
	}
	return counts, err
}
