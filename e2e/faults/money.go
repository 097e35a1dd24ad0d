package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// What can be broken of the promises about money, P9, and about units that come back, P10.
const (
	keptForNothing  = "P9 kept"   // the provider took money that has neither completed an order nor gone back
	completedUnpaid = "P9 unpaid" // an order is completed and the provider has no money of it
	refundedTwice   = "P9 twice"  // more went back than was to
	forgedTaken     = "P9 forged" // a notice was taken that the provider had not signed
	moneyOpen       = "P9 open"   // something is not at its end, or was promised to a client and is not there
	unitsAway       = "P10 units" // units came back not at all, twice, or from an order that has them
	cancelledPaid   = "P10 early" // an order was cancelled that was paid in time
)

// moneyBooks are what became of payments: by the provider's own books, and by MySQL.
type moneyBooks struct {
	Payments    []providerPayment
	Refunds     []providerRefund
	forgedTaken int

	attempts map[string]attemptRow // by number
	holds    map[string]holdRow    // by order
	refunds  map[string]refundRow  // by number
	// reminders are orders of which MySQL does not know whether Redis has their units again.
	reminders []string
}

// providerPayment is money that a provider took, and providerRefund what it, or an operator, gave back, in minor units.
type providerPayment struct {
	Provider, Number, Currency string
	Amount                     int64
	PaidAt                     time.Time `json:"paid_at"`
}

type providerRefund struct {
	Provider, Of string
	Amount       int64
}

type attemptRow struct {
	provider, order, state string
}

type holdRow struct {
	state, paidBy string
	live          int64 // attempts that may yet be paid
	price         int64 // of the whole order
	currency      string
}

type refundRow struct {
	attempt, state, reason string
	amount                 int64
}

// judgeMoney says which promises about payments are broken. All buyers' time to pay was over at a time.
func judgeMoney(purchases []*purchase, b *books, over time.Time, find func(string, int64, string, ...any)) {
	m := b.money
	back := map[[2]string]int64{} // what went back, by provider and number of the attempt
	for _, r := range m.Refunds {
		back[[2]string{r.Provider, r.Of}] += r.Amount
	}
	until := map[string]time.Time{} // when the time to pay was over, by order
	for _, p := range purchases {
		until[p.order] = p.until(over)
		m.judgePurchase(p, find)
	}
	paid := map[[2]string]bool{} // by provider and number
	for _, p := range m.Payments {
		at := [2]string{p.Provider, p.Number}
		row, known := m.attempts[p.Number]
		hold := m.holds[row.order]
		switch {
		case !known || row.provider != p.Provider || row.order == "":
			find(keptForNothing, 1, "%s took payment %s, of which nothing is known", p.Provider, p.Number)
		case paid[at]:
			find(keptForNothing, 1, "%s took payment %s twice", p.Provider, p.Number)
		case hold.paidBy == p.Number:
			m.judgeCompleting(row.order, p.Number, p.Amount, p.Currency, back[at], find)
		case back[at] < p.Amount:
			find(keptForNothing, 1, "payment %s of order %s, which is %s, has paid nothing, and %d of %d went back",
				p.Number, row.order, hold.state, back[at], p.Amount)
		case back[at] > p.Amount:
			find(refundedTwice, 1, "of payment %s of %d went back %d", p.Number, p.Amount, back[at])
		}
		end := until[row.order]
		if end.IsZero() {
			end = over
		}
		if hold.state == "cancelled" && p.PaidAt.Before(end) {
			find(cancelledPaid, 1, "order %s is cancelled, and was paid by %s %s before its time was over", row.order,
				p.Number, end.Sub(p.PaidAt).Round(time.Millisecond))
		}
		paid[at] = true
	}
	for at, amount := range back {
		if !paid[at] {
			find(refundedTwice, 1, "%s gave %d back of %s, which was not paid", at[0], amount, at[1])
		}
	}
	m.judgeHolds(b, paid, find)
	if m.forgedTaken > 0 {
		find(forgedTaken, int64(m.forgedTaken), "%d forged notices were taken", m.forgedTaken)
	}
	m.judgeEnds(find)
}

// until is up to when a payment is in time.
func (p *purchase) until(over time.Time) time.Time {
	for _, at := range []time.Time{p.ended, p.cancelled} {
		if !at.IsZero() && at.Before(over) {
			over = at
		}
	}
	return over
}

// judgePurchase compares what one buyer was told with MySQL.
func (m *moneyBooks) judgePurchase(p *purchase, find func(string, int64, string, ...any)) {
	for _, a := range p.attempts {
		if row := m.attempts[a.number]; row.order != p.order || row.provider != a.provider {
			find(moneyOpen, 1, "order %s: its buyer was told of payment %s by %s, which is %+v", p.order, a.number,
				a.provider, row)
		}
	}
	for _, r := range p.refunds {
		row, known := m.refunds[r.number]
		if r.status == http.StatusOK && (!known || row.amount != r.amount || row.reason != "staff") {
			find(moneyOpen, 1, "order %s: staff was told of refund %s of %d, which is %+v", p.order, r.number, r.amount,
				row)
		}
	}
}

