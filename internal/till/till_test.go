package till

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/wallet"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

// rig is a till with a product whose orders must be paid.
type rig struct {
	*Till
	ledger  *ledger.Ledger
	product order.Product
}

func newRig(t testing.TB, providers ...payment.Provider) *rig {
	t.Helper()
	db, err := mysql.Open(stacktest.AnyDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{Till: &Till{DB: db, Providers: providers, Front: "http://front"}, ledger: ledger.New(db)}
	r.product = r.addProduct(t, 100)
	return r
}

func (r *rig) addProduct(t testing.TB, stock int64) order.Product {
	t.Helper()
	p, err := r.ledger.AddProduct(t.Context(), order.Product{
		Name: "thing", Price: 1999, Currency: "EUR", Stock: stock, Payment: order.PaymentRequired,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// order has a user order units, for 1000 each.
func (r *rig) order(t testing.TB, user order.UserID, units int64) order.OrderID {
	t.Helper()
	o := order.Order{
		ID: order.NewID(), UserID: user, StockID: r.product.ID, Quantity: units, UnitPrice: 1000,
		ReservedAt: time.Now(),
	}
	if _, err := r.ledger.Decide(t.Context(), r.product.ID, []order.Order{o}); err != nil {
		t.Fatal(err)
	}
	return o.ID
}

func (r *rig) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := r.DB.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// overdue has the time to pay of an order pass, and that of its attempts.
func (r *rig) overdue(t testing.TB, id order.OrderID) {
	t.Helper()
	past := mysql.Now().Add(-time.Second)
	r.exec(t, `UPDATE holds SET pay_by = ?, due_at = CASE state WHEN 'awaiting_payment' THEN pay_by ELSE due_at END
		WHERE order_id = ?`, past, mysql.UUID(id))
	r.exec(t, `UPDATE payments SET expires_at = ? WHERE order_id = ?`, past, mysql.UUID(id))
}

// expire does what a worker does with orders that are due.
func (r *rig) expire(t testing.TB) {
	t.Helper()
	due, err := r.ledger.Due(t.Context())
	for stockID, ids := range due {
		_, expireErr := r.ledger.Expire(t.Context(), stockID, ids)
		err = errors.Join(err, expireErr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sweepAll has everything that is to be asked asked now, once.
func (r *rig) sweepAll(t testing.TB) {
	t.Helper()
	past := mysql.NullMillis(mysql.Now().Add(-time.Millisecond))
	r.exec(t, `UPDATE payments SET next_at = ? WHERE next_at IS NOT NULL`, past)
	r.exec(t, `UPDATE refunds SET next_at = ? WHERE next_at IS NOT NULL`, past)
	for _, by := range r.Providers {
		numbers, err := r.Till.Due(t.Context(), by.Name(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, number := range numbers {
			if err := r.Sweep(t.Context(), number); err != nil {
				t.Fatal(err)
			}
		}
		refunds, err := r.DueRefunds(t.Context(), by.Name(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, number := range refunds {
			if err := r.MakeRefund(t.Context(), number); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (r *rig) mustPay(t testing.TB, user order.UserID, id order.OrderID, by *bank) Payment {
	t.Helper()
	p, page, err := r.Pay(t.Context(), user, id, by.name, "")
	if err != nil || page.URL == "" {
		t.Fatalf("Pay: %+v, %v", page, err)
	}
	return p
}

func (r *rig) mustRecord(t testing.TB, by *bank, number string, want Outcome) {
	t.Helper()
	got, err := r.Record(t.Context(), by.name, by.notice(number), FromNotice, []byte("body"))
	if err != nil || got != want {
		t.Errorf("recorded as %s, %v, want %s", got, err, want)
	}
}

func (r *rig) mustBe(t testing.TB, id order.OrderID, want order.Status) {
	t.Helper()
	if record, err := r.ledger.Order(t.Context(), id); err != nil || record.Status != want {
		t.Errorf("order %s is %s (%v), want %s", id, record.Status, err, want)
	}
}

// mustAddUp audits payments, wallets and the ledger, and returns the money of EUR.
func (r *rig) mustAddUp(t testing.TB) Money {
	t.Helper()
	audit, err := r.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range audit.Problems {
		t.Error(problem)
	}
	if problems, err := wallet.New(r.DB).Audit(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("wallets: %+v, %v", problems, err)
	}
	books, err := r.ledger.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range books {
		for _, problem := range b.Problems {
			t.Errorf("product %d: %s", b.ID, problem)
		}
	}
	for _, m := range audit.Money {
		if m.Currency == "EUR" {
			return m
		}
	}
	return Money{}
}

func (r *rig) mustRefunds(t testing.TB, id order.OrderID, want ...RefundState) []RefundRecord {
	t.Helper()
	refunds, err := r.RefundsOf(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var states []RefundState
	for _, refund := range refunds {
		states = append(states, refund.State)
	}
	if !slices.Equal(states, want) {
		t.Errorf("refunds of order %s: %+v, want %v", id, refunds, want)
	}
	return refunds
}

func TestPaidInTime(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	id := r.order(t, 1, 3)
	p := r.mustPay(t, 1, id, by)
	if p.Amount != 3000 || p.Currency != "EUR" || p.State != Open || len(p.Number) != 20 || p.Item != "thing" {
		t.Errorf("attempt %+v", p)
	}
	if hold, err := r.ledger.Hold(t.Context(), id); err != nil || !p.ExpiresAt.Equal(hold.PayBy) || hold.Attempts != 1 {
		t.Errorf("the attempt expires at %s, and the order waits as %+v, %v", p.ExpiresAt, hold, err)
	}
	if again := r.mustPay(t, 1, id, by); again.Number != p.Number {
		t.Errorf("a second request makes another attempt, %s and not %s", again.Number, p.Number)
	}

	// Number issued, approved and failed change nothing.
	for _, kind := range []payment.Kind{payment.Issued, payment.Failed, payment.Closed, payment.Other} {
		n := payment.Notice{Kind: kind, Attempt: p.Number, EventKey: "1"}
		if got, err := r.Record(t.Context(), "bank", n, FromNotice, nil); err != nil || got != OutcomeNoted {
			t.Errorf("%s: %s, %v", kind, got, err)
		}
		if got, err := r.Record(t.Context(), "bank", n, FromNotice, nil); err != nil || got != OutcomeRepeated {
			t.Errorf("%s again: %s, %v", kind, got, err)
		}
	}
	r.mustBe(t, id, order.AwaitingPayment)

	by.pay(r.attempt(&p))
	r.mustRecord(t, by, p.Number, OutcomeCompleted)
	r.mustRecord(t, by, p.Number, OutcomeRepeated)
	r.mustBe(t, id, order.Completed)
	if err := r.markOpen(t.Context(), p.Number, ""); err != nil { // the answer to its creation comes late
		t.Fatal(err)
	}
	if _, _, err := r.Pay(t.Context(), 1, id, "bank", ""); !errors.Is(err, ledger.ErrNotPayable) {
		t.Errorf("a paid order can be paid again: %v", err)
	}
	got, err := r.Payment(t.Context(), p.Number)
	if err != nil || got.State != Paid || got.Fee != 3 || got.PaymentReference != "paid"+p.Number ||
		got.PaidAt.IsZero() {
		t.Errorf("payment %+v, %v", got, err)
	}
	r.overdue(t, id)
	r.expire(t)
	r.mustBe(t, id, order.Completed)
	if money := r.mustAddUp(t); money != (Money{Currency: "EUR", Taken: 3000, Completed: 3000}) {
		t.Errorf("money %+v", money)
	}
}

// TestForgottenNotice: a provider never tells. The order is completed when it is asked, in time or when it is closed,
// whether it may yet be paid by another attempt or not.
func TestForgottenNotice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ late, second bool }{{}, {late: true}, {late: true, second: true}} {
		by, other := newBank("bank", payment.Offer{Refunds: true}), newBank("other", payment.Offer{Refunds: true})
		r := newRig(t, by, other)
		id := r.order(t, 1, 1)
		p := r.mustPay(t, 1, id, by)
		if test.second {
			r.mustPay(t, 1, id, other)
		}
		by.pay(r.attempt(&p))
		if test.late {
			r.overdue(t, id)
			r.expire(t)
			r.mustBe(t, id, order.Closing)
		}
		r.sweepAll(t)
		r.mustBe(t, id, order.Completed)
		r.mustRecord(t, by, p.Number, OutcomeRepeated)
		r.mustAddUp(t)
	}
}

// TestUnpaid: the provider is told to close, and only then the units come back.
func TestUnpaid(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	id := r.order(t, 1, 1)
	p := r.mustPay(t, 1, id, by)
	r.overdue(t, id)
	r.expire(t)
	r.mustBe(t, id, order.Closing)
	by.lose = func(string) (before, after bool) { return true, false }
	r.sweepAll(t)
	r.expire(t)
	r.mustBe(t, id, order.Closing) // the provider does not answer
	by.lose = func(string) (before, after bool) { return false, false }
	r.sweepAll(t)
	if by.pay(r.attempt(&p)) {
		t.Error("it can be paid after it was closed")
	}
	r.expire(t)
	r.mustBe(t, id, order.Cancelled)
	if got, err := r.Payment(t.Context(), p.Number); err != nil || got.State != Closed {
		t.Errorf("payment %+v, %v", got, err)
	}
	r.mustAddUp(t)
}

// TestUnknownToTheProvider: the call that should have created an attempt is lost, and may yet arrive. It is created
// once more, and then closed, so that it cannot be paid when it does.
func TestUnknownToTheProvider(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	id := r.order(t, 1, 1)
	by.lose = func(string) (before, after bool) { return true, false }
	if _, _, err := r.Pay(t.Context(), 1, id, "bank", ""); !errors.Is(err, ErrProvider) {
		t.Fatalf("Pay: %v", err)
	}
	by.lose = func(string) (before, after bool) { return false, false }
	attempts, err := r.OfOrder(t.Context(), id)
	if err != nil || len(attempts) != 1 || attempts[0].State != Created {
		t.Fatalf("attempts %+v, %v", attempts, err)
	}
	r.overdue(t, id)
	r.expire(t)
	r.sweepAll(t)
	r.expire(t)
	r.mustBe(t, id, order.Cancelled)
	late := r.attempt(&attempts[0])
	if _, err := by.Start(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if by.pay(late) {
		t.Error("the late call made an attempt that can be paid")
	}
	r.mustAddUp(t)
}

// TestSecondPayment: of two attempts the second one is paid as well, and its money goes back.
func TestSecondPayment(t *testing.T) {
	t.Parallel()
	one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
	r := newRig(t, one, two)
	id := r.order(t, 1, 1)
	first, second := r.mustPay(t, 1, id, one), r.mustPay(t, 1, id, two)
	one.pay(r.attempt(&first))
	two.pay(r.attempt(&second))
	r.mustRecord(t, one, first.Number, OutcomeCompleted)
	r.mustRecord(t, two, second.Number, OutcomeRefund)
	r.mustRefunds(t, id, RefundDue)
	two.lose = func(call string) (before, after bool) { return false, call == "refund" }
	r.sweepAll(t)
	r.mustRefunds(t, id, RefundDue)
	two.lose = func(string) (before, after bool) { return false, false }
	r.sweepAll(t)
	r.mustRefunds(t, id, RefundDone)
	if amount, back := two.taken(second.Number); amount != 1000 || back != 1000 {
		t.Errorf("the bank took %d and gave back %d", amount, back)
	}
	if money := r.mustAddUp(t); money != (Money{Currency: "EUR", Taken: 2000, Completed: 1000, Refunded: 1000}) {
		t.Errorf("money %+v", money)
	}
}

// TestOpenSecondAttempt: the other attempt of an order that is completed is closed, and cannot be paid then.
func TestOpenSecondAttempt(t *testing.T) {
	t.Parallel()
	one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
	r := newRig(t, one, two)
	id := r.order(t, 1, 1)
	first, second := r.mustPay(t, 1, id, one), r.mustPay(t, 1, id, two)
	one.pay(r.attempt(&first))
	r.mustRecord(t, one, first.Number, OutcomeCompleted)
	numbers, err := r.Till.Due(t.Context(), "two", 10)
	if err != nil || !slices.Equal(numbers, []string{second.Number}) {
		t.Fatalf("due are %v, %v", numbers, err)
	}
	if err := r.Sweep(t.Context(), second.Number); err != nil {
		t.Fatal(err)
	}
	if two.pay(r.attempt(&second)) {
		t.Error("the second attempt can be paid")
	}
	r.mustAddUp(t)
}

// TestLateMoney: a provider without a way to close takes money after the order was cancelled. It goes back, by hand
// where the provider gives nothing back, and the order stays cancelled.
func TestLateMoney(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Lapse: time.Nanosecond})
	by.browser = true
	r := newRig(t, by)
	id := r.order(t, 1, 1)
	p := r.mustPay(t, 1, id, by)
	r.overdue(t, id)
	r.expire(t)
	r.sweepAll(t)
	r.expire(t)
	r.mustBe(t, id, order.Cancelled)

	by.attempts[p.Number].state = payment.Taken
	r.mustRecord(t, by, p.Number, OutcomeRefund)
	r.mustRecord(t, by, p.Number, OutcomeRepeated)
	r.mustBe(t, id, order.Cancelled)
	r.mustRefunds(t, id, RefundManual)
	if list, err := r.RefundsByHand(t.Context()); err != nil || len(list) != 1 || list[0].Reason != ReasonLate {
		t.Errorf("by hand: %+v, %v", list, err)
	}
	if money := r.mustAddUp(t); money != (Money{Currency: "EUR", Taken: 1000, ByHand: 1000}) {
		t.Errorf("money %+v", money)
	}
	ctx := mysql.WithActor(t.Context(), "ctl:me")
	if byHand, err := r.DoneByHand(ctx, p.Number, "bank transfer 7"); err != nil || !byHand {
		t.Errorf("by hand %v, %v", byHand, err)
	}
	refund := r.mustRefunds(t, id, RefundDone)[0]
	if refund.DoneBy != "ctl:me" || refund.Note != "bank transfer 7" || refund.DoneAt.IsZero() {
		t.Errorf("refund %+v", refund)
	}
	if _, err := r.DoneByHand(ctx, p.Number, "again"); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("done twice: %v", err)
	}
	r.mustAddUp(t)
}

// TestRefusedRefund: what a provider refuses goes to the operator's list; if it has paid all the same, the operator
// need not.
func TestRefusedRefund(t *testing.T) {
	t.Parallel()
	one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
	r := newRig(t, one, two)
	id := r.order(t, 1, 1)
	first, second := r.mustPay(t, 1, id, one), r.mustPay(t, 1, id, two)
	one.pay(r.attempt(&first))
	two.pay(r.attempt(&second))
	r.mustRecord(t, one, first.Number, OutcomeCompleted)
	r.mustRecord(t, two, second.Number, OutcomeRefund)
	two.lose = func(call string) (before, after bool) { return false, call == "refund" }
	r.sweepAll(t)
	two.refuse = func() bool { return true }
	r.sweepAll(t)
	r.mustRefunds(t, id, RefundManual)
	if byHand, err := r.DoneByHand(t.Context(), second.Number, "paid"); err != nil || byHand {
		t.Errorf("by hand %v, %v, though the provider had made it", byHand, err)
	}
	r.mustRefunds(t, id, RefundDone)
	r.mustAddUp(t)
}

// TestMismatch: another amount or currency completes nothing, and an operator sees to it.
func TestMismatch(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*payment.Notice){
		"less":     func(n *payment.Notice) { n.Amount-- },
		"more":     func(n *payment.Notice) { n.Amount++ },
		"currency": func(n *payment.Notice) { n.Currency = "USD" },
	} {
		by := newBank("bank", payment.Offer{Refunds: true})
		r := newRig(t, by)
		id := r.order(t, 1, 1)
		p := r.mustPay(t, 1, id, by)
		by.pay(r.attempt(&p))
		n := by.notice(p.Number)
		spoil(&n)
		for _, want := range []Outcome{OutcomeMismatch, OutcomeRepeated} {
			if got, err := r.Record(t.Context(), "bank", n, FromNotice, nil); err != nil || got != want {
				t.Errorf("%s: %s, %v, want %s", name, got, err, want)
			}
		}
		r.mustBe(t, id, order.AwaitingPayment)
		if refund := r.mustRefunds(t, id, RefundManual)[0]; refund.Amount != n.Amount || refund.Currency != n.Currency {
			t.Errorf("%s: refund %+v", name, refund)
		}
		r.mustAddUp(t)
		// Its order is not held up by it.
		r.overdue(t, id)
		r.expire(t)
		r.mustBe(t, id, order.Cancelled)
		r.mustAddUp(t)
	}
}

// TestStrangers: what is about no attempt of ours, or of another provider, changes nothing, and neither does a payment
// without money.
func TestStrangers(t *testing.T) {
	t.Parallel()
	one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
	r := newRig(t, one, two)
	id := r.order(t, 1, 1)
	p := r.mustPay(t, 1, id, one)
	one.pay(r.attempt(&p))
	n := one.notice(p.Number)
	if got, err := r.Record(t.Context(), "two", n, FromNotice, nil); err != nil || got != OutcomeUnknown {
		t.Errorf("of another provider: %s, %v", got, err)
	}
	n.Simulated = true
	if got, err := r.Record(t.Context(), "one", n, FromNotice, nil); err != nil || got != OutcomeSimulated {
		t.Errorf("simulated: %s, %v", got, err)
	}
	n.Attempt = "NOBODYS"
	if got, err := r.Record(t.Context(), "one", n, FromNotice, nil); err != nil || got != OutcomeUnknown {
		t.Errorf("nobody's: %s, %v", got, err)
	}
	r.mustBe(t, id, order.AwaitingPayment)
	n.Attempt = p.Number
	r.TestMode = true
	if got, err := r.Record(t.Context(), "one", n, FromNotice, nil); err != nil || got != OutcomeCompleted {
		t.Errorf("simulated in test mode: %s, %v", got, err)
	}
	r.mustBe(t, id, order.Completed)
	r.mustAddUp(t)
}

// TestCapture: money that a buyer has approved is taken by us, in time only, and found out after an answer was lost.
func TestCapture(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true, Captures: true})
	r := newRig(t, by)
	id, late := r.order(t, 1, 1), r.order(t, 1, 1)
	p := r.mustPay(t, 1, id, by)
	if got, err := r.Sync(t.Context(), p.Number); err != nil || got.State != Open || !got.CapturedAt.IsZero() {
		t.Errorf("before it is approved: %+v, %v", got, err)
	}
	by.pay(r.attempt(&p))
	if got, err := r.Sync(t.Context(), p.Number); err != nil || got.State != Paid {
		t.Errorf("when it is approved: %+v, %v", got, err)
	}
	r.mustBe(t, id, order.Completed)

	// The answer is lost, or the request is on its way: whoever closes the attempt must find out.
	for _, lost := range []struct{ before, after bool }{{false, true}, {true, false}} {
		id := r.order(t, 1, 1)
		p = r.mustPay(t, 1, id, by)
		by.pay(r.attempt(&p))
		by.lose = func(call string) (before, after bool) {
			return call == "capture" && lost.before, call == "capture" && lost.after
		}
		if _, err := r.Sync(t.Context(), p.Number); !errors.Is(err, ErrProvider) {
			t.Errorf("lost: %v", err)
		}
		r.overdue(t, id)
		r.expire(t)
		r.sweepAll(t)
		r.expire(t)
		r.mustBe(t, id, order.Closing)
		by.lose = func(string) (before, after bool) { return false, false }
		r.sweepAll(t)
		r.mustBe(t, id, order.Completed)
	}

	// Too late: nobody takes the money.
	p = r.mustPay(t, 1, late, by)
	by.pay(r.attempt(&p))
	r.overdue(t, late)
	if got, err := r.Sync(t.Context(), p.Number); err != nil || got.State != Open {
		t.Errorf("too late: %+v, %v", got, err)
	}
	r.expire(t)
	r.sweepAll(t)
	r.expire(t)
	r.mustBe(t, late, order.Cancelled)
	if amount, _ := by.taken(p.Number); amount != 0 {
		t.Errorf("%d were taken", amount)
	}
	r.mustAddUp(t)
}

// TestPayRefusals: who may pay what, when.
func TestPayRefusals(t *testing.T) {
	t.Parallel()
	by, slow := newBank("bank", payment.Offer{}), newBank("slow", payment.Offer{Least: 16 * time.Minute})
	r := newRig(t, by, slow)
	id, late := r.order(t, 1, 1), r.order(t, 1, 1)
	r.overdue(t, late)
	for name, test := range map[string]struct {
		user     order.UserID
		id       order.OrderID
		provider string
		method   string
		want     error
	}{
		"another's order":  {2, id, "bank", "", mysql.ErrNotFound},
		"no order":         {1, order.NewID(), "bank", "", mysql.ErrNotFound},
		"no provider":      {1, id, "nobody", "", ErrNotOffered},
		"no method":        {1, id, "bank", "shells", ErrNotOffered},
		"too little time":  {1, id, "slow", "", ErrNotOffered},
		"a failed order":   {1, r.order(t, 1, 200), "bank", "", ledger.ErrNotPayable},
		"an overdue order": {1, late, "bank", "", ledger.ErrNotPayable},
	} {
		if _, _, err := r.Pay(t.Context(), test.user, test.id, test.provider, test.method); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}

	// An order has a bounded number of attempts.
	for range MaxAttempts {
		p := r.mustPay(t, 1, id, by)
		if err := r.markClosed(t.Context(), p.Number); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Pay(t.Context(), 1, id, "bank", ""); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more attempt: %v", err)
	}
	r.mustAddUp(t)
}

// TestPayTogether: many requests at once to pay one order make one attempt, and notices of it complete it once.
func TestPayTogether(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	id := r.order(t, 1, 1)
	var group sync.WaitGroup
	numbers := make([]string, 8)
	for i := range numbers {
		group.Go(func() {
			p, _, err := r.Pay(t.Context(), 1, id, "bank", "")
			if err != nil {
				t.Error(err)
			}
			numbers[i] = p.Number
		})
	}
	group.Wait()
	if slices.Sort(numbers); numbers[0] != numbers[len(numbers)-1] {
		t.Fatalf("attempts %v", numbers)
	}
	p, err := r.Payment(t.Context(), numbers[0])
	if err != nil {
		t.Fatal(err)
	}
	by.pay(r.attempt(&p))
	outcomes := make([]Outcome, 8)
	for i := range outcomes {
		group.Go(func() {
			var err error
			if outcomes[i], err = r.Record(t.Context(), "bank", by.notice(p.Number), FromNotice, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	completed := slices.DeleteFunc(outcomes, func(o Outcome) bool { return o == OutcomeRepeated })
	if !slices.Equal(completed, []Outcome{OutcomeCompleted}) {
		t.Errorf("outcomes %v", completed)
	}
	r.mustAddUp(t)
}

func TestStaffRefund(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	id := r.order(t, 1, 3)
	ctx := mysql.WithActor(t.Context(), "user:7")
	ask := func(number string, amount int64, units bool) (RefundRecord, []order.Returned, error) {
		return r.RefundOrder(ctx, RefundRequest{
			OrderID: id, Number: number, Amount: amount, ReturnUnits: units, Note: "broken",
		})
	}
	if _, _, err := ask("R0", 1, false); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("of an order that is not paid: %v", err)
	}
	p := r.mustPay(t, 1, id, by)
	by.pay(r.attempt(&p))
	r.mustRecord(t, by, p.Number, OutcomeCompleted)

	part, returned, err := ask("R1", 1200, false)
	if err != nil || part.Amount != 1200 || part.State != RefundDue || part.Actor != "user:7" || len(returned) > 0 {
		t.Errorf("a part: %+v, %v, %v", part, returned, err)
	}
	if again, _, err := ask("R1", 1200, false); err != nil || again.Number != "R1" {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, _, err := ask("R1", 1300, false); !errors.Is(err, ErrMismatch) {
		t.Errorf("again with another amount: %v", err)
	}
	if _, _, err := ask("R2", 1801, false); !errors.Is(err, ErrTooMuch) {
		t.Errorf("too much: %v", err)
	}
	r.sweepAll(t)
	r.mustBe(t, id, order.Completed)
	rest, returned, err := ask("R3", 0, true)
	if err != nil || rest.Amount != 1800 || len(returned) != 1 || returned[0].Quantity != 3 {
		t.Errorf("the rest: %+v, %v, %v", rest, returned, err)
	}
	r.mustBe(t, id, order.Completed) // until the money is back
	r.sweepAll(t)
	r.mustBe(t, id, order.Refunded)
	if _, _, err := ask("R4", 0, true); !errors.Is(err, ErrTooMuch) {
		t.Errorf("nothing is left: %v", err)
	}
	if amount, back := by.taken(p.Number); amount != 3000 || back != 3000 {
		t.Errorf("the bank took %d and gave back %d", amount, back)
	}
	if got, err := r.ledger.Product(ctx, r.product.ID); err != nil || got.Stock != 100 {
		t.Errorf("%d units, %v", got.Stock, err)
	}
	want := Money{Currency: "EUR", Taken: 3000, Completed: 3000, Refunded: 3000, Staff: 3000}
	if money := r.mustAddUp(t); money != want {
		t.Errorf("money %+v", money)
	}
	for name, bad := range map[string]RefundRequest{
		"number": {OrderID: id, Number: "a-b", Note: "x"},
		"note":   {OrderID: id, Number: "R9"},
		"amount": {OrderID: id, Number: "R9", Note: "x", Amount: -1},
	} {
		if _, _, err := r.RefundOrder(ctx, bad); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStaffRefundsTogether: however many ask at the same time, no more goes back than was paid, and an order of which
// all is back is refunded.
func TestStaffRefundsTogether(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	for round := range 5 {
		id := r.order(t, 1, 3)
		p := r.mustPay(t, 1, id, by)
		by.pay(r.attempt(&p))
		r.mustRecord(t, by, p.Number, OutcomeCompleted)

		together(8, func(i int) {
			half := RefundRequest{
				OrderID: id, Number: fmt.Sprintf("R%dx%d", round, i/2), Amount: 1500, ReturnUnits: true, Note: "x",
			}
			if _, _, err := r.RefundOrder(t.Context(), half); err != nil && !errors.Is(err, ErrTooMuch) {
				t.Errorf("refund %s: %v", half.Number, err)
			}
		})
		refunds := r.mustRefunds(t, id, RefundDue, RefundDue)
		together(len(refunds), func(i int) {
			if err := r.MakeRefund(t.Context(), refunds[i].Number); err != nil {
				t.Error(err)
			}
		})
		r.mustBe(t, id, order.Refunded)
		r.mustAddUp(t)
	}
}

// together calls f so many times at the same time.
func together(n int, f func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

func TestBuyPoints(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	r.exec(t, `INSERT INTO users (id, email, email_key, name, password_hash, role, created_at)
		VALUES (5, 'a@b', 'a@b', 'a', '', 'buyer', '2026-01-01')`)
	if _, _, err := r.BuyPoints(t.Context(), 6, 100, 99, "EUR", "bank", ""); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("nobody buys points: %v", err)
	}
	p, _, err := r.BuyPoints(t.Context(), 5, 100, 99, "EUR", "bank", "")
	if err != nil {
		t.Fatal(err)
	}
	by.pay(r.attempt(&p))
	r.mustRecord(t, by, p.Number, OutcomeCompleted)
	r.mustRecord(t, by, p.Number, OutcomeRepeated)
	if w, err := wallet.New(r.DB).Get(t.Context(), 5); err != nil || w.Balance != 100 {
		t.Errorf("wallet %+v, %v", w, err)
	}

	// One that is not paid is closed when its time is over.
	unpaid, _, err := r.BuyPoints(t.Context(), 5, 100, 99, "EUR", "bank", "")
	if err != nil {
		t.Fatal(err)
	}
	r.sweepAll(t)
	if got, err := r.Payment(t.Context(), unpaid.Number); err != nil || got.State != Open {
		t.Errorf("in time: %+v, %v", got, err)
	}
	r.exec(t, `UPDATE payments SET expires_at = ? WHERE number = ?`, mysql.Now().Add(-time.Second),
		[]byte(unpaid.Number))
	r.sweepAll(t)
	if got, err := r.Payment(t.Context(), unpaid.Number); err != nil || got.State != Closed {
		t.Errorf("too late: %+v, %v", got, err)
	}
	for range MaxTopUps {
		if _, _, err := r.BuyPoints(t.Context(), 5, 100, 99, "EUR", "bank", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.BuyPoints(t.Context(), 5, 100, 99, "EUR", "bank", ""); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	r.mustAddUp(t)
}

// TestAuditOfPayments: whatever is changed by hand is noticed.
func TestAuditOfPayments(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"a payment is forgotten":  `UPDATE payments SET state = 'closed' WHERE state = 'paid' LIMIT 1`,
		"an event is gone":        `DELETE FROM payment_events LIMIT 1`,
		"another amount":          `UPDATE payments SET amount = amount + 1 WHERE state = 'paid' LIMIT 1`,
		"a refund is gone":        `DELETE FROM refunds WHERE reason = 'second'`,
		"a refund of another sum": `UPDATE refunds SET amount = amount - 1 WHERE reason = 'second'`,
		"too much is given back":  `UPDATE refunds SET amount = 2001 WHERE reason = 'staff'`,
		"refunded, but not yet":   `UPDATE holds SET state = 'refunded' WHERE state = 'completed'`,
		"an attempt is not there": `UPDATE holds SET attempts = attempts + 1`,
		"completed by nothing":    `UPDATE holds SET paid_by = 'NOTHING' WHERE state = 'completed'`,
		"completed by points":     `UPDATE holds SET paid_by = 'points' WHERE state = 'completed'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := newBank("one", payment.Offer{Refunds: true}), newBank("two", payment.Offer{Refunds: true})
			r := newRig(t, one, two)
			id := r.order(t, 1, 2)
			for _, by := range []*bank{one, two} {
				p := r.mustPay(t, 1, id, by)
				by.pay(r.attempt(&p))
			}
			for _, p := range func() []Payment { p, _ := r.OfOrder(t.Context(), id); return p }() {
				by := map[string]*bank{"one": one, "two": two}[p.Provider]
				if _, err := r.Record(t.Context(), p.Provider, by.notice(p.Number), FromNotice, nil); err != nil {
					t.Fatal(err)
				}
			}
			refund := RefundRequest{OrderID: id, Number: "R", Amount: 5, Note: "x"}
			if _, _, err := r.RefundOrder(t.Context(), refund); err != nil {
				t.Fatal(err)
			}
			r.sweepAll(t)
			r.mustAddUp(t)
			r.exec(t, statement)
			if audit, err := r.Audit(t.Context()); err != nil || len(audit.Problems) == 0 {
				t.Errorf("the audit notices nothing: %+v, %v", audit, err)
			}
		})
	}
}

// TestClaim: of many who sweep one attempt, or make one refund, at the same time one does.
func TestClaim(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	p := r.mustPay(t, 1, r.order(t, 1, 1), by)
	r.exec(t, `UPDATE payments SET next_at = ?`, mysql.Now().Add(-time.Second))
	var mu sync.Mutex
	claimed := 0
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			_, ok, err := r.claim(context.WithoutCancel(t.Context()), p.Number)
			if err != nil {
				t.Error(err)
			}
			if ok {
				mu.Lock()
				claimed++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if claimed != 1 {
		t.Errorf("%d claims of one attempt", claimed)
	}
	if got := fmt.Sprint(backoff(time.Second, time.Minute, 0), backoff(time.Second, time.Minute, 3),
		backoff(time.Second, time.Minute, 99)); got != "1s 8s 1m0s" {
		t.Errorf("backoff %s", got)
	}
}
