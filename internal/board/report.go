package board

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"stampede/internal/loop"
	"stampede/internal/order"
	"stampede/internal/redis"
)

const (
	// reportInterval is how often a process reports, and how often a board is brought up to date.
	reportInterval = time.Second
	// reportTimeout bounds one report. A report that is late is worth nothing.
	reportTimeout = time.Second
	// latencyReports is the number of reports over which latency is told: few orders a second make a quantile of one
	// second jump.
	latencyReports = 5
)

// report is what a process says of itself. Totals are since its start.
type report struct {
	Role      string `json:"role"` // edge or worker
	ID        string `json:"id"`
	Host      string `json:"host"`
	StartedMS int64  `json:"started_at_ms"`
	// MessageVersion is the newest version of messages that the process reads. Programs before version 2 say nothing.
	MessageVersion int `json:"message_version"`
	// PerSecond counts orders since the report before.
	PerSecond rates `json:"per_second"`
	// Latency is that of the order requests of the last latencyReports reports.
	Latency histogram `json:"latency"`
	Drift   drift     `json:"drift"`
	Paused  bool      `json:"paused,omitempty"` // a worker waits for a dependency
}

// rates are order requests by their answers, and orders decided.
type rates struct {
	Accepted  float64 `json:"accepted"`
	SoldOut   float64 `json:"sold_out"`
	Refused   float64 `json:"refused"` // for another reason that is the buyer's
	Errors    float64 `json:"errors"`  // for a reason that is ours
	Completed float64 `json:"completed"`
	Failed    float64 `json:"failed"`
}

// drift counts differences between Redis and MySQL.
type drift struct {
	Found    float64 `json:"found"`
	Repaired float64 `json:"repaired"`
}

// histogram counts requests by their time. Those that took longer than the last bound are in Count alone.
type histogram struct {
	Count   float64   `json:"count"`
	Bounds  []float64 `json:"bounds,omitempty"`  // upper ones, in seconds
	Through []float64 `json:"through,omitempty"` // requests up to each bound
}

// minus is what has come since an earlier look.
func (h histogram) minus(before histogram) histogram {
	d := histogram{Count: h.Count - before.Count, Bounds: h.Bounds, Through: make([]float64, len(h.Through))}
	for i, n := range h.Through {
		if d.Through[i] = n; i < len(before.Through) {
			d.Through[i] -= before.Through[i]
		}
	}
	return d
}

// plus is the requests of both. Bounds that differ, as between two versions of the program, cannot be added: then it is
// the requests of the one that has more.
func (h histogram) plus(other histogram) histogram {
	if len(h.Bounds) != len(other.Bounds) {
		if other.Count > h.Count {
			return other
		}
		return h
	}
	sum := histogram{Count: h.Count + other.Count, Bounds: h.Bounds, Through: make([]float64, len(h.Through))}
	for i := range h.Through {
		sum.Through[i] = h.Through[i] + other.Through[i]
	}
	return sum
}

// quantile estimates a quantile in seconds as Prometheus does: evenly within a bucket. It is not known without
// requests.
func (h histogram) quantile(q float64) (float64, bool) {
	if h.Count <= 0 || len(h.Bounds) == 0 {
		return 0, false
	}
	rank, lower, below := q*h.Count, 0.0, 0.0
	for i, upper := range h.Bounds {
		if n := h.Through[i]; n >= rank && n > below {
			return lower + (upper-lower)*(rank-below)/(n-below), true
		} else {
			lower, below = upper, n
		}
	}
	return lower, true
}

// totals are what a process has counted since its start.
type totals struct {
	at      time.Time
	orders  rates // totals, here
	latency histogram
	drift   drift
	paused  bool
}

