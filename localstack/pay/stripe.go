package pay

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"stampede/internal/order"
)

// stripe is Stripe's API as far as hosted checkout pages need it. Amounts are in minor units.
type stripe struct{ *Server }

const (
	stripeVersion  = "2025-08-27.basil"
	stripePageLife = 24 * time.Hour
	// A page can be given from half an hour to a day. Stripe takes half an hour from when the call was begun.
	stripeLeast, stripeSlack = 30 * time.Minute, time.Minute
	stripeMaxPage            = 100
)

func (p stripe) routes(mux *http.ServeMux) {
	for route, operation := range map[string]struct {
		name string
		do   func(*call) answer
	}{
		"POST /v1/checkout/sessions":             {opCreate, p.once(p.create)},
		"GET /v1/checkout/sessions":              {opQuery, p.listSessions},
		"GET /v1/checkout/sessions/{id}":         {opQuery, p.get},
		"POST /v1/checkout/sessions/{id}/expire": {opClose, p.once(p.expire)},
		"GET /v1/payment_intents/{id}":           {opQuery, p.getIntent},
		"POST /v1/refunds":                       {opRefund, p.once(p.refund)},
		"GET /v1/refunds":                        {opQueryRefund, p.listRefunds},
		"GET /v1/refunds/{id}":                   {opQueryRefund, p.getRefund},
	} {
		method, path, _ := strings.Cut(route, " ")
		handler := p.api(Stripe, operation.name, p.authorized(operation.do))
		mux.HandleFunc(route, handler) // as Stripe's own library takes no address with a path
		mux.HandleFunc(method+" /stripe"+path, handler)
	}
	mux.HandleFunc("GET /stripe/c/pay/{id}", p.api(Stripe, opPage, func(c *call) answer {
		a := p.session(c.request.PathValue("id"))
		if a == nil {
			return p.problemPage(http.StatusNotFound, "There is no such payment.")
		}
		return p.page(a)
	}))
}

func (p stripe) problem(status int, kind, code, message string) answer {
	return asJSON(status, object{"error": object{"type": kind, "code": code, "message": message}})
}

func (p stripe) invalid(code, message string) answer {
	return p.problem(http.StatusBadRequest, "invalid_request_error", code, message)
}

func (p stripe) missing(what string) answer {
	return p.problem(http.StatusNotFound, "invalid_request_error", "resource_missing", "No such "+what)
}

func (p stripe) trouble(string) answer {
	return p.problem(http.StatusInternalServerError, "api_error", "", "An unknown error occurred")
}

