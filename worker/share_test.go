package main

import (
	"testing"
	"time"
)

// TestALockedProductStopsNoOther: two workers could hold nothing but messages of a product whose row somebody has locked.
func TestALockedProductStopsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, other := r.product(1000, 0), r.product(100, 0)
	orders, others := r.reserve(p.ID, 450, 1), r.reserve(other.ID, 10, 1)
	unlock := r.lock(p.ID)
	r.send(1, orders...)
	r.send(1, others...)
	sooner := func(w *Worker) {
		w.stuckAge, w.restLength, w.maxRest = 200*time.Millisecond, time.Second, 2*time.Second
	}
	r.setMaxReceives(1000) // on a busy machine they are given back often
	workers := []*Worker{r.start(sooner), r.start(sooner)}
	r.eventuallyTrue("those of the other product are settled", func() bool { return r.level(other.ID).Reservations == 0 })
	r.mustBe("", others...)
	r.mustBePending(orders...)

	unlock()
	r.quiet(workers...)
	r.mustBe("", orders...)
	r.audit()
}
