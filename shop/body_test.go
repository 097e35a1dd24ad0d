package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/strictjson"
)

// Every request with a body refuses what two readers could understand differently, in the same way.
func TestBodiesAreUnambiguous(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	for _, c := range []struct{ method, path, body, name string }{
		{"POST", "/api/orders", fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID), "quantity"},
		{"POST", "/api/register", `{"email":"ada@example.org","name":"Ada","password":"seven quiet otters knit"}`,
			"password"},
		{"POST", "/api/login", `{"email":"ada@example.org","password":"seven quiet otters knit"}`, "email"},
		{"POST", "/api/refresh", `{"refresh_token":"abc"}`, "refresh_token"},
		{"POST", "/api/password", `{"old_password":"a","new_password":"b"}`, "new_password"},
		{"POST", "/api/products", apitest.GoodProduct, "price"},
		{"PATCH", apitest.PathOf(p), `{"price":1}`, "price"},
		{"PUT", apitest.PathOf(p) + "/restocks/r1", `{"units":1}`, "units"},
	} {
		rest := c.body[1:]
		for what, b := range map[string]struct{ body, says string }{
			"twice":   {fmt.Sprintf(`{%q:1,%s`, c.name, rest), "twice"},
			"escaped": {fmt.Sprintf(`{"\u%04x%s":1,%s`, c.name[0], c.name[1:], rest), "twice"},
			"capitals": {strings.Replace(c.body, `"`+c.name+`"`, `"`+strings.ToUpper(c.name)+`"`, 1),
				"must be written"},
			"twice in":  {`{"x":{"y":1,"y":2},` + rest, "twice"},
			"deep":      {`{"x":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `,` + rest, "nested"},
			"number":    {`{"x":` + strings.Repeat("1", strictjson.MaxNumberBytes+1) + `,` + rest, "number"},
			"not UTF-8": {"{\"x\":\"\xff\"," + rest, "JSON object"},
			"a list":    {"[" + c.body + "]", "JSON object"},
		} {
			r := w.Manage(c.method, c.path, b.body)
			if r.Status != http.StatusBadRequest || !strings.Contains(r.Body, b.says) {
				t.Errorf("%s %s, %s: %v", c.method, c.path, what, r)
			}
		}
	}
}
