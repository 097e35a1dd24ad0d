package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/localstack"
)

// probeSaturation runs edge and worker against each other, and counts every request to the queue until all is settled,
// and the bytes of the messages.
func probeSaturation(ctx context.Context, b *bench) (figures, error) {
	if err := errors.Join(b.reset(ctx), b.truncate(ctx)); err != nil {
		return nil, err
	}

	before := total(b.stack.SQS.Requests())
	wireBefore, billedBefore := b.stack.SQS.SentBytes()
	worker, err := b.startWorker(ctx)
	if worker != nil {
		defer func() { _ = worker.Kill() }()
	}
	if err != nil {
		return nil, err
	}

	begin := time.Now()
	r, err := b.rate(ctx, b.edge, b.orders, fasthttp.StatusAccepted)
	if err != nil {
		return nil, err
	}

	if _, err := b.untilEmpty(ctx, localstack.QueueName, drainLimit); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	if err := b.checkDecided(ctx, b.hot.ID, r.all.all()); err != nil {
		return nil, err
	}

	requests := total(b.stack.SQS.Requests()) - before
	wireAfter, billedAfter := b.stack.SQS.SentBytes()
	orders := float64(r.all.all())
	return figures{
		"saturation":                   float64(requests) / orders,
		"saturation/bytes":             float64(wireAfter-wireBefore) / orders,
		"saturation/billed bytes":      float64(billedAfter-billedBefore) / orders,
		"saturation/accepted orders/s": r.perSecond,
		"saturation/decided orders/s":  orders / took.Seconds(),
	}, nil
}

func total(counts map[string]int64) (n int64) {
	for _, count := range counts {
		n += count
	}
	return n
}

// untilEmpty waits until a queue is empty, or for as long as the limit says, and returns how many messages are left.
func (s *side) untilEmpty(ctx context.Context, name string, limit time.Duration) (left int, err error) {
	for end := time.Now().Add(limit); ; wait(ctx, drainLook) {
		if left = s.stack.SQS.Messages(name); left == 0 || time.Now().After(end) || ctx.Err() != nil {
			return left, ctx.Err()
		}
	}
}

// drain takes the time from the first receive that is answered until the queue is empty, or the limit is over.
func (s *side) drain(ctx context.Context, name string, limit time.Duration, start func() error) (
	left int, took time.Duration, err error,
) {
	const receive = "ReceiveMessage"
	before := s.stack.SQS.Requests()[receive]
	started := make(chan error, 1)
	go func() { started <- start() }() // a worker that is ready has begun already
	end := time.Now().Add(StartWait)
	for s.stack.SQS.Requests()[receive] == before && time.Now().Before(end) && ctx.Err() == nil {
		wait(ctx, drainLook)
	}
	begin := time.Now()
	s.mark()
	left, err = s.untilEmpty(ctx, name, limit)
	took = time.Since(begin)
	s.mark()
	return left, took, errors.Join(err, <-started)
}

// probeDrain lets an edge fill the queue, as it fills it in a rush, and then a worker empty it.
func probeDrain(ctx context.Context, b *bench) (figures, error) {
	perSecond, perMessage, err := b.fillAndDrain(ctx, b.o.duration, unpaid)
	return figures{"drain": perSecond, "drain/orders per message": perMessage}, err
}

// probePaymentDrain is probeDrain with orders that await their payment when they are decided.
func probePaymentDrain(ctx context.Context, b *bench) (figures, error) {
	perSecond, _, err := b.fillAndDrain(ctx, b.o.duration, awaiting)
	return figures{"payment drain": perSecond}, err
}

// probePointsDrain is probeDrain with orders that are paid with points, each user's own, by the decision.
func probePointsDrain(ctx context.Context, b *bench) (figures, error) {
	perSecond, _, err := b.fillAndDrain(ctx, b.o.duration, byPoints)
	return figures{"points drain": perSecond}, err
}

// paying is how the orders of a measurement are paid.
type paying int

const (
	unpaid paying = iota
	awaiting
	byPoints
)

// prepare has the orders of a product paid in another way, and returns the requests to order it.
func (s *side) prepare(ctx context.Context, stockID order.StockID, how paying) ([][]byte, error) {
	switch how {
	case awaiting:
		_, err := s.sale.Ledger.UpdateProduct(ctx, stockID.Product(), func(p *order.Product) {
			p.Payment = order.PaymentRequired
		})
		return s.requests(stockID), err
	case byPoints:
		_, err := s.sale.Ledger.UpdateProduct(ctx, stockID.Product(), func(p *order.Product) { p.PointsPrice = 1 })
		if err == nil { // enough for all orders of a measurement
			_, err = s.db.ExecContext(ctx, fmt.Sprintf(`INSERT INTO wallets (user_id, balance, earned, spent, version)
				SELECT seq, 1000000, 1000000, 0, 0 FROM seq_1_to_%d`, benchUsers))
		}
		return s.requestsOf(fmt.Sprintf(`{"product_id":%d,"quantity":1,"pay_with":"points"}`, stockID)), err
	default:
		return s.requests(stockID), nil
	}
}

