// Edge is the HTTP service of Stampede. It reserves stock in Redis, puts orders on SQS, and answers
// 202 once the queue has them.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"stampede/internal/config"
	"stampede/internal/daemon"
	"stampede/internal/password"
	"stampede/internal/token"
)

// stopTimeout bounds a graceful stop, the notice to the load balancer included. With the second that the board's last
// report may take, it is 5 s below the 30 s after which container platforms kill.
const stopTimeout = 24 * time.Second

// gcPercent lets the heap grow threefold before garbage is collected, unless GOGC says otherwise. What an edge keeps is
// small, so that at Go's own value of 100 it would collect some hundred times a second. GOMEMLIMIT bounds it.
const gcPercent = 200

func main() {
	vars := config.New("edge")
	params := password.DefaultParams()
	secret := vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes; to rotate: new,old",
		token.CheckSecret)
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

	start := func(_ context.Context, parts daemon.Parts) (*daemon.Service, error) {
		uuid.EnableRandPool()
		passwords, err := password.New(password.Params{
			MemoryKiB: uint32(*memory), Iterations: uint32(*iterations), Parallelism: uint8(*parallelism),
		})
		if err != nil {
			return nil, fmt.Errorf("PASSWORD_MEMORY_KIB, PASSWORD_ITERATIONS, PASSWORD_PARALLELISM: %w", err)
		}
		e := New(parts.Stock, parts.DB, parts.Queue, token.NewKeeper(*secret), passwords, parts.Registry)
		e.proxies.field = *field
		if e.origins, err = parseOrigins(*origins); err != nil {
			return nil, fmt.Errorf("CORS_ORIGINS: %w", err)
		}
		if e.proxies.trusted, err = parseProxies(*trusted); err != nil {
			return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
		}
		if err := e.limit(*userLimit, *addressLimit, *passwordLimit); err != nil {
			return nil, fmt.Errorf("RATE_LIMIT_USER, RATE_LIMIT_ADDRESS, RATE_LIMIT_PASSWORDS: %w", err)
		}
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
