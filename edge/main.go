// Edge is the HTTP service of Stampede. It reserves stock in Redis, puts orders on SQS, and answers
// 202 once the queue has them.
package main

import (
	"context"
	"time"

	"github.com/google/uuid"

	"stampede/internal/access"
	"stampede/internal/config"
	"stampede/internal/daemon"
)

// stopTimeout bounds a graceful stop, the notice to the load balancer included. With the second that the board's last
// report may take, it is 5 s below the 30 s after which container platforms kill.
const stopTimeout = 24 * time.Second

// gcPercent lets the heap grow threefold before garbage is collected, unless GOGC says otherwise. What an edge keeps is
// small, so that at Go's own value of 100 it would collect some hundred times a second. GOMEMLIMIT bounds it.
const gcPercent = 200

func main() {
	vars := config.New("edge")
	settings := access.Declare(vars)
	notice := vars.Duration("SHUTDOWN_NOTICE", 2*time.Second, 0, 10*time.Second,
		"how long to go on after readiness fails, for load balancers to notice")

	start := func(_ context.Context, parts daemon.Parts) (*daemon.Service, error) {
		uuid.EnableRandPool()
		guard, err := settings.Guard(parts.DB, parts.Redis)
		if err != nil {
			return nil, err
		}
		e := New(parts.Redis, parts.DB, parts.Queue, guard, parts.Registry)
		return &daemon.Service{
			Ready: e.Ready, Counted: e.Counted(), Serve: e.Serve,
			Stop: func(ctx context.Context) error { return e.Stop(ctx, *notice) },
		}, nil
	}
	daemon.Main(daemon.Program{
		Name: "edge", About: "takes orders over HTTP", Vars: vars, Addr: "EDGE_ADDR", Queue: true,
		GCPercent: gcPercent, StopTimeout: stopTimeout, Start: start,
	})
}
