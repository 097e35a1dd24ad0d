package stock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Load brings a product to Redis with the stock, version and settings that read finds in MySQL. It reports
// whether this call loaded it; if it was loaded before, nothing changes. A row that turns out to be out of
// date is read again, a few times; after that the error is ErrStale.
func (s *Stock) Load(ctx context.Context, stockID order.StockID,
	read func(context.Context) (order.Product, error)) (bool, error) {
	if _, err := read(ctx); err != nil {
		return false, err // so that a product which somebody has made up leaves nothing in Redis
	}
	for attempt := 1; ; attempt++ {
		epoch, err := s.epoch(ctx, stockID)
		if err != nil {
			return false, err
		}
		p, err := read(ctx)
		if err != nil {
			return false, err
		}
		loaded, err := s.loadRow(ctx, p, epoch)
		if !errors.Is(err, ErrStale) || attempt == maxLoads {
			return loaded, err
		}
	}
}

// epoch is the word that Redis has for a product for as long as it keeps its data, made now if there is none.
func (s *Stock) epoch(ctx context.Context, stockID order.StockID) (string, error) {
	var epoch *goredis.StringCmd
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		key := keysOf(stockID).sale
		p.HSetNX(ctx, key, fieldEpoch, rand.Text())
		epoch = p.HGet(ctx, key, fieldEpoch)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("begin to load product %d: %w", stockID, err)
	}
	return epoch.Val(), nil
}

// loadRow loads a row that was read after the epoch was.
func (s *Stock) loadRow(ctx context.Context, p order.Product, epoch string) (bool, error) {
	// The set comes first: a product that is loaded must be known to relay and reconcile, also if this process dies.
	if err := s.rdb.SAdd(ctx, productsKey, p.ID).Err(); err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}

	k := keysOf(p.ID)
	n, err := s.rdb.Run(ctx, failpoint.Load, loadScript, []string{k.stock, k.sale},
		p.Stock, p.Version, p.Price, p.Currency, millis(p.StartsAt), millis(p.EndsAt), p.LimitPerUser,
		string(p.State), p.Revision, epoch, p.Buckets, p.PointsPrice).Int()
	if err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}
	if n < 0 {
		return false, fmt.Errorf("load product %d: %w", p.ID, ErrStale)
	}

	// And again: who has seen it as not loaded before may have taken it out of the set meanwhile.
	if err := s.remember(ctx, p.ID); err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}
	return n == 1, nil
}

// Configure brings the settings of a product, as MySQL has them after a change, to Redis, and with those of a split
// product its buckets. It reports whether they hold there by this call: if not, the product is not loaded, or newer
// settings hold. Repeating it is harmless, and needed if the answer is an error.
func (s *Stock) Configure(ctx context.Context, p order.Product) (bool, error) {
	holds, err := s.configureRow(ctx, p.ID, p)
	for _, id := range p.StockIDs() {
		if id != p.ID && err == nil {
			_, err = s.configureRow(ctx, id, p)
		}
	}
	return holds, err
}

func (s *Stock) configureRow(ctx context.Context, id order.StockID, p order.Product) (bool, error) {
	k := keysOf(id)
	n, err := configureScript.Run(ctx, s.rdb, []string{k.stock, k.sale}, p.Revision, p.Price, p.Currency,
		millis(p.StartsAt), millis(p.EndsAt), p.LimitPerUser, string(p.State), p.Buckets, p.PointsPrice).Int()
	if err != nil {
		return false, fmt.Errorf("configure product %d: %w", id, err)
	}
	return n == 1, nil
}

// Restock adds units that MySQL has put on sale under a version and a restock id, once. It reports
// whether this call added them; it does not if the loaded stock holds them already.
func (s *Stock) Restock(ctx context.Context, stockID order.StockID, units, version int64, id string) (bool, error) {
	k := keysOf(stockID)
	n, err := s.rdb.Run(ctx, failpoint.Restock, restockScript, []string{k.stock, k.sale, k.settled}, units, version,
		id).Int()
	if err != nil {
		return false, fmt.Errorf("restock product %d: %w", stockID, err)
	}
	return n == 1, nil
}
