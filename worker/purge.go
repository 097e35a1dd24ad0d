package main

import (
	"context"
	"log/slog"
	"time"

	"stampede/internal/mysql"
)

const (
	// purgeInterval is how often what is over is deleted, and purgeLimit how many at a time.
	purgeInterval = time.Minute
	purgeLimit    = 500
	// purgeRounds is how often in a row old idempotency keys of orders are deleted, mysql.MaxPage at a time: a hundred
	// thousand a minute, which are more than orders come in the long run.
	purgeRounds = 100
	// purgeAge is how long a session is kept after its end: longer than any access token of it, by which
	// edges that start must know it, and long enough to look into a stolen one.
	purgeAge = 7 * 24 * time.Hour
)

// purge deletes sessions that have been over for long, with their refresh tokens, and idempotency keys of products and
// orders that are over.
func (w *Worker) purge(ctx context.Context) {
	n, err := w.accounts.PurgeSessions(ctx, time.Now().Add(-purgeAge), purgeLimit)
	switch {
	case err != nil && ctx.Err() == nil:
		slog.Warn("purge: old sessions could not be deleted now", "error", err)
	case n > 0:
		slog.Info("purge: old sessions were deleted", "sessions", n)
	}
	if _, err := w.ledger.PurgeProductKeys(ctx, purgeLimit); err != nil && ctx.Err() == nil {
		slog.Warn("purge: old idempotency keys of products could not be deleted now", "error", err)
	}
	for range purgeRounds {
		n, err := w.ledger.PurgeOrderKeys(ctx, mysql.MaxPage)
		if err != nil && ctx.Err() == nil {
			slog.Warn("purge: old idempotency keys of orders could not be deleted now", "error", err)
		}
		if err != nil || n < mysql.MaxPage {
			return
		}
	}
}
