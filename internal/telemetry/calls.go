// Package telemetry is how a program tells what it does: metrics of the calls that it makes and of the state that it
// samples, log lines, and traces.
package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Calls measures the calls to Redis, MySQL and SQS. Its labels come from the program's own code.
type Calls struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
	known   sync.Map // callName → *call, since to find a metric by its labels costs more than to count
}

type callName struct{ system, call string }

type call struct {
	seconds prometheus.Observer
	errors  prometheus.Counter
}

// NewCalls registers the metrics.
func NewCalls(reg prometheus.Registerer) *Calls {
	c := &Calls{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stampede_call_duration_seconds",
			Help: "Time of a call to Redis (a script by its name, or a command), MySQL or " +
				"SQS, by system and call.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
				20},
			NativeHistogramBucketFactor: 1.1,
		}, []string{"system", "call"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_call_errors_total", Help: "Calls that failed, by system and call.",
		}, []string{"system", "call"}),
	}
	reg.MustRegister(c.seconds, c.errors)
	return c
}

// Of returns what measures the calls to one system: a function that takes the call's name, how long it took, and how it
// ended. A call that the program itself has ended is no error of the system's.
func (c *Calls) Of(system string) func(name string, took time.Duration, err error) {
	return func(name string, took time.Duration, err error) {
		known, ok := c.known.Load(callName{system, name})
		if !ok {
			known, _ = c.known.LoadOrStore(callName{system, name}, &call{
				c.seconds.WithLabelValues(system, name), c.errors.WithLabelValues(system, name),
			})
		}
		m := known.(*call)
		m.seconds.Observe(took.Seconds())
		if err != nil && !errors.Is(err, context.Canceled) {
			m.errors.Inc()
		}
	}
}
