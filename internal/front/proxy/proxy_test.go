package proxy

import (
	"bufio"
	"context"
	"encoding/json"
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

	"stampede/internal/front"
	"stampede/localstack/stacktest"
)

// seen is a request as it came to a server.
type seen struct {
	server, method, uri, forwarded, body string
}

// world is a front door with servers behind it: edges with fasthttp and shops with net/http, as the real ones are.
type world struct {
	*testing.T
	addr         string
	edges, shops []string
	proxy        *Proxy
	served       chan error

	mu       sync.Mutex
	requests []seen
}

func newWorld(t *testing.T, edges, shops int) *world {
	t.Helper()
	w := &world{T: t}
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
	w.addr, w.proxy, w.served = ln.Addr().String(), proxy, served
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

func (w *world) note(s seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, s)
}

// take returns the requests that came to servers since it was last called.
func (w *world) take() []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

const maxBodyBytes = 16 << 10

// startEdge starts a server with the edge's limits, and returns its address.
func (w *world) startEdge(name, addr string) string {
	w.Helper()
	server := &fasthttp.Server{
		MaxRequestBodySize: maxBodyBytes, ReadBufferSize: 6 << 10, CloseOnShutdown: true, NoDefaultContentType: true,
		MaxIdleWorkerDuration: 50 * time.Millisecond, NoDefaultDate: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			w.note(seen{name, string(ctx.Method()), string(ctx.Request.Header.RequestURI()),
				string(ctx.Request.Header.Peek("X-Forwarded-For")), string(ctx.PostBody())})
			ctx.Response.Header.Set("Allow", front.Allow(string(ctx.Path())))
			ctx.SetBodyString("<answer of " + name)
		},
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			ctx.SetStatusCode(fasthttp.StatusBadRequest)
			if errors.Is(err, fasthttp.ErrBodyTooLarge) {
				ctx.SetStatusCode(fasthttp.StatusRequestEntityTooLarge)
			} else if _, ok := errors.AsType[*fasthttp.ErrSmallBuffer](err); ok {
				ctx.SetStatusCode(fasthttp.StatusRequestHeaderFieldsTooLarge)
			}
			ctx.SetBodyString("refused by " + name)
		},
	}
	ln := w.listen(addr)
	go func() { _ = server.Serve(ln) }()
	w.Cleanup(func() { _ = server.Shutdown() })
	return ln.Addr().String()
}

// startShop starts a server as net/http makes them, and returns its address.
func (w *world) startShop(name string) string {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBodyBytes))
		if err != nil {
			http.Error(rw, "refused by "+name, http.StatusRequestEntityTooLarge)
			return
		}
		forwarded := strings.Join(r.Header.Values("X-Forwarded-For"), "|")
		w.note(seen{name, r.Method, r.RequestURI, forwarded, string(body)})
		_, _ = io.WriteString(rw, "<answer of "+name)
	}))
	w.Cleanup(server.Close)
	return server.Listener.Addr().String()
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

// get sends a request without a body.
func (w *world) get(method, uri string, headers ...string) reply {
	w.Helper()
	return w.send(method, uri+" HTTP/1.1\r\nHost: x\r\n"+strings.Join(headers, "")+"\r\n")
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
			got := w.get(method, uri)
			requests := w.take()
			if strings.Contains(uri, "%zz?") { // net/http does not take it for a path
				if got.status != http.StatusBadRequest || len(requests) > 0 {
					t.Errorf("%s %s: %d, %v", method, uri, got.status, requests)
				}
				continue
			}
			path, _, _ := strings.Cut(uri, "?")
			want := seen{front.Process(method, path) + "0", method, uri, "127.0.0.1", ""}
			if len(requests) != 1 || requests[0] != want || got.status != http.StatusOK {
				t.Errorf("%s %q: %d, and the servers saw %q, want %q", method, uri, got.status, requests, want)
			}
			if body := "<answer of " + want.server; method != "HEAD" && got.body != body ||
				method == "HEAD" && (got.body != "" || got.header.Get("Content-Length") != fmt.Sprint(len(body))) {
				t.Errorf("%s %s: %q, %v", method, uri, got.body, got.header)
			}
		}
	}
	if r := w.get("GET", "/nowhere"); r.header.Get("Content-Type") != "" {
		t.Errorf("the proxy guesses types: %v", r.header)
	}

	// Forms that are no path.
	w.take()
	for request, want := range map[string]seen{
		"OPTIONS *":                        {"edge0", "OPTIONS", "*", "127.0.0.1", ""},
		"POST http://elsewhere/api/login?": {"shop0", "POST", "/api/login?", "127.0.0.1", ""},
		"GET //api/login":                  {"edge0", "GET", "//api/login", "127.0.0.1", ""},
	} {
		method, uri, _ := strings.Cut(request, " ")
		r := w.get(method, uri)
		if got := w.take(); r.status != http.StatusOK || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %d, and the servers saw %q", request, r.status, got)
		}
	}
}

