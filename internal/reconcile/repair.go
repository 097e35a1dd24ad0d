package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// lostCommits notes that MySQL has lost commits of a product, or accepts it. Redis was read first, and hears of a
// version only when it is committed, so that MySQL cannot have an older one for another reason.
func (r *Reconciler) lostCommits(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (again bool, err error) {
	f := Finding{Cause: LostCommits, Orders: int(max(l.Seen-s.Product.Version, 1))}
	switch {
	case r.AcceptMySQL && r.Apply:
		f.Repaired, err = r.Redis.AcceptVersion(ctx, s.Product.ID, l, s.Product.Version)
		if err != nil || !f.Repaired {
			return true, err
		}
	case r.Apply:
		if err = r.Redis.KeepCompleted(ctx, s.Product.ID); err == nil && !l.LostCommits {
			err = r.Redis.NoteLostCommits(ctx, s.Product.ID)
		}
	}
	report.add(f)
	return f.Repaired, err
}

// settings brings a change to Redis that it has missed.
func (r *Reconciler) settings(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Settings}
	if missed := s.Product.Revision - l.Revision; missed > 0 {
		f.Orders, f.Repaired = int(missed), r.Apply
	}
	if !f.Repaired {
		return f, nil
	}
	_, err := r.Redis.Configure(ctx, s.Product)
	return f, err
}

// restocks brings restocks to Redis that it has missed.
func (r *Reconciler) restocks(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Restock}
	if s.Product.Version <= l.Version {
		return f, nil
	}

	for after := l.Version; ; {
		page, err := r.MySQL.Restocks(ctx, s.Product.ID, after)
		if err != nil {
			return f, err
		}

		for _, restock := range page {
			if l.Restocks[restock.ID] {
				continue // it was applied after the product was loaded
			}
			if r.Apply {
				if _, err := r.Redis.Restock(ctx, s.Product.ID, restock.Units, restock.Version,
					restock.ID); err != nil {
					return f, err
				}
			}
			f.Orders, f.Units, f.Repaired = f.Orders+1, f.Units+restock.Units, r.Apply
		}

		if len(page) < mysql.MaxPage {
			return f, nil
		}
		after = page[len(page)-1].Version
	}
}

// transfers finishes transfers to other buckets and corrections: as MySQL has decided, and those that it has not
// decided are cancelled.
func (r *Reconciler) transfers(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Transfer}
	for transfer, units := range l.Transfers {
		if !r.Pause && !older(l, transfer.MadeAt(), cmp.Or(r.TransferAge, TransferAge)) {
			continue
		}
		if r.Apply {
			begun := ledger.Transfer{ID: transfer.ID, Donor: s.Product.ID, Receiver: transfer.Receiver, Units: units}
			decided, err := r.MySQL.CancelTransfer(ctx, begun)
			if err != nil {
				return f, err
			}
			decided.Fresh = false // its edge may come yet
			if err := (buckets.Stores{Redis: r.Redis, MySQL: r.MySQL}).Finish(ctx, decided); err != nil {
				return f, err
			}
		}
		f.Orders, f.Units, f.Repaired = f.Orders+1, f.Units+units, r.Apply
	}
	return f, nil
}

// unsettled settles orders that are decided. They are not fresh: who has decided them may come yet.
func (r *Reconciler) unsettled(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Unsettled}
	var decisions, dead []order.Decision
	for id, record := range s.Decided {
		if !r.Pause && !older(l, id.MadeAt(), cmp.Or(r.StaleAge, StaleAge)) {
			continue
		}
		d := order.Decision{Record: record}
		if record.FailedReason == order.DeadLetter {
			dead = append(dead, d)
		} else {
			decisions = append(decisions, d)
		}
		f.Orders, f.Units = f.Orders+1, f.Units+l.Reserved[id]
	}
	if !r.Apply {
		return f, nil
	}

	for batch := range slices.Chunk(decisions, stock.MaxBatch) {
		if _, err := r.Redis.Settle(ctx, s.Product.ID, batch); err != nil {
			return f, err
		}
		f.Repaired = true
	}

	// An order that failed as a dead letter may be about to be decided anew.
	for batch := range slices.Chunk(dead, stock.MaxBatch) {
		settled, err := r.Redis.SettleLeft(ctx, s.Product.ID, batch)
		if err != nil {
			return f, err
		}
		f.Repaired = f.Repaired || settled.Spared < int64(len(batch))
	}
	return f, nil
}

// lost sends orders again that should have been decided long ago. If they are on the queue after all, they are decided
// once all the same. Of what a program before message version 2 has reserved nobody knows whose order it was; its units
// are given back once no message can have it.
func (r *Reconciler) lost(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Lost}
	var ids []order.OrderID
	for id, units := range l.Reserved {
		if _, decided := s.Decided[id]; !decided && !l.Outbox[id] && older(l, id.MadeAt(), cmp.Or(r.LostAge, LostAge)) {
			ids = append(ids, id)
			f.Orders, f.Units = f.Orders+1, f.Units+units
		}
	}
	if !r.Apply || r.Send == nil {
		return f, nil
	}

	for batch := range slices.Chunk(ids, stock.MaxBatch) {
		pending, err := r.Redis.Pending(ctx, s.Product.ID, batch)
		if err != nil {
			return f, err
		}

		var orders []order.Order
		var gone []order.Decision
		for i, record := range pending.Records {
			if record == nil {
				if r.Drained || older(l, batch[i].MadeAt(), forgottenAge) {
					unknown := order.Order{ID: batch[i], StockID: s.Product.ID, Quantity: l.Reserved[batch[i]]}
					gone = append(gone, order.Decision{Record: order.Record{Order: unknown, Status: order.Failed}})
				}
				continue
			}
			first, err := r.Locks.TryLock(ctx, "resend:"+record.ID.String(), cmp.Or(r.LostAge, LostAge))
			if err != nil {
				return f, err
			}
			if first { // or it was sent not long ago
				orders = append(orders, record.Order)
			}
		}

		if len(gone) > 0 {
			if _, err := r.Redis.SettleLeft(ctx, s.Product.ID, gone); err != nil {
				return f, err
			}
			slog.Error("reconcile: orders are lost, with their messages; their units are for sale again",
				"product", s.Product.ID, "orders", len(gone), "first", gone[0].ID)
			f.Repaired = true
		}

		if len(orders) == 0 {
			continue
		}
		if err := r.Send(ctx, orders); err != nil {
			return f, err
		}
	}
	return f, nil // what was sent is repaired when it is decided
}
