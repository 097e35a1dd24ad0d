package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/apitest"
	"stampede/internal/front"
	"stampede/localstack/stacktest"
)

// world is a front door with servers behind it: edges with fasthttp and shops with net/http, as the real ones are.
type world struct {
	*apitest.Front
	edges, shops []string
	proxy        *Proxy
	served       chan error
}

func newWorld(t *testing.T, edges, shops int) *world {
	t.Helper()
	w := &world{Front: &apitest.Front{T: t}}
	for i := range edges {
		w.edges = append(w.edges, w.startEdge(fmt.Sprint(front.Edge, i), "127.0.0.1:0"))
	}
	for i := range shops {
		w.shops = append(w.shops, w.startShop(fmt.Sprint(front.Shop, i)))
	}
	return w
}

// start starts a front door, which the functions below then ask.
func (w *world) start(tune ...func(*Proxy)) {
	w.Helper()
	ln := w.listen("127.0.0.1:0")
	proxy, served := New(w.edges, w.shops), make(chan error, 1)
	for _, change := range tune {
		change(proxy)
	}
	w.Addr, w.proxy, w.served = ln.Addr().String(), proxy, served
	go func() { served <- proxy.Serve(ln) }()
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := proxy.Stop(ctx); err != nil {
			w.Error(err)
		}
	})
}

func (w *world) listen(addr string) net.Listener {
	w.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		w.Fatal(err)
	}
	return ln
}

// startEdge starts a server with the edge's limits, and returns its address.
func (w *world) startEdge(name, addr string) string {
	w.Helper()
	return w.Serve(name, addr, func(ctx *fasthttp.RequestCtx) {
		ctx.Response.Header.Set("Allow", front.Allow(string(ctx.Path())))
		ctx.SetBodyString("<answer of " + name)
	})
}

// startShop starts a server as net/http makes them, and returns its address.
func (w *world) startShop(name string) string {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, apitest.MaxBodyBytes))
		if err != nil {
			http.Error(rw, "refused by "+name, http.StatusRequestEntityTooLarge)
			return
		}
		forwarded := strings.Join(r.Header.Values("X-Forwarded-For"), "|")
		w.Note(apitest.Seen{Server: name, Method: r.Method, URI: r.RequestURI, Forwarded: forwarded,
			Body: string(body)})
		_, _ = io.WriteString(rw, "<answer of "+name)
	}))
	w.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestEachToItsOwn sends requests of all kinds, and wants each to reach the process of the table as it was written.
func TestEachToItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	paths := []string{
		"/", "/nowhere", "/api/login/", "/api/%6Cogin", "/api/%2e%2e/login", "/api/../api/login", "/api//login",
		"/api/login%2F", "/api/login%00", "/api/login;a=b", `/api/orders/"<>`, "/api/orders/\xff\xfe",
		"/api/orders/%zz?", "/api/products/%2F", "/api/products/a%2Fb/restocks/c%3Fd", "/api/products/1/restocks/",
		"/api/me?", "/api/me??a",
		"/api/me?a=1;b=%zz&c", "/api/products?cursor=a+b%20c",
	}
	for _, r := range front.Routes {
		paths = append(paths, strings.NewReplacer("{", "", "}", "").Replace(r.Pattern))
	}
	for _, uri := range paths {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "BREW"} {
			got := w.Get(method, uri)
			requests := w.Take()
			if strings.Contains(uri, "%zz?") { // net/http does not take it for a path
				if got.Status != http.StatusBadRequest || len(requests) > 0 {
					t.Errorf("%s %s: %d, %v", method, uri, got.Status, requests)
				}
				continue
			}
			path, _, _ := strings.Cut(uri, "?")
			want := apitest.Seen{Server: front.Process(method, path) + "0", Method: method, URI: uri,
				Forwarded: "127.0.0.1"}
			if len(requests) != 1 || requests[0] != want || got.Status != http.StatusOK {
				t.Errorf("%s %q: %d, and the servers saw %q, want %q", method, uri, got.Status, requests, want)
			}
			if body := "<answer of " + want.Server; method != "HEAD" && got.Body != body ||
				method == "HEAD" && (got.Body != "" || got.Header.Get("Content-Length") != fmt.Sprint(len(body))) {
				t.Errorf("%s %s: %q, %v", method, uri, got.Body, got.Header)
			}
		}
	}
	if r := w.Get("GET", "/nowhere"); r.Header.Get("Content-Type") != "" {
		t.Errorf("the proxy guesses types: %v", r.Header)
	}

	// Forms that are no path.
	w.Take()
	for request, want := range map[string]apitest.Seen{
		"OPTIONS *": {Server: "edge0", Method: "OPTIONS", URI: "*", Forwarded: "127.0.0.1"},
		"POST http://elsewhere/api/login?": {Server: "shop0", Method: "POST", URI: "/api/login?",
			Forwarded: "127.0.0.1"},
		"GET //api/login": {Server: "edge0", Method: "GET", URI: "//api/login",
			Forwarded: "127.0.0.1"},
	} {
		method, uri, _ := strings.Cut(request, " ")
		r := w.Get(method, uri)
		if got := w.Take(); r.Status != http.StatusOK || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %d, and the servers saw %q", request, r.Status, got)
		}
	}
}

