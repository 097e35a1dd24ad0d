package loop

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestEvery: the third call takes two and a half intervals. One call follows at once, and the next when it is due.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var at []time.Duration
		Every(ctx, 2*time.Second, func(context.Context) {
			at = append(at, time.Since(start))
			switch len(at) {
			case 3:
				time.Sleep(5 * time.Second)
			case 5:
				cancel()
			}
		})
		want := []time.Duration{2 * time.Second, 4 * time.Second, 6 * time.Second, 11 * time.Second, 12 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("called at %v, want %v", at, want)
		}
	})
}
