package till

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/payment"
)

// TestMoney does in random order what buyers, two providers that lie about nothing but lose any request or answer,
// workers and staff do. Whenever it becomes quiet every payment has completed an order or has gone back, once, by the
// books of the providers, and who has paid in time has what he wanted.
func TestMoney(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() *bank{
		"closes":   func() *bank { return newBank("bank", payment.Offer{Refunds: true}) },
		"captures": func() *bank { return newBank("bank", payment.Offer{Refunds: true, Captures: true}) },
		"lapses": func() *bank {
			// A second more than it takes, since what is overdue is so for a second.
			b := newBank("bank", payment.Offer{Lapse: time.Second + 50*time.Millisecond})
			b.browser = true
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			by, other := make(), newBank("other", payment.Offer{Refunds: true})
			r := newRig(t, by, other)
			rapid.Check(t, func(rt *rapid.T) { (&world{rig: r, t: t, banks: []*bank{by, other}}).run(rt) })
			r.mustAddUp(t)
		})
	}
}

// world is a run of TestMoney.
type world struct {
	*rig
	t       *testing.T
	banks   []*bank
	orders  []order.OrderID
	overdue map[order.OrderID]bool
	faulty  bool
}

func (w *world) run(rt *rapid.T) {
	w.product = w.addProduct(w.t, 10)
	w.overdue = map[order.OrderID]bool{}
	w.faulty = rapid.Bool().Draw(rt, "faulty")
	for _, b := range w.banks {
		b.lose = func(string) (before, after bool) {
			if !w.faulty {
				return false, false
			}
			lost := rapid.IntRange(0, 5).Draw(rt, "lost")
			return lost == 1, lost == 2
		}
		b.refuse = func() bool { return w.faulty && rapid.IntRange(0, 3).Draw(rt, "refused") == 1 }
	}
	rt.Repeat(map[string]func(*rapid.T){
		"order":   func(*rapid.T) { w.orders = append(w.orders, w.order(w.t, 1, 1)) },
		"pay":     w.pay,
		"at bank": w.atBank,
		"notice":  w.notice,
		"arrive":  func(rt *rapid.T) { rapid.SampledFrom(w.banks).Draw(rt, "bank").arrive() },
		"time passes": func(rt *rapid.T) {
			id := w.pick(rt)
			w.rig.overdue(w.t, id)
			w.overdue[id] = true
		},
		"cancel": func(rt *rapid.T) { _, _, _ = w.ledger.CancelOrder(w.t.Context(), w.pick(rt), ledger.ByBuyer) },
		"expire": func(*rapid.T) { w.expire(w.t) },
		"sweep":  func(*rapid.T) { w.sweepAll(w.t) },
		"sync": func(rt *rapid.T) {
			for _, p := range w.attempts(w.pick(rt)) {
				_, _ = w.Sync(w.t.Context(), p.Number)
			}
		},
		"refund": func(rt *rapid.T) {
			_, _, _ = w.RefundOrder(w.t.Context(), RefundRequest{
				OrderID: w.pick(rt), Number: newNumber(), Amount: rapid.SampledFrom([]int64{0, 400}).Draw(rt, "amount"),
				ReturnUnits: rapid.Bool().Draw(rt, "units"), Note: "staff",
			})
		},
	})
	w.settleDown(rt)
}

func (w *world) pick(rt *rapid.T) order.OrderID {
	if len(w.orders) == 0 {
		rt.Skip("no orders")
	}
	return rapid.SampledFrom(w.orders).Draw(rt, "order")
}

func (w *world) attempts(id order.OrderID) []Payment {
	attempts, err := w.OfOrder(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return attempts
}

func (w *world) bank(p Payment) *bank {
	if p.Provider == "other" {
		return w.banks[1]
	}
	return w.banks[0]
}

func (w *world) pay(rt *rapid.T) {
	by := rapid.SampledFrom(w.banks).Draw(rt, "bank")
	_, _, _ = w.Pay(w.t.Context(), 1, w.pick(rt), by.name, "")
}

// atBank is what a buyer does on the page of an attempt, however old that is.
func (w *world) atBank(rt *rapid.T) {
	for _, p := range w.attempts(w.pick(rt)) {
		if rapid.Bool().Draw(rt, "pays") {
			w.bank(p).pay(w.attempt(&p))
		}
	}
}

// notice is what providers tell of attempts that are paid, as often as they like.
func (w *world) notice(rt *rapid.T) {
	for _, p := range w.attempts(w.pick(rt)) {
		if amount, _ := w.bank(p).taken(p.Number); amount > 0 && rapid.Bool().Draw(rt, "told") {
			if _, err := w.Record(w.t.Context(), p.Provider, w.bank(p).notice(p.Number), FromNotice, nil); err != nil {
				rt.Fatal(err)
			}
		}
	}
}

// settleDown ends all faults and lets everything happen that sooner or later does, and compares what each order and
// each payment has become.
func (w *world) settleDown(rt *rapid.T) {
	w.faulty = false
	for _, id := range w.orders {
		w.rig.overdue(w.t, id)
	}
	for _, b := range w.banks {
		b.arrive()
	}
	if lapse := w.banks[0].offer.Lapse; lapse > 0 { // after which the provider takes no money any more
		time.Sleep(lapse - time.Second)
	}
	for range 3 {
		w.expire(w.t)
		w.sweepAll(w.t)
	}
	byHand, err := w.RefundsByHand(w.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	for _, refund := range byHand {
		pays, err := w.DoneByHand(w.t.Context(), refund.Number, "by hand")
		if err != nil {
			rt.Fatal(err)
		}
		if pays {
			p, err := w.Payment(w.t.Context(), refund.Attempt)
			if err != nil {
				rt.Fatal(err)
			}
			b := w.bank(p)
			b.mu.Lock()
			b.giveBack(payment.Refund{Number: refund.Number, Of: w.attempt(&p), Amount: refund.Amount})
			b.mu.Unlock()
		}
	}

	for _, id := range w.orders {
		w.compare(rt, id)
	}
}

// compare holds what an order has become to the books of the providers.
func (w *world) compare(rt *rapid.T, id order.OrderID) {
	record, err := w.ledger.Order(w.t.Context(), id)
	if err != nil || record.Status == order.Failed {
		return
	}
	var kept, taken int64
	for _, p := range w.attempts(id) {
		amount, back := w.bank(p).taken(p.Number)
		if back > amount {
			rt.Fatalf("payment %s: %d were taken, and %d given back", p.Number, amount, back)
		}
		taken += amount
		kept += amount - back
	}
	refunds, err := w.RefundsOf(w.t.Context(), id)
	if err != nil {
		rt.Fatal(err)
	}
	var byStaff int64
	for _, refund := range refunds {
		if refund.State != RefundDone {
			rt.Fatalf("order %s: refund %+v", id, refund)
		}
		if refund.Reason == ReasonStaff {
			byStaff += refund.Amount
		}
	}

	switch record.Status {
	case order.Cancelled:
		if kept != 0 {
			rt.Fatalf("order %s is cancelled, and %d of its money is kept", id, kept)
		}
	case order.Completed, order.Refunded:
		if kept != record.TotalPrice()-byStaff || record.Status == order.Refunded != (kept == 0) {
			rt.Fatalf("order %s is %s, and %d of its money is kept, with %d given back by staff", id, record.Status,
				kept, byStaff)
		}
	default:
		rt.Fatalf("order %s is still %s", id, record.Status)
	}
	if record.Status == order.Cancelled && taken > 0 {
		rt.Fatalf("order %s was paid in time, and is cancelled", id)
	}
}
