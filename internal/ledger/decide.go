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

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/mysql"
	"stampede/internal/order"
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
//
// whichever comes first in this list. Orders that were placed order.IdempotencyLifetime apart are not in conflict: the
// key belongs to the later one, and the row of the earlier one has none any more. A fresh decision has the product's
// version after the whole transaction, and 0 for an unknown product. An order of another product, or one that is not
// valid, is ErrInvalid, and then none is decided.
func (l *Ledger) Decide(ctx context.Context, productID int64, orders []order.Order) ([]order.Decision, error) {
	return l.decide(ctx, productID, orders, "")
}

// Fail decides an order as failed for a reason that the caller gives. If the order has a row already, it changes
// nothing and the decision is what the row says, as with Decide.
func (l *Ledger) Fail(ctx context.Context, o order.Order, reason order.Reason) (order.Decision, error) {
	if reason == "" {
		return order.Decision{}, fmt.Errorf("fail order %s: %w: no reason is given", o.ID, mysql.ErrInvalid)
	}
	decisions, err := l.decide(ctx, o.ProductID, []order.Order{o}, reason)
	if err != nil {
		return order.Decision{}, err
	}
	return decisions[0], nil
}

// rehearsalUser buys what is decided in rehearsals. No account has this id.
const rehearsalUser = math.MaxInt64

// Rehearse decides an order of a product that nobody has made, and undoes it. If that fails, then not even a sound
// order can be decided now: what other orders of the product fail for is not a reason of their own.
func (l *Ledger) Rehearse(ctx context.Context, productID int64) error {
	if err := l.rehearse(ctx, productID, nil); err != nil {
		return fmt.Errorf("rehearse a decision of product %d: %w", productID, err)
	}
	return nil
}

// RehearseAny is Rehearse with a product that nobody has made either. If that fails, no order of any product can be
// decided.
func (l *Ledger) RehearseAny(ctx context.Context) error {
	// Ids of products are positive. A negative one is nobody's, and leaves the table's counter of ids alone.
	product := productRow{
		ID: -1 - rand.Int64N(math.MaxInt64), Name: "rehearsal", Currency: noCurrency, Stock: 1, Version: 1, Revision: 1,
		CreatedAt: mysql.Now(), State: order.OffSale,
	}
	if err := l.rehearse(ctx, product.ID, &product); err != nil {
		return fmt.Errorf("rehearse a decision: %w", err)
	}
	return nil
}

// rehearse decides an order and undoes it; before it, a product is added if one is given.
func (l *Ledger) rehearse(ctx context.Context, productID int64, product *productRow) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	orders := []order.Order{{ID: id, UserID: rehearsalUser, ProductID: productID, Quantity: 1, ReservedAt: mysql.Now()}}

	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		if product != nil {
			if err := insertProduct(ctx, tx, product); err != nil {
				return err
			}
		}
		b, err := l.openBook(ctx, tx, productID, orders, true)
		if err != nil {
			return err
		}
		b.judge(orders, "")
		if err := b.write(ctx, tx); err != nil {
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
func (l *Ledger) decide(ctx context.Context, productID int64, orders []order.Order,
	verdict order.Reason) ([]order.Decision, error) {
	if len(orders) == 0 {
		return nil, nil
	}
	if len(orders) > MaxBatch {
		return nil, fmt.Errorf("decide: %w: %d orders are more than %d", mysql.ErrInvalid, len(orders), MaxBatch)
	}
	for _, o := range orders {
		if err := o.Validate(); err != nil {
			return nil, fmt.Errorf("decide order %s: %w: %w", o.ID, mysql.ErrInvalid, err)
		}
		if o.ProductID != productID {
			return nil, fmt.Errorf("decide order %s: %w: it is of product %d, not %d", o.ID, mysql.ErrInvalid,
				o.ProductID, productID)
		}
	}
	if err := failpoint.Before(failpoint.Decide); err != nil {
		return nil, err
	}
	// Of many orders hardly any has a row already. That is found out by inserting them, and only if one has, the rows
	// are looked for. An order that comes alone may well have come before.
	look := len(orders) == 1
	var decisions []order.Decision
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		b, err := l.openBook(ctx, tx, productID, orders, look)
		if err != nil {
			return err
		}
		decisions = b.judge(orders, verdict)
		if err := b.write(ctx, tx); err != nil {
			look = true
			return err
		}
		return failpoint.Before(failpoint.Commit)
	})
	if err == nil {
		err = failpoint.After(failpoint.Commit)
	}
	if err != nil {
		return nil, fmt.Errorf("decide %d orders of product %d: %w", len(orders), productID, err)
	}
	return decisions, nil
}

// book is what a deciding transaction knows, and what it is going to write.
type book struct {
	product *productRow // as locked; nil if it is unknown
	time    time.Time

	decided map[uuid.UUID]*orderRow // rows of the orders in question, as far as looked at, and those about to be stored
	holders map[keyScope]*orderRow  // those of these rows that hold an idempotency key
	bought  map[int64]int64         // units by user; empty if there is no limit

	orders   []*orderRow
	released []mysql.UUID // rows that are stored and lose their keys
	changes  []ledgerRow
}

