package stock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Acknowledge takes orders of one product, which the queue has, out of the outbox.
func (s *Stock) Acknowledge(ctx context.Context, stockID order.StockID, orders []order.Order) error {
	ids := make([]string, len(orders))
	for i := range orders {
		ids[i] = orders[i].ID.String()
	}
	err := failpoint.Around(failpoint.Acknowledge, func() error {
		return s.rdb.HDel(ctx, keysOf(stockID).outbox, ids...).Err()
	})
	if err != nil {
		return fmt.Errorf("clear outbox of product %d: %w", stockID, err)
	}
	return nil
}

// Claim returns orders of one product that have been in the outbox for at least minAge, and claims
// them: for minAge nobody else gets them, and their edge can no longer cancel them. It looks at the
// outbox page by page; cursor is 0 at first, then what the last call returned, until that is 0 again.
// An entry that cannot be read is logged and left out.
func (s *Stock) Claim(ctx context.Context, stockID order.StockID, minAge time.Duration,
	cursor uint64) ([]order.Order, uint64, error) {
	key := keysOf(stockID).outbox
	fields, next, err := s.rdb.HScan(ctx, key, cursor, "", MaxBatch).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan outbox of product %d: %w", stockID, err)
	}
	var orders []order.Order
	// A scan of a small hash returns all of it, however large a page was asked for.
	for len(fields) > 0 {
		n := min(len(fields), 2*MaxBatch)
		claimed, err := s.claim(ctx, stockID, minAge, fields[:n])
		if err != nil {
			return nil, 0, err
		}
		orders = append(orders, claimed...)
		fields = fields[n:]
	}
	return orders, next, nil
}

// claim claims the entries that a scan has found; fields alternates order ids and entries.
func (s *Stock) claim(ctx context.Context, stockID order.StockID, minAge time.Duration,
	fields []string) ([]order.Order, error) {
	args := append(make([]any, 0, 1+len(fields)/2), minAge.Milliseconds())
	for i := 0; i < len(fields); i += 2 {
		args = append(args, fields[i])
	}

	if err := failpoint.Before(failpoint.Claim); err != nil {
		return nil, err
	}
	reply, err := claimScript.Run(ctx, s.rdb, []string{keysOf(stockID).outbox}, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("claim outbox of product %d: %w", stockID, err)
	}

	var orders []order.Order
	for i, v := range reply {
		if entry, ok := v.(string); ok {
			o, err := readOutboxEntry(stockID, fields[2*i], entry)
			if err != nil {
				// No script writes such an entry. The orders beside it must not wait for somebody to repair it.
				slog.Error("outbox: an entry cannot be read", "product", stockID, "order", fields[2*i], "error", err)
				continue
			}
			orders = append(orders, o)
		}
	}
	if len(orders) > 0 { // most looks find nothing that is old enough
		return orders, failpoint.After(failpoint.Claim)
	}
	return nil, nil
}

// readOutboxEntry reads 'reserved_at claimed_at user quantity unit_price key', as reserve.lua writes it.
func readOutboxEntry(stockID order.StockID, id, entry string) (order.Order, error) {
	f := strings.SplitN(entry, " ", 6)
	if len(f) != 6 {
		return order.Order{}, fmt.Errorf("entry %q has %d fields", entry, len(f))
	}
	var d decoder
	o := order.Order{
		StockID: stockID, ReservedAt: fromMillis(d.int(f[0])), UserID: order.UserID(d.int(f[2])),
		Quantity: d.int(f[3]), UnitPrice: d.int(f[4]), IdempotencyKey: f[5],
	}
	if d.err != nil {
		return order.Order{}, d.err
	}
	var err error
	o.ID, err = order.ParseID(id)
	return o, err
}

// Currency reads the currency in which a loaded product is sold, or ErrNotLoaded.
func (s *Stock) Currency(ctx context.Context, stockID order.StockID) (string, error) {
	currency, err := s.rdb.HGet(ctx, keysOf(stockID).sale, fieldCurrency).Result()
	if errors.Is(err, goredis.Nil) {
		return "", ErrNotLoaded
	}
	return currency, err
}
