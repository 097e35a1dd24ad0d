package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/order"
	"stampede/internal/payment/providers"
	"stampede/internal/till"
	"stampede/localstack/pay"
)

// takesPayments has a worker see to payments by the stand-ins, and returns both and a till that pays.
func (r *rig) takesPayments() (*Worker, *pay.Server, *till.Till) {
	r.t.Helper()
	server, err := pay.Start(pay.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = server.Close() })
	env := map[string]string{}
	for _, variable := range server.Env() {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	set, err := providers.FromEnv(func(name string) string { return env[name] })
	if err != nil {
		r.t.Fatal(err)
	}
	newTill := func() *till.Till {
		return &till.Till{DB: r.db, Providers: set.All, Front: "http://127.0.0.1:1", TestMode: set.TestMode}
	}
	w := r.worker()
	w.takePayments(newTill())
	return w, server, newTill()
}

// TestWorkerSettlesPayments: an order that is paid without a word from its provider is completed, one that is not is
// cancelled once its attempt is closed, and a second payment goes back: all of it by a worker alone.
func TestWorkerSettlesPayments(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.heldProduct(10, 0)
	w, server, by := r.takesPayments()
	r.run(w)
	orders := r.reserve(p.ID, 3, 1)
	r.acknowledge(orders...)
	r.enqueue(10, orders...)
	r.quiet(w)

	begin := func(o order.Order, provider string) string {
		t.Helper()
		attempt, page, err := by.Pay(t.Context(), o.UserID, o.ID, provider, "")
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.Get(page.URL)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return attempt.Number
	}
	act := func(what, provider, number string) {
		t.Helper()
		if _, err := server.Act(what, provider, number, ""); err != nil {
			t.Fatal(err)
		}
	}
	paid, unpaid, twice := orders[0], orders[1], orders[2]
	act("pay", pay.Stripe, begin(paid, pay.Stripe))
	begin(unpaid, pay.Stripe)
	first, second := begin(twice, pay.Stripe), begin(twice, pay.PayPal)
	act("pay", pay.Stripe, first)
	act("pay", pay.PayPal, second)

	r.passTime()
	for o, want := range map[*order.Order]order.Status{
		&paid: order.Completed, &unpaid: order.Cancelled, &twice: order.Completed,
	} {
		r.eventually(func() error {
			record, err := r.ledger.Order(t.Context(), o.ID)
			if err != nil || record.Status != want {
				return fmt.Errorf("order %s is %s (%v), want %s", o.ID, record.Status, err, want)
			}
			return nil
		})
	}
	r.eventually(func() error {
		open, err := by.Open(t.Context())
		if err != nil || open != (till.OpenCount{}) {
			return fmt.Errorf("still open: %+v, %v", open, err)
		}
		return nil
	})
	if kept := keptBy(server); kept != 2*1999 {
		t.Errorf("the providers keep %d, and not the price of two orders", kept)
	}
	audit, err := by.Audit(t.Context())
	if err != nil || len(audit.Problems) > 0 {
		t.Errorf("audit %+v, %v", audit, err)
	}
	r.quiet(w)
}

// keptBy is what the providers took, and have not given back.
func keptBy(server *pay.Server) (kept int64) {
	books := server.Books()
	for _, p := range books.Payments {
		kept += p.Amount
	}
	for _, refund := range books.Refunds {
		kept -= refund.Amount
	}
	return kept
}

// TestProviderIsDown: a provider that does not answer keeps the orders of another one waiting for nothing.
func TestProviderIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.heldProduct(100, 0)
	w, server, by := r.takesPayments()
	r.run(w)
	orders := r.reserve(p.ID, 40, 1)
	r.acknowledge(orders...)
	r.enqueue(40, orders...)
	r.quiet(w)
	for i, o := range orders {
		if _, _, err := by.Pay(t.Context(), o.UserID, o.ID, []string{pay.Stripe, pay.PayPal}[i%2], ""); err != nil {
			t.Fatal(err)
		}
	}
	slow := pay.Fault{Provider: pay.Stripe, Kind: pay.Slow, DelayMS: int64(30 * time.Second / time.Millisecond)}
	if err := server.SetFaults(pay.Faults{Faults: []pay.Fault{slow}}); err != nil {
		t.Fatal(err)
	}
	r.passTime()
	r.eventually(func() error {
		var closing int
		err := r.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
			return tx.GetContext(t.Context(), &closing, `SELECT COUNT(*) FROM holds WHERE state <> 'cancelled'`)
		})
		if err != nil || closing != 20 {
			return fmt.Errorf("%d are not cancelled, %v", closing, err)
		}
		return nil
	})
}
