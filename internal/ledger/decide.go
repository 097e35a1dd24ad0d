package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/wallet"
)

const (
	// MaxBatch is the most orders of one call of Decide. Beyond it a transaction gains nothing and holds its lock
	// longer.
	MaxBatch = 1_000
	// noCurrency is the code of ISO 4217 for a transaction that involves no currency, for orders of unknown products.
	noCurrency = "XXX"
)

// Decide decides up to MaxBatch orders of one product in one transaction and returns a decision for each, in the same
// order. An order that has a row already, or that came before in the same call, is not decided again: its decision is
// what the row says, and not Fresh. So a call may be repeated, above all after an error that leaves open whether the
// transaction was committed.
//
// Orders are judged in the order given. One fails with
//   - IdempotencyConflict if another order of the user for the product holds its key (its row then has no key),
//   - UnknownProduct if there is no such product (its currency is then XXX),
//   - LimitExceeded if its buyer would have more units than the product's limit,
//   - SoldOut if it asks for more units than are left; a smaller one after it may still be completed,
//   - InsufficientPoints if it is paid with points, and its buyer's wallet has too few,
//
// whichever comes first in this list. Any other is completed or, if the product says that it must be paid, held. One
// that is paid with points is held and completed at once, and the points are taken in the same transaction. Orders
// that were placed order.IdempotencyLifetime apart are not in conflict: the key belongs to the later one, and the row
// of the earlier one has none any more. A fresh decision has the product's version after the whole transaction, and 0
// for an unknown product. An order of another product, or one that is not valid, is ErrInvalid, and then none is
// decided.
func (l *Ledger) Decide(ctx context.Context, stockID order.StockID, orders []order.Order) ([]order.Decision, error) {
	return l.decide(ctx, stockID, orders, "")
}

// Fail decides an order as failed for a reason that the caller gives. If the order has a row already, it changes
// nothing and the decision is what the row says, as with Decide.
func (l *Ledger) Fail(ctx context.Context, o order.Order, reason order.Reason) (order.Decision, error) {
	if reason == "" {
		return order.Decision{}, fmt.Errorf("fail order %s: %w: no reason is given", o.ID, mysql.ErrInvalid)
	}
	decisions, err := l.decide(ctx, o.StockID, []order.Order{o}, reason)
	if err != nil {
		return order.Decision{}, err
	}
	return decisions[0], nil
}

// rehearsalUser buys what is decided in rehearsals. No account has this id.
const rehearsalUser = math.MaxInt64

// Rehearse decides an order of a product that nobody has made, and undoes it. If that fails, then not even a sound
// order can be decided now: what other orders of the product fail for is not a reason of their own.
func (l *Ledger) Rehearse(ctx context.Context, stockID order.StockID) error {
	if err := l.rehearse(ctx, stockID, nil); err != nil {
		return fmt.Errorf("rehearse a decision of product %d: %w", stockID, err)
	}
	return nil
}

// RehearseAny is Rehearse with a product that nobody has made either. If that fails, no order of any product can be
// decided.
func (l *Ledger) RehearseAny(ctx context.Context) error {
	// Ids of products are positive. A negative one is nobody's, and leaves the table's counter of ids alone.
	product := productRow{
		ID: order.StockID(-1 - rand.Int64N(math.MaxInt64)), Name: "rehearsal", Currency: noCurrency, Stock: 1,
		Version: 1, Revision: 1, Counted: 1, Payment: order.PaymentNone,
		CreatedAt: mysql.Now(), State: order.OffSale,
	}
	if err := l.rehearse(ctx, product.ID, &product); err != nil {
		return fmt.Errorf("rehearse a decision: %w", err)
	}
	return nil
}

// rehearse decides an order and undoes it; before it, a product is added if one is given.
func (l *Ledger) rehearse(ctx context.Context, stockID order.StockID, product *productRow) error {
	orders := []order.Order{{
		ID: order.NewID(), UserID: rehearsalUser, StockID: stockID, Quantity: 1, ReservedAt: mysql.Now(),
	}}

	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		if product != nil {
			if err := insertProduct(ctx, tx, product); err != nil {
				return err
			}
		}

		// The same steps as for an order that somebody has made.
		d, err := l.lockToDecide(ctx, tx, stockID, orders, "")
		if err != nil {
			return err
		}
		if err := d.readRows(ctx, tx, orders); err != nil {
			return err
		}
		d.judge(orders, "")
		if err := d.write(ctx, tx); err != nil {
			return err
		}
		return mysql.ErrRehearsed
	})
	if errors.Is(err, mysql.ErrRehearsed) {
		return nil
	}
	return err
}

