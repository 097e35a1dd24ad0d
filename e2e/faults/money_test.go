package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const fourth = "01a1f8d8-758b-73ba-9d19-99309294a040"

// paidSale is a small sale that went well: one order was completed by the second of two payments, the first of which
// came later and went back; one was cancelled, and its late money went back; one was paid and went back by staff, with
// its units; and one was paid and is completed but for a part that staff gave back.
func paidSale() ([]*purchase, *books, time.Time) {
	over := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	early, late := over.Add(-time.Minute), over.Add(time.Minute)
	m := &moneyBooks{
		attempts: map[string]attemptRow{
			"A1": {"stripe", first, "paid"}, "A2": {"paypal", first, "paid"}, "B1": {"ecpay", second, "paid"},
			"C1": {"alipay", third, "paid"}, "D1": {"stripe", fourth, "paid"}, "D2": {"paypal", fourth, "closed"},
		},
		holds: map[string]holdRow{
			first:  {state: "completed", paidBy: "A2", price: 500, currency: "USD"},
			second: {state: "cancelled", price: 10_000, currency: "TWD"},
			third:  {state: "refunded", paidBy: "C1", price: 990, currency: "CNY"},
			fourth: {state: "completed", paidBy: "D1", price: 250, currency: "USD"},
		},
		refunds: map[string]refundRow{
			"A1": {"A1", "done", "second", 500}, "B1": {"B1", "done", "late", 10_000},
			"staff1": {"C1", "done", "staff", 990}, "staff2": {"D1", "done", "staff", 100},
		},
	}
	for _, p := range []struct {
		provider, number, currency string
		amount                     int64
		at                         time.Time
	}{
		{"stripe", "A1", "USD", 500, early}, {"paypal", "A2", "USD", 500, early}, {"ecpay", "B1", "TWD", 10_000, late},
		{"alipay", "C1", "CNY", 990, early}, {"stripe", "D1", "USD", 250, early},
	} {
		m.pay(p.provider, p.number, p.currency, p.amount, p.at)
	}
	m.giveBack("stripe", "A1", 500)
	m.giveBack("ecpay", "B1", 4_000)
	m.giveBack("ecpay", "B1", 6_000)
	m.giveBack("alipay", "C1", 990)
	m.giveBack("stripe", "D1", 100)
	b := &books{
		money: m, orders: map[string][]orderRow{
			first:  {{id: first, quantity: 2, status: "completed"}},
			second: {{id: second, quantity: 1, status: "cancelled", returned: true}},
			third:  {{id: third, quantity: 1, status: "refunded", returned: true}},
			fourth: {{id: fourth, quantity: 1, status: "completed"}},
		},
		ledger: []ledgerRow{
			{product: 1, version: 5, delta: 1, reason: "return", ref: second},
			{product: 1, version: 6, delta: 1, reason: "return", ref: third},
		},
	}
	purchases := []*purchase{
		{order: first, attempts: []attempt{{number: "A1", provider: "stripe"}, {number: "A2", provider: "paypal"}}},
		{order: second, attempts: []attempt{{number: "B1", provider: "ecpay"}}, ended: over.Add(-time.Second)},
		{order: third, refunds: []staffRefund{{number: "staff1", amount: 990, units: true, status: 200}}},
		{order: fourth, refunds: []staffRefund{
			{number: "staff2", amount: 100, status: 200}, {number: "lost", amount: 1},
		}},
	}
	return purchases, b, over
}

func (m *moneyBooks) pay(provider, number, currency string, amount int64, at time.Time) {
	m.Payments = append(m.Payments, providerPayment{provider, number, currency, amount, at})
}

func (m *moneyBooks) giveBack(provider, of string, amount int64) {
	m.Refunds = append(m.Refunds, providerRefund{provider, of, amount})
}