// TestForwardedFor: the client's address comes after what the client says.
func TestForwardedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	for _, uri := range []string{"/healthz", "/api/me"} {
		w.Get("GET", uri, "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n", "X-Forwarded-For: 9.9.9.9\r\n",
			"Connection: X-Forwarded-For\r\n")
		if got := w.Take(); len(got) != 1 || got[0].Forwarded != "1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1" {
			t.Errorf("%s: %q", uri, got)
		}
	}
}

// TestTooLarge: the servers refuse what is too large, and not the proxy; there is a bound to what it passes on.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	for uri, server := range map[string]string{"/api/orders": "edge0", "/api/login": "shop0"} {
		for _, n := range []int{0, 1, apitest.MaxBodyBytes} {
			body := strings.Repeat("a", n)
			r := w.Send("POST", fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", uri, n, body))
			if got := w.Take(); r.Status != http.StatusOK || len(got) != 1 || got[0].Body != body {
				t.Errorf("%s: %d bytes are answered with %d", uri, n, r.Status)
			}
		}
		n := apitest.MaxBodyBytes + 1
		body := strings.Repeat("a", n)
		for name, raw := range map[string]string{
			"a length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, body),
			"a chunk":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, body),
		} {
			r := w.Send("POST", uri+" HTTP/1.1\r\nHost: x\r\n"+raw)
			if r.Status != http.StatusRequestEntityTooLarge || strings.TrimSpace(r.Body) != "refused by "+server {
				t.Errorf("%s, %s: %v", uri, name, r)
			}
		}
	}
	if r := w.Get("GET", "/healthz", "X-A: "+strings.Repeat("a", 8<<10)+"\r\n"); r.Status != 431 ||
		r.Body != "refused by edge0" {
		t.Errorf("large headers: %v", r)
	}
	if r := w.Get("GET", "/healthz", "X-A: "+strings.Repeat("a", 64<<10)+"\r\n"); r.Status != 431 || len(w.Take()) > 0 {
		t.Errorf("larger headers: %v", r)
	}
}

// TestTurns: servers of a process are asked in turn, and those that are away are passed over.
func TestTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	gone := w.listen("127.0.0.1:0")
	w.edges = slices.Insert(w.edges, 1, gone.Addr().String())
	_ = gone.Close()
	w.start()

	count := map[string]int{}
	for range 30 {
		for _, uri := range []string{"/api/orders", "/api/login"} {
			r := w.Send("POST", uri+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			if r.Status != http.StatusOK {
				t.Errorf("%s: %v", uri, r)
			}
		}
	}
	for _, s := range w.Take() {
		count[s.Server]++
		if s.Body != "{}" {
			t.Errorf("the body came as %q", s.Body)
		}
	}
	if count["edge0"]+count["edge1"] != 30 || min(count["edge0"], count["edge1"]) < 10 || count["shop0"] != 15 {
		t.Errorf("the requests went to %v", count)
	}
}

