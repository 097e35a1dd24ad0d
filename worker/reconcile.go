package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"stampede/internal/reconcile"
)

const (
	// reconcileInterval is how often one of the workers reconciles the products that Redis holds.
	reconcileInterval = 15 * time.Second
	// reconcileTimeout bounds the reconciling of one product.
	reconcileTimeout = 15 * time.Second
)

// reconcile repairs what the faults of the past have left in Redis. Of several workers one does it at a time. If
// the servers of Redis are others than before, data may have been lost that nothing else tells of: then each
// sale is paused for a moment, to be compared as it is.
func (w *Worker) reconcile(ctx context.Context) {
	if w.gate.isShut() {
		return
	}
	first, err := w.stock.TryLock(ctx, "reconcile", w.reconcileInterval-w.reconcileInterval/8)
	if err != nil || !first {
		w.warnReconcile(ctx, err)
		return
	}
	servers, err := w.stock.Servers(ctx)
	if err != nil {
		w.warnReconcile(ctx, err)
		return
	}
	failedOver := w.servers != "" && w.servers != servers
	products, err := w.stock.Products(ctx)
	if err != nil {
		w.warnReconcile(ctx, err)
		return
	}
	if failedOver {
		slog.Warn("Redis was started again or has failed over; every product is compared with MySQL", "products", len(products))
	}
	var errs []error
	for _, id := range products {
		errs = append(errs, w.reconcileProduct(ctx, id, failedOver))
	}
	if err := errors.Join(errs...); err != nil {
		w.warnReconcile(ctx, err)
		return
	}
	w.servers = servers
}

func (w *Worker) reconcileProduct(ctx context.Context, id int64, pause bool) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	r := reconcile.Reconciler{Redis: w.stock, MySQL: w.store, Send: w.queue.SendOrders, Apply: true, Pause: pause,
		StaleAge: w.staleAge, LostAge: w.lostAge}
	report, err := r.Product(ctx, id)
	for _, f := range report.Findings {
		w.metrics.driftFound.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
		if f.Repaired {
			w.metrics.driftRepaired.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
		}
		slog.Warn("Redis differed from MySQL", "product", id, "cause", f.Cause, "count", f.Orders, "units", f.Units, "repaired", f.Repaired)
	}
	return err
}

func (w *Worker) warnReconcile(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		slog.Warn("Redis could not be compared with MySQL now", "error", err)
	}
}
