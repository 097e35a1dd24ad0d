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
	// serversMark is the mark in MySQL that names the servers of Redis by whose data all was well.
	serversMark = "redis servers"
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
	if err := w.reconcileAll(ctx); err != nil {
		w.warnReconcile(ctx, err)
	}
}

func (w *Worker) reconcileAll(ctx context.Context) error {
	servers, err := w.stock.Servers(ctx)
	if err != nil {
		return err
	}
	before, err := w.store.Mark(ctx, serversMark)
	if err != nil {
		return err
	}
	if before != servers {
		if err := w.stock.FindProducts(ctx); err != nil {
			return err
		}
	}
	products, err := w.stock.Products(ctx)
	if err != nil {
		return err
	}
	r := reconcile.Reconciler{
		Redis: w.stock, MySQL: w.store, Send: w.queue.SendOrders, Apply: true, Pause: before != "" && before != servers,
		StaleAge: w.staleAge, LostAge: w.lostAge,
	}
	if r.Pause {
		slog.Warn("Redis was started again or has failed over; every product is compared with MySQL", "products", len(products))
	}
	var errs []error
	for _, id := range products {
		one, cancel := context.WithTimeout(ctx, reconcileTimeout)
		report, err := r.Product(one, id)
		cancel()
		errs = append(errs, err)
		for _, f := range report.Findings {
			w.countDrift(id, f)
		}
	}
	if r.Pause {
		f, err := r.Statuses(ctx)
		errs = append(errs, err)
		w.countDrift(0, f)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if before == servers {
		return nil
	}
	return w.store.SetMark(ctx, serversMark, servers)
}

func (w *Worker) countDrift(productID int64, f reconcile.Finding) {
	if f.Orders == 0 {
		return
	}
	w.metrics.driftFound.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
	if f.Repaired {
		w.metrics.driftRepaired.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
	}
	slog.Warn("Redis differed from MySQL", "product", productID, "cause", f.Cause, "count", f.Orders, "units", f.Units, "repaired", f.Repaired)
}

func (w *Worker) warnReconcile(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		slog.Warn("Redis could not be compared with MySQL now", "error", err)
	}
}
