package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

// What operators are told of the stock, and of an order that fails again and again.
func TestMetricsTellWhatHappens(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 5, 2)
	r.sabotage(completing(orders[0]))

	reg := prometheus.NewRegistry()
	w := New(r.redis, r.db, r.queue, reg)
	w.attemptPause = time.Second
	w.relayInterval, w.reconcileInterval, w.deadLettersInterval = time.Hour, time.Hour, time.Hour
	gauges := gather(t, reg)
	for name, want := range map[string]float64{
		"stampede_products_loaded": 1, "stampede_stock_available_units": 90, "stampede_reservations_open": 5,
		"stampede_outbox_orders": 5, "stampede_refunds_by_hand": 0, "stampede_orders_unpaid_overdue": 0,
	} {
		if gauges[name] == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		if got := gauges[name].GetGauge().GetValue(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if age := gauges["stampede_reservation_oldest_age_seconds"].GetGauge().GetValue(); age <= 0 || age > 60 {
		t.Errorf("the oldest reservation is %v s old", age)
	}

	r.send(5, orders...)
	r.run(w)
	r.quiet(w)
	m := w.metrics
	for what, got := range map[string]float64{
		"retries":      testutil.ToFloat64(m.retries) - 2,
		"dead letters": testutil.ToFloat64(m.deadLetters.WithLabelValues(causeUndecidable)) - 1,
		"completed":    testutil.ToFloat64(m.decisions.WithLabelValues("completed", "")) - 4,
		"failed":       testutil.ToFloat64(m.decisions.WithLabelValues("failed", "dead_letter")) - 1,
		"given back":   testutil.ToFloat64(m.givenBack) - 2,
	} {
		if got != 0 {
			t.Errorf("%s: %+v too many", what, got)
		}
	}
	all := gather(t, reg)
	// Five orders in one message, then one alone that is sent again twice.
	for name, want := range map[string]uint64{
		"stampede_order_lag_seconds": 5, "stampede_queue_wait_seconds": 3, "stampede_message_receives": 3,
	} {
		h := all[name].GetHistogram()
		if h.GetSampleCount() != want || h.GetSampleSum() < 0 || h.GetSampleSum() > 300 {
			t.Errorf("%s has %d samples, together %v, want %d", name, h.GetSampleCount(), h.GetSampleSum(), want)
		}
	}
}

// gather reads metrics by name, of each the first.
func gather(t *testing.T, reg prometheus.Gatherer) map[string]*dto.Metric {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.Metric{}
	for _, f := range families {
		all[f.GetName()] = f.GetMetric()[0]
	}
	return all
}

// A board knows the metrics by their names, and what is missing it takes for nought.
func TestCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	w := New(r.redis, r.db, r.queue, prometheus.NewRegistry())
	counted := prometheus.NewRegistry()
	counted.MustRegister(w.Counted()...)
	all := gather(t, counted)
	for _, name := range []string{
		"stampede_orders_decided_total", "stampede_drift_found_total", "stampede_drift_repaired_total",
		"stampede_breaker_open",
	} {
		if all[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}
