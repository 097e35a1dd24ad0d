package contract

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func load(t *testing.T) *Contract {
	t.Helper()
	document, err := os.ReadFile("../../edge/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(document)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheck(t *testing.T) {
	c := load(t)
	const (
		id       = "01a1f8d8-758b-73ba-9d19-99309294a03d"
		accepted = `{"order_id":"` + id + `","status":"pending","product_id":1,"quantity":1,"unit_price":1,"total_price":1,"currency":"EUR"}`
		pending  = `{"order_id":"` + id + `","status":"pending","product_id":1,"quantity":1,"unit_price":1,"total_price":1,"currency":"EUR","reserved_at":"2027-05-01T10:00:00.731Z"}`
		soldOut  = `{"status":409,"title":"x","code":"sold_out"}`
		notFound = `{"status":404,"title":"x","code":"not_found"}`
		location = "Location: /api/orders/" + id
		retry    = "Retry-After: 1"
		problem  = "Content-Type: application/problem+json"
		js       = "Content-Type: application/json"
		text     = "Content-Type: text/plain; charset=utf-8"
	)
	replaced := func(text, old, by string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in %s", old, text)
		}
		return strings.Replace(text, old, by, 1)
	}
	for name, test := range map[string]struct {
		request string
		status  int
		body    string
		fields  []string
		want    string // in the error; empty if the answer is good
	}{
		"an order":                     {"POST /api/orders", 202, accepted, []string{js, location, retry}, ""},
		"a problem":                    {"POST /api/orders", 409, soldOut, []string{problem}, ""},
		"a problem of any request":     {"GET /api/me", 431, `{"status":431,"title":"x","code":"headers_too_large"}`, []string{problem}, ""},
		"a path that is none":          {"GET /api/nothing", 404, notFound, []string{problem}, ""},
		"too large for a path":         {"GET ", 431, `{"status":431,"title":"x","code":"headers_too_large"}`, []string{problem}, ""},
		"another method":               {"PUT /api/me", 405, `{"status":405,"title":"x","code":"method_not_allowed"}`, []string{problem, "Allow: GET, HEAD"}, ""},
		"options":                      {"OPTIONS /api/me", 200, "", []string{"Allow: GET, HEAD"}, ""},
		"HEAD":                         {"HEAD /api/me", 200, "", []string{js}, ""},
		"text":                         {"GET /healthz", 200, "ok\n", []string{text}, ""},
		"nothing":                      {"POST /api/logout", 204, "", nil, ""},
		"limits":                       {"GET /readyz", 200, "ok\n", []string{text, "Date: now", "Server: x"}, ""},
		"a header that is allowed":     {"GET /api/orders/" + id, 200, pending, []string{js, retry, `RateLimit: "user";r=499;t=1`}, ""},
		"a member":                     {"POST /api/orders", 202, replaced(accepted, `"currency"`, `"x":1,"currency"`), []string{js, location, retry}, "additional properties 'x'"},
		"a member is missing":          {"POST /api/orders", 202, replaced(accepted, `"quantity":1,`, ""), []string{js, location, retry}, "missing property 'quantity'"},
		"no Location":                  {"POST /api/orders", 202, accepted, []string{js, retry}, "Location is missing"},
		"another Location":             {"POST /api/orders", 202, accepted, []string{js, "Location: /orders/" + id, retry}, "Location: "},
		"Retry-After is no number":     {"POST /api/orders", 202, accepted, []string{js, location, "Retry-After: soon"}, "Retry-After: "},
		"no UUID":                      {"POST /api/orders", 202, strings.ReplaceAll(accepted, id, "7"), []string{js, location, retry}, "uuid"},
		"no time":                      {"GET /api/orders/" + id, 200, replaced(pending, "T", " "), []string{js}, "date-time"},
		"another state":                {"GET /api/orders/" + id, 200, replaced(pending, "pending", "waiting"), []string{js}, "status"},
		"failed without a reason":      {"GET /api/orders/" + id, 200, replaced(pending, "pending", "failed"), []string{js}, "failed_reason"},
		"a number as text":             {"POST /api/orders", 202, replaced(accepted, `"quantity":1`, `"quantity":"1"`), []string{js, location, retry}, "quantity"},
		"too many":                     {"POST /api/orders", 202, replaced(accepted, `"quantity":1`, `"quantity":1001`), []string{js, location, retry}, "quantity"},
		"another status":               {"POST /api/orders", 200, accepted, []string{js, location, retry}, "header Location"},
		"a code that is unknown":       {"POST /api/orders", 409, replaced(soldOut, "sold_out", "gone"), []string{problem}, "code"},
		"a code of another operation":  {"POST /api/orders", 409, replaced(soldOut, "sold_out", "email_taken"), []string{problem}, "code"},
		"a code of another status":     {"POST /api/orders", 409, replaced(soldOut, "sold_out", "banned"), []string{problem}, "code"},
		"a code by default":            {"POST /api/orders", 418, `{"status":418,"title":"x","code":"internal_error"}`, []string{problem}, "status"},
		"another status in a problem":  {"POST /api/orders", 409, replaced(soldOut, "409", "400"), []string{problem}, "another status"},
		"a member of another problem":  {"POST /api/orders", 409, replaced(soldOut, "}", `,"starts_at":"2027-05-01T10:00:00Z"}`), []string{problem}, "not"},
		"a member of a problem":        {"POST /api/orders", 409, replaced(soldOut, "sold_out", "sale_ended"), []string{problem}, "ends_at"},
		"a problem as JSON":            {"POST /api/orders", 409, soldOut, []string{js}, "Content-Type"},
		"401 without a scheme":         {"GET /api/me", 401, `{"status":401,"title":"x","code":"unauthenticated"}`, []string{problem}, "Www-Authenticate is missing"},
		"503 without Retry-After":      {"GET /readyz", 503, `{"status":503,"title":"x","code":"not_ready"}`, []string{problem}, "Retry-After is missing"},
		"429 without Retry-After":      {"GET /api/me", 429, `{"status":429,"title":"x","code":"rate_limited"}`, []string{problem}, "Retry-After is missing"},
		"405 without Allow":            {"PUT /api/me", 405, `{"status":405,"title":"x","code":"method_not_allowed"}`, []string{problem}, "Allow is missing"},
		"a header":                     {"GET /healthz", 200, "ok\n", []string{text, "X-Powered-By: gophers"}, "X-Powered-By"},
		"a charset":                    {"GET /api/me", 200, "{}", []string{js + "; charset=utf-8"}, "Content-Type"},
		"other text":                   {"GET /healthz", 200, "fine\n", []string{text}, "ok"},
		"no JSON":                      {"POST /api/orders", 409, soldOut + "x", []string{problem}, "invalid character"},
		"a path that is none is found": {"GET /api/nothing", 200, "{}", []string{js}, "Content-Type"},
		"a body for HEAD":              {"HEAD /healthz", 200, "ok\n", []string{text}, "a body"},
		"a body of nothing":            {"POST /api/logout", 204, "x", nil, "a body"},
	} {
		fields := http.Header{}
		for _, field := range test.fields {
			name, value, _ := strings.Cut(field, ": ")
			fields.Add(name, value)
		}
		method, path, _ := strings.Cut(test.request, " ")
		err := c.Check(method, path, test.status, fields, []byte(test.body))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestExamplesAreChecked(t *testing.T) {
	c := load(t)
	n, err := c.CheckExamples()
	if err != nil || n < 40 {
		t.Errorf("%d examples: %v", n, err)
	}
	media, _ := c.find("/paths/~1api~1orders/post/requestBody/content/application~1json")
	media["example"] = map[string]any{"product_id": 1}
	if _, err := c.CheckExamples(); err == nil || !strings.Contains(err.Error(), "quantity") {
		t.Errorf("a bad example: %v", err)
	}
}
