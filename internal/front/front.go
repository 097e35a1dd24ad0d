// Package front says which process answers which request: edge and shop are one address to the world. The front door
// in internal/front/proxy, nginx's configuration and the load balancer's rules follow its table.
package front

import (
	"slices"
	"strings"
)

// The processes that serve the public.
const (
	Edge = "edge"
	Shop = "shop"
)

// Route is a method of a path, and the process that answers it. In a pattern, a name in braces stands for one segment
// of a path that is not empty. Where there is GET there is HEAD, and OPTIONS everywhere.
type Route struct {
	Method, Pattern, Process string
}

// Routes is the whole public interface.
var Routes = []Route{
	{"POST", "/api/orders", Edge},
	{"GET", "/api/orders", Edge},
	{"GET", "/api/orders/{id}", Edge},
	{"GET", "/api/products", Edge},
	{"GET", "/api/products/{id}", Edge},
	{"GET", "/healthz", Edge},
	{"GET", "/readyz", Edge},
	{"GET", "/openapi.yaml", Edge},
	{"GET", "/docs", Edge},

	{"POST", "/api/register", Shop},
	{"POST", "/api/login", Shop},
	{"POST", "/api/refresh", Shop},
	{"POST", "/api/logout", Shop},
	{"POST", "/api/logout-everywhere", Shop},
	{"POST", "/api/password", Shop},
	{"GET", "/api/me", Shop},
	{"POST", "/api/products", Shop},
	{"PATCH", "/api/products/{id}", Shop},
	{"PUT", "/api/products/{id}/restocks/{restock_id}", Shop},
	{"POST", "/api/orders/{id}/payments", Shop},
	{"GET", "/api/orders/{id}/payments", Shop},
	{"POST", "/api/orders/{id}/cancel", Shop},
	{"PUT", "/api/orders/{id}/refunds/{refund_id}", Shop},
	{"GET", "/api/payments/{number}/return", Shop},
	{"POST", "/webhooks/{provider}", Shop},
	{"GET", "/api/wallet", Shop},
	{"GET", "/api/wallet/ledger", Shop},
	{"POST", "/api/wallet/topups", Shop},
}

// Process returns the process that answers a method of a path. A path on which only the shop has methods is the shop's
// whatever the method; on a path of both the shop gets its own methods, and the edge the rest; all else is the edge's.
// The path is as it came, percent-encoded and without its query: /api/%6Cogin is not /api/login.
func Process(method, path string) string {
	shop, edge := false, false
	for _, r := range Routes {
		if !matches(r.Pattern, path) {
			continue
		}
		if r.Process == Shop && r.Method == method {
			return Shop
		}
		shop, edge = shop || r.Process == Shop, edge || r.Process == Edge
	}
	if shop && !edge {
		return Shop
	}
	return Edge
}

// Allow is the value of the header Allow for a path: the methods of both processes, in alphabetical order. It is empty
// for a path that no process knows. "*" has the methods of all paths, as OPTIONS of it asks for them (RFC 9110, 9.3.7).
func Allow(path string) string {
	var methods []string
	for _, r := range Routes {
		if path == "*" || matches(r.Pattern, path) {
			methods = append(methods, r.Method)
		}
	}
	if methods == nil {
		return ""
	}

	if slices.Contains(methods, "GET") {
		methods = append(methods, "HEAD")
	}
	methods = append(methods, "OPTIONS")
	slices.Sort(methods)
	return strings.Join(slices.Compact(methods), ", ")
}

// AllowInstead is what Allow says to a request that a server has no route for. It is empty if there is nothing at the
// path, or if the method is the other process's.
func AllowInstead(method, path string) string {
	allow := Allow(path)
	if method != "OPTIONS" && slices.Contains(strings.Split(allow, ", "), method) {
		return ""
	}
	return allow
}

// Paths returns the patterns on which only a process has methods, and those that it shares with the other, with its
// own methods of each.
func Paths(process string) (alone []string, shared map[string][]string) {
	shared = make(map[string][]string)
	for _, r := range Routes {
		if r.Process != process {
			continue
		}
		if slices.ContainsFunc(Routes, func(o Route) bool { return o.Pattern == r.Pattern && o.Process != process }) {
			shared[r.Pattern] = append(shared[r.Pattern], r.Method)
		} else if !slices.Contains(alone, r.Pattern) {
			alone = append(alone, r.Pattern)
		}
	}
	return alone, shared
}

// matches reports whether a path has the segments of a pattern.
func matches(pattern, path string) bool {
	for {
		want, patternRest, more := strings.Cut(pattern, "/")
		got, pathRest, moreOfPath := strings.Cut(path, "/")
		if named := strings.HasPrefix(want, "{"); named && got == "" || !named && got != want || more != moreOfPath {
			return false
		}
		if !more {
			return true
		}
		pattern, path = patternRest, pathRest
	}
}
