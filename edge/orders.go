package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
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
	OrderID      string       `json:"order_id"`
	Status       order.Status `json:"status"`
	FailedReason order.Reason `json:"failed_reason,omitempty"`
	ProductID    int64        `json:"product_id"`
	Quantity     int64        `json:"quantity"`
	UnitPrice    int64        `json:"unit_price"`
	TotalPrice   int64        `json:"total_price"`
	Currency     string       `json:"currency"`
	ReservedAt   time.Time    `json:"reserved_at,omitzero"`
	DecidedAt    time.Time    `json:"decided_at,omitzero"`
}

func newOrderBody(r *order.Record) orderBody {
	return orderBody{
		OrderID: r.ID.String(), Status: r.Status, FailedReason: r.FailedReason,
		ProductID: order.ProductOf(r.ProductID), Quantity: r.Quantity, UnitPrice: r.UnitPrice,
		TotalPrice: r.TotalPrice(),
		Currency:   r.Currency, ReservedAt: r.ReservedAt, DecidedAt: r.DecidedAt,
	}
}

// postOrder takes an order: 202 once the queue has it.
//
// Each connection's stack stays as large as the deepest call on it has made it, and with 10,000 connections its size
// shows: up to 3 KiB fit into one of 4 KiB, more into one of 8. So what reads and what answers are calls of their own.
func (e *Edge) postOrder(ctx *fasthttp.RequestCtx, who *token.Claims) {
	t := e.readOrder(ctx, who)
	if t == nil {
		return
	}
	e.reserver.submit(t)
	if a := <-t.answer; a.code == accepted {
		sendAccepted(ctx, a)
	} else {
		sendDenied(ctx, a)
	}
}

// readOrder makes a ticket of a request. If it is refused already, it is answered, and there is no ticket.
func (e *Edge) readOrder(ctx *fasthttp.RequestCtx, who *token.Claims) *ticket {
	if !problem.IsMediaType(ctx.Request.Header.ContentType(), "application/json") {
		sendProblem(ctx, problem.UnsupportedMediaType, "Send the order with Content-Type: application/json.")
		return nil
	}
	key, detail := problem.IdempotencyKey(ctx.Request.Header.PeekAll(problem.IdempotencyHeader))
	if detail != "" {
		sendProblem(ctx, problem.MalformedRequest, detail)
		return nil
	}
	productID, quantity, c, detail := parseOrder(ctx.PostBody())
	if c != "" {
		sendProblem(ctx, c, detail)
		return nil
	}
	if e.products.missing(productID) {
		sendProblem(ctx, problem.ProductNotFound, "")
		return nil
	}
	shelf := e.reserver.shelf(productID, who.UserID)
	if key == "" { // a request with a key may be the repetition of an accepted one, which only Redis knows
		if c, sale := e.closed.ask(shelf, quantity, ctx.Time()); c != "" {
			sendRefusal(ctx, c, sale)
			return nil
		}
	}
	t := &ticket{
		request: stock.Request{
			OrderID: e.stock.NewOrderID(shelf), UserID: who.UserID, Quantity: quantity, IdempotencyKey: key,
		},
		productID: productID, since: time.Now(), answer: make(chan *answer, 1),
	}
	t.keepID(ctx)
	if telemetry.Tracing() {
		t.place(ctx)
	}
	return t
}

// sendDenied tells why an order is not promised.
func sendDenied(ctx *fasthttp.RequestCtx, a *answer) {
	if a.code != problem.OutcomeUnknown {
		sendRefusal(ctx, a.code, &a.sale)
		return
	}
	sendProblem(ctx, a.code, "Ask for the order, or repeat the request with the same Idempotency-Key.",
		problem.Extra{Name: "order_id", Value: a.order.ID.String()})
	setLocation(ctx, a.order.ID)
}

// sendAccepted promises an order.
func sendAccepted(ctx *fasthttp.RequestCtx, a *answer) {
	ctx.SetStatusCode(fasthttp.StatusAccepted)
	ctx.SetContentType("application/json")
	ctx.Response.SetBodyRaw(appendAccepted(make([]byte, 0, acceptedBytes), &a.order, a.sale.Currency))
	setLocation(ctx, a.order.ID)
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter)
}

