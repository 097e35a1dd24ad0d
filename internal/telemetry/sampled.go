package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// SampleInterval is for how long a sample is good. Who asks more often gets the same one.
	SampleInterval = 5 * time.Second
	// sampleTimeout bounds the taking of a sample, and with it what it adds to a scrape.
	sampleTimeout = 3 * time.Second
)

// Sampled are gauges of a state that has to be asked for. They are asked for when somebody reads the metrics, and are
// not there while the answer is not known: no number is better than an old one.
type Sampled struct {
	take   func(context.Context) error
	gauges []prometheus.Collector

	mu    sync.Mutex
	taken time.Time
	known bool
}

// NewSampled makes gauges that take sets.
func NewSampled(take func(context.Context) error, gauges ...prometheus.Collector) *Sampled {
	return &Sampled{take: take, gauges: gauges}
}

// Describe tells which gauges there are.
func (s *Sampled) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range s.gauges {
		g.Describe(ch)
	}
}

// Collect hands the gauges out, if what they say is known.
func (s *Sampled) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.taken) >= SampleInterval {
		ctx, cancel := context.WithTimeout(context.Background(), sampleTimeout)
		defer cancel()
		s.known = s.take(ctx) == nil
		s.taken = time.Now()
	}
	if !s.known {
		return
	}
	for _, g := range s.gauges {
		g.Collect(ch)
	}
}
