package paypal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// answer is what a server answers to a call.
type answer struct {
	status int
	body   string
}

// calls notes what a server is asked for, tokens apart, and answers by method and path.
type calls struct {
	made    []string // method, path, key and body of each
	tokens  int
	answers map[string]answer
}

func newClient(t *testing.T, answers map[string]answer) (*Client, *calls) {
	t.Helper()
	made := &calls{answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/v1/oauth2/token" {
			made.tokens++
			id, secret, ok := r.BasicAuth()
			if !ok || id != "app" || secret != "secret" || string(body) != "grant_type=client_credentials" {
				t.Errorf("a token for %q with %q: %s", id, secret, body)
			}
			_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":3600}`, made.tokens)
			return
		}
		if got, want := r.Header.Get("Authorization"), fmt.Sprint("Bearer token-", made.tokens); got != want {
			t.Errorf("called with %q, want %q", got, want)
		}
		made.made = append(made.made, strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL.Path, " ",
			r.Header.Get("PayPal-Request-Id"), " ", string(body))))
		a, ok := made.answers[r.Method+" "+r.URL.Path]
		if !ok {
			t.Errorf("asked for %s %s", r.Method, r.URL.Path)
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	return &Client{ID: "app", Secret: "secret", Host: server.URL, HTTP: server.Client()}, made
}

const (
	orders   = ordersPath
	captured = `{"id":"O1","status":"COMPLETED","purchase_units":[{"custom_id":"A1","payee":{"merchant_id":"M1"},` +
		`"payments":{"captures":[{"id":"C0","status":"DECLINED"},{"id":"C1","status":"COMPLETED",` +
		`"amount":{"currency_code":"EUR","value":"88.88"},"create_time":"2026-11-28T10:00:05Z",` +
		`"seller_receivable_breakdown":{"paypal_fee":{"currency_code":"EUR","value":"2.91"}}}]}}]}`
)

var paidNotice = payment.Notice{
	Kind: payment.Paid, Attempt: "A1", Reference: "C1", EventKey: "C1:paid", Merchant: "M1", Amount: 8888,
	Currency: "EUR", Fee: 291, At: time.Date(2026, 11, 28, 10, 0, 5, 0, time.UTC),
}

var attempt = payment.Attempt{
	Number: "A1", Amount: 8888, Currency: "EUR", Item: "<thing>", Expires: time.Now().Add(time.Hour),
	BackURL: "https://shop.example/1",
}

// ordered is the attempt once PayPal knows it, and taken once it is paid.
var ordered, taken = func() (payment.Attempt, payment.Attempt) {
	o, t := attempt, attempt
	o.Reference, t.Reference = "O1", "C1"
	return o, t
}()

func TestStart(t *testing.T) {
	const at = "https://www.sandbox.paypal.com/checkoutnow?token=O1"
	c, made := newClient(t, map[string]answer{"POST " + orders: {http.StatusOK, `{"id":"O1",` +
		`"links":[{"rel":"self","href":"x"},{"rel":"payer-action","href":"` + at + `"}]}`}})
	page, err := c.Start(t.Context(), attempt)
	if err != nil || page.Reference != "O1" || page.URL != at || page.Form != nil {
		t.Errorf("%+v, error %v", page, err)
	}
	var sent map[string]any
	head, body, _ := strings.Cut(made.made[0], "{")
	if err := json.Unmarshal([]byte("{"+body), &sent); err != nil || head != "POST "+orders+" A1 " {
		t.Errorf("sent %s, error %v", head, err)
	}
	if got := fmt.Sprint(sent["intent"], sent["purchase_units"]); got != "CAPTURE[map[amount:map[currency_code:EUR "+
		"value:88.88] custom_id:A1 description:<thing> invoice_id:A1]]" {
		t.Errorf("sent %s", got)
	}

	for what, change := range map[string]func(*payment.Attempt){
		"no number":      func(a *payment.Attempt) { a.Number = "" },
		"a long number":  func(a *payment.Attempt) { a.Number = strings.Repeat("A", 21) },
		"a gap":          func(a *payment.Attempt) { a.Number = "A 1" },
		"nothing to pay": func(a *payment.Attempt) { a.Amount = 0 },
		"no currency":    func(a *payment.Attempt) { a.Currency = "XXX" },
		"one it has not": func(a *payment.Attempt) { a.Currency = "KRW" },
		"cents of TWD":   func(a *payment.Attempt) { a.Currency = "TWD" },
		"a method":       func(a *payment.Attempt) { a.Method = "card" },
		"no time":        func(a *payment.Attempt) { a.Expires = time.Now() },
	} {
		changed := attempt
		change(&changed)
		page, err := c.Start(t.Context(), changed)
		if !errors.Is(err, payment.ErrRefused) || page.URL != "" || len(made.made) != 1 {
			t.Errorf("%s: %+v, error %v", what, page, err)
		}
	}

	made.answers["POST "+orders] = answer{http.StatusOK, `{"id":"O1","links":[]}`}
	if page, err := c.Start(t.Context(), attempt); !errors.Is(err, payment.ErrUnknown) || page.Reference != "" {
		t.Errorf("without an address: %+v, error %v", page, err)
	}
}

