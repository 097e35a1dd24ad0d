package stock

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/order"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// Calls are told by the names of their scripts, also the first time, when Redis does not know a script yet; that it
// does not, or has no such key, is no failure.
func TestObserve(t *testing.T) {
	t.Parallel()
	s, err := Open(stacktest.NewRedis(t, localstack.RedisOptions{}).URL()) // which knows no script yet
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var mu sync.Mutex
	calls, failures := map[string]int{}, []error{}
	s.Observe(func(call string, took time.Duration, err error) {
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
	if _, _, err := s.Reserve(t.Context(), 1, 0, []Request{{OrderID: order.NewID(), UserID: 1,
		Quantity: 1}}); !errors.Is(err, ErrNotLoaded) {
		t.Fatalf("Reserve: %v", err)
	}
	if _, err := s.Statuses(t.Context(), []uuid.UUID{order.NewID()}); err != nil {
		t.Fatal(err)
	}
	if err := s.rdb.Do(t.Context(), "hget", "a-key-without-a-field").Err(); err == nil {
		t.Fatal("a wrong command works")
	}
	if got := slices.Sorted(maps.Keys(calls)); !slices.Equal(got, []string{"hget", "pipeline", "reserve"}) ||
		calls["reserve"] != 2 {
		t.Errorf("calls: %v", calls)
	}
	if len(failures) != 1 {
		t.Errorf("failures: %v", failures)
	}
}

func TestTotals(t *testing.T) {
	t.Parallel()
	s := openShop(t, stacktest.RedisURL(t))
	if got, err := s.Totals(t.Context()); err != nil || got != (Totals{}) {
		t.Fatalf("of nothing: %+v, %v", got, err)
	}
	s.load(t, func(p *order.Product) { p.Stock = 10 })
	before := time.Now().Add(-time.Millisecond)
	for user := range int64(3) {
		s.reserve(t, ask(user+1, 2, ""))
	}
	got, err := s.Totals(t.Context())
	if err != nil || got.Products != 1 || got.Available != 4 || got.Reserved != 3 || got.Outbox != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got.Oldest.Before(before) || got.Oldest.After(time.Now()) {
		t.Errorf("the oldest is of %s", got.Oldest)
	}
}
