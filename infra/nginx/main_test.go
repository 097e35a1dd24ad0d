package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/front"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// TestConfigIsWritten holds the file to what the generator says.
func TestConfigIsWritten(t *testing.T) {
	t.Parallel()
	got, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != config() {
		t.Error("nginx.conf is not what main.go says: run go run ./infra/nginx")
	}
}

// seen is a request as it came to a server.
type seen struct {
	server, method, uri, forwarded string
}

// world is an nginx in front of two servers.
type world struct {
	*testing.T
	addr string

	mu       sync.Mutex
	requests []seen
}

// newWorld starts nginx with the file that containers get, but for addresses and directories.
func newWorld(t *testing.T, edge, shop string) *world {
	t.Helper()
	w := &world{T: t}
	if edge == "" {
		edge = w.serve(front.Edge)
	}
	if shop == "" {
		shop = w.serve(front.Shop)
	}
	port, err := localstack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	w.addr = fmt.Sprintf("127.0.0.1:%d", port)

	content, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir, config := t.TempDir(), string(content)
	for _, change := range [][2]string{
		{"server edge:8080;", "server " + edge + ";"}, {"server shop:8080;", "server " + shop + ";"},
		{"listen 8080;", "listen " + w.addr + ";"}, {" /tmp/", " " + dir + "/"},
		{"/dev/stderr", filepath.Join(dir, "error.log")},
	} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the configuration has no %s", change[0])
		}
		config = strings.ReplaceAll(config, change[0], change[1])
	}
	stacktest.StartNginx(t, dir, w.addr, config)
	return w
}

// serve starts a server with the limits of edge and shop, and returns its address.
func (w *world) serve(name string) string {
	w.Helper()
	server := &fasthttp.Server{
		MaxRequestBodySize: 16 << 10, ReadBufferSize: 6 << 10, CloseOnShutdown: true, Logger: quiet{},
		Handler: func(ctx *fasthttp.RequestCtx) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.requests = append(w.requests, seen{name, string(ctx.Method()), string(ctx.Request.Header.RequestURI()),
				string(ctx.Request.Header.Peek("X-Forwarded-For"))})
			ctx.SetBodyString("answer of " + name)
		},
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			ctx.SetStatusCode(http.StatusBadRequest)
			if errors.Is(err, fasthttp.ErrBodyTooLarge) {
				ctx.SetStatusCode(http.StatusRequestEntityTooLarge)
			} else if _, ok := errors.AsType[*fasthttp.ErrSmallBuffer](err); ok {
				ctx.SetStatusCode(http.StatusRequestHeaderFieldsTooLarge)
			}
			ctx.SetBodyString("refused by " + name)
		},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	go func() { _ = server.Serve(ln) }()
	w.Cleanup(func() { _ = server.Shutdown() })
	return ln.Addr().String()
}

// quiet says nothing.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// take returns the requests that came to servers since it was last called.
func (w *world) take() []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// reply is an answer to the client.
type reply struct {
	status int
	header http.Header
	body   string
}

