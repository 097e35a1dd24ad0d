package access

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

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
		header := http.Header{"X-Forwarded-For": test.header}
		by := Proxies{trusted, "X-Forwarded-For"}
		got, ok := by.Client(netip.MustParseAddr(test.remote), header.Values)
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
		fields := http.Header{"Forwarded": {header}, "X-Forwarded-For": {"198.51.100.9"}} // which nobody has configured
		by := Proxies{trusted, forwarded}
		got, ok := by.Client(netip.MustParseAddr("10.0.0.1"), fields.Values)
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