// TestForwardedFor: the client's address comes after what the client says.
func TestForwardedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	for _, uri := range []string{"/healthz", "/api/me"} {
		w.get("GET", uri, "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n", "X-Forwarded-For: 9.9.9.9\r\n",
			"Connection: X-Forwarded-For\r\n")
		if got := w.take(); len(got) != 1 || got[0].forwarded != "1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1" {
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
		for _, n := range []int{0, 1, maxBodyBytes} {
			body := strings.Repeat("a", n)
			r := w.send("POST", fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", uri, n, body))
			if got := w.take(); r.status != http.StatusOK || len(got) != 1 || got[0].body != body {
				t.Errorf("%s: %d bytes are answered with %d", uri, n, r.status)
			}
		}
		n := maxBodyBytes + 1
		body := strings.Repeat("a", n)
		for name, raw := range map[string]string{
			"a length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, body),
			"a chunk":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, body),
		} {
			r := w.send("POST", uri+" HTTP/1.1\r\nHost: x\r\n"+raw)
			if r.status != http.StatusRequestEntityTooLarge || strings.TrimSpace(r.body) != "refused by "+server {
				t.Errorf("%s, %s: %v", uri, name, r)
			}
		}
	}
	if r := w.get("GET", "/healthz", "X-A: "+strings.Repeat("a", 8<<10)+"\r\n"); r.status != 431 ||
		r.body != "refused by edge0" {
		t.Errorf("large headers: %v", r)
	}
	if r := w.get("GET", "/healthz", "X-A: "+strings.Repeat("a", 64<<10)+"\r\n"); r.status != 431 || len(w.take()) > 0 {
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
			r := w.send("POST", uri+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			if r.status != http.StatusOK {
				t.Errorf("%s: %v", uri, r)
			}
		}
	}
	for _, s := range w.take() {
		count[s.server]++
		if s.body != "{}" {
			t.Errorf("the body came as %q", s.body)
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
	w.wantProblem(w.send("POST", order), "bad_gateway", "It may have seen the request.")
	_ = reading.Close()
	orders.Wait()
	if times != 1 {
		t.Errorf("an order was sent %d times", times)
	}

	w.wantProblem(w.send("POST", order), "bad_gateway", "It cannot be reached, and has not seen the request.")
	if r := w.get("GET", "/api/me"); r.status != http.StatusOK {
		t.Errorf("the shop is away with the edge: %v", r)
	}
	w.startEdge("edge0", w.edges[0])
	if r := w.send("POST", order); r.status != http.StatusOK {
		t.Errorf("the edge is back: %v", r)
	}
}

// wantProblem wants a problem document with status 502.
func (w *world) wantProblem(r reply, code, detail string) {
	w.Helper()
	var document struct {
		Status                  int
		Title, Code, Detail, ID string
		RequestID               string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.body), &document); err != nil || r.status != http.StatusBadGateway ||
		document.Status != r.status || document.Code != code || document.Detail != detail || document.Title == "" ||
		len(document.RequestID) != 32 || r.header.Get("Stampede-Request-Id") != document.RequestID ||
		r.header.Get("Content-Type") != "application/problem+json" {
		w.Errorf("answered %v, %v", r, err)
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

	conn, err := net.Dial("tcp", w.addr)
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

	answered := make(chan reply, 1)
	go func() { answered <- w.get("GET", "/api/me") }()
	<-came
	short, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- w.proxy.Stop(t.Context()) }()
	stacktest.Eventually(t, 10*time.Second, func() error {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			return nil
		}
		_ = conn.Close()
		return errors.New("it still takes connections")
	})
	close(more)
	if r := <-answered; r.status != http.StatusOK {
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
		if r := w.send("POST", "/api/login HTTP/1.1\r\nHost: x\r\n"+raw); r.status != want {
			t.Errorf("%q: %v", raw, r)
		}
	}
}

// TestContinue orders as Java's HTTP client does: it sends the body when it is told to.
func TestContinue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.start()
	stacktest.Continues(t, w.addr, "POST /api/orders", "", "{}")
	stacktest.Continues(t, w.addr, "POST /api/login", "", "{}")
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
					return w.addr
				})
		})
	}
}
