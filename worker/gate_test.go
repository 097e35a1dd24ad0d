package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("it is down")

func TestAnOpenGateLetsEverybodyPass(t *testing.T) {
	t.Parallel()
	g := &gate{}
	if !g.pass(t.Context()) || g.isShut() {
		t.Error("it is shut")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if g.pass(ctx) {
		t.Error("it lets pass who has ended")
	}
}

func TestAGateIsShutUntilAProbeSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var probes atomic.Int64
		g := &gate{probe: func(ctx context.Context) error {
			probes.Add(1)
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a probe has no bound")
			}
			if up.Load() {
				return nil
			}
			return errDown
		}}
		var shut sync.WaitGroup
		for range 20 {
			shut.Go(func() { g.shut(t.Context(), errDown) })
		}
		shut.Wait()
		var passed atomic.Int64
		var waiting sync.WaitGroup
		for range 20 {
			waiting.Go(func() {
				if g.pass(t.Context()) {
					passed.Add(1)
				}
			})
		}
		time.Sleep(time.Hour)
		if !g.isShut() || passed.Load() != 0 {
			t.Errorf("shut %v, %d passed", g.isShut(), passed.Load())
		}
		// Once every 5 s, by one goroutine, however many have shut it.
		if n := probes.Load(); n < 700 || n > 740 {
			t.Errorf("%d probes in an hour", n)
		}
		up.Store(true)
		waiting.Wait()
		g.probes.Wait()
		if g.isShut() || passed.Load() != 20 {
			t.Errorf("shut %v, %d passed", g.isShut(), passed.Load())
		}
	})
}

// A blip is over at once.
func TestTheFirstProbeComesSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{probe: func(context.Context) error { return nil }}
		for range 3 {
			start := time.Now()
			g.shut(t.Context(), errDown)
			g.pass(t.Context())
			if waited := time.Since(start); waited != minProbeWait {
				t.Errorf("it was shut for %v", waited)
			}
			g.probes.Wait()
			time.Sleep(time.Minute)
		}
	})
}

// A server that answers probes and refuses work must not be tried as fast as it can refuse, for however
// long that lasts.
func TestAGateIsShutForLongerWhenProbesAreWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{probe: func(context.Context) error { return nil }}
		last := time.Duration(0)
		for i := range 200 {
			start := time.Now()
			g.shut(t.Context(), errDown)
			g.pass(t.Context())
			waited := time.Since(start)
			if waited < last || waited < minProbeWait || waited > maxProbeWait {
				t.Fatalf("the %d. time it was shut for %v after %v", i, waited, last)
			}
			last = waited
		}
		if last != maxProbeWait {
			t.Errorf("at last it was shut for %v", last)
		}
		g.probes.Wait()
	})
}

func TestTheEndOfReceivingEndsTheWaitAndTheProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := &gate{probe: func(ctx context.Context) error {
			<-ctx.Done() // a dependency that hangs
			return ctx.Err()
		}}
		g.shut(ctx, errDown)
		passed := make(chan bool)
		go func() { passed <- g.pass(ctx) }()
		time.Sleep(10 * time.Second)
		start := time.Now()
		cancel()
		if <-passed {
			t.Error("it lets pass who has ended")
		}
		g.probes.Wait()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the probes went on for %v", waited)
		}
		g.shut(ctx, errDown)
		if g.isShut() {
			t.Error("it can be shut after the end, and nobody would open it")
		}
	})
}
