package till

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/plaintext"
	"stampede/internal/wallet"
)

// RefundState is how a refund stands.
type RefundState string

// The states of a refund.
const (
	// RefundDue: the provider is asked for it until the answer is known.
	RefundDue RefundState = "due"
	// RefundManual: an operator makes it by hand, since the provider does not.
	RefundManual RefundState = "manual"
	// RefundDone: the money is back.
	RefundDone RefundState = "done"
)

// Reason is why money goes back.
type Reason string

// The reasons of refunds.
const (
	// ReasonLate: the order was cancelled before the money came.
	ReasonLate Reason = "late"
	// ReasonSecond: the order was paid already.
	ReasonSecond Reason = "second"
	// ReasonMismatch: what was paid is not what was to be paid.
	ReasonMismatch Reason = "mismatch"
	// ReasonStaff: staff gives back what an order has cost, or a part of it.
	ReasonStaff Reason = "staff"
)

const (
	// MaxNoteChars bounds the reason that staff gives, in characters.
	MaxNoteChars = 200
	// maxNoteChars is what the column takes.
	maxNoteChars = 255

	actRefund     = "order.refund"
	actRefundDone = "refund.done"
)

// RefundRecord is money, or points, that goes back.
type RefundRecord struct {
	Number string
	// Attempt is the one whose money it is, or empty if points go back.
	Attempt  string
	Provider string
	OrderID  order.OrderID
	// Amount is in minor units of Currency.
	Amount   int64
	Currency string
	State    RefundState
	Reason   Reason
	// Note is why, in words, or what the provider has said.
	Note string
	// Actor is who wanted it, and DoneBy who has made it by hand; empty if nobody had to.
	Actor, DoneBy     string
	CreatedAt, DoneAt time.Time
	Tries             int64
}

// refundRow is a row of the table refunds.
type refundRow struct {
	Number    string       `db:"number"`
	Attempt   []byte       `db:"attempt"`
	Provider  string       `db:"provider"`
	OrderID   []byte       `db:"order_id"`
	Amount    int64        `db:"amount"`
	Currency  string       `db:"currency"`
	State     RefundState  `db:"state"`
	Reason    Reason       `db:"reason"`
	Note      string       `db:"note"`
	Actor     string       `db:"actor"`
	DoneBy    string       `db:"done_by"`
	CreatedAt time.Time    `db:"created_at"`
	DoneAt    sql.NullTime `db:"done_at"`
	NextAt    sql.NullTime `db:"next_at"`
	Tries     int64        `db:"tries"`
}

const refundColumns = `number, attempt, provider, order_id, amount, currency, state, reason, note, actor, done_by,
	created_at, done_at, next_at, tries`

func (r *refundRow) record() RefundRecord {
	record := RefundRecord{
		Number: r.Number, Attempt: string(r.Attempt), Provider: r.Provider, Amount: r.Amount,
		Currency: r.Currency, State: r.State, Reason: r.Reason, Note: r.Note, Actor: r.Actor, DoneBy: r.DoneBy,
		CreatedAt: r.CreatedAt, DoneAt: r.DoneAt.Time, Tries: r.Tries,
	}
	copy(record.OrderID[:], r.OrderID)
	return record
}

// insertRefund writes a refund that is new.
func insertRefund(ctx context.Context, tx *sqlx.Tx, r refundRow) error {
	r.CreatedAt = mysql.Now()
	if r.State == RefundDue {
		r.NextAt = mysql.NullMillis(r.CreatedAt)
	}
	_, err := tx.NamedExecContext(ctx, `INSERT INTO refunds (`+refundColumns+`)
		VALUES (:number, :attempt, :provider, :order_id, :amount, :currency, :state, :reason, :note, :actor, :done_by,
			:created_at, :done_at, :next_at, :tries)`, r)
	if err != nil {
		return fmt.Errorf("insert a refund: %w", err)
	}
	return nil
}

