package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

const (
	// maxAttempts is how often an order may fail for its own reason before it is given up.
	maxAttempts = 3
	// attemptPause is the wait before an order's second attempt; the third waits twice as long.
	attemptPause = 5 * time.Second
	// productPause is the wait before a product is tried again that alone cannot be decided: somebody else has locked
	// its row for long, or there is something wrong with it.
	productPause = time.Second
)

// decide decides the orders of one product in one transaction, and hands them on to be settled.
func (w *Worker) decide(stockID order.StockID, jobs []*job) {
	orders := make([]order.Order, len(jobs))
	for i, j := range jobs {
		orders[i] = j.order
	}
	w.progress.begin(stockID)
	defer w.progress.end(stockID)

	in := investigation{worker: w, stockID: stockID, alone: len(jobs) == 1}
	var decisions []order.Decision
	blame, err := w.persist(stockID, func(ctx context.Context) (err error) {
		start := time.Now()
		decisions, err = w.ledger.Decide(ctx, stockID, orders)
		w.metrics.decideSeconds.Observe(time.Since(start).Seconds())
		addSpans("decide", jobs, decisions, start, err)
		return err
	}, in.blame)

	switch {
	case err == nil:
		w.metrics.batchOrders.Observe(float64(len(jobs)))
		if jobs[0].last() {
			// If it has failed already, its dead letter may not have been written.
			w.finish(jobs[0], decisions[0], fmt.Sprintf("order %s had failed before", jobs[0].order.ID))
			return
		}
		w.metrics.decided(decisions)
		w.settles.Add(stockID, settlement{decisions, jobs})
	case blame != ofOrder:
		// The worker is stopping: what it holds goes back to the queue.
	case len(jobs) > 1:
		// One of the orders is at fault. Alone, each meets its own fate.
		for _, j := range jobs {
			w.decide(stockID, []*job{j})
		}
	default:
		w.fail(jobs[0], err)
	}
}

// persist calls f, which concerns orders of one product, until it succeeds or fails by the fault of an order. While
// everything is at fault the breaker is open; while only the product is, it waits alone. When receiving has ended, f is
// not called again.
func (w *Worker) persist(stockID order.StockID, f func(context.Context) error, blame func(error) fault) (fault, error) {
	for {
		// Not the context of receiving: what is under way when the worker stops is finished.
		ctx, cancel := context.WithTimeout(context.Background(), decideTimeout)
		err := f(ctx)
		cancel()
		if err == nil {
			return 0, nil
		}

		whose := blame(err)
		switch whose {
		case ofOrder:
			return whose, err
		case ofProduct:
			slog.Warn("retry: the orders of a product must wait; others go on", "error", err)
			if sleep(w.receiving, w.productPause); w.receiving.Err() != nil {
				return whose, err
			}
		case ofAll:
			w.breaker.trip(w.receiving, err)
			if !w.breaker.wait(w.receiving) {
				return whose, err
			}
			w.progress.again(stockID)
		}
	}
}

// fail deals with an order that cannot be decided for a reason of its own. It is sent again, alone and
// later; after its last attempt it fails, gives its units back, and becomes a dead letter.
func (w *Worker) fail(j *job, reason error) {
	attempts := j.attempts + 1
	slog.Warn("decide: an order could not be decided", "order", j.order.ID, "attempt", attempts, "error", reason,
		telemetry.TraceID(j.trace))
	if attempts < maxAttempts {
		w.sendAgain(j, attempts)
		return
	}

	in := investigation{worker: w, stockID: j.order.StockID, alone: true}
	var decision order.Decision
	blame, err := w.persist(j.order.StockID, func(ctx context.Context) (err error) {
		decision, err = w.ledger.Fail(ctx, j.order, order.DeadLetter)
		return err
	}, in.blame)

	switch {
	case err == nil:
		w.finish(j, decision, fmt.Sprintf("order %s failed %d times: %s", j.order.ID, attempts,
			telemetry.ErrorText(reason)))
	case blame == ofOrder:
		// Its message comes back, until the queue's redrive policy makes it a dead letter.
		slog.Error("decide: an order could not be marked as failed", "order", j.order.ID, "error", err,
			telemetry.TraceID(j.trace))
		w.abandon([]*job{j})
	}
}

