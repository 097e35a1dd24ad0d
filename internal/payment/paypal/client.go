package paypal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"stampede/internal/order"
	"stampede/internal/payment"
)

// The hosts of PayPal's API.
const (
	Live    = "https://api-m.paypal.com"
	Sandbox = "https://api-m.sandbox.paypal.com"
)

const (
	ordersPath   = "/v2/checkout/orders"
	capturesPath = "/v2/payments/captures"
	verifyPath   = "/v1/notifications/verify-webhook-signature"

	// callTimeout bounds a call, and maxAnswer its answer, in bytes.
	callTimeout = 15 * time.Second
	maxAnswer   = 256 << 10
	// tokenMargin is how long before its end a token is not used any more.
	tokenMargin = time.Minute
	// maxDescription bounds the name of what is bought, in characters.
	maxDescription = 127
)

// Client speaks with PayPal for one merchant. Set the fields before the first use.
type Client struct {
	// ID and Secret are the application's.
	ID, Secret string
	// Merchant is whom the money is for, in PayPal's words; empty if that is not compared.
	Merchant string
	// Host is Live, Sandbox, or a server that speaks like them.
	Host string
	// HTTP makes the requests; nil is payment.Plain.
	HTTP *http.Client
	// Webhooks verifies notices.
	Webhooks *Webhooks
	// Postback has PayPal itself verify each notice instead, by a call: for where its certificates cannot be fetched. A
	// flood of notices is a flood of such calls then.
	Postback bool

	now func() time.Time // time.Now, but for tests

	mu      sync.Mutex
	token   string
	expires time.Time
}

var _ payment.Provider = (*Client)(nil)

// multiples are the currencies that PayPal takes, by its list of "currency codes" of the REST API, and what an amount
// must be a multiple of: it takes HUF and TWD in whole ones, which have minor units by ISO 4217, as JPY has not. BRL,
// CNY and MYR are for merchants of those countries.
var multiples = map[string]int64{
	"AUD": 1, "BRL": 1, "CAD": 1, "CHF": 1, "CNY": 1, "CZK": 1, "DKK": 1, "EUR": 1, "GBP": 1, "HKD": 1, "HUF": 100,
	"ILS": 1, "JPY": 1, "MXN": 1, "MYR": 1, "NOK": 1, "NZD": 1, "PHP": 1, "PLN": 1, "SEK": 1, "SGD": 1, "THB": 1,
	"TWD": 100, "USD": 1,
}

// Name is paypal.
func (c *Client) Name() string { return "paypal" }

// Offers is payment.Provider's. No money moves but by Capture.
func (c *Client) Offers(method, currency string) (payment.Offer, bool) {
	multiple, ok := multiples[currency]
	return payment.Offer{Captures: true, Refunds: true, Multiple: multiple}, ok && method == ""
}

// value is an amount as PayPal wants it.
func value(amount int64, currency string) money {
	text, _ := order.Decimal(amount, currency)
	if multiples[currency] > 1 {
		text, _, _ = strings.Cut(text, ".")
	}
	return money{currency, text}
}

// minor is an amount that PayPal has told, in minor units.
func (m money) minor() (int64, error) { return order.ParseMoney(m.Value, m.Currency) }

type money struct {
	Currency string `json:"currency_code"`
	Value    string `json:"value"`
}

// object is an order of PayPal's, as far as it is needed.
type object struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Units  []unit `json:"purchase_units"`
	Links  []struct {
		Rel  string `json:"rel"`
		Href string `json:"href"`
	} `json:"links"`
}

// unit is what is bought; an order of ours has one.
type unit struct {
	Number   string `json:"custom_id"`
	Payee    payee  `json:"payee"`
	Payments struct {
		Captures []capture `json:"captures"`
		Refunds  []struct {
			Status string `json:"status"`
			Number string `json:"invoice_id"`
		} `json:"refunds"`
	} `json:"payments"`
}

// payee is who is paid.
type payee struct {
	Merchant string `json:"merchant_id"`
}

