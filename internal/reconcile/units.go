package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// units compares the units available with what they must be: MySQL's stock less what is reserved and undecided.
// That can be said only while nothing moves: the sale is quiet or paused.
func (r *Reconciler) units(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (again bool, err error) {
	quiet := len(l.Reserved) == 0 && len(l.Outbox) == 0 && len(l.Transfers) == 0
	if !quiet && !(r.Pause && r.Apply) {
		report.Busy = true
		return false, nil
	}
	if !l.Still {
		return true, nil // the sums are of no moment
	}
	if len(l.Transfers) > 0 {
		return true, nil // it began before the pause, and will be finished
	}

	id := s.Product.ID
	must := s.Product.Stock
	for order, units := range l.Reserved {
		if _, decided := s.Decided[order]; decided {
			return true, nil // it is younger than StaleAge
		}
		must -= units
	}

	if quiet && !(r.Apply && l.Counted()) {
		if moved, err := r.bought(ctx, l, s, report); err != nil || moved {
			return moved, err
		}
	}

	if wrong := l.Available - must; wrong != 0 {
		if !r.Pause {
			if err := sleep(ctx, doubt); err != nil {
				return false, err
			}
			if now, err := r.Redis.Look(ctx, id); err != nil || !now.SameAs(l) {
				return true, err
			}
		}

		if !r.Apply {
			report.add(Finding{Cause: Stock, Orders: 1, Units: wrong})
			return false, nil
		}
		set, err := r.Redis.Correct(ctx, id, l, must, s.Product.Version)
		if err != nil || !set {
			return true, err
		}
		report.add(Finding{Cause: Stock, Orders: 1, Units: wrong, Repaired: true})
		report.Available = must
		return false, nil
	}

	if ends := s.Product.EndsAt; quiet && !ends.IsZero() && l.Now.Sub(ends) > EndedAge {
		f := Finding{Cause: Ended, Orders: 1}
		if r.Apply {
			if f.Repaired, err = r.Redis.Unload(ctx, id, l); err != nil {
				return false, err
			}
			report.Loaded = !f.Repaired
		}
		report.add(f)
	}
	return false, nil
}

// errMoved ends the comparison of what buyers have.
var errMoved = errors.New("something has moved")

// bought compares what the buyers of a quiet product have with their orders. A count may be too low, since Redis begins
// anew when it loads a product: MySQL judges by the orders. One that is too high refuses a buyer for ever.
func (r *Reconciler) bought(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (moved bool, err error) {
	id := s.Product.ID
	f := Finding{Cause: Bought}
	lower := func(bought map[order.UserID]int64, all bool) error {
		if !r.Apply {
			return nil
		}
		set, err := r.Redis.LowerBought(ctx, id, l, bought, all)
		if err == nil && !set {
			err = errMoved
		}
		return err
	}

	err = r.Redis.Bought(ctx, id, func(counts map[order.UserID]int64) error {
		has, err := r.MySQL.Bought(ctx, id, slices.Collect(maps.Keys(counts)))
		if err != nil {
			return err
		}

		wrong := make(map[order.UserID]int64)
		for user, units := range counts {
			if excess := units - has[user]; excess > 0 {
				wrong[user] = has[user]
				f.Orders, f.Units = f.Orders+1, f.Units+excess
			}
		}
		if len(wrong) == 0 {
			return nil
		}
		return lower(wrong, false)
	})
	if err == nil {
		err = lower(nil, true)
	}

	if errors.Is(err, errMoved) {
		return true, nil
	}
	if err != nil || f.Orders == 0 {
		return false, err
	}
	if f.Repaired = r.Apply; !f.Repaired {
		// Nobody but the script has seen that nothing moved meanwhile.
		if now, err := r.Redis.Look(ctx, id); err != nil || !now.SameAs(l) {
			return true, err
		}
	}
	report.add(f)
	return false, nil
}
