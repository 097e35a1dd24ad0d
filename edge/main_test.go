package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/access"
	"stampede/internal/account"
	"stampede/internal/apitest"
	"stampede/internal/pager"
	"stampede/internal/problem"
	"stampede/internal/token"
	"stampede/localstack/stacktest"
)

// runEnv makes the test binary be the edge, for the tests of its process.
const runEnv = "EDGE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
		return
	}
	slog.SetDefault(slog.New(&logs))
	stacktest.Main(m, stacktest.Redis|stacktest.MariaDB|stacktest.SQS)
}

// logs keeps what is logged as a warning or an error. Tests that look at it are not parallel.
var logs apitest.Recorder

var testCursors = pager.Cursors{Keeper: token.NewKeeper(apitest.Secret)}

// world is an edge that serves on a free port, with all that it needs.
type world struct {
	*apitest.World
	edge     *Edge
	Registry *prometheus.Registry
	Accounts *account.Accounts
}

// newWorld starts an edge; tune may change it before it serves.
func newWorld(t *testing.T, tune ...func(*Edge)) *world {
	t.Helper()
	return newWorldOn(t, stacktest.RedisURL(t), tune...)
}

// newWorldOn starts an edge on a Redis that the test chooses.
func newWorldOn(t *testing.T, redisURL string, tune ...func(*Edge)) *world {
	t.Helper()
	w := &world{World: apitest.NewWorld(t, redisURL)}
	w.Accounts = account.New(w.DB)
	w.edge, w.Registry, w.Addr = w.start(tune...)
	w.URL = "http://" + w.Addr
	return w
}

// start starts an edge beside those that run.
func (w *world) start(tune ...func(*Edge)) (*Edge, *prometheus.Registry, string) {
	w.Helper()
	reg := prometheus.NewRegistry()
	rdb, db := w.OpenRedis(w.RedisURL), w.OpenMySQL(w.DSN)
	e := New(rdb, db, w.Queue, access.New(db, rdb, w.Tokens), reg)
	// What fasthttp leaves running for some seconds after its end, or for ever, is not a leak of the edge.
	e.server.NoDefaultDate = true
	e.server.MaxIdleWorkerDuration = 50 * time.Millisecond
	for _, change := range tune {
		change(e)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	w.Cleanup(func() {
		w.Client.CloseIdleConnections()
		w.Heal()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := e.Stop(ctx, 0); err != nil {
			w.Errorf("stop: %v", err)
		}
		if err := <-served; err != nil {
			w.Errorf("serve: %v", err)
		}
	})
	return e, reg, ln.Addr().String()
}

// Requests reads the counter of requests with these labels.
func (w *world) Requests(route, status string, c problem.Code) float64 {
	w.Helper()
	families, err := w.Registry.Gather()
	w.Must(err)
	for _, family := range families {
		if family.GetName() != "stampede_http_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["route"] == route && labels["status"] == status && labels["code"] == string(c) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}
