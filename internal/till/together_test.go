package till

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
)

// paidOrders are orders that their buyers have paid, and of which the provider has not told yet.
func (r *rig) paidOrders(t *testing.T, by *bank, n int) (ids []order.OrderID, paid []Payment) {
	t.Helper()
	for user := range order.UserID(n) {
		id := r.order(t, user+1, 1)
		p := r.mustPay(t, user+1, id, by)
		by.pay(r.attempt(&p))
		ids, paid = append(ids, id), append(paid, p)
	}
	return ids, paid
}

// TestTogether: payments that come while others are recorded share a transaction.
func TestTogether(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	ids, paid := r.paidOrders(t, by, 20)
	var transactions atomic.Int64
	r.DB.Observe(func(call string, _ time.Duration, _ error) {
		if call == mysql.CallTransaction {
			transactions.Add(1)
		}
	})

	// As many as may run at the same time wait for events that another transaction has written.
	blocker, err := r.DB.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blocker.Rollback() }()
	var all sync.WaitGroup
	record := func(p Payment) { all.Go(func() { r.mustRecord(t, by, p.Number, OutcomeCompleted) }) }
	for i, p := range paid[:maxTransactions] {
		if _, err := addEvent(t.Context(), blocker, "bank", "", payment.Notice{Kind: payment.Paid, Attempt: p.Number},
			FromNotice, nil); err != nil {
			t.Fatal(err)
		}
		record(p)
		r.untilGathered(t, i+1, 0)
	}
	for _, p := range paid[maxTransactions:] {
		record(p)
	}
	r.untilGathered(t, maxTransactions, len(paid)-maxTransactions)
	if err := blocker.Rollback(); err != nil {
		t.Fatal(err)
	}
	all.Wait()

	const want = 2 * (maxTransactions + 1) // each may meet a deadlock over the gap that the blocker leaves
	if got := transactions.Load(); got > want {
		t.Errorf("%d payments took %d transactions, want at most %d", len(paid), got, want)
	}
	for i, id := range ids {
		r.mustBe(t, id, order.Completed)
		r.mustRecord(t, by, paid[i].Number, OutcomeRepeated)
		got, err := r.Payment(t.Context(), paid[i].Number)
		if err != nil || got.State != Paid || got.Fee != 3 || got.PaymentReference != "paid"+got.Number {
			t.Errorf("payment %+v, %v", got, err)
		}
	}
	if money := r.mustAddUp(t); money != (Money{Currency: "EUR", Taken: 20000, Completed: 20000}) {
		t.Errorf("money %+v", money)
	}
}

// untilGathered waits until so many transactions run that record payments, and so many payments wait for the next one.
func (r *rig) untilGathered(t *testing.T, running, waiting int) {
	t.Helper()
	for r.transactions(t) != running || r.together.Waits() != waiting {
		time.Sleep(time.Millisecond)
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
}

// transactions counts those that wait for a lock.
func (r *rig) transactions(t *testing.T) (n int) {
	t.Helper()
	err := r.DB.GetContext(t.Context(), &n, `SELECT COUNT(*) FROM information_schema.processlist
		WHERE db = DATABASE() AND info LIKE 'INSERT INTO payment_events%'`)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLockedHold: an order that another transaction has locked does not hold up the payments of others.
func TestLockedHold(t *testing.T) {
	t.Parallel()
	by := newBank("bank", payment.Offer{Refunds: true})
	r := newRig(t, by)
	ids, paid := r.paidOrders(t, by, 2)
	var locked sync.WaitGroup
	err := r.DB.InTx(t.Context(), func(tx *sqlx.Tx) error {
		_, err := ledger.LockHold(t.Context(), tx, ids[0])
		locked.Go(func() { r.mustRecord(t, by, paid[0].Number, OutcomeCompleted) })
		r.mustRecord(t, by, paid[1].Number, OutcomeCompleted)
		r.mustBe(t, ids[0], order.AwaitingPayment)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	locked.Wait()
	r.mustBe(t, ids[0], order.Completed)
	r.mustAddUp(t)
}
