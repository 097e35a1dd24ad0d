package main

import (
	"net/http"
	"testing"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// A full Redis takes no order, says so, and still answers those who ask.
func TestFullRedisTakesNoOrder(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	p := w.addProduct(10)
	id := w.mustPost(1, p.ID, 1, "Idempotency-Key", "first")
	w.wantSettledOutbox(p.ID)
	w.must(w.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())

	wantProblem(t, w.post(2, p.ID, 1), http.StatusServiceUnavailable, stockUnavailable)
	w.wantLevel(p.ID, 9, 1, 0)
	if got := w.get(1, "/api/orders/"+id); got.status != http.StatusOK {
		t.Errorf("the order that was accepted before: %v", got)
	}
	again := w.post(1, p.ID, 1, "Idempotency-Key", "first")
	if again.status != http.StatusAccepted {
		t.Errorf("a retry of the order that was accepted before: %v", again)
	}

	w.must(w.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	w.mustPost(2, p.ID, 1)
}
