package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"stampede/internal/order"
	"stampede/internal/stock"
)

const (
	// watchInterval is how often the state of the orders that somebody waits for is read.
	watchInterval = 50 * time.Millisecond
	// maxWatches bounds the clients that wait; a further one is answered at once.
	maxWatches = 10_000
)

// watcher waits for decisions. It asks Redis for all awaited orders together, so that a crowd of
// waiting clients costs a few calls a second.
type watcher struct {
	stock *stock.Stock
	stop  chan struct{} // closed when the edge stops: nobody waits any longer

	mu      sync.Mutex
	waiting map[order.OrderID][]chan *order.Record
	count   int
	running bool
	loop    sync.WaitGroup
}

// wait returns the record of a user's order as soon as it is decided, or nil after d. Of an order of somebody else it
// takes no notice.
func (w *watcher) wait(id order.OrderID, userID order.UserID, d time.Duration) *order.Record {
	decided := make(chan *order.Record, 1)
	w.mu.Lock()
	if w.count >= maxWatches {
		w.mu.Unlock()
		return nil
	}
	w.waiting[id] = append(w.waiting[id], decided)
	w.count++
	if !w.running {
		w.running = true
		w.loop.Go(w.run)
	}
	w.mu.Unlock()

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

	// Nobody waits any longer.
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

	for i, other := range w.waiting[id] {
		if other == decided {
			w.waiting[id] = append(w.waiting[id][:i], w.waiting[id][i+1:]...)
			w.count--
			break
		}
	}
	if len(w.waiting[id]) == 0 {
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
		ids := make([]order.OrderID, 0, len(w.waiting))
		for id := range w.waiting {
			ids = append(ids, id)
		}
		w.mu.Unlock()

		for len(ids) > 0 {
			n := min(len(ids), stock.MaxBatch)
			records, err := w.stock.Statuses(context.Background(), ids[:n])
			if err != nil {
				slog.Warn("watch: waiting clients learn no decision", "orders", n, "error", err)
				break
			}
			w.tell(records)
			ids = ids[n:]
		}
	}
}

// tell gives the decided ones of these records to who waits for them.
func (w *watcher) tell(records []*order.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, record := range records {
		if record == nil || record.Status == order.Pending {
			continue
		}
		for _, decided := range w.waiting[record.ID] {
			decided <- record
			w.count--
		}
		delete(w.waiting, record.ID)
	}
}
