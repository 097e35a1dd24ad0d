package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/redis"
)

// fault says whose fault it is that orders could not be decided or settled.
type fault int

const (
	// ofAll: something is down that every order needs.
	ofAll fault = iota + 1
	// ofProduct: no order of the product can be decided now; those of others can.
	ofProduct
	// ofOrder: the order fails for a reason of its own; of several, one does.
	ofOrder
)

// maxRefusals is how often MySQL must refuse orders for a reason that nobody has foreseen, while a sound order of the
// same product could be decided, until they are at fault themselves.
const maxRefusals = 3

// investigation finds out why orders of one product cannot be decided: it is asked after each failure. What MySQL says
// is not enough. A reason that a sound order would fail for as well is not an order's own, and no list has all the
// reasons for which one order can fail.
type investigation struct {
	worker  *Worker
	stockID order.StockID
	alone   bool // there is just one order

	refusals int  // in succession, of which a sound order had none
	asked    bool // the breaker has tripped for the product already, so that all else has been found to be in order
}

func (in *investigation) blame(err error) fault {
	class := mysql.Classify(err)
	switch {
	case class == mysql.Transient:
		return ofProduct // somebody has held its row for long
	case class == mysql.Own && !in.alone:
		return ofOrder // alone, each will be looked at more closely
	case class == mysql.Systemic && !mysql.Answered(err):
		return ofAll
	}

	ctx, cancel := context.WithTimeout(context.Background(), decideTimeout)
	defer cancel()
	if sound := in.worker.ledger.Rehearse(ctx, in.stockID); sound != nil {
		in.refusals = 0
		slog.Error("decide: not even a sound order can be decided", "product", in.stockID, "error", sound)
		if mysql.Classify(sound) == mysql.Transient || in.asked && mysql.Answered(sound) {
			return ofProduct
		}
		in.asked = true
		return ofAll
	}
	if in.refusals++; class == mysql.Own || in.refusals == maxRefusals {
		in.refusals = 0
		return ofOrder
	}
	return ofProduct
}

// blameInRedis is investigation for what is done in Redis with orders of one product since a time. While some masters
// of a Cluster answer, it is the product's own that does not: it gets a moment, and then its orders must come back
// later.
func (w *Worker) blameInRedis(stockID order.StockID, since time.Time) func(error) fault {
	return func(err error) fault {
		if redis.Rejected(err) {
			return ofOrder
		}
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		switch {
		case !w.redis.IsPartlyUp(ctx):
			return ofAll
		case time.Since(since) < w.stuckAge:
			return ofProduct
		}
		w.unreachable.note(stockID)
		return ofOrder
	}
}

// unreachableTime is for how long a product whose master in a Cluster does not answer is left alone.
const unreachableTime = 5 * time.Second

// unreachable notes products whose master in a Cluster does not answer, and until when they are left alone: meanwhile
// the messages of others have the worker to themselves.
type unreachable struct {
	mu    sync.Mutex
	until map[order.StockID]time.Time
}

func (u *unreachable) note(stockID order.StockID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.until[stockID] = time.Now().Add(unreachableTime)
}

// is reports whether a product is to be left alone. It is forgotten when it may be tried again.
func (u *unreachable) is(stockID order.StockID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	until, noted := u.until[stockID]
	if noted && time.Now().After(until) {
		delete(u.until, stockID)
		return false
	}
	return noted
}
