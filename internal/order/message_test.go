package order

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPackAndDecode(t *testing.T) {
	t.Parallel()
	// A key of these bytes takes the most room that JSON can make of 255 bytes.
	worst := strings.Repeat("\x01", MaxIdempotencyKeyBytes)
	for _, test := range []struct {
		what  string
		n     int
		key   string
		sizes []int // of the groups
	}{
		{"nothing", 0, "", nil},
		{"one", 1, "k", []int{1}},
		{"a full envelope", 100, "k", []int{100}},
		{"one more", 101, "", []int{100, 1}},
		{"many", 250, "k", []int{100, 100, 50}},
		{"large ones", 100, worst, []int{37, 37, 26}},
	} {
		orders := make([]Order, test.n)
		for i := range orders {
			orders[i] = sample()
			orders[i].IdempotencyKey = test.key
			if test.key == worst {
				orders[i].UserID, orders[i].StockID, orders[i].Quantity, orders[i].UnitPrice = 1<<62, 1<<62,
					MaxQuantity, MaxUnitPrice
			}
		}
		bodies, groups := Pack(orders)
		var sizes []int
		var decoded []Order
		for i, body := range bodies {
			if len(body) > MaxMessageBytes {
				t.Errorf("%s: envelope %d has %d bytes", test.what, i, len(body))
			}
			got, err := Decode(body)
			if err != nil {
				t.Fatalf("%s: envelope %d: %v", test.what, i, err)
			}
			if !reflect.DeepEqual(got, groups[i]) {
				t.Errorf("%s: envelope %d holds %+v, want %+v", test.what, i, got, groups[i])
			}
			sizes = append(sizes, len(got))
			decoded = append(decoded, got...)
		}
		if !slices.Equal(sizes, test.sizes) || len(groups) != len(bodies) {
			t.Errorf("%s: groups of %v, want %v", test.what, sizes, test.sizes)
		}
		if !slices.Equal(decoded, orders) {
			t.Errorf("%s: orders are lost or in another order", test.what)
		}
	}
}

// TestPackKeepsProductsApart: an order never waits for the product of another.
func TestPackKeepsProductsApart(t *testing.T) {
	t.Parallel()
	orders := make([]Order, 7)
	for i, product := range []StockID{1, 1, 2, 2, 2, 1, ProductID(1).Bucket(1)} {
		orders[i] = sample()
		orders[i].StockID = product
	}
	_, groups := Pack(orders)
	var sizes []int
	for _, group := range groups {
		sizes = append(sizes, len(group))
	}
	if want := []int{2, 3, 1, 1}; !slices.Equal(sizes, want) {
		t.Errorf("envelopes of %v orders, want %v", sizes, want)
	}
}

// The bound is used to the last byte, and not passed.
func TestPackFillsEnvelopes(t *testing.T) {
	t.Parallel()
	var orders []Order
	for range 60 {
		o := sample()
		o.IdempotencyKey = strings.Repeat("\x01", MaxIdempotencyKeyBytes)
		orders = append(orders, o)
	}
	bodies, groups := Pack(orders)
	next, err := json.Marshal(groups[1][0])
	if err != nil {
		t.Fatal(err)
	}
	room := MaxMessageBytes - len(bodies[0]) - len(",")
	if len(next) <= room {
		t.Fatalf("the next order has %d bytes, and %d are free", len(next), room)
	}
	// Now the next is made to fit, by taking from one before it what it lacks.
	last := &orders[len(groups[0])-1]
	surplus := len(next) - room
	last.IdempotencyKey = strings.Repeat("\x01", MaxIdempotencyKeyBytes-(surplus+5)/6) +
		strings.Repeat("x", (6-surplus%6)%6)
	for _, more := range []string{"", "x"} {
		last.IdempotencyKey += more
		bodies, packed := Pack(orders)
		fits := more == ""
		if (len(packed[0]) == len(groups[0])+1) != fits || (len(bodies[0]) == MaxMessageBytes) != fits {
			t.Errorf("%q more: the first envelope has %d bytes and %d orders", more, len(bodies[0]), len(packed[0]))
		}
		if _, err := Decode(bodies[0]); err != nil {
			t.Error(err)
		}
	}
}

