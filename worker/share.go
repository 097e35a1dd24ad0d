package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"stampede/internal/order"
)

const (
	// maxShare bounds the messages of one product that a worker holds while the product makes no progress, since its
	// row is locked or broken: with all that it holds it could serve no other.
	maxShare = maxDeliveries / 4
	// stuckAge is how long a product's transaction must have been under way for that. Usually it takes milliseconds.
	stuckAge = 2 * time.Second
	// restLength is for how long a message that is given back is hidden the first time. Each further time it is twice
	// as long, up to maxRest, so that a product may be locked for an hour before the queue takes its messages for
	// poison.
	restLength = 15 * time.Second
	maxRest    = 10 * time.Minute
)

// progress notes since when each product has been at its transaction.
type progress struct {
	mu    sync.Mutex
	since map[order.StockID]time.Time
	stuck map[order.StockID]bool // those that were found to make no progress though everything works
}

func (p *progress) begin(stockID order.StockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since[stockID] = time.Now()
}

func (p *progress) end(stockID order.StockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, stockID)
	delete(p.stuck, stockID)
}

// again begins anew for a product that has waited for something that all wait for.
func (p *progress) again(stockID order.StockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.since[stockID]; ok {
		p.since[stockID] = time.Now()
	}
}

// find lists the products that have been at the same transaction for longer than an age.
func (p *progress) find(age time.Duration) (slow []order.StockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, since := range p.since {
		if time.Since(since) > age {
			slow = append(slow, id)
		}
	}
	return slow
}

// blame notes which products are stuck, and no others.
func (p *progress) blame(stuck []order.StockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.stuck)
	for _, id := range stuck {
		_, p.stuck[id] = p.since[id]
	}
}

// isStuck reports whether a product was found to make no progress, and has not made any since.
func (p *progress) isStuck(stockID order.StockID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck[stockID]
}

// share gives back what products that make no progress hold beyond their share. In an outage, which is no product's
// fault, nothing is given back: what was received waits, and counts no receive for it.
func (w *Worker) share(ctx context.Context) {
	stuck := w.progress.find(w.stuckAge)
	if len(stuck) > 0 && !w.works(ctx) {
		stuck = nil
	}
	w.progress.blame(stuck)
	for _, stockID := range stuck {
		if w.held.of(stockID) <= maxShare {
			continue
		}

		// All orders of a message stay, or none.
		var keep []*job
		kept := make(map[*delivery]bool)
		var surplus []*delivery
		seen := make(map[*delivery]bool)
		for _, j := range w.jobs.Withdraw(stockID) {
			switch d := j.from; {
			case kept[d] || !seen[d] && len(kept) < maxShare:
				kept[d] = true
				keep = append(keep, j)
			case !seen[d]:
				surplus = append(surplus, d)
			}
			seen[j.from] = true
		}

		w.jobs.Add(stockID, keep...)
		w.giveBack(ctx, stockID, surplus)
	}
}

// surplus reports whether a delivery is beyond its product's share.
func (w *Worker) surplus(stockID order.StockID) bool {
	return w.progress.isStuck(stockID) && w.held.of(stockID) > maxShare
}

// works reports whether all that every product needs answers.
func (w *Worker) works(ctx context.Context) bool {
	probe, cancel := context.WithTimeout(ctx, w.stuckAge)
	defer cancel()
	return !w.breaker.isOpen() && w.Ready(probe) == nil
}

// giveBack gives messages back to the queue, which hides them for a while. One that cannot be given back comes back
// when its visibility ends.
func (w *Worker) giveBack(ctx context.Context, stockID order.StockID, surplus []*delivery) {
	if len(surplus) == 0 {
		return
	}
	slog.Warn("share: a product makes no progress, and messages of it are given back", "product", stockID, "messages",
		len(surplus))

	byLength := make(map[time.Duration][]*delivery)
	for _, d := range surplus {
		length := min(w.restLength<<min(d.ReceiveCount-1, 10), w.maxRest)
		byLength[length] = append(byLength[length], d)
	}
	for length, some := range byLength {
		if err := w.queue.ChangeVisibility(ctx, receipts(some), length); err != nil {
			slog.Warn("share: messages come back when their visibility ends", "error", err)
		}
	}
	for _, d := range surplus {
		w.held.remove(d)
	}
}
