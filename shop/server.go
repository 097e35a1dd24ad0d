package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"stampede/internal/access"
	"stampede/internal/account"
	"stampede/internal/catalog"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/notice"
	"stampede/internal/pager"
	"stampede/internal/password"
	"stampede/internal/problem"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/till"
	"stampede/internal/wallet"
)

const (
	// maxBodyBytes bounds a request body; a product with a long description has some 10 KB.
	maxBodyBytes = 16 << 10
	// maxNoticeBytes bounds a notice of a provider of payments; those of PayPal and Stripe have some thousand bytes.
	maxNoticeBytes = 64 << 10
	// maxHeaderBytes bounds the request line and the headers. To this net/http adds 4 KiB.
	maxHeaderBytes = 2 << 10
	// maxConns bounds the connections of one shop. What comes beyond waits until one ends.
	maxConns = 10_000
	// readTimeout is how long a request may take to arrive.
	readTimeout = 10 * time.Second
	// writeTimeout is how long a request may take from its headers to the end of its answer: to arrive, to be worked,
	// and to be read by the client.
	writeTimeout = readTimeout + workTimeout + 10*time.Second
	// idleTimeout is above the 60 s of common load balancers, which otherwise meet a closed connection.
	idleTimeout = 75 * time.Second
	// workTimeout bounds the work of a request, the wait for a free hasher included.
	workTimeout = 5 * time.Second
	// readyTimeout bounds a readiness check, so that a probe gets an answer before it gives up.
	readyTimeout = 2 * time.Second
)

// Shop is the HTTP service for people: their accounts, and what merchants do with products.
type Shop struct {
	db        *mysql.DB
	redis     *redis.Client
	stock     *stock.Stock
	ledger    *ledger.Ledger
	accounts  *account.Accounts
	catalog   catalog.Catalog
	guard     *access.Guard
	passwords *passwords
	requests  *telemetry.Requests
	till      *till.Till
	wallets   *wallet.Wallets
	cursors   pager.Cursors
	payments  paymentSettings
	notices   notices
	// workTimeout is what the constant of the same name says; tests on a busy machine are more patient.
	workTimeout time.Duration

	server   *http.Server
	draining atomic.Bool
	conns    atomic.Int64
	running  context.Context // ends with the shop's own loops
	endLoops context.CancelFunc
	loops    sync.WaitGroup
}

// New makes a shop of its parts. It closes none of them.
func New(rdb *redis.Client, db *mysql.DB, guard *access.Guard, hasher *password.Hasher,
	reg prometheus.Registerer) *Shop {
	st, books := stock.New(rdb), ledger.New(db)
	s := &Shop{
		db: db, redis: rdb, stock: st, ledger: books, accounts: account.New(db), guard: guard,
		catalog: catalog.Catalog{Stock: st, Ledger: books}, passwords: newPasswords(hasher),
		requests: telemetry.NewRequests(reg), workTimeout: workTimeout,
		till: &till.Till{DB: db}, wallets: wallet.New(db), notices: newNotices(reg),
		cursors: pager.Cursors{Keeper: guard.Tokens},
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stampede_http_connections", Help: "Client connections that are open.",
	}, func() float64 { return float64(s.conns.Load()) }))

	s.running, s.endLoops = context.WithCancel(context.Background())
	s.server = &http.Server{
		Handler: s.routes(), MaxHeaderBytes: maxHeaderBytes,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		// What net/http has to say of a connection may quote what a client sent.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.conns.Add(-1)
			}
		},
	}
	return s
}

