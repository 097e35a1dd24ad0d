package stock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// WritePending makes accepted orders visible to their buyers. It must come before the orders can
// reach a worker; a state that is there already stays.
func (s *Stock) WritePending(ctx context.Context, records []order.Record) error {
	return failpoint.Around(failpoint.Pending, func() error { return s.writeStatus(ctx, records, true) })
}

// WriteDecided replaces the state of orders by what MySQL has decided.
func (s *Stock) WriteDecided(ctx context.Context, records []order.Record) error {
	return failpoint.Around(failpoint.Decided, func() error { return s.writeStatus(ctx, records, false) })
}

// recordBytes is a little more than most records have.
const recordBytes = 320

func (s *Stock) writeStatus(ctx context.Context, records []order.Record, onlyNew bool) error {
	if len(records) == 0 {
		return nil
	}

	// All records are written into one piece of memory, of which each command has its part.
	values := make([]byte, 0, len(records)*recordBytes)
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range records {
			start := len(values)
			values = records[i].AppendJSON(values)
			value := values[start:len(values):len(values)] // so that nothing is appended to it
			if onlyNew {
				p.SetNX(ctx, orderKey(records[i].ID), value, PendingTTL)
			} else {
				p.Set(ctx, orderKey(records[i].ID), value, StatusTTL)
			}
		}
		return nil
	})

	if full(err) {
		err = s.writeStatusFull(ctx, records, onlyNew)
	}
	if err != nil {
		return fmt.Errorf("write status of %d orders: %w", len(records), err)
	}
	return nil
}

// writeStatusFull writes into a Redis that is full. The orders are reserved already, or decided, and must be drained:
// their states take a little memory once more, and settling them frees more. Some may be written already.
func (s *Stock) writeStatusFull(ctx context.Context, records []order.Record, onlyNew bool) error {
	lifetime := StatusTTL
	if onlyNew {
		lifetime = PendingTTL
	}
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range records {
			key, value := orderKey(records[i].ID), records[i].AppendJSON(nil)
			p.Eval(ctx, putText, []string{key}, value, lifetime.Milliseconds(), bit(onlyNew))
		}
		return nil
	})
	return err
}

// Statuses reads the states of orders; one that Redis does not know is nil.
func (s *Stock) Statuses(ctx context.Context, ids []order.OrderID) ([]*order.Record, error) {
	cmds := make([]*goredis.StringCmd, len(ids))
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = p.Get(ctx, orderKey(id))
		}
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return nil, fmt.Errorf("read status of %d orders: %w", len(ids), err)
	}

	records := make([]*order.Record, len(ids))
	for i, cmd := range cmds {
		value, err := cmd.Bytes()
		if errors.Is(err, goredis.Nil) {
			continue
		}
		if err != nil { // the pipeline has only the first error, such as that of an order without a state
			return nil, fmt.Errorf("read status of order %s: %w", ids[i], err)
		}
		record := new(order.Record)
		if err := json.Unmarshal(value, record); err != nil {
			return nil, fmt.Errorf("read status of order %s: %w", ids[i], err)
		}
		records[i] = record
	}
	return records, nil
}

// States visits the orders that Redis knows in a state, some at a time. Orders whose state changes meanwhile may be
// left out, and some may be visited twice.
func (s *Stock) States(ctx context.Context, status order.Status, visit func([]order.Record) error) error {
	err := s.scan(ctx, orderPrefix+"*", func(keys []string) error {
		var ids []order.OrderID
		for _, key := range keys {
			if id, err := order.ParseID(strings.TrimPrefix(key, orderPrefix)); err == nil {
				ids = append(ids, id)
			}
		}

		records, err := s.Statuses(ctx, ids)
		if err != nil {
			return err
		}

		var found []order.Record
		for _, r := range records {
			if r != nil && r.Status == status {
				found = append(found, *r)
			}
		}
		if len(found) == 0 {
			return nil
		}
		return visit(found)
	})
	if err != nil {
		return fmt.Errorf("look for %s orders: %w", status, err)
	}
	return nil
}

// Forget removes the state of orders that were cancelled, as if they had never been.
func (s *Stock) Forget(ctx context.Context, orders []order.Order) error {
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range orders {
			p.Del(ctx, orderKey(orders[i].ID))
		}
		return nil
	})
	return err
}
