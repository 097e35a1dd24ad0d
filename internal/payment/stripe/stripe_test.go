package stripe

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/payment"
)

// answer is what a server answers to a call.
type answer struct {
	status int
	body   string
}

// calls notes what a server is asked for, and answers by method and path.
type calls struct {
	mu      sync.Mutex
	made    []string // method, path, key and form of each
	answers map[string]answer
}

func newClient(t *testing.T, answers map[string]answer) (*Client, *calls) {
	t.Helper()
	made := &calls{answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		made.mu.Lock()
		defer made.mu.Unlock()
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Stripe") {
				t.Errorf("told %s", name)
			}
		}
		if err := r.ParseForm(); err != nil || r.Header.Get("Authorization") != "Bearer sk_test_1" {
			t.Errorf("called with %q, error %v", r.Header.Get("Authorization"), err)
		}
		key := r.Header.Get("Idempotency-Key")
		if strings.HasSuffix(r.URL.Path, "/expire") {
			key = "" // a random one
		}
		made.made = append(made.made, strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL.Path, " ", key, " ",
			r.Form.Encode())))
		a, ok := made.answers[r.Method+" "+r.URL.Path]
		if !ok {
			t.Errorf("asked for %s %s", r.Method, r.URL.Path)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	t.Cleanup(server.Close)
	return &Client{Key: "sk_test_1", WebhookSecret: "whsec_1", Host: server.URL}, made
}

const (
	sessions = "/v1/checkout/sessions"
	refunds  = "/v1/refunds"
)

var attempt = payment.Attempt{
	Number: "A1", Amount: 8888, Currency: "EUR", Item: "音箱 & 線", Expires: time.Now().Add(time.Hour),
	BackURL: "https://shop.example/1",
}

// ordered is the attempt once Stripe knows it.
var ordered = func() payment.Attempt {
	a := attempt
	a.Reference = "cs_1"
	return a
}()

// session is the attempt's at Stripe.
func session(status, paid string) string {
	return `{"id":"cs_1","object":"checkout.session","mode":"payment","status":"` + status + `","payment_status":"` +
		paid + `","amount_total":8888,"currency":"eur","client_reference_id":"A1","metadata":{"attempt":"A1"},` +
		`"livemode":true,"payment_intent":"pi_1","url":"https://checkout.stripe.com/c/pay/cs_1"}`
}

var paidNotice = payment.Notice{
	Kind: payment.Paid, Attempt: "A1", Reference: "cs_1", EventKey: "cs_1:paid", Amount: 8888, Currency: "EUR",
}

func failing(status int, kind, code string) answer {
	return answer{status, `{"error":{"type":"` + kind + `","code":"` + code + `","message":"x"}}`}
}

func TestStart(t *testing.T) {
	c, made := newClient(t, map[string]answer{"POST " + sessions: {200, session("open", "unpaid")}})
	for range 2 {
		page, err := c.Start(t.Context(), attempt)
		if err != nil || page.Reference != "cs_1" || page.URL != "https://checkout.stripe.com/c/pay/cs_1" ||
			page.Form != nil {
			t.Errorf("%+v, error %v", page, err)
		}
	}
	if made.made[0] != made.made[1] {
		t.Errorf("called with %s, and then with %s", made.made[0], made.made[1])
	}
	for _, want := range []string{
		"POST " + sessions + " A1 ", "client_reference_id=A1", "metadata%5Battempt%5D=A1", "mode=payment",
		"payment_intent_data%5Bmetadata%5D%5Battempt%5D=A1", "unit_amount%5D=8888", "currency%5D=eur",
		"quantity%5D=1", "payment_method_types%5B0%5D=card", "adaptive_pricing%5Benabled%5D=false",
		"success_url=https%3A%2F%2Fshop.example%2F1", "cancel_url=https%3A%2F%2Fshop.example%2F1",
	} {
		if !strings.Contains(made.made[0], want) {
			t.Errorf("sent %s, without %s", made.made[0], want)
		}
	}

	for what, change := range map[string]func(*payment.Attempt){
		"no number":      func(a *payment.Attempt) { a.Number = "" },
		"nothing to pay": func(a *payment.Attempt) { a.Amount = 0 },
		"no currency":    func(a *payment.Attempt) { a.Currency = "XXX" },
		"cents of TWD":   func(a *payment.Attempt) { a.Currency = "TWD" },
		"a fil of KWD":   func(a *payment.Attempt) { a.Currency, a.Amount = "KWD", 1001 },
		"a method":       func(a *payment.Attempt) { a.Method = "card" },
		"no time":        func(a *payment.Attempt) { a.Expires = time.Now() },
	} {
		changed := attempt
		change(&changed)
		page, err := c.Start(t.Context(), changed)
		if !errors.Is(err, payment.ErrRefused) || page.URL != "" || len(made.made) != 2 {
			t.Errorf("%s: %+v, error %v", what, page, err)
		}
	}
}

