// Shop is the HTTP service for people: accounts and sessions, payments, and what merchants do with products. What a
// crowd asks for is the edge's.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stampede/internal/access"
	"stampede/internal/config"
	"stampede/internal/daemon"
	"stampede/internal/order"
	"stampede/internal/password"
	"stampede/internal/till"
)

// stopTimeout bounds a graceful stop, the notice to the load balancer included: 5 s below the 30 s after which
// container platforms kill.
const stopTimeout = 25 * time.Second

func main() {
	vars := config.New("shop")
	settings := access.Declare(vars)
	notice := vars.Duration("SHUTDOWN_NOTICE", 2*time.Second, 0, 10*time.Second,
		"how long to go on after readiness fails, for load balancers to notice")
	limit := vars.String("RATE_LIMIT_PASSWORDS", defaultPasswordLimit,
		"requests per second and burst of one client address, of those that cost a hash: logins, registrations, "+
			"changes of a password", access.CheckLimit)
	payments := till.Declare(vars)
	pointPrice := vars.Int("POINT_PRICE", 1, 1, 1_000_000, "what a point costs, in minor units of POINT_CURRENCY")
	pointCurrency := vars.String("POINT_CURRENCY", "EUR", "ISO 4217 code of POINT_PRICE", checkCurrency)
	params := password.DefaultParams()
	memory := vars.Int("PASSWORD_MEMORY_KIB", int(params.MemoryKiB), 7168, 1<<20,
		"memory of one password hash (argon2id)")
	iterations := vars.Int("PASSWORD_ITERATIONS", int(params.Iterations), 1, 100, "iterations of one password hash")
	parallelism := vars.Int("PASSWORD_PARALLELISM", int(params.Parallelism), 1, 16, "threads of one password hash")

	start := func(_ context.Context, parts daemon.Parts) (*daemon.Service, error) {
		guard, err := settings.Guard(parts.DB, parts.Redis)
		if err != nil {
			return nil, err
		}
		hasher, err := password.New(password.Params{
			MemoryKiB: uint32(*memory), Iterations: uint32(*iterations), Parallelism: uint8(*parallelism),
		})
		if err != nil {
			return nil, fmt.Errorf("PASSWORD_MEMORY_KIB, PASSWORD_ITERATIONS, PASSWORD_PARALLELISM: %w", err)
		}
		s := New(parts.Redis, parts.DB, guard, hasher, parts.Registry)
		if err := s.passwords.setLimit(*limit); err != nil {
			return nil, fmt.Errorf("RATE_LIMIT_PASSWORDS: %w", err)
		}
		taken, err := payments.Till(parts.DB)
		if err != nil {
			return nil, err
		}
		s.takePayments(taken, paymentSettings{pointPrice: int64(*pointPrice), pointCurrency: *pointCurrency})
		return &daemon.Service{
			Ready: s.Ready, Serve: s.Serve,
			Stop: func(ctx context.Context) error { return s.Stop(ctx, *notice) },
		}, nil
	}
	daemon.Main(daemon.Program{
		Name: "shop", About: "serves people over HTTP: accounts, payments, and products for merchants", Vars: vars,
		Addr: "SHOP_ADDR", Check: daemon.CheckSchema, StopTimeout: stopTimeout, Start: start,
	})
}

// checkCurrency reports whether a text is a code of ISO 4217.
func checkCurrency(code string) error {
	if !order.IsCurrency(code) {
		return errors.New("it is no code of ISO 4217, such as EUR")
	}
	return nil
}