// TestJudgeMoney damages the books or the record in one place after the other: the checker must find it, and say which
// promise it breaks.
func TestJudgeMoney(t *testing.T) {
	t.Parallel()
	hold := func(m *moneyBooks, id string, change func(*holdRow)) {
		row := m.holds[id]
		change(&row)
		m.holds[id] = row
	}
	for _, test := range []struct {
		name, promise, says string
		damage              func(p []*purchase, b *books, m *moneyBooks)
	}{
		{"nothing", "", "", func([]*purchase, *books, *moneyBooks) {}},
		{"money of nobody", keptForNothing, "nothing is known", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.pay("stripe", "X1", "USD", 1, time.Time{})
		}},
		{"money at another provider", keptForNothing, "nothing is known", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.Payments[1].Provider = "ecpay"
		}},
		{"one attempt taken twice", keptForNothing, "took payment A2 twice", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.pay("paypal", "A2", "USD", 500, time.Time{})
		}},
		{"a second payment is kept", keptForNothing, "A1 of order " + first, func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.Refunds = m.Refunds[1:]
		}},
		{"late money goes back in part", keptForNothing, "4000 of 10000", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.Refunds[2].Amount = 0
		}},
		{"staff's refund is not made", keptForNothing, "staff gives 990", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.Refunds[3].Amount = 0
		}},
		{"a second payment goes back twice", refundedTwice, "500 went back 1000", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.giveBack("stripe", "A1", 500)
		}},
		{"late money goes back by hand too", refundedTwice, "went back 20000", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.giveBack("ecpay", "B1", 10_000)
		}},
		{"what has completed an order goes back", refundedTwice, "A2 of 500", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.giveBack("paypal", "A2", 500)
		}},
		{"staff's refund is made twice", refundedTwice, "C1 of 990", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.giveBack("alipay", "C1", 990)
		}},
		{"staff gives back more than was paid", refundedTwice, "D1 of 250", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.refunds["staff3"] = refundRow{"D1", "done", "staff", 200}
			m.giveBack("stripe", "D1", 200)
		}},
		{"what was not paid goes back", refundedTwice, "which was not paid", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.giveBack("paypal", "D2", 250)
		}},
		{"an order is completed without money", completedUnpaid, "has taken its money", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.Payments = m.Payments[:4]
			m.Refunds = m.Refunds[:4]
		}},
		{"an order is completed by another's money", completedUnpaid, "has taken its money",
			func(_ []*purchase, _ *books,
				m *moneyBooks) {
				hold(m, first, func(h *holdRow) { h.paidBy = "D1" })
			}},
		{"an order is completed by too little", completedUnpaid, "costs 501 USD", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			hold(m, first, func(h *holdRow) { h.price = 501 })
		}},
		{"an order is completed by other money", completedUnpaid, "500 TWD", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.Payments[1].Currency = "TWD"
		}},
		{"an order without a hold is completed", completedUnpaid, "has taken its money", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			delete(m.holds, first)
		}},
		{"units do not come back", unitsAway, "0 of its 1 units", func(_ []*purchase, b *books, _ *moneyBooks) {
			b.ledger = b.ledger[1:]
		}},
		{"units come back twice", unitsAway, "2 of its 1 units", func(_ []*purchase, b *books, _ *moneyBooks) {
			b.ledger = append(b.ledger, b.ledger[0])
		}},
		{"units of a completed order come back", unitsAway, "2 of its 2 units", func(_ []*purchase, b *books,
			_ *moneyBooks) {
			b.ledger = append(b.ledger, ledgerRow{delta: 2, reason: "return", ref: first})
		}},
		{"units of no order come back", unitsAway, "does not exist", func(_ []*purchase, b *books, _ *moneyBooks) {
			b.ledger[0].ref = "other"
		}},
		{"a reminder is left", unitsAway, "may not be on sale", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.reminders = []string{second}
		}},
		{"an order is cancelled that was paid in time", cancelledPaid, "1m0s before", func(p []*purchase, _ *books,
			m *moneyBooks) {
			m.Payments[2].PaidAt, p[1].ended = m.Payments[2].PaidAt.Add(-2*time.Minute), time.Time{}
		}},
		{"an order is cancelled that was paid before its cancel", cancelledPaid, "1s before", func(p []*purchase,
			_ *books,
			m *moneyBooks) {
			p[1].ended, p[1].cancelled = time.Time{}, m.Payments[0].PaidAt
			m.Payments[2].PaidAt = m.Payments[0].PaidAt.Add(-time.Second)
		}},
		{"a forged notice is taken", forgedTaken, "2 forged", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.forgedTaken = 2
		}},
		{"an attempt stays open", moneyOpen, "D2 is still open", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.attempts["D2"] = attemptRow{"paypal", fourth, "open"}
		}},
		{"an order stays closing", moneyOpen, "is still closing", func(_ []*purchase, _ *books, m *moneyBooks) {
			hold(m, second, func(h *holdRow) { h.state = "closing" })
		}},
		{"an order counts attempts that are over", moneyOpen, "with 1 payments", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			hold(m, first, func(h *holdRow) { h.live = 1 })
		}},
		{"a refund stays due", moneyOpen, "B1 is still due", func(_ []*purchase, _ *books, m *moneyBooks) {
			m.refunds["B1"] = refundRow{"B1", "due", "late", 10_000}
		}},
		{"an order of which all is back is completed", moneyOpen, "990 of 990", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			hold(m, third, func(h *holdRow) { h.state = "completed" })
		}},
		{"a buyer's attempt is gone", moneyOpen, "was told of payment A1", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			m.attempts["A1"] = attemptRow{"stripe", second, "paid"}
		}},
		{"staff's refund is gone", moneyOpen, "was told of refund staff2", func(_ []*purchase, _ *books,
			m *moneyBooks) {
			delete(m.refunds, "staff2")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			purchases, b, over := paidSale()
			test.damage(purchases, b, b.money)
			var broken []finding
			judgeMoney(purchases, b, over, func(promise string, n int64, format string, args ...any) {
				broken = append(broken, finding{promise, n, fmt.Sprintf(format, args...)})
			})
			if test.promise == "" {
				if len(broken) > 0 {
					t.Errorf("found %v", broken)
				}
				return
			}
			for _, f := range broken {
				if f.promise == test.promise && strings.Contains(f.text, test.says) && f.n > 0 {
					return
				}
			}
			t.Errorf("found %+v, not that %q", broken, test.says)
		})
	}
}
