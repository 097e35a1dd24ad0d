package main

import (
	"net/netip"
	"testing"
	"time"

	"stampede/internal/account"
	"stampede/internal/apitest"
	"stampede/internal/problem"
)

// TestBans: a ban holds without a restart, and ends when it is lifted or over.
func TestBans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	product := w.AddProduct(10_000)
	w.MustPost(1, product.ID, 1)
	from := func(address string) apitest.Reply {
		return w.Post(2, product.ID, 1, "X-Forwarded-For", "203.0.113.9, "+address)
	}
	is := func(what string, r func() apitest.Reply, status int) {
		t.Helper()
		w.Eventually(what, func() bool { return r().Status == status })
	}
	w.Must(w.Accounts.Ban(t.Context(), account.Ban{UserID: 1, Reason: "bot"}))
	is("user 1 is banned", func() apitest.Reply { return w.Get(1, "/api/orders") }, 403)
	apitest.WantCode(t, "an order of a banned user", w.Post(1, product.ID, 1), 403, problem.Banned)
	if r := w.Post(3, product.ID, 1); r.Status != 202 {
		t.Errorf("another user: %v", r)
	}

	w.Must(w.Accounts.Ban(t.Context(), account.Ban{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Reason: "bots",
		ExpiresAt: time.Now().Add(time.Hour)}))
	is("the range is banned", func() apitest.Reply { return from("198.51.100.77") }, 403)
	for _, address := range []string{"198.51.101.1", "::ffff:198.51.99.255"} {
		if r := from(address); r.Status != 202 {
			t.Errorf("%s, outside of the range: %v", address, r)
		}
	}
	apitest.WantCode(t, "an address of the range in IPv6 clothes", from("::ffff:198.51.100.1"), 403, problem.Banned)
	apitest.WantCode(t, "somebody without an account", w.Send("GET", "/api/products", "", "X-Forwarded-For",
		"198.51.100.1"),
		403, problem.Banned)
	for _, request := range [][2]string{
		{"GET", "/healthz"}, {"GET", "/readyz"}, {"GET", "/docs"}, {"GET", "/openapi.yaml"}, {"GET", "/nothing"},
		{"OPTIONS", "/api/orders"}, {"PUT", "/api/orders"}, {"HEAD", "/docs"},
	} {
		if r := w.Send(request[0], request[1], "", "X-Forwarded-For", "198.51.100.1"); r.Status != 403 {
			t.Errorf("%v from a banned address: %v", request, r)
		}
	}
	if r := w.Send("GET", "/healthz", ""); r.Status != 200 {
		t.Errorf("the load balancer's own question: %v", r)
	}
	apitest.WantCode(t, "a client without a name", w.Send("GET", "/api/products", "", "X-Forwarded-For", "unknown"),
		400,
		problem.MalformedRequest)

	if lifted, err := w.Accounts.Unban(t.Context(), account.Ban{UserID: 1}); err != nil || !lifted {
		t.Fatal(lifted, err)
	}
	is("user 1 is admitted again", func() apitest.Reply { return w.Get(1, "/api/orders") }, 200)

	// What is known holds while MySQL is down.
	w.MySQL.Cut()
	apitest.WantCode(t, "without MySQL", from("198.51.100.77"), 403, problem.Banned)
}
