package apitest

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/problem"
)

// MaxBodyBytes and MaxHeaderBytes are what edge and shop take.
const (
	MaxBodyBytes   = 16 << 10
	MaxHeaderBytes = 6 << 10
)

// Seen is a request as it came to a server behind a front door.
type Seen struct {
	Server, Method, URI, Forwarded, Body string
}

// Front is a client of a front door, and what the servers behind that see.
type Front struct {
	*testing.T
	Addr string // of the front door

	mu   sync.Mutex
	seen []Seen
}

// Note is called by a server with each request.
func (f *Front) Note(s Seen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, s)
}

// Take returns the requests that came to servers since it was last called.
func (f *Front) Take() []Seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

// Serve starts a server with the limits of the edge, and returns its address. It notes each request before it has it
// answered.
func (f *Front) Serve(name, addr string, answer fasthttp.RequestHandler) string {
	f.Helper()
	server := &fasthttp.Server{
		MaxRequestBodySize: MaxBodyBytes, ReadBufferSize: MaxHeaderBytes, CloseOnShutdown: true,
		MaxIdleWorkerDuration: 50 * time.Millisecond, NoDefaultDate: true, NoDefaultContentType: true, Logger: quiet{},
		Handler: func(ctx *fasthttp.RequestCtx) {
			f.Note(Seen{name, string(ctx.Method()), string(ctx.Request.Header.RequestURI()),
				string(ctx.Request.Header.Peek("X-Forwarded-For")), string(ctx.PostBody())})
			answer(ctx)
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
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		f.Fatal(err)
	}
	go func() { _ = server.Serve(ln) }()
	f.Cleanup(func() { _ = server.Shutdown() })
	return ln.Addr().String()
}

// quiet says nothing.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Send sends a request as it is written here, and reads the answer.
func (f *Front) Send(method, raw string) Reply {
	f.Helper()
	conn, err := net.Dial("tcp", f.Addr)
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { _, _ = io.WriteString(conn, method+" "+raw) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		f.Fatalf("%s %.60q: %v", method, raw, err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		f.Fatalf("%s %.60q: %v", method, raw, err)
	}
	return Reply{Status: response.StatusCode, Header: response.Header, Body: string(body)}
}

// Get sends a request without a body.
func (f *Front) Get(method, uri string, headers ...string) Reply {
	f.Helper()
	return f.Send(method, uri+" HTTP/1.1\r\nHost: x\r\n"+strings.Join(headers, "")+"\r\n")
}

// WantProblem wants a problem document of the front door itself, and returns its detail.
func (f *Front) WantProblem(r Reply, status int, code string) (detail string) {
	f.Helper()
	var document struct {
		Status              int
		Title, Code, Detail string
		RequestID           string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.Body), &document); err != nil || r.Status != status ||
		document.Status != status || document.Code != code || document.Title == "" || len(document.RequestID) != 32 ||
		r.Header.Get(problem.RequestIDHeader) != document.RequestID ||
		r.Header.Get("Content-Type") != problem.MediaType {
		f.Errorf("answered %v, want %d %s: %v", r, status, code, err)
	}
	return document.Detail
}
