package main

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a worker counts.
type metrics struct {
	decisions     *prometheus.CounterVec
	repeated      prometheus.Counter
	deadLetters   *prometheus.CounterVec
	relayed       prometheus.Counter
	givenBack     prometheus.Counter
	takenOut      prometheus.Counter
	batchOrders   prometheus.Histogram
	decideSeconds prometheus.Histogram
	driftFound    *prometheus.CounterVec
	driftRepaired *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, w *Worker) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_orders_decided_total", Help: "Orders decided by this worker, by status and reason of failure.",
		}, []string{"status", "reason"}),
		repeated: counter("stampede_orders_repeated_total", "Orders received that had been decided before."),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_dead_letters_total", Help: "Messages moved to the dead-letter queue, by cause.",
		}, []string{"cause"}),
		relayed:   counter("stampede_orders_relayed_total", "Orders sent from the outbox on behalf of an edge."),
		givenBack: counter("stampede_units_given_back_total", "Units of failed orders that are for sale again."),
		takenOut:  counter("stampede_units_taken_out_total", "Units of completed orders whose reservation Redis had lost."),
		batchOrders: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stampede_decide_batch_orders", Help: "Orders per deciding transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10), NativeHistogramBucketFactor: 1.1,
		}),
		decideSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stampede_decide_duration_seconds", Help: "Time of a deciding transaction, with its repetitions.",
			Buckets: prometheus.ExponentialBuckets(.001, 2, 15), NativeHistogramBucketFactor: 1.1,
		}),
	}
	m.driftFound = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stampede_drift_found_total", Help: "Differences between Redis and MySQL that reconcile found, by cause.",
	}, []string{"cause"})
	m.driftRepaired = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stampede_drift_repaired_total", Help: "Differences between Redis and MySQL that reconcile repaired, by cause.",
	}, []string{"cause"})
	reg.MustRegister(m.driftFound, m.driftRepaired, m.decisions, m.repeated, m.deadLetters, m.relayed, m.givenBack, m.takenOut, m.batchOrders, m.decideSeconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_messages_held", Help: "Messages received and not yet deleted.",
		}, func() float64 { return float64(w.held.len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_receiving_paused", Help: "1 while receiving is paused because a dependency is down.",
		}, func() float64 {
			if w.gate.isShut() {
				return 1
			}
			return 0
		}))
	return m
}
