package main

import (
	"log/slog"

	"stampede/internal/stock"
)

// refusals maps the outcomes of a reservation that change nothing to what the client is told.
var refusals = map[stock.Outcome]code{
	stock.SoldOut:             soldOut,
	stock.LimitExceeded:       limitExceeded,
	stock.NotStarted:          saleNotStarted,
	stock.Ended:               saleEnded,
	stock.IdempotencyMismatch: idempotencyMismatch,
	stock.Paused:              stockUnavailable,
	stock.NotOnSale:           notOnSale,
}

// refusal is what the client is told of an outcome that changes nothing. One that this edge does not know, such as of a
// newer script, must not look like an order that was taken.
func (t *ticket) refusal(o stock.Outcome) code {
	c, ok := refusals[o]
	if !ok {
		slog.Error("reserve: Redis gave an outcome that this edge does not know", "outcome", o, logIDs([]*ticket{t}))
		return stockUnavailable
	}
	return c
}
