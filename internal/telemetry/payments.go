package telemetry

import "github.com/prometheus/client_golang/prometheus"

// PaymentEvents counts what providers of payments have told or answered, in shops and workers.
func PaymentEvents() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stampede_payment_events_total",
		Help: "What providers of payments have told or answered, by provider and what became of it.",
	}, []string{"provider", "outcome"})
}
