package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"stampede/internal/apitest"
	"stampede/internal/problem"
	"stampede/internal/queue"
	"stampede/localstack/sqs"
)

// What operators are told of the way of orders to the queue.
func TestMetricsOfSending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit"})
	apitest.WantProblem(t, w.Post(2, p.ID, 1), 503, problem.QueueUnavailable)
	m := w.edge.sender.metrics
	for what, got := range map[string]float64{
		"sent":      testutil.ToFloat64(m.sent[queue.Sent]) - 1,
		"refused":   testutil.ToFloat64(m.sent[queue.Refused]) - 1,
		"unknown":   testutil.ToFloat64(m.sent[queue.Unknown]),
		"cancelled": testutil.ToFloat64(m.cancelled) - 1,
		"accepted":  w.Requests(ordersRoute, "202", "ok") - 1,
		"503":       w.Requests(ordersRoute, "503", problem.QueueUnavailable) - 1,
	} {
		if got != 0 {
			t.Errorf("%s: %+v too many", what, got)
		}
	}
	families, err := w.Registry.Gather()
	w.Must(err)
	for _, f := range families {
		switch f.GetName() {
		case "stampede_reserve_batch_orders", "stampede_envelope_orders":
			if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 2 {
				t.Errorf("%s: %d batches, %v orders", f.GetName(), h.GetSampleCount(), h.GetSampleSum())
			}
		}
	}
}