// TestAway: a process that is away, or ends while it is asked, is a problem document of its own, the other goes on, and
// no request is sent twice.
func TestAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, 1)
	reading := w.listen("127.0.0.1:0") // reads a request, and ends
	var orders sync.WaitGroup
	times := 0
	orders.Go(func() {
		for {
			conn, err := reading.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				times++
			}
			_ = conn.Close()
		}
	})
	w.edges = []string{reading.Addr().String()}
	w.start()
	order := "/api/orders HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"
	w.wantProblem(w.Send("POST", order), "bad_gateway", "It may have seen the request.")
	_ = reading.Close()
	orders.Wait()
	if times != 1 {
		t.Errorf("an order was sent %d times", times)
	}

	w.wantProblem(w.Send("POST", order), "bad_gateway", "It cannot be reached, and has not seen the request.")
	if r := w.Get("GET", "/api/me"); r.Status != http.StatusOK {
		t.Errorf("the shop is away with the edge: %v", r)
	}
	w.startEdge("edge0", w.edges[0])
	if r := w.Send("POST", order); r.Status != http.StatusOK {
		t.Errorf("the edge is back: %v", r)
	}
}

// wantProblem wants a problem document with status 502.
func (w *world) wantProblem(r apitest.Reply, code, detail string) {
	w.Helper()
	if got := w.WantProblem(r, http.StatusBadGateway, code); got != detail {
		w.Errorf("the detail is %q, want %q", got, detail)
	}
}

// TestStream: what a server says goes on at once, and its end is the end.
func TestStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, 0)
	more := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "one")
		_ = http.NewResponseController(rw).Flush()
		<-more
		_, _ = io.WriteString(rw, "two")
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	w.shops = []string{server.Listener.Addr().String()}
	w.start()

	conn, err := net.Dial("tcp", w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(conn, "GET /api/me HTTP/1.1\r\nHost: x\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	part := make([]byte, 3)
	if _, err := io.ReadFull(response.Body, part); err != nil || string(part) != "one" {
		t.Fatalf("%q, %v", part, err)
	}
	close(more)
	if rest, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("an answer that broke off looks whole: %q", rest)
	}
}

// TestStop: a stop waits for requests under way, and takes no others.
func TestStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, 0)
	came, more := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		close(came)
		<-more
	}))
	t.Cleanup(server.Close)
	w.shops = []string{server.Listener.Addr().String()}
	w.start()

	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Get("GET", "/api/me") }()
	<-came
	short, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- w.proxy.Stop(t.Context()) }()
	stacktest.Eventually(t, 10*time.Second, func() error {
		conn, err := net.Dial("tcp", w.Addr)
		if err != nil {
			return nil
		}
		_ = conn.Close()
		return errors.New("it still takes connections")
	})
	close(more)
	if r := <-answered; r.Status != http.StatusOK {
		t.Errorf("the request under way is answered with %v", r)
	}
	if err := errors.Join(<-stopped, <-w.served); err != nil {
		t.Error(err)
	}
	if err := w.proxy.Stop(short); err != nil {
		t.Errorf("the second stop: %v", err)
	}
}

// TestUnreadable: a client that does not send its whole request is told so, and so is one whose request cannot be read.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start(func(p *Proxy) { p.server.ReadTimeout = 300 * time.Millisecond })
	for raw, want := range map[string]int{
		"Content-Length: 2\r\n\r\n{":                http.StatusRequestTimeout,
		"Transfer-Encoding: chunked\r\n\r\nzz\r\n{": http.StatusBadRequest,
	} {
		if r := w.Send("POST", "/api/login HTTP/1.1\r\nHost: x\r\n"+raw); r.Status != want {
			t.Errorf("%q: %v", raw, r)
		}
	}
}

// TestContinue orders as Java's HTTP client does: it sends the body when it is told to.
func TestContinue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	stacktest.Continues(t, w.Addr, "POST /api/orders", "", "{}")
	stacktest.Continues(t, w.Addr, "POST /api/login", "", "{}")
}

// TestFramings sends requests whose end the proxy and a server may see in different places.
func TestFramings(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{"edge": "POST /nowhere", "shop": "POST /api/login"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, 1)
			addr, next := w.edges[0], "GET /healthz"
			if name == front.Shop {
				addr, next = w.shops[0], "GET /api/me"
			}
			stacktest.FramingsThroughProxy(t, addr, line, "",
				next+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", func(behind string) string {
					w.edges, w.shops = []string{behind}, []string{behind}
					w.start()
					return w.Addr
				})
		})
	}
}
