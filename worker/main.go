// Worker is the queue consumer of Stampede. It decides orders in MySQL, settles them in Redis, and
// sends what edges left in the outbox.
package main

import (
	"context"
	"net"
	"time"

	"stampede/internal/config"
	"stampede/internal/daemon"
	"stampede/internal/telemetry"
	"stampede/internal/till"
)

const (
	// stopTimeout bounds a graceful stop; giving messages back comes on top, with a bound of its own.
	// Container platforms kill after 30 s.
	stopTimeout = 20 * time.Second
	// gcPercent lets the heap grow to five times what is in use, which is little: a worker holds a bounded number of
	// messages. At Go's default of 100 a busy worker spent a fifth of its time on collecting garbage.
	gcPercent = 400
)

func main() {
	vars := config.New("worker")
	local, allowGalera := vars.MySQLSettings()
	payments := till.Declare(vars)

	check := func(ctx context.Context, parts daemon.Parts) error {
		if err := daemon.CheckSchema(ctx, parts); err != nil {
			return err
		}
		durability := telemetry.Durability{DB: parts.DB, Local: *local, AllowGalera: *allowGalera}
		if err := durability.Check(ctx); err != nil {
			return err
		}
		durability.Watch(parts.Running, parts.Registry)
		return nil
	}
	start := func(_ context.Context, parts daemon.Parts) (*daemon.Service, error) {
		taken, err := payments.Till(parts.DB)
		if err != nil {
			return nil, err
		}
		w := New(parts.Redis, parts.DB, parts.Queue, parts.Registry)
		w.takePayments(taken)
		serve := func(net.Listener) error {
			w.Start()
			<-w.receiving.Done()
			return nil
		}
		return &daemon.Service{Ready: w.Ready, Counted: w.Counted(), Serve: serve, Stop: w.Stop}, nil
	}
	daemon.Main(daemon.Program{
		Name: "worker", About: "decides orders, and sees to payments", Vars: vars, Check: check, Queue: true,
		GCPercent: gcPercent, StopTimeout: stopTimeout, Start: start,
	})
}
