package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/access"
	"stampede/internal/account"
	"stampede/internal/apitest"
	"stampede/internal/front"
	"stampede/internal/lab"
	"stampede/internal/notice"
	"stampede/internal/password"
	"stampede/internal/token"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// runEnv makes the test binary be the shop, for the tests of its process.
const runEnv = "SHOP_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
		return
	}
	slog.SetDefault(slog.New(&logs))
	stacktest.Main(m, stacktest.Redis|stacktest.MariaDB|stacktest.SQS)
}

var logs apitest.Recorder

// world is a shop that serves on a free port, with all that it needs, and an edge beside it, which is a process of its
// own and is started by the first request that is for it.
type world struct {
	*apitest.World
	shop     *Shop
	Accounts *account.Accounts
	edge     func() string // starts the edge, once, and returns its URL
}

// newWorld starts a shop; tune may change it before it serves.
func newWorld(t *testing.T, tune ...func(*Shop)) *world {
	t.Helper()
	w := &world{World: apitest.NewWorld(t, stacktest.RedisURL(t))}
	w.Accounts = account.New(w.DB)
	w.edge = sync.OnceValue(w.startEdge)
	w.Route = func(method, path string) string {
		path, _, _ = strings.Cut(path, "?")
		if front.Process(method, path) == front.Edge && path != "/readyz" && path != "/healthz" {
			return w.edge()
		}
		return ""
	}
	w.shop, w.Addr = w.start(tune...)
	w.URL = "http://" + w.Addr
	return w
}

// start starts a shop beside those that run.
func (w *world) start(tune ...func(*Shop)) (*Shop, string) {
	w.Helper()
	db, rdb := w.OpenMySQL(w.DSN), w.OpenRedis(w.RedisURL)
	s := New(rdb, db, access.New(db, rdb, w.Tokens), newHasher(w), prometheus.NewRegistry())
	s.workTimeout = 30 * time.Second
	for _, change := range tune {
		change(s)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	w.Cleanup(func() {
		w.Client.CloseIdleConnections()
		w.Heal()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx, 0); err != nil {
			w.Errorf("stop: %v", err)
		}
		if err := <-served; err != nil {
			w.Errorf("serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

// edgeProgram is the edge, built once.
var edgeProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(stacktest.Dir(), "edge")
	return path, lab.Build(context.Background(), "..", "-o", path, "./edge")
})

// startEdge starts an edge on the servers of the shop.
func (w *world) startEdge() string {
	w.Helper()
	path, err := edgeProgram()
	w.Must(err)
	program, err := lab.NewProgram("edge", lab.Program{
		Name: "edge", Path: path, LogFile: filepath.Join(w.TempDir(), "edge.log"),
		Env: append(localstack.SQSEnv(w.SQS.URL()), "REDIS_URL="+w.RedisURL, "MYSQL_DSN="+w.DSN,
			"JWT_SECRET="+apitest.Secret, "SHUTDOWN_NOTICE=0s", "GOCOVERDIR="+os.Getenv("GOCOVERDIR")),
	})
	w.Must(err)
	process, err := program.Launch(w.Context())
	if process != nil {
		w.Cleanup(func() { process.Stop(lab.StopWait) })
	}
	w.Must(err)
	return "http://" + program.Addr
}

// newHasher makes the cheapest hasher that is allowed.
func newHasher(t testing.TB) *password.Hasher {
	t.Helper()
	h, err := password.New(password.Params{MemoryKiB: 7168, Iterations: 5, Parallelism: 1})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// behindProxy makes a shop believe what the test says of its address.
func behindProxy(s *Shop) {
	s.guard.Proxies.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// accepted is what a test reads of the answer to an order.
type accepted struct {
	OrderID    string `json:"order_id"`
	UnitPrice  int64  `json:"unit_price"`
	TotalPrice int64  `json:"total_price"`
}

// endSession ends a session for everybody, and waits until shop and edge know.
func (w *world) endSession(id uuid.UUID) {
	w.Helper()
	signed, err := w.Tokens.Sign(token.Claims{UserID: 1, SessionID: id}, time.Hour)
	w.Must(err)
	for what, path := range map[string]string{"the shop": "/api/me", "the edge": "/api/orders"} {
		w.Eventually(what+" knows that the session has ended", func() bool {
			// A process that does not listen yet, ready as it is, misses a notice.
			w.Must(notice.Publish(w.Context(), w.RDB, notice.Notice{EndedSessions: []uuid.UUID{id}}))
			return w.Send("GET", path, "", "Authorization", "Bearer "+signed).Status == 401
		})
	}
}