func TestValue(t *testing.T) {
	for _, test := range []struct {
		amount   int64
		currency string
		want     string
	}{{49900, "TWD", "499"}, {499, "JPY", "499"}, {5, "USD", "0.05"}, {100, "HUF", "1"}} {
		if got := value(test.amount, test.currency); got != (money{test.currency, test.want}) {
			t.Errorf("%d %s: %q, want %q", test.amount, test.currency, got, test.want)
		}
	}
}

// ask is one of the calls that tell how an attempt stands.
type ask func(context.Context, payment.Attempt) (payment.State, payment.Notice, error)

func TestQueryCaptureAndClose(t *testing.T) {
	const declined = `{"details":[{"issue":"INSTRUMENT_DECLINED"}]}`
	pending := strings.Replace(captured, `"C1","status":"COMPLETED"`, `"C1","status":"PENDING"`, 1)
	type is struct {
		state payment.State
		err   error
	}
	open, lapsed, unknown := is{payment.Open, nil}, is{payment.Lapsed, nil}, is{"", payment.ErrUnknown}
	paid, missing := is{payment.Taken, nil}, is{payment.NotFound, nil}
	for what, test := range map[string]struct {
		get, capture           answer
		queried, taken, closed is
	}{
		"captured": {answer{200, captured}, answer{201, captured}, paid, paid, paid},
		"captured before": {answer{200, captured}, answer{422, `{"name":"UNPROCESSABLE_ENTITY",` +
			`"details":[{"issue":"ORDER_ALREADY_CAPTURED"}]}`}, paid, paid, paid},
		"not approved": {answer{200, `{"status":"CREATED","purchase_units":[{"custom_id":"A1"}]}`}, answer{422,
			`{"details":[{"issue":"ORDER_NOT_APPROVED"}]}`}, open, open, lapsed},
		"approved": {answer{200, `{"status":"APPROVED"}`}, answer{422, declined}, open, open, lapsed},
		"pending":  {answer{200, pending}, answer{201, pending}, open, open, open},
		"voided":   {answer{200, `{"status":"VOIDED"}`}, answer{422, `{}`}, lapsed, lapsed, lapsed},
		"nobody's": {answer{404, `{"name":"RESOURCE_NOT_FOUND"}`}, answer{404, ``}, missing, missing, lapsed},
		"down":     {answer{503, ``}, answer{500, ``}, unknown, unknown, unknown},
		"too fast": {answer{429, ``}, answer{429, ``}, unknown, unknown, unknown},
		"no JSON":  {answer{200, `<html>`}, answer{201, `<html>`}, unknown, unknown, unknown},
		"no amount": {answer{200, strings.Replace(captured, "88.88", "88,88", 1)}, answer{201, `{"purchase_units":[{` +
			`"payments":{"captures":[{"id":"C1","status":"COMPLETED"}]}}]}`}, unknown, unknown, unknown},
		"another merchant's": {answer{200, strings.Replace(captured, "M1", "M2", 1)},
			answer{201, strings.Replace(captured, "M1", "M2", 1)}, unknown, unknown, unknown},
	} {
		c, made := newClient(t, map[string]answer{
			"GET " + orders + "/O1": test.get, "POST " + orders + "/O1/capture": test.capture,
			"GET " + capturesPath + "/O1": {404, ``},
		})
		c.Merchant = "M1"
		for _, call := range []struct {
			name string
			f    ask
			want is
		}{{"captured", c.Capture, test.taken}, {"queried", c.Query, test.queried}, {"closed", c.Close, test.closed}} {
			state, n, err := call.f(t.Context(), ordered)
			if state != call.want.state || !errors.Is(err, call.want.err) ||
				(n == paidNotice) != (state == payment.Taken) {
				t.Errorf("%s: %s: %q %+v, error %v", what, call.name, state, n, err)
			}
		}
		if made.made[0] != "POST "+orders+"/O1/capture A1-capture {}" || made.tokens != 1 {
			t.Errorf("%s: asked for %q with %d tokens", what, made.made, made.tokens)
		}
	}
}

