package main

import (
	"fmt"
	"log/slog"

	"github.com/valyala/fasthttp"

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
	stock.NoPointsPrice:       problem.NoPointsPrice,
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

// sendDenied tells why an order is not promised.
func sendDenied(ctx *fasthttp.RequestCtx, a *answer) {
	if a.code != problem.OutcomeUnknown {
		sendRefusal(ctx, a.code, &a.sale)
		return
	}
	sendProblem(ctx, a.code, "Ask for the order, or repeat the request with the same Idempotency-Key.",
		problem.Extra{Name: "order_id", Value: a.order.ID.String()})
	setLocation(ctx, &a.order)
}

// sendRefusal tells why an order was not taken.
func sendRefusal(ctx *fasthttp.RequestCtx, c problem.Code, sale *stock.Sale) {
	switch c {
	case problem.SaleNotStarted:
		sendProblem(ctx, c, "", problem.Extra{Name: "starts_at", Value: sale.StartsAt})
	case problem.SaleEnded:
		sendProblem(ctx, c, "", problem.Extra{Name: "ends_at", Value: sale.EndsAt})
	case problem.LimitExceeded:
		sendProblem(ctx, c, fmt.Sprintf("One buyer may have %d units.", sale.LimitPerUser),
			problem.Extra{Name: "limit_per_user", Value: sale.LimitPerUser})
	default:
		sendProblem(ctx, c, "")
	}
}
