package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// behindProxy makes an edge believe what the test says of its address.
func behindProxy(e *Edge) { e.proxies.trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// TestRateLimits: a user and an address have a bucket each, on all routes of the API together, and answers say what
// is left in it.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy, func(e *Edge) {
		if err := e.limit("0.2/5", "0.5/8", noLimit); err != nil {
			t.Error(err)
		}
	})
	from := func(address string, user int64) reply {
		fields := []string{"X-Forwarded-For", address}
		if user != 0 {
			fields = append(fields, "Authorization", w.bearer(user))
			return w.send("GET", "/api/orders", "", fields...)
		}
		return w.send("GET", "/api/products", "", fields...)
	}
	wantLeft := func(r reply, policy, left string) {
		t.Helper()
		if r.header.Get("RateLimit-Policy") != policy ||
			!regexp.MustCompile("^"+left+"$").MatchString(r.header.Get("RateLimit")) {
			t.Errorf("%v has RateLimit-Policy %s and RateLimit %s", r, r.header.Get("RateLimit-Policy"),
				r.header.Get("RateLimit"))
		}
	}
	const both, alone = `"address";q=8;w=16, "user";q=5;w=25`, `"address";q=8;w=16`
	wantLeft(from("192.0.2.1", 1), both, `"address";r=7;t=2, "user";r=4;t=5`)
	wantLeft(from("192.0.2.2", 1), both, `"address";r=7;t=2, "user";r=3;t=(9|10)`)
	for i := range 3 {
		if r := from(fmt.Sprint("192.0.2.", i+3), 1); r.status != http.StatusOK {
			t.Errorf("request %d of user 1: %v", i+3, r)
		}
	}
	wantLimited := func(what string, r reply, policy, left string, most int) {
		t.Helper()
		wantCode(t, what, r, http.StatusTooManyRequests, rateLimited)
		wantLeft(r, policy, left)
		if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 || after > most+most/2+1 {
			t.Errorf("%s: Retry-After %q", what, r.header.Get("Retry-After"))
		}
	}
	wantLimited("user 1 from another address", from("192.0.2.9", 1), both, `"address";r=7;t=2, "user";r=0;t=2[2-5]`, 5)
	product := w.addProduct(5)
	wantLimited("an order of user 1", w.post(1, product.ID, 1), `"user";q=5;w=25`, `"user";r=0;t=2[2-5]`, 5)
	if r := from("192.0.2.1", 2); r.status != http.StatusOK {
		t.Errorf("another user: %v", r)
	}

	for i := range 8 {
		if r := from("198.51.100.1", 0); r.status != http.StatusOK {
			t.Fatalf("request %d of an address: %v", i, r)
		}
	}
	wantLimited("the address", from("198.51.100.1", 0), alone, `"address";r=0;t=1[4-6]`, 2)
	wantLimited("a user whose address is limited", from("198.51.100.1", 77), alone, `"address";r=0;t=1[4-6]`, 2)
	for i := range 8 {
		if r := from(fmt.Sprintf("2001:db8:0:1::%d", i), 0); r.status != http.StatusOK {
			t.Fatalf("request %d of a network: %v", i, r)
		}
	}
	wantLimited("another address of the network", from("2001:db8:0:1:ffff::1", 0), alone, `"address";r=0;t=1[4-6]`, 2)
	if r := from("2001:db8:0:2::1", 0); r.status != http.StatusOK {
		t.Errorf("another network: %v", r)
	}

	for range 20 { // neither a client on this machine nor a load balancer's questions are counted by address
		if r := w.send("GET", "/api/products", ""); r.status != http.StatusOK || r.header.Get("RateLimit") != "" {
			t.Fatalf("from this machine: %v", r)
		}
		if r := w.send("GET", "/healthz", "", "X-Forwarded-For", "198.51.100.1"); r.status != http.StatusOK {
			t.Fatalf("the load balancer's question: %v", r)
		}
	}
	w.eventually("the address may ask again", func() bool { return from("198.51.100.1", 0).status == http.StatusOK })
}

