package till

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"stampede/internal/payment"
)

// bank is a provider whose answers can be lost, before or after it has done what was asked. It keeps books of its own.
type bank struct {
	name     string
	offer    payment.Offer
	browser  bool // attempts are created by the buyer's browser
	mu       sync.Mutex
	attempts map[string]*account
	lose     func(call string) (before, after bool)
	refuse   func() bool // a refund
	refunds  map[string]int64
	back     map[string]int64 // by attempt
	late     []func()         // requests that were given up, and are still on their way
}

// account is how an attempt stands at the bank.
type account struct {
	attempt  payment.Attempt
	state    payment.State
	approved bool
}

func newBank(name string, offer payment.Offer) *bank {
	offer.Multiple = 1
	return &bank{
		name: name, offer: offer, attempts: map[string]*account{},
		refunds: map[string]int64{}, back: map[string]int64{},
		lose: func(string) (before, after bool) { return false, false }, refuse: func() bool { return false },
	}
}

var errLost = fmt.Errorf("%w: the answer is lost", payment.ErrUnknown)

// do does what was asked, unless the request or the answer is lost.
func (b *bank) do(call string, f func()) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, after := b.lose(call)
	if before {
		b.late = append(b.late, f)
		return errLost
	}
	f()
	if after {
		return errLost
	}
	return nil
}

func (b *bank) Name() string { return b.name }

func (b *bank) Offers(method, currency string) (payment.Offer, bool) {
	return b.offer, method == "" && currency != "XXX"
}

func (b *bank) Start(_ context.Context, a payment.Attempt) (page payment.Page, err error) {
	page = payment.Page{URL: "http://bank/" + a.Number, Reference: "ref" + a.Number}
	if b.browser {
		page.Reference = ""
		return page, nil
	}
	err = b.do("start", func() { b.create(a) })
	if err != nil {
		return payment.Page{}, err
	}
	return page, nil
}

func (b *bank) create(a payment.Attempt) {
	if b.attempts[a.Number] == nil {
		b.attempts[a.Number] = &account{attempt: a, state: payment.Open}
	}
}

// notice is what the bank says of an attempt that is paid.
func (b *bank) notice(number string) payment.Notice {
	a := b.attempts[number].attempt
	return payment.Notice{
		Kind: payment.Paid, Attempt: number, Reference: "paid" + number, EventKey: "paid:" + number, Amount: a.Amount,
		Currency: a.Currency, Fee: 3,
	}
}

func (b *bank) standing(number string) (payment.State, payment.Notice) {
	a := b.attempts[number]
	switch {
	case a == nil:
		return payment.NotFound, payment.Notice{}
	case a.state == payment.Taken:
		return payment.Taken, b.notice(number)
	}
	return a.state, payment.Notice{}
}

func (b *bank) Query(_ context.Context, a payment.Attempt) (state payment.State, n payment.Notice, err error) {
	err = b.do("query", func() { state, n = b.standing(a.Number) })
	return state, n, err
}

func (b *bank) Capture(_ context.Context, a payment.Attempt) (state payment.State, n payment.Notice, err error) {
	b.mu.Lock()
	at := b.attempts[a.Number]
	approved := at != nil && at.approved // whoever approves later has not approved of this call
	b.mu.Unlock()
	err = b.do("capture", func() {
		if approved && at.state == payment.Open {
			at.state = payment.Taken
		}
		state, n = b.standing(a.Number)
	})
	return state, n, err
}

func (b *bank) Close(_ context.Context, a payment.Attempt) (state payment.State, n payment.Notice, err error) {
	err = b.do("close", func() {
		at := b.attempts[a.Number]
		switch {
		case b.offer.Captures && (at == nil || at.state != payment.Taken): // nobody will capture it
			state = payment.Lapsed
			return
		case b.offer.Lapse == 0 && at != nil && at.state == payment.Open,
			b.offer.Lapse > 0 && (at == nil || at.state == payment.Open) &&
				time.Now().After(a.Expires.Add(b.offer.Lapse)):
			b.create(a)
			b.attempts[a.Number].state = payment.Lapsed
		}
		state, n = b.standing(a.Number)
	})
	return state, n, err
}

func (b *bank) Refund(_ context.Context, r payment.Refund) (err error) {
	if b.refuse() {
		return fmt.Errorf("%w: no", payment.ErrRefused)
	}
	return b.do("refund", func() { b.giveBack(r) })
}

func (b *bank) giveBack(r payment.Refund) {
	if _, known := b.refunds[r.Number]; !known {
		b.refunds[r.Number] = r.Amount
		b.back[r.Of.Number] += r.Amount
	}
}

func (b *bank) Refunded(_ context.Context, r payment.Refund) (made bool, err error) {
	err = b.do("refunded", func() { _, made = b.refunds[r.Number] })
	return made, err
}

// pay is what a buyer does at the bank: it reports whether he could.
func (b *bank) pay(a payment.Attempt) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.browser && time.Now().Before(a.Expires.Add(b.offer.Lapse)) {
		b.create(a)
	}
	at := b.attempts[a.Number]
	if at == nil || at.state != payment.Open || b.browser && !time.Now().Before(a.Expires.Add(b.offer.Lapse)) {
		return false
	}
	if b.offer.Captures {
		at.approved = true
	} else {
		at.state = payment.Taken
	}
	return true
}

// arrive has the requests arrive that were given up.
func (b *bank) arrive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.late {
		f()
	}
	b.late = nil
}

// taken is what the bank has taken of an attempt.
func (b *bank) taken(number string) (amount, back int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.attempts[number]; at != nil && at.state == payment.Taken {
		return at.attempt.Amount, b.back[number]
	}
	return 0, b.back[number]
}

func (b *bank) ReadNotice(context.Context, http.Header, []byte) (payment.Notice, error) {
	return payment.Notice{}, errors.New("not used")
}

func (b *bank) Answer(bool) payment.Answer { return payment.Answer{} }

var _ payment.Provider = (*bank)(nil)
