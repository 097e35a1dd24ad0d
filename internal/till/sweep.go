package till

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
)

// They are of one measure, so that a hurried test keeps their proportions.
var (
	// lease is for how long whoever asks a provider has an attempt or a refund for himself: longer than all that it
	// does takes, since each call of a provider is bounded in time.
	lease = failpoint.Wait(time.Minute)
	// CallTimeout bounds all that is done with one attempt or refund at a time.
	CallTimeout = failpoint.Wait(55 * time.Second)
	// firstRetry and longestRetry are the waits after a provider has not answered.
	firstRetry   = failpoint.Wait(2 * time.Second)
	longestRetry = failpoint.Wait(10 * time.Minute)
)

// OpenCount counts what is not settled yet.
type OpenCount struct {
	Orders  int64 `db:"orders"`  // that await their payment, or are closing
	Refunds int64 `db:"refunds"` // that are due at a provider
	Returns int64 `db:"returns"` // orders of which Redis may not have the units that came back
}

// Open counts what is not settled yet.
func (t *Till) Open(ctx context.Context) (open OpenCount, err error) {
	err = t.DB.GetContext(ctx, &open, `SELECT
		(SELECT COUNT(*) FROM holds WHERE state IN ('awaiting_payment', 'closing')) AS orders,
		(SELECT COUNT(*) FROM refunds WHERE state = 'due') AS refunds,
		(SELECT COUNT(*) FROM returned_units) AS returns`)
	if err != nil {
		return OpenCount{}, fmt.Errorf("count what is not settled: %w", err)
	}
	return open, nil
}

// Due finds up to limit attempts of which a provider is to be asked now, those that wait for longest first: to close
// them, when their order does not await its payment any more, or to find out whether they were paid.
func (t *Till) Due(ctx context.Context, provider string, limit int) ([]string, error) {
	var numbers []string
	err := t.DB.SelectContext(ctx, &numbers, `SELECT number FROM payments FORCE INDEX (payments_next)
		WHERE provider = ? AND next_at <= ? ORDER BY next_at LIMIT ?`, provider, mysql.Now(), mysql.PageSize(limit))
	if err != nil {
		return nil, fmt.Errorf("find payments that are due: %w", err)
	}
	return numbers, nil
}

// Sweep asks the provider of an attempt how it stands, and closes it if its order does not await its payment any more.
// What it finds is recorded. It does nothing if the attempt is not due, which it is not while somebody else has it.
func (t *Till) Sweep(ctx context.Context, number string) error {
	p, ok, err := t.claim(ctx, number)
	if err != nil || !ok {
		return err
	}
	if err := t.sweep(ctx, &p); err != nil {
		return fmt.Errorf("sweep payment %s: %w", number, err)
	}
	return nil
}

// claim takes an attempt for the length of a lease, or reports that somebody else has it, or that it is over.
func (t *Till) claim(ctx context.Context, number string) (Payment, bool, error) {
	p, next, err := read(ctx, t.DB, number, "")
	now := mysql.Now()
	if err != nil || !next.Valid || next.Time.After(now) || !p.live() {
		return p, false, err
	}
	result, err := t.DB.ExecContext(ctx, `UPDATE payments SET next_at = ?, tries = tries + 1
		WHERE number = ? AND next_at = ?`, mysql.NullMillis(now.Add(lease)), []byte(number), next)
	if err != nil {
		return p, false, fmt.Errorf("claim payment %s: %w", number, err)
	}
	n, err := result.RowsAffected()
	p.Tries++
	return p, n == 1, err
}

// Sync is Sweep for somebody who wants to know now: a buyer who comes back from the provider, or an operator. It does
// not close an attempt that may yet be paid, and takes the money if the buyer has approved.
func (t *Till) Sync(ctx context.Context, number string) (Payment, error) {
	p, err := t.Payment(ctx, number)
	if err != nil || !p.live() {
		return p, err
	}
	if err := t.ask(ctx, &p); err != nil {
		return p, fmt.Errorf("%w: %w", ErrProvider, err)
	}
	return t.Payment(ctx, number)
}

// sweep does what is due of an attempt that is claimed, and says when to come again.
func (t *Till) sweep(ctx context.Context, p *Payment) error {
	awaited, err := t.awaited(ctx, p)
	if err != nil {
		return err
	}
	if awaited {
		err = t.ask(ctx, p)
	} else {
		err = t.close(ctx, p)
	}
	if err != nil && !errors.Is(err, payment.ErrUnknown) {
		err = errors.Join(err, t.later(ctx, p, longestRetry)) // it is no fault of the moment
		return err
	}

	wait := backoff(firstPoll, longestPoll, p.Tries-1)
	if !awaited || err != nil {
		wait = backoff(firstRetry, longestRetry, p.Tries-1)
	}
	if err != nil {
		slog.Warn("payment: a provider does not say how an attempt stands; it is asked again", "provider", p.Provider,
			"payment", p.Number, "error", err)
	}
	return t.later(ctx, p, wait)
}

// awaited reports whether what an attempt pays may still be paid by it.
func (t *Till) awaited(ctx context.Context, p *Payment) (bool, error) {
	if p.isTopUp() {
		return time.Now().Before(p.ExpiresAt), nil
	}
	hold, err := ledger.New(t.DB).Hold(ctx, p.OrderID)
	return hold.State == order.AwaitingPayment, err
}

