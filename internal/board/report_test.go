package board

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/localstack/stacktest"
)

// counted are metrics as an edge and a worker have them.
type counted struct {
	requests, decided, found, repaired *prometheus.CounterVec
	latency                            *prometheus.HistogramVec
	paused                             prometheus.Gauge
}

func newCounted() *counted {
	counter := func(name string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	}
	return &counted{
		requests: counter("stampede_http_requests_total", "route", "status", "code"),
		decided:  counter("stampede_orders_decided_total", "status", "reason"),
		found:    counter("stampede_drift_found_total", "cause"),
		repaired: counter("stampede_drift_repaired_total", "cause"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stampede_http_request_duration_seconds", Buckets: []float64{.01, .1, 1},
			NativeHistogramBucketFactor: 1.1,
		}, []string{"route"}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{Name: "stampede_breaker_open"}),
	}
}

func (c *counted) all() []prometheus.Collector {
	return []prometheus.Collector{c.requests, c.decided, c.found, c.repaired, c.latency, c.paused}
}

func TestReport(t *testing.T) {
	t.Parallel()
	c := newCounted()
	r := newReporter("edge", nil, c.all())
	at := time.Now()
	next := func() report {
		t.Helper()
		at = at.Add(2 * time.Second)
		var got report
		if err := json.Unmarshal([]byte(r.next(at)), &got); err != nil {
			t.Fatal(err)
		}
		if got.Role != "edge" || got.ID == "" || got.Host == "" || got.StartedMS == 0 {
			t.Errorf("%+v", got)
		}
		return got
	}
	count := func(route, status, code string, n float64) { c.requests.WithLabelValues(route, status, code).Add(n) }
	const post = "POST /api/orders"
	count(post, "202", "ok", 1000)
	c.latency.WithLabelValues(post).Observe(5)
	if first := next(); first.PerSecond != (rates{}) || first.Latency.Count != 0 {
		t.Errorf("what was before the first report counts: %+v", first)
	}
	count(post, "202", "ok", 8)
	count(post, "409", "sold_out", 4)
	count(post, "409", "limit_exceeded", 1)
	count(post, "429", "rate_limited", 1)
	count(post, "503", "queue_unavailable", 6)
	count("GET /api/orders/{id}", "200", "ok", 500)
	count("GET /api/orders/{id}", "404", "order_not_found", 500)
	c.decided.WithLabelValues("completed", "").Add(2)
	c.decided.WithLabelValues("failed", "insufficient_stock").Add(1)
	c.decided.WithLabelValues("failed", "dead_letter").Add(1)
	c.found.WithLabelValues("a").Add(2)
	c.found.WithLabelValues("b").Add(1)
	c.repaired.WithLabelValues("a").Add(2)
	c.paused.Set(1)
	c.latency.WithLabelValues(post).Observe(.05)
	c.latency.WithLabelValues(post).Observe(5)
	c.latency.WithLabelValues("GET /api/orders/{id}").Observe(.001)
	second := next()
	if want := (rates{Accepted: 4, SoldOut: 2, Refused: 1, Errors: 3, Completed: 1,
		Failed: 1}); second.PerSecond != want {
		t.Errorf("per second %+v, want %+v", second.PerSecond, want)
	}
	if second.Drift != (drift{3, 2}) || !second.Paused {
		t.Errorf("%+v", second)
	}
	if l := second.Latency; l.Count != 2 || len(l.Bounds) != 3 || l.Through[0] != 0 || l.Through[1] != 1 ||
		l.Through[2] != 1 {
		t.Errorf("latency %+v", l)
	}
	// The rates are of the last report alone, the latency of some.
	for i := range latencyReports {
		r := next()
		if r.PerSecond != (rates{}) || (r.Latency.Count == 2) != (i < latencyReports-1) {
			t.Errorf("%d reports later: %+v", i+1, r)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	h := histogram{Count: 10, Bounds: []float64{1, 2, 4}, Through: []float64{2, 2, 8}}
	for q, want := range map[float64]float64{0.1: .5, 0.2: 1, 0.5: 3, 0.8: 4, 0.99: 4} {
		if got, known := h.quantile(q); !known || math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
	if _, known := (histogram{}).quantile(.5); known {
		t.Error("a quantile of nothing is known")
	}
	other := histogram{Count: 3, Bounds: []float64{1, 2}, Through: []float64{3, 3}}
	if got := h.plus(other); got.Count != 10 {
		t.Errorf("with other bounds: %+v", got)
	}
	if got := (histogram{}).plus(h).plus(histogram{}); got.Count != 10 {
		t.Errorf("with none: %+v", got)
	}
}

// BenchmarkReport is what reporting costs a process each second.
func BenchmarkReport(b *testing.B) {
	c := newCounted()
	for _, route := range []string{"POST /api/orders", "GET /api/orders", "GET /api/orders/{id}", "GET /api/products",
		"GET /api/products/{id}"} {
		for _, code := range []string{"ok", "sold_out", "limit_exceeded", "rate_limited", "queue_unavailable"} {
			c.requests.WithLabelValues(route, "200", code).Inc()
		}
		for i := range 10_000 {
			c.latency.WithLabelValues(route).Observe(float64(i) / 10_000)
		}
	}
	r := newReporter("edge", openRedis(b, stacktest.RedisURL(b)), c.all())
	b.Run("made", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.next(time.Now())
		}
	})
	text := r.next(time.Now())
	b.Run("written", func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(float64(len(text)), "bytes/report")
		for b.Loop() {
			r.write(b.Context(), text)
		}
	})
}
