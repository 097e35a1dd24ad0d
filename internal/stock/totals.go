package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

const (
	// totalsBatch is how many products a round trip of Totals asks about.
	totalsBatch = 100
	// totalsSample is how many reservations of a product Totals takes the oldest of.
	totalsSample = 1_000
)

// Totals are sums over the products that Redis holds.
type Totals struct {
	Products  int64
	Available int64 // units; what a product is below zero counts as none
	Reserved  int64 // orders that are reserved and not settled
	Outbox    int64 // orders of batches that the queue has not acknowledged in full
	// Oldest is when the oldest reservation was made, zero if there is none. Of a product with more than a thousand it
	// is that of as many, picked at random.
	Oldest time.Time
}

// Totals reads the sums, in a few round trips for each hundred products. They are not of one moment.
func (s *Stock) Totals(ctx context.Context) (t Totals, err error) {
	products, err := s.Products(ctx)
	if err != nil {
		return t, err
	}
	unsent := make(map[string][]string)
	for batch := range slices.Chunk(products, totalsBatch) {
		available := make([]*goredis.StringCmd, len(batch))
		reserved, outbox := make([]*goredis.IntCmd, len(batch)), make([]*goredis.StringSliceCmd, len(batch))
		sample := make([]*goredis.StringSliceCmd, len(batch))

		_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i, id := range batch {
				k := keysOf(id)
				available[i], reserved[i], outbox[i] = p.Get(ctx, k.stock), p.HLen(ctx, k.reserved),
					p.HKeys(ctx, k.outbox)
				sample[i] = p.HRandField(ctx, k.reserved, totalsSample)
			}
			return nil
		})
		if err != nil && !errors.Is(err, goredis.Nil) {
			return t, fmt.Errorf("add up %d products: %w", len(batch), err)
		}

		for i := range batch {
			units, err := available[i].Int64()
			if err != nil {
				continue // it is not loaded
			}
			t.Products++
			t.Available += max(units, 0)
			t.Reserved += reserved[i].Val()
			if names := outbox[i].Val(); len(names) > 0 && reserved[i].Val() > 0 {
				unsent[keysOf(batch[i]).outbox] = names
			}

			// An order's id has the time of its reservation.
			for _, text := range sample[i].Val() {
				id, err := order.ParseID(text)
				if at := id.MadeAt(); err == nil && !at.IsZero() && (t.Oldest.IsZero() || at.Before(t.Oldest)) {
					t.Oldest = at
				}
			}
		}
	}
	t.Outbox, err = s.countOrders(ctx, unsent)
	t.Outbox = min(t.Outbox, t.Reserved)
	return t, err
}
