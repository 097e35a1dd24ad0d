package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"pgregory.net/rapid"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// addHeldProduct adds a product whose orders must be paid.
func addHeldProduct(t testing.TB, l *Ledger, stock, limit int64) order.Product {
	t.Helper()
	p, err := l.AddProduct(t.Context(), order.Product{
		Name: "thing", Price: 1999, Currency: "EUR", Stock: stock, LimitPerUser: limit, Payment: order.PaymentRequired,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// overdue has the time to pay of orders pass.
func overdue(t testing.TB, l *Ledger, ids ...order.OrderID) {
	t.Helper()
	for _, id := range ids {
		exec(t, l, `UPDATE holds SET pay_by = ?,
			due_at = CASE WHEN state = 'awaiting_payment' THEN pay_by ELSE due_at END WHERE order_id = ?`,
			mysql.Now().Add(-time.Second), mysql.UUID(id))
	}
}

// attempt counts an attempt to pay an order, or says why there can be none.
func attempt(t testing.TB, l *Ledger, id order.OrderID) error {
	return l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		h, err := LockHold(t.Context(), tx, id)
		if err != nil {
			return err
		}
		if !h.Payable(mysql.Now()) {
			return ErrNotPayable
		}
		h.Attempts++
		return h.Write(t.Context(), tx)
	})
}

// endAttempt ends an attempt: as paid, or as one that cannot be paid any more.
func endAttempt(t testing.TB, l *Ledger, id order.OrderID, paid bool) order.Status {
	t.Helper()
	var state order.Status
	err := l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		h, err := LockHold(t.Context(), tx, id)
		if err != nil {
			return err
		}
		h.Attempts--
		if paid && (h.State == order.AwaitingPayment || h.State == order.Closing) {
			h.State, h.PaidBy = order.Completed, "attempt"
		}
		state = h.State
		return h.Write(t.Context(), tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// expireAll does what a worker does until nothing is due.
func expireAll(t testing.TB, l *Ledger) (all []order.Returned) {
	t.Helper()
	for {
		due, err := l.Due(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(due) == 0 {
			return all
		}
		for stockID, ids := range due {
			returned, err := l.Expire(t.Context(), stockID, ids)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, returned...)
		}
	}
}

func mustShow(t testing.TB, l *Ledger, id order.OrderID, want order.Status) order.Record {
	t.Helper()
	record, err := l.Order(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if record.Status != want {
		t.Errorf("order %s is %s, want %s", id, record.Status, want)
	}
	return record
}

func TestHeldOrder(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10, 3)

	before := time.Now()
	o := newOrder(p.ID, 1, 3, "key")
	decision := mustDecide(t, l, p.ID, o)[0]
	if decision.Status != order.Held || !decision.Fresh || decision.Version != 2 {
		t.Errorf("decided as %+v", decision)
	}
	record := mustShow(t, l, o.ID, order.AwaitingPayment)
	if wait := record.PayBy.Sub(before); wait < 15*time.Minute-time.Second || wait > 16*time.Minute {
		t.Errorf("it may be paid for %s", wait)
	}
	if got := short(mustDecide(t, l, p.ID, newOrder(p.ID, 1, 1, ""))[0]); got != "limit_exceeded" {
		t.Errorf("a second order of the buyer, who has all that he may: %s", got)
	}
	if got := short(mustDecide(t, l, p.ID, o)[0]); got != "held again" {
		t.Errorf("decided again as %s", got)
	}
	if returned := expireAll(t, l); len(returned) != 0 {
		t.Errorf("cancelled before its time: %+v", returned)
	}

	overdue(t, l, o.ID)
	want := order.Returned{OrderID: o.ID, UserID: 1, StockID: p.ID, Quantity: 3, TakenAt: 2, ReturnedAt: 3}
	if returned := expireAll(t, l); !slices.Equal(returned, []order.Returned{want}) {
		t.Errorf("cancelled with %+v, want %+v", returned, want)
	}
	mustShow(t, l, o.ID, order.Cancelled)
	reminders, err := l.Returning(t.Context())
	if err != nil || !slices.Equal(reminders[p.ID], []order.Returned{want}) {
		t.Errorf("reminders %+v, %v", reminders, err)
	}
	if err := l.ForgetReturned(t.Context(), p.ID, []order.OrderID{o.ID}); err != nil {
		t.Fatal(err)
	}
	if reminders, err = l.Returning(t.Context()); err != nil || len(reminders) > 0 {
		t.Errorf("reminders that were forgotten: %+v, %v", reminders, err)
	}

	// Its units and its buyer's count are back.
	if got := short(mustDecide(t, l, p.ID, newOrder(p.ID, 1, 3, ""))[0]); got != "held" {
		t.Errorf("the buyer's next order: %s", got)
	}
	if got := mustProduct(t, l, p.ID); got.Stock != 7 || got.Version != 4 {
		t.Errorf("%d units, version %d", got.Stock, got.Version)
	}
	audit := mustBeSound(t, l)[p.ID]
	if audit.HeldOrders != 2 || audit.CancelledOrders != 1 || audit.ReturnedUnits != 3 || audit.CompletedUnits != 6 {
		t.Errorf("audit %+v", audit)
	}
}

// TestFreeOrder: what costs nothing need not be paid, nor what was decided before it had to be.
func TestFreeOrder(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10, 0)
	free := newOrder(p.ID, 1, 1, "")
	free.UnitPrice = 0
	if got := short(mustDecide(t, l, p.ID, free)[0]); got != "completed" {
		t.Errorf("a free order is %s", got)
	}
	if _, err := l.Hold(t.Context(), free.ID); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("it is held: %v", err)
	}
	if _, _, err := l.CancelOrder(t.Context(), free.ID, ByBuyer); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("it can be cancelled: %v", err)
	}
	mustBeSound(t, l)
}