// automatic is the refund of money that completes nothing, under the number of its attempt, so that there is one.
func (t *Till) automatic(p *Payment, reason Reason, amount int64) refundRow {
	row := refundRow{
		Number: p.Number, Attempt: []byte(p.Number), Provider: p.Provider, OrderID: orderRef(p.OrderID), Amount: amount,
		Currency: p.Currency, State: RefundDue, Reason: reason,
	}
	if !t.refunds(p) {
		row.State, row.Note = RefundManual, "the provider gives nothing back of what was paid in this way"
	}
	return row
}

// refunds reports whether the provider of an attempt gives money back.
func (t *Till) refunds(p *Payment) bool {
	by, ok := t.Provider(p.Provider)
	if !ok {
		return true // it may be again, when the refund is made
	}
	offer, ok := by.Offers(p.Method, p.Currency)
	return ok && offer.Refunds
}

// RefundRequest is what staff wants to give back of an order.
type RefundRequest struct {
	OrderID order.OrderID
	// Number tells this refund from another one: 1 to 32 letters and digits. The same call again changes nothing.
	Number string
	// Amount is in minor units, or points; 0 is all that is left.
	Amount int64
	// ReturnUnits puts the order's units on sale again, all of them.
	ReturnUnits bool
	// Note is why.
	Note string
}

// RefundOrder gives back what a completed order has cost, or a part of it, as staff that the context names. Points go
// back at once, and money when the provider is asked, which is soon. An order of which all is given back is refunded.
// Units that come back are returned, and left as reminders until Redis has them.
//
// ErrNotFound: there is no such order, or none that was paid. ErrTooMuch says what it says. ErrMismatch: the number was
// used for something else.
func (t *Till) RefundOrder(ctx context.Context, r RefundRequest) (refund RefundRecord, returned []order.Returned,
	err error) {
	fail := func(err error) (RefundRecord, []order.Returned, error) {
		return RefundRecord{}, nil, fmt.Errorf("refund order %s: %w", r.OrderID, err)
	}
	switch {
	case !payment.IsNumber(r.Number, payment.MaxRefundNumber):
		return fail(mysql.Invalidf("the number of a refund is 1 to %d letters and digits", payment.MaxRefundNumber))
	case r.Amount < 0:
		return fail(mysql.Invalidf("amount must be positive, or absent for all that is left"))
	case r.Note == "" || utf8.RuneCountInString(r.Note) > MaxNoteChars || plaintext.Fault(r.Note) != "":
		return fail(mysql.Invalidf("note must be 1 to %d characters, without control characters", MaxNoteChars))
	}
	hold, err := ledger.New(t.DB).Hold(ctx, r.OrderID) // whose product stays the same
	if err != nil {
		return fail(err)
	}
	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		refund, returned = RefundRecord{}, nil
		// Products are locked before holds, holds before attempts, and attempts before wallets; and all plain reads
		// come after the locks, or they would not see what somebody else has just given back.
		locked, err := ledger.LockToRefund(ctx, tx, hold.StockID, r.OrderID, r.ReturnUnits)
		if err == nil {
			refund, returned, err = t.refundIn(ctx, tx, r, locked)
		}
		return err
	})
	if mysql.ErrorNumber(err) == mysql.DuplicateEntry { // at the same time, for another order
		err = ErrMismatch
	}
	if err != nil {
		return fail(err)
	}
	return refund, returned, nil
}

