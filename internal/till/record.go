package till

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/wallet"
)

// Source is how we have learned of something.
type Source string

// The sources.
const (
	FromNotice  Source = "notice"  // the provider has told us
	FromQuery   Source = "query"   // we have asked it
	FromCapture Source = "capture" // we have taken the money
	FromClose   Source = "close"   // we wanted to close the attempt
)

// Outcome is what a notice has done.
type Outcome string

// The outcomes of a notice.
const (
	// OutcomeRepeated: it was known.
	OutcomeRepeated Outcome = "repeated"
	// OutcomeNoted: it changes nothing.
	OutcomeNoted Outcome = "noted"
	// OutcomeCompleted: it has paid an order, or points.
	OutcomeCompleted Outcome = "completed"
	// OutcomeRefund: it has paid nothing, and its money goes back.
	OutcomeRefund Outcome = "refund"
	// OutcomeMismatch: it does not fit the attempt. An operator must see to it.
	OutcomeMismatch Outcome = "mismatch"
	// OutcomeUnknown: it is about no attempt of ours.
	OutcomeUnknown Outcome = "unknown"
	// OutcomeSimulated: no money has moved.
	OutcomeSimulated Outcome = "simulated"
)

const (
	// maxEventBytes bounds what is kept of a notice; providers send some thousand bytes.
	maxEventBytes = 64 << 10
	// maxKeyBytes and maxNumberBytes are what the columns take.
	maxKeyBytes    = 128
	maxNumberBytes = 64
)

// Record records what a provider has told of an attempt, in one transaction with all that follows from it; what it has
// told before changes nothing. A payment completes the order that waits for it, or is closing, or fills the wallet.
// Otherwise the order was paid by another attempt, or was cancelled: then the money goes back. One that does not fit
// the attempt completes nothing, and goes to the operator's list.
//
// It is the one function behind notices, queries, captures and the closing of attempts.
func (t *Till) Record(ctx context.Context, provider string, n payment.Notice, source Source,
	body []byte) (outcome Outcome, err error) {
	if err := failpoint.Before(failpoint.Record); err != nil {
		return "", err
	}
	completed := false
	if n.Kind == payment.Paid {
		completed, err = t.recordTogether(ctx, &told{provider: provider, Notice: n, source: source, body: body})
	}
	if outcome = OutcomeCompleted; err == nil && !completed {
		outcome, err = t.recordAlone(ctx, provider, n, source, body)
	}
	if err != nil {
		return "", fmt.Errorf("record what %s says of payment %.20q: %w", provider, n.Attempt, err)
	}

	t.count(provider, string(outcome))
	log := slog.With("provider", provider, "payment", n.Attempt)
	switch outcome {
	case OutcomeMismatch:
		log.Error("payment: what a provider has told does not fit the attempt; it completes nothing, and an operator "+
			"must see to its money", "amount", n.Amount, "currency", n.Currency,
			"see", "docs/payments.md#what-does-not-fit")
	case OutcomeUnknown:
		log.Warn("payment: a provider has told of an attempt that is not ours")
	case OutcomeRefund:
		log.Info("payment: money came that completes nothing, and goes back")
	}
	return outcome, nil
}

// recordAlone is Record in a transaction that nothing else shares.
func (t *Till) recordAlone(ctx context.Context, provider string, n payment.Notice, source Source,
	body []byte) (outcome Outcome, err error) {
	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		if outcome, err = t.record(ctx, tx, provider, n, source, body); err != nil {
			return err
		}
		return failpoint.Before(failpoint.RecordCommit)
	})
	if err == nil {
		err = failpoint.After(failpoint.RecordCommit)
	}
	return outcome, err
}

// record is recordAlone in its transaction: locks go from the order's hold to the attempt and then to the wallet.
func (t *Till) record(ctx context.Context, tx *sqlx.Tx, provider string, n payment.Notice, source Source,
	body []byte) (Outcome, error) {
	p, hold, err := lock(ctx, tx, n.Attempt)
	if errors.Is(err, mysql.ErrNotFound) || err == nil && p.Provider != provider {
		return OutcomeUnknown.unless(addEvent(ctx, tx, provider, "unknown ", n, source, body))
	}
	if err != nil {
		return "", err
	}

	switch {
	case n.Kind != payment.Paid:
		return OutcomeNoted.unless(addEvent(ctx, tx, provider, "", n, source, body))
	case n.Simulated && !t.TestMode:
		return OutcomeSimulated.unless(addEvent(ctx, tx, provider, "simulated ", n, source, body))
	case !p.fits(n):
		known, err := addEvent(ctx, tx, provider, "mismatch ", n, source, body)
		if err != nil || known {
			return OutcomeRepeated, err
		}
		return OutcomeMismatch, mismatched(ctx, tx, &p, &hold, n)
	}

	known, err := addEvent(ctx, tx, provider, "", n, source, body)
	if err != nil || known {
		return OutcomeRepeated, err
	}
	return t.paid(ctx, tx, &p, &hold, n)
}

// lock locks the hold of the order that an attempt pays, if it pays one, and then the attempt.
func lock(ctx context.Context, tx *sqlx.Tx, number string) (p Payment, hold ledger.Hold, err error) {
	hold, err = ledger.LockHoldOf(ctx, tx, number)
	if err != nil && !errors.Is(err, mysql.ErrNotFound) { // as of one that buys points
		return Payment{}, ledger.Hold{}, err
	}
	p, _, err = read(ctx, tx, number, ` FOR UPDATE`)
	return p, hold, err
}

