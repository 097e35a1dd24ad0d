package main

import (
	"fmt"
	"testing"
	"time"
)

// staysHidden watches for a time that so many messages are with the worker and hidden from others.
func (r *rig) staysHidden(w *Worker, d time.Duration, messages int) {
	r.t.Helper()
	r.throughout(d, func() error {
		if depth := r.depth(); depth.Visible != 0 || depth.InFlight != int64(messages) || w.held.len() != messages {
			return fmt.Errorf("the queue has %+v, the worker holds %d", depth, w.held.len())
		}
		return nil
	})
}

// Another worker must not start over what takes longer than the visibility timeout.
func TestAMessageStaysHiddenWhileItIsHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 25, 1)
	unlock := r.lock(p.ID)
	w := r.start(impatient)
	r.send(1, orders...)
	r.eventuallyTrue("all is received", func() bool { return w.held.len() == 25 })
	r.staysHidden(w, 2*w.visibility, 25)
	unlock()
	r.quiet(w)
	mustCount(t, 0, "repeated", repeated, w)
	// Renewed when half of the time is over, and not with every heartbeat.
	if n := r.sqs.Requests()["ChangeMessageVisibilityBatch"]; n < 3*3 || n > 3*8 {
		t.Errorf("%d requests to hide three batches for twice their time", n)
	}
}

// A renewal that fails is tried again while there is time.
func TestARenewalThatFailsIsRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(50, 0)
	orders := r.reserve(p.ID, 5, 1)
	unlock := r.lock(p.ID)
	w := r.start(impatient, func(w *Worker) { w.visibility = 4 * time.Second })
	r.sqs.RefuseNext("ChangeMessageVisibilityBatch", 1)
	r.send(1, orders...)
	r.eventuallyTrue("all is received", func() bool { return w.held.len() == 5 })
	r.staysHidden(w, w.visibility+w.visibility/4, 5)
	unlock()
	r.quiet(w)
	mustCount(t, 0, "repeated", repeated, w)
}
