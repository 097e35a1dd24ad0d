package main

import (
	"strings"
	"testing"

	"stampede/internal/access"
	"stampede/internal/apitest"
)

// TestWhatEveryAnswerHas: no type is guessed, and nobody keeps what does not say that it may be kept.
func TestWhatEveryAnswerHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	for what, test := range map[string]struct {
		answer apitest.Reply
		cache  string
	}{
		"an order":      {w.Post(1, p.ID, 1), "no-store"},
		"orders":        {w.Get(1, "/api/orders"), "no-store"},
		"a refusal":     {w.Send("GET", "/api/orders", ""), "no-store"},
		"a wrong path":  {w.Send("GET", "/nothing", ""), "no-store"},
		"a wrong verb":  {w.Send("PUT", "/api/orders", ""), "no-store"},
		"methods":       {w.Send("OPTIONS", "/api/orders", ""), "no-store"},
		"health":        {w.Send("GET", "/healthz", ""), "no-store"},
		"the contract":  {w.Send("GET", "/openapi.yaml", ""), docsCache},
		"the docs":      {w.Send("GET", "/docs", ""), docsCache},
		"a large thing": {w.Send("POST", "/api/orders", strings.Repeat("x", 20<<10)), "no-store"},
	} {
		h := test.answer.Header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != test.cache {
			t.Errorf("%s: %v, %v", what, test.answer, h)
		}
		if h.Get("Vary") != "" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: pages of other sites are spoken to: %v", what, h)
		}
	}
}

// TestOtherSites: pages of a listed origin may use the API, and those of any other may not.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	const listed = "https://shop.example.com"
	w := newWorld(t, func(e *Edge) {
		e.guard.Origins = access.Origins{listed: true, "http://localhost:3000": true}
	})
	for origin, want := range map[string]string{
		listed: listed, "http://localhost:3000": "http://localhost:3000", "": "", "null": "",
		"https://evil.example.com": "",
		"http://shop.example.com":  "", "https://shop.example.com.evil.com": "", "https://SHOP.example.com": "",
	} {
		r := w.Send("GET", "/api/products", "", "Origin", origin)
		if r.Status != 200 || r.Header.Get("Access-Control-Allow-Origin") != want || r.Header.Get("Vary") != "Origin" ||
			r.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("from %q: %v, %v", origin, r, r.Header)
		}
		if names := r.Header.Get("Access-Control-Expose-Headers"); strings.Contains(names,
			"Retry-After") != (want != "") {
			t.Errorf("%q may read %q", origin, names)
		}

		r = w.Send("OPTIONS", "/api/orders", "", "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
		methods, names := r.Header.Get("Access-Control-Allow-Methods"), r.Header.Get("Access-Control-Allow-Headers")
		if r.Status != 200 || strings.Contains(methods, "POST") != (want != "") ||
			strings.Contains(names, "Idempotency-Key") != (want != "") ||
			r.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("asked from %q: %v, %v", origin, r, r.Header)
		}
	}
}
