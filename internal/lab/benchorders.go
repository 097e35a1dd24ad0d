package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"stampede/internal/ledger"
	"stampede/internal/order"
)

const (
	// orderMemory is of how many orders the memory is measured: a little less than a power of two, so that Redis's
	// tables, which double, are about full.
	orderMemory = 8_000
	// orderRehearsal are orders before them, so that scripts and whatever else comes with the first order are there.
	orderRehearsal = 100
	// orderDay is after how long Redis is looked at again, after the orders were decided.
	orderDay = 24 * time.Hour
	// scanCount is how many keys Redis is asked for at a time.
	scanCount = 1_000
)

// probeOrders measures what orders leave in Redis, and how long they are on the queue, each of another user, with an
// idempotency key, of a product with a limit: all that there can be. They go through an edge and a worker, so that
// whatever these write is counted. First they are in flight, reserved and on the queue. Then they are decided and
// settled. Then a day is over: it is not waited for, but what has at most a day left to live is taken out, which Redis
// would have done by then. What lives longer stays, such as a hash of a day's keys that goes as a whole when the last
// of them is a day old: it counts at whatever time of the day it is measured. So it is looked again after two days.
func probeOrders(ctx context.Context, b *bench) (figures, error) {
	if err := errors.Join(b.reset(ctx), b.truncate(ctx)); err != nil {
		return nil, err
	}
	product, err := b.sale.Ledger.AddProduct(ctx, order.Product{
		Name: "limited", Price: 1999, Currency: "EUR", Stock: ledger.MaxStock, LimitPerUser: 2,
	})
	if err != nil {
		return nil, err
	}
	requests := b.keyedRequests(product.ID)

	if err := b.orderAll(ctx, product.ID, requests[:orderRehearsal]); err != nil {
		return nil, err
	}
	if err := b.decideAll(ctx, product.ID, orderRehearsal); err != nil {
		return nil, err
	}
	var held [5]int64
	look := func(i int) (err error) {
		wait(ctx, rehashPause)
		held[i], err = b.redisBytes(ctx)
		return err
	}
	if err := look(0); err != nil {
		return nil, err
	}

	const last = orderRehearsal + orderMemory
	sentBefore, _ := b.stack.SQS.SentBytes()
	if err := b.orderAll(ctx, product.ID, requests[orderRehearsal:last]); err != nil {
		return nil, err
	}
	sent, _ := b.stack.SQS.SentBytes()
	if err := look(1); err != nil {
		return nil, err
	}
	if err := b.decideAll(ctx, product.ID, last); err != nil {
		return nil, err
	}
	if err := look(2); err != nil {
		return nil, err
	}
	for days := range 2 {
		if err := b.expire(ctx, time.Duration(days+1)*orderDay); err != nil {
			return nil, err
		}
		if err := look(3 + days); err != nil {
			return nil, err
		}
	}

	each := func(i int) float64 { return float64(held[i]-held[0]) / orderMemory }
	return figures{
		"orders/in flight": each(1), "orders/decided": each(2), "orders/a day later": each(3),
		"orders/two days later": each(4),
		"orders/sqs bytes":      float64(sent-sentBefore) / orderMemory,
	}, nil
}

// keyedRequests are orders of one unit by many users, each with an idempotency key.
func (s *side) keyedRequests(stockID order.StockID) [][]byte {
	const header = "Content-Type: application/json"
	requests := s.requests(stockID)
	for i, request := range requests {
		key := fmt.Appendf(nil, "Idempotency-Key: %s\r\n%s", uuid.NewString(), header)
		requests[i] = bytes.Replace(request, []byte(header), key, 1)
	}
	return requests
}

// orderAll sends each request once, and waits until none of the orders is in the outbox.
func (s *side) orderAll(ctx context.Context, stockID order.StockID, requests [][]byte) error {
	l := rawLoad{addr: s.edge, conns: closedConns, requests: requests}
	conns, err := l.dial(ctx, drainLimit)
	defer closeAll(conns)
	if err != nil {
		return err
	}
	turns := make(chan int, len(requests))
	for i := range requests {
		turns <- i
	}
	close(turns)
	counts := make([]statuses, len(conns))
	err = l.visits(ctx, conns, turns, func(conn, _, status int) { counts[conn][status]++ })
	all := sum(counts)
	if err := errors.Join(err, all.only(fasthttp.StatusAccepted)); err != nil {
		return err
	}
	for end := time.Now().Add(drainLimit); ; wait(ctx, pollStart) {
		level, err := s.sale.Stock.Level(ctx, stockID)
		if err != nil || level.Outbox == 0 {
			return err
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%d orders are still in the outbox", level.Outbox)
		}
	}
}

// decideAll runs a worker until all orders of a product are decided, so many.
func (s *side) decideAll(ctx context.Context, stockID order.StockID, orders int64) error {
	worker, err := s.startWorker(ctx)
	if worker != nil {
		defer func() { _ = worker.Kill() }()
	}
	if err != nil {
		return err
	}
	return s.awaitDecided(ctx, stockID, orders)
}

// awaitDecided waits until the orders of a product are completed and settled.
func (s *side) awaitDecided(ctx context.Context, stockID order.StockID, orders int64) error {
	for end := time.Now().Add(drainLimit); ; wait(ctx, pollStart) {
		err := s.checkDecided(ctx, stockID, orders)
		if err == nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// expire takes out of Redis what it would have dropped by itself within a time.
func (s *side) expire(ctx context.Context, within time.Duration) error {
	keys := s.rdb.Scan(ctx, 0, "*", scanCount).Iterator()
	for more := true; more; {
		var some []string
		for len(some) < scanCount {
			if more = keys.Next(ctx); !more {
				break
			}
			some = append(some, keys.Val())
		}
		left := make([]*redis.DurationCmd, len(some))
		if _, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range some {
				left[i] = p.PTTL(ctx, key)
			}
			return nil
		}); err != nil {
			return err
		}
		for i, key := range some {
			if ttl := left[i].Val(); ttl >= 0 && ttl <= within { // below 0 there is none
				if err := s.rdb.Del(ctx, key).Err(); err != nil {
					return err
				}
			}
		}
	}
	return keys.Err()
}