// TestCloseBeforeCancel: units come back only when no attempt can be paid any more, and money that was paid in time
// completes the order after all.
func TestCloseBeforeCancel(t *testing.T) {
	t.Parallel()
	for _, paid := range []bool{true, false} {
		l := newLedger(t)
		p := addHeldProduct(t, l, 10, 0)
		o := newOrder(p.ID, 1, 3, "")
		mustDecide(t, l, p.ID, o)
		for range 2 {
			if err := attempt(t, l, o.ID); err != nil {
				t.Fatal(err)
			}
		}
		overdue(t, l, o.ID)
		if returned := expireAll(t, l); len(returned) != 0 {
			t.Errorf("units came back though the order may yet be paid: %+v", returned)
		}
		mustShow(t, l, o.ID, order.Closing)
		if err := attempt(t, l, o.ID); !errors.Is(err, ErrNotPayable) {
			t.Errorf("an attempt after the time to pay: %v", err)
		}

		endAttempt(t, l, o.ID, false)
		if returned := expireAll(t, l); len(returned) != 0 {
			t.Errorf("units came back though one of two attempts may yet be paid: %+v", returned)
		}
		endAttempt(t, l, o.ID, paid)
		returned := expireAll(t, l)
		if paid && len(returned) != 0 || !paid && len(returned) != 1 {
			t.Errorf("paid %v: %+v came back", paid, returned)
		}
		if mustShow(t, l, o.ID, map[bool]order.Status{true: order.Completed, false: order.Cancelled}[paid]); paid {
			if _, _, err := l.CancelOrder(t.Context(), o.ID, ByBuyer); !errors.Is(err, ErrNotCancellable) {
				t.Errorf("a paid order can be cancelled: %v", err)
			}
		}
		mustBeSound(t, l)
	}
}

func TestCancelOrder(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10, 0)
	o, later := newOrder(p.ID, 1, 3, ""), newOrder(p.ID, 2, 2, "")
	mustDecide(t, l, p.ID, o, later)

	returned, hold, err := l.CancelOrder(t.Context(), o.ID, ByBuyer)
	if err != nil || len(returned) != 1 || hold.State != order.Cancelled || hold.Reason != ByBuyer {
		t.Errorf("cancelled: %+v, %+v, %v", returned, hold, err)
	}
	if returned, hold, err = l.CancelOrder(t.Context(), o.ID, ByBuyer); err != nil || len(returned) != 0 ||
		hold.State != order.Cancelled {
		t.Errorf("again: %+v, %+v, %v", returned, hold, err)
	}

	// While an attempt may be paid it is closing, and why it was cancelled is kept.
	if err := attempt(t, l, later.ID); err != nil {
		t.Fatal(err)
	}
	if _, hold, err = l.CancelOrder(t.Context(), later.ID, ByBuyer); err != nil || hold.State != order.Closing {
		t.Errorf("with an attempt: %+v, %v", hold, err)
	}
	endAttempt(t, l, later.ID, false)
	expireAll(t, l)
	if hold, err = l.Hold(t.Context(), later.ID); err != nil || hold.State != order.Cancelled ||
		hold.Reason != ByBuyer {
		t.Errorf("in the end: %+v, %v", hold, err)
	}
	if _, _, err := l.CancelOrder(t.Context(), order.NewID(), ByBuyer); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("an unknown order: %v", err)
	}
	mustBeSound(t, l)
}

