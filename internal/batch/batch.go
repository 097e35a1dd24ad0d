// Package batch gathers work naturally: what arrives while a call is under way goes into the next
// one. No timer is involved, so that a lone item is worked at once, and a crowd in large batches.
package batch

import "sync"

// Batcher calls Do with the items of one key that have gathered, in the order of their arrival. Set
// the fields before the first use.
type Batcher[K comparable, T any] struct {
	// Do works a batch. It must return in bounded time.
	Do func(key K, items []T)
	// Size is the most items of a call.
	Size int
	// Parallel is the most calls of one key that are under way at a time.
	Parallel int
	// Waiting is the most items of one key that may wait; 0 leaves the bound to who adds.
	Waiting int
	// Alone, if set, picks items that get a call of their own.
	Alone func(T) bool

	mu    sync.Mutex
	lanes map[K]*lane[T]
	calls sync.WaitGroup
}

// lane holds what waits for one key; it exists while a call of the key is under way.
type lane[T any] struct {
	waiting []T
	running int
}

// Add takes items in. It returns how many, which is less than all only if Waiting are waiting.
func (b *Batcher[K, T]) Add(key K, items ...T) int {
	if len(items) == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lanes == nil {
		b.lanes = make(map[K]*lane[T])
	}
	l := b.lanes[key]
	if l == nil {
		l = new(lane[T])
		b.lanes[key] = l
	}
	if b.Waiting > 0 {
		items = items[:min(len(items), b.Waiting-len(l.waiting))]
	}
	l.waiting = append(l.waiting, items...)
	for started := 0; l.running < b.Parallel && started*b.Size < len(items); started++ {
		l.running++
		b.calls.Go(func() { b.run(key, l) })
	}
	return len(items)
}

// Withdraw takes out what waits for a call of a key, in the order of its arrival.
func (b *Batcher[K, T]) Withdraw(key K) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[key]
	if l == nil {
		return nil
	}
	items := l.waiting
	l.waiting = nil
	return items
}

// Waits counts the items that wait for a call, of all keys.
func (b *Batcher[K, T]) Waits() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		n += len(l.waiting)
	}
	return n
}

// run works a lane until nothing waits in it.
func (b *Batcher[K, T]) run(key K, l *lane[T]) {
	for {
		b.mu.Lock()
		n := b.next(l.waiting)
		if n == 0 {
			if l.running--; l.running == 0 {
				delete(b.lanes, key)
			}
			b.mu.Unlock()
			return
		}
		items := l.waiting[:n:n]
		l.waiting = l.waiting[n:]
		b.mu.Unlock()
		b.Do(key, items)
	}
}

// next is how many of the waiting items make up the next call.
func (b *Batcher[K, T]) next(waiting []T) int {
	n := min(len(waiting), b.Size)
	if b.Alone == nil {
		return n
	}
	for i := range n {
		if b.Alone(waiting[i]) {
			return max(i, 1)
		}
	}
	return n
}

// Wait returns when no call is under way and nothing waits. Who adds must have stopped.
func (b *Batcher[K, T]) Wait() { b.calls.Wait() }
