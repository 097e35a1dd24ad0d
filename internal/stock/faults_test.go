package stock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// scriptCalls calls every script, and so needs the server to know every script.
func scriptCalls(t *testing.T, s *shop) {
	t.Helper()
	s = newShop(s.Stock)
	s.load(t, nil)
	first, second := s.order(t, 1, 1, "k"), s.order(t, 1, 2, "")
	equal(t, "claimed", len(s.claim(t, 0)), 2)
	equal(t, "cancelled", s.cancel(t, first), []bool{false})
	equal(t, "settled", s.settle(t, fresh(first, order.Completed, 6), fresh(second, order.Failed, 6)),
		Settled{GivenBack: 2})
	if added, err := s.Restock(t.Context(), s.product.ID, 5, 7, "r"); !added || err != nil {
		t.Errorf("Restock = %v, %v", added, err)
	}
	equal(t, "level", must(s.Level(t.Context(), s.product.ID))(t), Level{Loaded: true, Available: 14, Version: 5})
}

func TestScriptsAreUnknown(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		t.Run(fmt.Sprint("cluster=", cluster), func(t *testing.T) {
			t.Parallel()
			r := stacktest.NewRedis(t, localstack.RedisOptions{Cluster: cluster, Persist: true})
			s := openShop(t, r.URL())
			scriptCalls(t, s)
			if err := s.rdb.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			scriptCalls(t, s)
			if err := r.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The pool still has connections to the server that was killed.
			stacktest.Eventually(t, 10*time.Second, func() error { return s.rdb.Ping(t.Context()) })
			scriptCalls(t, s)
		})
	}
}

// A server that is down is no server without products.
func TestProductsAreNotKnown(t *testing.T) {
	t.Parallel()
	r := stacktest.NewRedis(t, localstack.RedisOptions{})
	s := openShop(t, r.URL())
	s.load(t, nil)
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if ids, err := s.Products(t.Context()); err == nil {
		t.Errorf("a server that is down has the products %v", ids)
	}
	if totals, err := s.Totals(t.Context()); err == nil {
		t.Errorf("a server that is down has %+v", totals)
	}
}

// reserveOnce makes one call, and reports whether it was made in vain.
func reserveOnce(ctx context.Context, s *shop) error {
	_, results, err := s.Reserve(ctx, s.product.ID, 0, []Request{ask(1, 1, "")})
	if err == nil && results[0].Outcome != Reserved {
		err = fmt.Errorf("outcome %d", results[0].Outcome)
	}
	return err
}

// TestRefusedCalls has a real server refuse calls, whose replies reach the caller through a script and the client.
func TestRefusedCalls(t *testing.T) {
	t.Parallel()
	r := stacktest.NewRedis(t, localstack.RedisOptions{})
	s := openShop(t, r.URL())
	s.load(t, nil)
	o := s.order(t, 1, 1, "k")
	for _, test := range []struct {
		prefix, setting, bad, good string
	}{
		{"OOM", "maxmemory", "1", "0"},
		{"NOREPLICAS", "min-replicas-to-write", "1", "0"},
		{"READONLY", "replicaof", "127.0.0.1 1", "no one"},
		{"MASTERDOWN", "replicaof", "127.0.0.1 1", "no one"},
	} {
		set := func(value string) {
			t.Helper()
			var err error
			if test.setting == "replicaof" {
				host, port, _ := strings.Cut(value, " ")
				err = s.rdb.Do(t.Context(), "replicaof", host, port).Err()
			} else {
				err = s.rdb.Do(t.Context(), "config", "set", test.setting, value).Err()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if test.prefix == "MASTERDOWN" {
			if err := s.rdb.Do(t.Context(), "config", "set", "replica-serve-stale-data", "no").Err(); err != nil {
				t.Fatal(err)
			}
		}
		before := s.dump(t)
		set(test.bad)
		errs := []error{reserveOnce(t.Context(), s)}
		if test.prefix == "OOM" { // the other calls are for a Redis that is full, see TestFullRedisDrains
			set(test.good)
			refusedAsFull(t, "Reserve", errs[0])
			continue
		}
		_, err := s.Cancel(t.Context(), s.product.ID, []order.Order{o})
		errs = append(errs, err)
		_, err = s.Settle(t.Context(), s.product.ID, []order.Decision{fresh(o, order.Failed, 6)})
		errs = append(errs, err)
		_, err = s.Restock(t.Context(), s.product.ID, 1, 9, "r")
		errs = append(errs, err)
		set(test.good)
		for i, err := range errs {
			want := test.prefix
			// of a script whose first line says that it writes, the server minds that first
			if i > 0 && want == "MASTERDOWN" {
				want = "READONLY"
			}
			if err == nil || !redis.NotExecuted(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: call %d: %v", test.prefix, i, err)
			}
		}
		equal(t, test.prefix, fmt.Sprintf("%q", s.dump(t)), fmt.Sprintf("%q", before))
	}
}

func TestServerIsDown(t *testing.T) {
	t.Parallel()
	r := stacktest.NewRedis(t, localstack.RedisOptions{})
	s := openShop(t, r.URL())
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := reserveOnce(t.Context(), s); !redis.NotExecuted(err) {
		t.Errorf("no connection was made, but the call counts as perhaps executed: %v", err)
	}
}

// A server that hangs carries the call out when it goes on, long after the caller has given up.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	r := stacktest.NewRedis(t, localstack.RedisOptions{})
	s := openShop(t, r.URL())
	s.load(t, nil)
	s.cancel(t, s.order(t, 1, 1, "")) // now the server knows the script
	if err := r.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := reserveOnce(ctx, s)
	if err == nil || redis.NotExecuted(err) {
		t.Errorf("a call without an answer counts as not executed: %v", err)
	}
	if err := r.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, 10*time.Second, func() error {
		level, err := s.Level(t.Context(), s.product.ID)
		if err == nil && level.Reserved != 1 {
			err = fmt.Errorf("%d units are reserved", level.Reserved)
		}
		return err
	})
}