// TestErrors: what Stripe has refused it has not done, and what else it says tells nothing.
func TestErrors(t *testing.T) {
	for what, test := range map[string]struct {
		answer answer
		want   error
	}{
		"a parameter":        {failing(400, "invalid_request_error", "amount_too_small"), payment.ErrRefused},
		"a card":             {failing(402, "card_error", "card_declined"), payment.ErrRefused},
		"another by the key": {failing(400, "idempotency_error", ""), payment.ErrUnknown},
		"the key in use":     {failing(409, "invalid_request_error", "idempotency_key_in_use"), payment.ErrUnknown},
		"a wrong key":        {failing(401, "invalid_request_error", ""), payment.ErrUnknown},
		"too fast":           {failing(429, "invalid_request_error", "rate_limit"), payment.ErrUnknown},
		"down":               {failing(500, "api_error", ""), payment.ErrUnknown},
		"a page":             {answer{502, strings.Repeat("<html>", 100)}, payment.ErrUnknown},
		"no JSON":            {answer{200, `<html>`}, payment.ErrUnknown},
		"elsewhere":          {answer{307, ``}, payment.ErrUnknown},
		"without an end":     {answer{200, `{"x":"` + strings.Repeat("x", maxAnswer) + `"}`}, payment.ErrUnknown},
	} {
		c, made := newClient(t, map[string]answer{"POST " + sessions: test.answer})
		page, err := c.Start(t.Context(), attempt)
		if !errors.Is(err, test.want) || page.URL != "" || len(made.made) != 1 {
			t.Errorf("%s: %+v, error %v, after %d calls", what, page, err, len(made.made))
		}
		if len(err.Error()) > 400 || strings.Contains(err.Error(), "sk_test_1") {
			t.Errorf("%s: error %v", what, err)
		}
	}
	c := &Client{Key: "sk_test_1", Host: "http://127.0.0.1:1"}
	if _, err := c.Start(t.Context(), attempt); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("nobody there: error %v", err)
	}
}

