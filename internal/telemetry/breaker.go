package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Breaker is a gauge that tells whether a program has stopped to try something.
func Breaker(name string, open func() bool) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stampede_breaker_open",
		Help: "1 while something is not tried, since it has failed a moment ago: mysql is what an edge needs " +
			"MySQL for while it sells, receiving is a worker's receiving of messages.",
		ConstLabels: prometheus.Labels{"breaker": name},
	}, func() float64 {
		if open() {
			return 1
		}
		return 0
	})
}
