package paypal

import (
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
	orders   = "/v2/checkout/orders"
	captured = `{"id":"O1","status":"COMPLETED","purchase_units":[{"custom_id":"A-1","payee":{"merchant_id":"M1"},` +
		`"payments":{"captures":[{"id":"C0","status":"DECLINED"},{"id":"C1","status":"COMPLETED",` +
		`"amount":{"currency_code":"EUR","value":"88.88"},"create_time":"2026-11-28T10:00:05Z",` +
		`"seller_receivable_breakdown":{"paypal_fee":{"currency_code":"EUR","value":"2.91"}}}]}}]}`
)

var paid = payment.Notice{
	Kind: payment.Paid, Attempt: "A-1", Reference: "C1", EventKey: "C1:paid", Merchant: "M1", Amount: 8888,
	Currency: "EUR", Fee: 291, At: time.Date(2026, 11, 28, 10, 0, 5, 0, time.UTC),
}

func TestCheckout(t *testing.T) {
	const at = "https://www.sandbox.paypal.com/checkoutnow?token=O1"
	c, made := newClient(t, map[string]answer{"POST " + orders: {http.StatusOK, `{"id":"O1",` +
		`"links":[{"rel":"self","href":"x"},{"rel":"payer-action","href":"` + at + `"}]}`}})
	a := Attempt{Number: "A-1", Amount: 8888, Currency: "EUR", Item: "<thing>", BackURL: "https://shop.example/1"}
	id, address, err := c.Checkout(t.Context(), a)
	if err != nil || id != "O1" || address != at {
		t.Errorf("%s at %s, error %v", id, address, err)
	}
	var sent map[string]any
	head, body, _ := strings.Cut(made.made[0], "{")
	if err := json.Unmarshal([]byte("{"+body), &sent); err != nil || head != "POST "+orders+" A-1 " {
		t.Errorf("sent %s, error %v", head, err)
	}
	if got := fmt.Sprint(sent["intent"], sent["purchase_units"]); got != "CAPTURE[map[amount:map[currency_code:EUR "+
		"value:88.88] custom_id:A-1 description:<thing> invoice_id:A-1]]" {
		t.Errorf("sent %s", got)
	}

	for what, change := range map[string]func(*Attempt){
		"no number":      func(a *Attempt) { a.Number = "" },
		"a long number":  func(a *Attempt) { a.Number = strings.Repeat("A", 37) },
		"a gap":          func(a *Attempt) { a.Number = "A 1" },
		"nothing to pay": func(a *Attempt) { a.Amount = 0 },
		"no currency":    func(a *Attempt) { a.Currency = "XXX" },
		"cents of TWD":   func(a *Attempt) { a.Currency = "TWD" },
	} {
		changed := a
		change(&changed)
		if id, _, err := c.Checkout(t.Context(), changed); err == nil || id != "" || len(made.made) != 1 {
			t.Errorf("%s: %s, error %v", what, id, err)
		}
	}
}

func TestValue(t *testing.T) {
	for _, test := range []struct {
		amount   int64
		currency string
		want     string
	}{{49900, "TWD", "499"}, {499, "JPY", "499"}, {5, "USD", "0.05"}, {1234, "KWD", "1.234"}, {100, "HUF", "1"}} {
		if got, err := value(test.amount, test.currency); err != nil || got != test.want {
			t.Errorf("%d %s: %q, error %v, want %q", test.amount, test.currency, got, err, test.want)
		}
	}
}

