package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Breaker is a gauge that reports whether a circuit breaker of a program is open.
func Breaker(name string, open func() bool) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stampede_breaker_open",
		Help: "1 while a circuit breaker is open, so that what has just failed is not tried: mysql is what an edge " +
			"needs of MySQL while it sells, receiving is a worker's receiving of messages.",
		ConstLabels: prometheus.Labels{"breaker": name},
	}, func() float64 {
		if open() {
			return 1
		}
		return 0
	})
}
