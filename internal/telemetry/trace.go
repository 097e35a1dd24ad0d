package telemetry

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TraceAttribute is the message attribute that carries the traces of an envelope's orders: for each order, in their
// order and separated by spaces, its place in a trace in the form of traceparent (W3C Trace Context, section 3.2), or a
// hyphen if it is in none. Of a lone order it is a plain traceparent.
const TraceAttribute = "traceparent"

// noTrace stands in TraceAttribute for an order that is in no trace.
const noTrace = "-"

// Place is a place in a trace. The zero value is in none, which is where most orders are.
type Place = trace.SpanContext

// Span is a part of a trace that is under way.
type Span = trace.Span

// Kinds of spans.
const (
	Internal = trace.SpanKindInternal
	Server   = trace.SpanKindServer
	Producer = trace.SpanKindProducer
	Consumer = trace.SpanKindConsumer
)

// tracer is nil while traces are off.
var tracer trace.Tracer

// Tracing reports whether traces are on.
func Tracing() bool { return tracer != nil }

// TraceBy turns traces on. It comes before everything that is traced.
func TraceBy(t trace.Tracer) { tracer = t }

// Begin begins a span, of a new trace if the place is in none. It may turn out not to be recorded.
func Begin(at Place, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) Span {
	if tracer == nil {
		return noop.Span{}
	}
	_, span := tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), at), name,
		trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return span
}

// Add adds a span that is over to a trace; to none if the place is in none. A failure makes it one of an error.
func Add(at Place, name string, kind trace.SpanKind, start, end time.Time, failure error,
	attributes ...attribute.KeyValue) {
	if tracer == nil || !at.IsSampled() {
		return
	}
	_, span := tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), at), name,
		trace.WithSpanKind(kind), trace.WithTimestamp(start), trace.WithAttributes(attributes...))
	if failure != nil {
		span.SetStatus(codes.Error, failure.Error())
	}
	span.End(trace.WithTimestamp(end))
}

// Fail marks a span as one of an error.
func Fail(span Span, what string) { span.SetStatus(codes.Error, what) }

var traceContext propagation.TraceContext

// FormatPlaces writes the value of TraceAttribute, which is empty if no order is in a trace.
func FormatPlaces(places []Place) string {
	traced := false
	words := make([]string, len(places))
	for i, at := range places {
		words[i] = noTrace
		if at.IsSampled() {
			carrier := propagation.MapCarrier{}
			traceContext.Inject(trace.ContextWithSpanContext(context.Background(), at), carrier)
			words[i], traced = carrier.Get("traceparent"), true
		}
	}
	if !traced {
		return ""
	}
	return strings.Join(words, " ")
}

// ParsePlaces reads the value of TraceAttribute for so many orders. What cannot be read is in no trace.
func ParsePlaces(value string, orders int) []Place {
	places := make([]Place, orders)
	if value == "" {
		return places
	}
	words := strings.SplitN(value, " ", orders+1)
	for i := range min(len(words), orders) {
		if words[i] != noTrace {
			places[i] = trace.SpanContextFromContext(traceContext.Extract(context.Background(),
				propagation.MapCarrier{"traceparent": words[i]}))
		}
	}
	return places
}

// TraceID is an attribute of log lines, empty for a place in no trace.
func TraceID(at Place) slog.Attr {
	if !at.HasTraceID() {
		return slog.Attr{}
	}
	return slog.String("trace_id", at.TraceID().String())
}

// Describe says of the span of a request over HTTP what became of it. The code is empty if there was no problem.
func Describe(span Span, method, route string, status int, requestID, code string) {
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route),
		attribute.Int("http.response.status_code", status), attribute.String("stampede.request_id", requestID))
	if code != "" {
		span.SetAttributes(attribute.String("stampede.code", code))
	}
	if status >= 500 {
		Fail(span, strconv.Itoa(status))
	}
}
