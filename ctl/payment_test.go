package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/stock"
	"stampede/internal/till"
)

// cashDesk is a provider that has been paid what it says, and gives back what it is told, unless it refuses.
type cashDesk struct {
	payment.Provider
	paid   bool
	refuse bool
	down   bool
	made   map[string]int64
}

func (d *cashDesk) Name() string { return "desk" }

func (d *cashDesk) Offers(string, string) (payment.Offer, bool) {
	return payment.Offer{Refunds: true, Multiple: 1}, true
}

func (d *cashDesk) Start(_ context.Context, a payment.Attempt) (payment.Page, error) {
	return payment.Page{URL: "http://desk", Reference: "=ref" + a.Number}, nil
}

func (d *cashDesk) Query(_ context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	switch {
	case d.down:
		return "", payment.Notice{}, payment.ErrUnknown
	case !d.paid:
		return payment.Open, payment.Notice{}, nil
	}
	return payment.Taken, payment.Notice{Kind: payment.Paid, Attempt: a.Number, Reference: "=1+1", Amount: a.Amount,
		Currency: a.Currency, Fee: 5}, nil
}

func (d *cashDesk) Refund(_ context.Context, r payment.Refund) error {
	switch {
	case d.down:
		return payment.ErrUnknown
	case d.refuse:
		return errors.Join(payment.ErrRefused, errors.New("no\x1b[2J"))
	}
	d.made[r.Number] = r.Amount
	return nil
}

func (d *cashDesk) Refunded(_ context.Context, r payment.Refund) (bool, error) {
	_, made := d.made[r.Number]
	if d.down {
		return false, payment.ErrUnknown
	}
	return made, nil
}

// held has a user order two units that must be paid at a cash desk, and begin to.
func held(t *testing.T) (p parts, asks *till.Till, desk *cashDesk, attempt till.Payment) {
	t.Helper()
	p, product := testParts(t, 10, 0)
	product.Payment = order.PaymentRequired
	if _, err := p.db.ExecContext(t.Context(), `UPDATE products SET payment = 'required'`); err != nil {
		t.Fatal(err)
	}
	_, results, err := p.stock.Reserve(t.Context(), product.ID, 0,
		[]stock.Request{{OrderID: order.NewID(), UserID: 7, Quantity: 2}})
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := p.ledger.Decide(t.Context(), product.ID, []order.Order{results[0].Order})
	if err == nil {
		_, err = p.stock.Settle(t.Context(), product.ID, decisions)
	}
	if err == nil {
		err = p.stock.Acknowledge(t.Context(), product.ID, []string{results[0].Batch})
	}
	if err != nil {
		t.Fatal(err)
	}
	desk = &cashDesk{made: map[string]int64{}}
	asks = &till.Till{DB: p.db, Providers: []payment.Provider{desk}, Front: "http://front"}
	attempt, _, err = asks.Pay(t.Context(), 7, results[0].Order.ID, "desk", "")
	if err != nil {
		t.Fatal(err)
	}
	return p, asks, desk, attempt
}

