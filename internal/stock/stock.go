// Package stock keeps the units on sale in Redis: available, reserved, and counted per buyer. Every
// change is one call of a script in lua/, which does all of it or nothing, for many orders at once.
package stock

import (
	"sync/atomic"
	"time"

	"stampede/internal/redis"
)

const (
	// MaxBatch is the most orders one call takes: Lua can unpack some thousand values, and a script
	// must not hold up the other clients of a single-threaded server for long.
	MaxBatch = 500
	// maxLoads bounds how often a product is read anew when its row changes while it is loaded.
	maxLoads = 5
)

// Stock is what Redis holds of products and orders. It is safe for concurrent use.
type Stock struct {
	rdb *redis.Client
	// KeepOldKeys has idempotency records read and written as well where programs before message version 2 look for
	// them.
	KeepOldKeys atomic.Bool
}

// New makes a stock of a connection, which it does not close.
func New(rdb *redis.Client) *Stock { return &Stock{rdb: rdb} }

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
