package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/reconcile"
)

const (
	// expireInterval is how often workers look for orders whose time to pay is over.
	expireInterval = 250 * time.Millisecond
	// expireRounds bounds how many batches one look goes through, so that a stop need not wait for long.
	expireRounds = 20
)

// expire cancels orders that were not paid in time, and puts their units on sale again: first those of which another
// worker has died in between. Several workers may do it at once: each passes over what another one has locked.
func (w *Worker) expire(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}
	err := w.bringReturned(ctx)
	for range expireRounds {
		due, dueErr := w.ledger.Due(ctx)
		if err = errors.Join(err, dueErr); dueErr != nil || len(due) == 0 || ctx.Err() != nil {
			break
		}
		n := 0
		for stockID, ids := range due {
			n += len(ids)
			err = errors.Join(err, w.expireOrders(ctx, stockID, ids))
		}
		if n < ledger.MaxBatch || err != nil {
			break
		}
	}
	if err != nil && ctx.Err() == nil {
		slog.Warn("expire: orders that were not paid in time could not all be cancelled now", "error", err)
	}
}

// expireOrders cancels those of the orders of a product that are due.
func (w *Worker) expireOrders(ctx context.Context, stockID order.StockID, ids []order.OrderID) error {
	returned, err := w.ledger.Expire(ctx, stockID, ids)
	if err != nil || len(returned) == 0 {
		return err
	}
	w.metrics.cancelled.Add(float64(len(returned)))
	slog.Info("expire: orders were not paid in time and are cancelled", "product", stockID, "orders", len(returned))
	return w.putOnSale(ctx, stockID, returned)
}

// bringReturned puts units on sale again of which there are reminders that Redis may not have them.
func (w *Worker) bringReturned(ctx context.Context) (err error) {
	returning, err := w.ledger.Returning(ctx)
	for stockID, returned := range returning {
		err = errors.Join(err, w.putOnSale(ctx, stockID, returned))
	}
	return err
}

// putOnSale puts units on sale again that MySQL has taken back.
func (w *Worker) putOnSale(ctx context.Context, stockID order.StockID, returned []order.Returned) error {
	units, err := reconcile.Return(ctx, w.stock, w.ledger, stockID, returned)
	w.metrics.returned.Add(float64(units))
	return err
}
