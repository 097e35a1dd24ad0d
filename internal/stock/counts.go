package stock

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Available reads the units available of several products; a product that is not loaded is left out. With an error it
// returns those that it could read.
func (s *Stock) Available(ctx context.Context, productIDs []int64) (available map[int64]int64, err error) {
	cmds := make([]*redis.StringCmd, len(productIDs))
	_, _ = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		for i, id := range productIDs {
			cmds[i] = p.Get(ctx, keysOf(id).stock)
		}
		return nil
	})
	available = make(map[int64]int64, len(productIDs))
	for i, cmd := range cmds {
		n, failed := cmd.Int64()
		switch {
		case failed == nil:
			available[productIDs[i]] = n
		case !errors.Is(failed, redis.Nil) && err == nil:
			err = fmt.Errorf("read available units of product %d: %w", productIDs[i], failed)
		}
	}
	return available, err
}

// Count is how much Redis holds of a product, to look at it often.
type Count struct {
	// Loaded is false if Redis does not know the product's stock; Available is then 0.
	Loaded    bool
	Available int64
	// Reservations counts orders.
	Reservations int64
}

// Counts reads several products, each at its own moment, at a cost that does not depend on how many orders they have.
func (s *Stock) Counts(ctx context.Context, productIDs []int64) (map[int64]Count, error) {
	available := make([]*redis.StringCmd, len(productIDs))
	reserved := make([]*redis.IntCmd, len(productIDs))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range productIDs {
			k := keysOf(id)
			available[i], reserved[i] = p.Get(ctx, k.stock), p.HLen(ctx, k.reserved)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("count units: %w", err)
	}

	counts := make(map[int64]Count, len(productIDs))
	for i, id := range productIDs {
		units, err := available[i].Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("count units of product %d: %w", id, err)
		}
		counts[id] = Count{Loaded: err == nil, Available: units, Reservations: reserved[i].Val()}
	}
	return counts, nil
}
