package main

import (
	"context"
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
)

// handleDeadLetters deals with what the queue itself has moved to the dead-letter queue, since no worker survived it
// or could decide it: its orders fail and give their units back. The message is marked with the reason, like those
// that workers write, and stays for the operator.
func (w *Worker) handleDeadLetters(ctx context.Context) {
	if w.gate.isShut() {
		return
	}
	dead := w.queue.DeadLetters()
	var handled []string
	for len(handled) < maxDeadLetters {
		letters, err := dead.Receive(ctx, 0, deadLettersHidden)
		if err != nil && ctx.Err() == nil {
			slog.Warn("the dead-letter queue could not be looked through now", "error", err)
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
	if err := dead.Hide(context.WithoutCancel(ctx), handled, 0); err != nil && ctx.Err() == nil {
		slog.Debug("dead letters stay hidden for a while", "error", err) // of those that were replaced it is no wonder
	}
}

// handleDeadLetter fails the orders of a message. If that cannot be done now, the next look tries again.
func (w *Worker) handleDeadLetter(ctx context.Context, dead *queue.Queue, m queue.Message) {
	reason := fmt.Sprintf("no worker could handle it in %d receives", m.ReceiveCount)
	orders, err := order.Decode([]byte(m.Body))
	if err != nil {
		reason = err.Error()
	}
	for _, o := range orders {
		work, cancel := context.WithTimeout(ctx, decideTimeout)
		defer cancel()
		decision, err := w.store.Fail(work, o, order.DeadLetter)
		if err == nil {
			w.metrics.decided([]order.Decision{decision})
			_, err = w.stock.Settle(work, o.ProductID, []order.Decision{decision})
		}
		if err == nil {
			err = w.stock.WriteDecided(work, []order.Record{decision.Record})
		}
		if err != nil {
			slog.Error("the order of a dead letter could not be failed now", "order", o.ID, "error", err)
			return
		}
		reason += fmt.Sprintf("; order %s is %s", o.ID, decision.Status)
	}
	// The copy comes first: a message that is there twice does no harm.
	if err := w.queue.DeadLetter(ctx, m.Body, reason, 0); err != nil {
		slog.Error("a dead letter could not be marked as handled now", "message", m.ID, "error", err)
		return
	}
	slog.Warn("a message that no worker could handle is a dead letter", "message", m.ID, "orders", len(orders), "reason", reason)
	w.metrics.deadLetters.WithLabelValues(causeRedriven).Inc()
	if err := dead.Delete(ctx, []string{m.Receipt}); err != nil {
		slog.Warn("a dead letter is there twice", "message", m.ID, "error", err)
	}
}
