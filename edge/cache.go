package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"stampede/internal/mysql"
)

const (
	// cacheTTL is how old what a buyer reads of a product may be.
	cacheTTL = time.Second
	// cacheEntries bounds a cache, whatever ids clients make up.
	cacheEntries = 10_000
	// cacheBytes bounds what a cache keeps, roughly: some 100 pages of products with the longest descriptions, and all
	// pages of usual ones.
	cacheBytes = 16 << 20
	// entryBytes is about what an entry costs beside its value.
	entryBytes = 256
	// keptTime is for how long a value is kept that nobody asked for, to be served when the source fails.
	keptTime = 10 * time.Minute
	// loadTimeout bounds one load for which a crowd may be waiting.
	loadTimeout = 2 * time.Second
)

// cache keeps values that a crowd asks for. However many ask, a value is loaded once at a time; that a
// key has no value is kept too; and while the source fails, the last known value is served.
type cache[K comparable, V any] struct {
	load    func(context.Context, K) (V, error)
	size    func(V) int
	entries *lru.Cache[K, *cached[V]]
	loads   singleflight.Group

	adding sync.Mutex
	bytes  int // of the entries; whoever changes those holds adding
}

// cached is not changed once it is in a cache.
type cached[V any] struct {
	value V
	err   error // nil or mysql.ErrNotFound
	at    time.Time
	bytes int
}

func (e *cached[V]) fresh() bool { return time.Since(e.at) < cacheTTL }

// newCache makes a cache of what load returns, which takes about so many bytes as size says.
func newCache[K comparable, V any](load func(context.Context, K) (V, error), size func(V) int) *cache[K, V] {
	c := &cache[K, V]{load: load, size: size}
	entries, err := lru.NewWithEvict(cacheEntries, func(_ K, entry *cached[V]) { c.bytes -= entry.bytes })
	if err != nil {
		panic(err) // only a size below 1 does this
	}
	c.entries = entries
	return c
}

// add puts an entry in, and takes out what is then too much or too old.
func (c *cache[K, V]) add(key K, entry *cached[V]) {
	entry.bytes = entryBytes
	if entry.err == nil {
		entry.bytes += c.size(entry.value)
	}
	c.adding.Lock()
	defer c.adding.Unlock()
	c.entries.Remove(key)
	c.entries.Add(key, entry)
	c.bytes += entry.bytes
	for {
		_, oldest, ok := c.entries.GetOldest()
		if !ok || c.bytes <= cacheBytes && time.Since(oldest.at) < keptTime {
			return
		}
		c.entries.RemoveOldest()
	}
}

// get returns the value of a key, at most cacheTTL old unless the source fails.
func (c *cache[K, V]) get(key K) (V, error) {
	if entry, ok := c.entries.Get(key); ok && entry.fresh() {
		return entry.value, entry.err
	}

	// However many ask, one loads.
	loaded, err, _ := c.loads.Do(fmt.Sprint(key), func() (any, error) {
		defer keepStack()
		known, ok := c.entries.Peek(key)
		if ok && known.fresh() {
			return known, nil // a load has ended since we looked
		}

		// The load is everybody's, so that it ends with nobody's request.
		ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
		defer cancel()
		value, err := c.load(ctx, key)

		switch {
		case err == nil || errors.Is(err, mysql.ErrNotFound):
			known = &cached[V]{value: value, err: err, at: time.Now()}
		case ok:
			slog.Warn("cache: what is known is served, since it cannot be loaded anew", "key", key, "error", err)
			// the crowd shall not wait for the source again at once
			known = &cached[V]{value: known.value, err: known.err, at: time.Now()}
		default:
			return nil, err
		}
		c.add(key, known)
		return known, nil
	})

	if err != nil {
		var none V
		return none, err
	}
	entry := loaded.(*cached[V])
	return entry.value, entry.err
}

// setMissing keeps that a key has no value, for who found out without the cache.
func (c *cache[K, V]) setMissing(key K) {
	c.add(key, &cached[V]{err: mysql.ErrNotFound, at: time.Now()})
}

// missing tells that the key was found to have no value a moment ago.
func (c *cache[K, V]) missing(key K) bool {
	entry, ok := c.entries.Peek(key)
	return ok && entry.err != nil && entry.fresh()
}

// loadPanic is a panic of a load, with where it was. The group throws it anew in the goroutines of all who wait.
type loadPanic struct {
	value any
	stack []byte
}

func (p *loadPanic) Error() string { return "a load panicked" }

func keepStack() {
	if v := recover(); v != nil {
		panic(&loadPanic{v, debug.Stack()})
	}
}
