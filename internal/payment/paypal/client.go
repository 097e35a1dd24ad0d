package paypal

import (
	"bytes"
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
	// callTimeout bounds a call, and maxAnswer its answer, in bytes.
	callTimeout = 15 * time.Second
	maxAnswer   = 256 << 10
	// tokenMargin is how long before its end a token is not used any more.
	tokenMargin = time.Minute
	// maxNumber is how long a number of an attempt, or of a refund, may be: it is the key by which PayPal knows a
	// repeated call, and an invoice's number.
	maxNumber = 36
	// maxDescription bounds the name of what is bought, in characters.
	maxDescription = 127
)

// Client speaks with PayPal for one merchant. Set the fields before the first use.
type Client struct {
	// ID and Secret are the application's.
	ID, Secret string
	// Host is Live, Sandbox, or a server that speaks like them.
	Host string
	// HTTP makes the requests; nil is http.DefaultClient.
	HTTP *http.Client

	now func() time.Time // time.Now, but for tests

	mu      sync.Mutex
	token   string
	expires time.Time
}

// Attempt is an attempt to pay.
type Attempt struct {
	// Number is ours: 1 to 36 visible characters of ASCII, used once for all time.
	Number string
	// Amount is in minor units of Currency, a code of ISO 4217.
	Amount   int64
	Currency string
	// Item is what is bought, in words.
	Item string
	// BackURL is where PayPal sends the buyer back to, also one who has not paid.
	BackURL string
}

// wholeHere are currencies that have minor units by ISO 4217, and of which PayPal takes whole ones only.
var wholeHere = map[string]bool{"HUF": true, "TWD": true}

// value is an amount as PayPal wants it.
func value(amount int64, currency string) (string, error) {
	text, ok := order.Decimal(amount, currency)
	switch whole, cents, point := strings.Cut(text, "."); {
	case !ok:
		return "", fmt.Errorf("paypal: %q is no currency", currency)
	case amount <= 0:
		return "", errors.New("paypal: there is nothing to pay")
	case !wholeHere[currency] || !point:
		return text, nil
	case strings.Trim(cents, "0") != "":
		return "", fmt.Errorf("paypal: an amount of %s is whole, and not %s", currency, text)
	default:
		return whole, nil
	}
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
	Units  []struct {
		Number   string `json:"custom_id"`
		Payee    payee  `json:"payee"`
		Payments struct {
			Captures []capture `json:"captures"`
		} `json:"payments"`
	} `json:"purchase_units"`
	Links []struct {
		Rel  string `json:"rel"`
		Href string `json:"href"`
	} `json:"links"`
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
	CreatedAt time.Time `json:"create_time"`
}

// Checkout has PayPal make its order of an attempt, once however often it is called within six hours, and returns its
// number and the address at which the buyer approves it. The error is payment.ErrUnknown if that is not known, and
// payment.ErrRefused if PayPal will not.
func (c *Client) Checkout(ctx context.Context, a Attempt) (id, address string, err error) {
	if err := checkNumber(a.Number); err != nil {
		return "", "", err
	}
	amount, err := value(a.Amount, a.Currency)
	if err != nil {
		return "", "", err
	}
	name := []rune(strings.ToValidUTF8(a.Item, ""))
	var made object
	err = c.call(ctx, http.MethodPost, "/v2/checkout/orders", a.Number, map[string]any{
		"intent": "CAPTURE",
		"purchase_units": []any{map[string]any{
			"custom_id": a.Number, "invoice_id": a.Number, "amount": money{a.Currency, amount},
			"description": string(name[:min(len(name), maxDescription)]),
		}},
		"payment_source": map[string]any{"paypal": map[string]any{"experience_context": map[string]any{
			"return_url": a.BackURL, "cancel_url": a.BackURL, "user_action": "PAY_NOW",
			"shipping_preference": "NO_SHIPPING",
		}}},
	}, &made)
	if err != nil {
		return "", "", err
	}
	for _, link := range made.Links {
		if link.Rel == "payer-action" || link.Rel == "approve" {
			return made.ID, link.Href, nil
		}
	}
	return "", "", fmt.Errorf("%w: an order without an address to approve it", payment.ErrUnknown)
}

func checkNumber(number string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if number == "" || len(number) > maxNumber || strings.ContainsFunc(number, odd) {
		return fmt.Errorf("paypal: a number is 1 to %d visible characters of ASCII", maxNumber)
	}
	return nil
}

// Query asks how PayPal's order of an attempt stands. If it is paid, the notice says by what. An order that the buyer
// has approved is still open, until it is captured. The error is payment.ErrUnknown if that cannot be found out now.
func (c *Client) Query(ctx context.Context, id string) (payment.State, payment.Notice, error) {
	var found object
	err := c.call(ctx, http.MethodGet, "/v2/checkout/orders/"+url.PathEscape(id), "", nil, &found)
	if errors.Is(err, errNotFound) {
		return payment.NotFound, payment.Notice{}, nil
	}
	if err != nil {
		return "", payment.Notice{}, asUnknown(err)
	}
	return standing(&found)
}

