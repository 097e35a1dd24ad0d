package telemetry

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/loop"
	"stampede/internal/redis"
)

const (
	// evictionInterval is how often a program says in its log that Redis may evict keys.
	evictionInterval = 5 * time.Minute
	// evictionTimeout bounds the question.
	evictionTimeout = 5 * time.Second
)

// WatchEviction warns, at once and while ctx lasts, if a full Redis would throw keys away: then retries order twice
// and stock is lost. The metric is asked for by whoever reads it, and is not there while the answer is not known.
func WatchEviction(ctx context.Context, reg prometheus.Registerer, rdb *redis.Client) {
	evicts := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_redis_evicts", Help: "1 if the maxmemory-policy of Redis is not noeviction, so that it may " +
			"evict stock and keys.",
	})
	if Enabled {
		reg.MustRegister(NewSampled(func(ctx context.Context) error {
			policy, err := rdb.EvictionPolicy(ctx)
			evicts.Set(0)
			if redis.Evicts(policy) {
				evicts.Set(1)
			}
			return err
		}, evicts))
	}
	go func() {
		warnEviction(ctx, rdb)
		loop.Every(ctx, evictionInterval, func(ctx context.Context) { warnEviction(ctx, rdb) })
	}()
}

func warnEviction(ctx context.Context, rdb *redis.Client) {
	ask, cancel := context.WithTimeout(ctx, evictionTimeout)
	defer cancel()
	policy, err := rdb.EvictionPolicy(ask)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		slog.Warn("redis: it is not known whether it evicts keys when it is full", "error", err)
	case redis.Evicts(policy):
		slog.Error("redis: when it is full it evicts keys, by which orders are sold twice or lost: set "+
			"maxmemory-policy noeviction",
			"maxmemory_policy", policy)
	}
}
