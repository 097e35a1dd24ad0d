package audit

import (
	"context"
	"time"

	"stampede/internal/queue"
)

const (
	// quietInterval is how often a system that is not quiet is looked at again.
	quietInterval = 100 * time.Millisecond
	// quietLooks is how often in a row it must look quiet: a message may be between two counters.
	quietLooks = 3
)

// Look is how busy a sale is.
type Look struct {
	Queue queue.Depth
	// Available, Reserved, InTransfer and Outbox are summed up over the loaded products.
	Available, Reserved, InTransfer, Outbox int64
	// Returning are the orders whose units MySQL has taken back, and Redis not yet.
	Returning int64
}

// quiet reports whether nothing is on its way that Redis and MySQL differ by. An order that waits for its payment, or
// whose attempts are being closed, is none of it: its units are taken in both, and that may last for days.
func (l Look) quiet() bool {
	return l.Queue.Empty() && l.Reserved == 0 && l.InTransfer == 0 && l.Outbox == 0 && l.Returning == 0
}

// Look reads how busy the sale is now.
func (s Sale) Look(ctx context.Context) (l Look, err error) {
	if l.Queue, err = s.Queue.Depth(ctx); err != nil {
		return l, err
	}
	if l.Returning, err = s.Ledger.CountReturning(ctx); err != nil {
		return l, err
	}

	products, err := s.Stock.Products(ctx)
	if err != nil {
		return l, err
	}
	for _, id := range products {
		level, err := s.Stock.Level(ctx, id)
		if err != nil {
			return l, err
		}
		l.Available += level.Available
		l.Reserved += level.Reserved
		l.InTransfer += level.InTransfer
		l.Outbox += level.Outbox
	}
	return l, nil
}

// WaitQuiet returns when the sale has looked quiet several times in a row, or after wait. It calls tell with every
// look.
func (s Sale) WaitQuiet(ctx context.Context, wait time.Duration, tell func(Look)) error {
	deadline := time.Now().Add(wait)
	for quiet := 0; quiet < quietLooks && time.Now().Before(deadline); {
		l, err := s.Look(ctx)
		if err != nil {
			return err
		}
		tell(l)

		if quiet++; !l.quiet() {
			quiet = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietInterval):
		}
	}
	return nil
}