func TestQueryAndCapture(t *testing.T) {
	for what, test := range map[string]struct {
		get, capture    answer
		queried, got    payment.State
		queryErr, error error
	}{
		"captured": {answer{200, captured}, answer{201, captured}, payment.Taken, payment.Taken, nil, nil},
		"captured before": {answer{200, captured}, answer{422, `{"name":"UNPROCESSABLE_ENTITY",` +
			`"details":[{"issue":"ORDER_ALREADY_CAPTURED"}]}`}, payment.Taken, payment.Taken, nil, nil},
		"not approved": {answer{200, `{"status":"CREATED","purchase_units":[{"custom_id":"A-1"}]}`}, answer{422,
			`{"details":[{"issue":"ORDER_NOT_APPROVED"}]}`}, payment.Open, "", nil, payment.ErrRefused},
		"pending": {answer{200, strings.Replace(captured, `"C1","status":"COMPLETED"`, `"C1","status":"PENDING"`, 1)},
			answer{201, strings.Replace(captured, `"C1","status":"COMPLETED"`, `"C1","status":"PENDING"`, 1)},
			payment.Open, payment.Open, nil, nil},
		"voided": {answer{200, `{"status":"VOIDED"}`}, answer{422, `{}`}, payment.Lapsed, "", nil, payment.ErrRefused},
		"nobody's": {answer{404, `{"name":"RESOURCE_NOT_FOUND"}`}, answer{404, ``}, payment.NotFound, "", nil,
			payment.ErrRefused},
		"down":     {answer{503, ``}, answer{500, ``}, "", "", payment.ErrUnknown, payment.ErrUnknown},
		"too fast": {answer{429, ``}, answer{429, ``}, "", "", payment.ErrUnknown, payment.ErrUnknown},
		"no JSON":  {answer{200, `<html>`}, answer{201, `<html>`}, "", "", payment.ErrUnknown, payment.ErrUnknown},
		"no amount": {answer{200, strings.Replace(captured, "88.88", "88,88", 1)}, answer{201, `{"purchase_units":[{` +
			`"payments":{"captures":[{"id":"C1","status":"COMPLETED"}]}}]}`}, "", "", payment.ErrUnknown,
			payment.ErrUnknown},
	} {
		c, made := newClient(t, map[string]answer{
			"GET " + orders + "/O1": test.get, "POST " + orders + "/O1/capture": test.capture,
		})
		state, n, err := c.Query(t.Context(), "O1")
		if state != test.queried || !errors.Is(err, test.queryErr) || (n == paid) != (state == payment.Taken) {
			t.Errorf("%s: queried %q %+v, error %v", what, state, n, err)
		}
		state, n, err = c.Capture(t.Context(), "O1", "A-1")
		if state != test.got || !errors.Is(err, test.error) || (n == paid) != (state == payment.Taken) {
			t.Errorf("%s: captured %q %+v, error %v", what, state, n, err)
		}
		if made.made[1] != "POST "+orders+"/O1/capture A-1 {}" || made.tokens != 1 {
			t.Errorf("%s: asked for %q with %d tokens", what, made.made, made.tokens)
		}
	}
}

func TestRefund(t *testing.T) {
	const path = "/v2/payments/captures/C1/refund"
	for what, test := range map[string]struct {
		answer answer
		want   error
	}{
		"done":           {answer{201, `{"id":"R1","status":"COMPLETED"}`}, nil},
		"done before":    {answer{200, `{"id":"R1","status":"COMPLETED"}`}, nil},
		"pending":        {answer{201, `{"id":"R1","status":"PENDING"}`}, payment.ErrUnknown},
		"failed":         {answer{201, `{"id":"R1","status":"FAILED"}`}, payment.ErrRefused},
		"more than paid": {answer{422, `{"details":[{"issue":"REFUND_AMOUNT_EXCEEDED"}]}`}, payment.ErrRefused},
		"at once":        {answer{409, ``}, payment.ErrUnknown},
		"down":           {answer{502, ``}, payment.ErrUnknown},
	} {
		c, made := newClient(t, map[string]answer{"POST " + path: test.answer})
		if err := c.Refund(t.Context(), "C1", "R-1", 880, "EUR"); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v", what, err)
		}
		if want := "POST " + path + ` R-1 {"amount":{"currency_code":"EUR","value":"8.80"}}`; made.made[0] != want {
			t.Errorf("%s: asked for %s, want %s", what, made.made[0], want)
		}
		if c.Refund(t.Context(), "C1", "R-1", 0, "EUR") == nil || c.Refund(t.Context(), "C1", "", 1, "EUR") == nil {
			t.Errorf("%s: nothing, or without a number, is refunded", what)
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
		_, _, err := c.Query(t.Context(), "O1")
		if errors.Is(err, payment.ErrUnknown) != (step.status != 200) || made.tokens != step.tokens {
			t.Errorf("%+v: %d tokens, error %v", step, made.tokens, err)
		}
	}
	c.Host = "http://127.0.0.1:1"
	if _, _, err := c.Query(t.Context(), "O1"); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("nobody there: error %v", err)
	}
}