// Capture takes the money of an order that its buyer has approved, and returns how it stands then. It may be repeated
// with the same number until the outcome is known, after six hours only if Query does not say that it is paid.
func (c *Client) Capture(ctx context.Context, id, number string) (payment.State, payment.Notice, error) {
	var made object
	path := "/v2/checkout/orders/" + url.PathEscape(id) + "/capture"
	err := c.call(ctx, http.MethodPost, path, number, struct{}{}, &made)
	switch {
	case err == nil:
		return standing(&made)
	case !errors.Is(err, payment.ErrRefused):
		return "", payment.Notice{}, err
	}
	// An earlier call may have done it, after which PayPal refuses another.
	if state, n, unknown := c.Query(ctx, id); unknown != nil || state == payment.Taken {
		return state, n, unknown
	}
	return "", payment.Notice{}, err
}

// standing is how an order stands: it is paid by its one completed capture.
func standing(o *object) (payment.State, payment.Notice, error) {
	for _, unit := range o.Units {
		for i := range unit.Payments.Captures {
			got := &unit.Payments.Captures[i]
			if got.Status != "COMPLETED" && got.Status != "PARTIALLY_REFUNDED" && got.Status != "REFUNDED" {
				continue
			}
			if got.Number == "" {
				got.Number = unit.Number
			}
			if got.Payee.Merchant == "" {
				got.Payee = unit.Payee
			}
			n, err := got.notice(payment.Paid)
			if err != nil {
				return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
			}
			return payment.Taken, n, nil
		}
	}
	if o.Status == "VOIDED" {
		return payment.Lapsed, payment.Notice{}, nil
	}
	return payment.Open, payment.Notice{}, nil
}

// notice is what a capture tells.
func (c *capture) notice(kind payment.Kind) (payment.Notice, error) {
	amount, err := c.Amount.minor()
	if err != nil || c.ID == "" || c.Number == "" {
		return payment.Notice{}, payment.Forged("it has no amount, or is of no attempt")
	}
	fee, err := c.Breakdown.Fee.minor()
	if err != nil || c.Breakdown.Fee.Currency != c.Amount.Currency {
		fee = 0
	}
	return payment.Notice{
		Kind: kind, Attempt: c.Number, Reference: c.ID, EventKey: c.ID + ":" + string(kind), Merchant: c.Payee.Merchant,
		Amount: amount, Currency: c.Amount.Currency, Fee: fee, At: c.CreatedAt,
	}, nil
}

// Refund gives back a part of what was captured, or all of it, once for each number of a refund within 45 days: with
// the same number it may be called until the outcome is known. The error is payment.ErrRefused if nothing is given
// back, and payment.ErrUnknown if that is not known.
func (c *Client) Refund(ctx context.Context, captureID, refund string, amount int64, currency string) error {
	if err := checkNumber(refund); err != nil {
		return err
	}
	text, err := value(amount, currency)
	if err != nil {
		return err
	}
	var made struct {
		Status string `json:"status"`
	}
	err = c.call(ctx, http.MethodPost, "/v2/payments/captures/"+url.PathEscape(captureID)+"/refund", refund,
		map[string]any{"amount": money{currency, text}}, &made)
	switch {
	case err != nil:
		return err
	case made.Status == "FAILED" || made.Status == "CANCELLED":
		return fmt.Errorf("%w: a refund is %s", payment.ErrRefused, made.Status)
	case made.Status != "COMPLETED":
		return fmt.Errorf("%w: a refund is %.20q", payment.ErrUnknown, made.Status)
	}
	return nil
}

var errNotFound = fmt.Errorf("%w: there is none", payment.ErrRefused)

func asUnknown(err error) error {
	if errors.Is(err, payment.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", payment.ErrUnknown, err)
}

// call makes a call; key is the one by which PayPal knows a repetition. A 4xx is a refusal, but for those that say to
// come again.
func (c *Client) call(ctx context.Context, method, path, key string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token, err := c.bearer(ctx)
	if err != nil {
		return asUnknown(err)
	}
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.Host+path, bytes.NewReader(content))
	if err != nil {
		return err
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
	now := time.Now
	if c.now != nil {
		now = c.now
	}
	if c.token != "" && now().Before(c.expires) {
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
	c.token, c.expires = got.Token, now().Add(time.Duration(got.Seconds)*time.Second-tokenMargin)
	return c.token, nil
}

// forget drops a token that PayPal does not take any more.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = ""
}
