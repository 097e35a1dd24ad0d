// Edge is the HTTP service of Stampede. It reserves stock in Redis, puts orders on SQS, and answers
// 202 once the queue has them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/google/uuid"

	"stampede/internal/admin"
	"stampede/internal/board"
	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/otlp"
	"stampede/internal/password"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/token"
	"stampede/internal/version"
)

// stopTimeout bounds a graceful stop, the notice to the load balancer included. With the second that the board's last
// report may take, it is 5 s below the 30 s after which container platforms kill.
const stopTimeout = 24 * time.Second

// gcPercent lets the heap grow threefold before garbage is collected, unless GOGC says otherwise. What an edge keeps is
// small, so that at Go's own value of 100 it would collect some hundred times a second. GOMEMLIMIT bounds it.
const gcPercent = 200

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "edge:", err)
		os.Exit(1)
	}
}

func run() error {
	vars := config.New("edge")
	params := password.DefaultParams()
	addr := vars.String("EDGE_ADDR", ":8080", "address to take orders on", config.Address)
	adminAddr := vars.AdminAddr()
	redisURL := vars.RedisURL()
	dsn := vars.MySQLDSN()
	queueName, dlqName := vars.Queues()
	secret := vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes; to rotate: new,old",
		token.CheckSecret)
	level := vars.LogLevel()
	vars.Traces()
	notice := vars.Duration("SHUTDOWN_NOTICE", 2*time.Second, 0, 10*time.Second,
		"how long to go on after readiness fails, for load balancers to notice")

	trusted := vars.String("TRUSTED_PROXIES", noProxies,
		"ranges of addresses, comma-separated, whose word on who the client is is believed", checkProxies)
	field := vars.String("FORWARDED_FIELD", "X-Forwarded-For",
		"the header field in which they say so: X-Forwarded-For, or Forwarded (RFC 7239)", checkForwardedField)
	origins := vars.String("CORS_ORIGINS", noOrigins,
		"origins of other sites, comma-separated, whose pages may use the API", checkOrigins)
	userLimit := vars.String("RATE_LIMIT_USER", defaultUserLimit,
		"requests per second and burst of one user; off for no limit", checkLimit)
	addressLimit := vars.String("RATE_LIMIT_ADDRESS", defaultAddressLimit,
		"the same of one client address (IPv6: its /64)", checkLimit)
	passwordLimit := vars.String("RATE_LIMIT_PASSWORDS", defaultPasswordLimit,
		"the same of one client address, of requests that cost a hash: logins, registrations, changes of a password",
		checkLimit)
	memory := vars.Int("PASSWORD_MEMORY_KIB", int(params.MemoryKiB), 7168, 1<<20,
		"memory of one password hash (argon2id)")
	iterations := vars.Int("PASSWORD_ITERATIONS", int(params.Iterations), 1, 100, "iterations of one password hash")
	parallelism := vars.Int("PASSWORD_PARALLELISM", int(params.Parallelism), 1, 16, "threads of one password hash")

	health := flag.Bool("healthcheck", false, "ask a running edge whether it is healthy, and exit 0 or 1")
	flag.Usage = func() { vars.Usage(os.Stderr, "takes orders over HTTP. It is configured by the environment alone.") }
	flag.Parse()
	if err := vars.Parse(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	if *health {
		return admin.Probe(*addr)
	}
	reg := admin.NewRegistry()
	telemetry.SetLog(*level, reg)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	uuid.EnableRandPool()

	db, err := mysql.Open(*dsn)
	if err != nil {
		return fmt.Errorf("MYSQL_DSN: %w", err)
	}
	defer db.Close()
	st, err := stock.Open(*redisURL)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	defer st.Close()
	start, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	q, err := queue.Open(start, *queueName, *dlqName)
	if err != nil {
		return fmt.Errorf("ORDERS_QUEUE, ORDERS_DLQ, AWS_…: %w", err)
	}

	passwords, err := password.New(password.Params{
		MemoryKiB: uint32(*memory), Iterations: uint32(*iterations), Parallelism: uint8(*parallelism),
	})
	if err != nil {
		return fmt.Errorf("PASSWORD_MEMORY_KIB, PASSWORD_ITERATIONS, PASSWORD_PARALLELISM: %w", err)
	}

	telemetry.Watch(reg, st, db, q)
	watching, endWatch := context.WithCancel(context.Background())
	defer endWatch()
	telemetry.WatchEviction(watching, reg, st)
	name, _ := version.Get()
	stopTraces, err := otlp.Start(start, "edge", name)
	if err != nil {
		return err
	}
	e := New(st, db, q, token.NewKeeper(*secret), passwords, reg)
	e.proxies.field = *field
	if e.origins, err = parseOrigins(*origins); err != nil {
		return fmt.Errorf("CORS_ORIGINS: %w", err)
	}
	if e.proxies.trusted, err = parseProxies(*trusted); err != nil {
		return fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	if err := e.limit(*userLimit, *addressLimit, *passwordLimit); err != nil {
		return fmt.Errorf("RATE_LIMIT_USER, RATE_LIMIT_ADDRESS, RATE_LIMIT_PASSWORDS: %w", err)
	}
	b := board.Start("edge", st, ledger.New(db), q, e.Counted()...)
	defer b.Close()
	adminServer, err := admin.Start(*adminAddr, reg, e.Ready, b)
	if err != nil {
		return err
	}
	defer adminServer.Close()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("EDGE_ADDR: %w", err)
	}
	slog.Info("edge started", "version", name, "addr", ln.Addr().String(), "admin", adminServer.Addr())

	stop, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	select {
	case err := <-served:
		unregister()
		return fmt.Errorf("serve: %w", err)
	case <-stop.Done():
	}
	unregister() // a second signal ends the process at once
	slog.Info("edge is stopping")
	ctx, cancelStop := context.WithTimeout(context.Background(), stopTimeout)
	defer cancelStop()
	if err := errors.Join(e.Stop(ctx, *notice), stopTraces(ctx)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	slog.Info("edge stopped")
	return nil
}
