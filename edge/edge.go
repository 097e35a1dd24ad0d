package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/access"
	"stampede/internal/catalog"
	"stampede/internal/framing"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/token"
)

const (
	// maxBodyBytes bounds a request body; an order has some 40 bytes.
	maxBodyBytes = 16 << 10
	// maxHeaderBytes bounds the request line and the headers. Each connection has a buffer of this size, also while it
	// is idle: with 10,000 of them, every KiB is 10 MB.
	maxHeaderBytes = 6 << 10
	// writeBufferBytes takes an answer about an order with its headers. Longer ones cost a second write.
	writeBufferBytes = 1 << 10
	// maxConns bounds the connections of one edge.
	maxConns = 50_000
	// readTimeout is how long a request may take to arrive.
	readTimeout = 10 * time.Second
	// writeTimeout is how long a client may take to read its answer.
	writeTimeout = 10 * time.Second
	// idleTimeout is above the 60 s of common load balancers, which otherwise meet a closed connection.
	idleTimeout = 75 * time.Second
	// lookupTimeout bounds what a request reads from Redis and MySQL to be answered.
	lookupTimeout = 5 * time.Second
	// readyTimeout bounds a readiness check, so that a probe gets an answer before it gives up.
	readyTimeout = 2 * time.Second
)

// Edge is the HTTP service.
type Edge struct {
	stock  *stock.Stock
	ledger *ledger.Ledger
	guard  *access.Guard

	closed   *closed
	reserver *reserver
	sender   *sender
	watcher  *watcher
	catalog  catalog.Catalog
	metrics  *metrics

	products     *cache[int64, order.Product]
	productPages *cache[int64, []order.Product]

	server   *fasthttp.Server
	draining atomic.Bool
	mu       sync.Mutex
	ln       net.Listener    // set while it serves, guarded by mu
	running  context.Context // ends with the edge's own loops
	endLoops context.CancelFunc
	loops    sync.WaitGroup
	endWaits sync.Once
}

// New makes an edge of its parts. It closes none of them.
func New(st *stock.Stock, db *mysql.DB, q *queue.Queue, guard *access.Guard, reg prometheus.Registerer) *Edge {
	m := newMetrics(reg)
	books := ledger.New(db)
	c := catalog.Catalog{Stock: st, Ledger: books}
	e := &Edge{
		stock: st, ledger: books, guard: guard, catalog: c, metrics: m,
		products: newCache(c.Product, productBytes), productPages: newCache(c.OnSale, pageBytes), closed: newClosed(),
		sender:  newSender(st, q, m),
		watcher: &watcher{stock: st, stop: make(chan struct{}), waiting: map[uuid.UUID][]chan *order.Record{}},
	}
	e.reserver = newReserver(st, books, e.products, e.closed, e.sender, m)
	e.running, e.endLoops = context.WithCancel(context.Background())
	e.server = &fasthttp.Server{
		Handler: e.begin(e.routes(m).Handler, m),
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			nameRequest(ctx)
			m.measure("none", func(ctx *fasthttp.RequestCtx) { sendReadError(ctx, err) })(ctx)
			e.finish(ctx)
		},
		Name: "stampede", MaxRequestBodySize: maxBodyBytes, ReadBufferSize: maxHeaderBytes,
		WriteBufferSize: writeBufferBytes,
		ReadTimeout:     readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		Concurrency: maxConns, CloseOnShutdown: true,
		DisablePreParseMultipartForm: true, // no form is taken, so none is worth reading
		Logger:                       quietLogger{},
	}
	e.watch(reg)
	return e
}

