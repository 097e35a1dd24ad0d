package main

import (
	"fmt"
	"testing"

	"stampede/localstack/stacktest"
)

// TestAmbiguousFraming sends requests whose end a proxy may see elsewhere.
func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stacktest.AmbiguousFramings(t, w.Addr, "POST /nowhere", "", nextRequest)
}

// nextRequest is what follows on the same connection.
const nextRequest = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// TestFramingThroughNginx sends them to an nginx in front of the edge.
func TestFramingThroughNginx(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stacktest.FramingsThroughNginx(t, w.Addr, "POST /nowhere", "", nextRequest)
}

// TestContinue orders as Java's HTTP client does: it sends the body when it is told to.
func TestContinue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	stacktest.Continues(t, w.Addr, "POST /api/orders", "Content-Type: application/json\r\nAuthorization: "+w.Bearer(1)+
		"\r\n",
		fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID))
}
