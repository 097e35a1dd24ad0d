package main

import (
	"slices"
	"testing"
	"time"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// A sale whose Redis is full is decided and settled completely, and what its edge has left behind is relayed.
func TestASaleDrainsFromAFullRedis(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	p := r.product(40, 0)
	queued := r.reserve(p.ID, 20, 1)
	left := r.reserve(p.ID, 20, 1)
	r.enqueue(5, queued...)
	if err := r.redis.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}

	w := r.start(impatient, func(w *Worker) { w.relayInterval, w.relayAge = 100*time.Millisecond, time.Second })
	r.quiet(w)
	r.mustBe("", slices.Concat(queued, left)...)
	r.audit()
}
