package till

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// MoveKind is what a move of money was.
type MoveKind string

// The kinds of moves. The money of all but refunds came, and that of refunds went back.
const (
	MovePayment  MoveKind = "payment"  // it has paid an order, or goes back since it could not
	MoveTopUp    MoveKind = "topup"    // it has bought points
	MoveMismatch MoveKind = "mismatch" // it does not fit its attempt, and is on the operator's list
	MoveRefund   MoveKind = "refund"
)

// Move is money that came, or went back.
type Move struct {
	At   time.Time
	Kind MoveKind
	// Number is that of the attempt, or of the refund.
	Number string
	// OrderID is zero of points.
	OrderID  order.OrderID
	Provider string
	Method   string
	// Amount and Fee are in minor units of Currency, and positive, whichever way the money went.
	Amount, Fee int64
	Currency    string
	// Reference is the provider's of the payment.
	Reference string
}

// moveRow is a row of each of the queries of moves.
type moveRow struct {
	At        time.Time `db:"at"`
	Kind      MoveKind  `db:"kind"`
	Number    []byte    `db:"number"`
	OrderID   []byte    `db:"order_id"`
	Provider  string    `db:"provider"`
	Method    string    `db:"method"`
	Amount    int64     `db:"amount"`
	Fee       int64     `db:"fee"`
	Currency  string    `db:"currency"`
	Reference []byte    `db:"reference"`
}

// moveQueries read moves of a time, each in the order of time and number, after one of them. Its index has both.
var moveQueries = []string{
	`SELECT paid_at AS at, CASE WHEN order_id IS NULL THEN 'topup' ELSE 'payment' END AS kind, number, order_id,
		provider, method, amount, fee, currency, COALESCE(payment_reference, reference, '') AS reference
	FROM payments FORCE INDEX (payments_paid)
	WHERE paid_at >= ? AND paid_at < ? AND (paid_at > ? OR number > ?) ORDER BY paid_at, number LIMIT ?`,
	`SELECT r.done_at AS at, 'refund' AS kind, r.number, r.order_id, r.provider, COALESCE(p.method, '') AS method,
		r.amount, 0 AS fee, r.currency, COALESCE(p.payment_reference, p.reference, '') AS reference
	FROM refunds r FORCE INDEX (refunds_done) LEFT JOIN payments p ON p.number = r.attempt
	WHERE r.done_at >= ? AND r.done_at < ? AND (r.done_at > ? OR r.number > ?) AND r.attempt IS NOT NULL
	ORDER BY r.done_at, r.number LIMIT ?`,
	`SELECT r.created_at AS at, 'mismatch' AS kind, r.number, r.order_id, r.provider,
		COALESCE(p.method, '') AS method, r.amount, 0 AS fee, r.currency,
		COALESCE(p.payment_reference, p.reference, '') AS reference
	FROM refunds r FORCE INDEX (refunds_reason) LEFT JOIN payments p ON p.number = r.attempt
	WHERE r.reason = 'mismatch' AND r.created_at >= ? AND r.created_at < ? AND (r.created_at > ? OR r.number > ?)
	ORDER BY r.created_at, r.number LIMIT ?`,
}

// exportPage is how many moves are read at once; a test takes fewer.
var exportPage = mysql.MaxPage

// moves are those of one query that have been read, and where it goes on.
type moves struct {
	query string
	page  []moveRow
	at    time.Time
	after []byte
	ended bool
}

// fill reads the next page when the one before is used up.
func (m *moves) fill(ctx context.Context, db *mysql.DB, until time.Time) error {
	if len(m.page) > 0 || m.ended {
		return nil
	}
	if err := db.SelectContext(ctx, &m.page, m.query, m.at, until, m.at, m.after, exportPage); err != nil {
		return err
	}
	m.ended = len(m.page) < exportPage
	if len(m.page) > 0 {
		last := m.page[len(m.page)-1]
		m.at, m.after = last.At, last.Number
	}
	return nil
}

// Export calls f with all money that came or went back from a time until another one, in the order of time. Points that
// went back are no money. It reads pages, so that memory is bounded, and no snapshot: what is booked meanwhile may be
// in it or not, so that a day is complete when it is over.
func (t *Till) Export(ctx context.Context, from, until time.Time, f func(Move) error) error {
	sources := make([]moves, len(moveQueries))
	for i, query := range moveQueries {
		sources[i] = moves{query: query, at: from.UTC(), after: []byte{}}
	}
	for {
		first := -1
		for i := range sources {
			if err := sources[i].fill(ctx, t.DB, until.UTC()); err != nil {
				return fmt.Errorf("export payments: %w", err)
			}
			if len(sources[i].page) > 0 && (first < 0 || sources[i].page[0].At.Before(sources[first].page[0].At)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		row := sources[first].page[0]
		sources[first].page = sources[first].page[1:]
		if err := f(row.move()); err != nil {
			return err
		}
	}
}

func (r *moveRow) move() Move {
	m := Move{
		At: r.At, Kind: r.Kind, Number: string(r.Number), Provider: r.Provider, Method: r.Method, Amount: r.Amount,
		Fee: r.Fee, Currency: r.Currency, Reference: string(r.Reference),
	}
	copy(m.OrderID[:], r.OrderID)
	return m
}

// DayTotal is all that moved on a day, in UTC, of one currency by one provider.
type DayTotal struct {
	// Day is as in 2026-01-31.
	Day, Currency, Provider string
	// Payments came, Refunds went back, and Fees is what the provider keeps, as far as it says so: minor units.
	Payments, Refunds, Fees int64
	// Count is of the moves.
	Count int64
}

// add adds a move of the day, currency and provider.
func (d *DayTotal) add(m Move) {
	if m.Kind == MoveRefund {
		d.Refunds += m.Amount
	} else {
		d.Payments += m.Amount
	}
	d.Fees += m.Fee
	d.Count++
}

// Totals calls f with the totals of what Export tells, by day, currency and provider.
func (t *Till) Totals(ctx context.Context, from, until time.Time, f func(DayTotal) error) error {
	var day []DayTotal // of one day, which is as many as there are currencies and providers
	flush := func() error {
		slices.SortFunc(day, compareTotals)
		for _, d := range day {
			if err := f(d); err != nil {
				return err
			}
		}
		day = day[:0]
		return nil
	}
	err := t.Export(ctx, from, until, func(m Move) error {
		this := DayTotal{Day: m.At.UTC().Format(time.DateOnly), Currency: m.Currency, Provider: m.Provider}
		if len(day) > 0 && day[0].Day != this.Day {
			if err := flush(); err != nil {
				return err
			}
		}
		i := slices.IndexFunc(day, func(d DayTotal) bool { return compareTotals(d, this) == 0 })
		if i < 0 {
			day = append(day, this)
			i = len(day) - 1
		}
		day[i].add(m)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func compareTotals(a, b DayTotal) int {
	return cmp.Or(cmp.Compare(a.Currency, b.Currency), cmp.Compare(a.Provider, b.Provider))
}
