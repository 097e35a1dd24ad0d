package stripe

import (
	"context"
	"errors"
	"fmt"

	"github.com/stripe/stripe-go/v82"

	"stampede/internal/payment"
)

// maxRefunds bounds how many refunds of one payment are looked at.
const maxRefunds = 1000

// history is what has become of a payment.
type history struct {
	paid *stripe.CheckoutSession
	made *stripe.Refund // the refund of a number, or nil
	back int64          // what went back, or is about to, in Stripe's units
}

// isWhole reports whether all that was paid has gone back, however that was: there is nothing left to give.
func (h history) isWhole() bool { return h.back >= h.paid.AmountTotal }

// Refund gives back a part of what was paid, or all of it. Stripe knows a repeated call for a day by the refund's
// number, and for good by what is noted in the refund, which is looked for before.
func (c *Client) Refund(ctx context.Context, r payment.Refund) error {
	if err := r.Check(c); err != nil {
		return err
	}
	h, err := c.history(ctx, r)
	if err != nil || h.made == nil && h.isWhole() {
		return err
	}
	if h.made == nil {
		params := &stripe.RefundCreateParams{
			PaymentIntent: stripe.String(h.paid.PaymentIntent.ID),
			Amount:        stripe.Int64(toStripe(r.Amount, r.Of.Currency)),
			Metadata:      map[string]string{refundField: r.Number, attemptField: r.Of.Number},
		}
		params.SetIdempotencyKey("refund-" + r.Number)
		h.made, err = call(ctx, func(ctx context.Context) (*stripe.Refund, error) {
			return c.api().V1Refunds.Create(ctx, params)
		})
		if err != nil {
			return err
		}
	}
	done, err := isMade(h.made)
	if err == nil && !done {
		err = fmt.Errorf("%w: a refund is %s", payment.ErrRefused, h.made.Status)
	}
	return err
}

// Refunded is payment.Provider's.
func (c *Client) Refunded(ctx context.Context, r payment.Refund) (bool, error) {
	h, err := c.history(ctx, r)
	switch {
	case errors.Is(err, payment.ErrRefused):
		return false, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
	case err != nil:
		return false, err
	case h.made == nil:
		return h.isWhole(), nil
	}
	return isMade(h.made)
}

// isMade reports whether money has gone back by a refund. The error is payment.ErrUnknown if it is on its way.
func isMade(r *stripe.Refund) (bool, error) {
	switch r.Status {
	case stripe.RefundStatusSucceeded:
		return true, nil
	case stripe.RefundStatusFailed, stripe.RefundStatusCanceled:
		return false, nil
	}
	return false, fmt.Errorf("%w: a refund is %.20q", payment.ErrUnknown, r.Status)
}

// history asks for a payment and its refunds.
func (c *Client) history(ctx context.Context, r payment.Refund) (h history, err error) {
	h.paid, err = c.session(ctx, r.Of.Reference)
	switch {
	case err != nil:
		return history{}, err
	case h.paid.PaymentStatus != stripe.CheckoutSessionPaymentStatusPaid || h.paid.PaymentIntent == nil ||
		h.paid.ClientReferenceID != r.Of.Number:
		return history{}, fmt.Errorf("%w: it was not paid", payment.ErrRefused)
	}
	params := &stripe.RefundListParams{PaymentIntent: stripe.String(h.paid.PaymentIntent.ID)}
	params.Limit = stripe.Int64(100)
	return call(ctx, func(ctx context.Context) (history, error) {
		seen := 0
		for got, err := range c.api().V1Refunds.List(ctx, params) {
			if err != nil {
				return history{}, err
			}
			if seen++; seen > maxRefunds {
				return history{}, errors.New("a payment with more refunds than are looked at")
			}
			if got.Metadata[refundField] == r.Number {
				h.made = got
			}
			if done, err := isMade(got); done || err != nil {
				h.back += got.Amount
			}
		}
		return h, nil
	})
}