// refundIn is RefundOrder in a transaction that has locked the order.
func (t *Till) refundIn(ctx context.Context, tx *sqlx.Tx, r RefundRequest,
	hold *ledger.ToRefund) (RefundRecord, []order.Returned, error) {
	known, err := readRefund(ctx, tx, r.Number, "")
	if err == nil {
		if known.OrderID != r.OrderID || known.Reason != ReasonStaff || r.Amount != 0 && known.Amount != r.Amount {
			return known, nil, ErrMismatch
		}
		return known, nil, nil
	}
	if !errors.Is(err, mysql.ErrNotFound) {
		return RefundRecord{}, nil, err
	}

	if hold.State != order.Completed && hold.State != order.Refunded {
		return RefundRecord{}, nil, fmt.Errorf("paid order %w", mysql.ErrNotFound)
	}
	paid, err := t.paidBy(ctx, tx, &hold.Hold)
	if err != nil {
		return RefundRecord{}, nil, err
	}
	before, err := refundsOf(ctx, tx, r.OrderID, ReasonStaff)
	if err != nil {
		return RefundRecord{}, nil, err
	}
	left := paid.Amount
	for _, b := range before {
		left -= b.Amount
	}
	if r.Amount == 0 {
		r.Amount = left
	}
	if r.Amount > left || r.Amount == 0 {
		return RefundRecord{}, nil, fmt.Errorf("%w: %d is left", ErrTooMuch, left)
	}

	returned, err := hold.TakeBack(ctx, tx)
	if err != nil {
		return RefundRecord{}, nil, err
	}
	row := t.automatic(&paid, ReasonStaff, r.Amount)
	row.Number, row.Note, row.Actor = r.Number, r.Note, mysql.Actor(ctx)
	if hold.PaidBy == ledger.PaidByPoints {
		row.Attempt, row.Provider, row.State = nil, "", RefundDone
		row.DoneAt = sql.NullTime{Time: mysql.Now(), Valid: true}
	}
	if err := insertRefund(ctx, tx, row); err != nil {
		return RefundRecord{}, nil, err
	}
	if row.State == RefundDone {
		if _, err := wallet.RefundIn(ctx, tx, hold.UserID, r.Amount, r.Number); err != nil {
			return RefundRecord{}, nil, err
		}
		if err := t.afterRefund(ctx, tx, &hold.Hold); err != nil {
			return RefundRecord{}, nil, err
		}
	}
	err = mysql.LogChange(ctx, tx, actRefund, "order "+r.OrderID.String(), nil, mysql.Values{
		"refund": r.Number, "amount": r.Amount, "currency": row.Currency, "units_returned": len(returned) > 0,
		"note": r.Note,
	})
	return row.record(), returned, err
}

// paidBy is the attempt that has paid an order, or one that stands for points.
func (t *Till) paidBy(ctx context.Context, tx *sqlx.Tx, hold *ledger.Hold) (Payment, error) {
	if hold.PaidBy != ledger.PaidByPoints {
		p, _, err := read(ctx, tx, hold.PaidBy, ` FOR UPDATE`)
		return p, err
	}
	points, err := wallet.SpentOn(ctx, tx, hold.UserID, hold.OrderID)
	return Payment{OrderID: hold.OrderID, Amount: points, Currency: order.PointsCurrency}, err
}

// afterRefund notes that an order is refunded, once all that it has cost is back.
func (t *Till) afterRefund(ctx context.Context, tx *sqlx.Tx, hold *ledger.Hold) error {
	paid, err := t.paidBy(ctx, tx, hold)
	if err != nil {
		return err
	}
	refunds, err := refundsOf(ctx, tx, hold.OrderID, ReasonStaff)
	if err != nil {
		return err
	}
	for _, r := range refunds {
		if r.State == RefundDone {
			paid.Amount -= r.Amount
		}
	}
	if paid.Amount > 0 || hold.State != order.Completed {
		return nil
	}
	hold.State = order.Refunded
	return hold.Write(ctx, tx)
}

// Refund reads a refund. ErrNotFound: there is none of this number.
func (t *Till) Refund(ctx context.Context, number string) (RefundRecord, error) {
	return readRefund(ctx, t.DB, number, "")
}

func readRefund(ctx context.Context, from sqlx.QueryerContext, number, suffix string) (RefundRecord, error) {
	row, err := readRefundRow(ctx, from, number, suffix)
	if err != nil {
		return RefundRecord{}, err
	}
	return row.record(), nil
}

func readRefundRow(ctx context.Context, from sqlx.QueryerContext, number, suffix string) (*refundRow, error) {
	var row refundRow
	err := sqlx.GetContext(ctx, from, &row, `SELECT `+refundColumns+` FROM refunds WHERE number = ?`+suffix,
		[]byte(number))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("refund %.32q %w", number, mysql.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("read refund %.32q: %w", number, err)
	}
	return &row, nil
}

// RefundsOf reads the refunds of an order, oldest first.
func (t *Till) RefundsOf(ctx context.Context, id order.OrderID) ([]RefundRecord, error) {
	return refundsOf(ctx, t.DB, id, "")
}

