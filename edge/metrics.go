package main

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

// metrics are what the edge counts. No label takes its values from a client.
type metrics struct {
	requests       *prometheus.CounterVec
	latency        *prometheus.HistogramVec
	reserveBatch   prometheus.Histogram
	envelopeOrders prometheus.Histogram
	sent           map[queue.Outcome]prometheus.Counter
	cancelled      prometheus.Counter
	loans          *prometheus.CounterVec
}

// okCode is the label of answers that give what the client asked for, which have no problem code.
const okCode = "ok"

// ordersRoute is the label of requests to order.
const ordersRoute = "POST /api/orders"

// Outcomes of an attempt to borrow units from another bucket.
const (
	loanMoved   = "moved"
	loanEmpty   = "empty"
	loanRefused = "refused"
	loanFailed  = "failed"
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
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_requests_total",
			Help: "Requests answered, by route, status and problem code (ok if there is none).",
		}, []string{"route", "status", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                        "stampede_http_request_duration_seconds",
			Help:                        "Time from the end of reading a request to its answer, by route.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
			NativeHistogramBucketFactor: 1.1,
		}, []string{"route"}),
		reserveBatch: histogram("stampede_reserve_batch_orders", "Orders per call of the reserve script.",
			stock.MaxBatch),
		envelopeOrders: histogram("stampede_envelope_orders", "Orders per message sent to the queue.",
			order.MaxOrdersPerMessage),
		cancelled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_orders_cancelled_total",
			Help: "Reserved orders whose units were given back, because the queue did not take them.",
		}),
		loans: prometheus.NewCounterVec(prometheus.CounterOpts{
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
	m.requests.WithLabelValues(ordersRoute, strconv.Itoa(fasthttp.StatusAccepted), okCode)
	for _, c := range []code{soldOut, limitExceeded, rateLimited, queueUnavailable, stockUnavailable, outcomeUnknown,
		internalError} {
		m.requests.WithLabelValues(ordersRoute, strconv.Itoa(problems[c].status), string(c))
	}
	for _, outcome := range []string{loanMoved, loanEmpty, loanRefused, loanFailed} {
		m.loans.WithLabelValues(outcome)
	}
	reg.MustRegister(m.requests, m.latency, m.reserveBatch, m.envelopeOrders, sent, m.cancelled, m.loans)
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
	latency := m.latency.WithLabelValues(route)
	outcomes := counters{requests: m.requests, route: route}
	outcomes.known.Store(&map[outcome]prometheus.Counter{})
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		next(ctx)
		outcomes.count(ctx)
		latency.Observe(time.Since(start).Seconds())
	}
}

// counters are those of a route by outcome. A route has few outcomes, and to find a counter by its labels costs more
// than to count.
type counters struct {
	requests *prometheus.CounterVec
	route    string

	mu    sync.Mutex // held by who adds a counter
	known atomic.Pointer[map[outcome]prometheus.Counter]
}

type outcome struct {
	status int
	code   code
}

// count counts a request by its answer.
func (c *counters) count(ctx *fasthttp.RequestCtx) {
	problem, _ := ctx.UserValue(codeValue).(code)
	c.of(outcome{ctx.Response.StatusCode(), problem}).Inc()
}

func (c *counters) of(o outcome) prometheus.Counter {
	if counter, ok := (*c.known.Load())[o]; ok {
		return counter
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	label := string(o.code)
	if label == "" {
		label = okCode
	}
	more := maps.Clone(*c.known.Load())
	more[o] = c.requests.WithLabelValues(c.route, strconv.Itoa(o.status), label)
	c.known.Store(&more)
	return more[o]
}

// Counted are the metrics of which a board tells. Reading them asks nobody.
func (e *Edge) Counted() []prometheus.Collector {
	return []prometheus.Collector{e.metrics.requests, e.metrics.latency}
}
