package till

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
)

// In a rush payments come faster than a transaction each can record them. Those that come while others are recorded
// share the next transaction, as long as they are plain: the only attempt that may yet be paid pays an order that waits
// for it. All others are recorded alone, and so are all of a transaction that fails.

const (
	// maxTogether bounds how many payments share a transaction, and maxTransactions how many of these run.
	maxTogether, maxTransactions = 64, 2
	// togetherLimit bounds such a transaction. None of its statements waits for a lock on an order.
	togetherLimit = 5 * time.Second
)

// told is what a provider has told, on its way to be recorded.
type told struct {
	provider string
	payment.Notice
	source Source
	body   []byte

	completed bool          // it is recorded, and has completed an order
	done      chan struct{} // closed when completed is known
}

// recordTogether records what a provider has told with what others have at the same time, and reports whether it has
// completed an order. Otherwise nothing is recorded, and it is to be recorded alone.
func (t *Till) recordTogether(ctx context.Context, n *told) (completed bool, err error) {
	t.once.Do(func() {
		t.together.Do, t.together.Size, t.together.Parallel = t.recordBatch, maxTogether, maxTransactions
	})
	n.done = make(chan struct{})
	t.together.Add(struct{}{}, n)
	select {
	case <-n.done:
		return n.completed, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (t *Till) recordBatch(_ struct{}, together []*told) {
	ctx, cancel := context.WithTimeout(context.Background(), togetherLimit)
	defer cancel()
	plain, err := t.recordPlain(ctx, together)
	for _, n := range together {
		n.completed = err == nil && slices.Contains(plain, n)
		close(n.done)
	}
}

// recordPlain records those which are plain in one transaction, and returns them. After an error nobody knows whether
// they are recorded.
func (t *Till) recordPlain(ctx context.Context, together []*told) (plain []*told, err error) {
	orders, err := t.ordersOf(ctx, together)
	if err != nil || len(orders) == 0 {
		return nil, err
	}

	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		holds, err := ledger.LockFreeHolds(ctx, tx, orders)
		if err != nil {
			return err
		}
		attempts, err := lockAttempts(ctx, tx, together)
		if err != nil {
			return err
		}
		if plain = t.plain(together, holds, attempts); len(plain) == 0 {
			return nil
		}
		if err := writePlain(ctx, tx, plain); err != nil {
			return err
		}
		return failpoint.Before(failpoint.RecordCommit)
	})
	if err == nil && len(plain) > 0 {
		err = failpoint.After(failpoint.RecordCommit)
	}
	return plain, err
}

// ordersOf reads which orders are paid by the attempts that providers have told of. An attempt never pays another one.
func (t *Till) ordersOf(ctx context.Context, together []*told) ([]order.OrderID, error) {
	query, args, err := sqlx.In(`SELECT order_id FROM payments WHERE number IN (?) AND order_id IS NOT NULL`,
		numbersOf(together))
	if err != nil {
		return nil, fmt.Errorf("find the orders of payments: %w", err)
	}
	var ids []mysql.UUID
	if err := t.DB.SelectContext(ctx, &ids, query, args...); err != nil {
		return nil, fmt.Errorf("find the orders of payments: %w", err)
	}
	orders := make([]order.OrderID, len(ids))
	for i, id := range ids {
		orders[i] = order.OrderID(id)
	}
	return orders, nil
}

func numbersOf(together []*told) [][]byte {
	numbers := make([][]byte, len(together))
	for i, n := range together {
		numbers[i] = cut(n.Attempt, maxNumberBytes)
	}
	return numbers
}

// lockAttempts locks and reads attempts, by their numbers, after the holds of their orders. Those that others have
// locked are left out.
func lockAttempts(ctx context.Context, tx *sqlx.Tx, together []*told) (map[string]*Payment, error) {
	query, args, err := sqlx.In(`SELECT `+paymentColumns+` FROM payments WHERE number IN (?)
		ORDER BY number FOR UPDATE SKIP LOCKED`, numbersOf(together))
	if err != nil {
		return nil, fmt.Errorf("lock payments: %w", err)
	}
	var rows []paymentRow
	if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("lock payments: %w", err)
	}
	attempts := make(map[string]*Payment, len(rows))
	for i := range rows {
		p := rows[i].payment()
		attempts[p.Number] = &p
	}
	return attempts, nil
}

// plain picks those that pay an order which waits for it, or is closing, by the only attempt that may yet be paid.
func (t *Till) plain(together []*told, holds map[order.OrderID]ledger.Hold, attempts map[string]*Payment) []*told {
	var plain []*told
	for _, n := range together {
		p := attempts[n.Attempt]
		if p == nil || p.Provider != n.provider || !p.live() || n.Kind != payment.Paid || !p.fits(n.Notice) ||
			n.Simulated && !t.TestMode {
			continue
		}
		hold, locked := holds[p.OrderID]
		waits := hold.State == order.AwaitingPayment || hold.State == order.Closing
		if !locked || !waits || hold.Attempts != 1 {
			continue
		}
		plain = append(plain, n)
		delete(attempts, n.Attempt) // whoever tells it again is not plain
	}
	return plain
}

// writePlain writes payments, each of which completes its order.
func writePlain(ctx context.Context, tx *sqlx.Tx, plain []*told) error {
	now, numbers := mysql.Now(), numbersOf(plain)
	events := mysql.NewInsert("payment_events", `provider, number, kind, event_key, source, received_at, body`)
	var fees, references []any
	for i, n := range plain {
		events.Row()
		events.Bytes([]byte(n.provider))
		events.Bytes(numbers[i])
		events.Bytes([]byte(n.Kind))
		events.Bytes([]byte{})
		events.Bytes([]byte(n.source))
		events.Time(now)
		events.Bytes(cut(string(n.body), maxEventBytes))
		fees = append(fees, numbers[i], n.Fee)
		references = append(references, numbers[i], bytesOrNil(n.Reference))
	}
	if err := events.Exec(ctx, tx); err != nil {
		return fmt.Errorf("keep the events: %w", err)
	}

	when := strings.Repeat(` WHEN ? THEN ?`, len(plain))
	query, in, err := sqlx.In(`WHERE number IN (?)`, numbers)
	if err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE payments SET state = 'paid', paid_at = ?, next_at = NULL,
			fee = CASE number`+when+` END, payment_reference = CASE number`+when+` END `+query,
			slices.Concat([]any{now}, fees, references, in)...)
	}
	if err != nil {
		return fmt.Errorf("note that they are paid: %w", err)
	}
	return ledger.CompleteHolds(ctx, tx, numbers)
}