// routes is the whole public interface.
func (e *Edge) routes(m *metrics) *router.Router {
	r := router.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	r.SaveMatchedRoutePath = false
	unrouted := m.measure("none", e.admit(access.Aside, e.unrouted))
	r.NotFound, r.MethodNotAllowed, r.GlobalOPTIONS = unrouted, unrouted, unrouted
	handle := func(method, path string, h fasthttp.RequestHandler) {
		switch {
		case strings.HasPrefix(path, "/api/"):
			h = e.admit(access.API, h)
		case path == "/healthz" || path == "/readyz":
			h = e.admit(access.Probe, h)
		default:
			h = e.admit(access.Aside, h)
		}
		h = m.measure(method+" "+path, traced(method+" "+path, survive(h)))
		r.Handle(method, path, h)
		if method == fasthttp.MethodGet {
			r.Handle(fasthttp.MethodHead, path, h) // fasthttp leaves the body out
		}
	}
	handle("POST", "/api/orders", e.forUser(e.postOrder))
	handle("GET", "/api/orders", e.forUser(e.listOrders))
	handle("GET", "/api/orders/{id}", e.forUser(e.getOrder))
	handle("GET", "/api/products", e.listProducts)
	handle("GET", "/api/products/{id}", e.getProduct)
	handle("GET", "/healthz", func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("ok\n") })
	handle("GET", "/readyz", e.getReady)
	handle("GET", "/openapi.yaml", getOpenAPI)
	handle("GET", "/docs", getDocs)
	return r
}

// errAmbiguous is the error of a request whose end a proxy may see elsewhere.
var errAmbiguous = errors.New("it is ambiguous where the request ends")

// begin names each request, and sees that its answer has what every answer has. It refuses what fasthttp reads although
// its end is ambiguous, and closes the connection: what follows on it may be a request that a client has slipped past a
// proxy.
func (e *Edge) begin(next fasthttp.RequestHandler, m *metrics) fasthttp.RequestHandler {
	refuse := m.measure("none", func(ctx *fasthttp.RequestCtx) {
		sendReadError(ctx, errAmbiguous)
		ctx.SetConnectionClose()
	})
	return func(ctx *fasthttp.RequestCtx) {
		nameRequest(ctx)
		if framing.Ambiguous(ctx.Request.Header.RawHeaders()) {
			refuse(ctx)
		} else {
			next(ctx)
		}
		e.finish(ctx)
	}
}

// survive answers for a handler that panics, which fasthttp by itself would not survive.
func survive(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		defer func() {
			if v := recover(); v != nil {
				kind, stack := telemetry.PanicKind(v), debug.Stack()
				if err, ok := v.(error); ok {
					if p, ok := errors.AsType[*loadPanic](err); ok {
						kind, stack = telemetry.PanicKind(p.value), p.stack
					}
				}
				slog.Error("a handler panicked", logID(ctx), "panic", kind, "stack", string(stack))
				sendProblem(ctx, problem.InternalError, "")
			}
		}()
		next(ctx)
	}
}

// header is the header of an answer, as a guard writes to it.
type header struct{ *fasthttp.ResponseHeader }

func (h header) Get(name string) string { return string(h.Peek(name)) }

// admit lets requests through whose client is not banned and does not ask too often.
func (e *Edge) admit(purpose access.Purpose, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if e.screen(ctx, purpose) {
			next(ctx)
		}
	}
}

// screen reports whether a client may ask. If not, it answers the request.
func (e *Edge) screen(ctx *fasthttp.RequestCtx, purpose access.Purpose) bool {
	lines := func(field string) (lines []string) {
		for _, line := range ctx.Request.Header.PeekAll(field) {
			lines = append(lines, string(line))
		}
		return lines
	}
	if err := e.guard.Screen(header{&ctx.Response.Header}, access.AddrOf(ctx.RemoteAddr()), lines,
		purpose); err != nil {
		sendError(ctx, err)
		return false
	}
	return true
}

// forUser lets only requests with a valid token through, and tells the handler whose it is.
func (e *Edge) forUser(next func(*fasthttp.RequestCtx, *token.Claims)) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		who, err := e.guard.User(header{&ctx.Response.Header}, ctx.Request.Header.Peek(fasthttp.HeaderAuthorization))
		if err != nil {
			sendError(ctx, err)
			return
		}
		next(ctx, who)
	}
}

