package stock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// Place is what Redis holds of one order with its product, or its bucket.
type Place struct {
	StockID order.StockID
	// Reserved are the units that are reserved for it; 0 is no reservation. Record is all that is known of it then, as
	// buyers see it, or nil if a program before message version 2 has reserved it.
	Reserved int64
	Record   *order.Record
	// ReservedAt is since when, and zero if that is not known. InOutbox reports whether the queue has not acknowledged
	// it, as far as Redis knows. ClaimedAt is then when somebody last claimed its batch in order to send it; it is zero
	// if nobody has.
	InOutbox              bool
	ReservedAt, ClaimedAt time.Time
	// Marked reports whether it was settled by another than its decider, who must not settle it once more.
	Marked bool
}

// Places looks for an order with each of the products, and returns those that have something of it.
func (s *Stock) Places(ctx context.Context, stockIDs []order.StockID, id order.OrderID) ([]Place, error) {
	var places []Place
	for some := range slices.Chunk(stockIDs, totalsBatch) {
		found, err := s.places(ctx, some, id)
		if err != nil {
			return nil, fmt.Errorf("look for order %s: %w", id, err)
		}
		places = append(places, found...)
	}
	return places, nil
}

func (s *Stock) places(ctx context.Context, stockIDs []order.StockID, id order.OrderID) (places []Place, err error) {
	reserved, marked := make([]*goredis.StringCmd, len(stockIDs)), make([]*goredis.BoolCmd, len(stockIDs))
	_, err = s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, stockID := range stockIDs {
			k := keysOf(stockID)
			reserved[i] = p.HGet(ctx, k.reserved, id.String())
			marked[i] = p.SIsMember(ctx, k.settled, id.String())
		}
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return nil, err
	}

	for i, stockID := range stockIDs {
		place := Place{StockID: stockID, Marked: marked[i].Val()}
		if reserved[i].Err() == nil {
			if err := s.readPlace(ctx, &place, id, reserved[i].Val()); err != nil {
				return nil, err
			}
		}
		if place.Reserved != 0 || place.Marked {
			places = append(places, place)
		}
	}
	return places, nil
}

// readPlace reads an order's reservation, and whether its batch is in the outbox.
func (s *Stock) readPlace(ctx context.Context, place *Place, id order.OrderID, text string) error {
	r, err := parseReservation(place.StockID, id, text)
	if err != nil {
		return err
	}
	place.Reserved = r.units
	if r.batch != "" {
		currency, err := s.Currency(ctx, place.StockID)
		if err != nil && !errors.Is(err, ErrNotLoaded) {
			return err
		}
		place.Record = &order.Record{Order: r.order, Currency: r.order.PricedIn(currency), Status: order.Pending}
		place.ReservedAt = r.order.ReservedAt
	}

	entry, err := s.rdb.HGet(ctx, keysOf(place.StockID).outbox, cmp.Or(r.batch, id.String())).Result()
	switch {
	case errors.Is(err, goredis.Nil):
		return nil
	case err != nil:
		return err
	}
	place.InOutbox = true
	place.ReservedAt, place.ClaimedAt = batchTimes(entry)
	return nil
}

// Currency reads the currency in which a loaded product is sold, or ErrNotLoaded.
func (s *Stock) Currency(ctx context.Context, stockID order.StockID) (string, error) {
	currency, err := s.rdb.HGet(ctx, keysOf(stockID).sale, fieldCurrency).Result()
	if errors.Is(err, goredis.Nil) {
		return "", ErrNotLoaded
	}
	return currency, err
}
