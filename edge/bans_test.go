package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"stampede/internal/account"
)

// TestBans: a ban holds without a restart, and ends when it is lifted or over.
func TestBans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	product := w.addProduct(10_000)
	w.mustPost(1, product.ID, 1)
	from := func(address string) reply {
		return w.post(2, product.ID, 1, "X-Forwarded-For", "203.0.113.9, "+address)
	}
	is := func(what string, r func() reply, status int) {
		t.Helper()
		w.eventually(what, func() bool { return r().status == status })
	}
	w.must(w.accounts.Ban(t.Context(), account.Ban{UserID: 1, Reason: "bot"}))
	is("user 1 is banned", func() reply { return w.get(1, "/api/orders") }, 403)
	wantCode(t, "an order of a banned user", w.post(1, product.ID, 1), 403, banned)
	if r := w.post(3, product.ID, 1); r.status != 202 {
		t.Errorf("another user: %v", r)
	}

	w.must(w.accounts.Ban(t.Context(), account.Ban{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Reason: "bots",
		ExpiresAt: time.Now().Add(time.Hour)}))
	is("the range is banned", func() reply { return from("198.51.100.77") }, 403)
	for _, address := range []string{"198.51.101.1", "::ffff:198.51.99.255"} {
		if r := from(address); r.status != 202 {
			t.Errorf("%s, outside of the range: %v", address, r)
		}
	}
	wantCode(t, "an address of the range in IPv6 clothes", from("::ffff:198.51.100.1"), 403, banned)
	wantCode(t, "somebody without an account", w.send("GET", "/api/products", "", "X-Forwarded-For", "198.51.100.1"),
		403, banned)
	for _, request := range [][2]string{
		{"GET", "/healthz"}, {"GET", "/readyz"}, {"GET", "/docs"}, {"GET", "/openapi.yaml"}, {"GET", "/nothing"},
		{"OPTIONS", "/api/orders"}, {"PUT", "/api/orders"}, {"HEAD", "/docs"},
	} {
		if r := w.send(request[0], request[1], "", "X-Forwarded-For", "198.51.100.1"); r.status != 403 {
			t.Errorf("%v from a banned address: %v", request, r)
		}
	}
	if r := w.send("GET", "/healthz", ""); r.status != 200 {
		t.Errorf("the load balancer's own question: %v", r)
	}
	wantCode(t, "a client without a name", w.send("GET", "/api/products", "", "X-Forwarded-For", "unknown"), 400,
		malformedRequest)

	if lifted, err := w.accounts.Unban(t.Context(), account.Ban{UserID: 1}); err != nil || !lifted {
		t.Fatal(lifted, err)
	}
	is("user 1 is admitted again", func() reply { return w.get(1, "/api/orders") }, 200)

	// What is known holds while MySQL is down, and a ban ends by itself.
	w.mysql.cut()
	wantCode(t, "without MySQL", from("198.51.100.77"), 403, banned)
	list := *w.edge.bans.current.Load()
	for prefix := range list.prefixes {
		list.prefixes = map[netip.Prefix]time.Time{prefix: time.Now().Add(-time.Second)}
	}
	w.edge.bans.current.Store(&list)
	if r := from("198.51.100.77"); r.status != 202 {
		t.Errorf("after the end of the ban: %v", r)
	}
}

