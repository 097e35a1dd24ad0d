package payment

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// How long our own numbers may be, of attempts and of refunds.
const (
	MaxAttemptNumber = 20
	MaxRefundNumber  = 32
)

// Provider is one who takes money for us. Its methods may be called at the same time. Each bounds its own calls in
// time, and logs nothing.
type Provider interface {
	// Name is the provider's in paths, tables and settings, as in "ecpay".
	Name() string
	// Offers says how an attempt may be paid, or reports that the provider does not take this method or currency. An
	// empty method is the usual one.
	Offers(method, currency string) (Offer, bool)

	// Start makes an attempt known to the provider, where there is a call for that, and returns where its buyer goes to
	// pay. It may be repeated with the same attempt, which it does not make twice. The error is ErrRefused if there is
	// no such attempt now, and ErrUnknown if that is not known.
	Start(ctx context.Context, a Attempt) (Page, error)
	// ReadNotice reads what was posted to our webhook, whose body is as it came. The error is ErrForged if the provider
	// has not signed it, or for another merchant, and ErrUnknown if that cannot be found out now.
	ReadNotice(ctx context.Context, header http.Header, body []byte) (Notice, error)
	// Answer is how a notice is answered that was taken, or that was not.
	Answer(taken bool) Answer

	// Query tells how an attempt stands. If that is Taken, the notice says by what. The error is ErrUnknown if it
	// cannot be found out now.
	Query(ctx context.Context, a Attempt) (State, Notice, error)
	// Capture takes the money of an attempt that its buyer has approved, once, however often it is called: where the
	// offer says that we capture. The state is Open if the buyer has not approved, or his money could not be taken.
	Capture(ctx context.Context, a Attempt) (State, Notice, error)
	// Close sees to it that an attempt cannot be paid any more: then the state is Lapsed. If it is Taken, the notice
	// says by what. Any other state, and an error, which is ErrUnknown, mean that it may yet be paid: ask again later.
	Close(ctx context.Context, a Attempt) (State, Notice, error)

	// Refund gives money back, once for each number of a refund, however often it is called with the same. The error is
	// ErrRefused if nothing goes back, and ErrUnknown if that is not known: then call it again.
	Refund(ctx context.Context, r Refund) error
	// Refunded reports whether a refund was made, for one that is about to make it by hand. The error is ErrUnknown if
	// that cannot be found out now.
	Refunded(ctx context.Context, r Refund) (bool, error)
}

// Offer is how attempts of a method are paid.
type Offer struct {
	// Captures says that no money is taken but by Capture.
	Captures bool
	// Refunds says that money can be given back by the provider, and not by hand only.
	Refunds bool
	// Least is the shortest time that a buyer needs, so that the method is not offered with less.
	Least time.Duration
	// Lapse is how long after its expiry an attempt that cannot be closed may still be paid; 0 if it can be closed.
	Lapse time.Duration
	// Multiple is what amounts must be a multiple of, in minor units.
	Multiple int64
}

// Attempt is an attempt to pay.
type Attempt struct {
	// Number is ours: 1 to 20 letters and digits, used once for all time.
	Number string
	// Reference is the provider's own, as Start or a notice has told, or empty.
	Reference string
	// Method is one of the provider's, or empty.
	Method string
	// Amount is in minor units of Currency, a code of ISO 4217.
	Amount   int64
	Currency string
	// Item is what is bought, in words.
	Item string
	// Expires is when the attempt ends, if it is not paid.
	Expires time.Time
	// NoticeURL is where the provider posts what has become of it, and BackURL where the buyer is sent back to.
	NoticeURL, BackURL string
}

// Check returns how a provider takes an attempt. The error, if it does not, is ErrRefused.
func (a Attempt) Check(p Provider) (Offer, error) {
	offer, ok := p.Offers(a.Method, a.Currency)
	switch {
	case !ok:
		return Offer{}, fmt.Errorf("%w: %s takes no %.10q by %.20q", ErrRefused, p.Name(), a.Currency, a.Method)
	case !IsNumber(a.Number, MaxAttemptNumber):
		return Offer{}, fmt.Errorf("%w: the number of an attempt is 1 to %d letters and digits", ErrRefused,
			MaxAttemptNumber)
	}
	return offer, offer.check(a.Amount)
}

// check holds an amount to what an offer takes.
func (o Offer) check(amount int64) error {
	if amount <= 0 || amount%o.Multiple != 0 {
		return fmt.Errorf("%w: an amount is a multiple of %d minor units, and not %d", ErrRefused, o.Multiple, amount)
	}
	return nil
}

// IsNumber reports whether a number of ours may be one.
func IsNumber(number string, longest int) bool {
	odd := func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	return number != "" && len(number) <= longest && !strings.ContainsFunc(number, odd)
}

// Page is where a buyer goes to pay.
type Page struct {
	URL string
	// Form is what the browser posts there; nil if it just goes there.
	Form url.Values
	// Reference is the provider's number of the attempt, or of what pays it, where there is one already.
	Reference string
}

// Refund is money that goes back.
type Refund struct {
	// Number is ours: 1 to 32 letters and digits, used once for all time.
	Number string
	// Of is the attempt that was paid, with the reference of its payment.
	Of Attempt
	// Amount is what goes back, in minor units of the attempt's currency.
	Amount int64
}

// Check reports why a provider does not make a refund, as ErrRefused.
func (r Refund) Check(p Provider) error {
	offer, err := r.Of.Check(p)
	switch {
	case err != nil:
		return err
	case !offer.Refunds:
		return fmt.Errorf("%w: %s gives nothing back of what was paid by %.20q", ErrRefused, p.Name(), r.Of.Method)
	case !IsNumber(r.Number, MaxRefundNumber):
		return fmt.Errorf("%w: the number of a refund is 1 to %d letters and digits", ErrRefused, MaxRefundNumber)
	case r.Amount > r.Of.Amount:
		return fmt.Errorf("%w: more than was paid", ErrRefused)
	}
	return offer.check(r.Amount)
}

// Answer is an answer to a notice, in the provider's own words.
type Answer struct {
	Status      int
	ContentType string
	Body        string
}
