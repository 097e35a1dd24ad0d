package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"stampede/internal/audit"
	"stampede/internal/ledger"
	"stampede/internal/queue"
	"stampede/internal/till"
	"stampede/localstack/stacktest"
)

// damages are what somebody may change by hand of payments, and what an audit says then.
var damages = []struct{ what, do, undo, want string }{
	{"money from nowhere", `UPDATE payments SET amount = amount + 1`, `UPDATE payments SET amount = amount - 1`,
		"without a payment of its price"},
	{"a payment that nobody told of", `UPDATE payment_events SET event_key = 'x'`,
		`UPDATE payment_events SET event_key = ''`, "no event says so"},
	{"points from nowhere", `INSERT INTO wallets VALUES (9, 5, 5, 0, 1)`, `DELETE FROM wallets`, "wallet of user 9"},
	{"a hold that is forgotten", `UPDATE holds SET state = 'awaiting_payment'`,
		`UPDATE holds SET state = 'completed'`, "orders whose state is unknown, or does not fit"},
	{"units that Redis does not have", `INSERT INTO returned_units
		SELECT product_id, order_id, user_id, quantity, version, returned_version FROM holds`,
		`DELETE FROM returned_units`, "the units of 1 orders are being put on sale again"},
}

// TestAuditOfPayments: an audit follows an order that must be paid from its units to its refund, says what it has
// compared of each promise, and finds what somebody has changed by hand. It is not parallel, as it changes the
// environment.
func TestAuditOfPayments(t *testing.T) {
	for _, variable := range stacktest.Queues(t).Env() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	p, asks, desk, attempt := held(t)
	var err error
	if p.queue, err = queue.Open(t.Context(), os.Getenv("ORDERS_QUEUE"), os.Getenv("ORDERS_DLQ")); err != nil {
		t.Fatal(err)
	}

	// A line of a table is compared without its blanks.
	audited := func(step string, words ...string) {
		t.Helper()
		report, err := p.sale().Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		books, err := audit.Books(t.Context(), p.db, ledger.AuditOptions{All: true})
		if err != nil {
			t.Fatal(err)
		}
		var out, ofBooks bytes.Buffer
		report.Print(&out)
		books.PrintBooks(&ofBooks)
		text := regexp.MustCompile(` +`).ReplaceAllString(out.String(), " ")
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: the audit does not say %q:\n%s", step, word, &out)
			}
		}
		if broken := strings.Contains(text, "FAILED"); broken != strings.Contains(ofBooks.String(), "FAILED") &&
			!strings.Contains(text, "put on sale again") {
			t.Errorf("%s: the books alone say otherwise:\n%s\n%s", step, &out, &ofBooks)
		}
	}
	p.mustTell(t, attempt.OrderID, "awaiting payment", "It is decided: awaiting_payment. It is to be paid by",
		"its units are held until it is paid", "began payment "+attempt.Number+" of 2.00 EUR by desk")
	audited("awaiting payment", "audit: ok", "completed held returned", " 1 10 0 2 1 0 8 8 ", "P9 0 payments of 0",
		"P10 1 order to be paid: 0 cancelled")

	desk.paid = true
	if _, err := asks.Sync(t.Context(), attempt.Number); err != nil {
		t.Fatal(err)
	}
	audited("paid", "audit: ok", " EUR 2.00 2.00 0.00 0.00 0.00 0.00\n\naudit", "P9 1 payment of 1 currency: taken")
	r := till.RefundRequest{OrderID: attempt.OrderID, Number: "R1", Amount: 50, ReturnUnits: true, Note: "x"}
	if err := p.refund(t.Context(), &bytes.Buffer{}, asks, r); err != nil {
		t.Fatal(err)
	}
	s := p.mustTell(t, attempt.OrderID, "refunded", "It is decided: completed. It was paid by "+attempt.Number+". Its "+
		"units were taken back.\n", "told of payment "+attempt.Number+", by query: paid", "by +2 to 10",
		"noted refund R1 of 0.50 EUR", "refund R1 is done", attempt.Number+" by desk: paid")
	if s.Hold == nil || len(s.Payments) != 1 || len(s.Refunds) != 1 || len(s.Ledger) != 2 {
		t.Errorf("the story is %+v", s)
	}
	audited("refunded", "audit: ok", " EUR 2.00 2.00 0.50 0.00 0.00 0.50\n", " 1 10 0 2 1 2 10 10 ",
		"the ledger has taken back 2 units")

	for _, damage := range damages {
		if _, err := p.db.ExecContext(t.Context(), damage.do); err != nil {
			t.Fatal(err)
		}
		audited(damage.what, "audit: FAILED", damage.want)
		if _, err := p.db.ExecContext(t.Context(), damage.undo); err != nil {
			t.Fatal(err)
		}
	}
	audited("mended", "audit: ok")
}

// TestAuditWithoutPayments: a shop without payments has the tables that it had.
func TestAuditWithoutPayments(t *testing.T) {
	t.Parallel()
	p, product := testParts(t, 10, 0)
	p.buy(t, product, 7)
	report, err := audit.Books(t.Context(), p.db, ledger.AuditOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	report.PrintBooks(&out)
	want := "  product  initial  restocked  completed  mysql stock  orders  failed\n" +
		"        1       10          0          1            9       1       0\n\naudit: ok\n\ncompared:\n"
	if text := out.String(); !strings.HasPrefix(text, want) || !strings.Contains(text, "P12  0 wallets") {
		t.Errorf("it prints:\n%s\nwant:\n%s", text, want)
	}
}
