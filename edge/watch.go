package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"stampede/internal/order"
	"stampede/internal/stock"
)

const (
	// watchInterval is how often the orders that somebody waits for are looked at.
	watchInterval = 50 * time.Millisecond
	// unknownInterval is how often MySQL is asked for one that neither Redis nor MySQL has heard of.
	unknownInterval = time.Second
	// maxWatches bounds the clients that wait; a further one is answered at once.
	maxWatches = 10_000
)

// watcher waits for decisions. It asks Redis for all awaited orders of a product together, and MySQL for those that are
// not pending any more, so that a crowd of waiting clients costs a few calls a second.
type watcher struct {
	stock  *stock.Stock
	finder *finder
	stop   chan struct{} // closed when the edge stops: nobody waits any longer

	mu      sync.Mutex
	waiting map[order.OrderID]*watch
	count   int
	running bool
	loop    sync.WaitGroup
}

// watch is an order that some clients wait for.
type watch struct {
	stockID order.StockID // in which it is pending; 0 if that is not known
	askAt   time.Time     // before which MySQL is not asked
	clients []chan *order.Record
}

// wait returns the record of a user's order as soon as it is decided, or nil after d. Of an order of somebody else it
// takes no notice. The product or bucket in which the order is pending is 0 if it is not known.
func (w *watcher) wait(id order.OrderID, stockID order.StockID, userID order.UserID, d time.Duration) *order.Record {
	decided := make(chan *order.Record, 1)
	if !w.begin(id, stockID, decided) {
		return nil
	}

	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case record := <-decided:
		if record.UserID == userID {
			return record
		}
		// It is somebody else's order, of which the answer must not come sooner than of none.
		select {
		case <-timer.C:
		case <-w.stop:
		}
		return nil
	case <-timer.C:
	case <-w.stop:
	}
	return w.end(id, userID, decided)
}

// begin takes a client in, unless too many wait.
func (w *watcher) begin(id order.OrderID, stockID order.StockID, decided chan *order.Record) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count >= maxWatches {
		return false
	}
	of := w.waiting[id]
	if of == nil {
		of = &watch{stockID: stockID}
		w.waiting[id] = of
	}
	of.clients = append(of.clients, decided)
	w.count++
	if !w.running {
		w.running = true
		w.loop.Go(w.run)
	}
	return true
}

// end lets a client go who waits no longer.
func (w *watcher) end(id order.OrderID, userID order.UserID, decided chan *order.Record) *order.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case record := <-decided: // at the last moment
		if record.UserID != userID {
			return nil
		}
		return record
	default:
	}

	of := w.waiting[id]
	of.clients = slices.DeleteFunc(of.clients, func(other chan *order.Record) bool { return other == decided })
	w.count--
	if len(of.clients) == 0 {
		delete(w.waiting, id)
	}
	return nil
}

// run looks after the waiting clients until there are none.
func (w *watcher) run() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for range ticker.C {
		w.mu.Lock()
		if len(w.waiting) == 0 {
			w.running = false
			w.mu.Unlock()
			return
		}
		products := make(map[order.StockID][]order.OrderID)
		for id, of := range w.waiting {
			products[of.stockID] = append(products[of.stockID], id)
		}
		w.mu.Unlock()

		for stockID, ids := range products {
			for some := range slices.Chunk(ids, stock.MaxBatch) {
				w.look(stockID, some)
			}
		}
	}
}

// look asks for orders of a product or bucket, and tells those who wait for one that is decided.
func (w *watcher) look(stockID order.StockID, ids []order.OrderID) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	if stockID != 0 {
		pending, err := w.stock.Pending(ctx, stockID, ids)
		if err != nil {
			slog.Warn("watch: waiting clients learn no decision", "orders", len(ids), "error", err)
			return
		}
		var gone []order.OrderID
		for i, id := range ids {
			if pending.Records[i] == nil {
				gone = append(gone, id)
			}
		}
		ids = gone
	}

	for some := range slices.Chunk(w.due(ids), maxRows) {
		records, err := w.finder.readDecided(ctx, some)
		if err != nil {
			slog.Warn("watch: waiting clients learn no decision", "orders", len(some), "error", err)
			return
		}
		w.tell(records)
	}
}

// due returns those of the orders for which MySQL may be asked now, and puts the next time off in case that it does not
// know them.
func (w *watcher) due(ids []order.OrderID) (due []order.OrderID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		if of := w.waiting[id]; of != nil && !of.askAt.After(now) {
			of.askAt = now.Add(unknownInterval)
			due = append(due, id)
		}
	}
	return due
}

// tell gives records to who waits for them.
func (w *watcher) tell(records map[order.OrderID]*order.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, record := range records {
		of := w.waiting[id]
		if of == nil {
			continue
		}
		for _, decided := range of.clients {
			decided <- record
		}
		w.count -= len(of.clients)
		delete(w.waiting, id)
	}
}