func TestQueryAndClose(t *testing.T) {
	type is struct {
		state payment.State
		err   error
	}
	open, lapsed, unknown := is{payment.Open, nil}, is{payment.Lapsed, nil}, is{"", payment.ErrUnknown}
	paid, missing := is{payment.Taken, nil}, is{payment.NotFound, nil}
	expired := answer{200, session("expired", "unpaid")}
	refused := failing(400, "invalid_request_error", "")
	for what, test := range map[string]struct {
		get, expire     answer
		queried, closed is
	}{
		"open":         {answer{200, session("open", "unpaid")}, expired, open, lapsed},
		"paid":         {answer{200, session("complete", "paid")}, refused, paid, paid},
		"on its way":   {answer{200, session("complete", "unpaid")}, refused, open, open},
		"ended before": {expired, refused, lapsed, lapsed},
		"nobody's":     {failing(404, "invalid_request_error", "resource_missing"), refused, missing, missing},
		"down":         {failing(500, "api_error", ""), failing(500, "api_error", ""), unknown, unknown},
		"another's": {answer{200, strings.Replace(session("complete", "paid"), "A1", "A2", 1)}, refused, unknown,
			unknown},
		"no amount": {answer{200, strings.Replace(session("complete", "paid"), `"eur"`, `"xxx"`, 1)}, refused, unknown,
			unknown},
	} {
		c, made := newClient(t, map[string]answer{
			"GET " + sessions + "/cs_1": test.get, "POST " + sessions + "/cs_1/expire": test.expire,
		})
		state, n, err := c.Query(t.Context(), ordered)
		if state != test.queried.state || !errors.Is(err, test.queried.err) ||
			(n == paidNotice) != (state == payment.Taken) {
			t.Errorf("%s: queried %q %+v, error %v", what, state, n, err)
		}
		state, n, err = c.Close(t.Context(), ordered)
		if state != test.closed.state || !errors.Is(err, test.closed.err) ||
			(n == paidNotice) != (state == payment.Taken) {
			t.Errorf("%s: closed %q %+v, error %v", what, state, n, err)
		}
		if made.made[1] != "POST "+sessions+"/cs_1/expire" {
			t.Errorf("%s: asked for %q", what, made.made)
		}
	}
}

// TestReferenceLost: a session whose number did not come back is made again, which is the same one, and then asked for:
// the answer to a repeated call is the one of the first.
func TestReferenceLost(t *testing.T) {
	c, made := newClient(t, map[string]answer{
		"POST " + sessions:                  {200, session("open", "unpaid")},
		"GET " + sessions + "/cs_1":         {200, session("complete", "paid")},
		"POST " + sessions + "/cs_1/expire": failing(400, "invalid_request_error", ""),
	})
	if state, n, err := c.Query(t.Context(), attempt); err != nil || state != payment.Taken || n != paidNotice {
		t.Errorf("queried %s %+v, error %v", state, n, err)
	}
	if state, n, err := c.Close(t.Context(), attempt); err != nil || state != payment.Taken || n != paidNotice {
		t.Errorf("closed %s %+v, error %v", state, n, err)
	}
	made.answers["POST "+sessions+"/cs_1/expire"] = answer{200, session("expired", "unpaid")}
	if state, _, err := c.Close(t.Context(), attempt); err != nil || state != payment.Lapsed {
		t.Errorf("closed %s, error %v", state, err)
	}
	made.answers["POST "+sessions] = failing(400, "invalid_request_error", "amount_too_small")
	if state, _, err := c.Query(t.Context(), attempt); err != nil || state != payment.NotFound {
		t.Errorf("one that is refused: queried %s, error %v", state, err)
	}
	if state, _, err := c.Close(t.Context(), attempt); err != nil || state != payment.Lapsed {
		t.Errorf("one that is refused: closed %s, error %v", state, err)
	}
	made.answers["POST "+sessions] = failing(500, "api_error", "")
	if state, _, err := c.Close(t.Context(), attempt); state != "" || !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("down: closed %s, error %v", state, err)
	}
}

