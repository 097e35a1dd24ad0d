// Worker is the queue consumer of Stampede. It decides orders in MySQL, settles them in Redis, and
// sends what edges left in the outbox.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"stampede/internal/admin"
	"stampede/internal/board"
	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/otlp"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/version"
)

const (
	// startTimeout bounds how long a worker waits for its dependencies at its start.
	startTimeout = 10 * time.Second
	// stopTimeout bounds a graceful stop; giving messages back comes on top, with a bound of its own.
	// Container platforms kill after 30 s.
	stopTimeout = 20 * time.Second
	// gcPercent lets the heap grow to five times what is in use, which is little: a worker holds a bounded number of
	// messages. At Go's default of 100 a busy worker spent a fifth of its time on collecting garbage.
	gcPercent = 400
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run() error {
	vars := config.New("worker")
	adminAddr := vars.AdminAddr()
	redisURL := vars.RedisURL()
	dsn := vars.MySQLDSN()
	local, allowGalera := vars.MySQLSettings()
	queueName, dlqName := vars.Queues()
	level := vars.LogLevel()
	vars.Traces()

	health := flag.Bool("healthcheck", false, "ask a running worker whether it is healthy, and exit 0 or 1")
	flag.Usage = func() { vars.Usage(os.Stderr, "decides orders. It is configured by the environment alone.") }
	flag.Parse()
	if err := vars.Parse(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	if *health {
		return admin.Probe(*adminAddr)
	}
	reg := admin.NewRegistry()
	telemetry.SetLog(*level, reg)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}

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
	start, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := db.CheckSchema(start); err != nil {
		return fmt.Errorf("MYSQL_DSN: %w", err)
	}
	durability := telemetry.Durability{DB: db, Local: *local, AllowGalera: *allowGalera}
	if err := durability.Check(start); err != nil {
		return err
	}
	q, err := queue.Open(start, *queueName, *dlqName)
	if err != nil {
		return fmt.Errorf("ORDERS_QUEUE, ORDERS_DLQ, AWS_…: %w", err)
	}

	telemetry.Watch(reg, st, db, q)
	watching, endWatch := context.WithCancel(context.Background())
	defer endWatch()
	telemetry.WatchEviction(watching, reg, st)
	durability.Watch(watching, reg)
	name, _ := version.Get()
	stopTraces, err := otlp.Start(start, "worker", name)
	if err != nil {
		return err
	}
	w := New(st, db, q, reg)
	b := board.Start("worker", st, ledger.New(db), q, w.Counted()...)
	defer b.Close()
	adminServer, err := admin.Start(*adminAddr, reg, w.Ready, b)
	if err != nil {
		return err
	}
	defer adminServer.Close()
	stop, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	w.Start()
	slog.Info("worker started", "version", name, "admin", adminServer.Addr())
	<-stop.Done()
	unregister() // a second signal ends the process at once
	slog.Info("worker is stopping")
	ctx, cancelStop := context.WithTimeout(context.Background(), stopTimeout)
	defer cancelStop()
	if err := errors.Join(w.Stop(ctx), stopTraces(ctx)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	slog.Info("worker stopped")
	return nil
}