// routes is the whole public interface.
func (s *Shop) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.table() {
		mux.Handle(r.pattern, s.begin(r.pattern, r.purpose, r.handle))
	}
	// Whatever no pattern matches, by its path or only by its method.
	other := s.begin("none", access.Aside, s.unrouted)
	mux.Handle("/", other)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would redirect to the path without its dots and empty segments.
		if clean := path.Clean("/" + r.URL.Path); clean != r.URL.Path && clean+"/" != r.URL.Path {
			other.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// handler answers a request, or returns why it is not answered as the client asked for: a *problem.Error, or an error
// that is ours.
type handler func(w http.ResponseWriter, r *http.Request) error

type route struct {
	pattern string
	purpose access.Purpose
	handle  handler
}

// table is all routes.
func (s *Shop) table() []route {
	accounts := func(pattern string, h handler) route {
		return route{pattern, access.API, down(problem.AccountsUnavailable, "", withoutKey(h))}
	}
	products := func(pattern string, h merchantHandler) route {
		return route{pattern, access.API, down(problem.ProductsUnavailable,
			"It is not known whether the change was made. Look, then repeat it.", s.forMerchant(h))}
	}
	payments := func(pattern string, h handler) route {
		return route{pattern, access.API, down(problem.PaymentsUnavailable, "Repeat the request.", h)}
	}
	return []route{
		accounts("POST /api/register", s.forPassword(s.postRegister)),
		accounts("POST /api/login", s.forPassword(s.postLogin)),
		accounts("POST /api/refresh", s.postRefresh),
		accounts("POST /api/logout", s.forUser(s.postLogout)),
		accounts("POST /api/logout-everywhere", s.forUser(s.postLogoutEverywhere)),
		accounts("POST /api/password", s.forPassword(s.forUser(s.postPassword))),
		accounts("GET /api/me", s.forUser(s.getMe)),
		products("POST /api/products", s.postProduct),
		products("PATCH /api/products/{id}", s.patchProduct),
		products("PUT /api/products/{id}/restocks/{restock_id}", s.putRestock),
		payments("POST /api/orders/{id}/payments", withoutKey(s.forUser(s.postPayment))),
		payments("GET /api/orders/{id}/payments", s.forUser(s.getPayments)),
		payments("POST /api/orders/{id}/cancel", withoutKey(s.forUser(s.postCancel))),
		payments("PUT /api/orders/{id}/refunds/{refund_id}", s.forMerchant(s.putRefund)),
		payments("GET /api/wallet", s.forUser(s.getWallet)),
		payments("GET /api/wallet/ledger", s.forUser(s.getWalletLedger)),
		payments("POST /api/wallet/topups", withoutKey(s.forUser(s.postTopUp))),
		{"GET /api/payments/{number}/return", access.Aside, s.getReturn},
		{"POST /webhooks/{provider}", access.Webhook, s.postNotice},
		{"GET /healthz", access.Probe, func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "ok\n")
			return nil
		}},
		{"GET /readyz", access.Probe, s.getReady},
	}
}

// Ready reports what the shop lacks to do its work.
func (s *Shop) Ready(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("the shop is stopping")
	}
	if err := s.db.CheckSchema(ctx); err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	if err := s.redis.Ping(ctx); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// getReady answers whoever asks on the public port; why the shop is not ready is on the admin port only.
func (s *Shop) getReady(w http.ResponseWriter, r *http.Request) error {
	check, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.Ready(check); err != nil {
		return problem.New(problem.NotReady, "")
	}
	_, _ = io.WriteString(w, "ok\n")
	return nil
}

// Serve answers requests from ln until Stop. It is called once.
func (s *Shop) Serve(ln net.Listener) error {
	s.guard.Load(s.running)
	s.loops.Go(func() {
		notice.Listen(s.running, s.redis, func(n notice.Notice) { s.guard.Sessions.End(n.EndedSessions...) })
	})
	s.loops.Go(func() { s.guard.Keep(s.running) })
	if err := s.server.Serve(netutil.LimitListener(ln, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop fails readiness, waits for as long as a load balancer may take to notice, then takes no more connections and
// finishes the requests under way, until ctx ends.
func (s *Shop) Stop(ctx context.Context, notice time.Duration) error {
	s.draining.Store(true)
	select {
	case <-time.After(notice):
	case <-ctx.Done():
	}
	err := s.server.Shutdown(ctx)
	s.endLoops()
	s.loops.Wait()
	return err
}
