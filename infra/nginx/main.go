// Nginx writes the configuration of the nginx that is the front door of the system in containers, from the table of
// routes in internal/front. Run it in the folder of the repository after a change: go run ./infra/nginx
package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"stampede/internal/front"
)

func main() {
	if err := os.WriteFile(filepath.Join("infra", "nginx", "nginx.conf"), []byte(config()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "nginx:", err)
		os.Exit(1)
	}
}

// config is the whole configuration.
func config() string {
	return strings.Replace(template, "{{rules}}", strings.Join(rules(), "\n"), 1)
}

// rules are the lines of nginx's map that name the shop. What they are matched with is the method and the address as
// they came, so that nginx's own reading of the path, in which /api/%6Cogin is /api/login, chooses nothing.
func rules() []string {
	alone, shared := front.Paths(front.Shop)
	var lines []string
	add := func(methods, pattern string) {
		segment := regexp.MustCompile(`\\\{[a-z_]+\\\}`)
		path := segment.ReplaceAllString(regexp.QuoteMeta(pattern), `[^/?]+`)
		lines = append(lines, fmt.Sprintf(`		"~^%s %s(\?|$)" %s;`, methods, path, front.Shop))
	}
	for _, pattern := range alone {
		add(`\S+`, pattern)
	}
	for pattern, methods := range shared {
		slices.Sort(methods)
		add("("+strings.Join(methods, "|")+")", pattern)
	}
	slices.Sort(lines)
	return lines
}

// template is the configuration but for the rules. It has what nginx 1.22 knows, with which it is tested.
//
//go:embed nginx.conf.template
var template string
