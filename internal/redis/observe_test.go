package redis

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// Calls are told by the names of their scripts, also the first time, when Redis does not know a script yet; that it
// does not, or has no such key, is no failure.
func TestObserve(t *testing.T) {
	t.Parallel()
	c := open(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL()) // which knows no script yet
	var mu sync.Mutex
	calls, failures := map[string]int{}, []error{}
	c.Observe(func(call string, took time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		calls[call]++
		if err != nil {
			failures = append(failures, err)
		}
		if took <= 0 || took > time.Minute {
			t.Errorf("%s took %s", call, took)
		}
	})
	if first, err := c.TryLock(t.Context(), "l", time.Minute); !first || err != nil {
		t.Fatalf("TryLock: %v, %v", first, err)
	}
	_, err := c.Pipelined(t.Context(), func(p goredis.Pipeliner) error { return p.Get(t.Context(), "nothing").Err() })
	if !errors.Is(err, goredis.Nil) {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), "hget", "a-key-without-a-field").Err(); err == nil {
		t.Fatal("a wrong command works")
	}
	if got := slices.Sorted(maps.Keys(calls)); !slices.Equal(got, []string{"hget", "pipeline", "put"}) ||
		calls["put"] != 2 {
		t.Errorf("calls: %v", calls)
	}
	if len(failures) != 1 {
		t.Errorf("failures: %v", failures)
	}
}