// add takes in a metric of the process. Others than those that a board shows are skipped.
func (t *totals) add(f *dto.MetricFamily) {
	for _, m := range f.GetMetric() {
		n := m.GetCounter().GetValue()
		switch f.GetName() {
		case "stampede_http_requests_total":
			if !isOrder(m) {
				continue
			}
			switch status, code := label(m, "status"), label(m, "code"); {
			case status == "202":
				t.orders.Accepted += n
			case code == "sold_out":
				t.orders.SoldOut += n
			case status >= "500":
				t.orders.Errors += n
			default:
				t.orders.Refused += n
			}
		case "stampede_http_request_duration_seconds":
			if !isOrder(m) {
				continue
			}
			h := histogram{Count: float64(m.GetHistogram().GetSampleCount())}
			for _, b := range m.GetHistogram().GetBucket() {
				if !math.IsInf(b.GetUpperBound(), 1) {
					h.Bounds = append(h.Bounds, b.GetUpperBound())
					h.Through = append(h.Through, float64(b.GetCumulativeCount()))
				}
			}
			t.latency = h
		case "stampede_orders_decided_total":
			if label(m, "status") == "completed" {
				t.orders.Completed += n
			} else {
				t.orders.Failed += n
			}
		case "stampede_drift_found_total":
			t.drift.Found += n
		case "stampede_drift_repaired_total":
			t.drift.Repaired += n
		case "stampede_breaker_open":
			t.paused = m.GetGauge().GetValue() > 0
		}
	}
}

// isOrder reports whether a metric is of the requests that place orders.
func isOrder(m *dto.Metric) bool { return label(m, "route") == "POST /api/orders" }

func label(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

// since is the orders per second since an earlier look.
func (t totals) since(before totals) rates {
	seconds := t.at.Sub(before.at).Seconds()
	per := func(now, before float64) float64 { return (now - before) / seconds }
	return rates{
		Accepted: per(t.orders.Accepted, before.orders.Accepted), SoldOut: per(t.orders.SoldOut, before.orders.SoldOut),
		Refused: per(t.orders.Refused, before.orders.Refused), Errors: per(t.orders.Errors, before.orders.Errors),
		Completed: per(t.orders.Completed, before.orders.Completed), Failed: per(t.orders.Failed, before.orders.Failed),
	}
}

// reporter writes the reports of a process, which it makes of the process's own metrics.
type reporter struct {
	redis   *redis.Client
	metrics *prometheus.Registry
	self    report   // what does not change
	before  []totals // of the last reports, the oldest first
}

func newReporter(role string, rdb *redis.Client, metrics []prometheus.Collector) *reporter {
	// A registry of its own: others of the process's metrics ask servers, and may have to wait for them.
	counted := prometheus.NewRegistry()
	counted.MustRegister(metrics...)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &reporter{redis: rdb, metrics: counted, self: report{
		Role: role, ID: uuid.NewString(), Host: host, StartedMS: time.Now().UnixMilli(),
		MessageVersion: order.MessageVersion,
	}}
}

// run reports until ctx ends, and says then that the process ends.
func (r *reporter) run(ctx context.Context) {
	write := func(ctx context.Context) { r.write(ctx, r.next(time.Now())) }
	write(ctx)
	loop.Every(ctx, reportInterval, write)
	r.write(context.WithoutCancel(ctx), "")
}

func (r *reporter) write(ctx context.Context, text string) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if err := writeReport(ctx, r.redis, r.self.ID, text); err != nil {
		slog.Debug("board: it does not hear of this process", "error", err)
	}
}

// next is the report of this moment.
func (r *reporter) next(at time.Time) string {
	now := totals{at: at}
	// What could not be gathered is missing in the families, which are there all the same.
	families, err := r.metrics.Gather()
	if err != nil {
		slog.Debug("board: metrics are missing", "error", err)
	}
	for _, f := range families {
		now.add(f)
	}
	made := r.self
	made.Drift, made.Paused = now.drift, now.paused
	if n := len(r.before); n > 0 {
		made.PerSecond = now.since(r.before[n-1])
		made.Latency = now.latency.minus(r.before[0].latency)
	}
	if len(r.before) == latencyReports {
		r.before = r.before[1:]
	}
	r.before = append(r.before, now)
	text, err := json.Marshal(made)
	if err != nil {
		panic(err) // it holds numbers and plain text
	}
	return string(text)
}
