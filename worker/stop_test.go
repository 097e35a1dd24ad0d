package main

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"stampede/localstack/sqs"
)

// stop stops a worker and returns how long that took.
func stop(t testing.TB, w *Worker, timeout time.Duration) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	start := time.Now()
	err := w.Stop(ctx)
	return time.Since(start), err
}

func TestAWorkerWithNothingToDoStopsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	unstarted := r.worker()
	if _, err := stop(t, unstarted, patience); err != nil {
		t.Errorf("one that was not started: %v", err)
	}
	w := r.worker()
	w.Start()
	// Its receives would wait for 20 s. Stopping twice is as good as once.
	for range 2 {
		if took, err := stop(t, w, patience); err != nil || took > 5*time.Second {
			t.Errorf("it took %v, %v", took, err)
		}
	}
	p := r.product(1, 0)
	r.send(1, r.reserve(p.ID, 1, 1)...)
	r.throughout(200*time.Millisecond, func() error {
		if d := r.depth(); d.Visible != 1 {
			return fmt.Errorf("somebody receives still: %+v", d)
		}
		return nil
	})
}

func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 20, 1)
	unlock := r.lock(p.ID)
	w := r.worker()
	w.Start()
	r.send(1, orders...)
	r.eventuallyTrue("all is received", func() bool { return w.held.len() == 20 })
	stopped := make(chan error)
	go func() {
		_, err := stop(t, w, patience)
		stopped <- err
	}()
	<-w.receiving.Done()
	select {
	case err := <-stopped:
		t.Fatalf("it has stopped with orders under way: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	unlock()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if l := r.level(p.ID); l.Reservations != 0 || l.Outbox != 0 { // nobody is left who could settle them later
		t.Fatalf("it has stopped with orders reserved: %+v", l)
	}
	r.quiet(w)
	r.mustBe("", orders...)
}

// What a worker cannot finish, another gets at once and not only when its visibility ends.
func TestStopGivesBackWhatCannotBeDone(t *testing.T) {
	t.Parallel()
	m, dsn := ownMariaDB(t)
	r := newRig(t, dsn, "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 40, 1)
	w := r.worker()
	w.Start()
	r.eventuallyTrue("it is ready", func() bool { return w.Ready(t.Context()) == nil })
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	r.send(2, orders...)
	r.eventuallyTrue("receiving is paused", w.breaker.isOpen)
	r.eventuallyTrue("messages are held", func() bool {
		return w.held.len() > 0 && r.depth().InFlight == int64(w.held.len())
	})
	if took, err := stop(t, w, patience); err != nil || took > 10*time.Second {
		t.Errorf("it took %v, %v", took, err)
	}
	if d := r.depth(); d.Visible != 20 || d.InFlight != 0 {
		t.Errorf("not all messages were given back: %+v", d)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := r.start()
	r.quiet(other)
	r.mustBe("", orders...)
}

// The queue has hidden messages, and its answer is still on the way.
func TestStopWaitsForMessagesOnTheirWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 5, 1)
	w := r.worker()
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ReceiveMessage"}, Delay: 300 * time.Millisecond})
	defer r.sqs.SetFaults(sqs.Faults{})
	r.send(1, orders...)
	w.Start()
	r.eventuallyTrue("the queue has hidden them", func() bool { return r.depth().InFlight == 5 })
	if n := w.held.len(); n != 0 {
		t.Fatalf("the worker has %d messages already", n)
	}
	if took, err := stop(t, w, patience); err != nil || took > 10*time.Second {
		t.Errorf("it took %v, %v", took, err)
	}
	r.quiet(w)
	r.mustBe("", orders...)
}

// MySQL takes the connection and never answers.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	m, dsn := ownMariaDB(t)
	r := newRig(t, dsn, "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 1, 1)
	w := r.worker()
	w.Start()
	r.send(1, orders...)
	r.quiet(w)
	if err := m.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	more := r.reserve(p.ID, 29, 1)
	orders = append(orders, more...)
	r.send(1, more...)
	r.eventuallyTrue("all is received", func() bool { return w.held.len() == 29 })
	if took, err := stop(t, w, time.Second); err == nil || took > 4*time.Second {
		t.Errorf("it took %v, %v", took, err)
	}
	if d := r.depth(); d.Visible != 29 {
		t.Errorf("not all messages were given back: %+v", d)
	}
	// The queue does not answer either.
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ChangeMessageVisibilityBatch"}, Delay: time.Minute})
	if took, err := stop(t, w, time.Second); err == nil || took > giveBackTimeout+3*time.Second {
		t.Errorf("it took %v, %v", took, err)
	}
	r.sqs.SetFaults(sqs.Faults{})
	if err := m.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// What was under way may be committed after the messages were given back: then it is found decided.
	other := r.start()
	r.quiet(other)
	r.mustBe("", orders...)
	if _, err := stop(t, w, patience); err != nil {
		t.Logf("giving back again what is long gone: %v", err)
	}
}
