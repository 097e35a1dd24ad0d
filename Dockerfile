# One image per program: docker build --target edge|worker|ctl .

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# grpcnotrace: otherwise the linker has to keep every method of every library.
RUN CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags '-s -w' -o /out/ ./edge ./worker ./ctl

# The base has certificates and time zones, no shell, and a user without rights.
FROM gcr.io/distroless/static-debian12:nonroot AS base

FROM base AS edge
COPY --from=build /out/edge /edge
# The public port, and the port for metrics and profiles.
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/edge", "-healthcheck"]
ENTRYPOINT ["/edge"]

FROM base AS worker
COPY --from=build /out/worker /worker
EXPOSE 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/worker", "-healthcheck"]
ENTRYPOINT ["/worker"]

FROM base AS ctl
COPY --from=build /out/ctl /ctl
ENTRYPOINT ["/ctl"]
