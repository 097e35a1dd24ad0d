// Package stripe speaks with Stripe, by its hosted page (Checkout Sessions).
//
// Source of its rules: Stripe's API reference ("Checkout Sessions", "Refunds", "idempotent requests"), "managing
// limited inventory", "supported currencies" and "webhooks".
package stripe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stripe/stripe-go/v82"

	"stampede/internal/payment"
)

// Live is the host of Stripe's API; which of its two worlds is meant, live or test, says the key.
const Live = "https://api.stripe.com"

const (
	// callTimeout bounds a call, and maxAnswer its answer, in bytes.
	callTimeout = 10 * time.Second
	maxAnswer   = 1 << 20
	// maxItemChars bounds the name of what is bought.
	maxItemChars = 250
	// attemptField and refundField hold our numbers in what Stripe keeps for us.
	attemptField = "attempt"
	refundField  = "refund"
)

// Client speaks with Stripe for one account. Set the fields before the first use.
type Client struct {
	// Key is the account's secret or restricted key, and WebhookSecret that of the webhook.
	Key, WebhookSecret string
	// Host is Live, or a server that speaks like it.
	Host string
	// HTTP makes the requests; nil is payment.Plain.
	HTTP *http.Client

	now func() time.Time // time.Now, but for tests

	once sync.Once
	sdk  *stripe.Client
}

var _ payment.Provider = (*Client)(nil)

// Name is stripe.
func (c *Client) Name() string { return "stripe" }

// Offers is payment.Provider's. Cards alone are taken, as other ways to pay may decide days after the page was left.
func (c *Client) Offers(method, currency string) (payment.Offer, bool) {
	u, ok := units[currency]
	return payment.Offer{Refunds: true, Multiple: u.multiple}, ok && method == ""
}

// Start has Stripe make the session of an attempt, once however often it is called within a day. Its reference is that
// of the session, for good.
//
// The session gets no expiry but Stripe's own of a day: another is at least half an hour after the call, and would make
// a call that is repeated another one, which Stripe refuses. Close is what ends it.
func (c *Client) Start(ctx context.Context, a payment.Attempt) (payment.Page, error) {
	if _, err := a.Check(c); err != nil {
		return payment.Page{}, err
	}
	if !c.time().Before(a.Expires) {
		return payment.Page{}, fmt.Errorf("%w: no time is left to pay", payment.ErrRefused)
	}
	made, err := c.create(ctx, a)
	if err != nil {
		return payment.Page{}, err
	}
	return payment.Page{URL: made.URL, Reference: made.ID}, nil
}

// create makes the session of an attempt. A call that is repeated is answered as the first was, however the session
// stands by now.
func (c *Client) create(ctx context.Context, a payment.Attempt) (*stripe.CheckoutSession, error) {
	item := []rune(strings.ToValidUTF8(a.Item, ""))
	params := &stripe.CheckoutSessionCreateParams{
		Mode:               stripe.String(stripe.CheckoutSessionModePayment),
		PaymentMethodTypes: stripe.StringSlice([]string{"card"}),
		AdaptivePricing:    &stripe.CheckoutSessionCreateAdaptivePricingParams{Enabled: stripe.Bool(false)},
		ClientReferenceID:  stripe.String(a.Number),
		Metadata:           map[string]string{attemptField: a.Number},
		PaymentIntentData: &stripe.CheckoutSessionCreatePaymentIntentDataParams{
			Metadata: map[string]string{attemptField: a.Number},
		},
		SuccessURL: stripe.String(a.BackURL), CancelURL: stripe.String(a.BackURL),
		LineItems: []*stripe.CheckoutSessionCreateLineItemParams{{
			Quantity: stripe.Int64(1),
			PriceData: &stripe.CheckoutSessionCreateLineItemPriceDataParams{
				Currency:   stripe.String(strings.ToLower(a.Currency)),
				UnitAmount: stripe.Int64(toStripe(a.Amount, a.Currency)),
				ProductData: &stripe.CheckoutSessionCreateLineItemPriceDataProductDataParams{
					Name: stripe.String(cmp.Or(string(item[:min(len(item), maxItemChars)]), a.Number)),
				},
			},
		}},
	}
	params.SetIdempotencyKey(a.Number)
	return call(ctx, func(ctx context.Context) (*stripe.CheckoutSession, error) {
		return c.api().V1CheckoutSessions.Create(ctx, params)
	})
}

