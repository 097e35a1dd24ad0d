package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"
)

// noOrigins is the value of CORS_ORIGINS that lets pages of no other site use the API.
const noOrigins = "none"

// defaultPorts are those that browsers leave out of an origin (RFC 6454, 6.1).
var defaultPorts = map[string]string{"https": "443", "http": "80"}

// parseOrigins reads origins such as https://shop.example.com, comma-separated, or "none".
func parseOrigins(text string) (map[string]bool, error) {
	if text == noOrigins {
		return nil, nil
	}
	origins := make(map[string]bool)
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

var (
	contentTypeOptions, noSniff = []byte("X-Content-Type-Options"), []byte("nosniff")
	cacheControl, noStore       = []byte(fasthttp.HeaderCacheControl), []byte("no-store")
)

// finish gives an answer what every answer has. Nobody may take it for another type than it says, nor keep it unless it
// says so; of an order or an account nobody but its owner may know. Pages of other sites see it if they are listed.
func (e *Edge) finish(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.SetCanonical(contentTypeOptions, noSniff)
	if len(h.PeekBytes(cacheControl)) == 0 {
		h.SetCanonical(cacheControl, noStore)
	}
	if len(e.origins) == 0 {
		return
	}
	h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	if origin := ctx.Request.Header.Peek(fasthttp.HeaderOrigin); e.origins[string(origin)] {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
		h.Set(fasthttp.HeaderAccessControlExposeHeaders, readableHeaders)
	}
}

// tellMethods answers OPTIONS: with Allow, which the router has set, and what a browser asks before it lets a page of
// another site send a request (the Fetch standard, "CORS-preflight fetch").
func (e *Edge) tellMethods(ctx *fasthttp.RequestCtx) {
	if !e.origins[string(ctx.Request.Header.Peek(fasthttp.HeaderOrigin))] ||
		len(ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return
	}
	h := &ctx.Response.Header
	h.SetBytesV(fasthttp.HeaderAccessControlAllowMethods, h.Peek(fasthttp.HeaderAllow))
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, sendableHeaders)
	h.Set(fasthttp.HeaderAccessControlMaxAge, preflightAge)
}
