package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/telemetry"
)

// metrics are what a worker counts.
type metrics struct {
	decisions     *prometheus.CounterVec
	repeated      prometheus.Counter
	retries       prometheus.Counter
	deadLetters   *prometheus.CounterVec
	relayed       prometheus.Counter
	givenBack     prometheus.Counter
	takenOut      prometheus.Counter
	cancelled     prometheus.Counter
	called        prometheus.Counter
	returned      prometheus.Counter
	paymentEvents *prometheus.CounterVec
	batchOrders   prometheus.Histogram
	decideSeconds prometheus.Histogram
	lagSeconds    prometheus.Histogram
	queueSeconds  prometheus.Histogram
	receives      prometheus.Histogram
	driftFound    *prometheus.CounterVec
	driftRepaired *prometheus.CounterVec
	lostCommits   prometheus.Gauge
	paused        prometheus.GaugeFunc
}

// Causes of dead letters.
const (
	causeUndecodable = "undecodable"
	causeUndecidable = "undecidable"
	causeRedriven    = "redriven"
)

func newMetrics(reg prometheus.Registerer, w *Worker) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, bounds []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: bounds, NativeHistogramBucketFactor: 1.1,
		})
	}
	long := []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}

	m := &metrics{
		decisions: counters("stampede_orders_decided_total",
			"Orders decided by this worker, by status and reason of failure.", "status", "reason"),
		repeated: counter("stampede_orders_repeated_total", "Orders received that had been decided before."),
		retries: counter("stampede_order_retries_total",
			"Orders that are tried again later, because deciding them failed for a reason of their own."),
		deadLetters: counters("stampede_dead_letters_total", "Messages moved to the dead-letter queue, by cause.",
			"cause"),
		relayed:   counter("stampede_orders_relayed_total", "Orders sent from the outbox on behalf of an edge."),
		givenBack: counter("stampede_units_given_back_total", "Units of failed orders that are for sale again."),
		takenOut: counter("stampede_units_taken_out_total",
			"Units of completed orders whose reservation Redis had lost."),
		cancelled: counter("stampede_orders_unpaid_total",
			"Orders that were cancelled, as they were not paid in time."),
		returned: counter("stampede_units_returned_total",
			"Units of cancelled or refunded orders that are for sale again."),
		called: counter("stampede_room_called_total",
			"Places of waiting rooms that were called, whose holders may enter."),
		paymentEvents: telemetry.PaymentEvents(),
		batchOrders: histogram("stampede_decide_batch_orders", "Orders per deciding transaction.",
			prometheus.ExponentialBuckets(1, 2, 10)),
		decideSeconds: histogram("stampede_decide_duration_seconds",
			"Time of a deciding transaction, with its repetitions.", prometheus.ExponentialBuckets(.001, 2, 15)),
		lagSeconds: histogram("stampede_order_lag_seconds", "Time from the reservation of an order to its decision.",
			long),
		queueSeconds: histogram("stampede_queue_wait_seconds",
			"Time from the sending of a message to its first receive.", long),
		receives: histogram("stampede_message_receives", "How often a message was received, at each receive.",
			[]float64{1, 2, 3, 5, 10}),
		driftFound: counters("stampede_drift_found_total",
			"Differences between Redis and MySQL that reconcile found, by cause.", "cause"),
		driftRepaired: counters("stampede_drift_repaired_total",
			"Differences between Redis and MySQL that reconcile repaired, by cause.", "cause"),
	}
	m.lostCommits = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_mysql_lost_commits",
		Help: "Products and buckets for which MySQL has lost commits that Redis has seen; they are not repaired " +
			"until an operator decides which side is right.",
	})
	m.paused = telemetry.Breaker("receiving", w.breaker.isOpen)

	m.declare()
	reg.MustRegister(m.decisions, m.repeated, m.retries, m.deadLetters, m.relayed, m.givenBack, m.takenOut,
		m.cancelled, m.returned, m.called, m.paymentEvents,
		m.batchOrders, m.decideSeconds, m.lagSeconds, m.queueSeconds, m.receives, m.driftFound, m.driftRepaired,
		m.lostCommits, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_messages_held", Help: "Messages received and not yet deleted.",
		}, func() float64 { return float64(w.held.len()) }),
		m.paused,
		w.stockGauges(), w.paymentGauges())
	return m
}

