package main

import (
	"log/slog"

	"stampede/internal/problem"
	"stampede/internal/stock"
)

// refusals maps the outcomes of a reservation that change nothing to what the client is told.
var refusals = map[stock.Outcome]problem.Code{
	stock.SoldOut:             problem.SoldOut,
	stock.LimitExceeded:       problem.LimitExceeded,
	stock.NotStarted:          problem.SaleNotStarted,
	stock.Ended:               problem.SaleEnded,
	stock.IdempotencyMismatch: problem.IdempotencyMismatch,
	stock.Paused:              problem.StockUnavailable,
	stock.NotOnSale:           problem.NotOnSale,
}

// refusal is what the client is told of an outcome that changes nothing. One that this edge does not know, such as of a
// newer script, must not look like an order that was taken.
func (t *ticket) refusal(o stock.Outcome) problem.Code {
	c, ok := refusals[o]
	if !ok {
		slog.Error("reserve: Redis gave an outcome that this edge does not know", "outcome", o, logIDs([]*ticket{t}))
		return problem.StockUnavailable
	}
	return c
}