// openBook locks the product and reads what judging the orders takes; the rows that orders have already only if look
// says so. Who does not look at them cannot insert their orders.
func (l *Ledger) openBook(ctx context.Context, tx *sqlx.Tx, productID int64, orders []order.Order,
	look bool) (*book, error) {
	start := time.Now()
	product, err := lockProduct(ctx, tx, productID)
	l.db.Ended(CallLock, start, err)
	if err != nil {
		return nil, err
	}
	b := &book{
		product: product, time: mysql.Now(), decided: make(map[uuid.UUID]*orderRow, len(orders)),
		holders: make(map[keyScope]*orderRow),
	}
	if look {
		related, err := readRelated(ctx, tx, orders)
		if err != nil {
			return nil, err
		}
		for i := range related {
			b.note(&related[i])
		}
	}
	if product != nil && product.LimitPerUser > 0 {
		users := make([]int64, len(orders))
		for i, o := range orders {
			users[i] = o.UserID
		}
		slices.Sort(users)
		if b.bought, err = readBought(ctx, tx, productID, slices.Compact(users)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *book) note(row *orderRow) {
	b.decided[uuid.UUID(row.ID)] = row
	if row.IdempotencyKey != nil {
		b.holders[row.scope()] = row
	}
}

// claimKey sees to it that at most one of the orders under a key holds it: the latest, if they are no retries of each
// other. It reports false if the order must not be placed, since another one has been under its key.
func (b *book) claimKey(row *orderRow) bool {
	holder := b.holders[row.scope()]
	switch {
	case row.IdempotencyKey == nil || holder == nil:
		return true
	case holder.outlives(row): // it was on its way for long
		row.IdempotencyKey = nil
		return true
	case !row.outlives(holder):
		row.IdempotencyKey = nil
		return false
	}

	holder.IdempotencyKey = nil
	if !slices.Contains(b.orders, holder) {
		b.released = append(b.released, holder.ID)
	}
	return true
}

// judge decides the orders one after the other, each in the light of those before it.
func (b *book) judge(orders []order.Order, verdict order.Reason) []order.Decision {
	decisions := make([]order.Decision, len(orders))
	b.orders, b.changes = make([]*orderRow, 0, len(orders)), make([]ledgerRow, 0, len(orders))
	var stock, version int64
	if b.product != nil {
		stock, version = b.product.Stock, b.product.Version
	}
	for i := range orders {
		o := &orders[i]
		if row, ok := b.decided[o.ID]; ok {
			decisions[i].Record = row.record()
			continue
		}
		reason, row := verdict, b.row(o)
		keyFree := b.claimKey(row)
		switch {
		case reason != "":
		case !keyFree:
			reason = order.IdempotencyConflict
		case b.product == nil:
			reason = order.UnknownProduct
		case b.product.LimitPerUser > 0 && b.bought[o.UserID]+o.Quantity > b.product.LimitPerUser:
			reason = order.LimitExceeded
		case o.Quantity > stock:
			reason = order.SoldOut
		}
		if reason != "" {
			row.Status, row.FailedReason = order.Failed, sql.NullString{String: string(reason), Valid: true}
		} else {
			stock -= o.Quantity
			version++
			if b.product.LimitPerUser > 0 {
				b.bought[o.UserID] += o.Quantity
			}
			b.changes = append(b.changes, ledgerRow{
				ProductID: o.ProductID, Version: version, Delta: -o.Quantity, Balance: stock,
				Reason: ledgerOrder, Ref: o.ID[:], CreatedAt: b.time,
			})
		}
		b.note(row)
		b.orders = append(b.orders, row)
		decisions[i] = order.Decision{Record: row.record(), Fresh: true}
	}
	for i := range decisions {
		if decisions[i].Fresh {
			decisions[i].Version = version
		}
	}
	return decisions
}

// row is the row of an order that is completed.
func (b *book) row(o *order.Order) *orderRow {
	row := &orderRow{
		ID: mysql.UUID(o.ID), UserID: o.UserID, ProductID: o.ProductID, Quantity: o.Quantity, UnitPrice: o.UnitPrice,
		Currency: noCurrency, Status: order.Completed,
		ReservedAt: o.ReservedAt.UTC().Truncate(time.Millisecond), DecidedAt: b.time,
	}
	if b.product != nil {
		row.Currency = b.product.Currency
	}
	if o.IdempotencyKey != "" {
		row.IdempotencyKey = []byte(o.IdempotencyKey)
	}
	return row
}

// write stores what was judged.
func (b *book) write(ctx context.Context, tx *sqlx.Tx) error {
	if len(b.orders) == 0 {
		return nil
	}
	if err := releaseKeys(ctx, tx, b.released); err != nil {
		return err
	}
	if err := insertOrders(ctx, tx, b.orders); err != nil {
		return err
	}
	return changeStock(ctx, tx, b.product, b.changes)
}