// TestExpireTogether: four workers cancel 3,000 orders while half of them are being paid. Each is paid or cancelled,
// and its units are back once.
func TestExpireTogether(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10_000, 0)
	var all []order.Order
	for range 3 {
		orders := make([]order.Order, MaxBatch)
		for i := range orders {
			orders[i] = newOrder(p.ID, order.UserID(1+len(all)+i), 2, "")
		}
		mustDecide(t, l, p.ID, orders...)
		all = append(all, orders...)
	}
	exec(t, l, `UPDATE holds SET due_at = ?, pay_by = ?`, mysql.Now().Add(-time.Second), mysql.Now().Add(-time.Second))

	var mu sync.Mutex
	var workers sync.WaitGroup
	returned := map[order.OrderID]int{}
	for range 4 {
		workers.Go(func() {
			for _, r := range expireAll(t, l) {
				mu.Lock()
				returned[r.OrderID]++
				mu.Unlock()
			}
		})
	}
	paid := map[order.OrderID]bool{}
	for _, o := range slices.Backward(all[len(all)-300:]) {
		err := l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
			h, err := LockHold(t.Context(), tx, o.ID)
			if err != nil || h.State != order.AwaitingPayment {
				return err
			}
			h.State, h.PaidBy = order.Completed, "attempt"
			return h.Write(t.Context(), tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		if h, err := l.Hold(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		} else if h.State == order.Completed {
			paid[o.ID] = true
		}
	}
	workers.Wait()
	for _, o := range all {
		if want := map[bool]int{true: 0, false: 1}[paid[o.ID]]; returned[o.ID] != want {
			t.Fatalf("order %s, paid %v: its units came back %d times", o.ID, paid[o.ID], returned[o.ID])
		}
	}
	t.Logf("%d of %d orders were paid", len(paid), len(all))
	if got := mustProduct(t, l, p.ID).Stock; got != 10_000-2*int64(len(paid)) {
		t.Errorf("%d units, with %d orders of 2 paid", got, len(paid))
	}
	mustBeSound(t, l)
}

// TestReturnedCounts: what came back does not count for a limit, whether it was counted when there was one or not.
func TestReturnedCounts(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 100, 0)
	kept, gone, later := newOrder(p.ID, 1, 2, ""), newOrder(p.ID, 1, 3, ""), newOrder(p.ID, 1, 4, "")
	mustDecide(t, l, p.ID, kept, gone)
	overdue(t, l, gone.ID)
	expireAll(t, l)

	setLimit := func(limit int64) {
		t.Helper()
		set := func(p *order.Product) { p.LimitPerUser = limit }
		if _, err := l.UpdateProduct(t.Context(), p.ID.Product(), set); err != nil {
			t.Fatal(err)
		}
	}
	wantBought := func(want int64) {
		t.Helper()
		if bought, err := l.Bought(t.Context(), p.ID, []order.UserID{1}); err != nil || bought[1] != want {
			t.Errorf("bought %v, %v, want %d", bought, err, want)
		}
		mustBeSound(t, l)
	}
	setLimit(6)
	wantBought(2)
	mustDecide(t, l, p.ID, later)
	wantBought(6)
	if got := short(mustDecide(t, l, p.ID, newOrder(p.ID, 1, 1, ""))[0]); got != "limit_exceeded" {
		t.Errorf("over the limit: %s", got)
	}
	overdue(t, l, later.ID)
	expireAll(t, l)
	wantBought(2)
	setLimit(0)
	again := newOrder(p.ID, 1, 5, "")
	mustDecide(t, l, p.ID, again)
	overdue(t, l, again.ID)
	expireAll(t, l)
	wantBought(2)
}

