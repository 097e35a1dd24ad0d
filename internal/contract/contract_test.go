package contract

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func load(t *testing.T) *Contract {
	t.Helper()
	document, err := os.ReadFile("../apidoc/openapi.gen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(document)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	id       = "01a1f8d8-758b-73ba-9d19-99309294a03d"
	accepted = `{"order_id":"` + id +
		`","status":"pending","product_id":1,"quantity":1,"unit_price":1,"total_price":1,` +
		`"currency":"EUR"}`
	pending = `{"order_id":"` + id +
		`","status":"pending","product_id":1,"quantity":1,"unit_price":1,"total_price":1,` +
		`"currency":"EUR","reserved_at":"2027-05-01T10:00:00.731Z"}`

	location = "Location: /api/orders/" + id + "?product_id=1"
	retry    = "Retry-After: 1"
	js       = "Content-Type: application/json"
	pj       = "Content-Type: application/problem+json"
	text     = "Content-Type: text/plain; charset=utf-8"
)

// fields are those of a good 202.
var fields = []string{js, location, retry}

// requestID is what every answer has in its header.
const requestID = "4bf92f3577b34da6a3ce929d0e0e4736"

func problem(status, code string) string {
	return `{"status":` + status + `,"title":"x","code":"` + code + `","request_id":"` + requestID + `"}`
}

type reply struct {
	status int
	body   string
	fields []string
}

func (c *Contract) verdict(request string, r reply) error {
	header := http.Header{"Stampede-Request-Id": {requestID}}
	for _, field := range r.fields {
		name, value, _ := strings.Cut(field, ": ")
		header.Add(name, value)
	}
	method, path, _ := strings.Cut(request, " ")
	return c.Check(method, path, r.status, header, []byte(r.body))
}

func TestGoodAnswers(t *testing.T) {
	t.Parallel()
	c := load(t)
	for _, test := range []struct {
		request string
		reply   reply
	}{
		{"POST /api/orders", reply{202, accepted, fields}},
		{"POST /api/orders", reply{409, problem("409", "sold_out"), []string{pj}}},
		{"GET /api/orders/" + id, reply{200, pending, []string{js, retry, `RateLimit: "user";r=499;t=1`}}},
		{"POST /api/logout", reply{204, "", nil}},
		{"GET /healthz", reply{200, "ok\n", []string{text, "Date: now", "Server: x"}}},
		{"HEAD /api/me", reply{200, "", []string{js}}},
		{"OPTIONS /api/me", reply{200, "", []string{"Allow: GET, HEAD"}}},
		// What may befall any request, if it has a path or not.
		{"GET /api/me", reply{431, problem("431", "headers_too_large"), []string{pj}}},
		{"GET ", reply{431, problem("431", "headers_too_large"), []string{pj}}},
		{"GET /api/nothing", reply{404, problem("404", "not_found"), []string{pj}}},
		{"PUT /api/me", reply{405, problem("405", "method_not_allowed"), []string{pj, "Allow: GET, HEAD"}}},
	} {
		if err := c.verdict(test.request, test.reply); err != nil {
			t.Error(err)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	c := load(t)
	replaced := func(text, old, by string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in %s", old, text)
		}
		return strings.ReplaceAll(text, old, by)
	}
	post, get, me := "POST /api/orders", "GET /api/orders/"+id, "GET /api/me"
	soldOut := problem("409", "sold_out")
	for name, test := range map[string]struct {
		request string
		reply   reply
		want    string // in the error
	}{
		"a member": {post, reply{202, replaced(accepted, "}", `,"x":1}`), fields},
			"additional properties 'x'"},
		"a member less": {post, reply{202, replaced(accepted, `"quantity":1,`, ""), fields}, "missing property"},
		"a number as text": {post, reply{202, replaced(accepted, `"quantity":1`, `"quantity":"1"`), fields},
			"quantity"},
		"a number too high": {post, reply{202, replaced(accepted, `"quantity":1`, `"quantity":1001`), fields},
			"quantity"},
		"no UUID":           {post, reply{202, replaced(accepted, id, "7"), fields}, "uuid"},
		"no time":           {get, reply{200, replaced(pending, "T", " "), []string{js}}, "date-time"},
		"a state":           {get, reply{200, replaced(pending, "pending", "waiting"), []string{js}}, "status"},
		"failed for nought": {get, reply{200, replaced(pending, "pending", "failed"), []string{js}}, "failed_reason"},
		"no JSON":           {post, reply{409, soldOut + "x", []string{pj}}, "invalid character"},

		"no id": {me, reply{403, replaced(problem("403", "banned"), `,"request_id":"`+requestID+`"`, ""),
			[]string{pj}}, "request_id"},
		"two ids": {"GET /healthz", reply{200, "ok\n", []string{text, "Stampede-Request-Id: x"}},
			"Stampede-Request-Id"},
		"no Location": {post, reply{202, accepted, []string{js, retry}}, "Location is missing"},
		"another Location": {post, reply{202, accepted, []string{js, "Location: /orders/" + id, retry}},
			"Location: "},
		"another time": {post, reply{202, accepted, []string{js, location, "Retry-After: soon"}},
			"Retry-After: "},
		"401 and no scheme":  {me, reply{401, problem("401", "unauthenticated"), []string{pj}}, "Www-Authenticate"},
		"503 and no time":    {"GET /readyz", reply{503, problem("503", "not_ready"), []string{pj}}, "Retry-After"},
		"429 and no time":    {me, reply{429, problem("429", "rate_limited"), []string{pj}}, "Retry-After"},
		"405 and no methods": {"PUT /api/me", reply{405, problem("405", "method_not_allowed"), []string{pj}}, "Allow"},
		"a header": {"GET /healthz", reply{200, "ok\n", []string{text, "X-Powered-By: gophers"}},
			"X-Powered-By"},
		"a charset":         {me, reply{200, "{}", []string{js + "; charset=utf-8"}}, "Content-Type"},
		"a problem as JSON": {post, reply{409, soldOut, []string{js}}, "Content-Type"},

		"an unknown code":       {post, reply{409, problem("409", "gone"), []string{pj}}, "code"},
		"an operation's code":   {post, reply{409, problem("409", "email_taken"), []string{pj}}, "code"},
		"a status's code":       {post, reply{409, problem("409", "banned"), []string{pj}}, "code"},
		"a code of any request": {post, reply{418, problem("418", "internal_error"), []string{pj}}, "status"},
		"a status in the body":  {post, reply{409, problem("400", "sold_out"), []string{pj}}, "another status"},
		"a problem's member": {post, reply{409, replaced(soldOut, "}", `,"limit_per_user":1}`), []string{pj}},
			"not"},
		"a problem's member less": {post, reply{409, problem("409", "sale_ended"), []string{pj}}, "ends_at"},

		"a status":               {post, reply{200, accepted, []string{js}}, "Content-Type"},
		"a path":                 {"GET /api/nothing", reply{200, "{}", []string{js}}, "Content-Type"},
		"a known path not found": {me, reply{404, problem("404", "not_found"), []string{pj}}, "code"},
		"a body for HEAD":        {"HEAD /healthz", reply{200, "ok\n", []string{text}}, "a body"},
		"a body for 204":         {"POST /api/logout", reply{204, "x", nil}, "a body"},
		"a text":                 {"GET /healthz", reply{200, "fine\n", []string{text}}, "ok"},
	} {
		if err := c.verdict(test.request, test.reply); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestExamplesAreChecked(t *testing.T) {
	t.Parallel()
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
