package till

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
)

const (
	// MaxAttempts bounds the attempts to pay one order.
	MaxAttempts = 10
	// MaxTopUps bounds a user's attempts to buy points that may yet be paid.
	MaxTopUps = 10
	// MaxTopUpPoints bounds the points of one purchase.
	MaxTopUpPoints = 1_000_000
	// topUpTime is for how long a purchase of points may be paid.
	topUpTime = time.Hour
)

// firstPoll and longestPoll are the waits until a provider is asked about an attempt of which it has told nothing.
var (
	firstPoll   = failpoint.Wait(2 * time.Minute)
	longestPoll = failpoint.Wait(time.Hour)
)

// Pay begins an attempt of a user to pay an order, and returns it with the page where its buyer pays. If there is one
// by the same provider and method that may yet be paid, that is gone on with. An empty method is the provider's usual
// one.
//
// ErrNotFound: the user has no such order. ledger.ErrNotPayable: it does not await its payment. ErrNotOffered and
// ErrTooMany say what they say. ErrProvider: call it again.
func (t *Till) Pay(ctx context.Context, userID order.UserID, id order.OrderID, provider,
	method string) (Payment, payment.Page, error) {
	p, by, err := t.begin(ctx, userID, id, provider, method)
	if err != nil {
		return Payment{}, payment.Page{}, fmt.Errorf("pay order %s: %w", id, err)
	}
	return t.open(ctx, p, by)
}

// begin writes an attempt to pay an order, before its provider is called.
func (t *Till) begin(ctx context.Context, userID order.UserID, id order.OrderID, provider,
	method string) (*Payment, payment.Provider, error) {
	books := ledger.New(t.DB)
	record, err := books.Order(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if record.UserID != userID {
		return nil, nil, mysql.ErrNotFound
	}
	product, err := books.Product(ctx, record.StockID)
	if err != nil {
		return nil, nil, err
	}

	wanted := Payment{
		Number: newNumber(), Provider: provider, Method: method, UserID: userID, OrderID: id,
		Amount: record.TotalPrice(), Currency: record.Currency, Item: product.Name,
	}
	by, offer, err := t.offer(&wanted)
	if err != nil {
		return nil, nil, err
	}

	var begun Payment
	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		hold, err := ledger.LockHold(ctx, tx, id)
		if errors.Is(err, mysql.ErrNotFound) {
			return ledger.ErrNotPayable
		}
		if err != nil {
			return err
		}
		now := mysql.Now()
		if !hold.Payable(now) {
			return ledger.ErrNotPayable
		}
		if hold.PayBy.Sub(now) < offer.Least {
			return fmt.Errorf("%w: it takes %s, and the order waits until %s", ErrNotOffered, offer.Least,
				hold.PayBy.Format(time.RFC3339))
		}

		before, err := ofOrder(ctx, tx, id)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(before, func(p Payment) bool {
			return p.live() && p.Provider == provider && p.Method == method
		}); i >= 0 {
			begun = before[i]
			return nil
		}
		if len(before) >= MaxAttempts {
			return ErrTooMany
		}

		begun = wanted
		begun.State, begun.CreatedAt, begun.ExpiresAt = Created, now, hold.PayBy
		if err := insert(ctx, tx, &begun); err != nil {
			return err
		}
		hold.Attempts++
		return hold.Write(ctx, tx)
	})
	return &begun, by, err
}

// BuyPoints begins a purchase of points for an amount, as Pay begins the payment of an order.
func (t *Till) BuyPoints(ctx context.Context, userID order.UserID, points, amount int64, currency, provider,
	method string) (Payment, payment.Page, error) {
	now := mysql.Now()
	p := Payment{
		Number: newNumber(), Provider: provider, Method: method, UserID: userID, Points: points, Amount: amount,
		Currency: currency, Item: fmt.Sprintf("%d points", points), State: Created, CreatedAt: now,
		ExpiresAt: now.Add(topUpTime).Truncate(time.Millisecond),
	}
	fail := func(err error) (Payment, payment.Page, error) {
		return Payment{}, payment.Page{}, fmt.Errorf("buy points: %w", err)
	}
	if points <= 0 || points > MaxTopUpPoints {
		return fail(mysql.Invalidf("points must be 1 to %d", MaxTopUpPoints))
	}
	by, offer, err := t.offer(&p)
	if err == nil && offer.Least > topUpTime {
		err = fmt.Errorf("%w: it takes %s", ErrNotOffered, offer.Least)
	}
	if err != nil {
		return fail(err)
	}

	err = t.DB.InTx(ctx, func(tx *sqlx.Tx) error {
		// The wallet's owner is locked, so that two requests count one another.
		var live int
		if err := tx.GetContext(ctx, new(int64), `SELECT id FROM users WHERE id = ? FOR UPDATE`, userID); err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &live, `SELECT COUNT(*) FROM payments FORCE INDEX (payments_user)
			WHERE user_id = ? AND order_id IS NULL AND state IN ('created', 'open')`, userID); err != nil {
			return err
		}
		if live >= MaxTopUps {
			return ErrTooMany
		}
		return insert(ctx, tx, &p)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = mysql.ErrNotFound
	}
	if err != nil {
		return fail(err)
	}
	return t.open(ctx, &p, by)
}

// offer finds the provider of an attempt, and how it takes it.
func (t *Till) offer(p *Payment) (payment.Provider, payment.Offer, error) {
	by, ok := t.Provider(p.Provider)
	if !ok {
		return nil, payment.Offer{}, fmt.Errorf("%w: there is no provider %.20q", ErrNotOffered, p.Provider)
	}
	offer, err := t.attempt(p).Check(by)
	if err != nil {
		return nil, payment.Offer{}, fmt.Errorf("%w: %w", ErrNotOffered, err)
	}
	return by, offer, nil
}