func TestMessageFormat(t *testing.T) {
	t.Parallel()
	const body = `{"v":1,"orders":[{"order_id":"0192f0c1-2345-7abc-8def-0123456789ab","user_id":7,"product_id":1,` +
		`"quantity":1,"unit_price":1999,"reserved_at":"2023-11-14T22:13:20.123Z","idempotency_key":"k"}]}`
	orders, err := Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	want.ID, want.Quantity = orders[0].ID, 1
	if orders[0] != want || orders[0].ID.String() != "0192f0c1-2345-7abc-8def-0123456789ab" {
		t.Errorf("Decode = %+v", orders[0])
	}
	bodies, _ := Pack(orders)
	if string(bodies[0]) != body {
		t.Errorf("Pack = %s", bodies[0])
	}
	if _, ok := readPlain([]byte(body)); !ok {
		t.Error("what Pack writes is not read the fast way")
	}
	later := strings.NewReplacer(`"v":1`, `"trace":{"a":[]},"v":1`, `"user_id"`,
		`"colour":"red","user_id"`).Replace(body)
	if again, err := Decode([]byte(later)); err != nil || again[0] != want {
		t.Errorf("with unknown fields: %+v, %v", again, err)
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	bodies, _ := Pack([]Order{sample()})
	valid := string(bodies[0])
	one := strings.TrimSuffix(strings.TrimPrefix(valid, `{"v":1,"orders":[`), `]}`)
	swap := func(old, with string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("%s is not in %s", old, valid)
		}
		return strings.Replace(valid, old, with, 1)
	}
	for what, body := range map[string]string{
		"nothing":               "",
		"not JSON":              "order",
		"null":                  "null",
		"a list":                "[" + valid + "]",
		"a string":              `"` + one + `"`,
		"cut off":               valid[:len(valid)-1],
		"a member twice":        swap(`"quantity":2`, `"quantity":2,"quantity":3`),
		"a member in capitals":  swap(`"quantity":2`, `"Quantity":2`),
		"two envelopes":         valid + valid,
		"no version":            swap(`"v":1,`, ``),
		"another version":       swap(`"v":1`, `"v":2`),
		"a version as text":     swap(`"v":1`, `"v":"1"`),
		"no orders":             `{"v":1}`,
		"null for orders":       `{"v":1,"orders":null}`,
		"an empty list":         `{"v":1,"orders":[]}`,
		"an object for orders":  `{"v":1,"orders":` + one + `}`,
		"null for an order":     swap(`[`, `[null,`),
		"an empty order":        swap(`[`, `[{},`),
		"too many orders":       swap(`[`, `[`+strings.Repeat(one+",", MaxOrdersPerMessage)),
		"a bad id":              swap(`"order_id":"`, `"order_id":"x`),
		"null for an id":        swap(one[:strings.Index(one, ",")], `{"order_id":null`),
		"a fraction":            swap(`"quantity":2`, `"quantity":2.5`),
		"text for a number":     swap(`"quantity":2`, `"quantity":"2"`),
		"a negative quantity":   swap(`"quantity":2`, `"quantity":-2`),
		"a number out of range": swap(`"user_id":7`, `"user_id":9223372036854775808`),
		"no user":               swap(`"user_id":7,`, ``),
		"no time":               swap(`"reserved_at":"2023-11-14T22:13:20.123Z",`, ``),
		"a bad time":            swap(`2023-11-14T22:13:20.123Z`, `yesterday`),
		"a time of no use":      swap(`2023-11-14T22:13:20.123Z`, `0000-01-01T00:00:00Z`),
		"too long a key": swap(`"idempotency_key":"`, `"idempotency_key":"`+
			strings.Repeat("x", MaxIdempotencyKeyBytes)),
		"too many bytes": valid + strings.Repeat(" ", MaxMessageBytes+1-len(valid)),
	} {
		orders, err := Decode([]byte(body))
		if err != nil && strings.Contains(err.Error(), "yesterday") {
			t.Errorf("%s: the reason quotes the body: %v", what, err)
		}
		if !errors.Is(err, ErrUndecodable) || orders != nil || len(err.Error()) <= len(ErrUndecodable.Error())+2 {
			t.Errorf("%s: Decode = %v, %v", what, orders, err)
		}
	}
	full := valid + strings.Repeat(" ", MaxMessageBytes-len(valid))
	if _, err := Decode([]byte(full)); err != nil {
		t.Errorf("as many bytes as are allowed: %v", err)
	}
}