// reference returns that of an attempt's session, which is made if it is not known: by its number it is the one that
// was made before, if there was one.
func (c *Client) reference(ctx context.Context, a payment.Attempt) (string, error) {
	if a.Reference != "" {
		return a.Reference, nil
	}
	if _, err := a.Check(c); err != nil {
		return "", err
	}
	made, err := c.create(ctx, a)
	if err != nil {
		return "", err
	}
	return made.ID, nil
}

// Query is payment.Provider's. An attempt whose reference is not known is made known to Stripe by it.
func (c *Client) Query(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	id, err := c.reference(ctx, a)
	if err == nil {
		var found *stripe.CheckoutSession
		if found, err = c.session(ctx, id); err == nil {
			return standing(found, a.Number)
		}
	}
	if errors.Is(err, payment.ErrRefused) { // there is none, and none could be made
		return payment.NotFound, payment.Notice{}, nil
	}
	return "", payment.Notice{}, err
}

func (c *Client) session(ctx context.Context, id string) (*stripe.CheckoutSession, error) {
	return call(ctx, func(ctx context.Context) (*stripe.CheckoutSession, error) {
		return c.api().V1CheckoutSessions.Retrieve(ctx, id, nil)
	})
}

// standing is how a session stands. One that is complete and not paid may yet be.
func standing(s *stripe.CheckoutSession, number string) (payment.State, payment.Notice, error) {
	n, err := notice(s, payment.Paid)
	switch {
	case err != nil || n.Attempt != number:
		return "", payment.Notice{}, fmt.Errorf("%w: it has answered about another attempt", payment.ErrUnknown)
	case s.PaymentStatus == stripe.CheckoutSessionPaymentStatusPaid:
		return payment.Taken, n, nil
	case s.Status == stripe.CheckoutSessionStatusExpired:
		return payment.Lapsed, payment.Notice{}, nil
	}
	return payment.Open, payment.Notice{}, nil
}

// Capture is Query: Stripe takes the money by itself.
func (c *Client) Capture(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	return c.Query(ctx, a)
}

// Close has the session expire. If its reference is not known it is made before, so that no call that is on its way
// makes it later. If Stripe refuses to make it, there is nothing to close; a session that it refuses to end is
// complete, or has ended before.
func (c *Client) Close(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	id, err := c.reference(ctx, a)
	if errors.Is(err, payment.ErrRefused) {
		return payment.Lapsed, payment.Notice{}, nil
	}
	if err != nil {
		return "", payment.Notice{}, err
	}
	ended, err := call(ctx, func(ctx context.Context) (*stripe.CheckoutSession, error) {
		return c.api().V1CheckoutSessions.Expire(ctx, id, nil)
	})
	a.Reference = id
	switch {
	case errors.Is(err, payment.ErrRefused):
		return c.Query(ctx, a)
	case err != nil:
		return "", payment.Notice{}, err
	}
	return standing(ended, a.Number)
}

// call bounds a call in time, and says what its error means: 4xx is a refusal, but for those that say to come again,
// that the key is wrong, or that something else was asked by the same number.
func call[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := f(ctx)
	if err == nil {
		return got, nil
	}
	var none T
	var told *stripe.Error
	if !errors.As(err, &told) {
		return none, fmt.Errorf("%w: %.200s", payment.ErrUnknown, err.Error()) // which may be a whole page
	}
	kind := payment.ErrUnknown
	switch told.HTTPStatusCode {
	case http.StatusBadRequest, http.StatusPaymentRequired, http.StatusNotFound:
		if told.Type != stripe.ErrorTypeIdempotency {
			kind = payment.ErrRefused
		}
	}
	return none, fmt.Errorf("%w: status %d, %.40q %.60q %.60q", kind, told.HTTPStatusCode, told.Type, told.Code,
		told.Param)
}

// api is Stripe's library, without its own retries, telemetry and log.
func (c *Client) api() *stripe.Client {
	c.once.Do(func() {
		plain := *cmp.Or(c.HTTP, payment.Plain)
		plain.Transport = bounded{plain.Transport}
		c.sdk = stripe.NewClient(c.Key, stripe.WithBackends(stripe.NewBackendsWithConfig(&stripe.BackendConfig{
			EnableTelemetry: stripe.Bool(false), HTTPClient: &plain, URL: stripe.String(c.Host),
			LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}, MaxNetworkRetries: stripe.Int64(0),
		})))
	})
	return c.sdk
}

// bounded bounds what is read of an answer, and does not tell Stripe which system this is.
type bounded struct{ next http.RoundTripper }

// RoundTrip is http.RoundTripper's.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("X-Stripe-Client-User-Agent")
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	response, err := next.RoundTrip(r)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxAnswer), response.Body}
	}
	return response, err
}

func (c *Client) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
}