// send sends a request as it is written here, and reads the answer.
func (w *world) send(method, raw string) reply {
	w.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { _, _ = io.WriteString(conn, method+" "+raw) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.Fatalf("%s %.60q: %v", method, raw, err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		w.Fatalf("%s %.60q: %v", method, raw, err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

func (w *world) get(method, uri string, headers ...string) reply {
	w.Helper()
	return w.send(method, uri+" HTTP/1.1\r\nHost: x\r\n"+strings.Join(headers, "")+"\r\n")
}

// wantProblem wants a problem document of nginx itself.
func (w *world) wantProblem(r reply, status int, code string) {
	w.Helper()
	var document struct {
		Status      int
		Title, Code string
		RequestID   string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.body), &document); err != nil || r.status != status ||
		document.Status != status || document.Code != code || document.Title == "" || len(document.RequestID) != 32 ||
		r.header.Get("Stampede-Request-Id") != document.RequestID ||
		r.header.Get("Content-Type") != "application/problem+json" {
		w.Errorf("answered %v, want %d %s: %v", r, status, code, err)
	}
}

// TestEachToItsOwn sends requests of all kinds, and wants each to reach the process of the table as it was written.
func TestEachToItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", "")
	uris := []string{
		"/", "/nowhere", "/api/login/", "/api/%6Cogin", "/api/%2e%2e/login", "/api/../api/login", "/api//login",
		"//api/login", "/api/login%2F", "/api/login;a=b", `/api/orders/"<>`, "/api/orders/\xff\xfe", "/api/login%20",
		"/api/login#a", "/api/products/%2F", "/api/products/a%2Fb/restocks/c%3Fd", "/api/products/1/restocks/",
		"/api/products//restocks/a", "/api/products/1/restocks/a/b", "/api/products/1/2", "/api/products/",
		"/API/login",
		"/api/logi", "/api/loginx", "/api/me?", "/api/me??a", "/api/me?a=1;b=%zz&c", "/api/products?cursor=a+b%20c",
		"/nowhere?POST%20/api/login", "/nowhere?/api/login", "/api/orders/../login",
	}
	for _, r := range front.Routes {
		uris = append(uris, strings.NewReplacer("{", "", "}", "").Replace(r.Pattern))
	}
	for _, uri := range uris {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "BREW"} {
			got := w.get(method, uri)
			path, _, _ := strings.Cut(uri, "?")
			want := seen{front.Process(method, path), method, uri, "127.0.0.1"}
			if requests := w.take(); len(requests) != 1 || requests[0] != want || got.status != http.StatusOK {
				t.Errorf("%s %q: %d, and the servers saw %q, want %q", method, uri, got.status, requests, want)
			}
		}
	}

	// An absolute address is one, and what the client says of itself comes before its address.
	w.get("POST", "http://elsewhere/api/login?a", "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n")
	want := seen{front.Shop, "POST", "/api/login?a", "1.2.3.4, 5.6.7.8, 127.0.0.1"}
	if got := w.take(); len(got) != 1 || got[0] != want {
		t.Errorf("the servers saw %q, want %q", got, want)
	}

	// nginx takes none of these for a request.
	for uri, status := range map[string]int{"/../api/login": 400, "/api/login%00": 400, "*": 400, "/%zz": 400} {
		r := w.get("OPTIONS", uri)
		w.wantProblem(r, status, "malformed_request")
	}
	w.wantProblem(w.get("TRACE", "/api/login"), 405, "method_not_allowed")
	w.wantProblem(w.get("POST", "/nginx-problem"), 404, "not_found")
	if got := w.take(); len(got) > 0 {
		t.Errorf("the servers saw %q", got)
	}
}

// chunked is a body as two chunks, with the header that says so.
func chunked(body string) string {
	text := "Transfer-Encoding: chunked\r\n\r\n"
	for _, part := range []string{body[:len(body)/2], body[len(body)/2:]} {
		if part != "" {
			text += fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
		}
	}
	return text + "0\r\n\r\n"
}

// TestTooLarge: the servers refuse what is too large, and there is a bound to what nginx passes on to them.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", "")
	for uri, server := range map[string]string{"/api/orders": front.Edge, "/api/login": front.Shop} {
		for n, want := range map[int]int{0: 200, 16 << 10: 200, 16<<10 + 1: 413, 32 << 10: 413} {
			body := strings.Repeat("a", n)
			for name, raw := range map[string]string{
				"a length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, body),
				"chunks":   chunked(body),
			} {
				r := w.send("POST", uri+" HTTP/1.1\r\nHost: x\r\n"+raw)
				if r.status != want || !strings.HasSuffix(r.body, " "+server) {
					t.Errorf("%s, %d bytes in %s: %v", uri, n, name, r)
				}
			}
		}
		n := 1 << 20
		w.take()
		w.wantProblem(w.send("POST", fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", uri, n,
			strings.Repeat("a", n))), http.StatusRequestEntityTooLarge, "body_too_large")
		r := w.get("GET", uri, "X-A: "+strings.Repeat("a", 8<<10)+"\r\n")
		if r.status != http.StatusRequestHeaderFieldsTooLarge || r.body != "refused by "+server {
			t.Errorf("%s with large headers: %v", uri, r)
		}
		w.wantProblem(w.get("GET", uri, "X-A: "+strings.Repeat("a", 20<<10)+"\r\n"), 431, "headers_too_large")
		w.wantProblem(w.get("GET", uri+"?"+strings.Repeat("a", 20<<10)), 431, "headers_too_large")
		if got := w.take(); len(got) > 0 {
			t.Errorf("the servers saw %q", got)
		}
	}
}

// TestAway: a process that is away, or ends while it is asked, is a problem document, the other goes on, and no request
// is sent twice.
func TestAway(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // reads a request, and ends
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var times atomic.Int64
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				times.Add(1)
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = ln.Close() })
	w := newWorld(t, ln.Addr().String(), "")

	order := "/api/orders HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"
	w.wantProblem(w.send("POST", order), http.StatusBadGateway, "bad_gateway")
	if n := times.Load(); n != 1 {
		t.Errorf("an order was sent %d times", n)
	}
	w.wantProblem(w.get("GET", "/api/orders"), http.StatusBadGateway, "bad_gateway")
	_ = ln.Close()
	work.Wait()
	if n := times.Load(); n != 2 {
		t.Errorf("two requests were sent %d times", n)
	}
	w.wantProblem(w.send("POST", order), http.StatusBadGateway, "bad_gateway")
	if r := w.get("GET", "/api/me"); r.status != http.StatusOK {
		t.Errorf("the shop is away with the edge: %v", r)
	}
}

// TestFramings sends requests whose end nginx and a server may see in different places.
func TestFramings(t *testing.T) {
	t.Parallel()
	w := &world{T: t}
	stacktest.FramingsThroughProxy(t, w.serve(front.Edge), "POST /nowhere", "",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		func(behind string) string { return newWorld(t, behind, behind).addr })
}
