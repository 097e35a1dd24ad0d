package main

import (
	"errors"
	"sync"
	"time"
)

// breakerPause is how long MySQL is left alone after it has failed.
const breakerPause = time.Second

// errBreakerOpen says that MySQL has failed a moment ago.
var errBreakerOpen = errors.New("MySQL has failed a moment ago")

// breaker is a circuit breaker: it keeps an edge from asking MySQL again and again while it fails: for a pause nobody
// does, and then one.
type breaker struct {
	mu    sync.Mutex
	until time.Time // zero if MySQL has answered last
}

// open reports that MySQL is not asked at present.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.until)
}

// try calls f, or returns errBreakerOpen.
func (b *breaker) try(f func() error) error {
	b.mu.Lock()
	if !b.until.IsZero() {
		if time.Now().Before(b.until) {
			b.mu.Unlock()
			return errBreakerOpen
		}
		b.until = time.Now().Add(breakerPause) // the others wait for what this call finds
	}
	b.mu.Unlock()
	err := f()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until = (time.Time{}); err != nil {
		b.until = time.Now().Add(breakerPause)
	}
	return err
}
