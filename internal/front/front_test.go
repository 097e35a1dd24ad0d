package front

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestProcess(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]string{
		// Each its own.
		"POST /api/orders": Edge, "GET /api/orders": Edge, "GET /api/orders/a": Edge, "GET /docs": Edge,
		"POST /api/login": Shop, "POST /api/logout": Shop, "POST /api/logout-everywhere": Shop, "GET /api/me": Shop,

		// The paths of the shop alone are its own whatever the method.
		"GET /api/login": Shop, "HEAD /api/login": Shop, "OPTIONS /api/me": Shop, "BREW /api/password": Shop,
		"PUT /api/products/1/restocks/a": Shop, "GET /api/products/1/restocks/a": Shop,
		"PUT /api/products/restocks/restocks/restocks": Shop, "PUT /api/products/%2F/restocks/%2F": Shop,

		// On the paths of both it has its own methods.
		"POST /api/products": Shop, "PATCH /api/products/1": Shop, "GET /api/products": Edge,
		"HEAD /api/products": Edge, "OPTIONS /api/products": Edge, "OPTIONS /api/products/1": Edge,
		"DELETE /api/products": Edge,
		"PATCH /api/products":  Edge, "POST /api/products/1": Edge, "post /api/products": Edge,

		// Nobody's paths are the edge's.
		"POST /": Edge, "POST ": Edge, "OPTIONS *": Edge, "POST /api/login/": Edge, "POST /api//login": Edge,
		"POST //api/login": Edge, "POST /API/login": Edge, "POST /api/%6Cogin": Edge, "POST /api/login%20": Edge,
		"POST /api/./login": Edge, "POST /api/orders/../login": Edge, "POST /api/logi": Edge, "POST /api/login/x": Edge,
		"PATCH /api/products/": Edge, "PATCH /api/products/1/": Edge, "PATCH /api/products/1/2": Edge,
		"PUT /api/products//restocks/a": Edge, "PUT /api/products/1/restocks/": Edge,
		"PUT /api/products/1/restocks": Edge, "PUT /api/products/1/restocks/a/b": Edge,
		"PUT /api/products/1/2/restocks/a": Edge,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := Process(method, path); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	for _, r := range Routes {
		if got := Process(r.Method, strings.NewReplacer("{", "", "}", "").Replace(r.Pattern)); got != r.Process {
			t.Errorf("%s %s goes to %s, and is a route of %s", r.Method, r.Pattern, got, r.Process)
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/api/orders": "GET, HEAD, OPTIONS, POST", "/api/orders/1": "GET, HEAD, OPTIONS",
		"/api/products": "GET, HEAD, OPTIONS, POST", "/api/products/1": "GET, HEAD, OPTIONS, PATCH",
		"/api/products/1/restocks/a": "OPTIONS, PUT", "/api/login": "OPTIONS, POST", "/api/me": "GET, HEAD, OPTIONS",
		"*": "GET, HEAD, OPTIONS, PATCH, POST, PUT", "/": "", "": "", "/api/login/": "", "/nowhere": "",
	} {
		if got := Allow(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestRoutes: no route is there twice, and no path fits two patterns, of which the order would have to choose.
func TestRoutes(t *testing.T) {
	t.Parallel()
	for i, r := range Routes {
		if !strings.HasPrefix(r.Pattern, "/") || r.Process != Edge && r.Process != Shop {
			t.Errorf("%v is no route", r)
		}
		for _, other := range Routes[:i] {
			if other.Method == r.Method && other.Pattern == r.Pattern {
				t.Errorf("%s %s is there twice", r.Method, r.Pattern)
			}
			if other.Pattern != r.Pattern && (matches(other.Pattern, r.Pattern) || matches(r.Pattern, other.Pattern)) {
				t.Errorf("a path may fit both %s and %s", other.Pattern, r.Pattern)
			}
		}
	}

	alone, shared := Paths(Shop)
	if len(alone) != 16 || !slices.Contains(alone, "/api/products/{id}/restocks/{restock_id}") ||
		!slices.Contains(alone, "/webhooks/{provider}") {
		t.Errorf("the shop's own paths are %v", alone)
	}
	want := map[string][]string{"/api/products": {"POST"}, "/api/products/{id}": {"PATCH"}}
	if !maps.EqualFunc(shared, want, slices.Equal) {
		t.Errorf("the shop shares %v", shared)
	}
}
