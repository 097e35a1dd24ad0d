package pay

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"stampede/internal/order"
)

// paypal is PayPal's orders and payments API, version 2, and its webhooks. Money is taken by a capture only.
type paypal struct{ *Server }

const (
	maxTokens       = 1000
	tokenSeconds    = 32_400
	paypalPageLife  = 3 * time.Hour
	signatureMethod = "SHA256withRSA"
)

// paypalWhole are currencies with minor units by ISO 4217 of which PayPal takes whole ones only.
var paypalWhole = []string{"HUF", "TWD"}

type paypalMoney struct {
	Currency string `json:"currency_code"`
	Value    string `json:"value"`
}

// paypalOrder is what a merchant asks for.
type paypalOrder struct {
	Intent string `json:"intent"`
	Units  []struct {
		Reference   string      `json:"reference_id"`
		Custom      string      `json:"custom_id"`
		Invoice     string      `json:"invoice_id"`
		Description string      `json:"description"`
		Amount      paypalMoney `json:"amount"`
	} `json:"purchase_units"`
	Source struct {
		PayPal *struct {
			Context paypalContext `json:"experience_context"`
		} `json:"paypal"`
	} `json:"payment_source"`
	Context paypalContext `json:"application_context"` // the older place of the same
}

type paypalContext struct {
	ReturnURL string `json:"return_url"`
	CancelURL string `json:"cancel_url"`
}

func (p paypal) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /paypal/v1/oauth2/token", p.api(PayPal, opToken, p.token))
	mux.HandleFunc("GET /paypal/checkoutnow", p.api(PayPal, opPage, p.approvePage))
	mux.HandleFunc("GET /paypal/v1/notifications/certs/{id}", p.api(PayPal, opVerify, p.certificate))
	for route, operation := range map[string]struct {
		name string
		do   func(*call) answer
	}{
		"POST /paypal/v2/checkout/orders":                        {opCreate, p.create},
		"GET /paypal/v2/checkout/orders/{id}":                    {opQuery, p.get},
		"POST /paypal/v2/checkout/orders/{id}/capture":           {opCapture, p.capture},
		"GET /paypal/v2/payments/captures/{id}":                  {opQueryRefund, p.getCapture},
		"POST /paypal/v2/payments/captures/{id}/refund":          {opRefund, p.refund},
		"GET /paypal/v2/payments/refunds/{id}":                   {opQueryRefund, p.getRefund},
		"POST /paypal/v1/notifications/verify-webhook-signature": {opVerify, p.verify},
	} {
		mux.HandleFunc(route, p.api(PayPal, operation.name, p.authorized(operation.do)))
	}
}

// problem is an error in PayPal's form.
func (p paypal) problem(status int, name, issue string) answer {
	return asJSON(status, object{
		"name": name, "message": name, "debug_id": rand.Text(), "details": []object{{"issue": issue}},
	})
}

