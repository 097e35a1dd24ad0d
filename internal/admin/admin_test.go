package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// board stands for that of a program.
var board = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "board of", r.URL.Path) })

func start(t *testing.T, addr string, ready Check) (*Server, *prometheus.Registry) {
	t.Helper()
	reg := NewRegistry()
	s, err := Start(addr, reg, ready, board)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, reg
}

func get(t *testing.T, s *Server, method, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	s, reg := start(t, "127.0.0.1:0", func(context.Context) error { return nil })
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "things_total"})
	reg.MustRegister(counter)
	counter.Add(3)
	for _, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/healthz", 200, "ok\n"},
		{"GET", "/readyz", 200, "ok\n"},
		{"GET", "/metrics", 200, "\nthings_total 3\n"},
		{"GET", "/metrics", 200, "\ngo_goroutines "},
		{"GET", "/metrics", 200, "\nprocess_open_fds "},
		{"GET", "/debug/pprof/", 200, "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile:"},
		{"GET", "/debug/pprof/symbol", 200, "num_symbols"},
		{"GET", "/debug/pprof/cmdline", 404, ""}, // arguments are nobody's business
		{"GET", "/board", 200, "board of /board\n"},
		{"GET", "/board/events", 200, "board of /board/events\n"},
		{"GET", "/", 404, ""},
		{"POST", "/healthz", 405, ""},
		{"POST", "/metrics", 405, ""},
	} {
		status, body := get(t, s, test.method, test.path)
		if status != test.status || !strings.Contains(body, test.body) {
			t.Errorf("%s %s: %d, want %d with %q:\n%.300s", test.method, test.path, status, test.status, test.body,
				body)
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	var missing atomic.Value
	missing.Store("mysql: refused")
	s, _ := start(t, "127.0.0.1:0", func(context.Context) error {
		if what := missing.Load().(string); what != "" {
			return errors.New(what)
		}
		return nil
	})
	if status, body := get(t, s, "GET", "/readyz"); status != 503 || body != "mysql: refused\n" {
		t.Errorf("not ready: %d %q", status, body)
	}
	if status, _ := get(t, s, "GET", "/healthz"); status != 200 {
		t.Errorf("a program that is not ready is not ill, but /healthz answers %d", status)
	}
	missing.Store("")
	if status, _ := get(t, s, "GET", "/readyz"); status != 200 {
		t.Errorf("ready again: %d", status)
	}
}

// A check that hangs is given up before its probe is.
func TestReadinessIsBounded(t *testing.T) {
	t.Parallel()
	s, _ := start(t, "127.0.0.1:0", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if status, body := get(t, s, "GET", "/readyz"); status != 503 || !strings.Contains(body, "deadline") {
		t.Errorf("%d %q", status, body)
	}
}

func TestAddressIsTaken(t *testing.T) {
	t.Parallel()
	s, _ := start(t, "127.0.0.1:0", nil)
	if _, err := Start(s.Addr(), NewRegistry(), nil, board); err == nil ||
		!strings.HasPrefix(err.Error(), "ADMIN_ADDR: ") {
		t.Errorf("the error does not name the variable: %v", err)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", "0.0.0.0", "127.0.0.1"} {
		s, _ := start(t, net.JoinHostPort(host, "0"), nil)
		_, port, err := net.SplitHostPort(s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := Probe(net.JoinHostPort(host, port)); err != nil {
			t.Errorf("Probe of %q: %v", host, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := Probe(net.JoinHostPort(host, port)); err == nil {
			t.Errorf("Probe of %q succeeds after Close", host)
		}
	}
	ill := http.Server{Handler: http.NotFoundHandler()}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = ill.Serve(ln) }()
	if err := Probe(ln.Addr().String()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("Probe of a program that is ill: %v", err)
	}
	_ = ill.Close()
	<-served
	if err := Probe("8080"); err == nil {
		t.Error("an address without a host is probed")
	}
}
