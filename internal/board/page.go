package board

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"strings"
)

var (
	//go:embed board.html
	pageHTML string
	//go:embed board.css
	pageStyle string
	//go:embed board.js
	pageScript string
)

// page is one file: it needs nothing but the events.
var page = strings.NewReplacer("{{style}}", pageStyle, "{{script}}", pageScript).Replace(pageHTML)

// policy allows the page its own style, script and events, and nothing from anywhere else. The icon is in the page.
var policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src " + hash(pageStyle) + "; script-src " +
	hash(pageScript) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