// decide decides orders; if a verdict is given, that is the reason for which all of them fail.
func (l *Ledger) decide(ctx context.Context, stockID order.StockID, orders []order.Order,
	verdict order.Reason) ([]order.Decision, error) {
	if len(orders) == 0 {
		return nil, nil
	}
	if err := validateOrders(stockID, orders); err != nil {
		return nil, err
	}
	if err := failpoint.Before(failpoint.Decide); err != nil {
		return nil, err
	}

	// Of many orders hardly any has a row already, so that rows are read only after an insert has met one. A lone
	// order is checked for an existing row first: it may well have come before.
	var decisions []order.Decision
	err := errKnown
	if len(orders) > 1 {
		decisions, err = l.decideNew(ctx, stockID, orders, verdict)
	}
	if errors.Is(err, errKnown) {
		decisions, err = l.decideKnown(ctx, stockID, orders, verdict)
	}

	if err == nil {
		err = failpoint.After(failpoint.Commit)
	}
	if err != nil {
		return nil, fmt.Errorf("decide %d orders of product %d: %w", len(orders), stockID, err)
	}
	return decisions, nil
}

// validateOrders returns ErrInvalid unless Decide can decide these orders.
func validateOrders(stockID order.StockID, orders []order.Order) error {
	if len(orders) > MaxBatch {
		return fmt.Errorf("decide: %w: %d orders are more than %d", mysql.ErrInvalid, len(orders), MaxBatch)
	}
	for i := range orders {
		o := &orders[i]
		if err := o.Validate(); err != nil {
			return fmt.Errorf("decide order %s: %w: %w", o.ID, mysql.ErrInvalid, err)
		}
		if o.StockID != stockID {
			return fmt.Errorf("decide order %s: %w: it is of product %d, not %d", o.ID, mysql.ErrInvalid,
				o.StockID, stockID)
		}
	}
	return nil
}

// errKnown says that an order, or another one with its idempotency key, may have a row already.
var errKnown = mysql.OwnError("an order, or its idempotency key, has a row already")

// decideNew decides orders without a look for rows that they have already. It returns errKnown if one has, and then
// nothing is decided.
func (l *Ledger) decideNew(ctx context.Context, stockID order.StockID, orders []order.Order,
	verdict order.Reason) (decisions []order.Decision, err error) {
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		d, err := l.lockToDecide(ctx, tx, stockID, orders, verdict)
		if err != nil {
			return err
		}

		decisions = d.judge(orders, verdict)

		if err := d.write(ctx, tx); errors.Is(err, mysql.ErrLostRace) {
			return errKnown // and not the error itself, after which InTx would do the same again
		} else if err != nil {
			return err
		}
		return failpoint.Before(failpoint.Commit)
	})
	return decisions, err
}

// decideKnown decides orders of which some may have rows already: those are read first, and hold.
func (l *Ledger) decideKnown(ctx context.Context, stockID order.StockID, orders []order.Order,
	verdict order.Reason) (decisions []order.Decision, err error) {
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		d, err := l.lockToDecide(ctx, tx, stockID, orders, verdict)
		if err != nil {
			return err
		}
		if err := d.readRows(ctx, tx, orders); err != nil {
			return err
		}

		decisions = d.judge(orders, verdict)

		if err := d.write(ctx, tx); err != nil {
			return err
		}
		return failpoint.Before(failpoint.Commit)
	})
	return decisions, err
}

// decider is what a deciding transaction knows, and what it is going to write.
type decider struct {
	product *productRow // as locked; nil if it is unknown
	time    time.Time

	decided map[order.OrderID]*orderRow // rows of the orders in question that were read, and those about to be stored
	holders map[keyScope]*keyHolder     // of idempotency keys, as far as they were read, and those about to be stored
	bought  map[order.UserID]int64      // units by user; empty if there is no limit

	wallets *wallet.Locked // of the buyers who pay with points; nil if there is none

	orders   []*orderRow
	holds    []holdRow
	released []keyScope // keys that are stored, and that other orders take over
	changes  []ledgerRow
	sold     map[order.UserID]int64 // units by user that are to be added to those bought; empty if there is no limit
}