func TestReadNotice(t *testing.T) {
	a := newAuthority(t, sandboxName)
	w := &Webhooks{ID: "W1", Sandbox: true, Client: serving(a.chain), Roots: a.roots()}
	event := func(kind, resource string) string {
		return `{"id":"WH-1","event_type":"` + kind + `","resource":` + resource + `}`
	}
	const resource = `{"id":"C1","custom_id":"A-1","amount":{"currency_code":"EUR","value":"88.88"},` +
		`"payee":{"merchant_id":"M1"},"create_time":"2026-11-28T10:00:05Z",` +
		`"seller_receivable_breakdown":{"paypal_fee":{"currency_code":"EUR","value":"2.91"}}}`
	const ordered = `{"id":"O1","status":"APPROVED","purchase_units":[{"custom_id":"A-1",` +
		`"amount":{"currency_code":"EUR","value":"88.88"},"payee":{"merchant_id":"M1"}}]}`
	of := func(kind payment.Kind) payment.Notice {
		n := paid
		n.Kind, n.EventKey = kind, "C1:"+string(kind)
		return n
	}
	for _, test := range []struct {
		body string
		want payment.Notice
	}{
		{event("PAYMENT.CAPTURE.COMPLETED", resource), paid},
		{event("PAYMENT.CAPTURE.PENDING", resource), of(payment.Issued)},
		{event("PAYMENT.CAPTURE.DENIED", resource), of(payment.Failed)},
		{event("PAYMENT.CAPTURE.REFUNDED", resource), of(payment.Refunded)},
		{event("CHECKOUT.ORDER.APPROVED", ordered), payment.Notice{
			Kind: payment.Approved, Attempt: "A-1", Reference: "O1", EventKey: "WH-1", Merchant: "M1", Amount: 8888,
			Currency: "EUR",
		}},
		{event("CUSTOMER.DISPUTE.CREATED", `{}`), payment.Notice{Kind: payment.Other, EventKey: "WH-1"}},
	} {
		got, err := w.ReadNotice(t.Context(), a.post(t, "W1", test.body), []byte(test.body))
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, error %v, want %+v", test.body, got, err, test.want)
		}
	}
	for _, body := range []string{
		"", "[]", `{"event_type":"PAYMENT.CAPTURE.COMPLETED"}`, event("PAYMENT.CAPTURE.COMPLETED", `[]`),
		event("PAYMENT.CAPTURE.COMPLETED", strings.Replace(resource, "88.88", "-1", 1)),
		event("PAYMENT.CAPTURE.COMPLETED", strings.Replace(resource, "A-1", "", 1)),
		event("CHECKOUT.ORDER.APPROVED", `{"id":"O1"}`),
	} {
		n, err := w.ReadNotice(t.Context(), a.post(t, "W1", body), []byte(body))
		if !errors.Is(err, payment.ErrForged) || n != (payment.Notice{}) {
			t.Errorf("%s: %+v, error %v", body, n, err)
		}
	}
	body := event("PAYMENT.CAPTURE.COMPLETED", resource)
	_, err := w.ReadNotice(t.Context(), a.post(t, "W1", body), []byte(body+" "))
	if !errors.Is(err, payment.ErrForged) {
		t.Errorf("a byte more: error %v", err)
	}
}
