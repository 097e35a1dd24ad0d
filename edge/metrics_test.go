package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"stampede/internal/queue"
	"stampede/localstack/sqs"
)

// What operators are told of the way of orders to the queue.
func TestMetricsOfSending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.mustPost(1, p.ID, 1)
	w.wantSettledOutbox(p.ID)
	w.sqs.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit"})
	wantProblem(t, w.post(2, p.ID, 1), 503, queueUnavailable)
	m := w.edge.sender.metrics
	for what, got := range map[string]float64{
		"sent":      testutil.ToFloat64(m.sent[queue.Sent]) - 1,
		"refused":   testutil.ToFloat64(m.sent[queue.Refused]) - 1,
		"unknown":   testutil.ToFloat64(m.sent[queue.Unknown]),
		"cancelled": testutil.ToFloat64(m.cancelled) - 1,
		"accepted":  w.requests(ordersRoute, "202", okCode) - 1,
		"503":       w.requests(ordersRoute, "503", queueUnavailable) - 1,
	} {
		if got != 0 {
			t.Errorf("%s: %+v too many", what, got)
		}
	}
	families, err := w.reg.Gather()
	w.must(err)
	for _, f := range families {
		switch f.GetName() {
		case "stampede_reserve_batch_orders", "stampede_envelope_orders":
			if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 2 {
				t.Errorf("%s: %d batches, %v orders", f.GetName(), h.GetSampleCount(), h.GetSampleSum())
			}
		}
	}
}
