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
	b := &breaker{}
	if !b.wait(t.Context()) || b.isOpen() {
		t.Error("it is open")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b.wait(ctx) {
		t.Error("it lets pass who has ended")
	}
}

func TestABreakerIsOpenUntilAProbeSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var probes atomic.Int64
		b := &breaker{probe: func(ctx context.Context) error {
			probes.Add(1)
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a probe has no bound")
			}
			if up.Load() {
				return nil
			}
			return errDown
		}}
		var trips sync.WaitGroup
		for range 20 {
			trips.Go(func() { b.trip(t.Context(), errDown) })
		}
		trips.Wait()
		var passed atomic.Int64
		var waiting sync.WaitGroup
		for range 20 {
			waiting.Go(func() {
				if b.wait(t.Context()) {
					passed.Add(1)
				}
			})
		}
		time.Sleep(time.Hour)
		if !b.isOpen() || passed.Load() != 0 {
			t.Errorf("open %v, %d passed", b.isOpen(), passed.Load())
		}
		// Once every 5 s, by one goroutine, however many have tripped it.
		if n := probes.Load(); n < 700 || n > 740 {
			t.Errorf("%d probes in an hour", n)
		}
		up.Store(true)
		waiting.Wait()
		b.probes.Wait()
		if b.isOpen() || passed.Load() != 20 {
			t.Errorf("open %v, %d passed", b.isOpen(), passed.Load())
		}
	})
}

// A blip is over at once.
func TestTheFirstProbeComesSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &breaker{probe: func(context.Context) error { return nil }}
		for range 3 {
			start := time.Now()
			b.trip(t.Context(), errDown)
			b.wait(t.Context())
			if waited := time.Since(start); waited != minProbeWait {
				t.Errorf("it was open for %v", waited)
			}
			b.probes.Wait()
			time.Sleep(time.Minute)
		}
	})
}

// A server that answers probes and refuses work must not be tried as fast as it can refuse, for however
// long that lasts.
func TestABreakerIsOpenForLongerWhenProbesAreWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &breaker{probe: func(context.Context) error { return nil }}
		last := time.Duration(0)
		for i := range 200 {
			start := time.Now()
			b.trip(t.Context(), errDown)
			b.wait(t.Context())
			waited := time.Since(start)
			if waited < last || waited < minProbeWait || waited > maxProbeWait {
				t.Fatalf("the %d. time it was open for %v after %v", i, waited, last)
			}
			last = waited
		}
		if last != maxProbeWait {
			t.Errorf("at last it was open for %v", last)
		}
		b.probes.Wait()
	})
}

func TestTheEndOfReceivingEndsTheWaitAndTheProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := &breaker{probe: func(ctx context.Context) error {
			<-ctx.Done() // a dependency that hangs
			return ctx.Err()
		}}
		b.trip(ctx, errDown)
		passed := make(chan bool)
		go func() { passed <- b.wait(ctx) }()
		time.Sleep(10 * time.Second)
		start := time.Now()
		cancel()
		if <-passed {
			t.Error("it lets pass who has ended")
		}
		b.probes.Wait()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the probes went on for %v", waited)
		}
		b.trip(ctx, errDown)
		if b.isOpen() {
			t.Error("it can be tripped after the end, and nobody would close it")
		}
	})
}
