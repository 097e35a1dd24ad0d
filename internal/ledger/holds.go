package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// An order that must be paid is held: its decision has taken the units, and stands. What becomes of the order is in the
// table holds, which has a row of it from that moment on. That of an order which is paid with points is completed at
// once. Other orders have none, and cost nothing more.
//
// Every transaction locks in one order: products, holds, attempts to pay, wallets.

// CancelReason is why an order was cancelled, or is being cancelled.
type CancelReason string

// The reasons for which an order is cancelled.
const (
	Unpaid  CancelReason = "unpaid"   // it was not paid in time
	ByBuyer CancelReason = "by_buyer" // its buyer did not want it any more
	ByStaff CancelReason = "by_staff"
)

// MaxDue is the most orders of one call of Due.
const MaxDue = 5 * MaxBatch

// never is when a hold is due with which there is nothing to be done.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// PaidByPoints is what pays an order that no attempt at a provider pays.
const PaidByPoints = "points"

// ErrNotPayable: the order does not await its payment, or not any more.
var ErrNotPayable = mysql.OwnError("the order does not await its payment")

// ErrNotCancellable: the order is completed, failed, or refunded.
var ErrNotCancellable = mysql.OwnError("the order cannot be cancelled any more")

// Hold is what has become of an order that must be paid.
type Hold struct {
	OrderID order.OrderID
	StockID order.StockID
	// Version is the product's that took the units.
	Version int64
	UserID  order.UserID
	// Quantity is in units.
	Quantity int64
	// State is AwaitingPayment, Closing, Completed, Cancelled or Refunded.
	State order.Status
	PayBy time.Time
	// Attempts counts those that may yet be paid.
	Attempts int64
	// PaidBy is the number of the attempt that has paid it, PaidByPoints, or empty.
	PaidBy string
	// Reason is why it was cancelled, or is being cancelled.
	Reason CancelReason
	// ReturnedVersion is the product's version that took the units back, or 0.
	ReturnedVersion int64
	ChangedAt       time.Time
}

// holdRow is a row of the table holds.
type holdRow struct {
	OrderID         mysql.UUID    `db:"order_id"`
	StockID         order.StockID `db:"product_id"`
	Version         int64         `db:"version"`
	UserID          order.UserID  `db:"user_id"`
	Quantity        int64         `db:"quantity"`
	State           order.Status  `db:"state"`
	PayBy           time.Time     `db:"pay_by"`
	DueAt           time.Time     `db:"due_at"`
	Attempts        int64         `db:"attempts"`
	PaidBy          []byte        `db:"paid_by"`
	Reason          CancelReason  `db:"reason"`
	ReturnedVersion int64         `db:"returned_version"`
	ChangedAt       time.Time     `db:"changed_at"`
}

const holdColumns = `order_id, product_id, version, user_id, quantity, state, pay_by, due_at, attempts, paid_by,
	reason, returned_version, changed_at`

func (r *holdRow) hold() Hold {
	return Hold{
		OrderID: order.OrderID(r.OrderID), StockID: r.StockID, Version: r.Version, UserID: r.UserID,
		Quantity: r.Quantity, State: r.State, PayBy: r.PayBy, Attempts: r.Attempts,
		PaidBy: string(r.PaidBy), Reason: r.Reason,
		ReturnedVersion: r.ReturnedVersion, ChangedAt: r.ChangedAt,
	}
}

// insertHolds writes the rows of orders that have just been decided.
func insertHolds(ctx context.Context, tx *sqlx.Tx, rows []holdRow) error {
	if len(rows) == 0 {
		return nil
	}
	insert := mysql.NewInsert("holds", `order_id, product_id, version, user_id, quantity, state, pay_by, due_at,
		attempts, paid_by, changed_at`)
	for i := range rows {
		r := &rows[i]
		insert.Row()
		insert.Bytes(r.OrderID[:])
		insert.Ints(int64(r.StockID), r.Version, int64(r.UserID), r.Quantity)
		insert.Bytes([]byte(r.State))
		insert.Time(r.PayBy)
		insert.Time(r.DueAt)
		insert.Ints(0)
		insert.Bytes(r.PaidBy)
		insert.Time(r.ChangedAt)
	}
	if err := insert.Exec(ctx, tx); err != nil {
		return fmt.Errorf("insert holds: %w", err)
	}
	return nil
}

