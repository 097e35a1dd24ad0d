// Package admin serves what operators look at and buyers must not: metrics, profiles, health and the board, on
// an address of its own.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stampede/internal/version"
)

// Check reports whether a program is ready; the error says what is missing.
type Check func(context.Context) error

// checkTimeout bounds a readiness check, so that a probe gets an answer before it gives up.
const checkTimeout = 2 * time.Second

// Server is the HTTP server of the admin address.
type Server struct {
	srv *http.Server
	ln  net.Listener
}

// NewRegistry makes a metrics registry with what the program is, and the Go runtime's and the process's own metrics.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	name, revision := version.Get()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_build_info", Help: "1, by the version of Stampede, its revision and Go's version.",
			ConstLabels: prometheus.Labels{"version": name, "revision": revision, "go_version": runtime.Version()},
		}, func() float64 { return 1 }))
	return reg
}

// Start listens on addr and serves /metrics, /debug/pprof/, /healthz, /readyz and, by the handler given unless it is
// nil, /board until Close.
func Start(addr string, reg *prometheus.Registry, ready Check, board http.Handler) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if board != nil {
		mux.Handle("/board", board)
		mux.Handle("/board/", board)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		if err := ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	// No write timeout: a profile takes as long as its reader asks for.
	s := &Server{ln: ln, srv: &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute}}
	go func() {
		if err := s.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("admin: the server stopped", "error", err)
		}
	}()
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close ends the server and its connections at once.
func (s *Server) Close() error { return s.srv.Close() }

// Probe asks the program that listens on addr on this machine whether it is healthy. It is what a
// container's health check runs.
func Probe(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	// A transport of its own knows no proxy, and keeps no connection.
	client := http.Client{Timeout: checkTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + net.JoinHostPort(host, port) + "/healthz")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz answers %s", resp.Status)
	}
	return nil
}