// said is what a command prints, which must have all the words.
func said(t *testing.T, run func(*bytes.Buffer) error, words ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(&out); err != nil {
		t.Errorf("%v", err)
	}
	for _, word := range words {
		if !strings.Contains(out.String(), word) {
			t.Errorf("it does not say %q:\n%s", word, &out)
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("it writes to the terminal what somebody else has chosen: %q", &out)
	}
	return out.String()
}

// TestPaymentShow: an operator asks for a payment and sees what its provider has told, but for the words of it that
// nobody has asked for.
func TestPaymentShow(t *testing.T) {
	t.Parallel()
	p, asks, desk, attempt := held(t)
	ctx := t.Context()
	sync := func(out *bytes.Buffer) error { return syncPayment(ctx, out, asks, attempt.Number) }
	show := func(id string, raw, asJSON bool) func(*bytes.Buffer) error {
		return func(out *bytes.Buffer) error { return showPayments(ctx, out, &till.Till{DB: p.db}, id, raw, asJSON) }
	}

	said(t, sync, "still has not been paid")
	if err := syncPayment(ctx, &bytes.Buffer{}, &till.Till{DB: p.db}, attempt.Number); err == nil ||
		!strings.Contains(err.Error(), `there is no provider "desk": set its variables`) {
		t.Errorf("without the provider: %v", err)
	}
	desk.down = true
	if err := sync(&bytes.Buffer{}); !errors.Is(err, till.ErrProvider) {
		t.Errorf("a provider that is away: %v", err)
	}
	desk.down, desk.paid = false, true
	said(t, sync, "it was open, and is paid", "order "+attempt.OrderID.String()+": completed")
	said(t, sync, "which is final")

	// A provider has its words in the event, which are for those who ask for them.
	notice := payment.Notice{Kind: payment.Refunded, Attempt: attempt.Number, EventKey: "k"}
	if _, err := asks.Record(ctx, "desk", notice, till.FromNotice, []byte("buyer@example.org\x1b")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{attempt.Number, attempt.OrderID.String()} {
		text := said(t, show(id, false, false), attempt.Number+": paid", "2.00 EUR", "fee 0.05 EUR",
			"refunded  notice  k")
		if strings.Contains(text, "buyer@example.org") {
			t.Errorf("it shows a body that nobody asked for:\n%s", text)
		}
	}
	said(t, show(attempt.Number, true, false), `buyer@example.org\x1b`)
	var reports []paymentReport
	if err := json.Unmarshal([]byte(said(t, show(attempt.Number, false, true))), &reports); err != nil ||
		len(reports) != 1 || len(reports[0].Events) != 2 || reports[0].Events[1].Body != "" {
		t.Errorf("as JSON: %+v, %v", reports, err)
	}
	for _, id := range []string{"nobodys", order.NewID().String()} {
		if err := show(id, false, false)(&bytes.Buffer{}); err == nil {
			t.Errorf("%s is shown", id)
		}
	}

}

// TestRefundCommands: an operator gives an order's money back in parts, and makes by hand what the provider does not
// make; each command says how things stand, and what is not known.
func TestRefundCommands(t *testing.T) {
	t.Parallel()
	p, asks, desk, attempt := held(t)
	ctx := mysql.WithActor(t.Context(), "ctl:op")
	desk.paid = true
	if _, err := asks.Sync(ctx, attempt.Number); err != nil {
		t.Fatal(err)
	}
	refund := func(r till.RefundRequest) func(*bytes.Buffer) error {
		r.OrderID, r.Note = attempt.OrderID, "broken"
		return func(out *bytes.Buffer) error { return p.refund(ctx, out, asks, r) }
	}

	// A part at once, with the units; then one that the provider refuses, and one of which nothing is known.
	said(t, refund(till.RefundRequest{Number: "R1", Amount: 50, ReturnUnits: true}), "its 2 units are on sale again",
		"refund R1 of 0.50 EUR", ": done")
	p.mustHave(t, 1, 10)
	said(t, refund(till.RefundRequest{Number: "R1", Amount: 50, ReturnUnits: true}), "taken back before", ": done")
	desk.refuse = true
	said(t, refund(till.RefundRequest{Number: "R2", Amount: 30}), "to be made by hand", "ctl refund done R2")
	desk.refuse, desk.down = false, true
	said(t, refund(till.RefundRequest{Number: "R3", Amount: 20}), "has not said yet")
	tooMuch := refund(till.RefundRequest{Number: "R4", Amount: 500})
	if err := tooMuch(&bytes.Buffer{}); !errors.Is(err, till.ErrTooMuch) {
		t.Errorf("more than was paid: %v", err)
	}
	none := func(out *bytes.Buffer) error {
		return p.refund(ctx, out, asks, till.RefundRequest{OrderID: order.NewID(), Number: "R5", Note: "x"})
	}
	if err := none(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "there is no order") {
		t.Errorf("an order that there is not: %v", err)
	}

	list := func(out *bytes.Buffer) error { return listRefunds(ctx, out, &till.Till{DB: p.db}, false) }
	said(t, list, "R2", attempt.OrderID.String(), "0.30 EUR", "staff")
	done := func(number string) func(*bytes.Buffer) error {
		return func(out *bytes.Buffer) error { return doneByHand(ctx, out, asks, number, "transfer 1") }
	}
	if err := done("R2")(&bytes.Buffer{}); !errors.Is(err, till.ErrProvider) ||
		!strings.Contains(err.Error(), "nothing is noted") {
		t.Errorf("the provider is away, and a refund by hand is noted: %v", err)
	}
	desk.down = false
	check := func(number string) func(*bytes.Buffer) error {
		return func(out *bytes.Buffer) error { return checkRefund(ctx, out, asks, number) }
	}
	said(t, check("R2"), "the provider has not made refund R2")
	if err := check("R9")(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "there is no refund") {
		t.Errorf("a refund that there is not: %v", err)
	}
	said(t, done("R2"), "is noted as made by hand")
	if err := done("R2")(&bytes.Buffer{}); err == nil {
		t.Error("it is made by hand twice")
	}
	said(t, list, "no refund is to be made by hand")

	// Refused at first, and made after all.
	desk.refuse = true
	said(t, refund(till.RefundRequest{Number: "R6", Amount: 10}), "to be made by hand")
	desk.made["R6"] = 10
	said(t, check("R6"), "DO NOT PAY")
	said(t, done("R6"), "DO NOT PAY: desk had made refund R6 of 0.10 EUR already")
	log, err := p.db.StaffLog(t.Context(), "refund R2", time.Time{}, 10)
	if err != nil || len(log) != 1 || log[0].Actor != "ctl:op" {
		t.Errorf("the staff log has %+v, %v", log, err)
	}
}

// TestPaymentExport: each move of money is a line with decimals, and no cell is a formula.
func TestPaymentExport(t *testing.T) {
	t.Parallel()
	p, asks, desk, attempt := held(t)
	desk.paid = true
	if _, err := asks.Sync(t.Context(), attempt.Number); err != nil {
		t.Fatal(err)
	}
	r := till.RefundRequest{OrderID: attempt.OrderID, Number: "R1", Amount: 50, Note: "x"}
	if err := p.refund(t.Context(), &bytes.Buffer{}, asks, r); err != nil {
		t.Fatal(err)
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	export := func(totals bool) [][]string {
		text := said(t, func(out *bytes.Buffer) error {
			return exportPayments(t.Context(), out, &till.Till{DB: p.db}, today.AddDate(0, 0, -1),
				today.AddDate(0, 0, 2), totals)
		})
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := export(false)
	id := attempt.OrderID.String()
	want := "payment " + attempt.Number + " " + id + " desk  2.00 0.05 EUR '=1+1\nrefund R1 " + id +
		" desk  0.50 0.00 EUR '=1+1"
	var got []string
	for _, row := range rows[1:] {
		got = append(got, strings.Join(row[1:], " "))
	}
	if strings.Join(rows[0], ",") != strings.Join(exportHeader, ",") || strings.Join(got, "\n") != want {
		t.Errorf("exported:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	totals := export(true)
	if len(totals) != 2 || strings.Join(totals[1][1:], " ") != "EUR desk 2.00 0.50 0.05 2" {
		t.Errorf("totals: %q", totals)
	}

	for cell, want := range map[string]string{
		"": "", "a=b": "a=b", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx",
		"\rx": "'\rx", "1-": "1-",
	} {
		if got := disarmed(cell); got != want {
			t.Errorf("%q becomes %q, want %q", cell, got, want)
		}
	}
}
