package main

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"stampede/internal/order"
	"stampede/internal/telemetry"
)

// addSpans adds a step that is over to the traces of its orders, which are those that their edges have begun. There are
// as many decisions as jobs, or none.
func addSpans(step string, jobs []*job, decisions []order.Decision, start time.Time, failure error) {
	if !telemetry.Tracing() {
		return
	}

	end := time.Now() // of the step, for all of its orders
	for i, j := range jobs {
		if !j.trace.IsSampled() {
			continue
		}
		attributes := []attribute.KeyValue{
			attribute.String("stampede.order_id", j.order.ID.String()),
			attribute.Int("stampede.batch_orders", len(jobs)),
			attribute.Int("stampede.receive_count", j.from.ReceiveCount),
		}
		if len(decisions) > 0 {
			attributes = append(attributes, attribute.String("stampede.status", string(decisions[i].Status)))
			if reason := decisions[i].FailedReason; reason != "" {
				attributes = append(attributes, attribute.String("stampede.failed_reason", string(reason)))
			}
		}

		telemetry.Add(j.trace, step, telemetry.Consumer, start, end, failure, attributes...)
	}
}