// TestReferences: an attempt may be asked for by its capture, and one of whose order nothing came back was never ours
// to capture.
func TestReferences(t *testing.T) {
	c, made := newClient(t, map[string]answer{
		"GET " + orders + "/C1": {404, ``}, "GET " + capturesPath + "/C1": {200, taking("COMPLETED")},
	})
	for _, f := range []ask{c.Query, c.Close} {
		if state, n, err := f(t.Context(), taken); err != nil || state != payment.Taken || n != paidNotice {
			t.Errorf("by its capture: %s %+v, error %v", state, n, err)
		}
	}
	calls := len(made.made)
	for want, f := range map[payment.State]ask{
		payment.NotFound: c.Capture, payment.Lapsed: c.Close,
	} {
		if state, _, err := f(t.Context(), attempt); err != nil || state != want || len(made.made) != calls {
			t.Errorf("without a reference: %s, want %s, error %v", state, want, err)
		}
	}
}

// taking is a capture with a status, of the order O1.
func taking(status string) string {
	return `{"id":"C1","custom_id":"A1","status":"` + status + `","amount":{"currency_code":"EUR","value":"88.88"},` +
		`"payee":{"merchant_id":"M1"},"create_time":"2026-11-28T10:00:05Z",` +
		`"supplementary_data":{"related_ids":{"order_id":"O1"}},` +
		`"seller_receivable_breakdown":{"paypal_fee":{"currency_code":"EUR","value":"2.91"}}}`
}

func TestRefund(t *testing.T) {
	const path = capturesPath + "/C1/refund"
	made1 := func(status string) answer {
		return answer{200, `{"purchase_units":[{"payments":{"refunds":[{"id":"1","invoice_id":"R0","status":` +
			`"COMPLETED"},{"id":"2","invoice_id":"R1","status":"` + status + `"}]}}]}`}
	}
	none := answer{200, `{"purchase_units":[{"payments":{"refunds":[]}}]}`}
	refused := answer{422, `{"details":[{"issue":"REFUND_AMOUNT_EXCEEDED"}]}`}
	for what, test := range map[string]struct {
		answer  answer
		capture string
		order   answer
		want    error
		made    bool
		madeErr error
	}{
		"done": {answer{201, `{"status":"COMPLETED"}`}, "PARTIALLY_REFUNDED", made1("COMPLETED"), nil, true,
			nil},
		"done before":   {answer{200, `{"status":"COMPLETED"}`}, "REFUNDED", none, nil, true, nil},
		"done long ago": {refused, "PARTIALLY_REFUNDED", made1("COMPLETED"), nil, true, nil},
		"all back":      {refused, "REFUNDED", none, nil, true, nil},
		"pending": {answer{201, `{"status":"PENDING"}`}, "PARTIALLY_REFUNDED", made1("PENDING"), payment.ErrUnknown,
			false, payment.ErrUnknown},
		"failed": {answer{201, `{"status":"FAILED"}`}, "PARTIALLY_REFUNDED", made1("FAILED"), payment.ErrRefused, false,
			nil},
		"more than paid": {refused, "PARTIALLY_REFUNDED", none, payment.ErrRefused, false, nil},
		"nothing back":   {refused, "COMPLETED", none, payment.ErrRefused, false, nil},
		"at once":        {answer{409, ``}, "COMPLETED", none, payment.ErrUnknown, false, nil},
		"down": {answer{502, ``}, "PARTIALLY_REFUNDED", answer{502, ``}, payment.ErrUnknown, false,
			payment.ErrUnknown},
	} {
		c, made := newClient(t, map[string]answer{
			"POST " + path: test.answer, "GET " + capturesPath + "/C1": {200, taking(test.capture)},
			"GET " + orders + "/O1": test.order,
		})
		refund := payment.Refund{Number: "R1", Of: taken, Amount: 880}
		if err := c.Refund(t.Context(), refund); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v", what, err)
		}
		want := "POST " + path + ` R1 {"amount":{"currency_code":"EUR","value":"8.80"},"invoice_id":"R1"}`
		if made.made[0] != want {
			t.Errorf("%s: asked for %s, want %s", what, made.made[0], want)
		}
		if got, err := c.Refunded(t.Context(), refund); got != test.made || !errors.Is(err, test.madeErr) {
			t.Errorf("%s: made: %t, error %v", what, got, err)
		}
		for _, bad := range []payment.Refund{{Number: "R1", Of: taken}, {Of: taken, Amount: 1},
			{Number: "R1", Of: taken, Amount: 8889}} {
			if err := c.Refund(t.Context(), bad); !errors.Is(err, payment.ErrRefused) {
				t.Errorf("%+v is refunded", bad)
			}
		}
	}
}

