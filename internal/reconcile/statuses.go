package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"

	"stampede/internal/order"
)

// Statuses shows buyers the decisions of orders that Redis has as pending. It looks at all that Redis knows, so it is
// for after a fail-over.
func (r *Reconciler) Statuses(ctx context.Context) (Finding, error) {
	f := Finding{Cause: Status}
	var mu sync.Mutex // the servers of a Cluster are visited at the same time
	err := r.Redis.States(ctx, order.Pending, func(pending []order.Record) error {
		ids := make([]order.OrderID, len(pending))
		for i := range pending {
			ids[i] = pending[i].ID
		}
		decided, err := r.MySQL.Decided(ctx, ids)
		if err != nil || len(decided) == 0 {
			return err
		}

		mu.Lock()
		f.Orders += len(decided)
		mu.Unlock()
		if !r.Apply {
			return nil
		}
		return r.Redis.WriteDecided(ctx, slices.Collect(maps.Values(decided)))
	})
	f.Repaired = r.Apply && err == nil && f.Orders > 0
	return f, err
}
