package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TraceAttribute is the message attribute that carries the traces of an envelope's orders: for each order, in their
// order and separated by spaces, its place in a trace in the form of traceparent (W3C Trace Context, section 3.2), or a
// hyphen if it is in none. Of a lone order it is a plain traceparent.
const TraceAttribute = "traceparent"

// noTrace stands in TraceAttribute for an order that is in no trace.
const noTrace = "-"

// defaultShare is the share of the requests that are traced unless OTEL_TRACES_SAMPLER says otherwise. A trace of an
// order has some ten spans, and a crowd makes ten thousands of orders in a second.
const defaultShare = 0.01

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

// Tracing tells whether traces are on.
func Tracing() bool { return tracer != nil }

// StartTraces begins to send traces to where OTEL_EXPORTER_OTLP_ENDPOINT says, if it says anything, by OTLP over HTTP.
// The other variables of OpenTelemetry's SDK are read as well. The traces are lost if there are more than can be sent.
// Stop sends what is left, until its context ends.
func StartTraces(ctx context.Context, service, version string) (stop func(context.Context) error, err error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return func(context.Context) error { return nil }, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		slog.Warn("traces could not be sent", "error", err)
	}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_…: %w", err)
	}
	// Later ones win: what the environment says of the service is closer to it than what the program knows.
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "stampede-"+service), attribute.String("service.version", version),
	), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)}
	if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(defaultShare))))
	}
	provider := sdktrace.NewTracerProvider(options...)
	tracer = provider.Tracer("stampede")
	return provider.Shutdown, nil
}

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
func Add(at Place, name string, kind trace.SpanKind, start, end time.Time, failure error, attributes ...attribute.KeyValue) {
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
			places[i] = trace.SpanContextFromContext(traceContext.Extract(context.Background(), propagation.MapCarrier{"traceparent": words[i]}))
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
