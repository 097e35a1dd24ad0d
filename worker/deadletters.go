package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
)

const (
	// deadLettersInterval is how often the dead-letter queue is looked through.
	deadLettersInterval = 30 * time.Second
	// maxDeadLetters bounds the messages of one look.
	maxDeadLetters = 1_000
	// deadLettersHidden is how long a look may take before others see its messages again.
	deadLettersHidden = time.Minute
	// decisionLock is for how long it is remembered that an order of a dead letter is being decided: for many more
	// looks than it takes to find that the worker has not survived it.
	decisionLock = 10 * time.Minute
)

// handleDeadLetters deals with what the queue itself has moved to the dead-letter queue, since no worker survived it
// or could decide it. Its orders are decided after all, each alone: they may have shared their workers with whatever
// killed them. What no worker survives even so fails and gives its units back; the message is then marked with the
// reason, like those that workers write, and stays for the operator.
func (w *Worker) handleDeadLetters(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}

	dead := w.queue.DeadLetters()
	var handled []string
	for len(handled) < maxDeadLetters {
		letters, err := dead.Receive(ctx, 0, deadLettersHidden)
		if err != nil && ctx.Err() == nil {
			slog.Warn("dead letters: the dead-letter queue could not be looked through now", "error", err)
		}
		if err != nil || len(letters) == 0 {
			break
		}
		for _, m := range letters {
			handled = append(handled, m.Receipt)
			if m.Attributes[queue.ReasonAttribute] == "" {
				w.handleDeadLetter(ctx, dead, m)
			}
		}
	}

	// What stays is there for others to see at once.
	if err := dead.ChangeVisibility(context.WithoutCancel(ctx), handled, 0); err != nil && ctx.Err() == nil {
		// Of those that were replaced it is no wonder.
		slog.Debug("dead letters: messages stay hidden for a while", "error", err)
	}
}

// handleDeadLetter decides the orders of a message, or fails them. If that cannot be done now, the next look tries
// again.
func (w *Worker) handleDeadLetter(ctx context.Context, dead *queue.Queue, m queue.Message) {
	reason := fmt.Sprintf("no worker could handle it in %d receives", m.ReceiveCount)
	orders, err := order.Decode([]byte(m.Body))
	if err != nil {
		reason = err.Error()
	}

	undecidable := err != nil
	for _, o := range orders {
		decision, err := w.decideDeadLetter(ctx, o)
		if err != nil {
			slog.Error("dead letters: an order could not be decided now", "order", o.ID, "error", err)
			return
		}
		undecidable = undecidable || decision.FailedReason == order.DeadLetter
		reason += fmt.Sprintf("; order %s is %s", o.ID, decision.Status)
	}

	if undecidable {
		// The copy comes first: a message that is there twice does no harm.
		if err := w.queue.DeadLetter(ctx, m.Body, reason, 0); err != nil {
			slog.Error("dead letters: a message could not be marked as handled now", "message", m.ID, "error", err)
			return
		}
		w.metrics.deadLetters.WithLabelValues(causeRedriven).Inc()
	}

	slog.Warn("dead letters: a message that no worker could handle was dealt with", "message", m.ID, "orders",
		len(orders),
		"remains", undecidable, "reason", reason)
	if err := dead.Delete(ctx, []string{m.Receipt}); err != nil {
		slog.Warn("dead letters: a message is there twice", "message", m.ID, "error", err)
	}
}

// decideDeadLetter decides an order of a dead letter, alone, and settles it. It fails one that cannot be decided for a
// reason of its own, and one that a worker has begun to decide and not come back from.
func (w *Worker) decideDeadLetter(ctx context.Context, o order.Order) (order.Decision, error) {
	work, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()

	mark := "judge:" + o.ID.String()
	first, err := w.redis.TryLock(work, mark, decisionLock)
	if err != nil {
		return order.Decision{}, err
	}

	var decision order.Decision
	own := !first
	if first {
		decision, own, err = w.tryAlone(work, o)
		if err != nil && !own {
			// This worker has survived it, so that the next look may try again.
			return decision, errors.Join(err, w.redis.Unlock(context.WithoutCancel(ctx), mark))
		}
	}
	if own {
		if decision, err = w.ledger.Fail(work, o, order.DeadLetter); err != nil {
			return decision, err
		}
	}

	w.metrics.decided([]order.Decision{decision})
	_, err = w.stock.Settle(work, o.StockID, []order.Decision{decision})
	return decision, err
}

// tryAlone decides an order. If that fails, own reports whether it does so for a reason of the order's own.
func (w *Worker) tryAlone(ctx context.Context, o order.Order) (decision order.Decision, own bool, err error) {
	in := investigation{worker: w, stockID: o.StockID, alone: true}
	for range maxRefusals {
		var decisions []order.Decision
		if decisions, err = w.ledger.Decide(ctx, o.StockID, []order.Order{o}); err == nil {
			return decisions[0], false, nil
		}
		switch in.blame(err) {
		case ofOrder:
			return decision, true, err
		case ofAll:
			return decision, false, err
		}
		sleep(ctx, w.productPause)
	}
	return decision, false, err
}
