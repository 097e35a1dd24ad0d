package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/telemetry"
)

const (
	// heartbeatInterval is how often the visibility of the messages held is looked at. It is renewed
	// when half of it is over, which leaves several heartbeats' time for a renewal that fails.
	heartbeatInterval = 5 * time.Second
	// receivePause is how long a poller waits after a failed receive.
	receivePause = time.Second
)

// delivery is a message that this worker holds. It is deleted when the last of its orders is done.
type delivery struct {
	queue.Message
	stockID     order.StockID // of its first order
	open        atomic.Int32  // orders that are not done
	hiddenUntil time.Time     // guarded by deliveries
}

// job is one order of a delivery.
type job struct {
	order    order.Order
	from     *delivery
	trace    telemetry.Place
	attempts int // how often deciding it has failed for its own reason
}

// alone reports whether the order must not share a transaction: its message has come back, maybe because
// one of its orders is fatal to the worker, or it has failed before.
func (j *job) alone() bool { return j.attempts > 0 || j.from.ReceiveCount > 1 }

// last reports whether the order, which is then alone, may not be sent again.
func (j *job) last() bool { return j.attempts >= maxAttempts-1 }

// deliveries are the messages that a worker holds.
type deliveries struct {
	mu    sync.Mutex
	all   map[*delivery]struct{}
	freed chan struct{} // closed when there is room again; nil if nobody waits
}

func (d *deliveries) add(m *delivery, hidden time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.hiddenUntil = time.Now().Add(hidden)
	d.all[m] = struct{}{}
}

func (d *deliveries) remove(m *delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, m)
	if d.freed != nil && len(d.all) < maxDeliveries {
		close(d.freed)
		d.freed = nil
	}
}

// room returns when another receive may begin, or when ctx ends.
func (d *deliveries) room(ctx context.Context) {
	d.mu.Lock()
	if len(d.all) < maxDeliveries {
		d.mu.Unlock()
		return
	}
	if d.freed == nil {
		d.freed = make(chan struct{})
	}
	freed := d.freed
	d.mu.Unlock()
	select {
	case <-freed:
	case <-ctx.Done():
	}
}

// of counts the deliveries of a product.
func (d *deliveries) of(stockID order.StockID) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := range d.all {
		if m.stockID == stockID {
			n++
		}
	}
	return n
}

func (d *deliveries) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all)
}

// due lists the deliveries that may be received by others at a time, or before it.
func (d *deliveries) due(at time.Time) []*delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	var due []*delivery
	for m := range d.all {
		if !m.hiddenUntil.After(at) {
			due = append(due, m)
		}
	}
	return due
}

// hide notes until when deliveries are hidden.
func (d *deliveries) hide(hidden []*delivery, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range hidden {
		m.hiddenUntil = until
	}
}

// receipts lists the receipts of all deliveries.
func (d *deliveries) receipts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return receipts(slices.Collect(maps.Keys(d.all)))
}

func receipts(messages []*delivery) []string {
	receipts := make([]string, len(messages))
	for i, m := range messages {
		receipts[i] = m.Receipt
	}
	return receipts
}

// poll receives messages and hands their orders on, until receiving ends.
func (w *Worker) poll() {
	for failures := 0; w.breaker.wait(w.receiving); {
		w.held.room(w.receiving)
		if w.receiving.Err() != nil {
			return
		}

		messages, err := w.queue.Receive(w.receives, queue.LongPoll, w.visibility)
		if err == nil {
			failures = 0
			w.take(messages)
			if n := len(messages); 0 < n && n < queue.MaxEntries {
				sleep(w.receiving, gatherPause)
			}
			continue
		}

		if w.receiving.Err() == nil {
			// Of a long outage the log needs to know about once a minute.
			if failures%60 == 0 {
				slog.Error("receive: messages could not be received", "error", err, "failures", failures)
			}
			failures++
			sleep(w.receiving, receivePause)
		}
	}
}

