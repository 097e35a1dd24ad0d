package order

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// An order is written twice on its way through the edge, into its message and its state, and by reflection that would
// cost more than all the rest of sending it. What is written here is what encoding/json writes, and is read by it.

// AppendJSON appends a record as a JSON object.
func (r *Record) AppendJSON(b []byte) []byte {
	b = r.appendFields(append(b, '{'))
	b = appendString(append(b, `,"currency":`...), r.Currency)
	b = appendString(append(b, `,"status":`...), string(r.Status))
	if r.FailedReason != "" {
		b = appendString(append(b, `,"failed_reason":`...), string(r.FailedReason))
	}
	if !r.DecidedAt.IsZero() {
		b = appendTime(append(b, `,"decided_at":`...), r.DecidedAt)
	}
	return append(b, '}')
}

// appendFields appends the members of an order without the braces around them.
func (o *Order) appendFields(b []byte) []byte {
	b = append(AppendID(append(b, `"order_id":"`...), o.ID), '"')
	b = strconv.AppendInt(append(b, `,"user_id":`...), int64(o.UserID), 10)
	b = strconv.AppendInt(append(b, `,"product_id":`...), int64(o.StockID), 10)
	b = strconv.AppendInt(append(b, `,"quantity":`...), o.Quantity, 10)
	b = strconv.AppendInt(append(b, `,"unit_price":`...), o.UnitPrice, 10)
	b = appendTime(append(b, `,"reserved_at":`...), o.ReservedAt)
	if o.IdempotencyKey != "" {
		b = appendString(append(b, `,"idempotency_key":`...), o.IdempotencyKey)
	}
	return b
}

// AppendID appends an id in its canonical form.
func AppendID(b []byte, id OrderID) []byte {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
}

// appendTime appends a time as encoding/json does. Its year must be one of four digits.
func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(fmt.Sprintf("order: encode a string: %v", err)) // there is none that cannot be encoded
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