// TestAuditOfHolds: whatever is changed by hand of what has become of held orders is noticed.
func TestAuditOfHolds(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"a hold is gone":      {`DELETE FROM holds WHERE state = 'completed'`},
		"of another quantity": {`UPDATE holds SET quantity = quantity + 1 WHERE state = 'completed'`},
		"of no order":         {`UPDATE holds SET order_id = x'01997d3f3f3f7f3fbf3f3f3f3f3f3f3f' LIMIT 1`},
		"not paid":            {`UPDATE holds SET paid_by = NULL WHERE state = 'completed'`},
		"revived": {`UPDATE holds SET state = 'completed', paid_by = 'x', returned_version = 0
			WHERE state = 'cancelled'`},
		"cancelled, not back":    {`UPDATE holds SET state = 'cancelled', paid_by = NULL WHERE state = 'completed'`},
		"an unknown state":       {`UPDATE holds SET state = 'odd' WHERE state = 'completed'`},
		"a return without order": {`UPDATE stock_ledger SET reason = 'restock' WHERE reason = 'return'`},
		"held for too long":      {`UPDATE holds SET pay_by = '2020-01-01' WHERE state = 'awaiting_payment'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(t)
			p := addHeldProduct(t, l, 10, 0)
			paid, gone, waits := newOrder(p.ID, 1, 1, ""), newOrder(p.ID, 2, 2, ""), newOrder(p.ID, 3, 3, "")
			mustDecide(t, l, p.ID, paid, gone, waits)
			if err := attempt(t, l, paid.ID); err != nil {
				t.Fatal(err)
			}
			endAttempt(t, l, paid.ID, true)
			overdue(t, l, gone.ID)
			expireAll(t, l)
			mustBeSound(t, l)
			mustBeSoundFromCheckpoint(t, l)

			for _, statement := range statements {
				exec(t, l, statement)
			}
			for _, options := range []AuditOptions{{All: true}, {}} {
				audits, err := l.AuditBooks(t.Context(), options)
				if err != nil {
					t.Fatal(err)
				}
				inCheckpoint := name == "a return without order" && !options.All // of rows that it does not read again
				if len(audits) != 1 || (len(audits[0].Problems) == 0) != inCheckpoint {
					t.Errorf("audit %+v: %+v", options, audits)
				}
			}
		})
	}
}

// mustBeSoundFromCheckpoint audits twice: the second time from what the first has left.
func mustBeSoundFromCheckpoint(t testing.TB, l *Ledger) {
	t.Helper()
	for range 2 {
		audits, err := l.AuditBooks(t.Context(), AuditOptions{margin: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range audits {
			if len(a.Problems) > 0 {
				t.Errorf("product %d: %v", a.ID, a.Problems)
			}
		}
	}
}

// TestHoldsModel does what buyers, providers and workers do in random order, and compares each order with what it must
// have become.
func TestHoldsModel(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.SampledFrom([]int64{0, 4}).Draw(rt, "limit")
		p := addHeldProduct(t, l, 12, limit)
		type held struct {
			order    order.Order
			state    order.Status
			attempts int
			late     bool
		}
		var orders []*held
		free, bought := int64(12), map[order.UserID]int64{}
		settle := func(h *held) {
			if h.state == order.AwaitingPayment && h.late && h.attempts > 0 {
				h.state = order.Closing
			}
			if h.attempts == 0 && (h.state == order.AwaitingPayment && h.late || h.state == order.Closing) {
				h.state = order.Cancelled
				free += h.order.Quantity
				bought[h.order.UserID] -= h.order.Quantity
			}
		}
		pick := func(rt *rapid.T) *held {
			if len(orders) == 0 {
				rt.Skip("no orders")
			}
			return rapid.SampledFrom(orders).Draw(rt, "order")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"decide": func(rt *rapid.T) {
				o := newOrder(p.ID, order.UserID(rapid.IntRange(1, 3).Draw(rt, "user")),
					rapid.Int64Range(1, 4).Draw(rt, "quantity"), "")
				want := order.Held
				if o.Quantity > free || limit > 0 && bought[o.UserID]+o.Quantity > limit {
					want = order.Failed
				}
				if got := mustDecide(t, l, p.ID, o)[0].Status; got != want {
					rt.Fatalf("decided as %s, want %s", got, want)
				}
				if want == order.Held {
					free -= o.Quantity
					bought[o.UserID] += o.Quantity
					orders = append(orders, &held{order: o, state: order.AwaitingPayment})
				}
			},
			"attempt": func(rt *rapid.T) {
				h := pick(rt)
				if err := attempt(t, l, h.order.ID); (err == nil) != (h.state == order.AwaitingPayment && !h.late) {
					rt.Fatalf("attempt of %+v: %v", h, err)
				} else if err == nil {
					h.attempts++
				}
			},
			"end": func(rt *rapid.T) {
				h, paid := pick(rt), rapid.Bool().Draw(rt, "paid")
				if h.attempts == 0 {
					rt.Skip("no attempts")
				}
				endAttempt(t, l, h.order.ID, paid)
				if h.attempts--; paid && (h.state == order.AwaitingPayment || h.state == order.Closing) {
					h.state = order.Completed
				}
			},
			"cancel": func(rt *rapid.T) {
				h := pick(rt)
				_, _, err := l.CancelOrder(t.Context(), h.order.ID, ByBuyer)
				if (err != nil) != (h.state == order.Completed) {
					rt.Fatalf("cancel %+v: %v", h, err)
				}
				if h.state == order.AwaitingPayment {
					h.state = order.Closing
				}
				settle(h)
			},
			"time passes": func(rt *rapid.T) {
				h := pick(rt)
				if h.state == order.AwaitingPayment {
					overdue(t, l, h.order.ID)
					h.late = true
				}
			},
			"expire": func(*rapid.T) {
				expireAll(t, l)
				for _, h := range orders {
					settle(h)
				}
			},
			"": func(rt *rapid.T) {
				for _, h := range orders {
					if got, err := l.Hold(t.Context(), h.order.ID); err != nil || got.State != h.state {
						rt.Fatalf("order %+v is %+v, %v", h, got, err)
					}
				}
				if got := mustProduct(t, l, p.ID).Stock; got != free {
					rt.Fatalf("%d units, want %d", got, free)
				}
			},
		})
		mustBeSound(t, l)
	})
}

// TestExpireOfBuckets: the units of an order go back to the bucket that they came from.
func TestExpireOfBuckets(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p, err := l.AddProduct(t.Context(), order.Product{
		Name: "thing", Price: 1, Currency: "EUR", Stock: 10, Buckets: 2, Payment: order.PaymentRequired,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range p.StockIDs() {
		o := newOrder(bucket, order.UserID(1+rand.Int64N(100)), 2, "")
		mustDecide(t, l, bucket, o)
		overdue(t, l, o.ID)
		returned := expireAll(t, l)
		if len(returned) != 1 || returned[0].StockID != bucket || mustProduct(t, l, bucket).Stock != 5 {
			t.Errorf("bucket %d: %+v", bucket, returned)
		}
	}
	mustBeSound(t, l)
}

// TestCancelLocked: a worker passes over an order that is being paid, and does not wait for it.
func TestCancelLocked(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10, 0)
	busy, idle := newOrder(p.ID, 1, 1, ""), newOrder(p.ID, 2, 1, "")
	mustDecide(t, l, p.ID, busy, idle)
	overdue(t, l, busy.ID, idle.ID)
	stop := errors.New("undone")
	err := l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		if _, err := LockHold(t.Context(), tx, busy.ID); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		returned, err := l.Expire(ctx, p.ID, []order.OrderID{busy.ID, idle.ID})
		if err != nil || len(returned) != 1 || returned[0].OrderID != idle.ID {
			return fmt.Errorf("expired %+v, %w", returned, err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestOverdue: an order that nobody cancels is late after an hour, and one that is closing, whose provider may take
// days to say that it is not paid, after four days.
func TestOverdue(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addHeldProduct(t, l, 10, 0)
	waits, closing := newOrder(p.ID, 1, 1, ""), newOrder(p.ID, 2, 1, "")
	mustDecide(t, l, p.ID, waits, closing)
	if err := attempt(t, l, closing.ID); err != nil {
		t.Fatal(err)
	}
	overdue(t, l, closing.ID)
	expireAll(t, l)
	for _, test := range []struct {
		age  time.Duration
		want int64
	}{{59 * time.Minute, 0}, {61 * time.Minute, 1}, {95 * time.Hour, 1}, {97 * time.Hour, 2}} {
		exec(t, l, `UPDATE holds SET pay_by = ?, due_at = IF(state = 'awaiting_payment', pay_by, due_at)`,
			mysql.Now().Add(-test.age))
		if got, err := l.CountOverdue(t.Context()); err != nil || got != test.want {
			t.Errorf("after %s: %d overdue, error %v, want %d", test.age, got, err, test.want)
		}
		audits, err := l.Audit(t.Context())
		if err != nil || len(audits) != 1 || (len(audits[0].Problems) > 0) != (test.want > 0) {
			t.Errorf("after %s: the audit finds %+v, error %v", test.age, audits, err)
		}
	}
}
