// Package loop has the one shape of what a program does again and again in the background.
package loop

import (
	"context"
	"time"
)

// Every calls f once per interval until ctx ends, for the first time after one interval. Calls do not overlap: of those
// that come due while another is under way, only one is made.
func Every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f(ctx)
		}
	}
}
