package stripe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v82"
	"github.com/stripe/stripe-go/v82/webhook"

	"stampede/internal/payment"
)

// ReadNotice verifies an event over the bytes that came, not older than five minutes, and reads what it tells. The
// error is payment.ErrForged. Events of sessions that are not ours, and those that no attempt depends on, are
// payment.Other.
//
// Which version of the API an event is of is not compared: what is read of it has been the same for years.
func (c *Client) ReadNotice(_ context.Context, header http.Header, body []byte) (payment.Notice, error) {
	event, err := webhook.ConstructEventWithOptions(body, header.Get("Stripe-Signature"), c.WebhookSecret,
		webhook.ConstructEventOptions{IgnoreAPIVersionMismatch: true})
	if err != nil {
		return payment.Notice{}, payment.Forged("%w", err)
	}
	if event.ID == "" || event.Data == nil {
		return payment.Notice{}, payment.Forged("it is no event")
	}
	n, err := read(event)
	switch {
	case err != nil:
		return payment.Notice{}, err
	case n.Attempt == "":
		return payment.Notice{Kind: payment.Other, EventKey: event.ID}, nil
	}
	n.At = time.Unix(event.Created, 0).UTC()
	return n, nil
}

// read reads an event; what tells of no attempt has none.
func read(event stripe.Event) (payment.Notice, error) {
	kind := payment.Other
	switch event.Type {
	case stripe.EventTypeCheckoutSessionCompleted, stripe.EventTypeCheckoutSessionAsyncPaymentSucceeded:
		kind = payment.Paid
	case stripe.EventTypeCheckoutSessionAsyncPaymentFailed:
		kind = payment.Failed
	case stripe.EventTypeCheckoutSessionExpired:
		kind = payment.Closed
	case stripe.EventTypeChargeRefunded:
		return readRefund(event)
	default:
		return payment.Notice{}, nil
	}
	var s stripe.CheckoutSession
	if err := json.Unmarshal(event.Data.Raw, &s); err != nil {
		return payment.Notice{}, payment.Forged("it has no session")
	}
	if kind == payment.Paid && s.PaymentStatus != stripe.CheckoutSessionPaymentStatusPaid {
		kind = payment.Issued // the buyer is done, and the money is on its way
	}
	if s.Mode != stripe.CheckoutSessionModePayment || s.ClientReferenceID == "" ||
		s.Metadata[attemptField] != s.ClientReferenceID {
		return payment.Notice{}, nil
	}
	return notice(&s, kind)
}

// notice is what a session tells, the same whoever asks, by the session and the kind. The error is payment.ErrForged.
func notice(s *stripe.CheckoutSession, kind payment.Kind) (payment.Notice, error) {
	currency := strings.ToUpper(string(s.Currency))
	amount, ok := fromStripe(s.AmountTotal, currency)
	if !ok || s.ID == "" {
		return payment.Notice{}, payment.Forged("it has no amount")
	}
	return payment.Notice{
		Kind: kind, Attempt: s.ClientReferenceID, Reference: s.ID, EventKey: s.ID + ":" + string(kind),
		Amount: amount, Currency: currency, Simulated: !s.Livemode,
	}, nil
}

// readRefund reads that a charge was refunded, of which the event has the sum of all refunds, and the one before.
func readRefund(event stripe.Event) (payment.Notice, error) {
	var charge stripe.Charge
	if err := json.Unmarshal(event.Data.Raw, &charge); err != nil || charge.ID == "" {
		return payment.Notice{}, payment.Forged("it has no charge")
	}
	before, _ := event.Data.PreviousAttributes["amount_refunded"].(float64)
	currency := strings.ToUpper(string(charge.Currency))
	amount, ok := fromStripe(charge.AmountRefunded-int64(before), currency)
	if !ok {
		return payment.Notice{}, payment.Forged("it has no amount")
	}
	return payment.Notice{
		Kind: payment.Refunded, Attempt: charge.Metadata[attemptField], Reference: charge.ID,
		EventKey: fmt.Sprintf("%s:%s:%d", charge.ID, payment.Refunded, charge.AmountRefunded), Amount: amount,
		Currency: currency, Simulated: !charge.Livemode,
	}, nil
}

// Answer is payment.Provider's: whatever is no success has Stripe repeat an event for three days.
func (c *Client) Answer(taken bool) payment.Answer {
	if taken {
		return payment.Answer{Status: http.StatusOK, ContentType: "text/plain"}
	}
	return payment.Answer{Status: http.StatusBadRequest, ContentType: "text/plain"}
}
