package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/access"
	"stampede/internal/catalog"
	"stampede/internal/ledger"
	"stampede/internal/loop"
	"stampede/internal/mysql"
	"stampede/internal/notice"
	"stampede/internal/order"
	"stampede/internal/pager"
	"stampede/internal/problem"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
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
	redis  *redis.Client
	stock  *stock.Stock
	ledger *ledger.Ledger
	guard  *access.Guard

	refusalCache *refusalCache
	reserver     *reserver
	sender       *sender
	finder       *finder
	upgrade      upgrade
	watcher      *watcher
	catalog      catalog.Catalog
	cursors      pager.Cursors
	metrics      *metrics

	products     *cache[order.ProductID, order.Product]
	productPages *cache[order.ProductID, []order.Product]

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
func New(rdb *redis.Client, db *mysql.DB, q *queue.Queue, guard *access.Guard, reg prometheus.Registerer) *Edge {
	m := newMetrics(reg)
	st, books := stock.New(rdb), ledger.New(db)
	c := catalog.Catalog{Stock: st, Ledger: books}
	e := &Edge{
		redis: rdb, stock: st, ledger: books, guard: guard, catalog: c, metrics: m,
		cursors:  pager.Cursors{Keeper: guard.Tokens},
		products: newCache(c.Product, productBytes), productPages: newCache(c.OnSale, pageBytes),
		refusalCache: newRefusalCache(),
		sender:       newSender(st, q, m),
	}
	e.reserver = newReserver(st, books, e.products, e.refusalCache, e.sender, m)
	e.upgrade.redis, e.upgrade.stock = rdb, st
	e.upgrade.workers.Store(-1)
	e.finder = newFinder(st, books, e.reserver)
	e.watcher = &watcher{
		stock: st, finder: e.finder, stop: make(chan struct{}), waiting: make(map[order.OrderID]*watch),
	}
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

// Ready reports whether the edge can take orders. MySQL is not asked: orders are taken without it for as
// long as the stock that is loaded lasts.
func (e *Edge) Ready(ctx context.Context) error {
	if e.draining.Load() {
		return errors.New("the edge is stopping")
	}
	if err := e.redis.Ping(ctx); err != nil {
		return fmt.Errorf("no answer from Redis: %w", err)
	}
	return e.upgrade.ready()
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
	e.upgrade.look(e.running)

	ln = newListener(ln)
	e.mu.Lock()
	if e.draining.Load() { // stopped before it has begun
		e.mu.Unlock()
		return ln.Close()
	}
	e.ln = ln
	e.loops.Go(func() { notice.Listen(e.running, e.redis, e.hear) })
	e.loops.Go(func() { e.guard.Keep(e.running) })
	e.loops.Go(func() { loop.Every(e.running, upgradeInterval, e.upgrade.look) })
	e.mu.Unlock()
	return e.server.Serve(ln)
}

// hear takes in what Redis tells all edges at once.
func (e *Edge) hear(n notice.Notice) {
	e.guard.Sessions.End(n.EndedSessions...)
	e.refusalCache.reopen(n.Reopened...)
}

// Stop fails readiness, waits for as long as a load balancer may take to notice, then takes no more
// connections and finishes the requests under way, until ctx ends. It may be called again.
func (e *Edge) Stop(ctx context.Context, notice time.Duration) error {
	e.mu.Lock()
	e.draining.Store(true)
	ln := e.ln
	e.mu.Unlock()

	// Load balancers take their time to send no more.
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

	// What these requests have begun comes to its end, in the order in which one leads to the next.
	finished := make(chan struct{})
	go func() {
		e.reserver.tickets.Wait()
		e.sender.parcels.Wait()
		e.sender.acks.Wait()
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