// TestToken: one is used until it ends, or until PayPal does not take it any more.
func TestToken(t *testing.T) {
	c, made := newClient(t, map[string]answer{"GET " + orders + "/O1": {200, captured}})
	clock := time.Now()
	c.now = func() time.Time { return clock }
	for _, step := range []struct {
		later  time.Duration
		status int
		tokens int
	}{{0, 200, 1}, {50 * time.Minute, 200, 1}, {9 * time.Minute, 401, 2}, {0, 200, 3}, {0, 200, 3}} {
		clock = clock.Add(step.later)
		made.answers["GET "+orders+"/O1"] = answer{step.status, captured}
		_, _, err := c.Query(t.Context(), ordered)
		if errors.Is(err, payment.ErrUnknown) != (step.status != 200) || made.tokens != step.tokens {
			t.Errorf("%+v: %d tokens, error %v", step, made.tokens, err)
		}
	}
	c.Host = "http://127.0.0.1:1"
	if _, _, err := c.Query(t.Context(), ordered); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("nobody there: error %v", err)
	}
}

func event(kind, resource string) string {
	return `{"id":"WH-1","event_type":"` + kind + `","resource":` + resource + `}`
}

func TestReadNotice(t *testing.T) {
	a := newAuthority(t, sandboxName)
	const approved = `{"id":"O1","status":"APPROVED","purchase_units":[{"custom_id":"A1",` +
		`"amount":{"currency_code":"EUR","value":"88.88"},"payee":{"merchant_id":"M1"}}]}`
	resource := taking("COMPLETED")
	c, made := newClient(t, map[string]answer{
		"GET " + capturesPath + "/C1": {200, resource}, "GET " + capturesPath + "/C2": {404, ``},
	})
	c.Merchant = "M1"
	c.Webhooks = &Webhooks{ID: "W1", Sandbox: true, Client: serving(a.chain), Roots: a.roots()}
	of := func(kind payment.Kind, reference string) payment.Notice {
		n := paidNotice
		n.Kind, n.EventKey, n.Reference = kind, "C1:"+string(kind), reference
		return n
	}
	for _, test := range []struct {
		body string
		want payment.Notice
	}{
		{event("PAYMENT.CAPTURE.COMPLETED", resource), paidNotice},
		// What PayPal says of the capture counts, and not what the notice says.
		{event("PAYMENT.CAPTURE.COMPLETED", strings.Replace(resource, "88.88", "1.00", 1)), paidNotice},
		{event("PAYMENT.CAPTURE.PENDING", resource), of(payment.Issued, "O1")},
		{event("PAYMENT.CAPTURE.DENIED", resource), of(payment.Failed, "O1")},
		{event("PAYMENT.CAPTURE.REFUNDED", resource), of(payment.Refunded, "C1")},
		{event("PAYMENT.CAPTURE.REFUNDED", strings.Replace(resource, "A1", "", 1)),
			payment.Notice{Kind: payment.Other, EventKey: "WH-1"}},
		{event("CHECKOUT.ORDER.APPROVED", approved), payment.Notice{
			Kind: payment.Approved, Attempt: "A1", Reference: "O1", EventKey: "WH-1", Merchant: "M1", Amount: 8888,
			Currency: "EUR",
		}},
		{event("CUSTOMER.DISPUTE.CREATED", `{}`), payment.Notice{Kind: payment.Other, EventKey: "WH-1"}},
	} {
		got, err := c.ReadNotice(t.Context(), a.post(t, "W1", test.body), []byte(test.body))
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, error %v, want %+v", test.body, got, err, test.want)
		}
	}
	for _, body := range []string{
		"", "[]", `{"event_type":"PAYMENT.CAPTURE.COMPLETED"}`, event("PAYMENT.CAPTURE.COMPLETED", `[]`),
		event("PAYMENT.CAPTURE.COMPLETED", `{}`),
		event("PAYMENT.CAPTURE.COMPLETED", strings.Replace(resource, "C1", "C2", 1)),
		event("PAYMENT.CAPTURE.DENIED", strings.Replace(resource, "88.88", "-1", 1)),
		event("PAYMENT.CAPTURE.DENIED", strings.Replace(resource, "A1", "", 1)),
		event("PAYMENT.CAPTURE.DENIED", strings.Replace(resource, "M1", "M2", 1)),
		event("CHECKOUT.ORDER.APPROVED", `{"id":"O1"}`),
		event("CHECKOUT.ORDER.APPROVED", strings.Replace(approved, "M1", "M2", 1)),
	} {
		n, err := c.ReadNotice(t.Context(), a.post(t, "W1", body), []byte(body))
		if !errors.Is(err, payment.ErrForged) || n != (payment.Notice{}) {
			t.Errorf("%s: %+v, error %v", body, n, err)
		}
	}
	body := event("PAYMENT.CAPTURE.COMPLETED", resource)
	calls := len(made.made)
	_, err := c.ReadNotice(t.Context(), a.post(t, "W1", body), []byte(body+" "))
	if !errors.Is(err, payment.ErrForged) || len(made.made) != calls {
		t.Errorf("a byte more: error %v", err)
	}

	for status, want := range map[string]error{"PENDING": payment.ErrForged, "": payment.ErrUnknown} {
		made.answers["GET "+capturesPath+"/C1"] = answer{200, taking(status)}
		if status == "" {
			made.answers["GET "+capturesPath+"/C1"] = answer{503, ``}
		}
		_, err := c.ReadNotice(t.Context(), a.post(t, "W1", body), []byte(body))
		if !errors.Is(err, want) {
			t.Errorf("a capture that is %q: error %v", status, err)
		}
	}
}