// open makes an attempt known to its provider, and returns the page where its buyer pays. It may be repeated.
func (t *Till) open(ctx context.Context, p *Payment, by payment.Provider) (Payment, payment.Page, error) {
	if err := failpoint.Before(failpoint.Provider); err != nil {
		return *p, payment.Page{}, fmt.Errorf("%w: %w", ErrProvider, err)
	}
	page, err := by.Start(ctx, t.attempt(p))
	if err == nil {
		err = failpoint.After(failpoint.Provider)
	}
	switch {
	case errors.Is(err, payment.ErrRefused):
		// It has done nothing, and will not.
		if closeErr := t.markClosed(ctx, p.Number); closeErr != nil {
			return *p, page, closeErr
		}
		return *p, page, fmt.Errorf("%w: %w", ErrNotOffered, err)
	case err != nil:
		return *p, page, fmt.Errorf("%w: %w", ErrProvider, err)
	}
	if err := t.markOpen(ctx, p.Number, page.Reference); err != nil {
		return *p, page, err
	}
	p.State, p.Reference = Open, page.Reference
	return *p, page, nil
}

// markOpen notes that a provider knows an attempt. One that is paid or closed meanwhile stays so.
func (t *Till) markOpen(ctx context.Context, number, reference string) error {
	_, err := t.DB.ExecContext(ctx, `UPDATE payments SET reference = COALESCE(?, reference),
		state = CASE state WHEN 'created' THEN 'open' ELSE state END WHERE number = ?`,
		bytesOrNil(reference), []byte(number))
	if err != nil {
		return fmt.Errorf("note that payment %s is open: %w", number, err)
	}
	return nil
}

// Page is the page where a user goes on to pay, and how the attempt stands. ErrNotFound: it is not the user's.
// ledger.ErrNotPayable: it is paid, or cannot be paid any more.
func (t *Till) Page(ctx context.Context, userID order.UserID, number string) (Payment, payment.Page, error) {
	p, err := t.Payment(ctx, number)
	if err != nil || p.UserID != userID {
		return Payment{}, payment.Page{}, errors.Join(err, fmt.Errorf("payment %.20q %w", number, mysql.ErrNotFound))
	}
	by, ok := t.Provider(p.Provider)
	if !p.live() || !time.Now().Before(p.ExpiresAt) || !ok {
		return p, payment.Page{}, ledger.ErrNotPayable
	}
	return t.open(ctx, &p, by)
}

// Payment reads an attempt. ErrNotFound: there is none of this number.
func (t *Till) Payment(ctx context.Context, number string) (Payment, error) {
	p, _, err := read(ctx, t.DB, number, "")
	return p, err
}

// read reads an attempt, and when its provider is to be asked again; a suffix locks it.
func read(ctx context.Context, from sqlx.QueryerContext, number, suffix string) (Payment, sql.NullTime, error) {
	var row paymentRow
	err := sqlx.GetContext(ctx, from, &row, `SELECT `+paymentColumns+` FROM payments WHERE number = ?`+suffix,
		[]byte(number))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Payment{}, sql.NullTime{}, fmt.Errorf("payment %.20q %w", number, mysql.ErrNotFound)
	case err != nil:
		return Payment{}, sql.NullTime{}, fmt.Errorf("read payment %.20q: %w", number, err)
	}
	return row.payment(), row.NextAt, nil
}

// OfOrder reads the attempts to pay an order, oldest first.
func (t *Till) OfOrder(ctx context.Context, id order.OrderID) ([]Payment, error) {
	return ofOrder(ctx, t.DB, id)
}

func ofOrder(ctx context.Context, from sqlx.QueryerContext, id order.OrderID) ([]Payment, error) {
	var rows []paymentRow
	err := sqlx.SelectContext(ctx, from, &rows, `SELECT `+paymentColumns+` FROM payments
		WHERE order_id = ? ORDER BY number LIMIT ?`, mysql.UUID(id), 2*MaxAttempts)
	if err != nil {
		return nil, fmt.Errorf("read payments of order %s: %w", id, err)
	}
	payments := make([]Payment, len(rows))
	for i := range rows {
		payments[i] = rows[i].payment()
	}
	return payments, nil
}

// insert writes an attempt that is new.
func insert(ctx context.Context, tx *sqlx.Tx, p *Payment) error {
	row := paymentRow{
		Number: p.Number, Provider: p.Provider, Method: p.Method, UserID: p.UserID, OrderID: orderRef(p.OrderID),
		Points: sql.NullInt64{Int64: p.Points, Valid: p.isTopUp()}, Amount: p.Amount, Currency: p.Currency,
		Item: p.Item, State: p.State, ExpiresAt: p.ExpiresAt, CreatedAt: p.CreatedAt,
		NextAt: mysql.NullMillis(p.CreatedAt.Add(firstPoll)),
	}
	_, err := tx.NamedExecContext(ctx, `INSERT INTO payments (`+paymentColumns+`)
		VALUES (:number, :provider, :method, :user_id, :order_id, :points, :amount, :currency, :item, :state,
			:reference, :payment_reference, :fee, :expires_at, :created_at, :paid_at, :captured_at, :next_at,
			:tries)`, row)
	if err != nil {
		return fmt.Errorf("insert a payment: %w", err)
	}
	return nil
}
