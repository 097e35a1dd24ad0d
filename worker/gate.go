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

// gate is shut while something that every order needs is down. That is no order's fault: nobody
// receives messages or counts attempts meanwhile, and what was received waits.
type gate struct {
	// probe asks all dependencies whether they work.
	probe func(context.Context) error

	mu     sync.Mutex
	opened chan struct{} // closed when the gate opens; nil while it is open
	wait   time.Duration // before the next probe; grows while failures follow one another closely
	last   time.Time     // when the gate was last opened
	probes sync.WaitGroup
}

// shut closes the gate because of err, until a probe succeeds. ctx ends the probing.
func (g *gate) shut(ctx context.Context, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil || ctx.Err() != nil {
		return
	}
	// A dependency that answers probes but fails at work must not be hammered.
	if time.Since(g.last) > 2*maxProbeWait {
		g.wait = 0
	}
	g.wait = min(max(2*g.wait, minProbeWait), maxProbeWait)
	g.opened = make(chan struct{})
	slog.Error("a dependency is down; receiving stops until it is back", "error", err)
	g.probes.Go(func() { g.open(ctx) })
}

// open probes until all is well, then opens the gate.
func (g *gate) open(ctx context.Context) {
	for {
		g.mu.Lock()
		wait := g.wait
		g.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		err := g.probe(probe)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
		g.mu.Lock()
		g.wait = min(2*g.wait, maxProbeWait)
		g.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.opened, g.last = nil, time.Now()
	if ctx.Err() == nil {
		slog.Info("all dependencies answer; receiving goes on")
	}
}

// pass returns true when the gate is open, or false when ctx ends.
func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened != nil {
		select {
		case <-opened:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// isShut tells whether the gate is shut.
func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}