// capture is money that was taken, or is about to be.
type capture struct {
	ID        string `json:"id"`
	Status    string `json:"status"`
	Amount    money  `json:"amount"`
	Number    string `json:"custom_id"`
	Payee     payee  `json:"payee"`
	Breakdown struct {
		Fee money `json:"paypal_fee"`
	} `json:"seller_receivable_breakdown"`
	Related struct {
		IDs struct {
			Order string `json:"order_id"`
		} `json:"related_ids"`
	} `json:"supplementary_data"`
	CreatedAt time.Time `json:"create_time"`
}

// Start has PayPal make its order of an attempt, once however often it is called within six hours. Its reference is
// that of PayPal's order, and that of a payment the capture's.
func (c *Client) Start(ctx context.Context, a payment.Attempt) (payment.Page, error) {
	if _, err := a.Check(c); err != nil {
		return payment.Page{}, err
	}
	if !c.time().Before(a.Expires) {
		return payment.Page{}, fmt.Errorf("%w: no time is left to pay", payment.ErrRefused)
	}
	name := []rune(strings.ToValidUTF8(a.Item, ""))
	var made object
	err := c.call(ctx, http.MethodPost, ordersPath, a.Number, map[string]any{
		"intent": "CAPTURE",
		"purchase_units": []any{map[string]any{
			"custom_id": a.Number, "invoice_id": a.Number, "amount": value(a.Amount, a.Currency),
			"description": string(name[:min(len(name), maxDescription)]),
		}},
		"payment_source": map[string]any{"paypal": map[string]any{"experience_context": map[string]any{
			"return_url": a.BackURL, "cancel_url": a.BackURL, "user_action": "PAY_NOW",
			"shipping_preference": "NO_SHIPPING",
		}}},
	}, &made)
	if err != nil {
		return payment.Page{}, err
	}
	for _, link := range made.Links {
		if made.ID != "" && (link.Rel == "payer-action" || link.Rel == "approve") {
			return payment.Page{URL: link.Href, Reference: made.ID}, nil
		}
	}
	return payment.Page{}, fmt.Errorf("%w: an order without an address to approve it", payment.ErrUnknown)
}

// Query is payment.Provider's. An order that the buyer has approved is still open, until it is captured.
func (c *Client) Query(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	found, err := c.find(ctx, a)
	if err != nil || found == nil {
		return notFoundOr(err)
	}
	return c.standing(found)
}

func notFoundOr(err error) (payment.State, payment.Notice, error) {
	if err != nil {
		return "", payment.Notice{}, err
	}
	return payment.NotFound, payment.Notice{}, nil
}

// find fetches what PayPal has of an attempt, by its reference, which may be that of a capture; nil if there is
// nothing. An attempt without a reference is one of whose order nothing is known here. The error is payment.ErrUnknown.
func (c *Client) find(ctx context.Context, a payment.Attempt) (*object, error) {
	if a.Reference == "" {
		return nil, nil
	}
	var found object
	err := c.call(ctx, http.MethodGet, ordersPath+"/"+url.PathEscape(a.Reference), "", nil, &found)
	if err == nil {
		return &found, nil
	}
	if !errors.Is(err, errNotFound) {
		return nil, asUnknown(err)
	}
	taken, err := c.capture(ctx, a.Reference)
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, asUnknown(err)
	}
	found.Units = make([]unit, 1)
	found.Units[0].Payments.Captures = []capture{taken}
	return &found, nil
}

// capture fetches a capture.
func (c *Client) capture(ctx context.Context, id string) (found capture, err error) {
	err = c.call(ctx, http.MethodGet, capturesPath+"/"+url.PathEscape(id), "", nil, &found)
	return found, err
}

// Capture takes the money of an order that its buyer has approved. PayPal knows a repeated call for six hours, and
// refuses another one afterwards, so that the order is asked for when it refuses.
func (c *Client) Capture(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	if a.Reference == "" {
		return payment.NotFound, payment.Notice{}, nil
	}
	var made object
	path := ordersPath + "/" + url.PathEscape(a.Reference) + "/capture"
	err := c.call(ctx, http.MethodPost, path, a.Number+"-capture", struct{}{}, &made)
	switch {
	case err == nil:
		return c.standing(&made)
	case errors.Is(err, payment.ErrRefused):
		return c.Query(ctx, a)
	}
	return "", payment.Notice{}, err
}

