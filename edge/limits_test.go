package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"stampede/internal/access"
	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
)

// behindProxy makes an edge believe what the test says of its address.
func behindProxy(e *Edge) {
	e.guard.Proxies.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// TestRateLimits: a user and an address have a bucket each, on all routes of the API together, and answers say what
// is left in it.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy, func(e *Edge) {
		if err := e.guard.Limit("0.2/5", "0.5/8"); err != nil {
			t.Error(err)
		}
	})
	from := func(address string, user order.UserID) apitest.Reply {
		fields := []string{"X-Forwarded-For", address}
		if user != 0 {
			fields = append(fields, "Authorization", w.Bearer(user))
			return w.Send("GET", "/api/orders", "", fields...)
		}
		return w.Send("GET", "/api/products", "", fields...)
	}
	wantLeft := func(r apitest.Reply, policy, left string) {
		t.Helper()
		if r.Header.Get("RateLimit-Policy") != policy ||
			!regexp.MustCompile("^"+left+"$").MatchString(r.Header.Get("RateLimit")) {
			t.Errorf("%v has RateLimit-Policy %s and RateLimit %s", r, r.Header.Get("RateLimit-Policy"),
				r.Header.Get("RateLimit"))
		}
	}
	const both, alone = `"address";q=8;w=16, "user";q=5;w=25`, `"address";q=8;w=16`
	wantLeft(from("192.0.2.1", 1), both, `"address";r=7;t=2, "user";r=4;t=5`)
	wantLeft(from("192.0.2.2", 1), both, `"address";r=7;t=2, "user";r=3;t=(9|10)`)
	for i := range 3 {
		if r := from(fmt.Sprint("192.0.2.", i+3), 1); r.Status != http.StatusOK {
			t.Errorf("request %d of user 1: %v", i+3, r)
		}
	}
	wantLimited := func(what string, r apitest.Reply, policy, left string, most int) {
		t.Helper()
		apitest.WantCode(t, what, r, http.StatusTooManyRequests, problem.RateLimited)
		wantLeft(r, policy, left)
		if after, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || after < 1 || after > most+most/2+1 {
			t.Errorf("%s: Retry-After %q", what, r.Header.Get("Retry-After"))
		}
	}
	wantLimited("user 1 from another address", from("192.0.2.9", 1), both, `"address";r=7;t=2, "user";r=0;t=2[2-5]`, 5)
	product := w.AddProduct(5)
	wantLimited("an order of user 1", w.Post(1, product.ID, 1), `"user";q=5;w=25`, `"user";r=0;t=2[2-5]`, 5)
	if r := from("192.0.2.1", 2); r.Status != http.StatusOK {
		t.Errorf("another user: %v", r)
	}

	for i := range 8 {
		if r := from("198.51.100.1", 0); r.Status != http.StatusOK {
			t.Fatalf("request %d of an address: %v", i, r)
		}
	}
	wantLimited("the address", from("198.51.100.1", 0), alone, `"address";r=0;t=1[4-6]`, 2)
	wantLimited("a user whose address is limited", from("198.51.100.1", 77), alone, `"address";r=0;t=1[4-6]`, 2)
	for i := range 8 {
		if r := from(fmt.Sprintf("2001:db8:0:1::%d", i), 0); r.Status != http.StatusOK {
			t.Fatalf("request %d of a network: %v", i, r)
		}
	}
	wantLimited("another address of the network", from("2001:db8:0:1:ffff::1", 0), alone, `"address";r=0;t=1[4-6]`, 2)
	if r := from("2001:db8:0:2::1", 0); r.Status != http.StatusOK {
		t.Errorf("another network: %v", r)
	}

	for range 20 { // neither a client on this machine nor a load balancer's questions are counted by address
		if r := w.Send("GET", "/api/products", ""); r.Status != http.StatusOK || r.Header.Get("RateLimit") != "" {
			t.Fatalf("from this machine: %v", r)
		}
		if r := w.Send("GET", "/healthz", "", "X-Forwarded-For", "198.51.100.1"); r.Status != http.StatusOK {
			t.Fatalf("the load balancer's question: %v", r)
		}
	}
	w.Eventually("the address may ask again", func() bool { return from("198.51.100.1", 0).Status == http.StatusOK })
}

// TestLimitsHoldEverywhere: what is no part of the API counts as well, a network of IPv6 counts as a whole, and probes
// have a share of their own.
func TestLimitsHoldEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy, func(e *Edge) {
		if err := e.guard.Limit(access.NoLimit, "0.1/3"); err != nil {
			t.Error(err)
		}
	})
	send := func(method, path, address string) apitest.Reply {
		return w.Send(method, path, "", "X-Forwarded-For", address)
	}
	for i, request := range [][2]string{
		{"GET", "/docs"}, {"GET", "/openapi.yaml"}, {"GET", "/nothing"}, {"OPTIONS", "/api/orders"},
		{"PUT", "/api/orders"},
	} {
		address := fmt.Sprint("192.0.2.", i+1)
		for range 3 {
			if r := send(request[0], request[1], address); r.Status == http.StatusTooManyRequests {
				t.Fatalf("%v: %v", request, r)
			}
		}
		apitest.WantCode(t, fmt.Sprint(request), send(request[0], request[1], address), http.StatusTooManyRequests,
			problem.RateLimited)
		if r := send("GET", "/readyz", address); r.Status != http.StatusOK {
			t.Errorf("a probe from there: %v", r)
		}
	}

	refused := 0
	for i := range 3*8 + 2 {
		if r := send("GET", "/api/products", fmt.Sprintf("2001:db8:1:%x::1",
			i)); r.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("a network of IPv6 may ask as often as it has addresses")
	}
	if r := send("GET", "/api/products", "2001:db8:2::1"); r.Status != http.StatusOK {
		t.Errorf("another network: %v", r)
	}

	// Who is refused takes nothing from the neighbours.
	for range 2 * 3 * 8 {
		send("GET", "/api/products", "2001:db8:3::1")
	}
	if r := send("GET", "/api/products", "2001:db8:3:1::1"); r.Status != http.StatusOK {
		t.Errorf("a neighbour of somebody who asks too often: %v", r)
	}
}
