package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"

	"github.com/valyala/fasthttp"
)

//go:embed openapi.yaml
var openAPI []byte

// docsPage is the contract as a page. It is made from openapi.yaml, docs.html and docs.css by a test, which fails when
// it is out of date: go test ./edge -run TestDocsPage -update
//
//go:embed docs.gen.html
var docsPage []byte

//go:embed docs.css
var docsStyle string

// docsCache is for how long the contract may be kept: an edge serves the one that it was built with.
const docsCache = "public, max-age=300"

// getOpenAPI serves the contract as it is written.
func getOpenAPI(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, docsCache)
	ctx.SetContentType("application/yaml")
	ctx.SetBody(openAPI)
}

// getDocs serves the contract as a page to read.
func getDocs(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, docsCache)
	ctx.Response.Header.Set(fasthttp.HeaderContentSecurityPolicy, docsPolicy)
	ctx.SetContentType("text/html; charset=utf-8")
	ctx.SetBody(docsPage)
}

// docsPolicy allows the page its own style, and nothing from anywhere else.
var docsPolicy = func() string {
	sum := sha256.Sum256([]byte(docsStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()
