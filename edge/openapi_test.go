package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/apidoc"
	"stampede/internal/apitest"
	"stampede/internal/front"
)

// TestEveryRouteIsInTheTable of the front door, and all that the front door has for the edge is here.
func TestEveryRouteIsInTheTable(t *testing.T) {
	t.Parallel()
	var routes []string
	for method, paths := range (&Edge{}).routes(newMetrics(prometheus.NewRegistry())).List() {
		for _, path := range paths {
			if method != fasthttp.MethodHead {
				routes = append(routes, method+" "+path)
			}
		}
	}
	apitest.WantRoutes(t, front.Edge, routes)
}

// TestDocs looks at the contract as it is served.
func TestDocs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.Send("GET", "/openapi.yaml", ""); r.Status != 200 || r.Body != string(apidoc.Contract) {
		t.Errorf("got %v", r)
	}
	r := w.Send("GET", "/docs", "")
	if r.Status != 200 || r.Body != string(apidoc.Page) || r.Header.Get("Content-Security-Policy") != apidoc.Policy {
		t.Errorf("got %.300s", r.Body)
	}
}
