package main

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"stampede/internal/order"
)

// A flood of distinct keys fills a cache up to its bytes and no further, however large the values are.
func TestCacheIsBoundedInBytes(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	c := newCache(func(_ context.Context, key order.StockID) ([]order.Product, error) {
		return []order.Product{{ID: key, Description: strings.Repeat("x", 64<<10)}}, nil
	}, pageBytes)
	for key := range int64(2_000) { // 125 MiB
		if _, err := c.get(order.StockID(key)); err != nil {
			t.Fatal(err)
		}
	}
	after := heap()
	if after > before && after-before > 2*cacheBytes {
		t.Errorf("the heap grew by %d MiB, the cache may hold %d", (after-before)>>20, cacheBytes>>20)
	}
	if c.entries.Len() < 100 || c.bytes > cacheBytes {
		t.Errorf("%d entries of %d bytes are kept", c.entries.Len(), c.bytes)
	}

	// Keys that have no value cost little, and what is counted is what is there.
	for key := range int64(2 * cacheEntries) {
		c.setMissing(order.StockID(key))
	}
	if c.entries.Len() != cacheEntries || c.bytes != cacheEntries*entryBytes {
		t.Errorf("%d entries are counted as %d bytes", c.entries.Len(), c.bytes)
	}
	runtime.KeepAlive(c)
}
