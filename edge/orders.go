package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/token"
)

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

	if !e.upgrade.done.Load() {
		sendProblem(ctx, problem.StockUnavailable, "")
		return nil
	}

	// What is known to be refused asks nobody.
	if e.products.missing(productID) {
		sendProblem(ctx, problem.ProductNotFound, "")
		return nil
	}
	stockID := e.reserver.stockID(productID, who.UserID)
	if key == "" { // a request with a key may be the repetition of an accepted one, which only Redis knows
		if c, sale := e.refusalCache.ask(stockID, quantity, ctx.Time()); c != "" {
			sendRefusal(ctx, c, sale)
			return nil
		}
	}

	t := &ticket{
		request: stock.Request{
			OrderID: order.NewID(), UserID: who.UserID, Quantity: quantity, IdempotencyKey: key,
		},
		productID: productID, since: time.Now(), answer: make(chan *answer, 1),
	}
	t.keepID(ctx)
	if telemetry.Tracing() {
		t.place(ctx)
	}
	return t
}

// sendAccepted promises an order.
func sendAccepted(ctx *fasthttp.RequestCtx, a *answer) {
	ctx.SetStatusCode(fasthttp.StatusAccepted)
	ctx.SetContentType("application/json")
	ctx.Response.SetBodyRaw(appendAccepted(make([]byte, 0, acceptedBytes), &a.order, a.sale.Currency))
	setLocation(ctx, &a.order)
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter)
}

// setLocation says where an order can be asked for. With its product it is found at once while it is pending.
func setLocation(ctx *fasthttp.RequestCtx, o *order.Order) {
	var room [96]byte
	location := order.AppendID(append(room[:0], "/api/orders/"...), o.ID)
	location = strconv.AppendInt(append(location, "?product_id="...), int64(o.StockID.Product()), 10)
	ctx.Response.Header.SetBytesV(fasthttp.HeaderLocation, location)
}

// acceptedBytes is a little more than most bodies of a 202 have.
const acceptedBytes = 256

// appendAccepted appends the body of a 202. It says what was promised, and is the same for every retry.
func appendAccepted(b []byte, o *order.Order, currency string) []byte {
	b = order.AppendID(append(b, `{"order_id":"`...), o.ID)
	b = append(append(b, `","status":"`...), order.Pending...)
	b = strconv.AppendInt(append(b, `","product_id":`...), int64(o.StockID.Product()), 10)
	b = strconv.AppendInt(append(b, `,"quantity":`...), o.Quantity, 10)
	b = strconv.AppendInt(append(b, `,"unit_price":`...), o.UnitPrice, 10)
	b = strconv.AppendInt(append(b, `,"total_price":`...), o.TotalPrice(), 10)
	b = append(append(b, `,"currency":"`...), currency...) // three letters
	return append(b, `"}`...)
}

// parseOrder reads {"product_id":1,"quantity":1}. If something is wrong with it, c and detail say what.
func parseOrder(body []byte) (productID order.ProductID, quantity int64, c problem.Code, detail string) {
	if productID, quantity, ok := parsePlainOrder(body); ok {
		return productID, quantity, "", ""
	}
	return decodeOrder(body)
}

// decodeOrder is parseOrder for a body in any form.
func decodeOrder(body []byte) (productID order.ProductID, quantity int64, c problem.Code, detail string) {
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

	// Their types first, then their values.
	if !isNumber(fields.ProductID) {
		return 0, 0, problem.MalformedRequest, "product_id must be a number."
	}
	if !isNumber(fields.Quantity) {
		return 0, 0, problem.MalformedRequest, "quantity must be a number."
	}

	id, err := strconv.ParseInt(string(fields.ProductID), 10, 64)
	if err != nil || id <= 0 || id > order.MaxProductID {
		return 0, 0, problem.ProductNotFound, "product_id must be a positive whole number, and one of a product."
	}
	quantity, err = strconv.ParseInt(string(fields.Quantity), 10, 64)
	if err != nil || quantity < 1 || quantity > order.MaxQuantity {
		return 0, 0, problem.InvalidQuantity, fmt.Sprintf("quantity must be a whole number from 1 to %d.",
			order.MaxQuantity)
	}
	return order.ProductID(id), quantity, "", ""
}

// parsePlainOrder reads the body that nearly all clients send, in which a space may follow a colon and the comma, and
// leaves every other to decodeOrder.
func parsePlainOrder(body []byte) (productID order.ProductID, quantity int64, ok bool) {
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

	id, ok := digits(`{"product_id":`)
	if !ok || id > order.MaxProductID {
		return 0, 0, false
	}
	if body, ok = bytes.CutPrefix(body, []byte(",")); !ok {
		return 0, 0, false
	}
	body = bytes.TrimPrefix(body, []byte(" "))
	if quantity, ok = digits(`"quantity":`); !ok || quantity > order.MaxQuantity {
		return 0, 0, false
	}
	return order.ProductID(id), quantity, string(body) == "}"
}

// isNumber reports whether a valid JSON value is a number.
func isNumber(value json.RawMessage) bool {
	return len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9')
}
