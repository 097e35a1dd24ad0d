package pay

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// maxAttempts bounds the attempts, and with them the payments. maxRefunds bounds those that are by one attempt too,
	// since each is of one unit of money at least.
	maxAttempts = 200_000
	maxRefunds  = 200_000
	// maxRemembered bounds the answers that are kept for calls that are repeated under one key.
	maxRemembered = 400_000
)

// Status is how an attempt stands.
type Status string

// The statuses of an attempt.
const (
	Open     Status = "open"
	Issued   Status = "issued"   // a number to pay with was given out
	Approved Status = "approved" // the buyer agrees; the money can be taken
	Paid     Status = "paid"
	Closed   Status = "closed"
)

// By says who has made a refund.
type By string

// Who makes refunds.
const (
	ByAPI  By = "api"
	ByHand By = "hand"
)

// Books are all that was taken and given back, for a checker. Amounts are in minor units of their currency.
type Books struct {
	Attempts []Attempt `json:"attempts"`
	Payments []Payment `json:"payments"`
	Refunds  []Refund  `json:"refunds"`
}

// Attempt is an attempt to pay, as the provider knows it.
type Attempt struct {
	Provider  string    `json:"provider"`
	Number    string    `json:"number"`    // the merchant's
	Reference string    `json:"reference"` // the provider's
	Item      string    `json:"item"`
	Amount    int64     `json:"amount"`
	Currency  string    `json:"currency"`
	Status    Status    `json:"status"`
	Method    string    `json:"method,omitempty"` // by which it is paid, or is to be paid
	Refunded  int64     `json:"refunded"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero is never
}

// Payment is money that was taken.
type Payment struct {
	Provider  string    `json:"provider"`
	Number    string    `json:"number"`    // the merchant's, of the attempt
	Reference string    `json:"reference"` // the provider's, by which it is refunded
	Amount    int64     `json:"amount"`
	Currency  string    `json:"currency"`
	Method    string    `json:"method,omitempty"`
	PaidAt    time.Time `json:"paid_at"`
}

// Refund is money that was given back.
type Refund struct {
	Provider  string    `json:"provider"`
	Number    string    `json:"number"`    // the merchant's, or empty where the protocol has none
	Reference string    `json:"reference"` // the provider's
	Of        string    `json:"of"`        // the merchant's number of the attempt
	Amount    int64     `json:"amount"`
	Currency  string    `json:"currency"`
	By        By        `json:"by"`
	At        time.Time `json:"at"`
}

// attempt is an Attempt with what the pages and the notices need.
type attempt struct {
	Attempt
	payment *Payment
	refunds []*Refund

	noticeURL, issuedURL, backURL, cancelURL string

	fields  url.Values // as the merchant gave them
	methods []string   // by which a number can be issued
	code    string     // the number that was issued
	card    string     // how a payment by card at ECPay stands
	refuses bool       // a refund was refused, and so will the next be
}

// books are the Books with their indexes. All is guarded by mu.
type books struct {
	mu          sync.Mutex
	attempts    []*attempt
	byNumber    map[string]*attempt // by provider and merchant's number; the newest, if a provider takes one twice
	byReference map[string]*attempt // by provider and provider's number, of the attempt and of its payment
	payments    []*Payment
	refunds     []*Refund
	remembered  map[string]remembered

	queried time.Time // when ECPay was asked last
	hurried int       // how often it was asked too soon after
}

// remembered is the answer to a call that may be repeated under its key.
type remembered struct {
	request string
	answer  answer
}

func newBooks() *books {
	return &books{
		byNumber: map[string]*attempt{}, byReference: map[string]*attempt{}, remembered: map[string]remembered{},
	}
}

// locked calls do with the books locked.
func (b *books) locked(do func() answer) answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return do()
}

// key joins what cannot have a space in it.
func key(provider, number string) string { return provider + " " + number }

var errFull = errors.New("the books are full")

// add notes a new attempt.
func (b *books) add(a *attempt) error {
	if len(b.attempts) >= maxAttempts {
		return errFull
	}
	a.Status, a.CreatedAt = Open, time.Now()
	b.attempts = append(b.attempts, a)
	b.byNumber[key(a.Provider, a.Number)] = a
	b.byReference[key(a.Provider, a.Reference)] = a
	return nil
}

// numbered returns the attempt with a merchant's number, or nil, and referred that with a provider's number. What has
// expired is closed by then.
func (b *books) numbered(provider, number string) *attempt {
	return b.current(b.byNumber[key(provider, number)])
}

func (b *books) referred(provider, reference string) *attempt {
	return b.current(b.byReference[key(provider, reference)])
}

func (b *books) current(a *attempt) *attempt {
	if a != nil && a.payable() && !a.ExpiresAt.IsZero() && time.Now().After(a.ExpiresAt) {
		a.Status = Closed
	}
	return a
}

// payable reports whether the buyer may still do something.
func (a *attempt) payable() bool {
	return a.Status == Open || a.Status == Issued || a.Status == Approved
}

// take takes the money of an attempt, under a number of the provider's.
func (b *books) take(a *attempt, reference, method string) {
	a.Status, a.Method = Paid, cmp.Or(a.Method, method)
	a.payment = &Payment{
		Provider: a.Provider, Number: a.Number, Reference: reference, Amount: a.Amount, Currency: a.Currency,
		Method: a.Method, PaidAt: time.Now(),
	}
	b.payments = append(b.payments, a.payment)
	b.byReference[key(a.Provider, reference)] = a
}

// The reasons for which nothing is given back.
var (
	errNotPaid = errors.New("it was not paid")
	errTooMuch = errors.New("it is more than what is left of the payment")
	errNothing = errors.New("it is nothing")
)

// give gives money of an attempt back.
func (b *books) give(a *attempt, number, reference string, amount int64, by By) (*Refund, error) {
	switch {
	case a.payment == nil:
		return nil, errNotPaid
	case amount <= 0:
		return nil, errNothing
	// By hand somebody may do what no provider does, and a checker must see it.
	case by == ByAPI && amount > a.Amount-a.Refunded:
		return nil, errTooMuch
	case len(b.refunds) >= maxRefunds:
		return nil, errFull
	}
	r := &Refund{
		Provider: a.Provider, Number: number, Reference: reference, Of: a.Number, Amount: amount, Currency: a.Currency,
		By: by, At: time.Now(),
	}
	if by == ByAPI {
		a.Refunded += amount
	}
	a.refunds, b.refunds = append(a.refunds, r), append(b.refunds, r)
	return r, nil
}

// refund returns the refund of an attempt with a merchant's number, or nil.
func (a *attempt) refund(number string) *Refund {
	for _, r := range a.refunds {
		if r.By == ByAPI && r.Number == number {
			return r
		}
	}
	return nil
}

// recall returns the answer to a call that was made before under this key, and reports whether there was one, and
// whether it was the same call.
func (b *books) recall(key, request string) (was answer, found, same bool) {
	r, found := b.remembered[key]
	return r.answer, found, r.request == request
}

// remember keeps an answer, without its notices, for a call that is repeated under its key.
func (b *books) remember(key, request string, given answer) {
	if len(b.remembered) < maxRemembered {
		given.notices = nil
		b.remembered[key] = remembered{request: request, answer: given}
	}
}

// Books returns what the books say now.
func (s *Server) Books() Books {
	b := s.books
	b.mu.Lock()
	defer b.mu.Unlock()
	all := Books{Attempts: []Attempt{}, Payments: []Payment{}, Refunds: []Refund{}}
	for _, a := range b.attempts {
		all.Attempts = append(all.Attempts, b.current(a).Attempt)
	}
	for _, p := range b.payments {
		all.Payments = append(all.Payments, *p)
	}
	for _, r := range b.refunds {
		all.Refunds = append(all.Refunds, *r)
	}
	return all
}

// RefundByHand notes what an operator gives back without the API. It does not look at what was given back before, so
// that a checker finds what an operator does twice.
func (s *Server) RefundByHand(provider, number, refund string, amount int64) error {
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	a := s.books.numbered(provider, number)
	if a == nil {
		return fmt.Errorf("pay: %s has no attempt %q", provider, number)
	}
	if amount == 0 {
		amount = a.Amount
	}
	_, err := s.books.give(a, refund, "hand-"+rand.Text(), amount, ByHand)
	return err
}

// paidNumbered returns a paid attempt with a merchant's number other than a, or nil.
func (b *books) paidNumbered(a *attempt) *attempt {
	i := slices.IndexFunc(b.payments, func(p *Payment) bool { return p.Provider == a.Provider && p.Number == a.Number })
	if i < 0 || b.payments[i] == a.payment {
		return nil
	}
	return b.byReference[key(a.Provider, b.payments[i].Reference)]
}

// digits returns so many random digits.
func digits(n int) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = '0' + byte(mathrand.IntN(10))
	}
	return string(text)
}
