package main

import (
	"strings"
	"testing"
)

// TestWhatEveryAnswerHas: no type is guessed, and nobody keeps what does not say that it may be kept.
func TestWhatEveryAnswerHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	for what, test := range map[string]struct {
		answer reply
		cache  string
	}{
		"an order":      {w.post(1, p.ID, 1), "no-store"},
		"orders":        {w.get(1, "/api/orders"), "no-store"},
		"a refusal":     {w.send("GET", "/api/orders", ""), "no-store"},
		"a wrong path":  {w.send("GET", "/nothing", ""), "no-store"},
		"a wrong verb":  {w.send("PUT", "/api/orders", ""), "no-store"},
		"methods":       {w.send("OPTIONS", "/api/orders", ""), "no-store"},
		"health":        {w.send("GET", "/healthz", ""), "no-store"},
		"the contract":  {w.send("GET", "/openapi.yaml", ""), docsCache},
		"the docs":      {w.send("GET", "/docs", ""), docsCache},
		"a large thing": {w.send("POST", "/api/orders", strings.Repeat("x", 20<<10)), "no-store"},
	} {
		h := test.answer.header
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
	w := newWorld(t, func(e *Edge) { e.origins, _ = parseOrigins("https://shop.example.com,http://localhost:3000") })
	for origin, want := range map[string]string{
		listed: listed, "http://localhost:3000": "http://localhost:3000", "": "", "null": "",
		"https://evil.example.com": "",
		"http://shop.example.com":  "", "https://shop.example.com.evil.com": "", "https://SHOP.example.com": "",
	} {
		r := w.send("GET", "/api/products", "", "Origin", origin)
		if r.status != 200 || r.header.Get("Access-Control-Allow-Origin") != want || r.header.Get("Vary") != "Origin" ||
			r.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("from %q: %v, %v", origin, r, r.header)
		}
		if names := r.header.Get("Access-Control-Expose-Headers"); strings.Contains(names,
			"Retry-After") != (want != "") {
			t.Errorf("%q may read %q", origin, names)
		}

		r = w.send("OPTIONS", "/api/orders", "", "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
		methods, names := r.header.Get("Access-Control-Allow-Methods"), r.header.Get("Access-Control-Allow-Headers")
		if r.status != 200 || strings.Contains(methods, "POST") != (want != "") ||
			strings.Contains(names, "Idempotency-Key") != (want != "") ||
			r.header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("asked from %q: %v, %v", origin, r, r.header)
		}
	}

	for _, bad := range []string{
		"", "*", "null", "https://*.example.com", "https://shop.example.com:443", "http://shop.example.com:80",
		"https://a.example.com/", "a.example.com", "https://a,", "ftp://a", "https://A.example.com",
	} {
		if _, err := parseOrigins(bad); err == nil {
			t.Errorf("CORS_ORIGINS=%q is taken", bad)
		}
	}
	if origins, err := parseOrigins(noOrigins); len(origins) != 0 || err != nil {
		t.Error(origins, err)
	}
}
