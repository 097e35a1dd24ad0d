package main

import (
	"github.com/valyala/fasthttp"

	"stampede/internal/apidoc"
)

// docsCache is for how long the contract may be kept: an edge serves the one that it was built with.
const docsCache = "public, max-age=300"

// getOpenAPI serves the contract of all servers.
func getOpenAPI(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, docsCache)
	ctx.SetContentType("application/yaml")
	ctx.SetBody(apidoc.Contract)
}

// getDocs serves the contract as a page to read.
func getDocs(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, docsCache)
	ctx.Response.Header.Set(fasthttp.HeaderContentSecurityPolicy, apidoc.Policy)
	ctx.SetContentType("text/html; charset=utf-8")
	ctx.SetBody(apidoc.Page)
}
