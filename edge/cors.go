package main

import (
	"github.com/valyala/fasthttp"

	"stampede/internal/front"
	"stampede/internal/problem"
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
	e.guard.Origins.Allow(header{h}, ctx.Request.Header.Peek(fasthttp.HeaderOrigin))
}

// unrouted answers what no route is for: with the methods that the path has on any server, if it has some.
func (e *Edge) unrouted(ctx *fasthttp.RequestCtx) {
	allow := front.AllowInstead(string(ctx.Method()), string(ctx.Path()))
	if allow == "" {
		sendProblem(ctx, problem.NotFound, "")
		return
	}
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderAllow, allow)
	if !ctx.IsOptions() {
		sendProblem(ctx, problem.MethodNotAllowed, "")
		return
	}
	e.guard.Origins.Preflight(header{h}, ctx.Request.Header.Peek(fasthttp.HeaderOrigin),
		ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod), allow)
}
