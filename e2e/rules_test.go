package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/localstack/stacktest"
)

// order sends an order of one unit of product 1, with an idempotency key if it is not empty.
func (s *system) order(user int, key string) (status int, body map[string]any) {
	s.t.Helper()
	var fields []string
	if key != "" {
		fields = []string{"Idempotency-Key", key}
	}
	return request(s.t, "POST", s.url+"/api/orders", s.token(user), `{"product_id":1,"quantity":1}`, fields...)
}

// TestRulesAfterLoss empties Redis between two attempts of a buyer. Redis then knows neither the idempotency key nor
// what the buyer has bought, and MySQL, which does, refuses the second attempts.
func TestRulesAfterLoss(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "20", "--limit", "2")
	s.startEdge()
	s.startWorker()
	c := newCrowd()
	// decided orders and waits for the decision.
	decided := func(user int, key string) (id, outcome string) {
		t.Helper()
		status, body := s.order(user, key)
		id, _ = body["order_id"].(string)
		if status != http.StatusAccepted {
			t.Fatal(status, body)
		}
		c.orders[id] = user
		stacktest.Eventually(t, 30*time.Second, func() error {
			_, body = request(t, "GET", s.url+"/api/orders/"+id+"?wait=10s", s.token(user), "")
			if body["status"] == "pending" {
				return fmt.Errorf("order %s is pending", id)
			}
			return nil
		})
		outcome, _ = body["failed_reason"].(string)
		if outcome == "" {
			outcome, _ = body["status"].(string)
		}
		return id, outcome
	}
	first, outcome := decided(1, "basket-1")
	if outcome != "completed" {
		t.Fatal(outcome)
	}
	if again, _ := decided(1, "basket-1"); again != first {
		t.Errorf("a retry makes order %s, not %s", again, first)
	}
	if _, outcome := decided(1, ""); outcome != "completed" {
		t.Fatal(outcome)
	}
	if status, body := s.order(1, ""); status != http.StatusConflict || body["code"] != "limit_exceeded" {
		t.Errorf("a third unit: %d %v", status, body)
	}

	rdb := redis.NewClient(&redis.Options{Addr: s.stack.Redis.Addr()})
	defer rdb.Close()
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		user      int
		key, want string
	}{
		{1, "basket-1", "idempotency_conflict"}, {1, "", "limit_exceeded"}, {1, "basket-2", "limit_exceeded"},
		{2, "basket-1", "completed"},
	} {
		if id, outcome := decided(test.user, test.key); outcome != test.want || id == first {
			t.Errorf("after the loss, user %d with key %q: order %s is %s, want %s", test.user, test.key, id, outcome,
				test.want)
		}
	}
	s.mustBeClean(c, 30*time.Second, 3)
}
