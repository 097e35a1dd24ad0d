package stock

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// Batch is an entry of the outbox: orders that were reserved by one call, and that the queue has not acknowledged.
type Batch struct {
	Name   string
	Orders []order.Order
}

// Acknowledge takes batches of one product, whose orders are on the queue or cancelled, out of the outbox.
func (s *Stock) Acknowledge(ctx context.Context, stockID order.StockID, batches []string) error {
	err := failpoint.Around(failpoint.Acknowledge, func() error {
		return s.rdb.HDel(ctx, keysOf(stockID).outbox, batches...).Err()
	})
	if err != nil {
		return fmt.Errorf("clear outbox of product %d: %w", stockID, err)
	}
	return nil
}

// Claim returns batches of one product that have been in the outbox for at least minAge, with those of their orders
// that are still reserved, and claims them: for minAge nobody else gets them, and their edge can no longer cancel their
// orders. It looks at the outbox page by page; cursor is 0 at first, then what the last call returned, until that is 0
// again. An order that cannot be read is logged and left out.
func (s *Stock) Claim(ctx context.Context, stockID order.StockID, minAge time.Duration,
	cursor uint64) ([]Batch, uint64, error) {
	fields, next, err := s.rdb.HScan(ctx, keysOf(stockID).outbox, cursor, "", claimPage).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan outbox of product %d: %w", stockID, err)
	}
	names := make([]string, 0, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		names = append(names, fields[i])
	}

	var batches []Batch
	for len(names) > 0 {
		claimed, looked, err := s.claim(ctx, stockID, minAge, names[:min(len(names), MaxBatch)])
		if err != nil {
			return nil, 0, err
		}
		batches = append(batches, claimed...)
		names = names[looked:]
	}
	if len(batches) > 0 { // most looks find nothing that is old enough
		return batches, next, failpoint.After(failpoint.Claim)
	}
	return nil, next, nil
}

// claimPage is how many batches a page has, each of up to MaxBatch orders.
const claimPage = 20

// claim claims some of the batches that a scan has found, and says how many it has looked at.
func (s *Stock) claim(ctx context.Context, stockID order.StockID, minAge time.Duration,
	names []string) (batches []Batch, looked int, err error) {
	args := append(make([]any, 0, 2+len(names)), minAge.Milliseconds(), MaxBatch)
	for _, name := range names {
		args = append(args, name)
	}

	if err := failpoint.Before(failpoint.Claim); err != nil {
		return nil, 0, err
	}
	k := keysOf(stockID)
	reply, err := claimScript.Run(ctx, s.rdb, []string{k.outbox, k.reserved}, args...).Slice()
	if err == nil {
		batches, looked, err = readClaimed(stockID, reply)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("claim outbox of product %d: %w", stockID, err)
	}
	return batches, looked, nil
}

// readClaimed reads what claim.lua returns.
func readClaimed(stockID order.StockID, reply []any) (batches []Batch, looked int, err error) {
	var d decoder
	take := func() (v any) {
		if len(reply) == 0 {
			d.Unexpected(v)
			return v
		}
		v, reply = reply[0], reply[1:]
		return v
	}
	if looked = int(d.Int(take())); looked <= 0 {
		return nil, 0, fmt.Errorf("%d entries were looked at", looked)
	}
	for len(reply) > 0 && d.Err == nil {
		batch := Batch{Name: d.Text(take())}
		for range d.Int(take()) {
			id, text := d.Text(take()), d.Text(take())
			if d.Err != nil {
				break
			}
			o, err := readClaimedOrder(stockID, id, text)
			if err != nil {
				// No script writes such an entry. The orders beside it must not wait for somebody to repair it.
				slog.Error("outbox: an order cannot be read", "product", stockID, "order", id, "error", err)
				continue
			}
			batch.Orders = append(batch.Orders, o)
		}
		batches = append(batches, batch)
	}
	return batches, looked, d.Err
}

func readClaimedOrder(stockID order.StockID, id, text string) (order.Order, error) {
	orderID, err := order.ParseID(id)
	if err != nil {
		return order.Order{}, err
	}
	r, err := parseReservation(stockID, orderID, text)
	if err == nil && r.batch == "" {
		err = fmt.Errorf("reservation %q has units only", text)
	}
	return r.order, err
}

// countOrders counts the orders of batches, whose names are given by the key of their outbox. Those of a batch count
// until all of them are acknowledged.
func (s *Stock) countOrders(ctx context.Context, batches map[string][]string) (orders int64, err error) {
	var lengths []*goredis.IntCmd
	_, err = s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for key, names := range batches {
			for _, name := range names {
				lengths = append(lengths, p.HStrLen(ctx, key, name))
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count the orders in the outbox: %w", err)
	}

	// What an entry has before its ids is shorter than one of them, after a head that every entry has.
	const head, id = int64(len("1764312345678 ")), int64(len("01234567-0123-7123-8123-0123456789ab "))
	for _, length := range lengths {
		if n := length.Val(); n > 0 { // or it is gone
			orders += max((n-head)/id, 1)
		}
	}
	return orders, nil
}

// batchTimes reads when the orders of an entry were reserved, and when it was last claimed.
func batchTimes(entry string) (reserved, claimed time.Time) {
	var d decoder
	if f := strings.SplitN(entry, " ", 3); len(f) > 1 {
		reserved, claimed = fromMillis(d.Int(f[0])), fromMillis(d.Int(f[1]))
	}
	return reserved, claimed
}
