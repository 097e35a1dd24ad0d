// Package till takes payments. It keeps attempts to pay in MySQL, what the providers of payments tell of them, and
// refunds; a payment completes the order that the ledger holds, or fills a wallet, in one transaction with the note
// that it was made.
//
// Nobody calls a provider inside a transaction. What is about to be done is written first, under a number that the
// provider knows it by, so that whoever finds it later can ask what became of it, or do it again.
package till

import (
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"stampede/internal/batch"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
)

// Errors that callers tell apart, beside those of package mysql and ledger.ErrNotPayable.
var (
	// ErrNotOffered: the provider does not take this order: its currency, its amount, the method, or the time that is
	// left.
	ErrNotOffered = mysql.OwnError("the provider does not take this payment")
	// ErrTooMany: the order has had as many attempts as it may have.
	ErrTooMany = mysql.OwnError("there were too many attempts")
	// ErrProvider: the provider has not answered, so that it is not known whether there is an attempt. The same call
	// again goes on with it.
	ErrProvider = errors.New("the provider does not answer")
	// ErrMismatch: it was asked for before, with something else.
	ErrMismatch = mysql.OwnError("it was asked for before with something else")
	// ErrTooMuch: more would be refunded than was paid.
	ErrTooMuch = mysql.OwnError("more would be refunded than was paid")
)

// Till takes payments by some providers. Set the fields before the first use.
type Till struct {
	DB *mysql.DB
	// Providers are asked in this order which of them takes what.
	Providers []payment.Provider
	// Front is the origin of which providers are told, for notices and for buyers that come back.
	Front string
	// TestMode says that payments count by which no money has moved.
	TestMode bool
	// Counted is told of each event that was recorded, and of what was refused; nil if nobody counts.
	Counted func(provider, what string)

	once     sync.Once // sets together up
	together batch.Batcher[struct{}, *told]
}

// Provider is the provider of a name.
func (t *Till) Provider(name string) (payment.Provider, bool) {
	i := slices.IndexFunc(t.Providers, func(p payment.Provider) bool { return p.Name() == name })
	if i < 0 {
		return nil, false
	}
	return t.Providers[i], true
}

// mustProvider is Provider for money that is on its way, whose provider an operator has to keep.
func (t *Till) mustProvider(name string) (payment.Provider, error) {
	by, ok := t.Provider(name)
	if !ok {
		return nil, fmt.Errorf("there is no provider %q: set its variables", name)
	}
	return by, nil
}

func (t *Till) count(provider, what string) {
	if t.Counted != nil {
		t.Counted(provider, what)
	}
}

// State is how an attempt to pay stands with us.
type State string

// The states of an attempt. Paid and Closed are final, but for money that comes after an attempt was closed.
const (
	// Created: the provider may know of the attempt, or not.
	Created State = "created"
	// Open: the provider knows it.
	Open State = "open"
	// Paid: the provider has taken the money.
	Paid State = "paid"
	// Closed: it cannot be paid any more.
	Closed State = "closed"
)

// Payment is an attempt to pay, as it is kept.
type Payment struct {
	Number   string
	Provider string
	Method   string
	UserID   order.UserID
	// OrderID is what is paid; it is zero if points are bought, as many as Points.
	OrderID order.OrderID
	Points  int64
	// Amount is in minor units of Currency, and Fee what the provider keeps of it, as far as it says so.
	Amount, Fee int64
	Currency    string
	Item        string
	State       State
	// Reference is the provider's of the attempt, and PaymentReference of the payment.
	Reference, PaymentReference string
	ExpiresAt, CreatedAt        time.Time
	// PaidAt is zero if it is not paid, and CapturedAt unless the money is being taken.
	PaidAt, CapturedAt time.Time
	// Tries counts how often the provider was asked.
	Tries int64
}

// isTopUp reports whether points are bought.
func (p *Payment) isTopUp() bool { return p.OrderID == order.OrderID{} }

// live reports whether it may yet be paid.
func (p *Payment) live() bool { return p.State == Created || p.State == Open }

// attempt is what the provider is told of it.
func (t *Till) attempt(p *Payment) payment.Attempt {
	reference := p.Reference
	if p.PaymentReference != "" {
		reference = p.PaymentReference
	}
	return payment.Attempt{
		Number: p.Number, Reference: reference, Method: p.Method, Amount: p.Amount, Currency: p.Currency,
		Item: p.Item, Expires: p.ExpiresAt,
		NoticeURL: t.Front + "/webhooks/" + p.Provider, BackURL: t.Front + "/api/payments/" + p.Number + "/return",
	}
}

// paymentRow is a row of the table payments.
type paymentRow struct {
	Number           string        `db:"number"`
	Provider         string        `db:"provider"`
	Method           string        `db:"method"`
	UserID           order.UserID  `db:"user_id"`
	OrderID          []byte        `db:"order_id"`
	Points           sql.NullInt64 `db:"points"`
	Amount           int64         `db:"amount"`
	Currency         string        `db:"currency"`
	Item             string        `db:"item"`
	State            State         `db:"state"`
	Reference        []byte        `db:"reference"`
	PaymentReference []byte        `db:"payment_reference"`
	Fee              int64         `db:"fee"`
	ExpiresAt        time.Time     `db:"expires_at"`
	CreatedAt        time.Time     `db:"created_at"`
	PaidAt           sql.NullTime  `db:"paid_at"`
	CapturedAt       sql.NullTime  `db:"captured_at"`
	NextAt           sql.NullTime  `db:"next_at"`
	Tries            int64         `db:"tries"`
}

const paymentColumns = `number, provider, method, user_id, order_id, points, amount, currency, item, state, reference,
	payment_reference, fee, expires_at, created_at, paid_at, captured_at, next_at, tries`

func (r *paymentRow) payment() Payment {
	p := Payment{
		Number: r.Number, Provider: r.Provider, Method: r.Method, UserID: r.UserID, Points: r.Points.Int64,
		Amount: r.Amount, Fee: r.Fee, Currency: r.Currency, Item: r.Item, State: r.State,
		Reference: string(r.Reference), PaymentReference: string(r.PaymentReference), ExpiresAt: r.ExpiresAt,
		CreatedAt: r.CreatedAt, PaidAt: r.PaidAt.Time, CapturedAt: r.CapturedAt.Time, Tries: r.Tries,
	}
	copy(p.OrderID[:], r.OrderID)
	return p
}

// numbers are the letters and digits of our own numbers: those of base 32 that are not taken for one another
// (Crockford).
var numbers = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewNumber makes a number for a refund that has none of its own.
func NewNumber() string { return newNumber() }

// newNumber makes a number for an attempt or a refund: 20 letters and digits that sort by time, 48 bits of it in
// milliseconds and 48 random ones.
func newNumber() string {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // it never fails
	return numbers.EncodeToString(b[:])
}

// backoff is how long to wait until a provider is asked again that has been asked so often: from the first pause on
// twice as long each time, up to the longest.
func backoff(first, longest time.Duration, tries int64) time.Duration {
	return min(first<<min(tries, 16), longest)
}

// bytesOrNil is a text for a column that may be NULL.
func bytesOrNil(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// orderRef is an order for a column that is NULL if there is none.
func orderRef(id order.OrderID) []byte {
	if id == (order.OrderID{}) {
		return nil
	}
	return id[:]
}
