// Package apidoc is the contract of the HTTP API as one document, for programs and as a page for people.
package apidoc

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
)

// Contract is the OpenAPI document. It is made of edge/openapi.yaml and shop/openapi.yaml by a test, which fails when
// it is out of date: make generate.
//
//go:embed openapi.gen.yaml
var Contract []byte

// Page is the contract as a page of HTML, made of it, docs.html and docs.css in the same way.
//
//go:embed docs.gen.html
var Page []byte

//go:embed docs.css
var style string

// Policy is the Content-Security-Policy that allows the page its own style, and nothing from anywhere else.
var Policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()