// lockToDecide locks the product, and the wallets of those who pay with points, unless the verdict is known already. It
// reads what the buyers of the orders have of the product if it has a limit.
func (l *Ledger) lockToDecide(ctx context.Context, tx *sqlx.Tx, stockID order.StockID,
	orders []order.Order, verdict order.Reason) (*decider, error) {
	start := time.Now()
	product, err := lockProduct(ctx, tx, stockID)
	l.db.Ended(CallLock, start, err)
	if err != nil {
		return nil, err
	}
	d := &decider{
		product: product, time: mysql.Now(), decided: make(map[order.OrderID]*orderRow, len(orders)),
		holders: make(map[keyScope]*keyHolder), sold: make(map[order.UserID]int64),
	}
	if product == nil {
		return d, nil
	}
	if verdict == "" {
		if err := d.lockWallets(ctx, tx, orders); err != nil {
			return nil, err
		}
	}
	if product.LimitPerUser == 0 {
		return d, nil
	}
	for product.Counted < product.Version { // by a program of before, which does not count
		if err := count(ctx, tx, product); err != nil {
			return nil, err
		}
	}

	// Each buyer once, however many of the orders are theirs.
	users := make([]order.UserID, len(orders))
	for i := range orders {
		users[i] = orders[i].UserID
	}
	slices.Sort(users)
	d.bought, err = readBought(ctx, tx, stockID, slices.Compact(users))
	return d, err
}

// lockWallets locks the wallets of those who pay with points. Whoever locks wallets does so last, and in their order.
func (d *decider) lockWallets(ctx context.Context, tx *sqlx.Tx, orders []order.Order) (err error) {
	var payers []order.UserID
	for i := range orders {
		if orders[i].Points {
			payers = append(payers, orders[i].UserID)
		}
	}
	if len(payers) > 0 {
		d.wallets, err = wallet.Lock(ctx, tx, payers)
	}
	return err
}

// readRows reads the rows that the orders have already, and who holds their idempotency keys.
func (d *decider) readRows(ctx context.Context, tx *sqlx.Tx, orders []order.Order) error {
	ids := make([]order.OrderID, len(orders))
	for i := range orders {
		ids[i] = orders[i].ID
	}
	rows, err := readRows(ctx, tx, ids)
	if err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	for i := range rows {
		d.decided[order.OrderID(rows[i].ID)] = &rows[i]
	}
	d.holders, err = readHolders(ctx, tx, orders)
	return err
}

// claimKey sees to it that at most one of the orders under a key holds it: the latest, if they are no retries of each
// other. It reports false if the order must not be placed, since another one has been under its key.
func (d *decider) claimKey(row *orderRow) bool {
	if row.IdempotencyKey == nil {
		return true
	}
	scope, usedAt := row.scope(), row.usedKeyAt()
	holder := d.holders[scope]
	switch {
	case holder == nil:
	case outlives(holder.usedAt, usedAt): // it was on its way for long
		row.IdempotencyKey = nil
		return true
	case !outlives(usedAt, holder.usedAt):
		row.IdempotencyKey = nil
		return false
	case holder.row != nil:
		holder.row.IdempotencyKey = nil
	default:
		d.released = append(d.released, scope)
	}
	d.holders[scope] = &keyHolder{usedAt, row}
	return true
}

