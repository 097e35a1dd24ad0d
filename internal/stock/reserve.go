package stock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"stampede/internal/failpoint"
	"stampede/internal/order"
	"stampede/internal/redis"
)

// Outcome is what became of one request to reserve.
type Outcome int

// The outcomes of a request to reserve. All but Reserved and Replayed have changed nothing.
const (
	// Reserved: the units are this order's, and the order is in the outbox.
	Reserved Outcome = 1
	// Replayed: the order id or idempotency key was used before, and the order is the one of that time.
	Replayed Outcome = 2
	// SoldOut: fewer units are available than were asked for.
	SoldOut Outcome = -1
	// LimitExceeded: the units would take the buyer over the limit per user.
	LimitExceeded Outcome = -2
	// NotStarted and Ended: it is not the time of the sale, by the clock of Redis.
	NotStarted Outcome = -3
	Ended      Outcome = -4
	// IdempotencyMismatch: the idempotency key was used for another quantity, or to pay otherwise.
	IdempotencyMismatch Outcome = -5
	// NotOnSale: the product was taken off sale.
	NotOnSale Outcome = -6
	// Paused: the product's sale is paused for a moment.
	Paused Outcome = -7
	// OtherBuckets: the product is split into another number of buckets than the caller went by. Sale has the number.
	OtherBuckets Outcome = -8
	// NoPointsPrice: the product cannot be paid with points.
	NoPointsPrice Outcome = -9
)

// Request asks for units of a product.
type Request struct {
	OrderID  order.OrderID
	UserID   order.UserID
	Quantity int64
	// IdempotencyKey may be empty.
	IdempotencyKey string
}

// Reservation is the answer to a Request.
type Reservation struct {
	Outcome Outcome
	// Order is set if the outcome is Reserved or Replayed; if Replayed, its id may be another than
	// the request's.
	Order order.Order
	// Batch is, if the outcome is Reserved, the entry of the outbox by which the order is in it: that of all orders
	// which the call has reserved. Of a replayed order that is Unsent it is set if the entry has no other order.
	Batch string
	// Unsent says of a replayed order that it is still in the outbox: it must be sent before it is
	// promised. Unless this same call has reserved it, its batch is then claimed for the caller, and can no
	// longer be cancelled.
	Unsent bool
}

// Sale is what Redis holds of a product's sale besides its stock.
type Sale struct {
	Currency string
	// StartsAt and EndsAt are zero if the sale is not bounded.
	StartsAt, EndsAt time.Time
	// LimitPerUser is 0 if there is no limit.
	LimitPerUser int64
	State        order.SaleState
	// Now is the time by the clock of Redis, to the millisecond, and Available the units that the call has
	// left; below zero they are as good as none.
	Now       time.Time
	Available int64
	// Buckets is the number of buckets of the product, 0 for none. A bucket that is out of use has none either.
	Buckets int64
}

// Reserve reserves units of one product or bucket for up to MaxBatch requests; the answers are in the order of
// the requests. The caller says by how many buckets of the product it goes, 0 for none: if there are others, every
// outcome is OtherBuckets. It returns ErrNotLoaded if Redis does not have the product. After any other error
// for which NotExecuted is false nobody knows whether the units are reserved; the outbox does.
func (s *Stock) Reserve(ctx context.Context, stockID order.StockID, buckets int64,
	requests []Request) (Sale, []Reservation, error) {
	return s.reserve(ctx, stockID, buckets, false, requests)
}

// ReserveByPoints is Reserve for orders that are paid with points, at the price in points. If the product has none, the
// outcome of all that is new is NoPointsPrice.
func (s *Stock) ReserveByPoints(ctx context.Context, stockID order.StockID, buckets int64,
	requests []Request) (Sale, []Reservation, error) {
	return s.reserve(ctx, stockID, buckets, true, requests)
}

func (s *Stock) reserve(ctx context.Context, stockID order.StockID, buckets int64, points bool,
	requests []Request) (Sale, []Reservation, error) {
	if len(requests) > MaxBatch {
		return Sale{}, nil, fmt.Errorf("reserve product %d: %d requests are more than %d", stockID, len(requests),
			MaxBatch)
	}

	k := keysOf(stockID)
	keys := []string{k.stock, k.reserved, k.bought, k.sale, k.outbox, k.idem[0], k.idem[1]}
	batch := newBatch()
	args := append(make([]any, 0, 4+4*len(requests)), order.IdempotencyLifetime.Milliseconds(), buckets, batch,
		bit(points))
	for i := range requests {
		r := &requests[i]
		args = append(args, r.OrderID.String(), int64(r.UserID), r.Quantity, packKey(r.IdempotencyKey))
		keys = append(keys, s.oldKeys(k, r.UserID, r.IdempotencyKey)...)
	}

	reply, err := s.rdb.Run(ctx, failpoint.Reserve, reserveScript, keys, args...).Slice()
	if err != nil {
		return Sale{}, nil, fmt.Errorf("reserve product %d: %w", stockID, err)
	}
	if len(reply) == 0 {
		return Sale{}, nil, ErrNotLoaded
	}

	sale, results, err := readReserveReply(stockID, batch, points, requests, reply)
	if err != nil {
		return Sale{}, nil, fmt.Errorf("reserve product %d: %w", stockID, err)
	}
	return sale, results, nil
}

