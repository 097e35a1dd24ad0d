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

	asked, c, detail := parseOrder(ctx.PostBody())
	if c != "" {
		sendProblem(ctx, c, detail)
		return nil
	}

	if !e.upgrade.done.Load() {
		sendProblem(ctx, problem.StockUnavailable, "")
		return nil
	}

	// What is known to be refused asks nobody.
	if e.products.missing(asked.productID) {
		sendProblem(ctx, problem.ProductNotFound, "")
		return nil
	}
	stockID := e.reserver.stockID(asked.productID, who.UserID)
	if key == "" { // a request with a key may be the repetition of an accepted one, which only Redis knows
		if c, sale := e.refusalCache.ask(stockID, asked.quantity, ctx.Time()); c != "" {
			sendRefusal(ctx, c, sale)
			return nil
		}
	}

	t := &ticket{
		request: stock.Request{
			OrderID: order.NewID(), UserID: who.UserID, Quantity: asked.quantity, IdempotencyKey: key,
		},
		productID: asked.productID, points: asked.points, since: time.Now(), answer: make(chan *answer, 1),
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
	b = append(append(b, `,"currency":"`...), o.PricedIn(currency)...) // three letters
	if o.Points {
		return append(b, `","pay_with":"`+withPoints+`"}`...)
	}
	return append(b, `"}`...)
}

// withPoints is the one value of pay_with. Without it an order is paid as its product says.
const withPoints = "points"

// wanted is what a client orders.
type wanted struct {
	productID order.ProductID
	quantity  int64
	points    bool
}

// parseOrder reads {"product_id":1,"quantity":1}, to which "pay_with":"points" may be added. If something is wrong with
// it, c and detail say what.
func parseOrder(body []byte) (asked wanted, c problem.Code, detail string) {
	if asked, ok := parsePlainOrder(body); ok {
		return asked, "", ""
	}
	return decodeOrder(body)
}

// decodeOrder is parseOrder for a body in any form.
func decodeOrder(body []byte) (asked wanted, c problem.Code, detail string) {
	var fields struct {
		ProductID json.RawMessage `json:"product_id"`
		Quantity  json.RawMessage `json:"quantity"`
		PayWith   json.RawMessage `json:"pay_with"`
	}
	const example = `{"product_id":1,"quantity":1}`
	if detail := problem.CheckBody(body, example); detail != "" {
		return wanted{}, problem.MalformedRequest, detail
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return wanted{}, problem.MalformedRequest, problem.NotAnObject(example)
	}

	// Their types first, then their values.
	if !isNumber(fields.ProductID) {
		return wanted{}, problem.MalformedRequest, "product_id must be a number."
	}
	if !isNumber(fields.Quantity) {
		return wanted{}, problem.MalformedRequest, "quantity must be a number."
	}
	asked.points = fields.PayWith != nil
	if asked.points && string(fields.PayWith) != `"`+withPoints+`"` {
		return wanted{}, problem.MalformedRequest, `pay_with must be "` + withPoints + `", or be left out.`
	}

	id, err := strconv.ParseInt(string(fields.ProductID), 10, 64)
	if err != nil || id <= 0 || id > order.MaxProductID {
		return wanted{}, problem.ProductNotFound, "product_id must be a positive whole number, and one of a product."
	}
	asked.productID = order.ProductID(id)
	asked.quantity, err = strconv.ParseInt(string(fields.Quantity), 10, 64)
	if err != nil || asked.quantity < 1 || asked.quantity > order.MaxQuantity {
		return wanted{}, problem.InvalidQuantity, fmt.Sprintf("quantity must be a whole number from 1 to %d.",
			order.MaxQuantity)
	}
	return asked, "", ""
}

// parsePlainOrder reads the body that nearly all clients send, in which a space may follow a colon and the comma, and
// leaves every other to decodeOrder.
func parsePlainOrder(body []byte) (asked wanted, ok bool) {
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
		return wanted{}, false
	}
	if body, ok = bytes.CutPrefix(body, []byte(",")); !ok {
		return wanted{}, false
	}
	body = bytes.TrimPrefix(body, []byte(" "))
	quantity, ok := digits(`"quantity":`)
	if !ok || quantity > order.MaxQuantity {
		return wanted{}, false
	}
	asked = wanted{productID: order.ProductID(id), quantity: quantity}
	switch string(body) {
	case `}`:
		return asked, true
	case `,"pay_with":"` + withPoints + `"}`, `, "pay_with": "` + withPoints + `"}`:
		asked.points = true
		return asked, true
	}
	return wanted{}, false
}

// isNumber reports whether a valid JSON value is a number.
func isNumber(value json.RawMessage) bool {
	return len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9')
}