// judge decides the orders one after the other, each in the light of those before it.
func (d *decider) judge(orders []order.Order, verdict order.Reason) []order.Decision {
	decisions := make([]order.Decision, len(orders))
	d.orders, d.changes = make([]*orderRow, 0, len(orders)), make([]ledgerRow, 0, len(orders))

	var stock, version int64
	if d.product != nil {
		stock, version = d.product.Stock, d.product.Version
	}

	for i := range orders {
		o := &orders[i]
		if row, ok := d.decided[o.ID]; ok {
			decisions[i].Record = row.record()
			continue
		}

		// Why it fails, if it does.
		reason, row := verdict, d.row(o)
		keyFree := d.claimKey(row)
		switch {
		case reason != "":
		case !keyFree:
			reason = order.IdempotencyConflict
		case d.product == nil:
			reason = order.UnknownProduct
		case d.product.LimitPerUser > 0 && d.bought[o.UserID]+o.Quantity > d.product.LimitPerUser:
			reason = order.LimitExceeded
		case o.Quantity > stock:
			reason = order.SoldOut
		case o.Points && !d.wallets.Spend(o.UserID, o.TotalPrice(), o.ID):
			reason = order.InsufficientPoints
		}

		row.Version = version
		if reason != "" {
			row.Status, row.FailedReason = order.Failed, sql.NullString{String: string(reason), Valid: true}
		} else {
			stock -= o.Quantity
			version++
			row.Version = version
			d.hold(row, o.Points)
			if d.product.LimitPerUser > 0 {
				d.bought[o.UserID] += o.Quantity
				d.sold[o.UserID] += o.Quantity
			}
			d.changes = append(d.changes, ledgerRow{
				StockID: o.StockID, Version: version, Delta: -o.Quantity, Balance: stock,
				Reason: ledgerOrder, Ref: o.ID[:], CreatedAt: d.time,
			})
		}

		d.decided[o.ID] = row
		d.orders = append(d.orders, row)
		decisions[i] = order.Decision{Record: row.record(), Fresh: true}
	}

	for i := range decisions { // of one commit, so that all have its last version
		if decisions[i].Fresh {
			decisions[i].Version = version
		}
	}
	return decisions
}

// hold has an order wait until it is paid, if it must be. One whose points were taken is paid.
func (d *decider) hold(row *orderRow, points bool) {
	if !points && (d.product.Payment != order.PaymentRequired || row.UnitPrice == 0) {
		return
	}
	row.Status = order.Held
	h := holdRow{
		OrderID: row.ID, StockID: row.StockID, Version: row.Version, UserID: row.UserID, Quantity: row.Quantity,
		ChangedAt: d.time,
	}
	if points {
		h.State, h.PaidBy = order.Completed, []byte(PaidByPoints)
		h.PayBy, h.DueAt = d.time.Truncate(time.Millisecond), never
	} else {
		h.State = order.AwaitingPayment
		h.PayBy = d.time.Add(time.Duration(d.product.PayWithin) * time.Second).Truncate(time.Millisecond)
		h.DueAt = h.PayBy
	}
	d.holds = append(d.holds, h)
}

// row is the row of an order that is completed.
func (d *decider) row(o *order.Order) *orderRow {
	row := &orderRow{
		ID: mysql.UUID(o.ID), UserID: o.UserID, StockID: o.StockID, Quantity: o.Quantity, UnitPrice: o.UnitPrice,
		Currency: noCurrency, Status: order.Completed,
		ReservedAt: o.ReservedAt.UTC().Truncate(time.Millisecond), DecidedAt: d.time,
	}

	if d.product != nil {
		row.Currency = d.product.Currency
	}
	row.Currency = o.PricedIn(row.Currency)
	if o.IdempotencyKey != "" {
		row.IdempotencyKey = []byte(o.IdempotencyKey)
	}
	return row
}

// write stores what was judged.
func (d *decider) write(ctx context.Context, tx *sqlx.Tx) error {
	if len(d.orders) == 0 {
		return nil
	}
	if err := insertOrders(ctx, tx, d.orders); err != nil {
		return err
	}
	if err := insertHolds(ctx, tx, d.holds); err != nil {
		return err
	}
	if d.wallets != nil {
		if err := d.wallets.Write(ctx, tx); err != nil {
			return err
		}
	}
	if err := releaseKeys(ctx, tx, d.released); err != nil {
		return err
	}
	if err := insertKeys(ctx, tx, d.orders); err != nil {
		return err
	}
	if err := d.countSold(ctx, tx); err != nil {
		return err
	}
	return changeStock(ctx, tx, d.product, d.changes)
}

// countSold adds what was sold to what the buyers have. Without a limit that is nothing.
func (d *decider) countSold(ctx context.Context, tx *sqlx.Tx) error {
	if len(d.sold) == 0 {
		return nil
	}
	return addBought(ctx, tx, d.product.ID, d.sold)
}
