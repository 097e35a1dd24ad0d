package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/reconcile"
)

const (
	// expireInterval is how often workers look for orders whose time to pay is over.
	expireInterval = 250 * time.Millisecond
	// expireRounds bounds how often more is due right after a look, so that a stop need not wait for long.
	expireRounds = 4
)

// expire cancels orders that were not paid in time, and puts their units on sale again: first those of which another
// worker has died in between. Several workers may do it at once: each passes over what another one has locked.
func (w *Worker) expire(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}
	err := w.bringReturned(ctx)
	onSale := make(chan error, 1) // while a batch goes on sale, the next one is cancelled
	onSale <- nil
	for range expireRounds {
		due, dueErr := w.ledger.Due(ctx)
		if err = errors.Join(err, dueErr); dueErr != nil || len(due) == 0 || ctx.Err() != nil {
			break
		}
		n := 0
		for stockID, ids := range due {
			n += len(ids)
			for batch := range slices.Chunk(ids, ledger.MaxBatch) {
				returned, expireErr := w.ledger.Expire(ctx, stockID, batch)
				err = errors.Join(err, expireErr, <-onSale)
				go func() { onSale <- w.expired(ctx, stockID, returned) }()
			}
		}
		if n < ledger.MaxDue || err != nil {
			break
		}
	}
	if err = errors.Join(err, <-onSale); err != nil && ctx.Err() == nil {
		slog.Warn("expire: orders that were not paid in time could not all be cancelled now", "error", err)
	}
}

// expired puts the units of orders of a product on sale again that have been cancelled.
func (w *Worker) expired(ctx context.Context, stockID order.StockID, returned []order.Returned) error {
	if len(returned) == 0 {
		return nil
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