func newRequest(method, path string) *fasthttp.RequestCtx {
	var request fasthttp.Request
	request.Header.SetMethod(method)
	request.SetRequestURI(path)
	var ctx fasthttp.RequestCtx
	ctx.Init(&request, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, nil)
	return &ctx
}

// TestLimitsAreBounded asks from more users than are remembered.
func TestLimitsAreBounded(t *testing.T) {
	t.Parallel()
	l, err := newLimiter[int64]("user", "1/1")
	if err != nil {
		t.Fatal(err)
	}
	for user := range int64(maxBuckets + 1000) {
		ctx := newRequest("GET", "/")
		if !l.allow(ctx, user) || (user%1000 == 0 && l.allow(ctx, user)) {
			t.Fatalf("user %d", user)
		}
	}
	if n := l.buckets.Len(); n != maxBuckets {
		t.Errorf("%d users are remembered", n)
	}
}

func TestParseLimit(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "5", "5/", "/5", "0/5", "-1/5", "5/0", "5/-1", "5/1.5", "NaN/5", "Inf/5", "1e9/5",
		"5/5/5", "5/10000000", "on"} {
		if l, err := parseLimit(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, l)
		}
	}
	for text, want := range map[string]limit{"off": {}, "5/10": {5, 10}, "0.5/1": {0.5, 1}} {
		if l, err := parseLimit(text); err != nil || l != want {
			t.Errorf("%q: %+v, %v", text, l, err)
		}
	}
	w, err := newLimiter[int64]("user", noLimit)
	for range 10_000 {
		if ctx := newRequest("GET", "/"); err != nil || !w.allow(ctx, 1) ||
			len(ctx.Response.Header.Peek("RateLimit")) != 0 {
			t.Fatal("a limit that is off is in force", err)
		}
	}
}

// TestBucketFills: tokens come back at the rate, whatever was refused meanwhile.
func TestBucketFills(t *testing.T) {
	t.Parallel()
	l, err := newLimiter[int64]("user", "100/10")
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	begin := time.Now()
	for time.Since(begin) < 500*time.Millisecond {
		if l.allow(newRequest("GET", "/"), 1) {
			allowed++
		}
	}
	if most := 10 + int(100*time.Since(begin).Seconds()) + 1; allowed < 15 || allowed > most {
		t.Errorf("%d requests in half a second, at most %d", allowed, most)
	}
}

// TestLimitsHoldEverywhere: what is no part of the API counts as well, a network of IPv6 counts as a whole, and probes
// have a share of their own.
func TestLimitsHoldEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy, func(e *Edge) {
		if err := e.limit(noLimit, "0.1/3", noLimit); err != nil {
			t.Error(err)
		}
	})
	send := func(method, path, address string) reply { return w.send(method, path, "", "X-Forwarded-For", address) }
	for i, request := range [][2]string{
		{"GET", "/docs"}, {"GET", "/openapi.yaml"}, {"GET", "/nothing"}, {"OPTIONS", "/api/orders"},
		{"PUT", "/api/orders"},
	} {
		address := fmt.Sprint("192.0.2.", i+1)
		for range 3 {
			if r := send(request[0], request[1], address); r.status == http.StatusTooManyRequests {
				t.Fatalf("%v: %v", request, r)
			}
		}
		wantCode(t, fmt.Sprint(request), send(request[0], request[1], address), http.StatusTooManyRequests, rateLimited)
		if r := send("GET", "/readyz", address); r.status != http.StatusOK {
			t.Errorf("a probe from there: %v", r)
		}
	}

	refused := 0
	for i := range 3*networkShare + 2 {
		if r := send("GET", "/api/products", fmt.Sprintf("2001:db8:1:%x::1",
			i)); r.status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("a network of IPv6 may ask as often as it has addresses")
	}
	if r := send("GET", "/api/products", "2001:db8:2::1"); r.status != http.StatusOK {
		t.Errorf("another network: %v", r)
	}

	// Who is refused takes nothing from the neighbours.
	for range 2 * 3 * networkShare {
		send("GET", "/api/products", "2001:db8:3::1")
	}
	if r := send("GET", "/api/products", "2001:db8:3:1::1"); r.status != http.StatusOK {
		t.Errorf("a neighbour of somebody who asks too often: %v", r)
	}
}