// declare sees to it that what alerts compare is there before it happens the first time.
func (m *metrics) declare() {
	m.decisions.WithLabelValues(string(order.Completed), "")
	m.decisions.WithLabelValues(string(order.Held), "")
	for _, reason := range order.Reasons {
		m.decisions.WithLabelValues(string(order.Failed), string(reason))
	}
	for _, cause := range []string{causeUndecodable, causeUndecidable, causeRedriven} {
		m.deadLetters.WithLabelValues(cause)
	}
	for _, cause := range reconcile.Causes {
		m.driftFound.WithLabelValues(string(cause))
		m.driftRepaired.WithLabelValues(string(cause))
	}
}

// stockGauges are gauges of what Redis holds, all products together. Every worker has the same ones.
func (w *Worker) stockGauges() *telemetry.Sampled {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	products := gauge("stampede_products_loaded", "Products whose stock is in Redis; a bucket counts as one.")
	available := gauge("stampede_stock_available_units", "Units available in Redis, of all products.")
	open := gauge("stampede_reservations_open", "Orders that are reserved and not settled.")
	oldest := gauge("stampede_reservation_oldest_age_seconds",
		"Age of the oldest reservation that is not settled, 0 if there is none; for a product with more than 1,000 "+
			"reservations, the oldest of a random 1,000.")
	outbox := gauge("stampede_outbox_orders", "Reserved orders that the queue has not acknowledged.")

	return telemetry.NewSampled(func(ctx context.Context) error {
		t, err := w.stock.Totals(ctx)
		if err != nil {
			return err
		}
		products.Set(float64(t.Products))
		available.Set(float64(t.Available))
		open.Set(float64(t.Reserved))
		outbox.Set(float64(t.Outbox))
		oldest.Set(0)
		if !t.Oldest.IsZero() {
			oldest.Set(max(time.Since(t.Oldest).Seconds(), 0))
		}
		return nil
	}, products, available, open, oldest, outbox)
}

// paymentGauges are gauges of what waits for an operator, by MySQL. Every worker has the same ones.
func (w *Worker) paymentGauges() *telemetry.Sampled {
	byHand := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_refunds_by_hand", Help: "Refunds that an operator must make by hand.",
	})
	overdue := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_orders_unpaid_overdue",
		Help: "Orders that still await their payment an hour after their time to pay, or are closing after four days.",
	})
	return telemetry.NewSampled(func(ctx context.Context) error {
		refunds, err := w.till.CountByHand(ctx)
		if err != nil {
			return err
		}
		orders, err := w.ledger.CountOverdue(ctx)
		byHand.Set(float64(refunds))
		overdue.Set(float64(orders))
		return err
	}, byHand, overdue)
}

// Counted are the metrics of which a board tells. Reading them asks nobody.
func (w *Worker) Counted() []prometheus.Collector {
	m := w.metrics
	return []prometheus.Collector{m.decisions, m.driftFound, m.driftRepaired, m.paused}
}

// received counts a message that has come from the queue.
func (m *metrics) received(message *queue.Message) {
	m.receives.Observe(float64(message.ReceiveCount))
	if message.ReceiveCount == 1 && !message.SentAt.IsZero() {
		m.queueSeconds.Observe(max(time.Since(message.SentAt).Seconds(), 0))
	}
}

// decided counts decisions.
func (m *metrics) decided(decisions []order.Decision) {
	type outcome struct {
		status order.Status
		reason order.Reason
	}
	fresh := make(map[outcome]int)
	repeated := len(decisions)
	for i := range decisions {
		if d := &decisions[i]; d.Fresh {
			status := d.Status
			if d.Points && status == order.Held {
				status = order.Completed // as its points were taken
			}
			fresh[outcome{status, d.FailedReason}]++
			repeated--
			if telemetry.Enabled {
				m.lagSeconds.Observe(max(d.DecidedAt.Sub(d.ReservedAt).Seconds(), 0))
			}
		}
	}
	for o, n := range fresh {
		m.decisions.WithLabelValues(string(o.status), string(o.reason)).Add(float64(n))
	}
	m.repeated.Add(float64(repeated))
}
