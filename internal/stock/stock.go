// Package stock keeps the units on sale in Redis: available, reserved, and counted per buyer. Every
// change is one call of a script in lua/, which does all of it or nothing, for many orders at once.
package stock

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

const (
	// MaxBatch is the most orders one call takes: Lua can unpack some thousand values, and a script
	// must not hold up the other clients of a single-threaded server for long.
	MaxBatch = 500
	// StatusTTL is how long a decided order's status is kept: as long as a retry leads to the order.
	StatusTTL = order.IdempotencyLifetime
	// PendingTTL is how long the status of an order is kept that is not decided: longer than SQS can keep its message,
	// which is 14 days (Amazon SQS quotas). A lost order is sent again from its status, so that this must not be gone
	// before.
	PendingTTL = 15 * 24 * time.Hour

	// maxLoads bounds how often a product is read anew when its row changes while it is loaded.
	maxLoads = 5

	dialTimeout = 2 * time.Second
	// ioTimeout bounds one command. A script of MaxBatch orders takes a few milliseconds.
	ioTimeout = 3 * time.Second
	// connLifetime bounds a connection, which after a fail-over may point at a replica.
	connLifetime = 5 * time.Minute
)

// Stock is a connection to Redis. It is safe for concurrent use.
type Stock struct {
	rdb client
}

// PoolStats are those of the pool of connections, for those who watch it.
func (s *Stock) PoolStats() *redis.PoolStats { return s.rdb.PoolStats() }

// Close closes the connections.
func (s *Stock) Close() error { return s.rdb.Close() }

// Ping asks whether Redis answers; of a Cluster, whether any master does.
func (s *Stock) Ping(ctx context.Context) error {
	cluster, ok := s.rdb.UniversalClient.(*redis.ClusterClient)
	if !ok {
		return s.rdb.Ping(ctx).Err()
	}
	var answered atomic.Bool
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		err := c.Ping(ctx).Err()
		if err == nil {
			answered.Store(true)
		}
		return err
	})
	if answered.Load() {
		return nil
	}
	return err
}

// IsPartlyUp reports whether Redis is a Cluster of which some master answers. What fails then need not fail for the
// products of all.
func (s *Stock) IsPartlyUp(ctx context.Context) bool {
	_, ok := s.rdb.UniversalClient.(*redis.ClusterClient)
	return ok && s.Ping(ctx) == nil
}

// millis is a time in milliseconds since the epoch, 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the opposite of millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
