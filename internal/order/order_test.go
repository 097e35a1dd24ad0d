package order

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// sample is a valid order.
func sample() Order {
	return Order{
		ID: NewID(), UserID: 7, StockID: 1, Quantity: 2, UnitPrice: 1999,
		ReservedAt: time.UnixMilli(1_700_000_000_123).UTC(), IdempotencyKey: "k",
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for _, test := range []struct {
		what   string
		change func(*Order)
		want   string // part of the error, or empty
	}{
		{"a valid order", func(*Order) {}, ""},
		{"no id", func(o *Order) { o.ID = OrderID{} }, "order_id"},
		{"no user", func(o *Order) { o.UserID = 0 }, "user_id"},
		{"a negative user", func(o *Order) { o.UserID = -1 }, "user_id"},
		{"the last user", func(o *Order) { o.UserID = math.MaxInt64 }, ""},
		{"no product", func(o *Order) { o.StockID = 0 }, "product_id"},
		{"a negative product", func(o *Order) { o.StockID = math.MinInt64 }, "product_id"},
		{"no units", func(o *Order) { o.Quantity = 0 }, "quantity"},
		{"units to give back", func(o *Order) { o.Quantity = -1 }, "quantity"},
		{"the most units", func(o *Order) { o.Quantity = MaxQuantity }, ""},
		{"too many units", func(o *Order) { o.Quantity = MaxQuantity + 1 }, "quantity"},
		{"for nothing", func(o *Order) { o.UnitPrice = 0 }, ""},
		{"for no points", func(o *Order) { o.UnitPrice, o.Points = 0, true }, "unit_price"},
		{"for points", func(o *Order) { o.Points = true }, ""},
		{"less than nothing", func(o *Order) { o.UnitPrice = -1 }, "unit_price"},
		{"the highest price", func(o *Order) { o.UnitPrice = MaxUnitPrice }, ""},
		{"too high a price", func(o *Order) { o.UnitPrice = MaxUnitPrice + 1 }, "unit_price"},
		{"no time", func(o *Order) { o.ReservedAt = time.Time{} }, "reserved_at"},
		{"before the epoch", func(o *Order) { o.ReservedAt = time.Unix(-1, 0) }, "reserved_at"},
		{"the last time", func(o *Order) { o.ReservedAt = far }, ""},
		{"past the last time", func(o *Order) {
			o.ReservedAt = far.Add(time.Second).In(time.FixedZone("", -3600))
		}, "reserved_at"},
		{"no key", func(o *Order) { o.IdempotencyKey = "" }, ""},
		{"the longest key", func(o *Order) { o.IdempotencyKey = strings.Repeat("x", MaxIdempotencyKeyBytes) }, ""},
		{"too long a key", func(o *Order) {
			o.IdempotencyKey = strings.Repeat("x", MaxIdempotencyKeyBytes+1)
		}, "idempotency_key"},
	} {
		o := sample()
		test.change(&o)
		switch err := o.Validate(); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.what, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v does not name %s", test.what, err, test.want)
		}
	}
}

func TestTotalPriceOfTheLargestOrder(t *testing.T) {
	t.Parallel()
	o := Order{Quantity: MaxQuantity, UnitPrice: MaxUnitPrice}
	if got := o.TotalPrice(); got != 1_000_000_000_000_000 {
		t.Errorf("TotalPrice = %d", got)
	}
}

func TestNewIDsSortByTime(t *testing.T) {
	t.Parallel()
	last := NewID()
	if uuid.UUID(last).Version() != 7 {
		t.Errorf("version %d", uuid.UUID(last).Version())
	}
	for range 1000 {
		id := NewID()
		if id.String() <= last.String() {
			t.Fatalf("%s comes after %s", id, last)
		}
		last = id
	}
}
