package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"stampede/internal/access"
	"stampede/internal/apitest"
	"stampede/internal/front"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/localstack/stacktest"
)

// TestEveryRouteIsInTheTable of the front door, and all that the front door has for the shop is here. Health is each
// server's own.
func TestEveryRouteIsInTheTable(t *testing.T) {
	t.Parallel()
	var routes []string
	for _, r := range (&Shop{}).table() {
		if r.pattern != "GET /healthz" && r.pattern != "GET /readyz" {
			routes = append(routes, r.pattern)
		}
	}
	apitest.WantRoutes(t, front.Shop, routes)
}

// TestUnrouted: what the shop has no route for is answered with what the whole address has.
func TestUnrouted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Route = nil // all to the shop
	for _, path := range []string{"/nothing", "/api/login/", "//api/login", "/api/./login"} {
		apitest.WantCode(t, path, w.Send("GET", path, ""), 404, problem.NotFound)
	}
	for request, allow := range map[string]string{
		"GET /api/login":       "OPTIONS, POST",
		"POST /api/me":         "GET, HEAD, OPTIONS",
		"PUT /api/products":    "GET, HEAD, OPTIONS, POST",
		"POST /api/products/7": "GET, HEAD, OPTIONS, PATCH",
	} {
		method, path, _ := strings.Cut(request, " ")
		r := w.Send(method, path, "")
		apitest.WantCode(t, request, r, 405, problem.MethodNotAllowed)
		if got := r.Header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow %q, want %q", request, got, allow)
		}
		if r := w.Send("OPTIONS", path, ""); r.Status != 200 || r.Header.Get("Allow") != allow {
			t.Errorf("OPTIONS %s: %v with Allow %q", path, r, r.Header.Get("Allow"))
		}
	}
	if r := w.Send("HEAD", "/api/me", ""); r.Status != 401 || r.Body != "" {
		t.Errorf("HEAD: %v", r)
	}
}

// TestWhatEveryAnswerHas: a name, no guess at its type, and nobody keeps it. Pages of other sites see it if they are
// listed.
func TestWhatEveryAnswerHas(t *testing.T) {
	t.Parallel()
	const listed = "https://shop.example.com"
	w := newWorld(t, func(s *Shop) { s.guard.Origins = access.Origins{listed: true} })
	w.Route = nil
	for what, r := range map[string]apitest.Reply{
		"health":        w.Send("GET", "/healthz", "", "Origin", listed),
		"a refusal":     w.Send("GET", "/api/me", "", "Origin", listed),
		"a wrong path":  w.Send("GET", "/nothing", "", "Origin", listed),
		"a wrong verb":  w.Send("GET", "/api/login", "", "Origin", listed),
		"a large thing": w.Send("POST", "/api/login", strings.Repeat("x", 20<<10), "Origin", listed),
	} {
		h := r.Header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" ||
			len(h.Get(problem.RequestIDHeader)) != 32 || h.Get("Access-Control-Allow-Origin") != listed ||
			h.Get("Vary") != "Origin" {
			t.Errorf("%s: %v, %v", what, r, h)
		}
	}
	r := w.Send("OPTIONS", "/api/login", "", "Origin", listed, "Access-Control-Request-Method", "POST")
	if r.Header.Get("Access-Control-Allow-Methods") != "OPTIONS, POST" {
		t.Errorf("a browser that asks is told %v", r.Header)
	}
	r = w.Send("OPTIONS", "/api/login", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method",
		"POST")
	if r.Header.Get("Access-Control-Allow-Methods") != "" || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a page of another site is told %v", r.Header)
	}
	if r := w.Send("GET", "/api/me", "", "Traceparent",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"); r.Header.Get(problem.RequestIDHeader) !=
		"4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("a trace does not name the request: %v", r.Header)
	}
}

