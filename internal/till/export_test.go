package till

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/payment"
)

// exported are the moves of days, and their totals, in short.
func (r *rig) exported(t *testing.T, from, until string) (moves, totals []string) {
	t.Helper()
	day := func(text string) time.Time {
		at, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	err := r.Export(t.Context(), day(from), day(until), func(m Move) error {
		moves = append(moves, fmt.Sprintf("%s %s %s %s %d-%d %s", m.At.Format(time.DateOnly), m.Kind, m.Number,
			m.Provider, m.Amount, m.Fee, m.Currency))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Totals(t.Context(), day(from), day(until), func(d DayTotal) error {
		totals = append(totals, fmt.Sprintf("%s %s %s %d %d %d %d", d.Day, d.Currency, d.Provider, d.Payments,
			d.Refunds, d.Fees, d.Count))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return moves, totals
}

// set changes a column of a payment or a refund.
func (r *rig) set(t *testing.T, table, column, number, text string) {
	t.Helper()
	r.exec(t, `UPDATE `+table+` SET `+column+` = ? WHERE number = ?`, text, []byte(number))
}

// paidOnDays has three orders and points paid on two days, and too little for a fourth order.
func (r *rig) paidOnDays(t *testing.T, one, two *bank) (numbers []string, points string) {
	t.Helper()
	for i, by := range []*bank{one, two, one, one} {
		p := r.mustPay(t, 1, r.order(t, 1, int64(i+1)), by)
		by.pay(r.attempt(&p))
		if i == 3 { // too little is paid
			n := by.notice(p.Number)
			n.Amount = 7
			if got, err := r.Record(t.Context(), "one", n, FromNotice, nil); err != nil || got != OutcomeMismatch {
				t.Fatal(got, err)
			}
		} else {
			r.mustRecord(t, by, p.Number, OutcomeCompleted)
			// The first two at the same moment, and at the ends of a day.
			r.set(t, "payments", "paid_at", p.Number, []string{
				"2026-03-01 23:59:59.999999", "2026-03-01 23:59:59.999999", "2026-03-02 00:00:00",
			}[i])
		}
		numbers = append(numbers, p.Number)
	}
	r.exec(t, `INSERT INTO users (id, email, email_key, name, password_hash, role, created_at)
		VALUES (1, 'a@b', 'a@b', 'a', 'x', 'buyer', NOW(6))`)
	topUp, _, err := r.BuyPoints(t.Context(), 1, 50, 100, "EUR", "two", "")
	if err != nil {
		t.Fatal(err)
	}
	two.pay(r.attempt(&topUp))
	r.mustRecord(t, two, topUp.Number, OutcomeCompleted)
	r.set(t, "payments", "paid_at", topUp.Number, "2026-03-02 12:00:00")
	return numbers, topUp.Number
}

// TestExport: all money that came or went back is told once, in the order of time, whatever the pages, and totals are
// those of the days.
func TestExport(t *testing.T) {
	one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
	r := newRig(t, one, two)
	numbers, topUp := r.paidOnDays(t, one, two)
	first, err := r.Payment(t.Context(), numbers[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx := mysql.WithActor(t.Context(), "user:9")
	if _, _, err := r.RefundOrder(ctx, RefundRequest{OrderID: first.OrderID, Number: "R1", Amount: 300,
		Note: "broken"}); err != nil {
		t.Fatal(err)
	}
	moves, _ := r.exported(t, "2026-03-01", "2026-03-04")
	if slices.ContainsFunc(moves, func(m string) bool { return m[11:17] == "refund" }) {
		t.Errorf("a refund that is not made is told: %q", moves)
	}
	if err := r.MakeRefund(t.Context(), "R1"); err != nil {
		t.Fatal(err)
	}
	r.set(t, "refunds", "done_at", "R1", "2026-03-03 08:00:00")
	byHand, err := r.RefundsByHand(t.Context())
	if err != nil || len(byHand) != 1 {
		t.Fatal(byHand, err)
	}
	r.set(t, "refunds", "created_at", byHand[0].Number, "2026-03-03 07:00:00")

	want := []string{
		"2026-03-01 payment " + numbers[0] + " one 1000-3 EUR", "2026-03-01 payment " + numbers[1] + " two 2000-3 EUR",
		"2026-03-02 payment " + numbers[2] + " one 3000-3 EUR", "2026-03-02 topup " + topUp + " two 100-3 EUR",
		"2026-03-03 mismatch " + byHand[0].Number + " one 7-0 EUR", "2026-03-03 refund R1 one 300-0 EUR",
	}
	wantTotals := []string{
		"2026-03-01 EUR one 1000 0 3 1", "2026-03-01 EUR two 2000 0 3 1", "2026-03-02 EUR one 3000 0 3 1",
		"2026-03-02 EUR two 100 0 3 1", "2026-03-03 EUR one 7 300 0 2",
	}
	defer func(n int) { exportPage = n }(exportPage)
	for _, exportPage = range []int{1, 2, 3, 1000} {
		moves, totals := r.exported(t, "2026-03-01", "2026-03-04")
		if !slices.Equal(moves, want) || !slices.Equal(totals, wantTotals) {
			t.Errorf("in pages of %d:\n%q\n%q", exportPage, moves, totals)
		}
	}
	if moves, _ := r.exported(t, "2026-03-02", "2026-03-03"); !slices.Equal(moves, want[2:4]) {
		t.Errorf("of one day: %q", moves)
	}
}

// TestLook: what a provider has told of an attempt, and the refunds that wait for an operator, however many.
func TestLook(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{}) // which gives nothing back
	r := newRig(t, by)
	id := r.order(t, 1, 1)
	p := r.mustPay(t, 1, id, by)
	n := payment.Notice{Kind: payment.Issued, Attempt: p.Number, EventKey: "k1"}
	if _, err := r.Record(t.Context(), "bank", n, FromNotice, []byte("issued")); err != nil {
		t.Fatal(err)
	}
	by.pay(r.attempt(&p))
	r.mustRecord(t, by, p.Number, OutcomeCompleted)
	events, err := r.Events(t.Context(), "bank", p.Number)
	if err != nil || len(events) != 2 || events[0].Kind != "issued" || events[0].Key != "k1" ||
		string(events[0].Body) != "issued" || events[1].Kind != "paid" || events[1].Source != FromNotice ||
		events[1].ReceivedAt.IsZero() {
		t.Errorf("events %+v, %v", events, err)
	}
	if others, err := r.Events(t.Context(), "other", p.Number); err != nil || len(others) != 0 {
		t.Errorf("of another provider: %+v, %v", others, err)
	}

	ctx := mysql.WithActor(t.Context(), "user:9")
	if _, _, err := r.RefundOrder(ctx, RefundRequest{OrderID: id, Number: "R1", Amount: 10, Note: "x"}); err != nil {
		t.Fatal(err)
	}
	if refunds, err := r.RefundsOfAttempt(t.Context(), p.Number); err != nil || len(refunds) != 1 ||
		refunds[0].State != RefundManual {
		t.Errorf("refunds %+v, %v", refunds, err)
	}
	// Many of one moment: more than a page.
	const doublings = 11 // from 1 to more than mysql.MaxPage
	for i := range doublings {
		r.exec(t, `INSERT INTO refunds (number, attempt, provider, order_id, amount, currency, state, reason, note,
				actor, done_by, created_at, done_at, next_at, tries)
			SELECT CONCAT(number, ?), attempt, provider, order_id, 1, currency, state, reason, note, actor,
				done_by, created_at, NULL, NULL, 0 FROM refunds`, string(rune('a'+i)))
	}
	if n, err := r.CountByHand(t.Context()); err != nil || n != 1<<doublings {
		t.Errorf("%d refunds are counted, %v", n, err)
	}
	seen := map[string]bool{}
	refunds, err := r.RefundsByHand(t.Context())
	for _, refund := range refunds {
		if seen[refund.Number] {
			t.Errorf("%s is told twice", refund.Number)
		}
		seen[refund.Number] = true
	}
	if err != nil || len(seen) != 1<<doublings {
		t.Errorf("%d refunds, %v", len(seen), err)
	}
}
