package pay_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"

	"stampede/localstack/pay"
)

// paypalShown is what PayPal shows of an order, a capture or a refund.
type paypalShown struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Custom string `json:"custom_id"`
	Amount struct {
		Currency string `json:"currency_code"`
		Value    string `json:"value"`
	} `json:"amount"`
	Units []struct {
		Custom   string `json:"custom_id"`
		Payments struct {
			Captures []paypalShown `json:"captures"`
		} `json:"payments"`
	} `json:"purchase_units"`
	Links []struct {
		Rel  string `json:"rel"`
		Href string `json:"href"`
	} `json:"links"`
	Details []struct {
		Issue string `json:"issue"`
	} `json:"details"`
}

func (l *lab) paypalToken() string {
	l.Helper()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	request := http.Request{Header: header}
	request.SetBasicAuth(l.env["PAYPAL_CLIENT_ID"], l.env["PAYPAL_SECRET"])
	r := l.do("POST", l.env["PAYPAL_HOST"]+"/v1/oauth2/token", header, "grant_type=client_credentials")
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || got.Token == "" {
		l.Fatalf("no token: %s", r.body)
	}
	return got.Token
}

func paypalHeader(token, id string) http.Header {
	header := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	if id != "" {
		header.Set("PayPal-Request-Id", id)
	}
	return header
}

// paypal calls PayPal; id is the PayPal-Request-Id.
func (l *lab) paypal(method, path, id, body string) (int, paypalShown) {
	l.Helper()
	r := l.do(method, l.env["PAYPAL_HOST"]+path, paypalHeader(l.paypalToken(), id), body)
	var shown paypalShown
	if err := json.Unmarshal([]byte(r.body), &shown); err != nil {
		l.Fatalf("%s %s: %v: %s", method, path, err, r.body)
	}
	return r.status, shown
}

// paypalOrder is a request for an order of 12.30 euro.
func (l *lab) paypalOrder(number string) string {
	return fmt.Sprintf(`{"intent":"CAPTURE","purchase_units":[{"custom_id":%q,"invoice_id":%q,"description":"a <thing>",
		"amount":{"currency_code":"EUR","value":"12.30"}}],"payment_source":{"paypal":{"experience_context":
		{"return_url":"%s/back","cancel_url":"%s/cancelled"}}}}`, number, number, l.shop.URL, l.shop.URL)
}

func (l *lab) paypalCreate(number string) paypalShown {
	l.Helper()
	status, made := l.paypal("POST", "/v2/checkout/orders", number, l.paypalOrder(number))
	if status != http.StatusCreated || made.Status != "PAYER_ACTION_REQUIRED" {
		l.Fatalf("create: status %d, %+v", status, made)
	}
	return made
}