// TestLimitsHold: an address and a user have their buckets here as well, and a probe is not counted with them.
func TestLimitsHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy, func(s *Shop) {
		if err := s.guard.Limit("0.1/2", "0.1/3"); err != nil {
			t.Error(err)
		}
	})
	me := func(address string, user order.UserID) apitest.Reply {
		return w.Send("GET", "/api/me", "", "X-Forwarded-For", address, "Authorization", w.Bearer(user))
	}
	for i := range 2 {
		if r := me(fmt.Sprint("192.0.2.", i), 1); r.Status != 404 || r.Header.Get("RateLimit") == "" {
			t.Errorf("request %d: %v, %v", i, r, r.Header)
		}
	}
	apitest.WantCode(t, "a user who asks too often", me("192.0.2.9", 1), 429, problem.RateLimited)
	for i := range 3 {
		me("198.51.100.1", order.UserID(i+10))
	}
	apitest.WantCode(t, "an address that asks too often", me("198.51.100.1", 20), 429, problem.RateLimited)
	if r := w.Send("GET", "/readyz", "", "X-Forwarded-For", "198.51.100.1"); r.Status != 200 {
		t.Errorf("a probe from there: %v", r)
	}
	apitest.WantCode(t, "a client without a name",
		w.Send("GET", "/api/me", "", "X-Forwarded-For", "unknown"), 400, problem.MalformedRequest)
}

// TestUnreadableRequests: what is no request, or of which the end is not clear, gets a 4xx and no place in the log. It
// looks at the log, so it is not parallel.
func TestUnreadableRequests(t *testing.T) {
	w := newWorld(t, func(s *Shop) { s.server.ReadTimeout = 500 * time.Millisecond })
	logs.Take()
	const login, host = "POST /api/login HTTP/1.1\r\nHost: shop\r\n", "Host: shop\r\n"
	for what, raw := range map[string]string{
		"no request":             "hello\r\n\r\n",
		"a path that is no path": "PUT /api/products/1/restocks/%zz HTTP/1.1\r\n" + host + "\r\n",
		"no host":                "GET /api/me HTTP/1.1\r\n\r\n",
		"large headers": "GET /api/me HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x",
			20<<10) + "\r\n\r\n",
		"two lengths":               login + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"an unknown coding":         login + "Transfer-Encoding: gzip\r\n\r\n",
		"a chunk that is no chunk":  login + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"a body that does not come": login + "Content-Length: 20\r\n\r\n{",
	} {
		connection, err := net.Dial("tcp", w.Addr)
		w.Must(err)
		_ = connection.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = io.WriteString(connection, raw)
		w.Must(err)
		if r := apitest.ReadReply(connection); (r.Status < 400 || r.Status > 499) &&
			r.Status != http.StatusNotImplemented {
			t.Errorf("%s: %v", what, r)
		}
		connection.Close()
	}
	if lines := logs.Take(); len(lines) > 0 {
		t.Errorf("bad input was logged as our failure: %q", lines)
	}
	if r := w.Send("GET", "/readyz", ""); r.Status != 200 {
		t.Errorf("afterwards: %v", r)
	}
}

// TestFramingThroughNginx sends requests whose end is ambiguous to an nginx in front of the shop.
func TestFramingThroughNginx(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stacktest.FramingsThroughNginx(t, w.Addr, "POST /nowhere", "",
		"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
}

// TestPanic: a handler that panics is answered for, and tells no secret. It looks at the log, so it is not parallel.
func TestPanic(t *testing.T) {
	w := newWorld(t, func(s *Shop) {
		s.server.Handler = s.begin("GET /panic", access.API, func(http.ResponseWriter, *http.Request) error {
			panic("a secret")
		})
	})
	logs.Take()
	r := w.Send("GET", "/api/me", "")
	if r.Status != 500 || r.Code() != string(problem.InternalError) || strings.Contains(r.Body, "secret") {
		t.Errorf("got %v", r)
	}
	lines := strings.Join(logs.Take(), "\n")
	if !strings.Contains(lines, r.Header.Get(problem.RequestIDHeader)) || strings.Contains(lines, "a secret") ||
		!strings.Contains(lines, "server_test.go") {
		t.Errorf("logged: %s", lines)
	}
}

// TestMySQLIsAway: who asks is told to come back, with an id that the log has, and the shop is not ready. It looks at
// the log, so it is not parallel.
func TestMySQLIsAway(t *testing.T) {
	w := newWorld(t)
	logs.Take()
	w.MySQL.Cut()
	r := w.Get(1, "/api/me")
	apitest.WantProblem(t, r, 503, problem.AccountsUnavailable)
	if lines := strings.Join(logs.Take(), "\n"); !strings.Contains(lines, r.Header.Get(problem.RequestIDHeader)) {
		t.Errorf("the id is not in the log: %s", lines)
	}
	apitest.WantProblem(t, w.Send("GET", "/readyz", ""), 503, problem.NotReady)
	w.MySQL.Heal()
	w.Eventually("MySQL is back", func() bool { return w.Send("GET", "/readyz", "").Status == 200 })
	logs.Take()
}
