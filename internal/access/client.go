package access

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxForwarded bounds the proxies that are looked at, from the right.
const maxForwarded = 32

// Proxies say who the client is, as far as their word can be trusted.
type Proxies struct {
	Trusted []netip.Prefix
	Field   string // the header field in which they say so
}

const (
	// noProxies is the value of TRUSTED_PROXIES that trusts nobody.
	noProxies = "none"
	// xForwardedFor is the header field that most proxies write.
	xForwardedFor = "X-Forwarded-For"
	// forwarded is the header field of RFC 7239.
	forwarded = "Forwarded"
)

// parseProxies reads ranges such as 10.0.0.0/8, comma-separated, or "none".
func parseProxies(text string) ([]netip.Prefix, error) {
	if text == noProxies {
		return nil, nil
	}
	var trusted []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is not a range of addresses such as 10.0.0.0/8", part)
		}
		trusted = append(trusted, prefix.Masked())
	}
	return trusted, nil
}

// checkProxies is parseProxies as a check of the configuration.
func checkProxies(text string) error {
	_, err := parseProxies(text)
	return err
}

// checkForwardedField checks the name of the field that proxies are believed by.
func checkForwardedField(text string) error {
	if text != xForwardedFor && text != forwarded {
		return fmt.Errorf("%q is neither %s nor %s", text, xForwardedFor, forwarded)
	}
	return nil
}

func (p Proxies) trust(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// Client is the address of the client: the nearest one that is no trusted proxy. The field is read from the right,
// where each proxy adds whom it heard the request from, and no further than proxies are trusted; what stands before may
// be made up. A trusted proxy that gives no name is the client itself. It reports false if one names somebody of whom
// no address can be read: who that is could be neither banned nor counted.
//
// Remote is where the request came from, and lines are those of a header field, in order.
func (p Proxies) Client(remote netip.Addr, lines func(field string) []string) (netip.Addr, bool) {
	addr := remote.Unmap()
	if !p.trust(addr) {
		return addr, true
	}
	seen := 0
	for _, line := range slices.Backward(lines(p.Field)) {
		hops, ok := p.split(line)
		if !ok {
			return addr, false
		}
		for _, text := range slices.Backward(hops) {
			if strings.TrimSpace(text) == "" {
				continue // RFC 9110, 5.6.1: an empty element of a list is no element
			}
			if p.Field == forwarded {
				text = forwardedFor(text)
			}
			hop, ok := parseHop(text)
			if seen++; !ok || seen > maxForwarded {
				return addr, false
			}
			if addr = hop; !p.trust(addr) {
				return addr, true
			}
		}
	}
	return addr, true
}

// split splits a line of the field into its elements, and reports whether it can be.
//
// A proxy adds its element to whatever the client wrote, so that nothing there may reach into what is added. No address
// has a comma, so one always ends an element of X-Forwarded-For, in quotes or not. An element of Forwarded may have
// commas in quotes; there a client's open quote leaves the whole line with one too many, which is refused.
func (p Proxies) split(line string) ([]string, bool) {
	if p.Field == forwarded {
		return splitQuoted(line, ',')
	}
	return strings.Split(line, ","), true
}

// forwardedFor is the "for" of an element of Forwarded (RFC 7239, 4), or empty if it has none, or more than the one it
// may.
func forwardedFor(element string) string {
	pairs, _ := splitQuoted(element, ';')
	found, value := 0, ""
	for _, pair := range pairs {
		if name, v, ok := strings.Cut(pair, "="); ok && strings.EqualFold(strings.TrimSpace(name), "for") {
			found, value = found+1, v
		}
	}
	if found != 1 {
		return ""
	}
	return value
}

// parseHop reads an address as proxies write it: bare, with a port, an IPv6 address in brackets, with a zone, all of it
// in quotes. It is returned unmapped and without its zone. "unknown" and made-up names (RFC 7239, 6.2 and 6.3) have
// none.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if inner, ok := strings.CutPrefix(text, `"`); ok {
		if text, ok = strings.CutSuffix(inner, `"`); !ok || strings.ContainsAny(text, `"\\`) {
			return netip.Addr{}, false
		}
		text = strings.TrimSpace(text)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		// With a port, or in brackets without one.
		host := text
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			host = text[1 : len(text)-1]
		} else {
			var port string
			if host, port, err = net.SplitHostPort(text); err != nil || !isPort(port) {
				return netip.Addr{}, false
			}
		}
		if addr, err = netip.ParseAddr(host); err != nil || strings.HasPrefix(text, "[") != addr.Is6() {
			return netip.Addr{}, false
		}
	}
	return addr.Unmap().WithZone(""), true
}

// isPort reports whether text is a port's number, or the made-up name of one (RFC 7239, 6).
func isPort(text string) bool {
	if text == "" || len(text) > 64 {
		return false
	}
	obfuscated := text[0] == '_'
	for _, c := range []byte(text) {
		digit := c >= '0' && c <= '9'
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_' || c == '-'
		if !digit && !(obfuscated && letter) {
			return false
		}
	}
	return true
}

// splitQuoted splits a field's value at a separator that is not in quotes. It reports false if quotes are left open, or
// something is escaped outside of them.
func splitQuoted(text string, separator byte) ([]string, bool) {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '\\':
			return nil, false
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:]), !quoted
}

// AddrOf is the address of an end of a TCP connection.
func AddrOf(end net.Addr) netip.Addr {
	tcp, ok := end.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(tcp.IP)
	return addr
}