// paypalTold verifies a notice as the documentation says, by the certificate that it names.
func (l *lab) paypalTold(n told) paypalShown {
	l.Helper()
	address := n.header.Get("Paypal-Cert-Url")
	if !strings.HasPrefix(address, l.env["PAYPAL_HOST"]+"/v1/notifications/certs/") {
		l.Fatalf("the certificate is at %s", address)
	}
	chain := []byte(l.do("GET", address, nil, "").body)
	block, rest := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(rest) == 0 {
		l.Fatalf("the chain: %v", err)
	}
	der, err := base64.StdEncoding.DecodeString(l.env["PAYPAL_CERT_ROOTS"])
	if err != nil {
		l.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		l.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := leaf.Verify(x509.VerifyOptions{
		DNSName: "messageverificationcerts.sandbox.paypal.com", Roots: roots, Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		l.Errorf("the certificate: %v", err)
	}
	text := fmt.Sprintf("%s|%s|%s|%d", n.header.Get("Paypal-Transmission-Id"), n.header.Get("Paypal-Transmission-Time"),
		l.env["PAYPAL_WEBHOOK_ID"], crc32.ChecksumIEEE(n.body))
	signature, _ := base64.StdEncoding.DecodeString(n.header.Get("Paypal-Transmission-Sig"))
	sum := sha256.Sum256([]byte(text))
	if err := rsa.VerifyPKCS1v15(leaf.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], signature); err != nil {
		l.Errorf("a notice: %v", err)
	}
	var event struct {
		Resource paypalShown `json:"resource"`
	}
	if err := json.Unmarshal(n.body, &event); err != nil {
		l.Error(err)
	}
	return event.Resource
}

// postback asks PayPal whether a notice is its own.
func (l *lab) postback(n told, event string) string {
	l.Helper()
	header := n.header.Get
	address := l.env["PAYPAL_HOST"] + "/v1/notifications/verify-webhook-signature"
	return l.do("POST", address, paypalHeader(l.paypalToken(), ""),
		fmt.Sprintf(`{"auth_algo":%q,"cert_url":%q,"transmission_id":%q,"transmission_sig":%q,"transmission_time":%q,
		"webhook_id":%q,"webhook_event":%s}`, header("Paypal-Auth-Algo"), header("Paypal-Cert-Url"),
			header("Paypal-Transmission-Id"), header("Paypal-Transmission-Sig"), header("Paypal-Transmission-Time"),
			l.env["PAYPAL_WEBHOOK_ID"], event)).body
}

func TestPayPal(t *testing.T) {
	t.Parallel()
	l := start(t)
	made := l.paypalCreate("A1")
	if status, again := l.paypal("POST", "/v2/checkout/orders", "A1", l.paypalOrder("A1")); status != http.StatusOK ||
		again.ID != made.ID {
		t.Errorf("created again: status %d, %+v", status, again)
	}
	if status, _ := l.paypal("GET", "/v2/checkout/orders/X", "", ""); status != http.StatusNotFound {
		t.Errorf("an order of nobody: status %d", status)
	}
	order := "/v2/checkout/orders/" + made.ID
	_, early := l.paypal("POST", order+"/capture", "A1", "{}")
	if len(early.Details) != 1 || early.Details[0].Issue != "ORDER_NOT_APPROVED" {
		t.Errorf("captured too early: %+v", early)
	}
	var approve string
	for _, link := range made.Links {
		if link.Rel == "payer-action" {
			approve = link.Href
		}
	}
	if page := l.do("GET", approve, nil, ""); !strings.Contains(page.body, "12.30 EUR") ||
		!strings.Contains(page.body, "a &lt;thing&gt;") {
		t.Errorf("the page at %s: %s", approve, page.body)
	}

	l.buyer("cancel", pay.PayPal, "A1")
	r := l.do("POST", l.server.URL()+"/buyer/paypal/"+made.ID+"/pay", nil, "")
	if to := r.header.Get("Location"); to != l.shop.URL+"/back?token="+made.ID+"&PayerID=QYR5Z8XDVJNXQ" {
		t.Errorf("approved: sent back to %s", to)
	}
	if got := l.paypalTold(l.wait(1)[0]); got.ID != made.ID || len(got.Units) != 1 || got.Units[0].Custom != "A1" {
		t.Errorf("told %+v", got)
	}
	l.wantBooks("")
	for range 2 { // with the same key the second is the first
		if _, done := l.paypal("POST", order+"/capture", "A1", "{}"); done.Status != "COMPLETED" {
			t.Errorf("captured: %+v", done)
		}
	}
	_, other := l.paypal("POST", order+"/capture", "A1again", "{}")
	if len(other.Details) != 1 || other.Details[0].Issue != "ORDER_ALREADY_CAPTURED" {
		t.Errorf("captured again: %+v", other)
	}
	_, paid := l.paypal("GET", order, "", "")
	capture := paid.Units[0].Payments.Captures[0]
	notice := l.wait(2)[1]
	if got := l.paypalTold(notice); notice.event() != "PAYMENT.CAPTURE.COMPLETED" || got.ID != capture.ID ||
		got.Custom != "A1" || got.Amount.Value != "12.30" {
		t.Errorf("told %s %+v", notice.event(), got)
	}
	if got := l.postback(notice, string(notice.body)); got != `{"verification_status":"SUCCESS"}` {
		t.Errorf("posted back: %s", got)
	}
	if got := l.postback(notice, string(notice.body)+" "); got != `{"verification_status":"SUCCESS"}` {
		t.Errorf("posted back with space around it: %s", got)
	}
	if got := l.postback(notice, "{ "+string(notice.body[1:])); got != `{"verification_status":"FAILURE"}` {
		t.Errorf("posted back, written anew: %s", got)
	}

	l.paypalRefunds(capture.ID)
	l.wantBooks("paypal paid A1 1230 EUR; refund R1 of A1 230 by api; refund R2 of A1 1000 by api")
}

// paypalRefunds refunds 12.30 euro in two parts.
func (l *lab) paypalRefunds(capture string) {
	l.Helper()
	path := "/v2/payments/captures/" + capture
	for _, test := range []struct{ number, body, status, issue string }{
		{"R1", `{"amount":{"currency_code":"EUR","value":"2.30"}}`, "COMPLETED", ""},
		{"R1", `{"amount":{"currency_code":"EUR","value":"2.30"}}`, "COMPLETED", ""},
		{"R3", `{"amount":{"currency_code":"EUR","value":"10.01"}}`, "", "REFUND_AMOUNT_EXCEEDED"},
		{"R2", ``, "COMPLETED", ""},
		{"R4", ``, "", "CAPTURE_FULLY_REFUNDED"},
	} {
		_, got := l.paypal("POST", path+"/refund", test.number, test.body)
		issue := ""
		if len(got.Details) > 0 {
			issue = got.Details[0].Issue
		}
		if got.Status != test.status || issue != test.issue {
			l.Errorf("refund %s: %s %s", test.number, got.Status, issue)
		}
		if test.status != "" {
			if _, found := l.paypal("GET", "/v2/payments/refunds/"+got.ID, "", ""); found.Amount != got.Amount {
				l.Errorf("refund %s: %+v", test.number, found)
			}
		}
	}
	if _, got := l.paypal("GET", path, "", ""); got.Status != "REFUNDED" {
		l.Errorf("refunded: %s", got.Status)
	}
}

func TestPayPalRefuses(t *testing.T) {
	t.Parallel()
	l := start(t)
	whole := strings.Replace(l.paypalOrder("A1"), "EUR", "TWD", 1)
	for what, test := range map[string]struct {
		body   string
		status int
	}{
		"no JSON":         {"{", http.StatusBadRequest},
		"another intent":  {strings.Replace(l.paypalOrder("A1"), "CAPTURE", "AUTHORIZE", 1), http.StatusBadRequest},
		"parts of dollar": {whole, http.StatusUnprocessableEntity},
		"no number":       {l.paypalOrder(""), http.StatusBadRequest},
		"whole dollars":   {strings.Replace(whole, "12.30", "12", 1), http.StatusCreated},
	} {
		if status, _ := l.paypal("POST", "/v2/checkout/orders", "", test.body); status != test.status {
			t.Errorf("%s: status %d, want %d", what, status, test.status)
		}
	}
	r := l.do("POST", l.env["PAYPAL_HOST"]+"/v2/checkout/orders", paypalHeader("x", ""), l.paypalOrder("A1"))
	if r.status != http.StatusUnauthorized {
		t.Errorf("without a token: status %d", r.status)
	}
	r = l.do("POST", l.env["PAYPAL_HOST"]+"/v1/oauth2/token", http.Header{}, "grant_type=client_credentials")
	if r.status != http.StatusUnauthorized {
		t.Errorf("without a secret: status %d", r.status)
	}
	made := l.paypalCreate("A2")
	l.buyer("lapse", pay.PayPal, "A2")
	if status, _ := l.paypal("GET", "/v2/checkout/orders/"+made.ID, "", ""); status != http.StatusNotFound {
		t.Errorf("lapsed: status %d", status)
	}
}