// TestPostback: PayPal gets the bytes of the event as they came.
func TestPostback(t *testing.T) {
	body := "{ \"id\":\"WH-1\",\n\t\"event_type\": \"X<&>\", \"n\": 1.50e3 }\n"
	header := headers("t1", "2026-11-28T10:00:00Z", "c2ln", sandboxCerts+"C1")
	for what, test := range map[string]struct {
		answer answer
		body   string
		want   error
	}{
		"signed":       {answer{200, `{"verification_status":"SUCCESS"}`}, body, nil},
		"forged":       {answer{200, `{"verification_status":"FAILURE"}`}, body, payment.ErrForged},
		"neither":      {answer{200, `{}`}, body, payment.ErrUnknown},
		"not allowed":  {answer{403, ``}, body, payment.ErrUnknown},
		"down":         {answer{503, ``}, body, payment.ErrUnknown},
		"no JSON":      {answer{}, body + "}", payment.ErrForged},
		"more than it": {answer{}, `{},"webhook_id":"W2"`, payment.ErrForged},
		"no object":    {answer{}, `[]`, payment.ErrForged},
		"nothing":      {answer{}, ` `, payment.ErrForged},
	} {
		c, made := newClient(t, map[string]answer{"POST " + verifyPath: test.answer})
		c.Webhooks, c.Postback = &Webhooks{ID: "W1"}, true
		n, err := c.ReadNotice(t.Context(), header, []byte(test.body))
		if !errors.Is(err, test.want) || (err == nil) != (n.EventKey == "WH-1") {
			t.Errorf("%s: %+v, error %v", what, n, err)
		}
		if test.answer.status == 0 {
			continue
		}
		want := "POST " + verifyPath + `  {"auth_algo":"SHA256withRSA","cert_url":"` + sandboxCerts + `C1",` +
			`"transmission_id":"t1","transmission_sig":"c2ln","transmission_time":"2026-11-28T10:00:00Z",` +
			`"webhook_id":"W1","webhook_event":` + body + `}`
		if made.made[0] != want {
			t.Errorf("%s: asked\n\t%q, want\n\t%q", what, made.made[0], want)
		}
	}

	c := &Client{Webhooks: &Webhooks{ID: "W1"}, Postback: true}
	if _, err := c.ReadNotice(t.Context(), http.Header{}, []byte(body)); !errors.Is(err, payment.ErrForged) {
		t.Errorf("without headers: error %v", err)
	}
	if taken, not := c.Answer(true), c.Answer(false); taken.Status != 200 || not.Status != 400 {
		t.Errorf("answers %+v, %+v", taken, not)
	}
}