// sendAgain sends an order alone, to be decided later.
func (w *Worker) sendAgain(j *job, attempts int) {
	messages, _ := queue.Pack([]order.Order{j.order})
	again := messages[0]
	again.Attributes = map[string]string{queue.AttemptsAttribute: strconv.Itoa(attempts)}
	again.Delay = time.Duration(attempts) * w.attemptPause
	if place := telemetry.FormatPlaces([]telemetry.Place{j.trace}); place != "" {
		again.Attributes[telemetry.TraceAttribute] = place
	}

	ctx, cancel := context.WithTimeout(context.Background(), decideTimeout)
	defer cancel()
	var sent bool
	w.queue.Send(ctx, []queue.Outgoing{again}, func(_ int, r queue.Result) { sent = r.Outcome == queue.Sent })

	// The message from which it came goes only when the new one is there.
	if sent {
		w.metrics.retries.Inc()
		w.done([]*job{j})
	} else {
		w.abandon([]*job{j})
	}
}

// body is the body of a message with one order.
func body(o order.Order) string {
	bodies, _ := order.Pack([]order.Order{o})
	return string(bodies[0])
}

// finish deals with the decision of an order after its last attempt. If it failed as a dead letter its
// message becomes one before anything else, so that one that comes back is not forgotten.
func (w *Worker) finish(j *job, decision order.Decision, reason string) {
	w.metrics.decided([]order.Decision{decision})
	if decision.FailedReason == order.DeadLetter {
		if err := w.queue.DeadLetter(context.Background(), body(j.order), reason, maxAttempts); err != nil {
			slog.Error("dead letters: a dead letter could not be written; its message will come back",
				"order", j.order.ID, "error", err, telemetry.TraceID(j.trace))
			w.abandon([]*job{j})
			return
		}
		w.metrics.deadLetters.WithLabelValues(causeUndecidable).Inc()
		slog.Warn("decide: an order has failed too often and is now a dead letter", "order", j.order.ID,
			"reason", reason, telemetry.TraceID(j.trace))
	}
	w.settles.Add(j.order.StockID, settlement{[]order.Decision{decision}, []*job{j}})
}

// settle clears the reservations of decided orders, and has the messages deleted. Until that is done the messages are
// kept.
func (w *Worker) settle(stockID order.StockID, settlements []settlement) {
	for _, s := range settlements {
		if w.unreachable.is(stockID) {
			w.giveBack(w.receiving, stockID, deliveriesOf(s.jobs))
			continue
		}

		start := time.Now()
		whose, err := w.clearReservations(stockID, s.decisions, w.blameInRedis(stockID, start))
		addSpans("settle", s.jobs, s.decisions, start, err)

		// If that failed the decisions stand; who receives the messages next settles them. A stop may have ended it
		// early.
		switch {
		case err == nil:
			w.done(s.jobs)
		case redis.Rejected(err):
			slog.Error("settle: decided orders could not be settled; their messages will come back",
				"product", stockID, "error", err)
			w.abandon(s.jobs)
		case whose == ofOrder:
			slog.Warn("settle: the master of a product does not answer; its messages are given back",
				"product", stockID, "error", err)
			w.giveBack(w.receiving, stockID, deliveriesOf(s.jobs))
		}
	}
}

// clearReservations settles decisions until that has succeeded, and does so as fresh only for as long as it has
// certainly not been done.
func (w *Worker) clearReservations(stockID order.StockID, decisions []order.Decision,
	blame func(error) fault) (fault, error) {
	unknown := func(err error) bool { return !redis.NotExecuted(err) && !redis.Rejected(err) }
	count := func(moved stock.Settled, err error) error {
		w.metrics.givenBack.Add(float64(moved.GivenBack))
		w.metrics.takenOut.Add(float64(moved.TakenOut))
		return err
	}

	whose, err := w.persist(stockID, func(ctx context.Context) error {
		return count(w.stock.Settle(ctx, stockID, decisions))
	}, func(err error) fault {
		if unknown(err) {
			return ofOrder // so that it is not repeated as it is
		}
		return blame(err)
	})
	switch {
	case err == nil || !unknown(err):
		return whose, err
	case w.receiving.Err() != nil: // the messages go back to the queue
		return ofAll, err
	}

	// It may have been carried out. Repeating it must not take units out again.
	return w.persist(stockID, func(ctx context.Context) error {
		return count(w.stock.SettleAgain(ctx, stockID, decisions))
	}, blame)
}
