package main

import (
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/attribute"

	"stampede/internal/problem"
	"stampede/internal/telemetry"
)

// placeValue is the name of the user value that holds a request's place in its trace.
const placeValue = "trace"

// traced begins a trace with each request of a route, and records some of them. What a client says of a trace of its
// own is not taken over, or a crowd could have everything recorded. While traces are off it is not there at all.
func traced(route string, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	if !telemetry.Tracing() {
		return next
	}
	return func(ctx *fasthttp.RequestCtx) {
		span := telemetry.Begin(telemetry.Place{}, route, telemetry.Server)
		defer span.End()
		if !span.IsRecording() {
			next(ctx)
			return
		}
		ctx.SetUserValue(placeValue, span.SpanContext())
		next(ctx)
		code, _ := ctx.UserValue(codeValue).(problem.Code)
		telemetry.Describe(span, string(ctx.Method()), route, ctx.Response.StatusCode(),
			string(ctx.Response.Header.Peek(problem.RequestIDHeader)), string(code))
	}
}

// place notes the place of a ticket's request in its trace. Inlined, it would take the stacks of all connections over
// the 4 KiB that they get by with, to twice as many.
//
//go:noinline
func (t *ticket) place(ctx *fasthttp.RequestCtx) {
	t.trace, _ = ctx.UserValue(placeValue).(telemetry.Place)
}

// addSpans adds the call of the reserve script, which is over, to the traces of its tickets.
func addSpans(tickets []*ticket, asked time.Time, err error) {
	if !telemetry.Tracing() {
		return
	}
	end := time.Now()
	for _, t := range tickets {
		telemetry.Add(t.trace, "wait", telemetry.Internal, t.since, asked, nil)
		telemetry.Add(t.trace, "reserve", telemetry.Internal, asked, end, err,
			attribute.String("stampede.order_id", t.request.OrderID.String()),
			attribute.Int64("stampede.product_id", int64(t.productID)),
			attribute.Int("stampede.batch_orders", len(tickets)))
	}
}

// beginSends begins the sending of an envelope in the traces of its orders, and returns the value of the attribute by
// which the worker goes on with them.
func beginSends(parcels []*parcel) (value string, spans []telemetry.Span) {
	if !telemetry.Tracing() {
		return "", nil
	}
	places := make([]telemetry.Place, len(parcels))
	for i, p := range parcels {
		if !p.trace.IsSampled() {
			continue
		}
		span := telemetry.Begin(p.trace, "send", telemetry.Producer,
			attribute.String("messaging.system", "aws_sqs"), attribute.String("stampede.order_id", p.order.ID.String()),
			attribute.Int("stampede.envelope_orders", len(parcels)))
		places[i] = span.SpanContext()
		spans = append(spans, span)
	}
	return telemetry.FormatPlaces(places), spans
}

// endSends ends the sending of an envelope. The failure is empty if the queue has it.
func endSends(spans []telemetry.Span, failure string) {
	for _, span := range spans {
		if failure != "" {
			telemetry.Fail(span, failure)
		}
		span.End()
	}
}