// judgeCompleting judges a payment that has completed its order: it is of the price, and only what staff wanted to give
// back went back.
func (m *moneyBooks) judgeCompleting(order, number string, amount int64, currency string, back int64,
	find func(string, int64, string, ...any)) {
	var staff int64
	for _, r := range m.refunds {
		if r.attempt == number && r.reason == "staff" {
			staff += r.amount
		}
	}
	hold := m.holds[order]
	if hold.price != amount || hold.currency != currency {
		find(completedUnpaid, 1, "order %s costs %d %s and was completed by a payment of %d %s", order, hold.price,
			hold.currency, amount, currency)
	}
	switch {
	case back > staff || staff > amount:
		find(refundedTwice, 1, "payment %s of %d has completed order %s; staff gives %d back, and %d went back", number,
			amount, order, staff, back)
	case back < staff:
		find(keptForNothing, 1, "of payment %s staff gives %d back, and %d went back", number, staff, back)
	}
	if (hold.state == "refunded") != (back == amount) {
		find(moneyOpen, 1, "order %s is %s, and %d of %d went back", order, hold.state, back, amount)
	}
}

// judgeHolds holds each order that must be paid to the provider's payments, and to the units in the ledger.
func (m *moneyBooks) judgeHolds(b *books, paid map[[2]string]bool, find func(string, int64, string, ...any)) {
	returns := map[string]int64{} // units by order
	for _, row := range b.ledger {
		if row.reason == "return" {
			returns[row.ref] += row.delta
		}
	}
	for id, rows := range b.orders {
		row, hold := rows[0], m.holds[id]
		switch by := m.attempts[hold.paidBy]; row.status {
		case "completed", "refunded":
			if by.order != id || !paid[[2]string{by.provider, hold.paidBy}] {
				find(completedUnpaid, 1, "order %s is %s, and no provider has taken its money (%q)", id, row.status,
					hold.paidBy)
			}
		}
		want := int64(0)
		if row.status == "cancelled" || row.returned {
			want = row.quantity
		}
		if returns[id] != want {
			find(unitsAway, abs(returns[id]-want), "order %s is %s, and %d of its %d units came back", id, row.status,
				returns[id], row.quantity)
		}
		delete(returns, id)
	}
	for id, units := range returns {
		find(unitsAway, abs(units), "%d units came back of order %s, which does not exist", units, id)
	}
	for _, id := range m.reminders {
		find(unitsAway, 1, "the units of order %s may not be on sale again", id)
	}
}

// judgeEnds: nothing may go on for ever.
func (m *moneyBooks) judgeEnds(find func(string, int64, string, ...any)) {
	for number, row := range m.attempts {
		if row.state != "paid" && row.state != "closed" {
			find(moneyOpen, 1, "payment %s is still %s", number, row.state)
		}
	}
	for id, hold := range m.holds {
		if !slices.Contains(ends, hold.state) || hold.live != 0 {
			find(moneyOpen, 1, "order %s is still %s, with %d payments that may be made", id, hold.state, hold.live)
		}
	}
	for number, row := range m.refunds {
		if row.state != "done" {
			find(moneyOpen, 1, "refund %s is still %s", number, row.state)
		}
	}
}

// readMoney reads what the provider and MySQL have of payments.
func (p places) readMoney(ctx context.Context) (*moneyBooks, error) {
	m := &moneyBooks{attempts: map[string]attemptRow{}, holds: map[string]holdRow{}, refunds: map[string]refundRow{}}
	var state struct {
		Notices struct {
			ForgedTaken int `json:"forged_taken"`
		}
	}
	for path, into := range map[string]any{"books": m, "state": &state} {
		if err := getJSON(ctx, p.provider+"/admin/"+path, into); err != nil {
			return nil, err
		}
	}
	m.forgedTaken = state.Notices.ForgedTaken

	for _, table := range []struct {
		query string
		add   func(*sql.Rows) error
	}{
		{`SELECT number, provider, COALESCE(order_id, ''), state FROM payments`, func(rows *sql.Rows) error {
			var number string
			var order []byte
			var row attemptRow
			err := rows.Scan(&number, &row.provider, &order, &row.state)
			row.order = asUUID(order)
			m.attempts[number] = row
			return err
		}},
		{`SELECT h.order_id, h.state, COALESCE(h.paid_by, ''), h.attempts, COALESCE(o.unit_price * o.quantity, 0),
			COALESCE(o.currency, '') FROM holds h LEFT JOIN orders o ON o.id = h.order_id`, func(rows *sql.Rows) error {
			var order []byte
			var row holdRow
			err := rows.Scan(&order, &row.state, &row.paidBy, &row.live, &row.price, &row.currency)
			m.holds[asUUID(order)] = row
			return err
		}},
		{`SELECT number, COALESCE(attempt, ''), state, reason, amount FROM refunds`, func(rows *sql.Rows) error {
			var number string
			var row refundRow
			err := rows.Scan(&number, &row.attempt, &row.state, &row.reason, &row.amount)
			m.refunds[number] = row
			return err
		}},
		{`SELECT order_id FROM returned_units`, func(rows *sql.Rows) error {
			var order []byte
			err := rows.Scan(&order)
			m.reminders = append(m.reminders, asUUID(order))
			return err
		}},
	} {
		if err := scan(ctx, p.db, table.query, table.add); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// scan calls add for each row of a query.
func scan(ctx context.Context, db *sql.DB, query string, add func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := add(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func getJSON(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
