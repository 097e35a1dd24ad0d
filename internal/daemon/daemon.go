// Package daemon is the life of a program that serves until it is asked to stop: it reads the configuration, opens what
// the program depends on, starts logs, metrics, traces and the admin server, and stops in order on SIGTERM.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/admin"
	"stampede/internal/board"
	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/otlp"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/telemetry"
	"stampede/internal/version"
)

// startTimeout bounds how long a program waits for what it depends on at its start.
const startTimeout = 10 * time.Second

// Program is what is known of a program before its configuration is read.
type Program struct {
	Name  string // in the log, in traces and on the board
	About string // what it does, for its usage: "takes orders over HTTP"
	// Vars has the variables that only this program reads.
	Vars *config.Set
	// Addr is the variable with the address on which it serves the public, or empty if it serves nobody.
	Addr string
	// Check judges MySQL before anything else is asked; its error keeps the program from starting. It may be nil.
	Check func(context.Context, Parts) error
	// Queue is set if it uses the queue of orders. Then its admin server has the board.
	Queue bool
	// GCPercent is how far the heap grows before garbage is collected, unless GOGC says otherwise; 0 leaves Go's value.
	GCPercent int
	// StopTimeout bounds a graceful stop. Container platforms kill after 30 s.
	StopTimeout time.Duration
	// Start makes the service. The context bounds what it waits for.
	Start func(context.Context, Parts) (*Service, error)
}

// Parts are what a service is made of. They are closed after it has stopped.
type Parts struct {
	DB       *mysql.DB
	Redis    *redis.Client
	Queue    *queue.Queue // nil unless the program uses it
	Registry *prometheus.Registry
	// Running ends when the program does, and with it what watches in the background.
	Running context.Context
}

// Service is a program at work.
type Service struct {
	// Ready reports what is missing for the program to do its work, to the admin server's /readyz.
	Ready admin.Check
	// Counted are the metrics that the board shows.
	Counted []prometheus.Collector
	// Serve serves until Stop, from a listener if the program has an address.
	Serve func(net.Listener) error
	// Stop finishes what is under way, until the context ends.
	Stop func(context.Context) error
}

// Main runs a program until it is asked to stop, and exits with 1 if that fails. What is wrong goes to stderr.
func Main(p Program) {
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, p.Name+":", err)
		os.Exit(1)
	}
}

// settings are the variables that all daemons read.
type settings struct {
	addr, adminAddr, redisURL, dsn, queue, deadLetters, level *string
}

// read reads the configuration and the command line, and answers a health check if it is asked for one.
func (p Program) read() (s settings, done bool, err error) {
	if p.Addr != "" {
		s.addr = p.Vars.String(p.Addr, ":8080", "address to serve the public on", config.Address)
	}
	s.adminAddr = p.Vars.AdminAddr()
	s.redisURL = p.Vars.RedisURL()
	s.dsn = p.Vars.MySQLDSN()
	if p.Queue {
		s.queue, s.deadLetters = p.Vars.Queues()
	}
	s.level = p.Vars.LogLevel()
	p.Vars.Traces()

	health := flag.Bool("healthcheck", false, "ask a running "+p.Name+" whether it is healthy, and exit 0 or 1")
	flag.Usage = func() { p.Vars.Usage(os.Stderr, p.About+". It is configured by the environment alone.") }
	flag.Parse()
	if err := p.Vars.Parse(); err != nil {
		return s, false, fmt.Errorf("configuration:\n%w", err)
	}
	if !*health {
		return s, false, nil
	}
	if s.addr != nil {
		return s, true, admin.Probe(*s.addr)
	}
	return s, true, admin.Probe(*s.adminAddr)
}

func (p Program) run() error {
	s, done, err := p.read()
	if err != nil || done {
		return err
	}
	reg := admin.NewRegistry()
	telemetry.SetLog(*s.level, reg)
	if os.Getenv("GOGC") == "" && p.GCPercent > 0 {
		debug.SetGCPercent(p.GCPercent)
	}

	start, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	running, end := context.WithCancel(context.Background())
	defer end()
	parts := Parts{Registry: reg, Running: running}
	err = p.open(start, s, &parts)
	defer parts.close()
	if err != nil {
		return err
	}
	telemetry.Watch(reg, parts.Redis, parts.DB, parts.Queue)
	telemetry.WatchEviction(running, reg, parts.Redis)
	name, _ := version.Get()
	stopTraces, err := otlp.Start(start, p.Name, name)
	if err != nil {
		return err
	}

	service, err := p.Start(start, parts)
	if err != nil {
		return err
	}
	return p.serve(s, parts, service, stopTraces)
}

// open opens what the program depends on. Close the parts, also after an error.
func (p Program) open(ctx context.Context, s settings, parts *Parts) (err error) {
	if parts.DB, err = mysql.Open(*s.dsn); err != nil {
		return fmt.Errorf("MYSQL_DSN: %w", err)
	}
	if parts.Redis, err = redis.Open(*s.redisURL); err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	if p.Check != nil {
		if err = p.Check(ctx, *parts); err != nil {
			return err
		}
	}
	if p.Queue {
		if parts.Queue, err = queue.Open(ctx, *s.queue, *s.deadLetters); err != nil {
			return fmt.Errorf("ORDERS_QUEUE, ORDERS_DLQ, AWS_…: %w", err)
		}
	}
	return nil
}

// CheckSchema is a Check that wants the schema which the program was built for.
func CheckSchema(ctx context.Context, parts Parts) error {
	if err := parts.DB.CheckSchema(ctx); err != nil {
		return fmt.Errorf("MYSQL_DSN: %w", err)
	}
	return nil
}

func (parts *Parts) close() {
	if parts.Redis != nil {
		_ = parts.Redis.Close()
	}
	if parts.DB != nil {
		_ = parts.DB.Close()
	}
}

// serve lets a service run until the process is asked to stop.
func (p Program) serve(s settings, parts Parts, service *Service, stopTraces func(context.Context) error) error {
	// The public address comes first: whoever hears from the admin server that the program is ready may ask there.
	name, _ := version.Get()
	about := []any{"version", name}
	var ln net.Listener
	if s.addr != nil {
		var err error
		if ln, err = net.Listen("tcp", *s.addr); err != nil {
			return fmt.Errorf("%s: %w", p.Addr, err)
		}
		defer ln.Close() // a second time, unless the program has not come as far as to serve
		about = append(about, "addr", ln.Addr().String())
	}

	var page http.Handler
	if p.Queue {
		b := board.Start(p.Name, parts.Redis, ledger.New(parts.DB), parts.Queue, service.Counted...)
		defer b.Close()
		page = b
	}
	adminServer, err := admin.Start(*s.adminAddr, parts.Registry, service.Ready, page)
	if err != nil {
		return err
	}
	defer adminServer.Close()

	stop, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	served := make(chan error, 1)
	go func() { served <- service.Serve(ln) }()
	slog.Info(p.Name+" started", append(about, "admin", adminServer.Addr())...)
	select {
	case err := <-served:
		unregister()
		return fmt.Errorf("serve: %w", err)
	case <-stop.Done():
	}
	unregister() // a second signal ends the process at once

	slog.Info(p.Name + " is stopping")
	ctx, cancel := context.WithTimeout(context.Background(), p.StopTimeout)
	defer cancel()
	if err := errors.Join(service.Stop(ctx), stopTraces(ctx)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	slog.Info(p.Name + " stopped")
	return nil
}