func (p stripe) authorized(do func(*call) answer) func(*call) answer {
	return func(c *call) answer {
		user, _, _ := c.request.BasicAuth()
		if c.request.Header.Get("Authorization") != "Bearer "+stripeSecret && user != stripeSecret {
			return p.problem(http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided")
		}
		return do(c)
	}
}

// once answers a call that is repeated with its Idempotency-Key as the first time, also if it was refused then.
func (p stripe) once(do func(*call) answer) func(*call) answer {
	return func(c *call) answer {
		id := c.request.Header.Get("Idempotency-Key")
		if id == "" {
			return do(c)
		}
		request := c.request.URL.Path + " " + c.form.Encode()
		was, found, same := p.books.recall(key("stripe", id), request)
		switch {
		case found && !same:
			return p.problem(http.StatusBadRequest, "idempotency_error", "",
				"Keys for idempotent requests can only be used with the same parameters they were first used with.")
		case found:
			was.header = map[string]string{"Idempotent-Replayed": "true"}
			return was
		}
		given := do(c)
		p.books.remember(key("stripe", id), request, given)
		return given
	}
}

// session is the attempt with the id of a session, or nil.
func (p stripe) session(id string) *attempt {
	if a := p.books.referred(Stripe, id); a != nil && a.Reference == id {
		return a
	}
	return nil
}

func (p stripe) create(c *call) answer {
	f := c.form
	each, err := strconv.ParseInt(f.Get("line_items[0][price_data][unit_amount]"), 10, 64)
	quantity, quantityErr := strconv.ParseInt(cmp.Or(f.Get("line_items[0][quantity]"), "1"), 10, 64)
	currency := strings.ToUpper(f.Get("line_items[0][price_data][currency]"))
	expires := time.Now().Add(stripePageLife)
	var expiresErr error
	if text := f.Get("expires_at"); text != "" {
		var seconds int64
		seconds, expiresErr = strconv.ParseInt(text, 10, 64)
		expires = time.Unix(seconds, 0)
	}
	until := time.Until(expires)
	switch {
	case c.refuse:
		return p.invalid("account_invalid", "Your account cannot currently make live charges.")
	case f.Get("mode") != "payment":
		return p.invalid("parameter_missing", "You must provide mode=payment")
	case err != nil || quantityErr != nil || each <= 0 || quantity <= 0 || each > 99_999_999 || quantity > 999_999:
		return p.invalid("parameter_invalid_integer", "Invalid integer: line_items[0]")
	case !order.IsCurrency(currency) || f.Get("line_items[0][price_data][product_data][name]") == "":
		return p.invalid("parameter_missing", "Invalid currency or product_data: line_items[0][price_data]")
	case f.Has("line_items[1][price_data][unit_amount]"):
		return p.invalid("parameter_unknown", "this stand-in takes one line item")
	case webAddress(f.Get("success_url")) == "":
		return p.invalid("url_invalid", "Not a valid URL: success_url")
	case expiresErr != nil || until < stripeLeast-stripeSlack || until > stripePageLife+stripeSlack:
		return p.invalid("", "The `expires_at` timestamp must be from 30 minutes to 24 hours from now.")
	}

	reference := "cs_test_" + rand.Text()
	a := &attempt{
		Attempt: Attempt{
			Provider: Stripe, Number: cmp.Or(f.Get("client_reference_id"), reference), Reference: reference,
			Item: f.Get("line_items[0][price_data][product_data][name]"), Amount: each * quantity, Currency: currency,
			ExpiresAt: expires,
		},
		backURL: f.Get("success_url"), cancelURL: f.Get("cancel_url"), fields: f,
	}
	if err := p.books.add(a); err != nil {
		return p.problem(http.StatusServiceUnavailable, "api_error", "", err.Error())
	}
	return asJSON(http.StatusOK, p.shown(a))
}

// metadata are the fields of a form that are under a name.
func metadata(form url.Values, under string) map[string]string {
	found := map[string]string{}
	for name := range form {
		if inside, ok := strings.CutPrefix(name, under+"["); ok && strings.HasSuffix(inside, "]") {
			found[strings.TrimSuffix(inside, "]")] = form.Get(name)
		}
	}
	return found
}

func (p stripe) shown(a *attempt) object {
	status, paid := "open", "unpaid"
	var address, intent any
	switch a.Status {
	case Paid:
		status, paid, intent = "complete", "paid", a.payment.Reference
	case Closed:
		status = "expired"
	default:
		address = p.URL() + "/stripe/c/pay/" + a.Reference
	}
	return object{
		"id": a.Reference, "object": "checkout.session", "amount_subtotal": a.Amount, "amount_total": a.Amount,
		"currency": strings.ToLower(a.Currency), "client_reference_id": a.fields.Get("client_reference_id"),
		"created": a.CreatedAt.Unix(), "expires_at": a.ExpiresAt.Unix(), "livemode": false, "mode": "payment",
		"metadata": metadata(a.fields, "metadata"), "payment_intent": intent, "payment_status": paid,
		"status": status, "url": address, "success_url": a.backURL, "cancel_url": a.cancelURL,
	}
}

func (p stripe) get(c *call) answer {
	a := p.session(c.request.PathValue("id"))
	if a == nil {
		return p.missing("checkout.session")
	}
	shown := p.shown(a)
	if a.payment != nil && (slices.Contains(c.form["expand[]"], "payment_intent") ||
		c.form.Get("expand[0]") == "payment_intent") {
		shown["payment_intent"] = p.intent(a)
	}
	return asJSON(http.StatusOK, shown)
}

func (p stripe) listSessions(c *call) answer {
	shown := []object{}
	if a := p.paid(c.form.Get("payment_intent")); a != nil {
		shown = append(shown, p.shown(a))
	}
	return p.list("/v1/checkout/sessions", shown, false)
}

func (p stripe) list(path string, shown []object, more bool) answer {
	return asJSON(http.StatusOK, object{"object": "list", "url": path, "data": shown, "has_more": more})
}

func (p stripe) expire(c *call) answer {
	a := p.session(c.request.PathValue("id"))
	if a == nil {
		return p.missing("checkout.session")
	}
	var notices []*notice
	if c.racing && a.payable() {
		notices = p.pay(a)
	}
	var given answer
	if a.payable() {
		a.Status = Closed
		given, notices = asJSON(http.StatusOK, p.shown(a)), p.lapse(a)
	} else {
		given = p.invalid("", fmt.Sprintf("Only Checkout Sessions with a status in [\"open\"] can be expired. "+
			"This Checkout Session has a status of `%s`.", p.shown(a)["status"]))
	}
	given.notices = notices
	return given
}

// paid is the attempt that a payment intent has paid, or nil.
func (p stripe) paid(intent string) *attempt {
	if a := p.books.referred(Stripe, intent); a != nil && a.payment != nil && a.payment.Reference == intent {
		return a
	}
	return nil
}

func (p stripe) intent(a *attempt) object {
	return object{
		"id": a.payment.Reference, "object": "payment_intent", "amount": a.Amount, "amount_received": a.Amount,
		"currency": strings.ToLower(a.Currency), "status": "succeeded", "created": a.payment.PaidAt.Unix(),
		"latest_charge": p.charge(a), "livemode": false,
		"metadata": metadata(a.fields, "payment_intent_data[metadata]"),
	}
}

// charge is the number of the charge of a payment.
func (p stripe) charge(a *attempt) string {
	return "ch_" + strings.TrimPrefix(a.payment.Reference, "pi_")
}

func (p stripe) getIntent(c *call) answer {
	a := p.paid(c.request.PathValue("id"))
	if a == nil {
		return p.missing("payment_intent")
	}
	return asJSON(http.StatusOK, p.intent(a))
}

func (p stripe) refund(c *call) answer {
	f := c.form
	a := p.paid(f.Get("payment_intent"))
	if a == nil {
		return p.missing("payment_intent")
	}
	amount, err := a.Amount-a.Refunded, error(nil)
	if text := f.Get("amount"); text != "" {
		amount, err = strconv.ParseInt(text, 10, 64)
	}
	switch {
	case err != nil || amount < 0:
		return p.invalid("parameter_invalid_integer", "Invalid integer: amount")
	case c.refuse:
		return p.invalid("balance_insufficient", "Insufficient funds in your Stripe balance to refund this amount.")
	case a.Refunded == a.Amount:
		return p.invalid("charge_already_refunded", "Charge "+p.charge(a)+" has already been refunded.")
	}
	number := cmp.Or(f.Get("metadata[refund]"), c.request.Header.Get("Idempotency-Key"))
	r, err := p.books.give(a, number, "re_"+rand.Text(), amount, ByAPI)
	if err != nil {
		return p.invalid("amount_too_large", "Refund amount is greater than unrefunded amount on charge.")
	}
	a.fields[r.Reference] = []string{f.Encode()}
	p.books.byReference[key(Stripe, r.Reference)] = a
	given := asJSON(http.StatusOK, p.shownRefund(a, r))
	charge := object{
		"id": p.charge(a), "object": "charge", "amount": a.Amount, "amount_refunded": a.Refunded,
		"currency": strings.ToLower(a.Currency), "payment_intent": a.payment.Reference,
		"refunded": a.Refunded == a.Amount, "metadata": metadata(a.fields, "payment_intent_data[metadata]"),
	}
	n := p.event(a, "charge.refunded", object{
		"object": charge, "previous_attributes": object{"amount_refunded": a.Refunded - amount},
	})
	given.notices = []*notice{n}
	return given
}

func (p stripe) shownRefund(a *attempt, r *Refund) object {
	asked, _ := url.ParseQuery(a.fields.Get(r.Reference)) // as it was written above
	return object{
		"id": r.Reference, "object": "refund", "amount": r.Amount, "currency": strings.ToLower(r.Currency),
		"payment_intent": a.payment.Reference, "charge": p.charge(a), "status": "succeeded", "created": r.At.Unix(),
		"metadata": metadata(asked, "metadata"), "reason": nil,
	}
}

// listRefunds shows the refunds of a payment, the newest first.
func (p stripe) listRefunds(c *call) answer {
	limit, err := strconv.Atoi(cmp.Or(c.form.Get("limit"), "10"))
	if err != nil || limit < 1 || limit > stripeMaxPage {
		return p.invalid("parameter_invalid_integer", "Invalid integer: limit")
	}
	shown := []object{}
	if a := p.paid(c.form.Get("payment_intent")); a != nil {
		after := c.form.Get("starting_after")
		for _, r := range slices.Backward(a.refunds) {
			switch {
			case r.By != ByAPI:
			case after == "":
				shown = append(shown, p.shownRefund(a, r))
			case r.Reference == after:
				after = ""
			}
		}
	}
	return p.list("/v1/refunds", shown[:min(limit, len(shown))], len(shown) > limit)
}

func (p stripe) getRefund(c *call) answer {
	if a := p.books.referred(Stripe, c.request.PathValue("id")); a != nil {
		for _, r := range a.refunds {
			if r.Reference == c.request.PathValue("id") {
				return asJSON(http.StatusOK, p.shownRefund(a, r))
			}
		}
	}
	return p.missing("refund")
}

func (p stripe) pay(a *attempt) []*notice {
	p.books.take(a, "pi_"+rand.Text(), "card")
	return []*notice{p.tell(a, "checkout.session.completed", p.shown(a))}
}

func (p stripe) lapse(a *attempt) []*notice {
	return []*notice{p.tell(a, "checkout.session.expired", p.shown(a))}
}

func (p stripe) forged(a *attempt) *notice {
	session := p.shown(a)
	session["status"], session["payment_status"] = "complete", "paid"
	session["payment_intent"], session["url"] = "pi_"+rand.Text(), nil
	n := p.tell(a, "checkout.session.completed", session)
	n.forged = true
	return n
}

func (p stripe) back(a *attempt, cancelled bool) string {
	if cancelled {
		return a.cancelURL
	}
	return strings.ReplaceAll(a.backURL, "{CHECKOUT_SESSION_ID}", a.Reference)
}

func (p stripe) acknowledged(status int, _ string) bool { return status/100 == 2 }

func (p stripe) tell(a *attempt, kind string, what object) *notice {
	return p.event(a, kind, object{"object": what})
}

// event is an event, signed anew at each try.
func (p stripe) event(a *attempt, kind string, data object) *notice {
	event, err := json.Marshal(object{
		"id": "evt_" + rand.Text(), "object": "event", "api_version": stripeVersion, "created": time.Now().Unix(),
		"type": kind, "livemode": false, "pending_webhooks": 1, "data": data,
		"request": object{"id": nil, "idempotency_key": nil},
	})
	if err != nil {
		panic(fmt.Sprintf("pay: an event that is no JSON: %v", err))
	}
	return &notice{
		provider: Stripe, number: a.Number, kind: kind, url: p.webhook(Stripe),
		twin: func() *notice { return p.event(a, kind, data) },
		sign: func(forged bool) (http.Header, string) {
			secret := stripeWebhookSecret
			if forged {
				secret = "whsec_somebody"
			}
			now := time.Now().Unix()
			header := fmt.Sprintf("t=%d,v1=%s", now, stripeSignature(secret, now, event))
			return http.Header{
				"Content-Type": {"application/json; charset=utf-8"}, "Stripe-Signature": {header},
			}, string(event)
		},
	}
}

// stripeSignature is what a v1 of the header has.
func stripeSignature(secret string, at int64, body []byte) string {
	sum := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(sum, "%d.%s", at, body)
	return hex.EncodeToString(sum.Sum(nil))
}