func (p paypal) unprocessable(issue string) answer {
	return p.problem(http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY", issue)
}

func (p paypal) missing() answer {
	return p.problem(http.StatusNotFound, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
}

func (p paypal) trouble(string) answer {
	return p.problem(http.StatusInternalServerError, "INTERNAL_SERVER_ERROR", "INTERNAL_SERVICE_ERROR")
}

func (p paypal) token(c *call) answer {
	id, secret, _ := c.request.BasicAuth()
	if id != paypalClientID || secret != paypalSecret {
		return asJSON(http.StatusUnauthorized, object{
			"error": "invalid_client", "error_description": "Client Authentication failed",
		})
	}
	if c.form.Get("grant_type") != "client_credentials" {
		return asJSON(http.StatusBadRequest, object{"error": "unsupported_grant_type"})
	}
	token := "A21AA" + rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = append(p.tokens, token)
	p.tokens = p.tokens[max(0, len(p.tokens)-maxTokens):]
	return asJSON(http.StatusOK, object{
		"access_token": token, "token_type": "Bearer", "expires_in": tokenSeconds, "app_id": "APP-80W284485P519543T",
	})
}

// authorized refuses calls without a token.
func (p paypal) authorized(do func(*call) answer) func(*call) answer {
	return func(c *call) answer {
		token, _ := strings.CutPrefix(c.request.Header.Get("Authorization"), "Bearer ")
		p.mu.Lock()
		known := slices.Contains(p.tokens, token)
		p.mu.Unlock()
		if !known {
			return asJSON(http.StatusUnauthorized, object{
				"error": "invalid_token", "error_description": "Token signature verification failed",
			})
		}
		return do(c)
	}
}

// amount reads an amount as PayPal takes it.
func (m paypalMoney) amount() (int64, bool) {
	amount, err := order.ParseMoney(m.Value, m.Currency)
	whole := slices.Contains(paypalWhole, m.Currency)
	return amount, err == nil && amount > 0 && !(whole && strings.Contains(m.Value, "."))
}

func paypalAmount(amount int64, currency string) paypalMoney {
	text, _ := order.Decimal(amount, currency)
	if slices.Contains(paypalWhole, currency) {
		text, _, _ = strings.Cut(text, ".")
	}
	return paypalMoney{Currency: currency, Value: text}
}

// create makes an order, or returns the one that was made under the same PayPal-Request-Id.
func (p paypal) create(c *call) answer {
	id := c.request.Header.Get("PayPal-Request-Id")
	if was, found, _ := p.books.recall(key("paypal create", id), ""); found && id != "" {
		if a := p.books.referred(PayPal, was.body); a != nil {
			return asJSON(http.StatusOK, p.order(a))
		}
	}
	var asked paypalOrder
	err := json.Unmarshal(c.body, &asked)
	if err != nil || asked.Intent != "CAPTURE" || len(asked.Units) != 1 {
		return p.problem(http.StatusBadRequest, "INVALID_REQUEST", "INVALID_PARAMETER_VALUE")
	}
	unit := asked.Units[0]
	amount, ok := unit.Amount.amount()
	number := unit.Custom
	switch {
	case c.refuse:
		return p.unprocessable("PAYEE_ACCOUNT_RESTRICTED")
	case !ok:
		return p.unprocessable("DECIMAL_PRECISION")
	case number == "" || len(number) > 127 || len(unit.Invoice) > 127 || len([]rune(unit.Description)) > 127:
		return p.problem(http.StatusBadRequest, "INVALID_REQUEST", "INVALID_STRING_LENGTH")
	}
	context := asked.Context
	if asked.Source.PayPal != nil {
		context = asked.Source.PayPal.Context
	}
	a := &attempt{
		Attempt: Attempt{
			Provider: PayPal, Number: number, Reference: rand.Text()[:17], Item: unit.Description, Amount: amount,
			Currency: unit.Amount.Currency, ExpiresAt: time.Now().Add(paypalPageLife),
		},
		backURL: context.ReturnURL, cancelURL: context.CancelURL, fields: url.Values{"invoice": {unit.Invoice}},
	}
	if err := p.books.add(a); err != nil {
		return p.problem(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", err.Error())
	}
	if id != "" {
		p.books.remember(key("paypal create", id), "", answer{body: a.Reference})
	}
	return asJSON(http.StatusCreated, p.order(a))
}

// order is an order as PayPal shows it.
func (p paypal) order(a *attempt) object {
	status := "PAYER_ACTION_REQUIRED" // also of one that has lapsed, which only a repeated create shows
	switch a.Status {
	case Approved:
		status = "APPROVED"
	case Paid:
		status = "COMPLETED"
	}
	unit := object{
		"reference_id": "default", "custom_id": a.Number, "description": a.Item,
		"amount": paypalAmount(a.Amount, a.Currency), "payee": object{"merchant_id": paypalMerchant},
	}
	if invoice := a.fields.Get("invoice"); invoice != "" {
		unit["invoice_id"] = invoice
	}
	if a.payment != nil {
		refunds := []object{}
		for _, r := range a.refunds {
			if r.By == ByAPI {
				refunds = append(refunds, p.shownRefund(a, r))
			}
		}
		unit["payments"] = object{"captures": []object{p.shown(a)}, "refunds": refunds}
	}
	self := p.self() + "/v2/checkout/orders/" + a.Reference
	return object{
		"id": a.Reference, "intent": "CAPTURE", "status": status, "purchase_units": []object{unit},
		"create_time": a.CreatedAt.UTC().Format(time.RFC3339),
		"links": []object{
			{"rel": "self", "href": self, "method": "GET"},
			{"rel": "payer-action", "href": p.self() + "/checkoutnow?token=" + a.Reference, "method": "GET"},
			{"rel": "capture", "href": self + "/capture", "method": "POST"},
		},
	}
}

// self is this provider's address.
func (p paypal) self() string { return p.URL() + "/paypal" }

// shown is a capture.
func (p paypal) shown(a *attempt) object {
	status := "COMPLETED"
	switch {
	case a.Refunded == a.Amount:
		status = "REFUNDED"
	case a.Refunded > 0:
		status = "PARTIALLY_REFUNDED"
	}
	fee := a.Amount / 25 / dollar * dollar
	at := a.payment.PaidAt.UTC().Format(time.RFC3339)
	capture := object{
		"id": a.payment.Reference, "status": status, "amount": paypalAmount(a.Amount, a.Currency),
		"final_capture": true,
		"custom_id":     a.Number, "payee": object{"merchant_id": paypalMerchant}, "create_time": at, "update_time": at,
		"seller_receivable_breakdown": object{
			"gross_amount": paypalAmount(a.Amount, a.Currency), "paypal_fee": paypalAmount(fee, a.Currency),
			"net_amount": paypalAmount(a.Amount-fee, a.Currency),
		},
		"supplementary_data": object{"related_ids": object{"order_id": a.Reference}},
		"links": []object{
			{"rel": "self", "href": p.self() + "/v2/payments/captures/" + a.payment.Reference, "method": "GET"},
		},
	}
	if invoice := a.fields.Get("invoice"); invoice != "" {
		capture["invoice_id"] = invoice
	}
	return capture
}

// found is the order that a path names, or nil: PayPal forgets one that was not paid in its time.
func (p paypal) found(c *call) *attempt {
	a := p.books.referred(PayPal, c.request.PathValue("id"))
	if a == nil || a.Status == Closed || a.Reference != c.request.PathValue("id") {
		return nil
	}
	return a
}

func (p paypal) get(c *call) answer {
	a := p.found(c)
	if a == nil {
		return p.missing()
	}
	return asJSON(http.StatusOK, p.order(a))
}

// capture takes the money of an order that was approved, once.
func (p paypal) capture(c *call) answer {
	a := p.found(c)
	id := key("paypal capture", c.request.Header.Get("PayPal-Request-Id"))
	if a == nil {
		return p.missing()
	}
	_, repeated, same := p.books.recall(id, a.Reference)
	invoice := a.fields.Get("invoice")
	switch {
	case a.Status == Paid && repeated && same:
		return asJSON(http.StatusCreated, p.order(a))
	case a.Status == Paid:
		return p.unprocessable("ORDER_ALREADY_CAPTURED")
	case a.Status != Approved:
		return p.unprocessable("ORDER_NOT_APPROVED")
	case c.refuse:
		return p.unprocessable("INSTRUMENT_DECLINED")
	}
	if other := p.books.paidNumbered(a); other != nil && invoice != "" && other.fields.Get("invoice") == invoice {
		return p.unprocessable("DUPLICATE_INVOICE_ID")
	}
	p.books.take(a, rand.Text()[:17], "paypal")
	if c.request.Header.Get("PayPal-Request-Id") != "" {
		p.books.remember(id, a.Reference, answer{})
	}
	given := asJSON(http.StatusCreated, p.order(a))
	given.notices = []*notice{p.tell(a, "PAYMENT.CAPTURE.COMPLETED", "capture", p.shown(a))}
	return given
}

// captured is the order whose capture a path names, or nil.
func (p paypal) captured(c *call) *attempt {
	a := p.books.referred(PayPal, c.request.PathValue("id"))
	if a == nil || a.payment == nil || a.payment.Reference != c.request.PathValue("id") {
		return nil
	}
	return a
}

func (p paypal) getCapture(c *call) answer {
	a := p.captured(c)
	if a == nil {
		return p.missing()
	}
	return asJSON(http.StatusOK, p.shown(a))
}

func (p paypal) refund(c *call) answer {
	a := p.captured(c)
	if a == nil {
		return p.missing()
	}
	id := c.request.Header.Get("PayPal-Request-Id")
	if id != "" {
		if r := a.refund(id); r != nil {
			return asJSON(http.StatusOK, p.shownRefund(a, r))
		}
		if was, found, _ := p.books.recall(key("paypal refund", id), ""); found {
			return was
		}
	}
	var asked struct {
		Amount  *paypalMoney `json:"amount"`
		Invoice string       `json:"invoice_id"`
	}
	if err := json.Unmarshal(c.body, &asked); len(c.body) > 0 && err != nil || len(asked.Invoice) > 127 {
		return p.problem(http.StatusBadRequest, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
	}
	amount, ok := a.Amount-a.Refunded, true
	if asked.Amount != nil {
		amount, ok = asked.Amount.amount()
		ok = ok && asked.Amount.Currency == a.Currency
	}
	switch {
	case !ok:
		return p.unprocessable("DECIMAL_PRECISION")
	case c.refuse:
		refused := p.unprocessable("REFUND_FAILED_INSUFFICIENT_FUNDS")
		if id != "" {
			p.books.remember(key("paypal refund", id), "", refused)
		}
		return refused
	case a.Refunded == a.Amount:
		return p.unprocessable("CAPTURE_FULLY_REFUNDED")
	}
	r, err := p.books.give(a, id, rand.Text()[:17], amount, ByAPI)
	if err != nil {
		return p.unprocessable("REFUND_AMOUNT_EXCEEDED")
	}
	a.fields.Set(r.Reference, asked.Invoice)
	p.books.byReference[key(PayPal, r.Reference)] = a
	given := asJSON(http.StatusCreated, p.shownRefund(a, r))
	given.notices = []*notice{p.tell(a, "PAYMENT.CAPTURE.REFUNDED", "refund", p.shownRefund(a, r))}
	return given
}

func (p paypal) shownRefund(a *attempt, r *Refund) object {
	at := r.At.UTC().Format(time.RFC3339)
	shown := object{
		"id": r.Reference, "status": "COMPLETED", "amount": paypalAmount(r.Amount, r.Currency), "custom_id": a.Number,
		"payee": object{"merchant_id": paypalMerchant}, "create_time": at, "update_time": at,
		"links": []object{
			{"rel": "self", "href": p.self() + "/v2/payments/refunds/" + r.Reference, "method": "GET"},
			{"rel": "up", "href": p.self() + "/v2/payments/captures/" + a.payment.Reference, "method": "GET"},
		},
	}
	if invoice := a.fields.Get(r.Reference); invoice != "" {
		shown["invoice_id"] = invoice
	}
	return shown
}

func (p paypal) getRefund(c *call) answer {
	if a := p.books.referred(PayPal, c.request.PathValue("id")); a != nil {
		for _, r := range a.refunds {
			if r.Reference == c.request.PathValue("id") {
				return asJSON(http.StatusOK, p.shownRefund(a, r))
			}
		}
	}
	return p.missing()
}

func (p paypal) approvePage(c *call) answer {
	a := p.books.referred(PayPal, c.form.Get("token"))
	if a == nil || a.Reference != c.form.Get("token") {
		return p.problemPage(http.StatusNotFound, "There is no such order.")
	}
	return p.page(a)
}

// pay has the buyer approve. That he can, and the merchant may take the money, is all that it means here.
func (p paypal) pay(a *attempt) []*notice {
	a.Status = Approved
	return []*notice{p.tell(a, "CHECKOUT.ORDER.APPROVED", "checkout-order", p.order(a))}
}

func (p paypal) lapse(*attempt) []*notice { return nil } // PayPal tells nobody

func (p paypal) forged(a *attempt) *notice {
	made := *a
	if made.payment == nil {
		made.payment = &Payment{Reference: rand.Text()[:17], PaidAt: time.Now()}
	}
	n := p.tell(a, "PAYMENT.CAPTURE.COMPLETED", "capture", p.shown(&made))
	n.forged = true
	return n
}

func (p paypal) back(a *attempt, cancelled bool) string {
	to, more := a.backURL, "token="+a.Reference+"&PayerID=QYR5Z8XDVJNXQ"
	if cancelled {
		to, more = a.cancelURL, "token="+a.Reference
	}
	return withQuery(to, more)
}

// withQuery adds fields to an address, if it is one.
func withQuery(address, more string) string {
	u, err := url.Parse(address)
	if err != nil || address == "" {
		return ""
	}
	if u.RawQuery != "" {
		more = u.RawQuery + "&" + more
	}
	u.RawQuery = more
	return u.String()
}

func (p paypal) acknowledged(status int, _ string) bool { return status/100 == 2 }

// tell is an event, signed anew at each try.
func (p paypal) tell(a *attempt, kind, resource string, what object) *notice {
	event, err := json.Marshal(object{
		"id": "WH-" + rand.Text(), "event_version": "1.0", "resource_version": "2.0", "event_type": kind,
		"resource_type": resource, "create_time": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		"summary": kind, "resource": what,
	})
	if err != nil {
		panic(fmt.Sprintf("pay: an event that is no JSON: %v", err))
	}
	return &notice{
		provider: PayPal, number: a.Number, kind: kind, url: p.webhook(PayPal),
		twin: func() *notice { return p.tell(a, kind, resource, what) },
		sign: func(forged bool) (http.Header, string) { return p.sign(event, forged), string(event) },
	}
}

func (p paypal) sign(event []byte, forged bool) http.Header {
	signer := p.keys.paypal
	if forged {
		signer = p.keys.nobody
	}
	id, at := rand.Text(), time.Now().UTC().Format(time.RFC3339)
	return http.Header{
		"Content-Type":             {"application/json"},
		"Paypal-Transmission-Id":   {id},
		"Paypal-Transmission-Time": {at},
		"Paypal-Transmission-Sig":  {signRSA(signer, transmission(id, at, paypalWebhookID, event))},
		"Paypal-Cert-Url":          {p.self() + "/v1/notifications/certs/" + paypalCertID},
		"Paypal-Auth-Algo":         {signatureMethod},
	}
}

// transmission is the text that the signature of an event is of.
func transmission(id, at, webhook string, event []byte) []byte {
	return fmt.Appendf(nil, "%s|%s|%s|%d", id, at, webhook, crc32.ChecksumIEEE(event))
}

func (p paypal) certificate(c *call) answer {
	if c.request.PathValue("id") != paypalCertID {
		return p.missing()
	}
	return plain(http.StatusOK, string(p.keys.chain))
}

// verify is the postback. It is about the bytes of the event as they came: written anew they do not fit.
func (p paypal) verify(c *call) answer {
	var asked struct {
		Method    string          `json:"auth_algo"`
		Cert      string          `json:"cert_url"`
		ID        string          `json:"transmission_id"`
		Signature string          `json:"transmission_sig"`
		Time      string          `json:"transmission_time"`
		Webhook   string          `json:"webhook_id"`
		Event     json.RawMessage `json:"webhook_event"`
	}
	if err := json.Unmarshal(c.body, &asked); err != nil || len(asked.Event) == 0 {
		return p.problem(http.StatusBadRequest, "VALIDATION_ERROR", "MALFORMED_REQUEST_JSON")
	}
	text := transmission(asked.ID, asked.Time, asked.Webhook, asked.Event)
	status := "FAILURE"
	if asked.Method == signatureMethod && asked.Webhook == paypalWebhookID &&
		strings.HasSuffix(asked.Cert, paypalCertID) && verifyRSA(&p.keys.paypal.PublicKey, text, asked.Signature) {
		status = "SUCCESS"
	}
	return asJSON(http.StatusOK, object{"verification_status": status})
}