func TestRefund(t *testing.T) {
	refund := payment.Refund{Number: "R1", Of: ordered, Amount: 880}
	of := func(number, status string, amount int) string {
		return fmt.Sprintf(`{"id":"re_%s","status":%q,"amount":%d,"metadata":{"refund":%q}}`, number, status, amount,
			number)
	}
	list := func(refunds ...string) answer {
		return answer{200, `{"object":"list","has_more":false,"data":[` + strings.Join(refunds, ",") + `]}`}
	}
	for what, test := range map[string]struct {
		before, create answer
		calls          int
		want           error
		made           bool // before
		madeErr        error
	}{
		"done":        {list(of("R0", "succeeded", 880)), answer{200, of("R1", "succeeded", 880)}, 3, nil, false, nil},
		"done before": {list(of("R0", "succeeded", 1), of("R1", "succeeded", 880)), answer{}, 2, nil, true, nil},
		"one failed before": {list(of("R0", "failed", 8888)), answer{200, of("R1", "succeeded", 880)}, 3, nil, false,
			nil},
		"all back": {list(of("", "succeeded", 8888)), answer{}, 2, nil, true, nil},
		"pending": {list(), answer{200, of("R1", "pending", 880)}, 3, payment.ErrUnknown, false,
			nil},
		"pending before": {list(of("R1", "pending", 880)), answer{}, 2, payment.ErrUnknown, false,
			payment.ErrUnknown},
		"failed":  {list(of("R1", "failed", 8888)), answer{}, 2, payment.ErrRefused, false, nil},
		"refused": {list(), failing(400, "invalid_request_error", ""), 3, payment.ErrRefused, false, nil},
		"down":    {failing(500, "api_error", ""), answer{}, 2, payment.ErrUnknown, false, payment.ErrUnknown},
		"away":    {list(), failing(503, "api_error", ""), 3, payment.ErrUnknown, false, nil},
	} {
		c, made := newClient(t, map[string]answer{
			"GET " + sessions + "/cs_1": {200, session("complete", "paid")}, "GET " + refunds: test.before,
			"POST " + refunds: test.create,
		})
		if err := c.Refund(t.Context(), refund); !errors.Is(err, test.want) || len(made.made) != test.calls {
			t.Errorf("%s: error %v after %q", what, err, made.made)
		}
		const want = "POST " + refunds + " refund-R1 amount=880&metadata%5Battempt%5D=A1&metadata%5Brefund%5D=R1&" +
			"payment_intent=pi_1"
		if test.calls == 3 && made.made[2] != want {
			t.Errorf("%s: sent %s", what, made.made[2])
		}
		if got, err := c.Refunded(t.Context(), refund); got != test.made || !errors.Is(err, test.madeErr) {
			t.Errorf("%s: made: %t, error %v", what, got, err)
		}
	}

	c, made := newClient(t, map[string]answer{"GET " + sessions + "/cs_1": {200, session("open", "unpaid")}})
	if err := c.Refund(t.Context(), refund); !errors.Is(err, payment.ErrRefused) {
		t.Errorf("of what is not paid: error %v", err)
	}
	if _, err := c.Refunded(t.Context(), refund); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("of what is not paid: made: error %v", err)
	}
	refund.Number = "R-1"
	if err := c.Refund(t.Context(), refund); !errors.Is(err, payment.ErrRefused) || len(made.made) != 2 {
		t.Errorf("with an odd number: error %v", err)
	}
}

func TestCurrencies(t *testing.T) {
	for code := range units {
		if !order.IsCurrency(code) {
			t.Errorf("%s is no currency", code)
		}
		back, ok := fromStripe(toStripe(5000, code), code)
		if !ok || back != 5000 {
			t.Errorf("5000 of %s become %d", code, back)
		}
	}
	for _, test := range []struct {
		code         string
		amount, want int64
	}{
		{"USD", 5, 5}, {"JPY", 5, 5}, {"ISK", 5, 500}, {"UGX", 5, 500}, {"MGA", 500, 5}, {"TWD", 500, 500},
		{"KWD", 10, 10},
	} {
		if got := toStripe(test.amount, test.code); got != test.want {
			t.Errorf("%d of %s are %d, want %d", test.amount, test.code, got, test.want)
		}
	}
	for code, amount := range map[string]int64{"ISK": 550, "XXX": 1, "USD": -1} {
		if got, ok := fromStripe(amount, code); ok {
			t.Errorf("%d of %s are %d", amount, code, got)
		}
	}
	for code, want := range map[string]int64{
		"USD": 1, "JPY": 1, "TWD": 100, "HUF": 100, "MGA": 100, "KWD": 10, "ISK": 1,
	} {
		offer, ok := (&Client{}).Offers("", code)
		if !ok || offer.Multiple != want || offer.Captures || !offer.Refunds {
			t.Errorf("%s: %+v", code, offer)
		}
	}
}
