package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"stampede/internal/order"
)

var requestIDPattern = regexp.MustCompile("^[0-9a-f]{32}$")

// TestEveryAnswerHasARequestID looks at answers of all kinds, those to what is no HTTP included.
func TestEveryAnswerHasARequestID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	seen := map[string]bool{}
	for name, r := range map[string]reply{
		"an order":         w.post(1, p.ID, 1),
		"health":           w.send("GET", "/healthz", ""),
		"HEAD":             w.send("HEAD", "/healthz", ""),
		"OPTIONS":          w.send("OPTIONS", "/api/orders", ""),
		"no token":         w.send("GET", "/api/orders", ""),
		"no such path":     w.send("GET", "/nowhere", ""),
		"no such method":   w.send("DELETE", "/api/orders", ""),
		"sale of nothing":  w.post(1, 999_999, 1),
		"a bad quantity":   w.post(1, p.ID, -1),
		"no HTTP":          w.exchange([]byte("hello\r\n\r\n")),
		"no host":          w.exchange([]byte("GET /healthz HTTP/1.1\r\n\r\n")),
		"an ambiguous end": w.exchange([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n")),
		"a large body":     w.exchange([]byte("POST /api/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")),
		"large headers": w.exchange([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " +
			strings.Repeat("x", maxHeaderBytes) + "\r\n\r\n")),
	} {
		id := r.header.Get("Stampede-Request-Id")
		if !requestIDPattern.MatchString(id) || seen[id] || len(r.header.Values("Stampede-Request-Id")) != 1 {
			t.Errorf("%s: the id is %q: %v", name, r.header["Stampede-Request-Id"], r)
		}
		seen[id] = true
		var document struct {
			RequestID string `json:"request_id"`
		}
		if r.status >= 400 {
			r.read(t, &document)
		}
		if r.status >= 400 && document.RequestID != id {
			t.Errorf("%s: the id is %q, and the document says %s", name, id, r.body)
		}
	}

	trace := "4bf92f3577b34da6a3ce929d0e0e4736"
	r := w.send("GET", "/nowhere", "", "TraceParent", "00-"+trace+"-00f067aa0ba902b7-01")
	if got := r.header.Get("Stampede-Request-Id"); got != trace || !strings.Contains(r.body, trace) {
		t.Errorf("with the trace %s: %q, %v", trace, got, r)
	}
}

func TestTraceID(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for sent, want := range map[string]string{
		"00-" + trace + "-" + parent + "-01":            trace,
		"00-" + trace + "-" + parent + "-00":            trace,
		"cc-" + trace + "-" + parent + "-01":            trace,
		"cc-" + trace + "-" + parent + "-01-what-comes": trace,
		"":   "",
		"00": "",
		"00-" + trace + "-" + parent + "-01-what-comes":         "",
		"cc-" + trace + "-" + parent + "-01.what-comes":         "",
		"ff-" + trace + "-" + parent + "-01":                    "",
		"0x-" + trace + "-" + parent + "-01":                    "",
		"00_" + trace + "-" + parent + "-01":                    "",
		"00-" + trace + "_" + parent + "-01":                    "",
		"00-" + trace + "-" + parent + "_01":                    "",
		"00-" + trace + "-" + parent + "-0g":                    "",
		"00-" + strings.ToUpper(trace) + "-" + parent + "-01":   "",
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01":  "",
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":   "",
		"00-" + trace[:30] + `"}` + "-" + parent + "-01":        "",
		"00-" + trace[:31] + "é" + "-" + parent[:15] + "-01":    "",
		"00-" + trace + "-" + parent[:15] + "\x00" + "-01":      "",
		" 00-" + trace + "-" + parent + "-01":                   "",
		"00-" + trace + "-" + parent + "-01,00-" + trace + "-0": "",
	} {
		if got := string(traceID([]byte(sent))); got != want {
			t.Errorf("%q: got %q", sent, got)
		}
	}
}

// TestRequestIDIsLogged makes requests fail in each way that is logged, and looks for their ids. It looks at the log,
// so it is not parallel.
func TestRequestIDIsLogged(t *testing.T) {
	w := newWorld(t, func(e *Edge) {
		load := e.products.load
		e.products = newCache(func(ctx context.Context, id int64) (order.Product, error) {
			if id == 666 {
				panic("a bug")
			}
			return load(ctx, id)
		}, productBytes)
	})
	p := w.addProduct(100)
	w.mustPost(1, p.ID, 1)
	logs.take()

	n := 0
	check := func(what string, request func(traceparent string) reply, status int) {
		t.Helper()
		n++
		id := fmt.Sprintf("a%031x", n)
		r := request("00-" + id + "-00f067aa0ba902b7-00")
		if r.status != status {
			t.Errorf("%s: got %v, want %d", what, r, status)
		}
		if lines := strings.Join(logs.take(), "\n"); !strings.Contains(lines, id) {
			t.Errorf("%s: the id %s is not in the log:\n%s", what, id, lines)
		}
	}
	order := func(traceparent string) reply { return w.post(1, p.ID, 1, "Traceparent", traceparent) }
	get := func(path string) func(string) reply {
		return func(traceparent string) reply {
			return w.send("GET", path, "", "Authorization", w.bearer(1), "Traceparent", traceparent)
		}
	}

	check("a panic", get("/api/products/666"), 500)
	w.aws.cut()
	check("an order that the queue does not take", order, 503)
	w.aws.heal()
	w.mysql.cut()
	check("orders that MySQL does not list", get("/api/orders"), 503)
	check("an account that MySQL does not know", get("/api/me"), 503)
	check("products that MySQL does not list", get("/api/products"), 503)
	w.redis.cut()
	check("an order that Redis does not reserve", order, 503)
	check("an order that nobody can look up", get("/api/orders/018f0000-0000-7000-8000-000000000000"), 503)
}
