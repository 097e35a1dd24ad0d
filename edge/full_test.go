package main

import (
	"net/http"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/problem"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// A full Redis takes no order, says so, and still answers those who ask.
func TestFullRedisTakesNoOrder(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	p := w.AddProduct(10)
	id := w.MustPost(1, p.ID, 1, "Idempotency-Key", "first")
	w.WantSettledOutbox(p.ID)
	w.Must(w.RDB.ConfigSet(t.Context(), "maxmemory", "1").Err())

	apitest.WantProblem(t, w.Post(2, p.ID, 1), http.StatusServiceUnavailable, problem.StockUnavailable)
	w.WantLevel(p.ID, 9, 1, 0)
	if got := w.Get(1, "/api/orders/"+id); got.Status != http.StatusOK {
		t.Errorf("the order that was accepted before: %v", got)
	}
	again := w.Post(1, p.ID, 1, "Idempotency-Key", "first")
	if again.Status != http.StatusAccepted {
		t.Errorf("a retry of the order that was accepted before: %v", again)
	}

	w.Must(w.RDB.ConfigSet(t.Context(), "maxmemory", "0").Err())
	w.MustPost(2, p.ID, 1)
}
