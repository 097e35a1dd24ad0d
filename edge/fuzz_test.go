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
		`{"product_id":1,"quantity":}`, `{"product_id":[],"quantity":{}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		productID, quantity, c, detail := parseOrder(body)
		if p, q, c2, _ := decodeOrder(body); p != productID || q != quantity || c2 != c {
			t.Errorf("read as %d of product %d, %q, in any form as %d of product %d, %q", quantity, productID, c, q, p,
				c2)
		}
		if c != "" {
			if !slices.Contains([]problem.Code{problem.MalformedRequest, problem.ProductNotFound,
				problem.InvalidQuantity}, c) || detail == "" {
				t.Errorf("refused with %q, %q", c, detail)
			}
			return
		}
		if productID <= 0 || quantity < 1 || quantity > order.MaxQuantity || !json.Valid(body) {
			t.Errorf("read as %d of product %d", quantity, productID)
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
