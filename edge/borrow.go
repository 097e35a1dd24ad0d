package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"stampede/internal/buckets"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
)

const (
	// borrowTimeout bounds the borrowing for a batch, for which all who want the bucket wait. It is below maxWait, so
	// that those are still served.
	borrowTimeout = 3 * time.Second
	// maxBorrows bounds the attempts for a batch: an order may need the last units of all other buckets, and others may
	// take what was borrowed.
	maxBorrows = 3 * order.MaxBuckets
	// transferWait is how long units are waited for that are on their way between other buckets, and borrowPause the
	// wait between two looks. A transfer takes some milliseconds; one whose edge has died is finished by reconcile.
	transferWait = 100 * time.Millisecond
	borrowPause  = 5 * time.Millisecond
)

// borrow serves tickets for which their bucket has too few units, by moving units there from the other buckets. Sold
// out are those for which all buckets together have too few. It returns those that belong elsewhere by what it has
// learned. It runs once at a time for a lane, on this edge.
func (r *reserver) borrow(bucket order.StockID, split int64, short served) (elsewhere []*ticket) {
	waiting := r.refuse(bucket, short.short)

	ctx, cancel := context.WithTimeout(context.Background(), borrowTimeout)
	defer cancel()
	refused := map[order.StockID]bool{} // donors of which MySQL has fewer units than Redis
	var patience time.Time              // until which units on their way are waited for

	for attempt := 1; len(waiting) > 0; attempt++ {
		if attempt > maxBorrows {
			r.fail(bucket, waiting, errors.New("others were quicker each time"))
			break
		}

		// Which of them can be served by the units of all buckets together?
		asked := time.Now()
		counts, err := r.counts(ctx, bucket, split)
		if err != nil {
			r.fail(bucket, waiting, err)
			break
		}
		total, transfers := unitsOf(counts, refused)
		possible, few, wanted, least := partition(waiting, total)

		// None: they are sold out, once it is sure that no units are on their way.
		if len(possible) == 0 {
			if patience.IsZero() || transfers > 0 && time.Now().Before(patience) {
				// At least two looks, since units that arrive during one may be missed.
				if patience.IsZero() {
					patience = time.Now().Add(transferWait)
				} else {
					time.Sleep(borrowPause)
				}
				continue
			}
			r.sellOut(bucket, short.sale, total, asked, few)
			break
		}

		// Some: the bucket gets what it lacks for them from another.
		if own := max(counts[bucket].Available, 0); own < least {
			moved, err := r.fetch(ctx, bucket, counts, refused, wanted-own)
			if err != nil {
				r.fail(bucket, waiting, err)
				break
			}
			if own+moved < least {
				continue
			}
		}

		served := r.serve(bucket, split, possible)
		elsewhere = append(elsewhere, served.elsewhere...)
		waiting = append(few, served.short...)
	}
	return elsewhere
}

// unitsOf adds up the units of all buckets that may give some, and the transfers that are under way.
func unitsOf(counts map[order.StockID]stock.Count, refused map[order.StockID]bool) (total, transfers int64) {
	for id, s := range counts {
		if !refused[id] {
			total += max(s.Available, 0)
		}
		transfers += s.Transfers
	}
	return total, transfers
}

// sellOut answers tickets for which all buckets together have too few units, and remembers that they have.
func (r *reserver) sellOut(bucket order.StockID, sale stock.Sale, total int64, asked time.Time, tickets []*ticket) {
	sale.Available = total
	r.refusalCache.learn(bucket, sale, asked)
	for _, t := range tickets {
		t.answer <- &answer{code: problem.SoldOut, sale: sale}
	}
}

// fetch moves at least so many units to a bucket, if the richest of the others has them. One of which MySQL has fewer
// is noted in refused, and none are moved then.
func (r *reserver) fetch(
	ctx context.Context, bucket order.StockID,
	counts map[order.StockID]stock.Count, refused map[order.StockID]bool, least int64,
) (moved int64, err error) {
	donor := richest(counts, bucket, refused)
	// Half of what the donor has, so that few moves are made, and what is needed if that is more.
	units := max(least, (counts[donor].Available+1)/2)
	moved, err = r.move(ctx, donor, bucket, units)
	switch {
	case errors.Is(err, buckets.ErrRefused):
		refused[donor] = true
		return 0, nil
	case err == nil && moved == 0:
		time.Sleep(borrowPause) // others were quicker, or the sale is paused
	}
	return moved, err
}

// refuse answers those tickets of which it is known that all buckets have too few, and returns the others.
func (r *reserver) refuse(bucket order.StockID, tickets []*ticket) (rest []*ticket) {
	for _, t := range tickets {
		if c, sale := r.refusalCache.ask(bucket, t.request.Quantity, time.Now()); c == problem.SoldOut {
			t.answer <- &answer{code: c, sale: *sale}
		} else {
			rest = append(rest, t)
		}
	}
	return rest
}

// partition divides tickets into those that so many units are enough for, one by one, and the others. Of the former it
// says how many units they want together, and what is the least that one wants.
func partition(tickets []*ticket, units int64) (possible, few []*ticket, wanted, least int64) {
	least = order.MaxQuantity
	for _, t := range tickets {
		if t.request.Quantity > units {
			few = append(few, t)
			continue
		}
		possible = append(possible, t)
		wanted += t.request.Quantity
		least = min(least, t.request.Quantity)
	}
	return possible, few, wanted, least
}

// richest is the bucket that has most to give to another.
func richest(
	counts map[order.StockID]stock.Count, receiver order.StockID, refused map[order.StockID]bool,
) (donor order.StockID) {
	for id, s := range counts {
		if id == receiver || refused[id] {
			continue
		}
		// Of equals the first, so that edges agree, and the units of several are not scattered anew by each.
		if best, ok := counts[donor]; !ok || s.Available > best.Available || s.Available == best.Available &&
			id < donor {
			donor = id
		}
	}
	return donor
}

// counts is how many units Redis holds in each bucket of a product. It loads those that Redis does not have.
func (r *reserver) counts(
	ctx context.Context, bucket order.StockID, split int64,
) (map[order.StockID]stock.Count, error) {
	ids := bucket.Product().Buckets(split)
	counts, err := r.stock.Counts(ctx, ids)
	if err != nil {
		return nil, err
	}
	loaded := false
	for _, id := range ids {
		if counts[id].Loaded {
			continue
		}
		loaded = true
		if err := r.mysql.try(func() error { return r.load(id) }); err != nil {
			return nil, err
		}
	}
	if loaded {
		return r.stock.Counts(ctx, ids)
	}
	return counts, nil
}

// move moves units, unless MySQL has failed a moment ago.
func (r *reserver) move(ctx context.Context, donor, receiver order.StockID, units int64) (moved int64, err error) {
	failed := r.mysql.try(func() error {
		moved, err = r.stores.Transfer(ctx, donor, receiver, units)
		if errors.Is(err, buckets.ErrRefused) {
			return nil // an answer all the same
		}
		return err
	})
	outcome := transferMoved
	switch err := cmp.Or(err, failed); {
	case errors.Is(err, buckets.ErrRefused):
		outcome = transferRefused
	case err != nil:
		outcome = transferFailed
	case moved == 0:
		outcome = transferEmpty
	}
	r.metrics.transfers.WithLabelValues(outcome).Inc()
	return moved, cmp.Or(err, failed)
}