// FuzzDecode: whatever a queue delivers, Decode neither panics nor returns an order that is not valid,
// and what it accepts can be sent again and is then the same.
func FuzzDecode(f *testing.F) {
	bodies, _ := Pack([]Order{sample(), sample()})
	f.Add(bodies[0])
	f.Add([]byte(`{"v":1,"orders":[null]}`))
	f.Add([]byte(`{"v":2,"orders":[]}`))
	f.Add([]byte(strings.Replace(string(bodies[0]), `20.123Z`, `20.123456789+23:59`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `"k"`, `"\ud800\u0000"`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `"user_id":7`, `"user_id":07`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `"user_id":7`, `"user_id":123456789012345678`, 1)))
	f.Add(append(bytes.Clone(bodies[0]), ' '))
	f.Fuzz(func(t *testing.T, body []byte) {
		if plain, ok := readPlain(body); ok {
			var e envelope
			if err := json.Unmarshal(body, &e); err != nil || e.V != MessageVersion ||
				!reflect.DeepEqual(e.Orders, plain) {
				t.Fatalf("readPlain = %+v, and encoding/json says %+v, %v", plain, e, err)
			}
		}
		orders, err := Decode(body)
		if err != nil {
			if !errors.Is(err, ErrUndecodable) || orders != nil {
				t.Fatalf("Decode = %v, %v", orders, err)
			}
			return
		}
		for i := range orders {
			if err := orders[i].Validate(); err != nil {
				t.Fatal(err)
			}
		}
		bodies, groups := Pack(orders)
		if !reflect.DeepEqual(slices.Concat(groups...), orders) {
			t.Fatal("Pack has lost an order")
		}
		for i, body := range bodies {
			again, err := Decode(body)
			if err != nil || !slices.EqualFunc(again, groups[i], same) {
				t.Fatalf("%+v has become %+v, %v", groups[i], again, err)
			}
			if twice, _ := Pack(again); !bytes.Equal(twice[0], body) {
				t.Fatalf("%s has become %s", body, twice[0])
			}
		}
	})
}

// same compares orders; a time is the same in every zone.
func same(a, b Order) bool {
	equal := a.ReservedAt.Equal(b.ReservedAt)
	a.ReservedAt, b.ReservedAt = time.Time{}, time.Time{}
	return equal && a == b
}

func BenchmarkDecode(b *testing.B) {
	orders := make([]Order, MaxOrdersPerMessage)
	for i := range orders {
		orders[i] = sample()
	}
	bodies, _ := Pack(orders)
	for b.Loop() {
		if _, err := Decode(bodies[0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(orders)), "ns/order")
}

// FuzzAppendJSON: what is written without encoding/json is what encoding/json writes.
func FuzzAppendJSON(f *testing.F) {
	f.Add(int64(7), int64(1), int64(1_700_000_000_123), "k", "", int64(0))
	f.Add(int64(math.MaxInt64), int64(0), int64(1), "a\"b\\c<d>&\x01\u2028é\xff~", "sold_out",
		int64(1_700_000_000_123_456))
	f.Fuzz(func(t *testing.T, user, price, millis int64, key, reason string, decided int64) {
		const end = 253_402_300_799 // seconds to the end of the year 9999
		r := Record{
			Order: Order{
				ID: NewID(), UserID: UserID(user), StockID: StockID(-user), Quantity: price ^ 1, UnitPrice: price,
				ReservedAt: time.UnixMilli(max(millis, 0) % (end * 1000)).UTC(), IdempotencyKey: key,
			},
			Currency: "EUR", Status: Pending, FailedReason: Reason(reason),
		}
		if decided > 0 {
			r.DecidedAt = time.UnixMicro(decided % (end * 1_000_000)).In(time.FixedZone("", 3600))
		}
		want, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.AppendJSON(nil); string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}