// setLocation says where an order can be asked for.
func setLocation(ctx *fasthttp.RequestCtx, id uuid.UUID) {
	var location [64]byte
	ctx.Response.Header.SetBytesV(fasthttp.HeaderLocation, order.AppendID(append(location[:0], "/api/orders/"...), id))
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

// acceptedBytes is a little more than most bodies of a 202 have.
const acceptedBytes = 256

// appendAccepted appends the body of a 202. It says what was promised, and is the same for every retry.
func appendAccepted(b []byte, o *order.Order, currency string) []byte {
	b = order.AppendID(append(b, `{"order_id":"`...), o.ID)
	b = append(append(b, `","status":"`...), order.Pending...)
	b = strconv.AppendInt(append(b, `","product_id":`...), order.ProductOf(o.ProductID), 10)
	b = strconv.AppendInt(append(b, `,"quantity":`...), o.Quantity, 10)
	b = strconv.AppendInt(append(b, `,"unit_price":`...), o.UnitPrice, 10)
	b = strconv.AppendInt(append(b, `,"total_price":`...), o.TotalPrice(), 10)
	b = append(append(b, `,"currency":"`...), currency...) // three letters
	return append(b, `"}`...)
}

// parseOrder reads {"product_id":1,"quantity":1}. If something is wrong with it, c and detail say what.
func parseOrder(body []byte) (productID, quantity int64, c problem.Code, detail string) {
	if productID, quantity, ok := parsePlainOrder(body); ok {
		return productID, quantity, "", ""
	}
	return decodeOrder(body)
}

// decodeOrder is parseOrder for a body in any form.
func decodeOrder(body []byte) (productID, quantity int64, c problem.Code, detail string) {
	var fields struct {
		ProductID json.RawMessage `json:"product_id"`
		Quantity  json.RawMessage `json:"quantity"`
	}
	const example = `{"product_id":1,"quantity":1}`
	if detail := problem.CheckBody(body, example); detail != "" {
		return 0, 0, problem.MalformedRequest, detail
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return 0, 0, problem.MalformedRequest, problem.NotAnObject(example)
	}
	if !isNumber(fields.ProductID) {
		return 0, 0, problem.MalformedRequest, "product_id must be a number."
	}
	if !isNumber(fields.Quantity) {
		return 0, 0, problem.MalformedRequest, "quantity must be a number."
	}
	productID, err := strconv.ParseInt(string(fields.ProductID), 10, 64)
	if err != nil || productID <= 0 || productID > order.MaxProductID {
		return 0, 0, problem.ProductNotFound, "product_id must be a positive whole number, and one of a product."
	}
	quantity, err = strconv.ParseInt(string(fields.Quantity), 10, 64)
	if err != nil || quantity < 1 || quantity > order.MaxQuantity {
		return 0, 0, problem.InvalidQuantity, fmt.Sprintf("quantity must be a whole number from 1 to %d.",
			order.MaxQuantity)
	}
	return productID, quantity, "", ""
}

// parsePlainOrder reads the body that nearly all clients send, in which a space may follow a colon and the comma, and
// leaves every other to decodeOrder.
func parsePlainOrder(body []byte) (productID, quantity int64, ok bool) {
	digits := func(before string) (n int64, ok bool) {
		rest, ok := bytes.CutPrefix(body, []byte(before))
		rest = bytes.TrimPrefix(rest, []byte(" "))
		i := 0
		for ; ok && i < len(rest) && i < 18 && rest[i] >= '0' && rest[i] <= '9'; i++ { // 18 digits are below 2^63
			n = n*10 + int64(rest[i]-'0')
		}
		if i == 0 || rest[0] == '0' {
			return 0, false
		}
		body = rest[i:]
		return n, true
	}
	if productID, ok = digits(`{"product_id":`); !ok || productID > order.MaxProductID {
		return 0, 0, false
	}
	if body, ok = bytes.CutPrefix(body, []byte(",")); !ok {
		return 0, 0, false
	}
	body = bytes.TrimPrefix(body, []byte(" "))
	if quantity, ok = digits(`"quantity":`); !ok || quantity > order.MaxQuantity {
		return 0, 0, false
	}
	return productID, quantity, string(body) == "}"
}

// isNumber tells whether a valid JSON value is a number.
func isNumber(value json.RawMessage) bool {
	return len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9')
}

// getOrder answers with the state of one of the user's orders; with ?wait= it waits for the decision.
func (e *Edge) getOrder(ctx *fasthttp.RequestCtx, who *token.Claims) {
	text, _ := ctx.UserValue("id").(string)
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) {
		sendProblem(ctx, problem.MalformedRequest, "An order's id is a UUID.")
		return
	}
	wait, ok := parseWait(ctx.QueryArgs().Peek("wait"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, fmt.Sprintf("wait must be a time from 0s to %s.", maxStatusWait))
		return
	}
	record, err := e.findOrder(id, who.UserID)
	if err != nil && !errors.Is(err, mysql.ErrNotFound) {
		slog.Error("an order could not be looked up", logID(ctx), "order", id, "error", err)
		sendProblem(ctx, problem.OrdersUnavailable, "")
		return
	}
	// An order of somebody else gets the answer, as late, of one that nobody knows.
	known := err == nil && record.UserID == who.UserID
	if !known && !mayBeUnseen(id) {
		sendProblem(ctx, problem.OrderNotFound, "")
		return
	}
	if wait > 0 && (!known || record.Status == order.Pending) {
		if decided := e.watcher.wait(id, who.UserID, wait); decided != nil {
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

// mayBeUnseen reports whether an order that nobody knows may be on its way nevertheless: it is young by its id, which
// edges make as UUIDs of version 7 (RFC 9562).
func mayBeUnseen(id uuid.UUID) bool {
	if id.Version() != 7 {
		return false
	}
	return time.Since(time.Unix(id.Time().UnixTime())).Abs() < unseenAge
}

// parseWait reads ?wait=, which may be empty.
func parseWait(text []byte) (wait time.Duration, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	wait, err := time.ParseDuration(string(text))
	return wait, err == nil && wait >= 0 && wait <= maxStatusWait
}

// findOrder asks Redis, which knows every order that is on its way, and then MySQL, which knows every
// order that is decided. It may return an order of another user, but not sooner than one that is unknown.
func (e *Edge) findOrder(id uuid.UUID, userID int64) (*order.Record, error) {
	// The request's own context has no deadline and ends with the server, before the last requests do.
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	records, redisErr := e.stock.Statuses(ctx, []uuid.UUID{id})
	if redisErr == nil && records[0] != nil && records[0].UserID == userID {
		return records[0], nil
	}
	record, err := e.ledger.Order(ctx, id)
	if errors.Is(err, mysql.ErrNotFound) && redisErr != nil {
		return nil, redisErr // MySQL alone cannot know that there is no such order
	}
	return &record, err
}

// listOrders answers with the user's decided orders, newest first.
func (e *Edge) listOrders(ctx *fasthttp.RequestCtx, who *token.Claims) {
	before, ok := e.cursors().readOrder(ctx.QueryArgs().Peek("cursor"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, "cursor must be the next_cursor of an earlier page.")
		return
	}
	lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	records, err := e.ledger.Orders(lookup, who.UserID, before, pageSize+1)
	if err != nil {
		slog.Error("orders could not be listed", logID(ctx), "error", err)
		sendProblem(ctx, problem.OrdersUnavailable, "")
		return
	}
	page := struct {
		Orders     []orderBody `json:"orders"`
		NextCursor string      `json:"next_cursor,omitempty"`
	}{Orders: []orderBody{}}
	if len(records) > pageSize {
		records = records[:pageSize]
		page.NextCursor = e.cursors().order(records[pageSize-1].ID)
	}
	for i := range records {
		page.Orders = append(page.Orders, newOrderBody(&records[i]))
	}
	sendJSON(ctx, fasthttp.StatusOK, page)
}