// Close reports an attempt as Lapsed if no money has moved: none will, but by Capture. It is for attempts whose capture
// was never called, and never will be after it; of those of which it was, Capture and Query tell. A capture that PayPal
// still has in hand may yet be paid.
func (c *Client) Close(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	found, err := c.find(ctx, a)
	switch {
	case err != nil:
		return "", payment.Notice{}, err
	case found == nil:
		return payment.Lapsed, payment.Notice{}, nil
	}
	state, n, err := c.standing(found)
	if state == payment.Open && !found.isPending() {
		state = payment.Lapsed
	}
	return state, n, err
}

// isPending reports whether a capture is on its way.
func (o *object) isPending() bool {
	for _, unit := range o.Units {
		for _, got := range unit.Payments.Captures {
			if got.Status == "PENDING" {
				return true
			}
		}
	}
	return false
}

// isTaken reports whether a capture has taken money, wherever it is now.
func (c *capture) isTaken() bool {
	return c.Status == "COMPLETED" || c.Status == "PARTIALLY_REFUNDED" || c.Status == "REFUNDED"
}

// standing is how an order stands: it is paid by its one completed capture.
func (c *Client) standing(o *object) (payment.State, payment.Notice, error) {
	for _, unit := range o.Units {
		for i := range unit.Payments.Captures {
			got := &unit.Payments.Captures[i]
			if !got.isTaken() {
				continue
			}
			got.Number = cmp.Or(got.Number, unit.Number)
			got.Payee.Merchant = cmp.Or(got.Payee.Merchant, unit.Payee.Merchant)
			n, err := c.notice(got, payment.Paid)
			if err != nil {
				return "", payment.Notice{}, asUnknown(err)
			}
			return payment.Taken, n, nil
		}
	}
	if o.Status == "VOIDED" {
		return payment.Lapsed, payment.Notice{}, nil
	}
	return payment.Open, payment.Notice{}, nil
}

// notice is what a capture tells. The error is payment.ErrForged.
func (c *Client) notice(of *capture, kind payment.Kind) (payment.Notice, error) {
	amount, err := of.Amount.minor()
	if err != nil || of.ID == "" || of.Number == "" {
		return payment.Notice{}, payment.Forged("it has no amount, or is of no attempt")
	}
	if err := c.checkPayee(of.Payee); err != nil {
		return payment.Notice{}, err
	}
	fee, err := of.Breakdown.Fee.minor()
	if err != nil || of.Breakdown.Fee.Currency != of.Amount.Currency {
		fee = 0
	}
	n := payment.Notice{
		Kind: kind, Attempt: of.Number, Reference: of.ID, EventKey: of.ID + ":" + string(kind),
		Merchant: of.Payee.Merchant, Amount: amount, Currency: of.Amount.Currency, Fee: fee, At: of.CreatedAt,
	}
	if kind == payment.Issued || kind == payment.Failed { // the order goes on to be what is asked for
		n.Reference = cmp.Or(of.Related.IDs.Order, of.ID)
	}
	return n, nil
}

// checkPayee holds what was paid to the merchant, where both are known. The error is payment.ErrForged.
func (c *Client) checkPayee(p payee) error {
	if c.Merchant != "" && p.Merchant != "" && p.Merchant != c.Merchant {
		return payment.Forged("it is for another merchant")
	}
	return nil
}

// Refund gives back a part of what was captured, or all of it: the attempt's reference is the capture's. PayPal knows a
// repeated call for 45 days by the refund's number; later, one that it refuses is looked for.
func (c *Client) Refund(ctx context.Context, r payment.Refund) error {
	if err := r.Check(c); err != nil {
		return err
	}
	var made struct {
		Status string `json:"status"`
	}
	err := c.call(ctx, http.MethodPost, capturesPath+"/"+url.PathEscape(r.Of.Reference)+"/refund", r.Number,
		map[string]any{"amount": value(r.Amount, r.Of.Currency), "invoice_id": r.Number}, &made)
	switch {
	case errors.Is(err, payment.ErrRefused):
		if done, unknown := c.Refunded(ctx, r); unknown == nil && done {
			return nil
		}
		return err
	case err != nil:
		return err
	case made.Status == "FAILED" || made.Status == "CANCELLED":
		return fmt.Errorf("%w: a refund is %s", payment.ErrRefused, made.Status)
	case made.Status != "COMPLETED":
		return fmt.Errorf("%w: a refund is %.20q", payment.ErrUnknown, made.Status)
	}
	return nil
}