// later has an attempt looked at again after a wait, unless it is over or was woken meanwhile.
func (t *Till) later(ctx context.Context, p *Payment, wait time.Duration) error {
	now := mysql.Now()
	_, err := t.DB.ExecContext(ctx, `UPDATE payments SET next_at = ? WHERE number = ? AND next_at > ?
		AND state IN ('created', 'open')`, mysql.NullMillis(now.Add(wait)), []byte(p.Number), now)
	if err != nil {
		return fmt.Errorf("put payment %s off: %w", p.Number, err)
	}
	return nil
}

// call makes a call of a provider between the points where it can be made to fail.
func call(f func() (payment.State, payment.Notice, error)) (payment.State, payment.Notice, error) {
	if err := failpoint.Before(failpoint.Provider); err != nil {
		return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
	}
	state, n, err := f()
	if err == nil {
		if err = failpoint.After(failpoint.Provider); err != nil {
			return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
		}
	}
	return state, n, err
}

// ask asks how an attempt stands, and takes its money if the buyer has approved. What is paid is recorded.
func (t *Till) ask(ctx context.Context, p *Payment) error {
	by, err := t.mustProvider(p.Provider)
	if err != nil {
		return err
	}
	if offer, ok := by.Offers(p.Method, p.Currency); ok && offer.Captures && p.Reference != "" {
		return t.Capture(ctx, p.Number)
	}
	state, n, err := call(func() (payment.State, payment.Notice, error) { return by.Query(ctx, t.attempt(p)) })
	if err != nil || state != payment.Taken {
		return err
	}
	_, err = t.Record(ctx, p.Provider, n, FromQuery, nil)
	return err
}

// Capture takes the money of an attempt whose buyer has approved. That it is about to is written first: whoever closes
// the attempt then must not take it for one that nobody can pay.
func (t *Till) Capture(ctx context.Context, number string) error {
	p, begun, err := t.beginCapture(ctx, number)
	if err != nil || !begun {
		return err
	}
	return t.capture(ctx, &p)
}

// beginCapture notes that the money of an attempt is about to be taken, or reports that it must not be.
func (t *Till) beginCapture(ctx context.Context, number string) (p Payment, begun bool, err error) {
	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		begun = false
		var hold ledger.Hold
		var err error
		p, hold, err = lock(ctx, tx, number)
		if err != nil || !p.live() || p.Reference == "" {
			return err
		}
		now := mysql.Now()
		if p.CapturedAt.IsZero() && (!p.isTopUp() && !hold.Payable(now) || p.isTopUp() && !now.Before(p.ExpiresAt)) {
			return nil
		}
		begun = true
		_, err = tx.ExecContext(ctx, `UPDATE payments SET captured_at = COALESCE(captured_at, ?) WHERE number = ?`, now,
			[]byte(number))
		return err
	})
	if err != nil {
		return p, false, fmt.Errorf("begin to capture payment %.20q: %w", number, err)
	}
	return p, begun, nil
}

// capture takes money, and records it. If it certainly was not taken, it is no more about to be.
func (t *Till) capture(ctx context.Context, p *Payment) error {
	by, err := t.mustProvider(p.Provider)
	if err != nil {
		return err
	}
	state, n, err := call(func() (payment.State, payment.Notice, error) { return by.Capture(ctx, t.attempt(p)) })
	switch {
	case err != nil && !errors.Is(err, payment.ErrRefused):
		return err
	case state == payment.Taken:
		_, err := t.Record(ctx, p.Provider, n, FromCapture, nil)
		return err
	}
	p.CapturedAt = time.Time{}
	_, err = t.DB.ExecContext(ctx, `UPDATE payments SET captured_at = NULL WHERE number = ? AND captured_at IS NOT NULL
		AND state IN ('created', 'open')`, []byte(p.Number))
	if err != nil {
		return fmt.Errorf("note that payment %s was not captured: %w", p.Number, err)
	}
	return nil
}

// close sees to it that an attempt cannot be paid any more, or finds that it was. A provider that does not know it is
// told of it once more, under the same number: what was on its way to it would be paid otherwise.
func (t *Till) close(ctx context.Context, p *Payment) error {
	by, err := t.mustProvider(p.Provider)
	if err != nil {
		return err
	}
	if !p.CapturedAt.IsZero() { // somebody was about to take the money, and nobody knows whether he did
		if err := t.capture(ctx, p); err != nil || !p.CapturedAt.IsZero() {
			return err
		}
	}

	again := func() (payment.State, payment.Notice, error) { return by.Close(ctx, t.attempt(p)) }
	state, n, err := call(again)
	if err == nil && state == payment.NotFound {
		page, startErr := by.Start(ctx, t.attempt(p))
		if startErr != nil && !errors.Is(startErr, payment.ErrRefused) {
			return startErr
		}
		if page.Reference != "" {
			if err := t.markOpen(ctx, p.Number, page.Reference); err != nil {
				return err
			}
			p.Reference = page.Reference
		}
		state, n, err = call(again)
	}
	switch {
	case err != nil:
		return err
	case state == payment.Taken:
		_, err := t.Record(ctx, p.Provider, n, FromClose, nil)
		return err
	case state == payment.Lapsed:
		return t.markClosed(ctx, p.Number)
	}
	return nil
}

// nextRetry is when to come again after so many tries, for a column.
func nextRetry(tries int64) sql.NullTime {
	return mysql.NullMillis(mysql.Now().Add(backoff(firstRetry, longestRetry, tries)))
}
