package main

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
)

// metrics are what the edge counts. No label takes its values from a client.
type metrics struct {
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_requests_total",
			Help: "Requests answered, by route, status and problem code.",
		}, []string{"route", "status", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                        "stampede_http_request_duration_seconds",
			Help:                        "Time from the first byte of a request to its answer.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
			NativeHistogramBucketFactor: 1.1,
		}, []string{"route"}),
	}
	reg.MustRegister(m.requests, m.latency)
	return m
}

// measure counts the requests of a route.
func (m *metrics) measure(route string, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	latency := m.latency.WithLabelValues(route)
	outcomes := counters{requests: m.requests, route: route}
	outcomes.known.Store(&map[outcome]prometheus.Counter{})
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		next(ctx)
		c, _ := ctx.UserValue(codeValue).(code)
		outcomes.of(outcome{ctx.Response.StatusCode(), c}).Inc()
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

func (c *counters) of(o outcome) prometheus.Counter {
	if counter, ok := (*c.known.Load())[o]; ok {
		return counter
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	more := maps.Clone(*c.known.Load())
	more[o] = c.requests.WithLabelValues(c.route, strconv.Itoa(o.status), string(o.code))
	c.known.Store(&more)
	return more[o]
}
