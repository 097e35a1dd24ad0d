// Package pay is a server in this process that speaks the protocols of four providers of payments, with real
// signatures: ECPay, PayPal, Alipay and Stripe, each under its own path, and Stripe under none as well. A client needs
// nothing changed but its host. No money moves.
//
// It plays the buyer too: on pages for a browser, and under /admin for programs. It keeps its own books of each payment
// that it took and each refund that it made, so that a checker can compare them with the shop's. See Faults for what a
// real provider may do on a bad day. Where a provider leaves something to chance, this one does what is harder on its
// clients.
//
// It talks to loopback only, and whoever can reach it may do everything.
package pay

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// The providers, as in paths and in the books.
const (
	ECPay  = "ecpay"
	PayPal = "paypal"
	Alipay = "alipay"
	Stripe = "stripe"
)

const (
	maxBodyBytes   = 64 << 10
	maxHeaderBytes = 32 << 10
	maxConnections = 1024
	headerTimeout  = 10 * time.Second
	idleTimeout    = time.Minute
)

// Options says how to start a Server. The zero value is ready to use.
type Options struct {
	// Addr is the loopback address to listen on; empty means 127.0.0.1 and any free port.
	Addr string
	// Merchant is the name that buyers see on the pages.
	Merchant string
	// Webhooks are the addresses to which PayPal and Stripe post their notices, by provider. The other two are told
	// with each attempt. See SetWebhook.
	Webhooks map[string]string
	// Pauses are the times between two tries of a notice that is not acknowledged. After the last one it is given up.
	// Nil means pauses from 0.2 to 10 seconds.
	Pauses []time.Duration
	// NoticeTimeout is how long an acknowledgement may take; 0 means 10 seconds, as with ECPay.
	NoticeTimeout time.Duration
	// Faults are there from the start.
	Faults Faults
}

// Server is a running stand-in. All its methods may be called at any time and from any goroutine.
type Server struct {
	merchant  string
	addr      string // the same after Kill and Start; set once, before the first request
	keys      *keys
	books     *books
	faults    *injector
	notices   *sender
	protocols map[string]protocol

	mu       sync.Mutex // guards what follows, and that no request begins after the end
	webhooks map[string]string
	tokens   []string // of PayPal's API, the newest last

	life    sync.Mutex // guards starting and ending, and what follows
	http    *http.Server
	end     context.CancelFunc
	serving sync.WaitGroup
	closed  bool
}

// protocol is a provider as the server knows it. Its methods but trouble and acknowledged are called with the books
// locked.
type protocol interface {
	// routes adds what the provider answers.
	routes(mux *http.ServeMux)
	// pay does what follows when the buyer pays an attempt that is open, and returns what the provider tells of it.
	pay(a *attempt) []*notice
	// lapse is pay for an attempt that has just been closed by the provider itself.
	lapse(a *attempt) []*notice
	// forged is a notice of a payment, which was signed by somebody else.
	forged(a *attempt) *notice
	// back is where the buyer is sent back to, or empty.
	back(a *attempt, cancelled bool) string
	// trouble is an answer that tells nothing.
	trouble(operation string) answer
	// acknowledged reports whether an answer to a notice takes it.
	acknowledged(status int, body string) bool
}

// Start begins to listen and serve. The caller must Close the server.
func Start(o Options) (*Server, error) {
	addr, err := netip.ParseAddrPort(cmp.Or(o.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("pay: address %q must be an IP address and a port: %w", o.Addr, err)
	}
	if !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("pay: address %q is not on loopback, and this server does not check who calls it",
			o.Addr)
	}
	made, err := processKeys()
	if err != nil {
		return nil, fmt.Errorf("pay: make keys: %w", err)
	}
	s := &Server{
		merchant: cmp.Or(o.Merchant, "Stampede"), addr: addr.String(), keys: made, books: newBooks(),
		faults: &injector{}, webhooks: map[string]string{},
	}
	s.protocols = map[string]protocol{ECPay: ecpay{s}, PayPal: paypal{s}, Alipay: alipay{s}, Stripe: stripe{s}}
	s.notices = newSender(s, o)
	for provider, address := range o.Webhooks {
		if err := s.SetWebhook(provider, address); err != nil {
			return nil, err
		}
	}
	if err := s.SetFaults(o.Faults); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Start serves again after Kill, on the same port and with the same books. It does nothing if the server runs.
func (s *Server) Start() error {
	s.life.Lock()
	defer s.life.Unlock()
	switch {
	case s.closed:
		return fmt.Errorf("pay: start: it was closed")
	case s.http != nil:
		return nil
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("pay: %w", err)
	}
	if s.addr != listener.Addr().String() { // at the first start, with any port
		s.addr = listener.Addr().String()
	}

	ctx, end := context.WithCancel(context.Background())
	s.end = end
	s.http = &http.Server{
		Handler: s.handler(ctx), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		BaseContext:    func(net.Listener) context.Context { return ctx },
	}
	server := s.http
	s.serving.Go(func() { _ = server.Serve(netutil.LimitListener(listener, maxConnections)) })
	s.notices.start(ctx)
	return nil
}

// Kill ends the server as a crash would: connections are cut, and requests on them are not answered. The books stay, as
// do the notices that were not acknowledged; they are sent on after Start. Killing a server that is down does nothing.
func (s *Server) Kill() {
	s.life.Lock()
	defer s.life.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.http == nil {
		return
	}
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	_ = s.http.Close()
	s.serving.Wait()
	s.notices.wait()
	s.http = nil
}

// Close ends the server for good, and returns when nothing of it is left. Closing again does nothing.
func (s *Server) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	s.kill()
	s.closed = true
	return nil
}

// URL returns the server's address, without a slash at its end.
func (s *Server) URL() string { return "http://" + s.addr }

// SetWebhook says where a provider posts its notices that is not told so with each attempt: PayPal or Stripe. An empty
// address ends it.
func (s *Server) SetWebhook(provider, address string) error {
	if provider != PayPal && provider != Stripe {
		return fmt.Errorf("pay: %q has no webhook to be set", provider)
	}
	if address != "" {
		if err := checkNoticeURL(address); err != nil {
			return fmt.Errorf("pay: the webhook of %s: %w", provider, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks[provider] = address
	return nil
}

func (s *Server) webhook(provider string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhooks[provider]
}

// handler answers all requests until ctx ends.
func (s *Server) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	for _, h := range s.protocols {
		h.routes(mux)
	}
	// Neither may be posted to by a page of somebody else that the same browser shows.
	var own http.CrossOriginProtection
	admin, buyer := http.NewServeMux(), http.NewServeMux()
	s.adminRoutes(admin)
	s.buyerRoutes(buyer)
	mux.Handle("/admin/", own.Handler(admin))
	mux.Handle("/buyer/", own.Handler(buyer))

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter(ctx) {
			panic(http.ErrAbortHandler)
		}
		defer s.serving.Done()
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		mux.ServeHTTP(w, r)
	})
}

// enter counts a request that begins, unless the server is about to end.
func (s *Server) enter(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	s.serving.Add(1)
	return true
}