// paused has a call wait in the server, ends it with f, and returns its error.
func paused(t *testing.T, other *shop, call func() error, f func()) error {
	t.Helper()
	if err := other.rdb.Do(t.Context(), "client", "pause", 60_000, "write").Err(); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- call() }()
	stacktest.Eventually(t, 10*time.Second, func() error {
		info, err := other.rdb.Info(t.Context(), "clients").Result()
		if err == nil && !strings.Contains(info, "blocked_clients:1\r\n") {
			err = errors.New("no call is waiting")
		}
		return err
	})
	f()
	select {
	case err := <-result:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call does not end")
		return nil
	}
}

func TestServerDiesDuringACall(t *testing.T) {
	t.Parallel()
	r := stacktest.NewRedis(t, localstack.RedisOptions{})
	s, other := openShop(t, r.URL()), openShop(t, r.URL())
	s.load(t, nil)
	s.order(t, 1, 1, "") // now the server knows the script
	err := paused(t, other, func() error { return reserveOnce(background, s) }, func() {
		if err := r.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err == nil || redis.NotExecuted(err) {
		t.Errorf("a call without an answer counts as not executed: %v", err)
	}
}

// A settle whose answer is lost must not be sent again as it is: it would take units out twice. The
// client for a Cluster would do so by itself.
func TestNoCallIsRepeated(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		t.Run(fmt.Sprint("cluster=", cluster), func(t *testing.T) {
			t.Parallel()
			r := stacktest.NewRedis(t, localstack.RedisOptions{Cluster: cluster})
			s, other := openShop(t, r.URL()), openShop(t, r.URL())
			s.load(t, nil)
			lost := fresh(order.Order{ID: order.NewID(), UserID: 1, Quantity: 1}, order.Completed, 6)
			s.settle(t, again(lost.Order, order.Failed)) // now the server knows the script
			err := paused(t, other, func() error {
				_, err := s.Settle(background, s.product.ID, []order.Decision{lost})
				return err
			}, func() {
				// The waiting call goes down with its connection.
				if err := other.rdb.Do(t.Context(), "client", "kill", "type", "normal", "skipme",
					"yes").Err(); err != nil {
					t.Error(err)
				}
				if err := other.rdb.Do(t.Context(), "client", "unpause").Err(); err != nil {
					t.Error(err)
				}
			})
			if err == nil || redis.NotExecuted(err) {
				t.Errorf("the call was repeated, or counts as not executed: %v", err)
			}
			equal(t, "stock", s.contents(t).stock, 10)
		})
	}
}