// TestClientAddress: X-Forwarded-For counts only as far as proxies are trusted.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted, err := parseProxies("10.0.0.0/8, 2001:db8::/32")
	if err != nil {
		t.Fatal(err)
	}
	const unreadable = "unreadable"
	for _, test := range []struct {
		remote string
		header []string
		want   string
	}{
		{"192.0.2.1", nil, "192.0.2.1"},
		{"192.0.2.1", []string{"203.0.113.1"}, "192.0.2.1"}, // forged by a client that came directly
		{"10.0.0.1", nil, "10.0.0.1"},
		{"10.0.0.1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.1", []string{"198.51.100.1, 203.0.113.1"}, "203.0.113.1"}, // the left one is forged
		{"10.0.0.1", []string{"198.51.100.1", "203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.1", []string{"203.0.113.1, 10.2.3.4,10.9.9.9"}, "203.0.113.1"},
		{"10.0.0.1", []string{"203.0.113.1, 2001:db8::7"}, "203.0.113.1"},
		{"10.0.0.1", []string{"10.2.3.4"}, "10.2.3.4"},
		{"10.0.0.1", []string{"203.0.113.1, nonsense"}, unreadable},
		{"10.0.0.1", []string{"nonsense, 10.3.3.3"}, unreadable},
		// the client's own nonsense is nobody's business
		{"10.0.0.1", []string{"nonsense, 203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.1", []string{"unknown"}, unreadable},
		{"10.0.0.1", []string{"_hidden"}, unreadable},
		{"10.0.0.1", []string{"203.0.113.1:4711"}, "203.0.113.1"},
		{"10.0.0.1", []string{"203.0.113.1:_port"}, "203.0.113.1"},
		{"10.0.0.1", []string{"203.0.113.1:port"}, unreadable},
		{"10.0.0.1", []string{"203.0.113.1:"}, unreadable},
		{"10.0.0.1", []string{"[2001:db9::1]:443"}, "2001:db9::1"},
		{"10.0.0.1", []string{"[2001:db9::1]"}, "2001:db9::1"},
		{"10.0.0.1", []string{"[2001:db9::1"}, unreadable},
		{"10.0.0.1", []string{"2001:db9::1]"}, unreadable},
		{"10.0.0.1", []string{"[203.0.113.1]:80"}, unreadable},
		{"10.0.0.1", []string{"\"[2001:db9::1]:443\""}, "2001:db9::1"},
		{"10.0.0.1", []string{"[::ffff:203.0.113.1]:80"}, "203.0.113.1"},
		{"10.0.0.1", []string{"[fe80::1%25eth0]:80, 10.3.3.3:99"}, "fe80::1"},
		{"10.0.0.1", []string{"203.0.113.1, , "}, "203.0.113.1"},
		// What a client wrote takes nothing from what the proxy added to it.
		{"10.0.0.1", []string{`2001:db9::6%", 203.0.113.1`}, "203.0.113.1"},
		{"10.0.0.1", []string{`"2001:db9::6%, 203.0.113.1`}, "203.0.113.1"},
		{"10.0.0.1", []string{`2001:db9::6%"\, 203.0.113.1`}, "203.0.113.1"},
		{"10.0.0.1", []string{""}, "10.0.0.1"},
		{"10.0.0.1", []string{"::ffff:203.0.113.1"}, "203.0.113.1"},
		{"::ffff:10.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"10.0.0.1", []string{"203.0.113.1" + strings.Repeat(",10.0.0.2", 2*maxForwarded)}, unreadable},
	} {
		var request fasthttp.Request
		for _, value := range test.header {
			request.Header.Add("X-Forwarded-For", value)
		}
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, &net.TCPAddr{IP: net.ParseIP(test.remote), Port: 1}, nil)
		by := proxies{trusted, "X-Forwarded-For"}
		got, ok := by.client(&ctx)
		if text := map[bool]string{true: got.String(), false: unreadable}[ok]; text != test.want {
			t.Errorf("from %s with %q: %s, want %s", test.remote, test.header, text, test.want)
		}
	}
	for header, want := range map[string]string{
		`for=203.0.113.1`:                                             "203.0.113.1",
		`For="[2001:db9::17]:4711"`:                                   "2001:db9::17",
		`for=192.0.2.60;proto=http;by=203.0.113.43`:                   "192.0.2.60",
		`for=192.0.2.43, for="10.2.2.2:80";by="a,b;for=198.51.100.1"`: "192.0.2.43",
		`proto=https`:                           unreadable,
		`for=unknown`:                           unreadable,
		`for=_gazonk, for=10.0.0.9`:             unreadable,
		`for="203.0.113.1`:                      unreadable,
		`203.0.113.1`:                           unreadable,
		`for=198.51.100.6;x=", for=203.0.113.1`: unreadable, // a client's open quote is not the proxy's
		`for=198.51.100.6;x=", for="[2001:db9::17]:4711"`:  unreadable,
		`for=198.51.100.6;x="\, for=203.0.113.1`:           unreadable,
		`for=198.51.100.6;x=", for=10.0.0.9;host="\";a=b"`: unreadable,
		`for=198.51.100.6;for=203.0.113.1`:                 unreadable,
	} {
		var request fasthttp.Request
		request.Header.Add("Forwarded", header)
		request.Header.Add("X-Forwarded-For", "198.51.100.9") // which nobody has configured
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, &net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 1}, nil)
		by := proxies{trusted, forwarded}
		got, ok := by.client(&ctx)
		if text := map[bool]string{true: got.String(), false: unreadable}[ok]; text != want {
			t.Errorf("Forwarded: %s is %s, want %s", header, text, want)
		}
	}
	for _, bad := range []string{"", "10.0.0.0", "10.0.0.0/33", "none,10.0.0.0/8", "10.0.0.0/8,"} {
		if _, err := parseProxies(bad); err == nil {
			t.Errorf("TRUSTED_PROXIES=%q is taken", bad)
		}
	}
	if p, err := parseProxies(noProxies); p != nil || err != nil {
		t.Error(p, err)
	}
}