// Refunded looks for a refund by its number in the order, which the capture names, as PayPal has no list of a capture's
// refunds. If all of the capture has gone back, however that was, it counts as made: there is nothing left to give.
func (c *Client) Refunded(ctx context.Context, r payment.Refund) (bool, error) {
	of, err := c.capture(ctx, r.Of.Reference)
	switch {
	case err != nil:
		return false, asUnknown(err)
	case of.Status == "REFUNDED":
		return true, nil
	case of.Status != "PARTIALLY_REFUNDED":
		return false, nil
	}
	var found object
	err = c.call(ctx, http.MethodGet, ordersPath+"/"+url.PathEscape(of.Related.IDs.Order), "", nil, &found)
	if err != nil {
		return false, asUnknown(err)
	}
	for _, unit := range found.Units {
		for _, made := range unit.Payments.Refunds {
			if made.Number != r.Number {
				continue
			}
			switch made.Status {
			case "COMPLETED":
				return true, nil
			case "FAILED", "CANCELLED":
			default:
				return false, fmt.Errorf("%w: a refund is %.20q", payment.ErrUnknown, made.Status)
			}
		}
	}
	return false, nil
}

var errNotFound = fmt.Errorf("%w: there is none", payment.ErrRefused)

func asUnknown(err error) error {
	if errors.Is(err, payment.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", payment.ErrUnknown, err)
}

// call makes a call; key is the one by which PayPal knows a repetition, and a body of bytes is sent as it is. A 4xx is
// a refusal, but for those that say to come again.
func (c *Client) call(ctx context.Context, method, path, key string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token, err := c.bearer(ctx)
	if err != nil {
		return asUnknown(err)
	}
	content, raw := body.([]byte)
	if body != nil && !raw {
		if content, err = json.Marshal(body); err != nil {
			return asUnknown(err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.Host+path, bytes.NewReader(content))
	if err != nil {
		return asUnknown(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Prefer", "return=representation")
	if key != "" {
		request.Header.Set("PayPal-Request-Id", key)
	}
	return c.do(request, into)
}

func (c *Client) do(request *http.Request, into any) error {
	status, answer, err := payment.Do(c.HTTP, request, maxAnswer)
	switch {
	case err != nil:
		return asUnknown(err)
	case status == http.StatusOK || status == http.StatusCreated:
		if err := json.Unmarshal(answer, into); err != nil {
			return fmt.Errorf("%w: an answer that cannot be read", payment.ErrUnknown)
		}
		return nil
	case status == http.StatusNotFound:
		return errNotFound
	case status == http.StatusUnauthorized:
		c.forget()
		return fmt.Errorf("%w: status %d", payment.ErrUnknown, status)
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout ||
		status == http.StatusConflict || status < 400:
		return fmt.Errorf("%w: status %d", payment.ErrUnknown, status)
	default:
		var problem struct {
			Name    string `json:"name"`
			Details []struct {
				Issue string `json:"issue"`
			} `json:"details"`
		}
		_ = json.Unmarshal(answer, &problem)
		issue := problem.Name
		if len(problem.Details) > 0 {
			issue = problem.Details[0].Issue
		}
		return fmt.Errorf("%w: status %d, %.60q", payment.ErrRefused, status, issue)
	}
}

// bearer returns a token for calls, which is fetched when the last one is about to end.
func (c *Client) bearer(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.time().Before(c.expires) {
		return c.token, nil
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Host+"/v1/oauth2/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return "", err
	}
	request.SetBasicAuth(c.ID, c.Secret)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, answer, err := payment.Do(c.HTTP, request, maxAnswer)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("no token: status %d", status)
	}
	var got struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || got.Token == "" {
		return "", errors.New("no token: an answer that cannot be read")
	}
	c.token, c.expires = got.Token, c.time().Add(time.Duration(got.Seconds)*time.Second-tokenMargin)
	return c.token, nil
}

// forget drops a token that PayPal does not take any more.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = ""
}

func (c *Client) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
}
