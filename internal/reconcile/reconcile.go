// Package reconcile finds where Redis and MySQL differ about a product, says why, and repairs it while the
// sale goes on. What is on its way is left alone: nothing is changed on a guess.
//
// Like buckets it ties two other internal packages together, since worker and ctl both need it.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/internal/stock"
)

// Cause is why Redis differs from MySQL.
type Cause string

// The causes, in the order in which they are looked for.
const (
	// LostCommits: Redis has seen a newer version of the product than MySQL has, or MySQL has counted on from before
	// it. A fail-over to a replica that lags has lost commits. Only an operator can say what holds, until when nothing
	// is repaired.
	LostCommits Cause = "lost_commits"
	// Settings: a change of the product's settings has not reached Redis.
	Settings Cause = "missed_settings"
	// Restock: a restock has not reached Redis, or units from another bucket have not.
	Restock Cause = "missed_restock"
	// Transfer: units were on their way to another bucket, or to be taken out, and that was not finished. Its edge has
	// died.
	Transfer Cause = "unfinished_move"
	// Unsettled: orders are decided, and still reserved or in the outbox.
	Unsettled Cause = "unsettled"
	// Lost: orders have been reserved for long, and nobody has them who could decide them.
	Lost Cause = "lost"
	// Stock: the units available are not what MySQL says. What made them so is over, such as a worker that died
	// between commit and settle while Redis lost its data, or a fail-over to a replica that lagged.
	Stock Cause = "wrong_stock"
	// Bought: buyers count as having more units than their orders have, so that they are refused units that they may
	// buy. A redrive was interrupted, or somebody has written to Redis.
	Bought Cause = "wrong_bought"
	// Ended: the sale is long over, and Redis still holds the product.
	Ended Cause = "ended"
)

// Causes are all of them.
var Causes = []Cause{LostCommits, Settings, Restock, Transfer, Unsettled, Lost, Stock, Bought, Ended}

const (
	// StaleAge is how old an order must be to be settled here: until then it is left to the worker that has it.
	StaleAge = 2 * time.Minute
	// TransferAge is how old a transfer between buckets, or a correction, must be to be finished here, or cancelled: an
	// edge gives up after some seconds.
	TransferAge = 10 * time.Second
	// LostAge is how old an undecided order must be to be sent again: older than a message becomes by all the
	// redeliveries of a poison one.
	LostAge = 30 * time.Minute
	// EndedAge is how long a product stays loaded after the end of its sale.
	EndedAge = 24 * time.Hour

	// forgottenAge is how old an order must be for no message to have it: SQS keeps one for 14 days at most (Amazon SQS
	// quotas).
	forgottenAge = 15 * 24 * time.Hour
	// doubt is how long a difference must have stood, with nothing moving, to be believed.
	doubt = time.Second
	// maxLooks bounds how often a product is looked at, each time because something was repaired or has moved.
	maxLooks = 5
	// pauseLength is how long a sale stays paused if nobody ends the pause.
	pauseLength = 10 * time.Second
	// pauseDeadline bounds the attempts under a pause, and pausedWait is the wait between two.
	pauseDeadline = 8 * time.Second
	pausedWait    = 50 * time.Millisecond
)

// Reconciler reconciles products.
type Reconciler struct {
	Redis *stock.Stock
	MySQL *ledger.Ledger
	// Send puts orders on the queue that may be there already; Locks keep two from sending the same one. Without Send
	// lost orders are found only.
	Send  func(context.Context, []order.Order) error
	Locks *redis.Client
	// Apply repairs what is found.
	Apply bool
	// Pause pauses the sale for the moment that it takes to compare it, whatever is on its way.
	Pause bool
	// AcceptMySQL has what MySQL says hold where it has lost commits, with Apply and Pause.
	AcceptMySQL bool
	// Drained says that queue and dead-letter queue were seen empty some minutes ago and all the time since: no message
	// has an order that is older.
	Drained bool
	// StaleAge, TransferAge and LostAge are what the constants of these names say, unless they are set.
	StaleAge, TransferAge, LostAge time.Duration
}

// Product reconciles one product, or one bucket of a product.
func (r *Reconciler) Product(ctx context.Context, stockID order.StockID) (report Report, err error) {
	report = Report{ProductID: stockID.Product(), Bucket: stockID.Bucket(), Findings: []Finding{}}
	deadline := time.Now().Add(pauseDeadline)
	if r.Pause && r.Apply {
		if err := r.Redis.Pause(ctx, stockID, pauseLength); err != nil {
			return report, err
		}
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			err = errors.Join(err, r.Redis.Pause(end, stockID, 0))
		}()
	}

	for looks := 1; ; looks++ {
		// Each look that repairs something, or during which something moves, needs another one.
		moved, err := r.look(ctx, stockID, &report)
		if err != nil || !moved {
			return report, err
		}

		if r.Pause && r.Apply {
			if time.Now().After(deadline) {
				report.Busy = true
				return report, nil
			}
			if err := sleep(ctx, pausedWait); err != nil {
				return report, err
			}
		} else if looks == maxLooks {
			report.Busy = true
			return report, nil
		}
	}
}

// look compares a product once. It returns true if something was repaired or has moved, so that the product must
// be looked at again.
func (r *Reconciler) look(ctx context.Context, stockID order.StockID, report *Report) (again bool, err error) {
	l, err := r.Redis.Look(ctx, stockID)
	if err != nil {
		return false, err
	}

	ids := slices.Collect(maps.Keys(l.Reserved))
	if !r.Pause {
		// Nothing is said of younger orders, and a rush has very many of them.
		youngest := min(cmp.Or(r.StaleAge, StaleAge), cmp.Or(r.LostAge, LostAge))
		ids = slices.DeleteFunc(ids, func(id order.OrderID) bool { return !older(l, id.MadeAt(), youngest) })
	}

	snapshot, err := r.MySQL.Snapshot(ctx, stockID, ids)
	if err != nil {
		return false, err
	}

	report.Loaded, report.Available, report.Stock = l.Loaded, l.Available, snapshot.Product.Stock
	report.Reserved, report.InTransfer, report.Busy = 0, 0, false
	for _, units := range l.Reserved {
		report.Reserved += units
	}
	for _, units := range l.Transfers {
		report.InTransfer += units
	}

	if l.LostCommits || l.Seen > snapshot.Product.Version {
		return r.lostCommits(ctx, l, snapshot, report)
	}
	if !l.Loaded {
		return false, nil
	}

	// Units that were taken back a moment ago are no difference, but nothing can be compared before Redis has them.
	if len(snapshot.Returning) > 0 {
		if !r.Apply {
			report.Busy = true
			return true, nil
		}
		_, err := Return(ctx, r.Redis, r.MySQL, stockID, snapshot.Returning)
		return true, err
	}

	// What is known to be missed or left over is repaired first; then the product is looked at again.
	for _, step := range []func(context.Context, stock.Look, ledger.Snapshot) (Finding, error){
		r.settings, r.restocks, r.transfers, r.unsettled, r.lost,
	} {
		f, err := step(ctx, l, snapshot)
		if err != nil {
			return false, err
		}
		if f.Orders > 0 {
			report.add(f)
			again = again || f.Repaired
		}
	}
	if again {
		return true, nil
	}

	return r.units(ctx, l, snapshot, report)
}

// older reports whether what was made at a time was older than an age when Redis was looked at, by the clock of Redis,
// which is the same for all workers.
func older(l stock.Look, made time.Time, age time.Duration) bool {
	return l.Now.Sub(made) > age
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
