package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// Place is what Redis holds of one order with its product, or its bucket, beside the state that buyers see.
type Place struct {
	StockID order.StockID
	// Reserved are the units that are reserved for it; 0 is no reservation.
	Reserved int64
	// InOutbox reports whether the queue has not acknowledged it, as far as Redis knows. ReservedAt is then since when,
	// and ClaimedAt when somebody last claimed it in order to send it; it is zero if nobody has.
	InOutbox              bool
	ReservedAt, ClaimedAt time.Time
	// Marked reports whether it was settled by another than its decider, who must not settle it once more.
	Marked bool
}

// Places looks for an order with each of the products, and returns those that have something of it.
func (s *Stock) Places(ctx context.Context, stockIDs []order.StockID, id order.OrderID) ([]Place, error) {
	var places []Place
	for batch := range slices.Chunk(stockIDs, totalsBatch) {
		reserved, outbox := make([]*goredis.StringCmd, len(batch)), make([]*goredis.StringCmd, len(batch))
		marked := make([]*goredis.BoolCmd, len(batch))

		_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i, product := range batch {
				k := keysOf(product)
				reserved[i] = p.HGet(ctx, k.reserved, id.String())
				outbox[i] = p.HGet(ctx, k.outbox, id.String())
				marked[i] = p.SIsMember(ctx, k.settled, id.String())
			}
			return nil
		})
		if err != nil && !errors.Is(err, goredis.Nil) {
			return nil, fmt.Errorf("look for order %s: %w", id, err)
		}

		for i, product := range batch {
			place := Place{StockID: product, InOutbox: outbox[i].Err() == nil, Marked: marked[i].Val()}
			place.Reserved, _ = reserved[i].Int64() // 0 if there is none
			if place.InOutbox {
				place.ReservedAt, place.ClaimedAt = outboxTimes(outbox[i].Val())
			}
			if place.Reserved != 0 || place.InOutbox || place.Marked {
				places = append(places, place)
			}
		}
	}
	return places, nil
}

// outboxTimes reads when the order of an entry was reserved, and when it was last claimed.
func outboxTimes(entry string) (reserved, claimed time.Time) {
	var d decoder
	if f := strings.Fields(entry); len(f) > 1 {
		reserved, claimed = fromMillis(d.int(f[0])), fromMillis(d.int(f[1]))
	}
	return reserved, claimed
}
