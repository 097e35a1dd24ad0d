// Package proxy is the front door of a local stack: one address for several edges and shops, in the place of the load
// balancer on AWS and of nginx in containers.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"stampede/internal/front"
)

const (
	// maxHeaderBytes is above what edge and shop take, so that they refuse what is too large, each in its own words.
	maxHeaderBytes = 32 << 10
	// maxConnsPerServer bounds the connections to one server, and so the requests that it has to answer at once. Each
	// buyer who waits for a decision has one.
	maxConnsPerServer = 8192
	// maxIdleConns bounds those that are kept to one server between two requests.
	maxIdleConns = 512

	// dialTimeout is long for servers on the same machine.
	dialTimeout = 2 * time.Second
	// readTimeout and writeTimeout are above the servers' own, so that these give up first and say so.
	readTimeout  = 15 * time.Second
	writeTimeout = 60 * time.Second
	// answerTimeout is above the 20 s for which a buyer may wait for a decision.
	answerTimeout = 40 * time.Second
	// idleTimeout is that of a client's connection. It is above the 60 s of common load balancers.
	idleTimeout = 75 * time.Second
	// serverIdleTimeout is below the servers' own, which would close a connection as it is used again.
	serverIdleTimeout = 60 * time.Second
)

// Proxy passes requests on to the process that front.Process names.
type Proxy struct {
	server    *http.Server
	transport *http.Transport
}

// New makes a proxy in front of servers, of which it has addresses such as 127.0.0.1:8081.
func New(edges, shops []string) *Proxy {
	p := &Proxy{transport: &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxConnsPerHost:        maxConnsPerServer,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        serverIdleTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // answers go back as they are
	}}
	quiet := slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug)
	passOn := &httputil.ReverseProxy{
		Rewrite: rewrite,
		Transport: &balancer{next: p.transport, servers: map[string]*servers{
			front.Edge: {addrs: edges}, front.Shop: {addrs: shops},
		}},
		FlushInterval: -1, // at once
		ErrorHandler:  answerError,
		ErrorLog:      quiet,
	}
	p.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil // net/http would guess one for an answer without
			passOn.ServeHTTP(w, r)
		}),
		MaxHeaderBytes: maxHeaderBytes,
		ReadTimeout:    readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		DisableGeneralOptionsHandler: true, // OPTIONS * is for the edge
		ErrorLog:                     quiet,
	}
	return p
}

// Serve passes requests from ln on until Stop. It is called once.
func (p *Proxy) Serve(ln net.Listener) error {
	if err := p.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop takes no more connections and waits for the requests under way, until ctx ends. It may be called again, and
// before Serve.
func (p *Proxy) Stop(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	if err != nil {
		_ = p.server.Close()
	}
	p.transport.CloseIdleConnections()
	return err
}

// rewrite names the process that a request is for, and says whom it came from. It leaves everything else as it came:
// a path that is written otherwise might be another path to the server.
func rewrite(r *httputil.ProxyRequest) {
	path := rawPath(r.In)
	out := r.Out
	out.URL.Scheme, out.URL.Host = "http", front.Process(r.In.Method, path)
	if !strings.HasPrefix(path, "//") { // after which this would be the name of a host
		out.URL.Opaque = path
	}
	out.URL.RawQuery = r.In.URL.RawQuery

	// Nothing behind speaks anything but HTTP/1.1, and it is this server that tells a client to send its body.
	out.Header.Del("Upgrade")
	out.Header.Del("Connection")
	out.Header.Del("Expect")

	// The client's address is added to whatever the client says: the servers read it from the right.
	said := r.In.Header.Values("X-Forwarded-For")
	if host, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		said = append(said[:len(said):len(said)], host)
	}
	out.Header.Set("X-Forwarded-For", strings.Join(said, ", "))
}

// rawPath is the path of a request as it came, or as that is written when it came with a scheme and a host.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath()
}