// readReserveReply reads what reserve.lua returns: what there is of the sale, and then the outcome of each request.
func readReserveReply(stockID order.StockID, batch string, points bool, requests []Request,
	reply []any) (Sale, []Reservation, error) {
	const head = 9 // values of the sale
	if len(reply) != head+len(requests) {
		return Sale{}, nil, fmt.Errorf("reply has %d elements for %d requests", len(reply), len(requests))
	}

	var d decoder
	price := d.Int(reply[0])
	sale := Sale{
		Currency: d.Text(reply[1]), Now: fromMillis(d.Int(reply[2])), StartsAt: fromMillis(d.Int(reply[3])),
		EndsAt: fromMillis(d.Int(reply[4])), LimitPerUser: d.Int(reply[5]), State: order.SaleState(d.Text(reply[6])),
		Available: d.Int(reply[7]), Buckets: d.Int(reply[8]),
	}

	results := make([]Reservation, len(requests))
	for i, request := range requests {
		o := order.Order{
			ID: request.OrderID, UserID: request.UserID, StockID: stockID, Quantity: request.Quantity,
			UnitPrice: price, Points: points, ReservedAt: sale.Now, IdempotencyKey: request.IdempotencyKey,
		}

		// An order of before, or the number of an outcome.
		first, replayed := reply[head+i].([]any)
		switch {
		case replayed && len(first) == 6:
			id, err := order.ParseID(d.Text(first[0]))
			if err != nil {
				return Sale{}, nil, err
			}
			o.ID, o.Quantity = id, d.Int(first[1])
			o.UnitPrice, o.Points = d.price(d.Text(first[2]))
			o.ReservedAt = fromMillis(d.Int(first[3]))
			results[i] = Reservation{
				Outcome: Replayed, Order: o, Unsent: d.Int(first[4]) == 1, Batch: d.Text(first[5]),
			}
		case replayed:
			return Sale{}, nil, fmt.Errorf("replayed order has %d elements", len(first))
		default:
			results[i].Outcome = Outcome(d.Int(reply[head+i]))
			if results[i].Outcome == Reserved {
				results[i].Order, results[i].Batch = o, batch
			}
		}
	}
	return sale, results, d.Err
}

// decoder reads the values of a script's reply, among them prices.
type decoder struct{ redis.Decoder }

// pointsMark is behind a price in points; lua/prelude.lua has the same letter.
const pointsMark = "p"

// keptPrice is the price of a unit as Redis keeps it.
func keptPrice(o order.Order) string {
	text := strconv.FormatInt(o.UnitPrice, 10)
	if o.Points {
		text += pointsMark
	}
	return text
}

// price reads what keptPrice writes.
func (d *decoder) price(text string) (unitPrice int64, points bool) {
	digits, points := strings.CutSuffix(text, pointsMark)
	return d.Int(digits), points
}

// Cancel gives back the units of orders of one product, up to MaxBatch, that the queue has certainly
// refused. The answers are in the order of the orders; false means that nothing has changed, since the
// order may be on its way, because somebody else has claimed it, or there is no reservation: it may
// be decided, and nobody can say that it was not placed. Cancelling again is harmless, and false.
func (s *Stock) Cancel(ctx context.Context, stockID order.StockID, orders []order.Order) ([]bool, error) {
	k := keysOf(stockID)
	keys := []string{k.stock, k.reserved, k.bought, k.outbox, k.sale, k.idem[0], k.idem[1]}
	args := make([]any, 0, 3*len(orders))
	for i := range orders {
		o := &orders[i]
		args = append(args, o.ID.String(), int64(o.UserID), packKey(o.IdempotencyKey))
		keys = append(keys, s.oldKeys(k, o.UserID, o.IdempotencyKey)...)
	}

	codes, err := s.rdb.Run(ctx, failpoint.Cancel, cancelScript, keys, args...).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("cancel orders of product %d: %w", stockID, err)
	}

	cancelled := make([]bool, len(codes))
	for i, code := range codes {
		cancelled[i] = code == 1
	}
	return cancelled, nil
}