// Ready tells whether the edge can take orders. MySQL is not asked: orders are taken without it for as
// long as the stock that is loaded lasts.
func (e *Edge) Ready(ctx context.Context) error {
	if e.draining.Load() {
		return errors.New("the edge is stopping")
	}
	if err := e.stock.Ping(ctx); err != nil {
		return fmt.Errorf("no answer from Redis: %w", err)
	}
	return nil
}

// getReady answers whoever asks on the public port; why the edge is not ready is on the admin port only.
func (e *Edge) getReady(ctx *fasthttp.RequestCtx) {
	check, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := e.Ready(check); err != nil {
		sendProblem(ctx, problem.NotReady, "")
		return
	}
	ctx.SetBodyString("ok\n")
}

// Serve answers requests from ln until Stop. It is called once.
func (e *Edge) Serve(ln net.Listener) error {
	e.guard.Load(e.running)
	ln = newListener(ln)
	e.mu.Lock()
	if e.draining.Load() { // stopped before it has begun
		e.mu.Unlock()
		return ln.Close()
	}
	e.ln = ln
	e.loops.Go(func() { e.stock.Listen(e.running, e.hear) })
	e.loops.Go(func() { e.guard.KeepSessions(e.running) })
	e.loops.Go(func() { e.guard.KeepBans(e.running) })
	e.mu.Unlock()
	return e.server.Serve(ln)
}

// hear takes in what Redis tells all edges at once.
func (e *Edge) hear(n stock.Notice) {
	e.guard.Sessions.End(n.EndedSessions...)
	e.closed.reopen(n.Reopened...)
}

// Stop fails readiness, waits for as long as a load balancer may take to notice, then takes no more
// connections and finishes the requests under way, until ctx ends. It may be called again.
func (e *Edge) Stop(ctx context.Context, notice time.Duration) error {
	e.mu.Lock()
	e.draining.Store(true)
	ln := e.ln
	e.mu.Unlock()
	select {
	case <-time.After(notice):
	case <-ctx.Done():
	}
	e.endWaits.Do(func() { close(e.watcher.stop) })
	if ln != nil {
		_ = ln.Close() // the server does not know it yet if Serve has only just begun
	}
	err := e.server.ShutdownWithContext(ctx)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	finished := make(chan struct{})
	go func() {
		e.reserver.tickets.Wait()
		e.sender.parcels.Wait()
		e.watcher.loop.Wait()
		e.endLoops()
		e.loops.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		err = errors.Join(err, errors.New("orders under way were left to the outbox relay"))
	}
	return err
}

// sendJSON answers with a value as JSON.
func sendJSON(ctx *fasthttp.RequestCtx, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("edge: encode answer: %v", err))
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}

// sendReadError answers a request that could not be read, or not to its end.
func sendReadError(ctx *fasthttp.RequestCtx, err error) {
	if c, ok := ctx.Conn().(*conn); ok {
		c.unread.Store(true)
	}
	switch kind := readErrorKind(err); kind {
	case problem.BodyTooLarge:
		sendProblem(ctx, kind, fmt.Sprintf("A body may have %d bytes.", maxBodyBytes))
	case problem.HeadersTooLarge:
		sendProblem(ctx, kind, fmt.Sprintf("Request line and headers may have %d bytes.", maxHeaderBytes))
	case problem.RequestTimeout:
		sendProblem(ctx, kind, "")
	default:
		sendProblem(ctx, kind, "This is not a valid HTTP request.")
	}
}

// readErrorKind says in a word of ours why a request could not be read.
func readErrorKind(err error) problem.Code {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return problem.BodyTooLarge
	case errors.As(err, &small):
		return problem.HeadersTooLarge
	case errors.As(err, &network) && network.Timeout():
		return problem.RequestTimeout
	default:
		return problem.MalformedRequest
	}
}

// quietLogger logs that fasthttp had trouble with a connection, and of which kind. Its own text quotes what the client
// sent, secrets included, and is dropped; bad input is not our failure.
type quietLogger struct{}

func (quietLogger) Printf(_ string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			slog.Debug("a connection ended early", "kind", readErrorKind(err))
			return
		}
	}
	slog.Debug("a connection was not served")
}
