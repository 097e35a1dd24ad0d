package pay_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/localstack/pay"
)

// stripeShown is what Stripe shows of a session, a refund, a list or an error.
type stripeShown struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"`
	Payment   string            `json:"payment_status"`
	Intent    string            `json:"payment_intent"`
	Reference string            `json:"client_reference_id"`
	Total     int64             `json:"amount_total"`
	Amount    int64             `json:"amount"`
	Currency  string            `json:"currency"`
	URL       string            `json:"url"`
	Metadata  map[string]string `json:"metadata"`
	Data      []stripeShown     `json:"data"`
	More      bool              `json:"has_more"`
	Error     struct {
		Type string `json:"type"`
		Code string `json:"code"`
	} `json:"error"`
}

// stripe calls Stripe; id is the Idempotency-Key.
func (l *lab) stripe(method, path, id string, form url.Values) (int, stripeShown) {
	l.Helper()
	header := http.Header{
		"Authorization": {"Bearer " + l.env["STRIPE_SECRET_KEY"]},
		"Content-Type":  {"application/x-www-form-urlencoded"},
	}
	if id != "" {
		header.Set("Idempotency-Key", id)
	}
	r := l.do(method, l.env["STRIPE_HOST"]+path, header, form.Encode())
	var shown stripeShown
	if err := json.Unmarshal([]byte(r.body), &shown); err != nil {
		l.Fatalf("%s %s: %v: %s", method, path, err, r.body)
	}
	return r.status, shown
}

// stripeSession is a request for a session of 15.00 dollars.
func (l *lab) stripeSession(number string) url.Values {
	return url.Values{
		"mode": {"payment"}, "client_reference_id": {number}, "line_items[0][quantity]": {"3"},
		"line_items[0][price_data][currency]": {"usd"}, "line_items[0][price_data][unit_amount]": {"500"},
		"line_items[0][price_data][product_data][name]": {"a <thing>"}, "metadata[attempt]": {number},
		"success_url": {l.shop.URL + "/back?session={CHECKOUT_SESSION_ID}"}, "cancel_url": {l.shop.URL + "/cancelled"},
		"expires_at": {strconv.FormatInt(time.Now().Add(30*time.Minute).Unix(), 10)},
	}
}

func (l *lab) stripeCreate(number string) stripeShown {
	l.Helper()
	status, made := l.stripe("POST", "/v1/checkout/sessions", number, l.stripeSession(number))
	if status != http.StatusOK || made.Status != "open" || made.Total != 1500 || made.Reference != number {
		l.Fatalf("create: status %d, %+v", status, made)
	}
	return made
}

// stripeTold verifies a notice as the documentation says.
func (l *lab) stripeTold(n told) stripeShown {
	l.Helper()
	if header := n.header.Get("Stripe-Signature"); !strings.HasSuffix(header, ",v1="+l.stripeSum(n)) {
		l.Errorf("a notice is not signed: %s", header)
	}
	var event struct {
		Data struct {
			Object stripeShown `json:"object"`
		} `json:"data"`
	}
	if err := json.Unmarshal(n.body, &event); err != nil {
		l.Error(err)
	}
	return event.Data.Object
}

