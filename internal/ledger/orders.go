package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// orderRow is a row of the table orders, with the key that the order holds in order_keys.
type orderRow struct {
	ID             mysql.UUID     `db:"id"`
	UserID         order.UserID   `db:"user_id"`
	StockID        order.StockID  `db:"product_id"`
	Quantity       int64          `db:"quantity"`
	UnitPrice      int64          `db:"unit_price"`
	Currency       string         `db:"currency"`
	Status         order.Status   `db:"status"`
	FailedReason   sql.NullString `db:"failed_reason"`
	IdempotencyKey []byte         `db:"idempotency_key"` // nil if it holds none
	ReservedAt     time.Time      `db:"reserved_at"`
	DecidedAt      time.Time      `db:"decided_at"`
	// Version is that of the ledger's row of an order that took units, or the one at which the product stood.
	Version int64 `db:"version"`
}

const orderColumns = `o.id, o.user_id, o.product_id, o.quantity, o.unit_price, o.currency, o.status, o.failed_reason,
	o.reserved_at, o.decided_at, o.version`

// keyedOrders selects orders, by what is added, with the keys that they hold.
const keyedOrders = `SELECT ` + orderColumns + `, k.idempotency_key FROM orders AS o FORCE INDEX (PRIMARY)
	LEFT JOIN order_keys AS k FORCE INDEX (PRIMARY)
		ON k.product_id = o.product_id AND k.user_id = o.user_id AND k.order_id = o.id `

func (r orderRow) record() order.Record {
	return order.Record{
		Order: order.Order{
			ID: order.OrderID(r.ID), UserID: r.UserID, StockID: r.StockID, Quantity: r.Quantity, UnitPrice: r.UnitPrice,
			Points: r.Currency == order.PointsCurrency, ReservedAt: r.ReservedAt,
			IdempotencyKey: string(r.IdempotencyKey),
		},
		Currency: r.Currency, Status: r.Status, FailedReason: order.Reason(r.FailedReason.String),
		DecidedAt: r.DecidedAt,
	}
}

// Order reads a decided order, or returns ErrNotFound.
func (l *Ledger) Order(ctx context.Context, id order.OrderID) (order.Record, error) {
	var row orderRow
	err := l.db.GetContext(ctx, &row, keyedOrders+`WHERE o.id = ?`, mysql.UUID(id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return order.Record{}, fmt.Errorf("order %s %w", id, mysql.ErrNotFound)
	case err != nil:
		return order.Record{}, fmt.Errorf("read order %s: %w", id, err)
	}
	records := []order.Record{row.record()}
	if err := showHeld(ctx, l.db, records); err != nil {
		return order.Record{}, fmt.Errorf("read order %s: %w", id, err)
	}
	return records[0], nil
}

// pageSpans are how far back a page of orders is looked for at first, and then, until it is full. Each partition of the
// time is looked into, and hardly a reader wants to know of what is years old.
var pageSpans = []time.Duration{35 * 24 * time.Hour, 200 * 24 * time.Hour, math.MaxInt64}

// Orders reads up to limit decided orders of a user, at most MaxPage, newest first by id, without the keys that they
// hold. A page goes on after the last id of the page before it; uuid.Nil is the start.
func (l *Ledger) Orders(
	ctx context.Context, userID order.UserID, before order.OrderID, limit int,
) ([]order.Record, error) {
	newest := before.MadeAt()
	if before == (order.OrderID{}) {
		before, newest = order.OrderID(uuid.Max), time.Now()
	}

	limit = mysql.PageSize(limit)
	records := []order.Record{}
	for _, span := range pageSpans {
		var from order.OrderID
		if span < math.MaxInt64 && !newest.IsZero() {
			from = order.FirstID(newest.Add(-span))
		}
		var rows []orderRow
		err := l.db.SelectContext(ctx, &rows, `SELECT `+orderColumns+`
			FROM orders AS o WHERE o.user_id = ? AND o.id >= ? AND o.id < ? ORDER BY o.id DESC LIMIT ?`,
			userID, mysql.UUID(from), mysql.UUID(before), limit-len(records))
		if err != nil {
			return nil, fmt.Errorf("read orders of user %d: %w", userID, err)
		}
		for _, row := range rows {
			records = append(records, row.record())
		}
		if len(records) >= limit || from == (order.OrderID{}) {
			break
		}
		before = from
	}
	if err := showHeld(ctx, l.db, records); err != nil {
		return nil, fmt.Errorf("read orders of user %d: %w", userID, err)
	}
	return records, nil
}

// Undecided returns those of the ids that have no row, in the order given.
func (l *Ledger) Undecided(ctx context.Context, ids []order.OrderID) ([]order.OrderID, error) {
	decided := make(map[order.OrderID]bool, len(ids))
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT id FROM orders WHERE id IN (?)`, orderIDs(chunk))
		if err != nil {
			return nil, fmt.Errorf("read undecided orders: %w", err)
		}
		var found []mysql.UUID
		if err := l.db.SelectContext(ctx, &found, query, args...); err != nil {
			return nil, fmt.Errorf("read undecided orders: %w", err)
		}
		for _, id := range found {
			decided[order.OrderID(id)] = true
		}
	}

	var undecided []order.OrderID
	for _, id := range ids {
		if !decided[id] {
			undecided = append(undecided, id)
		}
	}
	return undecided, nil
}

func orderIDs(ids []order.OrderID) []mysql.UUID {
	converted := make([]mysql.UUID, len(ids))
	for i, id := range ids {
		converted[i] = mysql.UUID(id)
	}
	return converted
}

// insertOrders writes rows, of which there must be at least one, by id, so that transactions which insert the same
// rows meet at the first and do not each hold one that the other wants. It returns ErrLostRace if one of the ids is
// taken by a row that this transaction has not looked at.
func insertOrders(ctx context.Context, tx *sqlx.Tx, rows []*orderRow) error {
	rows = slices.SortedFunc(slices.Values(rows), func(a, b *orderRow) int { return slices.Compare(a.ID[:], b.ID[:]) })

	insert := mysql.NewInsert("orders", `id, user_id, product_id, quantity, unit_price, currency, status, failed_reason,
		reserved_at, decided_at, version`)
	for _, r := range rows {
		insert.Row()
		insert.Bytes(r.ID[:])
		insert.Ints(int64(r.UserID), int64(r.StockID), r.Quantity, r.UnitPrice)
		insert.Bytes([]byte(r.Currency))
		insert.Bytes([]byte(r.Status))
		insert.Bytes(nullable(r.FailedReason))
		insert.Time(r.ReservedAt)
		insert.Time(r.DecidedAt)
		insert.Ints(r.Version)
	}

	switch err := insert.Exec(ctx, tx); {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("insert orders: %w: %w", mysql.ErrLostRace, err)
	case err != nil:
		return fmt.Errorf("insert orders: %w", err)
	}
	return nil
}

// nullable is the text of a column that may be NULL.
func nullable(s sql.NullString) []byte {
	if !s.Valid {
		return nil
	}
	return []byte(s.String)
}
