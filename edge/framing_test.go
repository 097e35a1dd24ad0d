package main

import (
	"testing"

	"stampede/localstack/stacktest"
)

// TestAmbiguousFraming sends requests whose end a proxy may see elsewhere.
func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stacktest.AmbiguousFramings(t, w.addr, "POST /nowhere", "", nextRequest)
}

// nextRequest is what follows on the same connection.
const nextRequest = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// TestFramingThroughNginx sends them to an nginx in front of the edge.
func TestFramingThroughNginx(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stacktest.FramingsThroughNginx(t, w.addr, "POST /nowhere", "", nextRequest)
}
