package audit

import (
	"context"
	"fmt"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/till"
	"stampede/internal/wallet"
)

// Money is what has become of all that was paid in one currency, in minor units. What was taken, with what staff gives
// back of it, is what has completed orders or bought points, and what went or goes back.
type Money struct {
	Currency  string `json:"currency"`
	Taken     int64  `json:"taken"`
	Completed int64  `json:"completed"`
	Refunded  int64  `json:"refunded"`
	Due       int64  `json:"due"`
	ByHand    int64  `json:"by_hand"`
	ByStaff   int64  `json:"by_staff"`
}

// Comparison is what an audit has compared of a promise.
type Comparison struct {
	Promise string `json:"promise"` // as in P9
	What    string `json:"what"`
}

// payments is what an audit has counted of payments.
type payments struct{ taken, byPoints, wallets, changes int64 }

// addPayments checks promises P9 and P12 in MySQL, and adds what does not fit to the problems.
func (r *Report) addPayments(ctx context.Context, db *mysql.DB) error {
	paid, err := (&till.Till{DB: db}).Audit(ctx)
	if err != nil {
		return err
	}
	r.Money = make([]Money, len(paid.Money))
	for i, m := range paid.Money {
		r.Money[i] = Money{m.Currency, m.Taken, m.Completed, m.Refunded, m.Due, m.ByHand, m.Staff}
	}
	for _, problem := range paid.Problems {
		r.Problems = append(r.Problems, "payments: "+problem)
	}

	wallets := wallet.New(db)
	broken, err := wallets.Audit(ctx)
	if err != nil {
		return err
	}
	for _, p := range broken {
		r.Problems = append(r.Problems, fmt.Sprintf("wallet of user %d: %s", p.UserID, p.What))
	}
	r.payments.taken, r.payments.byPoints = paid.Payments, paid.PaidByPoints
	r.payments.wallets, r.payments.changes, err = wallets.Count(ctx)
	return err
}

// compare says of each promise what was compared, whether it is kept or not; with Redis, or in MySQL alone.
func (r *Report) compare(redis bool) {
	var sum Product
	for i := range r.Products {
		p := &r.Products[i]
		sum.Completed += p.Completed
		sum.Failed += p.Failed
		sum.Held += p.Held
		sum.Cancelled += p.Cancelled
		sum.Returned += p.Returned
	}
	add := func(promise, format string, args ...any) {
		r.Compared = append(r.Compared, Comparison{promise, fmt.Sprintf(format, args...)})
	}
	products := many(int64(len(r.Products)), "product")
	add("P1", "%s: stock = initial + restocked - completed + returned, by the orders and by the ledger", products)
	add("P3", "%s: one row of the ledger for each of the %s completed ones, none for the others",
		many(sum.Completed+sum.Failed, "order"), grouped(sum.Completed))
	if redis {
		add("P4", "%s: available + reserved + lent in Redis = stock in MySQL", products)
		add("P5", "%s: no reservation and no outbox entry without an order on its way", products)
	}
	add("P7", "%s: what each user has bought and the limit", products)
	add("P9", "%s of %s: taken (+ given back by staff) = completed + refunded + due + by hand",
		many(r.payments.taken, "payment"), manyOf(int64(len(r.Money)), "currency", "currencies"))
	add("P10", "%s to be paid: %s cancelled, and the ledger has taken back %s, each order's once",
		many(sum.Held, "order"), grouped(sum.Cancelled), many(sum.Returned, "unit"))
	add("P12", "%s with %s: balance = sum, never below zero; %s paid by points, each with its debit",
		many(r.payments.wallets, "wallet"), many(r.payments.changes, "change"), many(r.payments.byPoints, "order"))
}

func many(n int64, what string) string { return manyOf(n, what, what+"s") }

func manyOf(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + more
}

// grouped writes a number with a comma at each thousand.
func grouped(n int64) string {
	if n < 0 {
		return "-" + grouped(-n)
	}
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// decimal writes minor units with a point where their currency has one, or as they are if nobody knows it.
func decimal(amount int64, currency string) string {
	if text, ok := order.Decimal(amount, currency); ok {
		return text
	}
	return fmt.Sprint(amount)
}
