package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"stampede/internal/catalog"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/token"
)

const (
	// maxStatusWait bounds ?wait=: below the idle time-out that load balancers commonly have.
	maxStatusWait = 20 * time.Second
	// pageSize is how many orders or products a page of a list holds.
	pageSize = 50
	// unseenAge is how old an order may be, by the time in its id, for it to be on the queue though neither Redis nor
	// MySQL has heard of it: Redis may have lost its data. The clock of the edge that has named it may be as wrong,
	// either way.
	unseenAge = time.Hour
)

// orderBody is an order as clients see it.
type orderBody struct {
	OrderID      string          `json:"order_id"`
	Status       order.Status    `json:"status"`
	FailedReason order.Reason    `json:"failed_reason,omitempty"`
	ProductID    order.ProductID `json:"product_id"`
	Quantity     int64           `json:"quantity"`
	UnitPrice    int64           `json:"unit_price"`
	TotalPrice   int64           `json:"total_price"`
	Currency     string          `json:"currency"`
	PayWith      string          `json:"pay_with,omitempty"`
	ReservedAt   time.Time       `json:"reserved_at,omitzero"`
	DecidedAt    time.Time       `json:"decided_at,omitzero"`
	PayBy        time.Time       `json:"pay_by,omitzero"`
}

func newOrderBody(r *order.Record) orderBody {
	b := orderBody{
		OrderID: r.ID.String(), Status: r.Status, FailedReason: r.FailedReason,
		ProductID: r.StockID.Product(), Quantity: r.Quantity, UnitPrice: r.UnitPrice,
		TotalPrice: r.TotalPrice(),
		Currency:   r.Currency, ReservedAt: r.ReservedAt, DecidedAt: r.DecidedAt, PayBy: r.PayBy,
	}
	if r.Points {
		b.PayWith = withPoints
	}
	return b
}

// getOrder answers with the state of one of the user's orders; with ?wait= it waits for the decision.
func (e *Edge) getOrder(ctx *fasthttp.RequestCtx, who *token.Claims) {
	text, _ := ctx.UserValue("id").(string)
	id, err := order.ParseID(text)
	if err != nil || len(text) != len(uuid.Nil.String()) {
		sendProblem(ctx, problem.MalformedRequest, "An order's id is a UUID.")
		return
	}
	wait, ok := parseWait(ctx.QueryArgs().Peek("wait"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, fmt.Sprintf("wait must be a time from 0s to %s.", maxStatusWait))
		return
	}

	productID, ok := parseProduct(ctx.QueryArgs().Peek("product_id"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, "product_id must be the id of the order's product.")
		return
	}

	record, err := e.finder.find(id, productID, who.UserID)
	if err != nil {
		slog.Error("look up an order: it cannot be read", logID(ctx), "order", id, "error", err)
		sendProblem(ctx, problem.OrdersUnavailable, "")
		return
	}

	// An order of somebody else gets the answer, as late, of one that nobody knows.
	known := record != nil
	if !known && !mayBeUnseen(id) {
		sendProblem(ctx, problem.OrderNotFound, "")
		return
	}

	if wait > 0 && (!known || record.Status == order.Pending) {
		stockID := order.StockID(0)
		switch {
		case known:
			stockID = record.StockID
		case productID != 0:
			stockID = e.reserver.stockID(productID, who.UserID)
		}
		if decided := e.watcher.wait(id, stockID, who.UserID, wait); decided != nil {
			record, known = decided, true
		}
	}

	if !known || record.Status == order.Pending {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter)
	}
	if !known {
		sendProblem(ctx, problem.OrderNotSeenYet, "If it was accepted it will be seen when it is decided. Ask again.")
		return
	}
	sendJSON(ctx, fasthttp.StatusOK, newOrderBody(record))
}

// parseWait reads ?wait=, which may be empty.
func parseWait(text []byte) (wait time.Duration, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	wait, err := time.ParseDuration(string(text))
	return wait, err == nil && wait >= 0 && wait <= maxStatusWait
}

// parseProduct reads ?product_id=, which may be missing: it is then 0.
func parseProduct(text []byte) (order.ProductID, bool) {
	if len(text) == 0 {
		return 0, true
	}
	id, bad := catalog.ParseID(string(text))
	return id, bad == nil
}

// listOrders answers with the user's decided orders, newest first.
func (e *Edge) listOrders(ctx *fasthttp.RequestCtx, who *token.Claims) {
	before, ok := e.cursors.ReadOrder(ctx.QueryArgs().Peek("cursor"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, "cursor must be the next_cursor of an earlier page.")
		return
	}

	lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	records, err := e.ledger.Orders(lookup, who.UserID, before, pageSize+1)
	if err != nil {
		slog.Error("list orders: they cannot be read", logID(ctx), "error", err)
		sendProblem(ctx, problem.OrdersUnavailable, "")
		return
	}

	page := struct {
		Orders     []orderBody `json:"orders"`
		NextCursor string      `json:"next_cursor,omitempty"`
	}{Orders: []orderBody{}}
	if len(records) > pageSize {
		records = records[:pageSize]
		page.NextCursor = e.cursors.Order(records[pageSize-1].ID)
	}
	for i := range records {
		page.Orders = append(page.Orders, newOrderBody(&records[i]))
	}
	sendJSON(ctx, fasthttp.StatusOK, page)
}
