// Package otlp sends traces to a collector, by the OpenTelemetry protocol. It is apart from package telemetry so that a
// program that sends none is no larger for it.
package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"stampede/internal/telemetry"
)

// defaultShare is the share of the requests that are traced unless OTEL_TRACES_SAMPLER says otherwise. A trace of an
// order has some ten spans, and a crowd makes ten thousands of orders in a second.
const defaultShare = 0.01

// Start begins to send traces to where OTEL_EXPORTER_OTLP_ENDPOINT says, if it says anything, by OTLP over HTTP.
// The other variables of OpenTelemetry's SDK are read as well. The traces are lost if there are more than can be sent.
// Stop sends what is left, until its context ends.
func Start(ctx context.Context, service, version string) (stop func(context.Context) error, err error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return func(context.Context) error { return nil }, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		slog.Warn("traces: they cannot be sent", "error", err)
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
	telemetry.TraceBy(provider.Tracer("stampede"))
	return provider.Shutdown, nil
}