func TestStripe(t *testing.T) {
	t.Parallel()
	l := start(t)
	form := l.stripeSession("A1")
	_, made := l.stripe("POST", "/v1/checkout/sessions", "A1", form)
	if _, again := l.stripe("POST", "/v1/checkout/sessions", "A1", form); again.ID != made.ID || made.ID == "" {
		t.Errorf("created again: %+v", again)
	}
	form.Set("line_items[0][quantity]", "4")
	if _, other := l.stripe("POST", "/v1/checkout/sessions", "A1", form); other.Error.Type != "idempotency_error" {
		t.Errorf("another under the same key: %+v", other)
	}
	if page := l.do("GET", made.URL, nil, ""); !strings.Contains(page.body, "15.00 USD") {
		t.Errorf("the page at %s: %s", made.URL, page.body)
	}
	r := l.do("POST", l.server.URL()+"/buyer/stripe/"+made.ID+"/pay", nil, "")
	if to := r.header.Get("Location"); to != l.shop.URL+"/back?session="+made.ID {
		t.Errorf("paid: sent back to %s", to)
	}
	session := l.stripeTold(l.wait(1)[0])
	if session.ID != made.ID || session.Status != "complete" || session.Payment != "paid" ||
		session.Metadata["attempt"] != "A1" || session.Intent == "" {
		t.Errorf("told %+v", session)
	}
	if _, got := l.stripe("GET", "/v1/checkout/sessions/"+made.ID, "", nil); got.Intent != session.Intent {
		t.Errorf("paid: %+v", got)
	}
	if _, got := l.stripe("GET", "/v1/payment_intents/"+session.Intent, "", nil); got.Status != "succeeded" {
		t.Errorf("paid: %+v", got)
	}
	if _, got := l.stripe("POST", "/v1/checkout/sessions/"+made.ID+"/expire", "", nil); got.Error.Type == "" {
		t.Errorf("paid, and expired: %+v", got)
	}
	for _, test := range []struct{ number, amount, want string }{
		{"R1", "500", "succeeded"}, {"R1", "500", "succeeded"}, {"R2", "1001", "amount_too_large"},
		{"R3", "", "succeeded"}, {"R4", "", "charge_already_refunded"},
	} {
		refund := url.Values{"payment_intent": {session.Intent}, "metadata[refund]": {test.number}}
		if test.amount != "" {
			refund.Set("amount", test.amount)
		}
		if _, got := l.stripe("POST", "/v1/refunds", test.number, refund); got.Status+got.Error.Code != test.want {
			t.Errorf("refund %s: %+v", test.number, got)
		}
	}
	_, first := l.stripe("GET", "/v1/refunds?limit=1&payment_intent="+session.Intent, "", nil)
	if len(first.Data) != 1 || !first.More || first.Data[0].Metadata["refund"] != "R3" || first.Data[0].Amount != 1000 {
		t.Fatalf("refunds %+v", first)
	}
	after := "&starting_after=" + first.Data[0].ID
	_, second := l.stripe("GET", "/v1/refunds?payment_intent="+session.Intent+after, "", nil)
	if len(second.Data) != 1 || second.More || second.Data[0].Metadata["refund"] != "R1" {
		t.Errorf("refunds after the first %+v", second)
	}
	l.wantBooks("stripe paid A1 1500 USD; refund R1 of A1 500 by api; refund R3 of A1 1000 by api")
}

func TestStripeExpires(t *testing.T) {
	t.Parallel()
	l := start(t)
	path := "/v1/checkout/sessions/" + l.stripeCreate("A1").ID
	if _, got := l.stripe("POST", path+"/expire", "", nil); got.Status != "expired" {
		t.Errorf("expired: %+v", got)
	}
	if got := l.stripeTold(l.wait(1)[0]); got.Status != "expired" {
		t.Errorf("told %+v", got)
	}
	if _, err := l.server.Act("pay", pay.Stripe, "A1", ""); err == nil {
		t.Error("expired, and was paid")
	}
	for what, pair := range map[string][2]string{
		"a quarter of an hour": {"expires_at", strconv.FormatInt(time.Now().Add(15*time.Minute).Unix(), 10)},
		"two days":             {"expires_at", strconv.FormatInt(time.Now().Add(48*time.Hour).Unix(), 10)},
		"no currency":          {"line_items[0][price_data][currency]", "xxx"},
		"nothing":              {"line_items[0][price_data][unit_amount]", "0"},
		"a subscription":       {"mode", "subscription"},
	} {
		form := l.stripeSession("A2")
		form.Set(pair[0], pair[1])
		if status, _ := l.stripe("POST", "/v1/checkout/sessions", "", form); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", what, status)
		}
	}
	for _, host := range []string{l.env["STRIPE_HOST"], l.server.URL() + "/stripe"} {
		if r := l.do("GET", host+path, nil, ""); r.status != http.StatusUnauthorized {
			t.Errorf("without a key at %s: status %d", host, r.status)
		}
	}
}

// stripeSum is the signature that a notice must have.
func (l *lab) stripeSum(n told) string {
	at, _, _ := strings.Cut(strings.TrimPrefix(n.header.Get("Stripe-Signature"), "t="), ",")
	sum := hmac.New(sha256.New, []byte(l.env["STRIPE_WEBHOOK_SECRET"]))
	sum.Write([]byte(at + "."))
	sum.Write(n.body)
	return hex.EncodeToString(sum.Sum(nil))
}
