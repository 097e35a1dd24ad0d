package main

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/redis"
	"stampede/internal/telemetry"
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

// Who reads the metrics sees that Redis would throw keys away.
func TestARedisThatEvictsIsSeen(t *testing.T) {
	t.Parallel()
	rdb, err := redis.Open(stacktest.NewRedis(t, localstack.RedisOptions{Args: []string{"--maxmemory-policy",
		"volatile-lru"}}).URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	reg := prometheus.NewRegistry()
	telemetry.WatchEviction(t.Context(), reg, rdb)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("the gauge is not there: %v, %v", families, err)
	}
	if v := families[0].GetMetric()[0].GetGauge().GetValue(); v != 1 {
		t.Errorf("%s is %v, want 1", families[0].GetName(), v)
	}
}
