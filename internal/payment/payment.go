// Package payment has what the providers of payments have in common.
package payment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is what a provider says of an attempt to pay.
type Kind string

// The kinds of notices.
const (
	// Paid: the provider has taken the money.
	Paid Kind = "paid"
	// Issued: a number to pay with was given out. Nothing is paid, and nothing has failed.
	Issued Kind = "issued"
	// Approved: the buyer agrees, and the money can be taken.
	Approved Kind = "approved"
	// Failed: this attempt was not paid. The buyer may go on to try.
	Failed Kind = "failed"
	// Refunded: money went back to the buyer.
	Refunded Kind = "refunded"
	// Closed: this attempt cannot be paid any more.
	Closed Kind = "closed"
	// Other: nothing that an attempt depends on.
	Other Kind = "other"
)

// Notice is what a provider has told, signed by it. That it is about an attempt of ours, and about its amount, is for
// the caller to compare.
type Notice struct {
	Kind Kind
	// Attempt is our number of the attempt, and Reference the provider's.
	Attempt, Reference string
	// EventKey differs between two notices of one provider that say different things, and is the same when one is
	// repeated.
	EventKey string
	// Merchant is whom the provider has taken it for, in its own words.
	Merchant string
	// Amount is in minor units of Currency, a code of ISO 4217. Of a refund it is what went back.
	Amount   int64
	Currency string
	// Fee is what the provider keeps, in the same, where it says so.
	Fee int64
	// Simulated says that no money has moved.
	Simulated bool
	// At is when it happened, or zero where the provider does not say.
	At time.Time
}

// ErrForged: what was received is not signed by the provider, or not readable. It must change nothing, and nothing of
// it is stored.
var ErrForged = errors.New("the notice is not signed by the provider")

// Forged is ErrForged with what is wrong.
func Forged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrForged}, args...)...)
}

// maxFields bounds the fields of a notice that is a form; providers send some thirty.
const maxFields = 100

// fieldWithin is a field in the value of another. Signatures are over fields that are joined and not encoded, so that a
// text with such a value could be taken apart in two ways, of which both would be signed.
var fieldWithin = regexp.MustCompile(`&[A-Za-z0-9_]+=`)

// ReadForm reads the body of a notice that is a form, in which each field is there once: which one of two is signed
// would be a matter of taste. The error is ErrForged.
func ReadForm(body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !utf8.Valid(body) {
		return nil, Forged("it is no form")
	}
	if len(form) > maxFields {
		return nil, Forged("it has more than %d fields", maxFields)
	}
	for _, values := range form {
		switch {
		case len(values) > 1:
			return nil, Forged("it has a field twice")
		case fieldWithin.MatchString(values[0]):
			return nil, Forged("it has a field in the value of another")
		}
	}
	return form, nil
}

// State is how an attempt stands at its provider.
type State string

// The states at a provider.
const (
	// NotFound: the provider does not know the attempt. It may still be created, by a request that is on its way or a
	// page that the buyer has open.
	NotFound State = "not_found"
	// Open: it can be paid.
	Open State = "open"
	// Taken: the money was taken.
	Taken State = "paid"
	// Lapsed: it was closed without having been paid, and cannot be paid any more.
	Lapsed State = "closed"
)

// ErrRefused: the provider has done nothing of what was asked, and will not do it if it is asked again.
var ErrRefused = errors.New("the provider has refused")

// ErrUnknown: the provider did not answer, or not so that the outcome is known. To ask again may help.
var ErrUnknown = errors.New("what the provider has done is not known")

// maxAnswer bounds the answer to a form, in bytes.
const maxAnswer = 64 << 10

// PostForm posts a form to a provider and returns what it answers with the status 200. With any error it is not known
// what the provider has done. A nil client is Plain; ctx bounds the call.
func PostForm(ctx context.Context, client *http.Client, address string, form url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded;charset=utf-8")
	status, body, err := Do(client, request, maxAnswer)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// Plain is a client that follows no redirect: nobody but the provider itself gets what is sent to it.
var Plain = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Do makes a request and reads its answer, of so many bytes at most. A nil client is Plain.
func Do(client *http.Client, request *http.Request, most int64) (status int, body []byte, err error) {
	if client == nil {
		client = Plain
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("an answer of more than %d bytes", most)
	}
	return response.StatusCode, body, err
}
