package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/reconcile"
)

const (
	// reconcileInterval is how often one of the workers reconciles the products that Redis holds.
	reconcileInterval = 15 * time.Second
	// reconcileTimeout bounds the reconciling of one product.
	reconcileTimeout = 15 * time.Second
	// drainedAge is how long queue and dead-letter queue must have been seen empty for what is older to be on neither.
	// The counts of SQS may be a minute old.
	drainedAge = 5 * time.Minute
	// serversMark is the mark in MySQL that names the servers of Redis by whose data all was well. Each product has a
	// mark of its own, in Redis, so that what cannot be compared concerns nobody else.
	serversMark = "redis servers"
	// searchMark is the mark of how far the search for loaded products has come. searchPages bounds what a look of it
	// adds: some milliseconds of each server's time, for 20,000 of its keys.
	searchMark  = "redis search"
	searchPages = 20
	// lostMark is the mark of how many products and buckets have lost commits in MySQL, which all workers show.
	lostMark = "mysql lost commits"
)

// errGaveUp says that orders were on their way to their decisions for as long as the sale may be paused.
var errGaveUp = errors.New("orders were on their way all the time; it is tried again")

// reconcile repairs what the faults of the past have left in Redis. Of several workers one does it at a time. If
// the servers of Redis are others than before, data may have been lost that nothing else tells of: then each
// sale is paused for a moment, to be compared as it is.
func (w *Worker) reconcile(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}
	// Two may do it, so that a lock that nobody can take, as its server is away, keeps nobody from comparing the
	// others.
	first, err := w.redis.TryLock(ctx, "reconcile", w.reconcileInterval-w.reconcileInterval/8)
	if err != nil || first {
		err = errors.Join(err, w.reconcileAll(ctx))
	}
	w.warnReconcile(ctx, errors.Join(err, w.showLostCommits(ctx)))
}

// showLostCommits shows of how many products MySQL has lost commits, as whoever reconciled last has found.
func (w *Worker) showLostCommits(ctx context.Context) error {
	text, err := w.db.Mark(ctx, lostMark)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(text) // none at first
	w.metrics.lostCommits.Set(float64(n))
	return nil
}

// noteLostCommits keeps for the other workers of how many products MySQL has lost commits. If not all could be looked
// at there are no fewer than before.
func (w *Worker) noteLostCommits(ctx context.Context, n int, all bool) error {
	text, err := w.db.Mark(ctx, lostMark)
	if err != nil {
		return err
	}
	before, _ := strconv.Atoi(text)
	if n == before || n < before && !all {
		return nil
	}
	return w.db.SetMark(ctx, lostMark, strconv.Itoa(n))
}

// reconcileAll compares all products with MySQL. While a master of a Cluster is away its products fail, and with them
// what concerns all of Redis; those of the others are compared all the same.
func (w *Worker) reconcileAll(ctx context.Context) error {
	before, err := w.db.Mark(ctx, serversMark)
	if err != nil {
		return err
	}

	// Of servers that are new, no list of products can be trusted.
	var errs []error
	servers, err := w.redis.Servers(ctx)
	known := err == nil
	if known && before != servers {
		err = w.stock.FindProducts(ctx)
	}
	errs = append(errs, err, w.searchProducts(ctx))

	products, err := w.products(ctx)
	errs = append(errs, err)
	moved := known && before != "" && before != servers
	if moved {
		slog.Warn("reconcile: Redis was started again or has failed over; every product is compared with MySQL",
			"products", len(products))
	}

	drained, err := w.drained(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}

	lost := 0
	for _, id := range products {
		lossy, err := w.reconcileProduct(ctx, id, moved, drained, servers)
		if err != nil {
			errs = append(errs, fmt.Errorf("product %d: %w", id, err))
		}
		if lossy {
			lost++
		}
	}

	if err := w.noteLostCommits(ctx, lost, errors.Join(errs...) == nil); err != nil {
		errs = append(errs, err)
	}
	// The servers count as compared only if nothing has failed.
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if before == servers {
		return nil
	}
	return w.db.SetMark(ctx, serversMark, servers)
}

// searchProducts looks through a part of Redis for products that are loaded and not in the set of them, which nobody
// would relay or compare. Whichever worker reconciles next goes on from there.
func (w *Worker) searchProducts(ctx context.Context) error {
	from, err := w.db.Mark(ctx, searchMark)
	if err != nil {
		return err
	}
	next, found, err := w.stock.SearchProducts(ctx, from, searchPages)
	if found > 0 {
		slog.Warn("reconcile: products were loaded that were not in the set of loaded products; they are relayed and "+
			"compared now",
			"products", found)
	}
	if err != nil || next == from {
		return err
	}
	return w.db.SetMark(ctx, searchMark, next)
}

// drained reports whether the queue and its dead-letter queue have been empty for some minutes, as far as this worker
// has seen. What came and went between two looks does not matter: it was younger.
func (w *Worker) drained(ctx context.Context) (bool, error) {
	depth, err := w.queue.Depth(ctx)
	if err != nil {
		return false, err
	}
	if !depth.Empty() || depth.Dead > 0 {
		w.emptySince = time.Time{}
		return false, nil
	}
	if w.emptySince.IsZero() {
		w.emptySince = time.Now()
	}
	return time.Since(w.emptySince) >= w.drainedAge, nil
}

// reconcileProduct reconciles a product. If the servers of Redis have changed its sale is paused for it, unless it was
// compared by the data of these servers before. It reports whether MySQL has lost commits of the product.
func (w *Worker) reconcileProduct(ctx context.Context, id order.StockID, moved, drained bool,
	servers string) (lost bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	r := reconcile.Reconciler{
		Redis: w.stock, MySQL: w.ledger, Send: w.queue.SendOrders, Locks: w.redis, Apply: true, Drained: drained,
		StaleAge: w.staleAge, LostAge: w.lostAge,
	}

	// A comparison that was made by the data of these servers need not be made again.
	if moved {
		by, err := w.stock.ComparedBy(ctx, id)
		if err != nil {
			return false, err
		}
		r.Pause = by != servers
	}

	report, err := r.Product(ctx, id)
	for _, f := range report.Findings { // also those before an error
		w.countDrift(id, f)
	}
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		slog.Error("reconcile: Redis has a product that MySQL does not know", "product", id)
		return false, w.stock.ForgetProduct(ctx, id)
	case report.LostCommits():
		slog.Error("reconcile: MySQL has lost commits of a product: completed orders are gone, and nothing is "+
			"corrected until you say what holds",
			"product", id, "see", "docs/runbook.md#mysqllostcommits")
		return true, err
	case err != nil:
		return false, err
	case !report.Loaded:
		return false, w.stock.ForgetUnloaded(ctx, id)
	case !r.Pause:
		return false, nil
	case report.Busy:
		return false, errGaveUp
	}
	return false, w.stock.SetComparedBy(ctx, id, servers)
}

func (w *Worker) countDrift(stockID order.StockID, f reconcile.Finding) {
	if f.Orders == 0 {
		return
	}
	w.metrics.driftFound.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
	if f.Repaired {
		w.metrics.driftRepaired.WithLabelValues(string(f.Cause)).Add(float64(f.Orders))
	}
	slog.Warn("reconcile: Redis differed from MySQL", "product", stockID, "cause", f.Cause, "count", f.Orders,
		"units", f.Units, "repaired", f.Repaired)
}

func (w *Worker) warnReconcile(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		slog.Warn("reconcile: Redis could not be compared with MySQL now", "error", err)
	}
}
