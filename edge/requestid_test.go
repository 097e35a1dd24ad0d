package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/order"
)

var requestIDPattern = regexp.MustCompile("^[0-9a-f]{32}$")

// TestEveryAnswerHasARequestID looks at answers of all kinds, those to what is no HTTP included.
func TestEveryAnswerHasARequestID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	seen := map[string]bool{}
	for name, r := range map[string]apitest.Reply{
		"an order":         w.Post(1, p.ID, 1),
		"health":           w.Send("GET", "/healthz", ""),
		"HEAD":             w.Send("HEAD", "/healthz", ""),
		"OPTIONS":          w.Send("OPTIONS", "/api/orders", ""),
		"no token":         w.Send("GET", "/api/orders", ""),
		"no such path":     w.Send("GET", "/nowhere", ""),
		"no such method":   w.Send("DELETE", "/api/orders", ""),
		"sale of nothing":  w.Post(1, 999_999, 1),
		"a bad quantity":   w.Post(1, p.ID, -1),
		"no HTTP":          w.Exchange([]byte("hello\r\n\r\n")),
		"no host":          w.Exchange([]byte("GET /healthz HTTP/1.1\r\n\r\n")),
		"an ambiguous end": w.Exchange([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n")),
		"a large body":     w.Exchange([]byte("POST /api/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")),
		"large headers": w.Exchange([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " +
			strings.Repeat("x", maxHeaderBytes) + "\r\n\r\n")),
	} {
		id := r.Header.Get("Stampede-Request-Id")
		if !requestIDPattern.MatchString(id) || seen[id] || len(r.Header.Values("Stampede-Request-Id")) != 1 {
			t.Errorf("%s: the id is %q: %v", name, r.Header["Stampede-Request-Id"], r)
		}
		seen[id] = true
		var document struct {
			RequestID string `json:"request_id"`
		}
		if r.Status >= 400 {
			r.Read(t, &document)
		}
		if r.Status >= 400 && document.RequestID != id {
			t.Errorf("%s: the id is %q, and the document says %s", name, id, r.Body)
		}
	}

	trace := "4bf92f3577b34da6a3ce929d0e0e4736"
	r := w.Send("GET", "/nowhere", "", "TraceParent", "00-"+trace+"-00f067aa0ba902b7-01")
	if got := r.Header.Get("Stampede-Request-Id"); got != trace || !strings.Contains(r.Body, trace) {
		t.Errorf("with the trace %s: %q, %v", trace, got, r)
	}
}

// TestRequestIDIsLogged makes requests fail in each way that is logged, and looks for their ids. It looks at the log,
// so it is not parallel.
func TestRequestIDIsLogged(t *testing.T) {
	w := newWorld(t, func(e *Edge) {
		load := e.products.load
		e.products = newCache(func(ctx context.Context, id order.ProductID) (order.Product, error) {
			if id == 666 {
				panic("a bug")
			}
			return load(ctx, id)
		}, productBytes)
	})
	p := w.AddProduct(100)
	w.MustPost(1, p.ID, 1)
	logs.Take()

	n := 0
	check := func(what string, request func(traceparent string) apitest.Reply, status int) {
		t.Helper()
		n++
		id := fmt.Sprintf("a%031x", n)
		r := request("00-" + id + "-00f067aa0ba902b7-00")
		if r.Status != status {
			t.Errorf("%s: got %v, want %d", what, r, status)
		}
		if lines := strings.Join(logs.Take(), "\n"); !strings.Contains(lines, id) {
			t.Errorf("%s: the id %s is not in the log:\n%s", what, id, lines)
		}
	}
	order := func(traceparent string) apitest.Reply { return w.Post(1, p.ID, 1, "Traceparent", traceparent) }
	get := func(path string) func(string) apitest.Reply {
		return func(traceparent string) apitest.Reply {
			return w.Send("GET", path, "", "Authorization", w.Bearer(1), "Traceparent", traceparent)
		}
	}

	check("a panic", get("/api/products/666"), 500)
	w.AWS.Cut()
	check("an order that the queue does not take", order, 503)
	w.AWS.Heal()
	w.MySQL.Cut()
	check("orders that MySQL does not list", get("/api/orders"), 503)
	check("products that MySQL does not list", get("/api/products"), 503)
	w.Redis.Cut()
	check("an order that Redis does not reserve", order, 503)
	check("an order that nobody can look up", get("/api/orders/018f0000-0000-7000-8000-000000000000"), 503)
}
