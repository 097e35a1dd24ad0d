package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// minProbeWait and maxProbeWait bound the wait between two probes of a dependency that is down.
	minProbeWait = 100 * time.Millisecond
	maxProbeWait = 5 * time.Second
	// probeTimeout bounds one probe.
	probeTimeout = 3 * time.Second
)

// breaker is a circuit breaker, which is open while something that every order needs is down. That is no order's
// fault: nobody receives messages or counts attempts meanwhile, and what was received waits.
type breaker struct {
	// probe asks all dependencies whether they work.
	probe func(context.Context) error

	mu     sync.Mutex
	closes chan struct{} // closed when the breaker closes; nil while it is closed
	pause  time.Duration // before the next probe; grows while failures follow one another closely
	last   time.Time     // when the breaker last closed
	probes sync.WaitGroup
}

// trip opens the breaker because of err, until a probe succeeds. ctx ends the probing.
func (b *breaker) trip(ctx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closes != nil || ctx.Err() != nil {
		return
	}

	// A dependency that answers probes but fails at work must not be hammered.
	if time.Since(b.last) > 2*maxProbeWait {
		b.pause = 0
	}
	b.pause = min(max(2*b.pause, minProbeWait), maxProbeWait)

	b.closes = make(chan struct{})
	slog.Error("breaker: a dependency is down; receiving stops until it is back", "error", err)
	b.probes.Go(func() { b.probeUntilClosed(ctx) })
}

// probeUntilClosed probes until all is well, then closes the breaker.
func (b *breaker) probeUntilClosed(ctx context.Context) {
	for {
		b.mu.Lock()
		pause := b.pause
		b.mu.Unlock()
		sleep(ctx, pause)

		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		err := b.probe(probe)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}

		// It stays as long when the breaker has closed, should it trip again soon.
		b.mu.Lock()
		b.pause = min(2*b.pause, maxProbeWait)
		b.mu.Unlock()
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.closes)
	b.closes, b.last = nil, time.Now()
	if ctx.Err() == nil {
		slog.Info("breaker: all dependencies answer; receiving goes on")
	}
}

// wait returns true when the breaker is closed, or false when ctx ends.
func (b *breaker) wait(ctx context.Context) bool {
	b.mu.Lock()
	closes := b.closes
	b.mu.Unlock()
	if closes != nil {
		select {
		case <-closes:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// isOpen reports whether the breaker is open.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closes != nil
}