// unless is the outcome of a notice that changes nothing, unless it was known.
func (o Outcome) unless(known bool, err error) (Outcome, error) {
	if known {
		return OutcomeRepeated, err
	}
	return o, err
}

// fits reports whether what was paid is what was to be paid. That it was paid to us is for the provider to compare.
func (p *Payment) fits(n payment.Notice) bool {
	return n.Amount == p.Amount && n.Currency == p.Currency
}

// paid notes that an attempt is paid, and what follows from it.
func (t *Till) paid(
	ctx context.Context, tx *sqlx.Tx, p *Payment, hold *ledger.Hold, n payment.Notice,
) (Outcome, error) {
	live := p.live()
	now := mysql.Now()
	_, err := tx.ExecContext(ctx, `UPDATE payments SET state = 'paid', paid_at = ?, next_at = NULL, fee = ?,
		payment_reference = ? WHERE number = ?`, now, n.Fee, bytesOrNil(n.Reference), []byte(p.Number))
	if err != nil {
		return "", fmt.Errorf("note that it is paid: %w", err)
	}

	if p.isTopUp() {
		_, err := wallet.TopUpIn(ctx, tx, p.UserID, p.Points, p.Number)
		return OutcomeCompleted, err
	}

	if live {
		hold.Attempts--
	}
	outcome, reason := OutcomeRefund, ReasonSecond
	switch hold.State {
	case order.AwaitingPayment, order.Closing:
		outcome, hold.State, hold.PaidBy = OutcomeCompleted, order.Completed, p.Number
	case order.Cancelled:
		reason = ReasonLate
	}
	if outcome == OutcomeRefund {
		if err := insertRefund(ctx, tx, t.automatic(p, reason, p.Amount)); err != nil {
			return "", err
		}
	} else if hold.Attempts > 0 { // which are to be closed now
		if err := wakeOthers(ctx, tx, p); err != nil {
			return "", err
		}
	}
	return outcome, hold.Write(ctx, tx)
}

// wakeOthers has the other attempts to pay an order looked at now.
func wakeOthers(ctx context.Context, tx *sqlx.Tx, p *Payment) error {
	_, err := tx.ExecContext(ctx, `UPDATE payments SET next_at = ? WHERE order_id = ? AND number <> ?
		AND state IN ('created', 'open')`, mysql.NullMillis(mysql.Now()), orderRef(p.OrderID), []byte(p.Number))
	if err != nil {
		return fmt.Errorf("wake other attempts: %w", err)
	}
	return nil
}

// mismatched puts money that does not fit its attempt on the operator's list. For its provider the attempt is over, so
// that it is closed; should its own money come all the same, it is recorded.
func mismatched(ctx context.Context, tx *sqlx.Tx, p *Payment, hold *ledger.Hold, n payment.Notice) error {
	if err := closeIn(ctx, tx, p, hold); err != nil {
		return err
	}
	if n.Amount <= 0 || !order.IsCurrency(n.Currency) {
		return nil // no sum of which anything could be said; the event is kept
	}
	return insertRefund(ctx, tx, refundRow{
		Number: newNumber(), Attempt: []byte(p.Number), Provider: p.Provider, OrderID: orderRef(p.OrderID),
		Amount: n.Amount, Currency: n.Currency, State: RefundManual, Reason: ReasonMismatch,
		Note: fmt.Sprintf("%d %s were paid, and not %d %s", n.Amount, n.Currency, p.Amount, p.Currency),
	})
}

// addEvent keeps what a provider has told, and reports whether it was known. An attempt is paid once, however many
// notices say so, each with a key of its own.
func addEvent(ctx context.Context, tx *sqlx.Tx, provider, prefix string, n payment.Notice, source Source,
	body []byte) (known bool, err error) {
	key := n.EventKey
	if n.Kind == payment.Paid && prefix == "" {
		key = ""
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO payment_events
			(provider, number, kind, event_key, source, received_at, body)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, provider, cut(n.Attempt, maxNumberBytes), []byte(prefix+string(n.Kind)),
		cut(key, maxKeyBytes), source, mysql.Now(), cut(string(body), maxEventBytes))
	if mysql.ErrorNumber(err) == mysql.DuplicateEntry {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("keep the event: %w", err)
	}
	return false, nil
}

func cut(text string, most int) []byte { return []byte(text[:min(len(text), most)]) }

// markClosed notes that an attempt cannot be paid any more. An order that is closing is cancelled when none of its
// attempts can.
func (t *Till) markClosed(ctx context.Context, number string) error {
	if err := failpoint.Before(failpoint.CloseCommit); err != nil {
		return err
	}
	err := t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		p, hold, err := lock(ctx, tx, number)
		if err != nil {
			return err
		}
		return closeIn(ctx, tx, &p, &hold)
	})
	if err == nil {
		err = failpoint.After(failpoint.CloseCommit)
	}
	if err != nil {
		return fmt.Errorf("close payment %s: %w", number, err)
	}
	return nil
}

// closeIn is markClosed in a transaction that has locked the hold and the attempt.
func closeIn(ctx context.Context, tx *sqlx.Tx, p *Payment, hold *ledger.Hold) error {
	if !p.live() {
		return nil
	}
	_, err := tx.ExecContext(ctx, `UPDATE payments SET state = 'closed', next_at = NULL WHERE number = ?`,
		[]byte(p.Number))
	if err != nil {
		return fmt.Errorf("close the attempt: %w", err)
	}
	if p.isTopUp() {
		return nil
	}
	hold.Attempts--
	return hold.Write(ctx, tx)
}