// take holds messages from now on, and hands on their orders.
func (w *Worker) take(messages []queue.Message) {
	var broken []*delivery
	var reasons []error
	for _, m := range messages {
		w.metrics.received(&m)
		d := &delivery{Message: m}
		orders, err := order.Decode([]byte(m.Body))
		if err == nil {
			d.stockID = orders[0].StockID
		}
		w.held.add(d, w.visibility)

		switch {
		case err != nil:
			broken, reasons = append(broken, d), append(reasons, err)
		case w.surplus(d.stockID):
			w.giveBack(w.receives, d.stockID, []*delivery{d})
		default:
			w.accept(d, orders)
		}
	}

	// The orders around a broken message do not wait for it.
	for i, d := range broken {
		w.deadLetter(d, reasons[i])
	}
}

// accept hands the orders of a delivery on to be decided.
func (w *Worker) accept(d *delivery, orders []order.Order) {
	attempts, _ := strconv.Atoi(d.Attributes[queue.AttemptsAttribute]) // none if there is no such attribute
	var places []telemetry.Place
	if telemetry.Tracing() {
		places = telemetry.ParsePlaces(d.Attributes[telemetry.TraceAttribute], len(orders))
	}

	all := make([]job, len(orders))
	products := make(map[order.StockID][]*job)
	for i, o := range orders {
		all[i] = job{order: o, from: d, attempts: attempts}
		if places != nil {
			all[i].trace = places[i]
		}
		products[o.StockID] = append(products[o.StockID], &all[i])
	}

	d.open.Store(int32(len(orders))) // before any of them can be done
	for stockID, jobs := range products {
		w.jobs.Add(stockID, jobs...)
	}
}

// done says that nothing remains to be done for these orders. Messages with no other orders are deleted.
func (w *Worker) done(jobs []*job) {
	var empty []*delivery
	for _, j := range jobs {
		if j.from.open.Add(-1) == 0 {
			empty = append(empty, j.from)
		}
	}
	w.deletes.Add(struct{}{}, empty...)
}

// delete deletes messages. One that cannot be deleted comes back when its visibility ends, and its
// orders are then found decided.
func (w *Worker) delete(_ struct{}, messages []*delivery) {
	if err := w.queue.Delete(context.Background(), receipts(messages)); err != nil {
		slog.Warn("delete: messages could not be deleted and will come back", "error", err)
	}
	for _, m := range messages {
		w.held.remove(m)
	}
	if len(messages) < queue.MaxEntries {
		sleep(w.receiving, gatherPause)
	}
}

// deadLetter moves a message that nobody can read to the dead-letter queue.
func (w *Worker) deadLetter(d *delivery, reason error) {
	if err := w.queue.DeadLetter(context.Background(), d.Body, reason.Error(), 0); err != nil {
		slog.Error("dead letters: a dead letter could not be written; its message will come back", "message", d.ID,
			"error", err)
		w.held.remove(d)
		return
	}
	slog.Warn("receive: a message cannot be decoded and is now a dead letter", "message", d.ID, "reason", reason)
	w.metrics.deadLetters.WithLabelValues(causeUndecodable).Inc()
	w.deletes.Add(struct{}{}, d)
}

// abandon lets go of orders without having done them: their messages come back when their visibility ends.
func (w *Worker) abandon(jobs []*job) {
	for _, j := range jobs {
		w.held.remove(j.from)
	}
}

// deliveriesOf are the messages that jobs came with, each once.
func deliveriesOf(jobs []*job) []*delivery {
	var all []*delivery
	for _, j := range jobs {
		if !slices.Contains(all, j.from) {
			all = append(all, j.from)
		}
	}
	return all
}

// heartbeat keeps the messages held hidden from other workers.
func (w *Worker) heartbeat(ctx context.Context) {
	now := time.Now()
	due := w.held.due(now.Add(w.visibility / 2))
	if len(due) == 0 {
		return
	}

	if err := w.queue.ChangeVisibility(ctx, receipts(due), w.visibility); err != nil {
		// The next heartbeat tries again.
		if ctx.Err() == nil {
			slog.Warn("heartbeat: messages may be received by another worker as well", "error", err)
		}
		return
	}
	w.held.hide(due, now.Add(w.visibility))
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
