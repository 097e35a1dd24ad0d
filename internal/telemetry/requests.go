package telemetry

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Requests counts the requests that a server answers. No label takes its values from a client.
type Requests struct {
	count   *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

// okCode is the label of answers that give what the client asked for, which have no problem code.
const okCode = "ok"

// NewRequests makes the metrics of a server's requests.
func NewRequests(reg prometheus.Registerer) *Requests {
	r := &Requests{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_requests_total",
			Help: "Requests answered, by route, status and problem code (ok if there is none).",
		}, []string{"route", "status", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                        "stampede_http_request_duration_seconds",
			Help:                        "Time from the end of reading a request to its answer, by route.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
			NativeHistogramBucketFactor: 1.1,
		}, []string{"route"}),
	}
	reg.MustRegister(r.Collectors()...)
	return r
}

// Collectors are the metrics. Reading them asks nobody.
func (r *Requests) Collectors() []prometheus.Collector {
	return []prometheus.Collector{r.count, r.latency}
}

// Route is the requests of a route.
type Route struct {
	name    string
	count   *prometheus.CounterVec
	latency prometheus.Observer

	// known are its counters by outcome. A route has few outcomes, and to find a counter by its labels costs more than
	// to count.
	known  atomic.Pointer[map[outcome]prometheus.Counter]
	adding sync.Mutex // held by who adds one
}

type outcome struct {
	status int
	code   string
}

// Route makes the counters of a route.
func (r *Requests) Route(name string) *Route {
	route := &Route{name: name, count: r.count, latency: r.latency.WithLabelValues(name)}
	route.known.Store(&map[outcome]prometheus.Counter{})
	return route
}

// Declare makes an outcome known before it happens, for alerts that compare. The code is empty if there is no problem.
func (r *Route) Declare(status int, code string) { r.counter(outcome{status, code}) }

// Done counts a request by its answer. The code is empty if there was no problem.
func (r *Route) Done(status int, code string, took time.Duration) {
	r.counter(outcome{status, code}).Inc()
	r.latency.Observe(took.Seconds())
}

func (r *Route) counter(o outcome) prometheus.Counter {
	if counter, ok := (*r.known.Load())[o]; ok {
		return counter
	}
	r.adding.Lock()
	defer r.adding.Unlock()
	label := o.code
	if label == "" {
		label = okCode
	}
	more := maps.Clone(*r.known.Load())
	more[o] = r.count.WithLabelValues(r.name, strconv.Itoa(o.status), label)
	r.known.Store(&more)
	return more[o]
}
