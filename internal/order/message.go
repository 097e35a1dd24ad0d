package order

import (
	"encoding/json"
	"errors"
	"fmt"

	"stampede/internal/strictjson"
)

const (
	// MessageVersion is the version of the envelope that this program writes and the only one it reads.
	MessageVersion = 1
	// MaxMessageBytes bounds an envelope: SQS bills a message by chunks of 64 KiB.
	MaxMessageBytes = 64 << 10
	// MaxOrdersPerMessage bounds how many orders share the fate of one envelope.
	MaxOrdersPerMessage = 100
	// spareBytes is by how much the orders of an envelope may be longer than the first, on average, so that its body
	// need not grow.
	spareBytes = 8
)

// envelope is the body of a message.
type envelope struct {
	V      int     `json:"v"`
	Orders []Order `json:"orders"`
}

// memberNames are those of an envelope and of an order. In another case they would be read all the same.
var memberNames = []string{
	"v", "orders", "order_id", "user_id", "product_id", "quantity", "unit_price", "reserved_at", "idempotency_key",
}

// ErrUndecodable marks a message body that no retry can make readable.
var ErrUndecodable = errors.New("message cannot be decoded")

// Pack writes orders into as few envelopes as their bounds allow and returns the bodies with the
// orders that each holds, in order. Orders of one product that follow one another share envelopes; those of two
// products never do, so that none waits for another's product. Every order fits an envelope alone, since its parts are
// bounded.
func Pack(orders []Order) (bodies [][]byte, groups [][]Order) {
	const head, tail = `{"v":1,"orders":[`, `]}`
	var body []byte
	start := 0
	flush := func(end int) {
		if end > start {
			bodies = append(bodies, append(body, tail...))
			groups = append(groups, orders[start:end])
		}
		body, start = nil, end
	}
	var encoded []byte
	for i := range orders {
		encoded = append(orders[i].appendFields(append(encoded[:0], '{')), '}')
		if i > start && orders[i].StockID != orders[start].StockID || i-start == MaxOrdersPerMessage || len(body)+1+
			len(encoded)+len(tail) > MaxMessageBytes {
			flush(i)
		}
		if body == nil {
			rest := min(len(orders)-i, MaxOrdersPerMessage)
			size := min(len(head)+rest*(len(encoded)+spareBytes)+len(tail), MaxMessageBytes)
			body = append(make([]byte, 0, size), head...)
		} else {
			body = append(body, ',')
		}
		body = append(body, encoded...)
	}
	flush(len(orders))
	return bodies, groups
}

// Decode reads an envelope. Unknown fields are ignored; anything else that does not fit is
// ErrUndecodable with the reason, and then no order of the envelope is returned.
func Decode(body []byte) ([]Order, error) {
	if len(body) > MaxMessageBytes {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrUndecodable, len(body), MaxMessageBytes)
	}
	var e envelope
	if orders, ok := readPlain(body); ok {
		e = envelope{MessageVersion, orders}
	} else if err := strictjson.Check(body, memberNames...); errors.Is(err, strictjson.ErrSyntax) {
		return nil, fmt.Errorf("%w: it is no JSON in UTF-8", ErrUndecodable)
	} else if err != nil {
		return nil, fmt.Errorf("%w: it is ambiguous or out of bounds", ErrUndecodable)
	} else if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUndecodable, whyUnreadable(err))
	}
	if e.V != MessageVersion {
		return nil, fmt.Errorf("%w: version %d is not %d", ErrUndecodable, e.V, MessageVersion)
	}
	if len(e.Orders) == 0 || len(e.Orders) > MaxOrdersPerMessage {
		return nil, fmt.Errorf("%w: %d orders are not 1 to %d", ErrUndecodable, len(e.Orders), MaxOrdersPerMessage)
	}
	for i := range e.Orders {
		if err := e.Orders[i].Validate(); err != nil {
			return nil, fmt.Errorf("%w: order %d: %v", ErrUndecodable, i, err)
		}
	}
	return e.Orders, nil
}

// whyUnreadable says why encoding/json could not read a body, without its texts, which quote the body: the reason is
// logged.
func whyUnreadable(err error) string {
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("a value at byte %d has the wrong type", mismatch.Offset)
	}
	return "a value is not of its form"
}