// readHolds reads the holds of orders that have one.
func readHolds(ctx context.Context, from sqlx.QueryerContext,
	orders []order.OrderID) (map[order.OrderID]*holdRow, error) {
	holds := make(map[order.OrderID]*holdRow, len(orders))
	for chunk := range slices.Chunk(orders, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT `+holdColumns+` FROM holds WHERE order_id IN (?)`, orderIDs(chunk))
		if err != nil {
			return nil, fmt.Errorf("read holds: %w", err)
		}
		var rows []holdRow
		if err := sqlx.SelectContext(ctx, from, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("read holds: %w", err)
		}
		for i := range rows {
			holds[order.OrderID(rows[i].OrderID)] = &rows[i]
		}
	}
	return holds, nil
}

// showHeld says of records that are held what has become of them.
func showHeld(ctx context.Context, from sqlx.QueryerContext, records []order.Record) error {
	var held []order.OrderID
	for i := range records {
		if records[i].Status == order.Held {
			held = append(held, records[i].ID)
		}
	}
	if len(held) == 0 {
		return nil
	}
	holds, err := readHolds(ctx, from, held)
	if err != nil {
		return err
	}
	for i := range records {
		h := holds[records[i].ID]
		if h == nil {
			continue
		}
		records[i].Status, records[i].MustBePaid = h.State, true
		if h.State == order.AwaitingPayment {
			records[i].PayBy = h.PayBy
		}
	}
	return nil
}

// Hold reads the hold of an order. ErrNotFound: the order is not one that must be paid, or not decided.
func (l *Ledger) Hold(ctx context.Context, id order.OrderID) (Hold, error) {
	holds, err := readHolds(ctx, l.db, []order.OrderID{id})
	switch row := holds[id]; {
	case err != nil:
		return Hold{}, fmt.Errorf("order %s: %w", id, err)
	case row == nil:
		return Hold{}, fmt.Errorf("hold of order %s %w", id, mysql.ErrNotFound)
	default:
		return row.hold(), nil
	}
}

// Payable reports whether a new attempt to pay may begin.
func (h Hold) Payable(now time.Time) bool {
	return h.State == order.AwaitingPayment && now.Before(h.PayBy)
}

// LockHold locks and reads the hold of an order in a transaction, after the locks of products and before those of
// attempts to pay. ErrNotFound is as of Hold.
func LockHold(ctx context.Context, tx *sqlx.Tx, id order.OrderID) (Hold, error) {
	return lockHold(ctx, tx, `?`, mysql.UUID(id))
}

// LockHoldOf is LockHold for the order that an attempt pays, which may pay none: then it is ErrNotFound as well. The
// attempt is read without a lock, since it never pays another order.
func LockHoldOf(ctx context.Context, tx *sqlx.Tx, attempt string) (Hold, error) {
	return lockHold(ctx, tx, `(SELECT order_id FROM payments WHERE number = ?)`, []byte(attempt))
}

func lockHold(ctx context.Context, tx *sqlx.Tx, which string, arg any) (Hold, error) {
	var row holdRow
	err := tx.GetContext(ctx, &row, `SELECT `+holdColumns+` FROM holds WHERE order_id = `+which+` FOR UPDATE`, arg)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Hold{}, fmt.Errorf("hold %w", mysql.ErrNotFound)
	case err != nil:
		return Hold{}, fmt.Errorf("lock a hold: %w", err)
	}
	return row.hold(), nil
}

// LockFreeHolds is LockHold for many orders. It leaves out those whose holds others have locked.
func LockFreeHolds(ctx context.Context, tx *sqlx.Tx, ids []order.OrderID) (map[order.OrderID]Hold, error) {
	rows, err := lockHolds(ctx, tx, ids, true)
	holds := make(map[order.OrderID]Hold, len(rows))
	for i := range rows {
		holds[order.OrderID(rows[i].OrderID)] = rows[i].hold()
	}
	return holds, err
}

// CompleteHolds writes that orders are completed by attempts to pay, the only ones of theirs that could be paid. Their
// holds are locked.
func CompleteHolds(ctx context.Context, tx *sqlx.Tx, attempts [][]byte) error {
	err := execIn(ctx, tx, `UPDATE holds AS h JOIN payments AS p ON p.order_id = h.order_id
		SET h.state = ?, h.attempts = 0, h.paid_by = p.number, h.due_at = ?, h.changed_at = ?
		WHERE p.number IN (?)`, order.Completed, never, mysql.Now(), attempts)
	if err != nil {
		return fmt.Errorf("complete holds: %w", err)
	}
	return nil
}

// Write writes what an attempt to pay has changed of a hold that is locked: its state, its attempts, and what has paid
// it. A hold that is closing is due when its last attempt cannot be paid any more.
func (h Hold) Write(ctx context.Context, tx *sqlx.Tx) error {
	now := mysql.Now()
	due := never
	switch {
	case h.State == order.AwaitingPayment:
		due = h.PayBy
	case h.State == order.Closing && h.Attempts == 0:
		due = now.Truncate(time.Millisecond)
	}
	var paidBy []byte
	if h.PaidBy != "" {
		paidBy = []byte(h.PaidBy)
	}
	_, err := tx.ExecContext(ctx, `UPDATE holds SET state = ?, attempts = ?, paid_by = ?, due_at = ?, changed_at = ?
		WHERE order_id = ?`, h.State, h.Attempts, paidBy, due, now, mysql.UUID(h.OrderID))
	if err != nil {
		return fmt.Errorf("write the hold of order %s: %w", h.OrderID, err)
	}
	return nil
}

// Due finds up to MaxDue orders that can be cancelled since no attempt of theirs can be paid any more, or whose time
// to pay is over, the oldest of each kind. They are by product.
func (l *Ledger) Due(ctx context.Context) (map[order.StockID][]order.OrderID, error) {
	var rows []struct {
		StockID order.StockID `db:"product_id"`
		OrderID mysql.UUID    `db:"order_id"`
	}
	const inState = `(SELECT product_id, order_id FROM holds FORCE INDEX (holds_due)
		WHERE state = ? AND due_at <= ? ORDER BY due_at LIMIT ?)`
	now := mysql.Now()
	err := l.db.SelectContext(ctx, &rows, inState+` UNION ALL `+inState+` LIMIT ?`,
		order.Closing, now, MaxDue, order.AwaitingPayment, now, MaxDue, MaxDue)
	if err != nil {
		return nil, fmt.Errorf("find orders that are due: %w", err)
	}
	due := map[order.StockID][]order.OrderID{}
	for _, row := range rows {
		due[row.StockID] = append(due[row.StockID], order.OrderID(row.OrderID))
	}
	return due, nil
}

// Expire cancels those of up to MaxBatch orders of one product that are due, and returns them with the units that
// MySQL has taken back. They are left as reminders as well, until Redis has them: see Returning. An order with attempts
// that may yet be paid is closing, and due again when none may. Orders that another transaction has locked are passed
// over.
func (l *Ledger) Expire(ctx context.Context, stockID order.StockID, ids []order.OrderID) ([]order.Returned, error) {
	returned, err := l.cancel(ctx, stockID, ids, Unpaid)
	if err != nil {
		return nil, fmt.Errorf("cancel %d orders of product %d: %w", len(ids), stockID, err)
	}
	return returned, nil
}

// CancelOrder cancels an order that awaits its payment. If an attempt may yet be paid it is closing, and cancelled, or
// completed after all, once that is known. Repeating a call changes nothing. ErrNotFound: it is not an order that must
// be paid. ErrNotCancellable: it is completed or refunded.
func (l *Ledger) CancelOrder(
	ctx context.Context, id order.OrderID, reason CancelReason,
) ([]order.Returned, Hold, error) {
	h, err := l.Hold(ctx, id)
	if err != nil {
		return nil, Hold{}, fmt.Errorf("cancel: %w", err)
	}
	returned, err := l.cancel(ctx, h.StockID, []order.OrderID{id}, reason)
	if err == nil {
		h, err = l.Hold(ctx, id)
	}
	switch {
	case err != nil:
		return nil, Hold{}, fmt.Errorf("cancel order %s: %w", id, err)
	case h.State == order.Completed || h.State == order.Refunded:
		return nil, h, fmt.Errorf("cancel order %s: %w", id, ErrNotCancellable)
	}
	return returned, h, nil
}

// cancel cancels orders: those that are due, if they are unpaid, and all that await payment for another reason.
func (l *Ledger) cancel(ctx context.Context, stockID order.StockID, ids []order.OrderID,
	reason CancelReason) (returned []order.Returned, err error) {
	if err := failpoint.Before(failpoint.Expire); err != nil {
		return nil, err
	}
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		returned = nil
		product, err := lockProduct(ctx, tx, stockID)
		if err != nil {
			return err
		}
		if product == nil {
			return mysql.ErrNotFound
		}
		rows, err := lockHolds(ctx, tx, ids, reason == Unpaid)
		if err != nil {
			return err
		}

		var cancelled []holdRow
		var closing []mysql.UUID
		for _, row := range rows {
			asked := row.State == order.AwaitingPayment && (reason != Unpaid || !row.PayBy.After(mysql.Now()))
			switch {
			case !asked && row.State != order.Closing:
				continue
			case row.Attempts == 0:
				cancelled = append(cancelled, row)
			case asked:
				closing = append(closing, row.OrderID)
			}
		}

		if err := closeHolds(ctx, tx, closing, reason); err != nil {
			return err
		}
		if returned, err = takeBack(ctx, tx, product, cancelled, reason); err != nil {
			return err
		}
		return failpoint.Before(failpoint.ExpireCommit)
	})
	if err == nil {
		err = failpoint.After(failpoint.ExpireCommit)
	}
	return returned, err
}

// ToRefund is an order whose money goes back. Its hold is locked, and its product if its units may come back.
type ToRefund struct {
	Hold
	row     holdRow
	product *productRow
}

// LockToRefund locks the hold of an order of a product in a transaction, and the product before it if the order's units
// may come back. It must come first in the transaction, as lockProduct says. ErrNotFound: there is no such order.
func LockToRefund(ctx context.Context, tx *sqlx.Tx, stockID order.StockID, id order.OrderID,
	units bool) (*ToRefund, error) {
	var locked ToRefund
	var err error
	if units {
		if locked.product, err = lockProduct(ctx, tx, stockID); err != nil {
			return nil, err
		}
		if locked.product == nil {
			return nil, mysql.ErrNotFound
		}
	}
	rows, err := lockHolds(ctx, tx, []order.OrderID{id}, false)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("hold of order %s %w", id, mysql.ErrNotFound)
	}
	locked.row, locked.Hold = rows[0], rows[0].hold()
	return &locked, nil
}

// TakeBack takes the units of the order back, if it was locked for that and is completed or refunded, once. They are
// returned, and left as reminders.
func (t *ToRefund) TakeBack(ctx context.Context, tx *sqlx.Tx) ([]order.Returned, error) {
	if t.product == nil || t.State != order.Completed && t.State != order.Refunded || t.ReturnedVersion != 0 {
		return nil, nil
	}
	return takeBack(ctx, tx, t.product, []holdRow{t.row}, "")
}

// closeHolds notes that orders are closing, and has their attempts to pay looked at now, to be closed.
func closeHolds(ctx context.Context, tx *sqlx.Tx, ids []mysql.UUID, reason CancelReason) error {
	now := mysql.Now()
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		err := execIn(ctx, tx, `UPDATE holds SET state = ?, due_at = ?, reason = ?, changed_at = ?
			WHERE order_id IN (?)`, order.Closing, never, reason, now, chunk)
		if err == nil {
			err = execIn(ctx, tx, `UPDATE payments SET next_at = ? WHERE order_id IN (?)
				AND state IN ('created', 'open')`, mysql.NullMillis(now), chunk)
		}
		if err != nil {
			return fmt.Errorf("close the attempts to pay orders: %w", err)
		}
	}
	return nil
}

// lockHolds locks holds by id, in ascending order. Those that others have locked are left out, if they may be.
func lockHolds(ctx context.Context, tx *sqlx.Tx, ids []order.OrderID, skip bool) (rows []holdRow, err error) {
	ids = slices.SortedFunc(slices.Values(ids), func(a, b order.OrderID) int { return slices.Compare(a[:], b[:]) })
	suffix := ` ORDER BY order_id FOR UPDATE`
	if skip {
		suffix += ` SKIP LOCKED`
	}
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT `+holdColumns+` FROM holds WHERE order_id IN (?)`+suffix, orderIDs(chunk))
		if err != nil {
			return nil, fmt.Errorf("lock holds: %w", err)
		}
		var some []holdRow
		if err := tx.SelectContext(ctx, &some, query, args...); err != nil {
			return nil, fmt.Errorf("lock holds: %w", err)
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

// takeBack takes the units of orders back into the stock of their product, which is locked as their holds are, and
// leaves reminders. For a reason the orders are cancelled, unless they have one from the time when they were closing;
// without any they stay what they are.
func takeBack(ctx context.Context, tx *sqlx.Tx, product *productRow, holds []holdRow,
	reason CancelReason) ([]order.Returned, error) {
	if len(holds) == 0 {
		return nil, nil
	}
	now, stock, version := mysql.Now(), product.Stock, product.Version
	returned := make([]order.Returned, len(holds))
	changes := make([]ledgerRow, len(holds))
	counts := map[order.UserID]int64{}
	for i := range holds {
		h := &holds[i]
		stock += h.Quantity
		version++
		counts[h.UserID] -= h.Quantity
		returned[i] = order.Returned{
			OrderID: order.OrderID(h.OrderID), UserID: h.UserID, StockID: h.StockID, Quantity: h.Quantity,
			TakenAt: h.Version, ReturnedAt: version,
		}
		changes[i] = ledgerRow{
			StockID: h.StockID, Version: version, Delta: h.Quantity, Balance: stock,
			Reason: ledgerReturn, Ref: h.OrderID[:], CreatedAt: now,
		}
	}

	// What is not counted up to here is counted from the ledger, with these rows.
	if product.Counted == product.Version {
		if err := addBought(ctx, tx, product.ID, counts); err != nil {
			return nil, err
		}
	}
	if err := insertReturned(ctx, tx, returned); err != nil {
		return nil, err
	}
	if err := writeReturned(ctx, tx, product.ID, holds, reason); err != nil {
		return nil, err
	}
	return returned, changeStock(ctx, tx, product, changes)
}

// writeReturned writes into holds which version has returned their units, as their reminders say, and that they are
// cancelled if there is a reason.
func writeReturned(ctx context.Context, tx *sqlx.Tx, stockID order.StockID, holds []holdRow,
	reason CancelReason) error {
	for chunk := range slices.Chunk(holds, mysql.MaxInList) {
		ids := make([]mysql.UUID, len(chunk))
		for i := range chunk {
			ids[i] = chunk[i].OrderID
		}

		set, args := `changed_at = ?`, []any{mysql.Now()}
		if reason != "" {
			set += `, state = ?, due_at = ?, reason = IF(reason = '', ?, reason)`
			args = append(args, order.Cancelled, never, reason)
		}
		err := execIn(ctx, tx, `UPDATE holds SET `+set+`, returned_version = (SELECT r.returned_at
				FROM returned_units AS r WHERE r.product_id = holds.product_id AND r.order_id = holds.order_id)
			WHERE order_id IN (?)`, append(args, ids)...)
		if err != nil {
			return fmt.Errorf("write returned units into holds: %w", err)
		}
	}
	return nil
}
