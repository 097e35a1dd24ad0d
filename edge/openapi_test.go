package main

import (
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/apidoc"
	"stampede/internal/contract"
	"stampede/internal/front"
)

// apiContract is the contract that every answer in these tests is held against.
var apiContract = sync.OnceValue(func() *contract.Contract {
	c, err := contract.Load(apidoc.Contract)
	if err != nil {
		panic(err)
	}
	return c
})

// TestEveryRouteIsInTheTable of the front door, and all that the front door has for the edge is here. HEAD, which is
// wherever GET is, goes without saying.
func TestEveryRouteIsInTheTable(t *testing.T) {
	t.Parallel()
	var here, there []string
	for method, paths := range (&Edge{}).routes(newMetrics(prometheus.NewRegistry())).List() {
		for _, path := range paths {
			if method != fasthttp.MethodHead {
				here = append(here, method+" "+path)
			}
		}
	}
	for _, r := range front.Routes {
		if r.Process == front.Edge {
			there = append(there, r.Method+" "+r.Pattern)
		}
	}
	slices.Sort(here)
	slices.Sort(there)
	if !slices.Equal(here, there) {
		t.Errorf("the edge has\n%v, the front door\n%v", here, there)
	}
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
