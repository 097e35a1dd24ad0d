package main

import (
	"encoding/json"
	"slices"
	"testing"

	"stampede/internal/order"
	"stampede/internal/problem"
)

// What clients send is either read as something in its bounds or refused with a 4xx; nothing makes the edge panic
// or fail.

func FuzzOrder(f *testing.F) {
	for _, body := range []string{
		"", "null", "[]", "{}", "1", `{"product_id":1,"quantity":1}`,
		`{"product_id":9223372036854775807,"quantity":1000}`,
		`{"product_id":-1,"quantity":0}`, `{"product_id":1.0,"quantity":1e0}`, `{"product_id":"1","quantity":null}`,
		`{"product_id":1,"product_id":2,"quantity":1}`, `{"PRODUCT_ID":1,"Quantity":1}`,
		`{"product_id": 01,"quantity":-0}`,
		"{\"product_id\":1,\"quantity\":1}\x00", `{"product_id":999999999999999999,"quantity":1}`,
		`{"product_id":1,"quantity":01}`,
		`{"product_id":1000000000000000000,"quantity":1}`, `{"product_id":1,"quantity":1001}`,
		`{"product_id":1,"quantity":1,"pay_with":"points"}`, `{"product_id": 1, "quantity": 1, "pay_with": "points"}`,
		`{"pay_with":"points","product_id":1,"quantity":1}`, `{"product_id":1,"quantity":1,"pay_with":"money"}`,
		`{"product_id":1,"quantity":1,"pay_with":null}`, `{"product_id":1,"quantity":1,"Pay_With":"points"}`,
		`{"product_id":1,"quantity":}`, `{"product_id":[],"quantity":{}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		asked, c, detail := parseOrder(body)
		if again, c2, _ := decodeOrder(body); again != asked || c2 != c {
			t.Errorf("read as %+v, %q, in any form as %+v, %q", asked, c, again, c2)
		}
		if c != "" {
			if !slices.Contains([]problem.Code{problem.MalformedRequest, problem.ProductNotFound,
				problem.InvalidQuantity}, c) || detail == "" {
				t.Errorf("refused with %q, %q", c, detail)
			}
			return
		}
		if asked.productID <= 0 || asked.quantity < 1 || asked.quantity > order.MaxQuantity || !json.Valid(body) {
			t.Errorf("read as %+v", asked)
		}
	})
}

func FuzzWait(f *testing.F) {
	for _, text := range []string{
		"", "0", "10", "10s", "20s", "20001ms", "-1s", "1h", "9999999h", "0.5s", "1s500ms", "+1s", "1e1s", "NaNs",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if wait, ok := parseWait(text); ok && (wait < 0 || wait > maxStatusWait) {
			t.Errorf("%q is read as %v", text, wait)
		}
	})
}
