package main

import (
	"context"
	"log/slog"

	"stampede/internal/stock"
	"stampede/internal/store"
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

// maxRefusals is how often MySQL must refuse orders for a reason that nobody has foreseen, while a sound order of the same
// product could be decided, until they are at fault themselves.
const maxRefusals = 3

// inquest finds out why orders of one product cannot be decided: it is asked after each failure. What MySQL says is not
// enough. A reason that a sound order would fail for as well is not an order's own, and no list has all the reasons for
// which one order can fail.
type inquest struct {
	worker    *Worker
	productID int64
	alone     bool // there is just one order

	refusals int  // in succession, of which a sound order had none
	asked    bool // the gate has been shut for the product already, so that all else has been found to be in order
}

func (in *inquest) blame(err error) fault {
	class := store.Classify(err)
	switch {
	case class == store.Transient:
		return ofProduct // somebody has held its row for long
	case class == store.Own && !in.alone:
		return ofOrder // alone, each will be looked at more closely
	case class == store.Systemic && !store.Answered(err):
		return ofAll
	}

	ctx, cancel := context.WithTimeout(context.Background(), decideTimeout)
	defer cancel()
	if sound := in.worker.store.Rehearse(ctx, in.productID); sound != nil {
		in.refusals = 0
		slog.Error("decide: not even a sound order can be decided", "product", in.productID, "error", sound)
		if store.Classify(sound) == store.Transient || in.asked && store.Answered(sound) {
			return ofProduct
		}
		in.asked = true
		return ofAll
	}
	if in.refusals++; class == store.Own || in.refusals == maxRefusals {
		in.refusals = 0
		return ofOrder
	}
	return ofProduct
}

// blameInRedis is inquest for what is done in Redis.
func blameInRedis(err error) fault {
	if stock.Rejected(err) {
		return ofOrder
	}
	return ofAll
}
