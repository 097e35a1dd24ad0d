package main

import (
	"sync"
	"sync/atomic"
)

// unsentBatch is a batch of reserved orders that the queue has not acknowledged in full.
type unsentBatch struct {
	lane
	// name is that of the batch in the outbox; it is empty if the call has reserved nothing.
	name string
	left atomic.Int32  // orders whose fate is not known yet
	open atomic.Bool   // an order of the batch in the outbox is neither on the queue for sure nor cancelled
	sent chan struct{} // closed when no order is left
	end  func()
}

// unsentBatches is the back-pressure of the queue on the reservations: of each lane at most one earlier batch is
// unsent while the next is reserved. It holds the last batch of each until that is sent.
type unsentBatches struct {
	mu   sync.Mutex
	last map[lane]*unsentBatch
}

// begin notes a batch of so many orders as the last one of a lane. It returns as well when the one before
// is sent, or nil if it is sent already.
func (u *unsentBatches) begin(l lane, name string,
	orders int) (batch *unsentBatch, earlier <-chan struct{}) {
	batch = &unsentBatch{lane: l, name: name, sent: make(chan struct{})}
	batch.left.Store(int32(orders))
	batch.end = func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.last[l] == batch {
			delete(u.last, l)
		}
	}

	u.mu.Lock()
	defer u.mu.Unlock()
	if before := u.last[l]; before != nil {
		earlier = before.sent
	}
	u.last[l] = batch
	return batch, earlier
}
