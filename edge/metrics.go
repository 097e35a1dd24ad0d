package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

// metrics are what the edge counts. No label takes its values from a client.
type metrics struct {
	requests       *telemetry.Requests
	reserveBatch   prometheus.Histogram
	envelopeOrders prometheus.Histogram
	sent           map[queue.Outcome]prometheus.Counter
	cancelled      prometheus.Counter
	transfers      *prometheus.CounterVec
}

// ordersRoute is the label of requests to order.
const ordersRoute = "POST /api/orders"

// Outcomes of an attempt to borrow units from another bucket.
const (
	transferMoved   = "moved"
	transferEmpty   = "empty"
	transferRefused = "refused"
	transferFailed  = "failed"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	histogram := func(name, help string, most int) prometheus.Histogram {
		buckets := []float64{1}
		for n := 2; n < most; n *= 2 {
			buckets = append(buckets, float64(n))
		}
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: append(buckets, float64(most)), NativeHistogramBucketFactor: 1.1,
		})
	}
	m := &metrics{
		requests: telemetry.NewRequests(reg),
		reserveBatch: histogram("stampede_reserve_batch_orders", "Orders per call of the reserve script.",
			stock.MaxBatch),
		envelopeOrders: histogram("stampede_envelope_orders", "Orders per message sent to the queue.",
			order.MaxOrdersPerMessage),
		cancelled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_orders_cancelled_total",
			Help: "Reserved orders whose units were given back, because the queue did not take them.",
		}),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_bucket_loans_total",
			Help: "Attempts to borrow units from another bucket of a product, by outcome: moved, empty, refused " +
				"or failed.",
		}, []string{"outcome"}),
	}
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stampede_orders_sent_total",
		Help: "Reserved orders offered to the queue, by outcome: sent, refused or unknown.",
	}, []string{"outcome"})
	m.sent = map[queue.Outcome]prometheus.Counter{
		queue.Sent: sent.WithLabelValues("sent"), queue.Refused: sent.WithLabelValues("refused"),
		queue.Unknown: sent.WithLabelValues("unknown"),
	}
	// What alerts compare is there before it happens the first time.
	orders := m.requests.Route(ordersRoute)
	orders.Declare(fasthttp.StatusAccepted, "")
	for _, c := range []problem.Code{problem.SoldOut, problem.LimitExceeded, problem.RateLimited,
		problem.QueueUnavailable, problem.StockUnavailable, problem.OutcomeUnknown, problem.InternalError} {
		orders.Declare(c.Status(), string(c))
	}
	for _, outcome := range []string{transferMoved, transferEmpty, transferRefused, transferFailed} {
		m.transfers.WithLabelValues(outcome)
	}
	reg.MustRegister(m.reserveBatch, m.envelopeOrders, sent, m.cancelled, m.transfers)
	return m
}

// watch adds what an edge is asked for when somebody looks.
func (e *Edge) watch(reg prometheus.Registerer) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(
		gauge("stampede_http_connections", "Client connections that are open.", func() float64 {
			return float64(e.server.GetOpenConnectionsCount())
		}),
		gauge("stampede_orders_waiting", "Requests to order that wait for the reserve script.", func() float64 {
			return float64(e.reserver.tickets.Waits())
		}),
		telemetry.Breaker("mysql", e.reserver.mysql.open),
	)
}

// measure counts the requests of a route.
func (m *metrics) measure(route string, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	if !telemetry.Enabled {
		return next
	}
	counted := m.requests.Route(route)
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		next(ctx)
		code, _ := ctx.UserValue(codeValue).(problem.Code)
		counted.Done(ctx.Response.StatusCode(), string(code), time.Since(start))
	}
}

// Counted are the metrics of which a board tells. Reading them asks nobody.
func (e *Edge) Counted() []prometheus.Collector {
	return e.metrics.requests.Collectors()
}
