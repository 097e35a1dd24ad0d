package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
)

// report says in Redis that a process runs, as it does itself.
func (w *world) report(role string, version int) {
	w.Helper()
	now, err := w.RDB.Time(w.Context()).Result()
	w.Must(err)
	text, err := json.Marshal(map[string]any{"role": role, "id": role, "message_version": version})
	w.Must(err)
	w.Must(w.RDB.HSet(w.Context(), "fleet", role, fmt.Sprintf("%d %s", now.UnixMilli(), text)).Err())
}

// TestUpgrade: an edge takes no orders as long as there is a worker that could not read them, and goes on where edges
// of that version have left off.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 1) // which needs no other process
	if w.edge.stock.KeepOldKeys.Load() {
		t.Error("where no other program runs none is thought of")
	}

	w.report("worker", 0)
	w.report("edge", 0)
	late, _, addr := w.start()
	w.Eventually("it has looked for other programs", func() bool { return late.upgrade.workers.Load() >= 0 })
	if err := late.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "1 workers of an older version") {
		t.Errorf("beside a worker of an older version: %v", err)
	}
	w.URL = "http://" + addr
	apitest.WantProblem(t, w.Send("GET", "/readyz", ""), 503, problem.NotReady)
	apitest.WantProblem(t, w.Post(1, p.ID, 1), 503, problem.StockUnavailable)

	// The worker is replaced, and the edge of before goes on for a while.
	w.report("worker", order.MessageVersion)
	late.upgrade.look(t.Context())
	if err := late.Ready(t.Context()); err != nil {
		t.Errorf("beside workers of this version: %v", err)
	}
	w.MustPost(1, p.ID, 1)
	if !late.stock.KeepOldKeys.Load() {
		t.Error("keys of an edge of before are not looked for")
	}
	w.Must(w.RDB.HDel(t.Context(), "fleet", "edge").Err())
	late.upgrade.look(t.Context())
	if !late.stock.KeepOldKeys.Load() {
		t.Error("its keys are forgotten as soon as it has ended")
	}
	if ttl := w.RDB.TTL(t.Context(), oldKeysMark).Val(); ttl <= order.IdempotencyLifetime {
		t.Errorf("its keys are thought of for %v", ttl)
	}

	// Edges of the version before keep their records where this one does, and its workers stop an edge that begins.
	w.Must(w.RDB.Del(t.Context(), oldKeysMark).Err())
	w.report("edge", order.MessageVersion-1)
	w.report("worker", order.MessageVersion-1)
	late.upgrade.look(t.Context())
	if late.stock.KeepOldKeys.Load() {
		t.Error("beside an edge of the version before, records are looked for elsewhere")
	}
	if n := late.upgrade.workers.Load(); n != 1 {
		t.Errorf("%d workers of the version before were found", n)
	}

	// A worker of before that is started later stops no edge that sells.
	w.report("worker", 1)
	late.upgrade.look(t.Context())
	if err := late.Ready(t.Context()); err != nil {
		t.Errorf("an edge that sold has stopped: %v", err)
	}
}
