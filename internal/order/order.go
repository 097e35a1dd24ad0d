// Package order says what an order is: its identity, its states and reasons, and the
// message that carries it from the edge to a worker. It knows no other technology.
package order

import (
	"errors"
	"time"
)

// Bounds of one order. They keep every product of quantity and unit price far inside an int64.
const (
	// MaxQuantity is the most units that one order may ask for.
	MaxQuantity = 1_000
	// MaxUnitPrice is the highest price of one unit, in minor units of its currency.
	MaxUnitPrice = 1_000_000_000_000
	// MaxIdempotencyKeyBytes is the longest idempotency key; Stripe's limit, which clients know.
	MaxIdempotencyKeyBytes = 255
)

// IdempotencyLifetime is how long a user's idempotency key stands for one order of a product, from its reservation on:
// Stripe's 24 hours.
const IdempotencyLifetime = 24 * time.Hour

// Status is the state of an order. An order leaves Pending exactly once; only an order that
// failed as a dead letter may be decided anew, when an operator redrives it.
//
//	pending ─┬─▶ completed
//	         ├─▶ failed
//	         └─▶ awaiting_payment ─┬─▶ completed ─▶ refunded
//	                    └─▶ closing ─┴─▶ cancelled
type Status string

// The states of an order.
const (
	Pending   Status = "pending"
	Completed Status = "completed"
	Failed    Status = "failed"

	// AwaitingPayment: the order has its units, and is paid until its time to pay is over.
	AwaitingPayment Status = "awaiting_payment"
	// Closing: it is too late to pay, or the buyer has cancelled. Providers of payments are asked whether it was paid
	// before; only then it is cancelled.
	Closing Status = "closing"
	// Cancelled: it was not paid, and its units are on sale again.
	Cancelled Status = "cancelled"
	// Refunded: it was paid, and the money has been given back.
	Refunded Status = "refunded"

	// Held is what a decision says of an order that has taken units and must be paid. A decision stands; what has
	// become of the order since is one of the states above.
	Held Status = "held"
)

// TookUnits reports whether an order of this status was decided in its buyer's favour, whatever became of it since.
func (s Status) TookUnits() bool { return s != Pending && s != Failed }

// Reason says why an order failed. It is stored with the order and shown to the buyer.
type Reason string

// The reasons for which an order fails.
const (
	// SoldOut: MySQL had fewer units than the order asked for.
	SoldOut Reason = "sold_out"
	// LimitExceeded: the order would take the buyer over the product's limit per user.
	LimitExceeded Reason = "limit_exceeded"
	// IdempotencyConflict: another order of the same user for the product was decided under the same key.
	IdempotencyConflict Reason = "idempotency_conflict"
	// UnknownProduct: the order names a product that MySQL does not have.
	UnknownProduct Reason = "unknown_product"
	// DeadLetter: deciding the order failed again and again for a reason of its own.
	DeadLetter Reason = "dead_letter"
	// InsufficientPoints: the order was to be paid with points, of which its buyer had too few.
	InsufficientPoints Reason = "insufficient_points"
)

// Reasons are all of them.
var Reasons = []Reason{SoldOut, LimitExceeded, IdempotencyConflict, UnknownProduct, DeadLetter, InsufficientPoints}

// Order is what a buyer asked for and was promised at the 202.
type Order struct {
	ID OrderID `json:"order_id"`
	// UserID is who buys, and StockID the product, or the bucket of one, that has the units.
	UserID  UserID  `json:"user_id"`
	StockID StockID `json:"product_id"`
	// Quantity is in units, 1 to MaxQuantity.
	Quantity int64 `json:"quantity"`
	// UnitPrice is in minor units of the product's currency, or in points, as promised when the units were reserved.
	UnitPrice int64 `json:"unit_price"`
	// Points: the order is paid with points, which are taken when it is decided.
	Points bool `json:"points,omitempty"`
	// ReservedAt is the time of the reservation by the clock of Redis, to the millisecond.
	ReservedAt time.Time `json:"reserved_at"`
	// IdempotencyKey is what the client sent, or empty.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
}

// TotalPrice is the price of the whole order in minor units, or in points.
func (o Order) TotalPrice() int64 { return o.UnitPrice * o.Quantity }

// PricedIn is the currency of the order's price, by that of its product.
func (o Order) PricedIn(currency string) string {
	if o.Points {
		return PointsCurrency
	}
	return currency
}

