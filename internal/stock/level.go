package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// Level is what Redis holds of a product.
type Level struct {
	// Loaded is false if Redis does not know the product's stock; Available is then 0.
	Loaded    bool
	Available int64
	// Reserved counts units, Reservations and Outbox count orders. Those of a batch are in the outbox until all of them
	// are acknowledged, but no more than are reserved.
	Reserved, Reservations, Outbox int64
	// InTransfer counts units that are on their way to other buckets.
	InTransfer int64
	// Version is the version of the product's row in MySQL at the time of loading.
	Version int64
	// Moving says that these numbers are of several moments: a busy product has more reservations than are read at one.
	Moving bool
}

// onItsWay reports whether something is to come of what Redis holds.
func (l Level) onItsWay() bool { return l.Reservations > 0 || l.Outbox > 0 || l.InTransfer > 0 }

// maxReads bounds how often a read is repeated since something has moved meanwhile. Redis carries out a pipeline at
// one go unless it arrives in parts, so that hardly any is repeated at all.
const maxReads = 20

// Level reads what Redis holds of a product, at one moment, or as Moving. It is no transaction, since a Redis that is
// full refuses even one that only reads, and reads no more than a page at a time, since Redis serves nobody else
// meanwhile: it reads again if the number of changes has moved. The outbox does not count.
func (s *Stock) Level(ctx context.Context, stockID order.StockID) (Level, error) {
	for range maxReads {
		level, err := s.readLevel(ctx, keysOf(stockID))
		if err != nil {
			return Level{}, fmt.Errorf("read stock of product %d: %w", stockID, err)
		}
		if !level.Moving || level.Reservations > lookPage {
			return level, nil
		}
	}
	return Level{}, fmt.Errorf("read stock of product %d: it has moved each time that it was read", stockID)
}

func (s *Stock) readLevel(ctx context.Context, k productKeys) (Level, error) {
	var (
		before, after  *goredis.SliceCmd
		stock, version *goredis.StringCmd
		reserved, lent *goredis.ScanCmd
		outbox         *goredis.StringSliceCmd
	)
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		before = p.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		stock = p.Get(ctx, k.stock)
		version = p.HGet(ctx, k.sale, fieldVersion)
		outbox = p.HKeys(ctx, k.outbox)
		reserved = p.HScan(ctx, k.reserved, 0, "", lookPage)
		lent = p.HScan(ctx, k.lent, 0, "", lookPage)
		after = p.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return Level{}, err
	}

	level := Level{Loaded: stock.Err() == nil}
	unsent, err := s.countOrders(ctx, map[string][]string{k.outbox: outbox.Val()})
	if err != nil {
		return Level{}, err
	}
	if level.Loaded {
		if level.Available, err = stock.Int64(); err != nil {
			return Level{}, err
		}
		level.Version, _ = version.Int64()
	}
	orders, more, err := s.sumPages(ctx, k.reserved, reserved)
	if err != nil {
		return Level{}, fmt.Errorf("reservations: %w", err)
	}
	transfers, moreTransfers, err := s.sumPages(ctx, k.lent, lent)
	if err != nil {
		return Level{}, fmt.Errorf("transfers: %w", err)
	}
	level.Reserved, level.Reservations, level.InTransfer = orders.units, orders.fields, transfers.units
	level.Outbox = min(unsent, orders.fields)

	if more || moreTransfers { // the other pages were read later
		after = s.rdb.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		if err := after.Err(); err != nil {
			return Level{}, err
		}
	}
	level.Moving = !slices.Equal(before.Val(), after.Val())
	return level, nil
}

// sum is what the fields of a hash have together.
type sum struct{ fields, units int64 }

// sumPages adds up the values of a hash of which the first page is read already, and reports whether there were more.
func (s *Stock) sumPages(ctx context.Context, key string, first *goredis.ScanCmd) (total sum, more bool, err error) {
	page, cursor := first.Val()
	seen := make(map[string]struct{}, len(page)/2) // a page may have what another had
	add := func(field, value string) error {
		if _, twice := seen[field]; twice {
			return nil
		}
		seen[field] = struct{}{}
		units, _, _ := strings.Cut(value, " ") // of a reservation, which has more
		n, err := strconv.ParseInt(units, 10, 64)
		total.units += n
		return err
	}
	if err = visitFields(page, add); err == nil && cursor != 0 {
		err = pagesFrom(ctx, s.rdb.HScan, key, cursor, func(page []string) error { return visitFields(page, add) })
	}
	total.fields = int64(len(seen))
	return total, cursor != 0, err
}

// Available adds up the units of products or buckets that are available. One below zero counts as none, as does one
// that Redis does not have.
func (s *Stock) Available(ctx context.Context, ids []order.StockID) (units int64, err error) {
	available := make([]*goredis.StringCmd, len(ids))
	_, err = s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, id := range ids {
			available[i] = p.Get(ctx, keysOf(id).stock)
		}
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return 0, fmt.Errorf("read the units of %d products: %w", len(ids), err)
	}
	for _, cmd := range available {
		n, err := cmd.Int64()
		if err != nil && !errors.Is(err, goredis.Nil) {
			return 0, fmt.Errorf("read the units of a product: %w", err)
		}
		units += max(n, 0)
	}
	return units, nil
}
