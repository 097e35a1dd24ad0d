package order

import (
	"bytes"
	"time"

	"github.com/google/uuid"
)

// readPlain reads an envelope that is byte by byte as Pack writes it and has nothing that must be unescaped. Everything
// else, right or wrong, it leaves to encoding/json: it is only a faster way to the same result. It reports false then.
func readPlain(body []byte) ([]Order, bool) {
	s := scanner{rest: body, ok: true}
	var common Order
	hasPoints := s.is(`{"v":3`)
	if !hasPoints {
		s.literal(`{"v":2`)
	}
	s.literal(`,"product_id":`)
	common.StockID = StockID(s.int())
	s.literal(`,"calls":[`)
	orders := make([]Order, 0, min(bytes.Count(body, []byte(`["`)), MaxOrdersPerMessage+1))
	for s.ok {
		s.literal(`{"unit_price":`)
		common.UnitPrice = s.int()
		common.Points = hasPoints && s.is(`,"points":true`)
		s.literal(`,"reserved_at":`)
		common.ReservedAt = time.UnixMilli(s.int()).UTC()
		s.literal(`,"orders":[`)
		if orders = s.items(orders, common); s.is(`]}]}`) {
			return orders, s.ok && len(s.rest) == 0
		}
		s.literal(`]},`)
	}
	return nil, false
}

// items takes the orders of one call, up to the end of their list.
func (s *scanner) items(orders []Order, common Order) []Order {
	for s.ok && len(orders) <= MaxOrdersPerMessage {
		o := common
		s.literal(`["`)
		id, err := uuid.ParseBytes(s.text())
		if err != nil {
			s.ok = false
			return orders
		}
		o.ID = OrderID(id)
		s.literal(`,`)
		o.UserID = UserID(s.int())
		s.literal(`,`)
		o.Quantity = s.int()
		if s.is(`,"`) {
			o.IdempotencyKey = string(s.text())
		}
		s.literal(`]`)
		orders = append(orders, o)
		if !s.is(`,`) {
			break
		}
	}
	return orders
}

// scanner takes what is expected off the front of a text. Once something else is there, ok is false.
type scanner struct {
	rest []byte
	ok   bool
}

func (s *scanner) literal(want string) { s.ok = s.is(want) && s.ok }

// is takes a text only if it is there, and reports whether it was.
func (s *scanner) is(text string) bool {
	if len(s.rest) < len(text) || string(s.rest[:len(text)]) != text {
		return false
	}
	s.rest = s.rest[len(text):]
	return true
}

// text takes printable ASCII without escapes, and the quotation mark that ends it.
func (s *scanner) text() []byte {
	for i := range len(s.rest) {
		switch c := s.rest[i]; {
		case c == '"':
			text := s.rest[:i]
			s.rest = s.rest[i+1:]
			return text
		case c < ' ' || c > '~' || c == '\\':
			s.ok = false
			return nil
		}
	}
	s.ok = false
	return nil
}

// int takes a number of 1 to 18 digits, which fits an int64. JSON allows no zero before other digits.
func (s *scanner) int() (n int64) {
	const maxDigits = 18
	i := 0
	for ; i < len(s.rest) && i <= maxDigits && s.rest[i] >= '0' && s.rest[i] <= '9'; i++ {
		n = 10*n + int64(s.rest[i]-'0')
	}
	s.ok = s.ok && i > 0 && i <= maxDigits && (i == 1 || s.rest[0] != '0')
	s.rest = s.rest[i:]
	return n
}