// refundsOf reads the refunds of an order for one reason, or for all.
func refundsOf(ctx context.Context, from sqlx.QueryerContext, id order.OrderID, reason Reason) ([]RefundRecord, error) {
	return selectRefunds(ctx, from, `WHERE order_id = ? AND (reason = ? OR ? = '') ORDER BY created_at, number`,
		mysql.UUID(id), reason, reason)
}

func selectRefunds(ctx context.Context, from sqlx.QueryerContext, suffix string, args ...any) ([]RefundRecord, error) {
	var rows []refundRow
	err := sqlx.SelectContext(ctx, from, &rows, `SELECT `+refundColumns+` FROM refunds `+suffix, args...)
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	refunds := make([]RefundRecord, len(rows))
	for i := range rows {
		refunds[i] = rows[i].record()
	}
	return refunds, nil
}

// DueRefunds finds up to limit refunds for which a provider is to be asked now.
func (t *Till) DueRefunds(ctx context.Context, provider string, limit int) ([]string, error) {
	var numbers []string
	err := t.DB.SelectContext(ctx, &numbers, `SELECT number FROM refunds FORCE INDEX (refunds_next)
		WHERE provider = ? AND next_at <= ? ORDER BY next_at LIMIT ?`, provider, mysql.Now(), mysql.PageSize(limit))
	if err != nil {
		return nil, fmt.Errorf("find refunds that are due: %w", err)
	}
	return numbers, nil
}

// MakeRefund asks a provider for a refund, under a lease and always under the same number, until the answer is known.
// One that the provider refuses goes to the operator's list. It does nothing if the refund is not due,
// which it is not while somebody else has it.
func (t *Till) MakeRefund(ctx context.Context, number string) error {
	row, err := readRefundRow(ctx, t.DB, number, "")
	if err != nil {
		return err
	}
	now := mysql.Now()
	if row.State != RefundDue || !row.NextAt.Valid || row.NextAt.Time.After(now) {
		return nil
	}
	result, err := t.DB.ExecContext(ctx, `UPDATE refunds SET next_at = ?, tries = tries + 1 WHERE number = ?
		AND next_at = ? AND state = ?`, mysql.NullMillis(now.Add(lease)), []byte(number), row.NextAt, RefundDue)
	if err != nil {
		return fmt.Errorf("claim refund %s: %w", number, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return err
	}

	asked, by, err := t.refundOf(ctx, row)
	if err != nil {
		return err
	}
	err = failpoint.Before(failpoint.Provider)
	if err == nil {
		if err = by.Refund(ctx, asked); err == nil {
			err = failpoint.After(failpoint.Provider)
		}
	}
	switch {
	case err == nil:
		return t.finishRefund(ctx, number, RefundDone, "", "")
	case errors.Is(err, payment.ErrRefused):
		slog.Warn("payment: a provider refuses a refund, which an operator must make by hand", "provider", by.Name(),
			"refund", number, "error", err, "see", "docs/payments.md#refunds-by-hand")
		return t.finishRefund(ctx, number, RefundManual, err.Error(), "")
	}
	slog.Warn("payment: it is not known whether a provider has made a refund; it is asked again", "provider", by.Name(),
		"refund", number, "error", err)
	_, laterErr := t.DB.ExecContext(ctx, `UPDATE refunds SET next_at = ? WHERE number = ? AND state = ?`,
		nextRetry(row.Tries), []byte(number), RefundDue)
	return laterErr
}

// refundOf is what a provider is told of a refund, and the provider.
func (t *Till) refundOf(ctx context.Context, row *refundRow) (payment.Refund, payment.Provider, error) {
	p, err := t.Payment(ctx, string(row.Attempt))
	if err != nil {
		return payment.Refund{}, nil, err
	}
	by, err := t.mustProvider(p.Provider)
	if err != nil {
		return payment.Refund{}, nil, fmt.Errorf("refund %s: %w", row.Number, err)
	}
	return payment.Refund{Number: row.Number, Of: t.attempt(&p), Amount: row.Amount}, by, nil
}

// finishRefund notes what became of a refund that is not done.
func (t *Till) finishRefund(ctx context.Context, number string, state RefundState, note, doneBy string) error {
	if err := failpoint.Before(failpoint.RefundCommit); err != nil {
		return err
	}
	r, err := readRefund(ctx, t.DB, number, "") // whose order stays the same
	if err != nil {
		return err
	}
	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		// The hold is locked before the refund, if the order has one that may become refunded; and before all plain
		// reads, or two that finish at the same time would not see one another.
		var hold ledger.Hold
		var err error
		if r.Reason == ReasonStaff {
			if hold, err = ledger.LockHold(ctx, tx, r.OrderID); err != nil {
				return err
			}
		}
		if r, err = readRefund(ctx, tx, number, ` FOR UPDATE`); err != nil || r.State == RefundDone {
			return err
		}

		var doneAt sql.NullTime
		if state == RefundDone {
			doneAt = sql.NullTime{Time: mysql.Now(), Valid: true}
		}
		if note == "" {
			note = r.Note
		}
		_, err = tx.ExecContext(ctx, `UPDATE refunds SET state = ?, note = ?, done_at = ?, done_by = ?, next_at = NULL
			WHERE number = ?`, state, shorten(note), doneAt, []byte(doneBy), []byte(number))
		if err != nil {
			return err
		}
		if doneBy != "" {
			err := mysql.LogChange(ctx, tx, actRefundDone, "refund "+number, mysql.Values{"state": r.State},
				mysql.Values{"state": state, "note": note})
			if err != nil {
				return err
			}
		}
		if state != RefundDone || r.Reason != ReasonStaff {
			return nil
		}
		return t.afterRefund(ctx, tx, &hold)
	})
	if err == nil {
		err = failpoint.After(failpoint.RefundCommit)
	}
	if err != nil {
		return fmt.Errorf("note what became of refund %s: %w", number, err)
	}
	return nil
}