// fillAndDrain lets the edge fill the queue with about as many orders as are decided in a time, and then a worker empty
// it. It returns how many orders it has decided a second, and how many a message had.
func (s *side) fillAndDrain(ctx context.Context, d time.Duration,
	how paying) (perSecond, perMessage float64, err error) {
	if err := errors.Join(s.reset(ctx), s.truncate(ctx)); err != nil {
		return 0, 0, err
	}

	// An edge fills the queue.
	n := int64(math.Ceil(drainPerS * d.Seconds()))
	product, err := s.addProduct(ctx, n)
	if err != nil {
		return 0, 0, err
	}
	requests, err := s.prepare(ctx, product.ID, how)
	if err != nil {
		return 0, 0, err
	}
	l := rawLoad{addr: s.edge, conns: closedConns, requests: requests}
	counts, err := l.count(ctx, n)
	if err := errors.Join(err, counts.only(fasthttp.StatusAccepted)); err != nil {
		return 0, 0, err
	}

	// A worker empties it.
	messages := s.stack.SQS.Messages(localstack.QueueName)
	left, took, err := s.drain(ctx, localstack.QueueName, drainLimit, func() error {
		worker, err := s.startWorker(ctx)
		if worker != nil {
			s.later(func() { _ = worker.Kill() })
		}
		return err
	})

	s.cleanUp()
	if err == nil && left > 0 {
		err = fmt.Errorf("%d messages were left after %s", left, took)
	}
	if err != nil {
		return 0, 0, err
	}

	if s.ctl != "" {
		err = s.checkSold(ctx, product.ID)
	} else {
		err = s.checkDecided(ctx, product.ID, n)
	}
	return float64(n) / took.Seconds(), float64(n) / float64(messages), err
}

// probeDurable drains the queue on a MariaDB that syncs its log and its binary log at every commit, as a server must to
// lose none when its machine fails. The stack's own syncs once a second.
func probeDurable(ctx context.Context, b *bench) (figures, error) {
	const name = "durable"
	if b.others[name] == nil {
		_, err := b.addSide(ctx, name, sideOptions{bin: b.bin, stack: localstack.Options{MariaDBArgs: []string{
			"--log-bin=binlog", "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1",
		}}})
		if err != nil {
			return nil, err
		}
	}
	perSecond, _, err := b.others[name].fillAndDrain(ctx, b.o.duration, unpaid)
	b.bound = b.others[name].bound
	return figures{"durable": perSecond}, err
}

// probeTextbookDrain gives the textbook worker more than it can do in the time.
func probeTextbookDrain(ctx context.Context, b *bench) (figures, error) {
	if err := errors.Join(b.reset(ctx), b.truncate(ctx)); err != nil {
		return nil, err
	}

	n := int(math.Ceil(2 * textbookPerS * b.o.duration.Seconds()))
	product, err := b.addProduct(ctx, int64(n))
	if err != nil {
		return nil, err
	}

	messages := make([]queue.Outgoing, n)
	for i := range messages {
		bodies, _ := order.Pack([]order.Order{{
			ID: order.NewID(), UserID: order.UserID(i%benchUsers + 1), StockID: product.ID, Quantity: 1,
			UnitPrice: product.Price, ReservedAt: time.Now().UTC(),
		}})
		messages[i].Body = string(bodies[0])
	}
	if err := b.sendTextbook(ctx, messages); err != nil {
		return nil, err
	}

	left, took, err := b.drain(ctx, textbookQueue, max(b.o.duration, leastTextbook), func() error {
		p, err := b.startProgram("textbook-worker")
		if p != nil {
			b.later(func() { _ = p.Kill() })
		}
		return err
	})
	b.cleanUp()
	if err != nil {
		return nil, err
	}

	decided, err := b.completed(ctx, product.ID)
	if err == nil && (decided < int64(n-left) || decided == 0) {
		err = fmt.Errorf("%d messages are gone, and %d orders are decided", n-left, decided)
	}
	return figures{"textbook drain": float64(n-left) / took.Seconds()}, err
}

// probeInsert inserts rows as the worker writes them, and locks nothing else.
func probeInsert(ctx context.Context, b *bench) (figures, error) {
	if err := b.truncate(ctx); err != nil {
		return nil, err
	}

	end := time.Now().Add(b.o.duration)
	var rows atomic.Int64
	errs := make([]error, insertConns)
	var all sync.WaitGroup

	b.mark()
	begin := time.Now()
	for i := range errs {
		all.Go(func() {
			var text []byte
			for time.Now().Before(end) && ctx.Err() == nil {
				now := time.Now().UTC().Format("2006-01-02 15:04:05.000")
				text = append(text[:0], `INSERT INTO orders (id, user_id, product_id, quantity, unit_price, currency,
					status, failed_reason, reserved_at, decided_at, version) VALUES `...)
				for n := range insertRows {
					if n > 0 {
						text = append(text, ',')
					}
					id := order.NewID()
					text = fmt.Appendf(text, "(x'%x',%d,1,1,1999,'EUR','completed',NULL,'%s','%s',0)",
						id[:], (rows.Load()+int64(n))%benchUsers+1, now, now)
				}
				if _, errs[i] = b.db.ExecContext(ctx, string(text)); errs[i] != nil {
					return
				}
				rows.Add(insertRows)
			}
		})
	}

	all.Wait()
	took := time.Since(begin)
	b.mark()
	return figures{"insert": float64(rows.Load()) / took.Seconds()}, errors.Join(errs...)
}
