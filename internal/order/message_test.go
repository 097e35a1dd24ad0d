package order

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
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
		{"large ones", 100, worst, []int{40, 40, 20}},
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
	next := groups[1][0].appendItem(nil)
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
	const (
		body = `{"v":2,"product_id":1,"calls":[{"unit_price":1999,"reserved_at":1700000000123,"orders":[` +
			`["0192f0c1-2345-7abc-8def-0123456789ab",7,1,"k"],["0192f0c1-2345-7abc-8def-0123456789ac",8,3]]},` +
			`{"unit_price":1998,"reserved_at":1700000000124,"orders":[["0192f0c1-2345-7abc-8def-0123456789ad",9,2]]}]}`
		before = `{"v":1,"orders":[{"order_id":"0192f0c1-2345-7abc-8def-0123456789ab","user_id":7,"product_id":1,` +
			`"quantity":1,"unit_price":1999,"reserved_at":"2023-11-14T22:13:20.123Z","idempotency_key":"k"},` +
			`{"order_id":"0192f0c1-2345-7abc-8def-0123456789ac","user_id":8,"product_id":1,` +
			`"quantity":3,"unit_price":1999,"reserved_at":"2023-11-14T22:13:20.123999Z"},` +
			`{"order_id":"0192f0c1-2345-7abc-8def-0123456789ad","user_id":9,"product_id":1,` +
			`"quantity":2,"unit_price":1998,"reserved_at":"2023-11-14T22:13:20.124Z"}]}`
	)
	orders := make([]Order, 3)
	for i := range orders {
		orders[i] = sample()
		orders[i].UserID += UserID(i)
		id, err := ParseID("0192f0c1-2345-7abc-8def-0123456789a" + string("bcd"[i]))
		if err != nil {
			t.Fatal(err)
		}
		orders[i].ID = id
	}
	orders[0].Quantity, orders[1].Quantity, orders[2].Quantity = 1, 3, 2
	orders[1].IdempotencyKey, orders[2].IdempotencyKey = "", ""
	orders[2].UnitPrice, orders[2].ReservedAt = 1998, orders[2].ReservedAt.Add(time.Millisecond)

	bodies, _ := Pack(orders)
	if string(bodies[0]) != body {
		t.Errorf("Pack = %s", bodies[0])
	}
	if _, ok := readPlain([]byte(body)); !ok {
		t.Error("what Pack writes is not read the fast way")
	}
	for what, text := range map[string]string{
		"as it is written": body, "of the version before": before,
		"with unknown fields": strings.NewReplacer(`"v":2`, `"trace":{"a":[]},"v":2`, `"unit_price"`,
			`"colour":"red","unit_price"`, `,8,3]`, `,8,3,"",{}]`).Replace(body),
	} {
		if got, err := Decode([]byte(text)); err != nil || !slices.EqualFunc(got, orders, same) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// TestMessageOfPoints: an envelope is of version 3 if, and only if, an order in it is paid with points. So no worker of
// before takes the points for money, and to other orders nothing has changed.
func TestMessageOfPoints(t *testing.T) {
	t.Parallel()
	orders := []Order{sample(), sample(), sample(), sample()}
	for i := range orders {
		orders[i].ID, orders[i].IdempotencyKey = OrderID{15: byte(i + 1)}, ""
	}
	orders[1].Points, orders[2].Points = true, true

	const price, item = `{"unit_price":1999`, `["00000000-0000-0000-0000-00000000000`
	const at, points = `,"reserved_at":1700000000123,"orders":[`, `,"points":true`
	want := `{"v":3,"product_id":1,"calls":[` +
		price + at + item + `1",7,2]]},` + price + points + at + item + `2",7,2],` + item + `3",7,2]]},` +
		price + at + item + `4",7,2]]}]}`
	bodies, _ := Pack(orders)
	if len(bodies) != 1 || string(bodies[0]) != want {
		t.Errorf("Pack = %s, want %s", bodies, want)
	}
	if _, ok := readPlain(bodies[0]); !ok {
		t.Error("what Pack writes is not read the fast way")
	}
	spaced := strings.ReplaceAll(want, `:true,`, ` : true ,`)
	for _, text := range []string{want, spaced} {
		if got, err := Decode([]byte(text)); err != nil || !slices.EqualFunc(got, orders, same) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}

	// An order that did not fit any more says nothing of the envelope before it.
	many := make([]Order, MaxOrdersPerMessage+1)
	for i := range many {
		many[i] = sample()
		many[i].IdempotencyKey = strings.Repeat("\x01", MaxIdempotencyKeyBytes)
	}
	_, groups := Pack(many)
	many[len(groups[0])].Points = true
	bodies, _ = Pack(many)
	if !bytes.HasPrefix(bodies[0], []byte(`{"v":2,`)) ||
		!bytes.HasPrefix(bodies[1], []byte(`{"v":3,`)) || !bytes.HasPrefix(bodies[2], []byte(`{"v":2,`)) {
		t.Errorf("the first of %d orders begins with %.10s, then %.10s, %.10s", len(groups[0]), bodies[0], bodies[1],
			bodies[2])
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	bodies, _ := Pack([]Order{sample()})
	testUndecodable(t, string(bodies[0]), undecodable)
	const before = `{"v":1,"orders":[{"order_id":"0192f0c1-2345-7abc-8def-0123456789ab","user_id":7,"product_id":1,` +
		`"quantity":2,"unit_price":1999,"reserved_at":"2023-11-14T22:13:20.123Z","idempotency_key":"k"}]}`
	testUndecodable(t, before, undecodableBefore)
}

// pointsForNothing begins an order that costs no points, and could not be paid with them.
const pointsForNothing = `{"v":3,"product_id":1,"calls":[{"unit_price":0,"points":true`

// undecodable makes bodies of no use of a valid one, of version 2.
func undecodable(valid string, swap func(old, with string) string) map[string]string {
	one := valid[strings.Index(valid, `["`) : len(valid)-len(`]}]}`)]
	return map[string]string{
		"no version":             swap(`"v":2,`, ``),
		"another version":        swap(`"v":2`, `"v":4`),
		"no version at all":      swap(`"v":2`, `"v":0`),
		"points, too early":      swap(`"reserved_at"`, `"points":true,"reserved_at"`),
		"points for nothing":     swap(`{"v":2,"product_id":1,"calls":[{"unit_price":1999`, pointsForNothing),
		"points as text":         swap(`"reserved_at"`, `"points":"true","reserved_at"`),
		"points in capitals":     swap(`"reserved_at"`, `"Points":true,"reserved_at"`),
		"a version as text":      swap(`"v":2`, `"v":"2"`),
		"no calls":               `{"v":2,"product_id":1}`,
		"null for calls":         `{"v":2,"product_id":1,"calls":null}`,
		"an empty list":          `{"v":2,"product_id":1,"calls":[]}`,
		"no orders":              swap(one, ``),
		"null for orders":        swap(`[`+one+`]`, `null`),
		"null for an order":      swap(one, `null`),
		"an empty order":         swap(one, `[]`),
		"an object for an order": swap(one, `{}`),
		"no quantity":            swap(`,2,"k"`, ``),
		"too many orders":        swap(one, one+strings.Repeat(","+one, MaxOrdersPerMessage)),
		"a bad id":               swap(`["`, `["x`),
		"a fraction":             swap(`,2,`, `,2.5,`),
		"text for a number":      swap(`,2,`, `,"2",`),
		"a negative quantity":    swap(`,2,`, `,-2,`),
		"a number out of range":  swap(`,7,`, `,9223372036854775808,`),
		"no product":             swap(`"product_id":1,`, ``),
		"no time":                swap(`"reserved_at":1700000000123,`, ``),
		"a bad time":             swap(`1700000000123`, `"yesterday"`),
		"a time of no use":       swap(`1700000000123`, `-1`),
		"a time of nobody":       swap(`1700000000123`, `9223372036854775807`),
		"too long a key":         swap(`"k"`, `"k`+strings.Repeat("x", MaxIdempotencyKeyBytes)+`"`),
		"a number for a key":     swap(`"k"`, `1`),
	}
}

// undecodableBefore is undecodable for version 1.
func undecodableBefore(valid string, swap func(old, with string) string) map[string]string {
	one := strings.TrimSuffix(strings.TrimPrefix(valid, `{"v":1,"orders":[`), `]}`)
	return map[string]string{
		"orders of this version": swap(`"v":1`, `"v":2`),
		"no orders":              `{"v":1}`,
		"null for orders":        `{"v":1,"orders":null}`,
		"an empty list":          `{"v":1,"orders":[]}`,
		"an object for orders":   `{"v":1,"orders":` + one + `}`,
		"null for an order":      swap(`[`, `[null,`),
		"an empty order":         swap(`[`, `[{},`),
		"too many orders":        swap(`[`, `[`+strings.Repeat(one+",", MaxOrdersPerMessage)),
		"points":                 swap(`"quantity":2`, `"quantity":2,"points":true`),
		"a member twice":         swap(`"quantity":2`, `"quantity":2,"quantity":3`),
		"a member in capitals":   swap(`"quantity":2`, `"Quantity":2`),
		"a bad id":               swap(`"order_id":"`, `"order_id":"x`),
		"null for an id":         swap(one[:strings.Index(one, ",")], `{"order_id":null`),
		"text for a number":      swap(`"quantity":2`, `"quantity":"2"`),
		"no user":                swap(`"user_id":7,`, ``),
		"no time":                swap(`"reserved_at":"2023-11-14T22:13:20.123Z",`, ``),
		"a bad time":             swap(`2023-11-14T22:13:20.123Z`, `yesterday`),
		"a time of no use":       swap(`2023-11-14T22:13:20.123Z`, `0000-01-01T00:00:00Z`),
	}
}

func testUndecodable(t *testing.T, valid string, of func(string, func(old, with string) string) map[string]string) {
	t.Helper()
	swap := func(old, with string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("%s is not in %s", old, valid)
		}
		return strings.Replace(valid, old, with, 1)
	}
	bodies := of(valid, swap)
	maps.Copy(bodies, map[string]string{
		"nothing":        "",
		"not JSON":       "order",
		"null":           "null",
		"a list":         "[" + valid + "]",
		"a string":       `"order"`,
		"cut off":        valid[:len(valid)-1],
		"two envelopes":  valid + valid,
		"a member twice": strings.Replace(valid, `"v":`, `"v":1,"v":`, 1),
		"too many bytes": valid + strings.Repeat(" ", MaxMessageBytes+1-len(valid)),
	})
	for what, body := range bodies {
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
	paid := sample()
	paid.Points = true
	withPoints, _ := Pack([]Order{sample(), paid})
	f.Add(withPoints[0])
	f.Add([]byte(strings.Replace(string(withPoints[0]), `"v":3`, `"v":2`, 1)))
	f.Add([]byte(`{"v":1,"orders":[null]}`))
	f.Add([]byte(`{"v":2,"calls":[]}`))
	f.Add([]byte(`{"v":1,"orders":[{"order_id":"0192f0c1-2345-7abc-8def-0123456789ab","user_id":7,"product_id":1,` +
		`"quantity":2,"unit_price":1999,"reserved_at":"2023-11-14T22:13:20.123456789+23:59"}]}`))
	f.Add([]byte(strings.Replace(string(bodies[0]), `1700000000123`, `0`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `"k"`, `"\ud800\u0000"`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `,7,`, `,07,`, 1)))
	f.Add([]byte(strings.Replace(string(bodies[0]), `,7,`, `,123456789012345678,`, 1)))
	f.Add(append(bytes.Clone(bodies[0]), ' '))
	f.Fuzz(func(t *testing.T, body []byte) {
		if plain, ok := readPlain(body); ok {
			if orders, err := decode(body); err != nil || !reflect.DeepEqual(orders, plain) {
				t.Fatalf("readPlain = %+v, and encoding/json says %+v, %v", plain, orders, err)
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

// FuzzAppendString: what is written without encoding/json is what encoding/json writes.
func FuzzAppendString(f *testing.F) {
	for _, text := range []string{"", "k", "a\"b\\c<d>&\x01\u2028é\xff~"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, text); string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}
