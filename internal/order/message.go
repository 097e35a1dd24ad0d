package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"stampede/internal/strictjson"
)

const (
	// MessageVersion is the newest version of the envelope, of those in which orders are paid with points. Others have
	// the version before. This program reads all of them, back to version 1.
	MessageVersion = 3
	// MaxMessageBytes bounds an envelope: SQS bills a message by chunks of 64 KiB.
	MaxMessageBytes = 64 << 10
	// MaxOrdersPerMessage bounds how many orders share the fate of one envelope.
	MaxOrdersPerMessage = 100
)

// envelope is the body of a message. What orders have in common is written once.
type envelope struct {
	V         int     `json:"v"`
	ProductID StockID `json:"product_id"`
	Calls     []call  `json:"calls"`
	// Orders are those of version 1, each of which says everything itself.
	Orders []Order `json:"orders"`
}

// call is what one call has reserved: orders of one price and one time, which is in milliseconds since the epoch.
type call struct {
	UnitPrice int64 `json:"unit_price"`
	// Points says that the price is in points. Only version 3 has it.
	Points     bool   `json:"points"`
	ReservedAt *int64 `json:"reserved_at"`
	Orders     []item `json:"orders"`
}

// item is what an order has for itself: a list of its id, user, quantity, and idempotency key if there is one.
type item struct{ order Order }

func (i *item) UnmarshalJSON(text []byte) error {
	var fields []json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	for n, value := range []any{&i.order.ID, &i.order.UserID, &i.order.Quantity, &i.order.IdempotencyKey} {
		if n == len(fields) {
			break // what is missing is found to be
		}
		if err := json.Unmarshal(fields[n], value); err != nil {
			return err
		}
	}
	return nil
}

// all are the orders of an envelope.
func (e *envelope) all() []Order {
	if e.V == 1 {
		for i := range e.Orders {
			o := &e.Orders[i]
			o.ReservedAt = o.ReservedAt.Truncate(time.Millisecond)
		}
		return e.Orders
	}
	var orders []Order
	for _, c := range e.Calls {
		for _, i := range c.Orders {
			i.order.StockID, i.order.UnitPrice, i.order.Points = e.ProductID, c.UnitPrice, c.Points
			if c.ReservedAt != nil {
				i.order.ReservedAt = time.UnixMilli(*c.ReservedAt).UTC()
			}
			orders = append(orders, i.order)
		}
	}
	return orders
}

// memberNames are those of an envelope and of what is in it. In another case they would be read all the same.
var memberNames = []string{
	"v", "orders", "order_id", "user_id", "product_id", "quantity", "unit_price", "reserved_at", "idempotency_key",
	"calls", "points",
}

// ErrUndecodable marks a message body that no retry can make readable.
var ErrUndecodable = errors.New("message cannot be decoded")

// Pack writes orders into as few envelopes as their bounds allow and returns the bodies with the
// orders that each holds, in order. Orders of one product that follow one another share envelopes; those of two
// products never do, so that none waits for another's product. Every order fits an envelope alone, since its parts are
// bounded. Of the time of a reservation the milliseconds are kept.
func Pack(orders []Order) (bodies [][]byte, groups [][]Order) {
	for len(orders) > 0 {
		body, n := packOne(orders)
		bodies, groups = append(bodies, body), append(groups, orders[:n])
		orders = orders[n:]
	}
	return bodies, groups
}

// packedBytes is a little more than most orders take of a message.
const packedBytes = 100

// packOne writes as many orders as fit into one envelope, and says how many.
func packOne(orders []Order) (body []byte, n int) {
	const tail, version = `]}]}`, len(`{"v":`)
	first := &orders[0]
	body = make([]byte, 0, packedBytes*(1+min(len(orders), MaxOrdersPerMessage)))
	body = append(body, `{"v":2,"product_id":`...)
	body = append(strconv.AppendInt(body, int64(first.StockID), 10), `,"calls":[`...)

	for ; n < len(orders) && n < MaxOrdersPerMessage && orders[n].StockID == first.StockID; n++ {
		o, fits := &orders[n], len(body)
		switch {
		case n == 0:
			body = o.appendCall(body)
		case o.UnitPrice == orders[n-1].UnitPrice && o.Points == orders[n-1].Points &&
			o.ReservedAt.UnixMilli() == orders[n-1].ReservedAt.UnixMilli():
			body = append(body, ',')
		default:
			body = o.appendCall(append(body, `]},`...))
		}
		body = o.appendItem(body)
		if n > 0 && len(body)+len(tail) > MaxMessageBytes {
			body = body[:fits]
			break
		}
		if o.Points { // which workers of before must not take for money
			body[version] = '3'
		}
	}
	return append(body, tail...), n
}

// Decode reads an envelope. Unknown fields are ignored; anything else that does not fit is
// ErrUndecodable with the reason, and then no order of the envelope is returned.
func Decode(body []byte) ([]Order, error) {
	if len(body) > MaxMessageBytes {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrUndecodable, len(body), MaxMessageBytes)
	}
	orders, ok := readPlain(body)
	if !ok {
		var err error
		if orders, err = decode(body); err != nil {
			return nil, err
		}
	}
	if len(orders) == 0 || len(orders) > MaxOrdersPerMessage {
		return nil, fmt.Errorf("%w: %d orders are not 1 to %d", ErrUndecodable, len(orders), MaxOrdersPerMessage)
	}
	for i := range orders {
		if err := orders[i].Validate(); err != nil {
			return nil, fmt.Errorf("%w: order %d: %v", ErrUndecodable, i, err)
		}
	}
	return orders, nil
}

// decode reads an envelope of any form and of any version.
func decode(body []byte) ([]Order, error) {
	if err := strictjson.Check(body, memberNames...); errors.Is(err, strictjson.ErrSyntax) {
		return nil, fmt.Errorf("%w: it is no JSON in UTF-8", ErrUndecodable)
	} else if err != nil {
		return nil, fmt.Errorf("%w: it is ambiguous or out of bounds", ErrUndecodable)
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUndecodable, whyUnreadable(err))
	}
	if e.V < 1 || e.V > MessageVersion {
		return nil, fmt.Errorf("%w: version %d is not 1 to %d", ErrUndecodable, e.V, MessageVersion)
	}
	orders := e.all()
	if e.V < MessageVersion && slices.ContainsFunc(orders, func(o Order) bool { return o.Points }) {
		return nil, fmt.Errorf("%w: version %d knows no points", ErrUndecodable, e.V)
	}
	return orders, nil
}

// whyUnreadable says why encoding/json could not read a body, without its texts, which quote the body: the reason is
// logged.
func whyUnreadable(err error) string {
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("a value at byte %d has the wrong type", mismatch.Offset)
	}
	return "a value is not of its form"
}
