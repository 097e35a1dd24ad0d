package apidoc

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"stampede/internal/contract"
	"stampede/internal/front"
	"stampede/internal/problem"
)

// served is the contract that is served.
func served(t *testing.T) *contract.Contract {
	t.Helper()
	c, err := contract.Load(Contract)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestContractIsValid reads the contract as the tools of others do.
func TestContractIsValid(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(Contract)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := served(t).CheckExamples(); err != nil || n < 40 {
		t.Errorf("%d examples are good: %v", n, err)
	}
}

// TestContractHasEveryRoute of the front door, and no other.
func TestContractHasEveryRoute(t *testing.T) {
	t.Parallel()
	var routes []string
	for _, r := range front.Routes {
		routes = append(routes, r.Method+" "+r.Pattern)
	}
	wantSame(t, "routes", routes, "the contract", served(t).Operations())
}

// TestContractHasEveryCode, with the statuses of the code, and docs/api.md tells the same of each.
func TestContractHasEveryCode(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(Contract)
	if err != nil {
		t.Fatal(err)
	}
	var codes, listed []string
	for _, c := range problem.Codes() {
		codes = append(codes, string(c))
	}
	schema := doc.Components.Schemas["Problem"].Value.Properties["code"].Value
	for _, c := range schema.Enum {
		listed = append(listed, c.(string))
	}
	wantSame(t, "the codes", codes, "the contract", listed)

	// Each answer has codes of its own status only.
	used := map[string]bool{"not_found": true, "method_not_allowed": true} // of no operation
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for _, c := range codesOf(response.Value) {
					used[c] = true
					if got := problem.Code(c).Status(); status != "default" && got != 0 && strconv.Itoa(got) != status {
						t.Errorf("%s %s has %s with %s, and its status is %d", method, path, c, status, got)
					}
				}
			}
		}
	}
	wantSame(t, "the codes that operations have", slices.Collect(maps.Keys(used)), "the contract", listed)

	// The table for people is made of the same words.
	file, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	descriptions, _ := schema.Extensions["x-enumDescriptions"].(map[string]any)
	var told []string
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d+) \\| (.+?) \\| (.+) \\|$")
	for _, row := range row.FindAllStringSubmatch(string(file), -1) {
		told = append(told, row[1])
		if c := problem.Code(row[1]); c.Title() != "" && (strconv.Itoa(c.Status()) != row[2] || c.Title() != row[3]) {
			t.Errorf("docs/api.md says of %s: %s, %q; the code: %d, %q", row[1], row[2], row[3], c.Status(), c.Title())
		}
		if got, want := fmt.Sprint(descriptions[row[1]]), row[3]+" "+row[4]; got != want {
			t.Errorf("the contract says of %s: %q, and docs/api.md %q", row[1], got, want)
		}
	}
	wantSame(t, "docs/api.md", told, "the contract", listed)
}

// codesOf returns the problem codes that an answer may have.
func codesOf(r *openapi3.Response) []string {
	var codes []string
	var collect func(*openapi3.SchemaRef)
	collect = func(s *openapi3.SchemaRef) {
		if s.Ref != "" { // that of all problems
			return
		}
		if c := s.Value.Properties["code"]; c != nil {
			for _, value := range c.Value.Enum {
				codes = append(codes, value.(string))
			}
		}
		for _, part := range slices.Concat(s.Value.AllOf, s.Value.OneOf) {
			collect(part)
		}
	}
	if media := r.Content.Get("application/problem+json"); media != nil {
		collect(media.Schema)
	}
	return codes
}

// wantSame compares two lists whose order does not matter.
func wantSame(t *testing.T, aName string, a []string, bName string, b []string) {
	t.Helper()
	for _, only := range a {
		if !slices.Contains(b, only) {
			t.Errorf("%s: in %s and not in %s", only, aName, bName)
		}
	}
	for _, only := range b {
		if !slices.Contains(a, only) {
			t.Errorf("%s: in %s and not in %s", only, bName, aName)
		}
	}
	if len(a) != len(b) && !t.Failed() {
		t.Errorf("%s or %s name something twice", aName, bName)
	}
}

// TestPage looks for every operation and every code on the page, and that it loads nothing.
func TestPage(t *testing.T) {
	t.Parallel()
	if !strings.Contains(string(Page), "<style>"+style+"</style>") {
		t.Error("the page has another style than its policy allows")
	}
	for _, route := range served(t).Operations() {
		method, path, _ := strings.Cut(route, " ")
		if !strings.Contains(string(Page), fmt.Sprintf("%s</b> <code>%s</code>", method, path)) {
			t.Errorf("%s is not on the page", route)
		}
	}
	for _, c := range problem.Codes() {
		row := fmt.Sprintf("<tr id=\"code-%s\"><td><code>%s</code><td>%d\n<td>%s", c, c, c.Status(), line(c.Title()))
		if !strings.Contains(string(Page), row) {
			t.Errorf("%s is not on the page", c)
		}
	}
	// Links within the page lead somewhere, and nothing is loaded.
	for _, link := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(string(Page), -1) {
		if !strings.Contains(string(Page), `id="`+link[1]+`"`) {
			t.Errorf("the page has nothing with the id %q", link[1])
		}
	}
	loads := regexp.MustCompile(`(?i)<script|<link|<img|\bsrc=|@import|url\(|style=`)
	if found := loads.FindString(string(Page)); found != "" {
		t.Errorf("the page has %q", found)
	}
}
