package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/valyala/fasthttp"

	"stampede/internal/apitest"
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

// world is an nginx in front of two servers.
type world struct{ *apitest.Front }

// newWorld starts nginx with the file that containers get, but for addresses and directories.
func newWorld(t *testing.T, edge, shop string) *world {
	t.Helper()
	w := &world{&apitest.Front{T: t}}
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
	w.Addr = fmt.Sprintf("127.0.0.1:%d", port)

	content, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir, config := t.TempDir(), string(content)
	for _, change := range [][2]string{
		{"server edge:8080;", "server " + edge + ";"}, {"server shop:8080;", "server " + shop + ";"},
		{"listen 8080;", "listen " + w.Addr + ";"}, {" /tmp/", " " + dir + "/"},
		{"/dev/stderr", filepath.Join(dir, "error.log")},
	} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the configuration has no %s", change[0])
		}
		config = strings.ReplaceAll(config, change[0], change[1])
	}
	stacktest.StartNginx(t, dir, w.Addr, config)
	return w
}

// serve starts a server with the limits of edge and shop, and returns its address.
func (w *world) serve(name string) string {
	w.Helper()
	return w.Serve(name, "127.0.0.1:0", func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("answer of " + name) })
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
			got := w.Get(method, uri)
			path, _, _ := strings.Cut(uri, "?")
			want := apitest.Seen{Server: front.Process(method, path), Method: method, URI: uri, Forwarded: "127.0.0.1"}
			if requests := w.Take(); len(requests) != 1 || requests[0] != want || got.Status != http.StatusOK {
				t.Errorf("%s %q: %d, and the servers saw %q, want %q", method, uri, got.Status, requests, want)
			}
		}
	}

	// An absolute address is one, and what the client says of itself comes before its address.
	w.Get("POST", "http://elsewhere/api/login?a", "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n")
	want := apitest.Seen{Server: front.Shop, Method: "POST", URI: "/api/login?a",
		Forwarded: "1.2.3.4, 5.6.7.8, 127.0.0.1"}
	if got := w.Take(); len(got) != 1 || got[0] != want {
		t.Errorf("the servers saw %q, want %q", got, want)
	}

	// nginx takes none of these for a request.
	for uri, status := range map[string]int{"/../api/login": 400, "/api/login%00": 400, "*": 400, "/%zz": 400} {
		r := w.Get("OPTIONS", uri)
		w.WantProblem(r, status, "malformed_request")
	}
	w.WantProblem(w.Get("TRACE", "/api/login"), 405, "method_not_allowed")
	w.WantProblem(w.Get("POST", "/nginx-problem"), 404, "not_found")
	if got := w.Take(); len(got) > 0 {
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
				r := w.Send("POST", uri+" HTTP/1.1\r\nHost: x\r\n"+raw)
				if r.Status != want || !strings.HasSuffix(r.Body, " "+server) {
					t.Errorf("%s, %d bytes in %s: %v", uri, n, name, r)
				}
			}
		}
		n := 1 << 20
		w.Take()
		w.WantProblem(w.Send("POST", fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", uri, n,
			strings.Repeat("a", n))), http.StatusRequestEntityTooLarge, "body_too_large")
		r := w.Get("GET", uri, "X-A: "+strings.Repeat("a", 8<<10)+"\r\n")
		if r.Status != http.StatusRequestHeaderFieldsTooLarge || r.Body != "refused by "+server {
			t.Errorf("%s with large headers: %v", uri, r)
		}
		w.WantProblem(w.Get("GET", uri, "X-A: "+strings.Repeat("a", 20<<10)+"\r\n"), 431, "headers_too_large")
		w.WantProblem(w.Get("GET", uri+"?"+strings.Repeat("a", 20<<10)), 431, "headers_too_large")
		if got := w.Take(); len(got) > 0 {
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
	w.WantProblem(w.Send("POST", order), http.StatusBadGateway, "bad_gateway")
	if n := times.Load(); n != 1 {
		t.Errorf("an order was sent %d times", n)
	}
	w.WantProblem(w.Get("GET", "/api/orders"), http.StatusBadGateway, "bad_gateway")
	_ = ln.Close()
	work.Wait()
	if n := times.Load(); n != 2 {
		t.Errorf("two requests were sent %d times", n)
	}
	w.WantProblem(w.Send("POST", order), http.StatusBadGateway, "bad_gateway")
	if r := w.Get("GET", "/api/me"); r.Status != http.StatusOK {
		t.Errorf("the shop is away with the edge: %v", r)
	}
}

// TestFramings sends requests whose end nginx and a server may see in different places.
func TestFramings(t *testing.T) {
	t.Parallel()
	w := &world{&apitest.Front{T: t}}
	stacktest.FramingsThroughProxy(t, w.serve(front.Edge), "POST /nowhere", "",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		func(behind string) string { return newWorld(t, behind, behind).Addr })
}
