package order

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// What is written here is what encoding/json would write, and is read by it. By reflection it would cost more than all
// the rest of sending an order.

// appendCall begins the call that has reserved an order.
func (o *Order) appendCall(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"unit_price":`...), o.UnitPrice, 10)
	if o.Points {
		b = append(b, `,"points":true`...)
	}
	b = strconv.AppendInt(append(b, `,"reserved_at":`...), o.ReservedAt.UnixMilli(), 10)
	return append(b, `,"orders":[`...)
}

// appendItem appends what an order has for itself.
func (o *Order) appendItem(b []byte) []byte {
	b = append(AppendID(append(b, `["`...), o.ID), '"', ',')
	b = append(strconv.AppendInt(b, int64(o.UserID), 10), ',')
	b = strconv.AppendInt(b, o.Quantity, 10)
	if o.IdempotencyKey != "" {
		b = appendString(append(b, ','), o.IdempotencyKey)
	}
	return append(b, ']')
}

// AppendID appends an id in its canonical form.
func AppendID(b []byte, id OrderID) []byte {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
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
