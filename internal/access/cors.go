package access

import (
	"fmt"
	"net/url"
	"strings"
)

// noOrigins is the value of CORS_ORIGINS that lets pages of no other site use the API.
const noOrigins = "none"

// defaultPorts are those that browsers leave out of an origin (RFC 6454, 6.1).
var defaultPorts = map[string]string{"https": "443", "http": "80"}

// Origins are those of other sites whose pages may use the API.
type Origins map[string]bool

// parseOrigins reads origins such as https://shop.example.com, comma-separated, or "none".
func parseOrigins(text string) (Origins, error) {
	if text == noOrigins {
		return nil, nil
	}
	origins := Origins{}
	for part := range strings.SplitSeq(text, ",") {
		origin := strings.TrimSpace(part)
		u, err := url.Parse(origin)
		// Browsers send the scheme and the host in small letters, and nothing else (RFC 6454, 6.2).
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Contains(u.Host, "*") ||
			origin != strings.ToLower(u.Scheme+"://"+u.Host) || u.Port() == defaultPorts[u.Scheme] && u.Port() != "" {
			return nil, fmt.Errorf("%q is not an origin such as https://shop.example.com", origin)
		}
		origins[origin] = true
	}
	return origins, nil
}

// checkOrigins is parseOrigins as a check of the configuration.
func checkOrigins(text string) error {
	_, err := parseOrigins(text)
	return err
}

const (
	// readableHeaders are those of an answer that a page of another site may read; some it may read anyway.
	readableHeaders = "Allow, Location, RateLimit, RateLimit-Policy, Retry-After, Stampede-Request-Id, WWW-Authenticate"
	// sendableHeaders are those that it may send.
	sendableHeaders = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Traceparent"
	// preflightAge is for how many seconds a browser need not ask again what it may send.
	preflightAge = "600"
)

// Allow lets pages of another site see an answer, if they may.
func (o Origins) Allow(answer Header, origin []byte) {
	if len(o) == 0 {
		return
	}
	answer.Set("Vary", "Origin")
	if o[string(origin)] {
		answer.Set("Access-Control-Allow-Origin", string(origin))
		answer.Set("Access-Control-Expose-Headers", readableHeaders)
	}
}

// Preflight answers what a browser asks before it lets a page of another site send a request of some method (the Fetch
// standard, "CORS-preflight fetch"). Methods are those that the path has.
func (o Origins) Preflight(answer Header, origin, method []byte, methods string) {
	if !o[string(origin)] || len(method) == 0 {
		return
	}
	answer.Set("Access-Control-Allow-Methods", methods)
	answer.Set("Access-Control-Allow-Headers", sendableHeaders)
	answer.Set("Access-Control-Max-Age", preflightAge)
}