// shorten cuts a text to what the column takes, in characters.
func shorten(text string) string {
	text = plaintext.Escape(text)
	if runes := []rune(text); len(runes) > maxNoteChars {
		return string(runes[:maxNoteChars])
	}
	return text
}

// DoneByHand notes that an operator, whom the context names, has made a refund by hand. The provider is asked first: if
// it has made the refund after all, byHand is false, and the operator must not pay. ErrNotFound: there is none of this
// number. ErrInvalid: it is not one to be made by hand. ErrProvider: that could not be found out now.
func (t *Till) DoneByHand(ctx context.Context, number, note string) (byHand bool, err error) {
	row, err := readRefundRow(ctx, t.DB, number, "")
	if err != nil {
		return false, err
	}
	if row.State != RefundManual {
		return false, fmt.Errorf("refund %s: %w", number, mysql.Invalidf("it is %s, and not one to be made by hand",
			row.State))
	}

	made, err := t.madeByProvider(ctx, row)
	if err != nil {
		return false, err
	}
	doneBy := mysql.Actor(ctx)
	if made {
		note = "the provider had made it"
	}
	return !made, t.finishRefund(ctx, number, RefundDone, note, doneBy)
}

// MadeByProvider asks a provider whether it has made a refund: before one is made by hand. ErrNotFound: there is none
// of this number. ErrProvider: that cannot be found out now.
func (t *Till) MadeByProvider(ctx context.Context, number string) (bool, error) {
	row, err := readRefundRow(ctx, t.DB, number, "")
	if err != nil {
		return false, err
	}
	return t.madeByProvider(ctx, row)
}

func (t *Till) madeByProvider(ctx context.Context, row *refundRow) (bool, error) {
	if len(row.Attempt) == 0 {
		return false, nil
	}
	asked, by, err := t.refundOf(ctx, row)
	if err != nil {
		return false, err
	}
	if asked.Of.Amount < asked.Amount || asked.Of.Currency != row.Currency {
		return false, nil // a mismatch, which the provider was not asked for
	}
	made, err := by.Refunded(ctx, asked)
	if err != nil {
		return false, fmt.Errorf("%w: whether refund %s was made: %w", ErrProvider, row.Number, err)
	}
	return made, nil
}
