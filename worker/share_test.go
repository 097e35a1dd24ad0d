package main

import (
	"syscall"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/queue"
)

// TestALockedProductStopsNoOther: two workers could hold nothing but messages of a product whose row somebody has
// locked.
func TestALockedProductStopsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, other := r.product(1000, 0), r.product(100, 0)
	orders := r.reserve(p.ID, 600, 1) // more than two workers may hold
	others := r.reserve(other.ID, 10, 1)
	unlock := r.lock(p.ID)
	r.send(1, orders...)
	r.send(1, others...)
	sooner := func(w *Worker) {
		w.stuckAge, w.restLength, w.maxRest = 200*time.Millisecond, time.Second, 2*time.Second
	}
	r.setMaxReceives(1000) // on a busy machine they are given back often
	workers := []*Worker{r.start(sooner), r.start(sooner)}
	r.eventuallyTrue("those of the other product are settled", func() bool {
		return r.level(other.ID).Reservations == 0
	})
	r.mustBe("", others...)
	r.mustBePending(orders...)

	unlock()
	r.quiet(workers...)
	r.mustBe("", orders...)
	r.audit()
}

// TestNothingIsGivenBackInAnOutage: a product is locked, and MySQL hangs. What was received waits for it, so that no
// message counts a receive; when MySQL answers and the product is locked still, what is beyond its share is given back.
func TestNothingIsGivenBackInAnOutage(t *testing.T) {
	t.Parallel()
	server, dsn := ownMariaDB(t)
	r := newRig(t, dsn, "")
	p := r.product(1000, 0)
	orders := r.reserve(p.ID, 150, 1)
	r.send(1, orders...)
	unlock := r.lock(p.ID)
	w := r.worker(func(w *Worker) { w.stuckAge = time.Second })
	for w.held.len() < len(orders) {
		messages, err := r.queue.Receive(t.Context(), queue.LongPoll, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			d := &delivery{Message: m, stockID: p.ID}
			w.held.add(d, time.Minute)
			o, err := order.Decode([]byte(m.Body))
			if err != nil {
				t.Fatal(err)
			}
			w.accept(d, o)
		}
	}
	r.eventuallyTrue("the product makes no progress", func() bool { return len(w.progress.find(w.stuckAge)) > 0 })

	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.share(t.Context())
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if n := w.held.len(); n != len(orders) {
		t.Errorf("while MySQL hangs the worker holds %d messages, want %d", n, len(orders))
	}
	r.eventuallyTrue("it is given back", func() bool {
		w.share(t.Context())
		return w.held.len() < len(orders)
	})
	unlock()
	r.eventuallyTrue("the rest is settled", func() bool { return w.held.len() == 0 })
	if err := w.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