// Validate says what is wrong with an order that came from outside, or nil.
func (o Order) Validate() error {
	switch {
	case o.ID == OrderID{}:
		return errors.New("order_id is missing")
	case o.UserID <= 0:
		return errors.New("user_id is not positive")
	case o.StockID <= 0:
		return errors.New("product_id is not positive")
	case o.Quantity <= 0 || o.Quantity > MaxQuantity:
		return errors.New("quantity is out of range")
	case o.UnitPrice < 0 || o.UnitPrice > MaxUnitPrice:
		return errors.New("unit_price is out of range")
	case o.Points && o.UnitPrice == 0:
		return errors.New("unit_price is 0 points")
	case o.ReservedAt.IsZero():
		return errors.New("reserved_at is missing")
	case o.ReservedAt.UTC().Year() < 1970 || o.ReservedAt.UTC().Year() > 9999:
		// Redis says no time before the epoch, and MySQL has none after 9999. Such an order could never be decided.
		return errors.New("reserved_at is out of range")
	case len(o.IdempotencyKey) > MaxIdempotencyKeyBytes:
		return errors.New("idempotency_key is too long")
	}
	return nil
}

// Record is an order with what has become of it: what a buyer sees.
type Record struct {
	Order
	// Currency is an ISO 4217 code, or PointsCurrency.
	Currency     string `json:"currency"`
	Status       Status `json:"status"`
	FailedReason Reason `json:"failed_reason,omitempty"`
	// DecidedAt is zero while the order is pending.
	DecidedAt time.Time `json:"decided_at,omitzero"`
	// PayBy is until when an order is to be paid that awaits payment.
	PayBy time.Time `json:"pay_by,omitzero"`
	// MustBePaid says that more may become of it after its decision.
	MustBePaid bool `json:"-"`
}

// Final reports whether nothing more can become of an order, unless an operator takes back that it has failed.
func (r *Record) Final() bool {
	switch r.Status {
	case Pending, AwaitingPayment, Closing, Held:
		return false
	case Completed:
		return !r.MustBePaid // it may be refunded
	}
	return r.FailedReason != DeadLetter
}

// Decision is what MySQL says of an order.
type Decision struct {
	Record
	// Fresh reports whether this call inserted the order's row. A decision that is not fresh was read
	// from a row that was there before, and nobody knows how far its settling came.
	Fresh bool
	// Version is the product's version that the commit of a fresh decision made; 0 otherwise.
	Version int64
}

// Returned is an order whose units MySQL has taken back, after it had taken them for the order.
type Returned struct {
	OrderID OrderID
	UserID  UserID
	StockID StockID
	// Quantity is in units.
	Quantity int64
	// TakenAt and ReturnedAt are the versions of the product, or of the bucket, that took the units and returned them.
	TakenAt, ReturnedAt int64
}

// SaleState is whether a product may be ordered at all, whatever its window and its stock.
type SaleState string

// The states of a product.
const (
	OnSale  SaleState = "on_sale"
	OffSale SaleState = "off_sale"
)

// PaymentRule is whether orders of a product must be paid.
type PaymentRule string

// The rules of payment.
const (
	// PaymentNone: an order is completed when it has its units.
	PaymentNone PaymentRule = "none"
	// PaymentRequired: an order that costs something has its units for as long as the product says, and is completed
	// when it is paid.
	PaymentRequired PaymentRule = "required"
)

// For how long an order may await its payment.
const (
	MinPayWithin     = time.Minute
	MaxPayWithin     = 7 * 24 * time.Hour
	DefaultPayWithin = 15 * time.Minute
)

// Product is something on sale, or taken off sale.
type Product struct {
	ID          StockID
	Name        string
	Description string
	// Price of one unit, in minor units of Currency.
	Price int64
	// PointsPrice is what a unit costs who pays with points; 0: nobody can.
	PointsPrice int64
	// Currency is an ISO 4217 code.
	Currency string
	// Stock is the number of units that MySQL has not sold.
	Stock int64
	// Version is raised by every change of Stock in MySQL.
	Version int64
	// Revision is raised by every change of the settings, which are all that is neither ID, Currency, Stock nor
	// CreatedAt. Of a split product the buckets have the same.
	Revision int64
	State    SaleState
	// StartsAt and EndsAt bound the sale; a zero time is no bound.
	StartsAt, EndsAt time.Time
	// LimitPerUser is the most units one user may buy; 0 is no limit.
	LimitPerUser int64
	// Payment is whether orders must be paid, and PayWithin for how long one then waits, in whole seconds.
	Payment   PaymentRule
	PayWithin time.Duration
	// Buckets is the number of buckets that hold the units, in the product and in each of its buckets. It is 0 if the
	// product is not split, and in a bucket that is out of use.
	Buckets   int64
	CreatedAt time.Time
}
