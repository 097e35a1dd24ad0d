# One image per program: docker build --target edge|shop|worker|ctl .

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=devel
# grpcnotrace: otherwise the linker has to keep every method of every library. release: without the commands of ctl that
# start a stack from the sources.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -tags grpcnotrace,release -ldflags "-s -w -X stampede/internal/version.name=$VERSION" -o /out/ ./edge ./shop ./worker ./ctl

# Certificates and time zones, no shell. Its tags move, so the digest says which one it is.
FROM gcr.io/distroless/static-debian12:nonroot@sha256:d093aa3e30dbadd3efe1310db061a14da60299baff8450a17fe0ccc514a16639 AS base
# The certificates of RDS, for tls=true in MYSQL_DSN: Go trusts all files in this directory.
ADD --chmod=644 https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem /etc/ssl/certs/rds.pem
USER 65532:65532
ARG VERSION=devel
LABEL org.opencontainers.image.version=$VERSION

FROM base AS edge
COPY --from=build /out/edge /edge
# The public port, and the port for metrics and profiles.
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/edge", "-healthcheck"]
ENTRYPOINT ["/edge"]

FROM base AS shop
COPY --from=build /out/shop /shop
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/shop", "-healthcheck"]
ENTRYPOINT ["/shop"]

FROM base AS worker
COPY --from=build /out/worker /worker
EXPOSE 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/worker", "-healthcheck"]
ENTRYPOINT ["/worker"]

FROM base AS ctl
COPY --from=build /out/ctl /ctl
ENTRYPOINT ["/ctl"]
