package access

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzClientAddress: the address is the connection's, or one that a chain of trusted proxies has told.
func FuzzClientAddress(f *testing.F) {
	trusted, err := parseProxies("10.0.0.0/8,2001:db8::/32")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{10, 0, 0, 1}, "203.0.113.7", "")
	f.Add([]byte{203, 0, 113, 9}, "198.51.100.1", "")
	f.Add([]byte{10, 0, 0, 1}, "198.51.100.1, 203.0.113.7, 10.1.2.3", "10.0.0.2")
	f.Add([]byte{10, 0, 0, 1}, "unknown, 10.0.0.9", "fe80::1%eth0")
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), "::ffff:10.0.0.3,::ffff:203.0.113.7", " , ")
	f.Add([]byte{}, strings.Repeat("10.0.0.1,", 100), "")
	f.Add([]byte{10, 0, 0, 1}, "198.51.100.1", "2001:db9::6%\", 203.0.113.7")
	f.Fuzz(func(t *testing.T, from []byte, first, second string) {
		header := http.Header{"X-Forwarded-For": {first, second}}
		remote, _ := netip.AddrFromSlice(from)
		by := Proxies{trusted, "X-Forwarded-For"}
		got, ok := by.Client(remote, header.Values)
		if !ok {
			return
		}

		remote = remote.Unmap()
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%v is in no form that bans are compared in", got)
		}
		if got == remote || !by.trust(remote) {
			if got != remote {
				t.Errorf("%v was told by %v, who is not trusted", got, remote)
			}
			return
		}
		// Whoever was nearer than the client is trusted.
		var hops []string
		for _, field := range header.Values("X-Forwarded-For") {
			hops = append(hops, strings.Split(field, ",")...)
		}
		for i, hop := range slices.Backward(hops) {
			if strings.TrimSpace(hop) == "" {
				continue
			}
			addr, ok := parseHop(hop)
			if !ok {
				t.Fatalf("%v is behind %q", got, hop)
			}
			if addr == got {
				break
			}
			if !by.trust(addr) || i == 0 {
				t.Fatalf("%v is behind %v, or nowhere in %q", got, addr, hops)
			}
		}
	})
}
