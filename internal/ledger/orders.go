package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// orderRow is a row of the table orders.
type orderRow struct {
	ID             mysql.UUID     `db:"id"`
	UserID         order.UserID   `db:"user_id"`
	StockID        order.StockID  `db:"product_id"`
	Quantity       int64          `db:"quantity"`
	UnitPrice      int64          `db:"unit_price"`
	Currency       string         `db:"currency"`
	Status         order.Status   `db:"status"`
	FailedReason   sql.NullString `db:"failed_reason"`
	IdempotencyKey []byte         `db:"idempotency_key"` // nil is NULL
	ReservedAt     time.Time      `db:"reserved_at"`
	DecidedAt      time.Time      `db:"decided_at"`
}

const orderColumns = `id, user_id, product_id, quantity, unit_price, currency, status, failed_reason, idempotency_key, reserved_at, decided_at`

func (r orderRow) record() order.Record {
	return order.Record{
		Order: order.Order{
			ID: order.OrderID(r.ID), UserID: r.UserID, StockID: r.StockID, Quantity: r.Quantity, UnitPrice: r.UnitPrice,
			ReservedAt: r.ReservedAt, IdempotencyKey: string(r.IdempotencyKey),
		},
		Currency: r.Currency, Status: r.Status, FailedReason: order.Reason(r.FailedReason.String),
		DecidedAt: r.DecidedAt,
	}
}

// Order reads a decided order, or returns ErrNotFound.
func (l *Ledger) Order(ctx context.Context, id order.OrderID) (order.Record, error) {
	var row orderRow
	err := l.db.GetContext(ctx, &row, `SELECT `+orderColumns+` FROM orders WHERE id = ?`, mysql.UUID(id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return order.Record{}, fmt.Errorf("order %s %w", id, mysql.ErrNotFound)
	case err != nil:
		return order.Record{}, fmt.Errorf("read order %s: %w", id, err)
	}
	return row.record(), nil
}

// Orders reads up to limit decided orders of a user, at most MaxPage, newest first by id. A page goes on after the last
// id of the page before it; uuid.Nil is the start.
func (l *Ledger) Orders(
	ctx context.Context, userID order.UserID, before order.OrderID, limit int,
) ([]order.Record, error) {
	if before == (order.OrderID{}) {
		before = order.OrderID(uuid.Max)
	}
	var rows []orderRow
	err := l.db.SelectContext(ctx, &rows, `SELECT `+orderColumns+
		` FROM orders WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?`,
		userID, mysql.UUID(before), mysql.PageSize(limit))
	if err != nil {
		return nil, fmt.Errorf("read orders of user %d: %w", userID, err)
	}
	records := make([]order.Record, len(rows))
	for i, row := range rows {
		records[i] = row.record()
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

// keyScope is what an idempotency key is unique in: a user and a product.
type keyScope struct {
	userID  order.UserID
	stockID order.StockID
	key     string
}

// keyMargin is by how much a key lives shorter here than in Redis, which forgets it by its own clock: an order that
// Redis has accepted must not meet its key's last holder here.
const keyMargin = time.Minute

// scope is what an order's key is unique in. It has no key if the order has none.
func (r *orderRow) scope() keyScope { return keyScope{r.UserID, r.StockID, string(r.IdempotencyKey)} }

// usedKeyAt is when an order began to hold its key in Redis. An order that was redriven was reserved again since, but
// its id is as old as its key.
func (r *orderRow) usedKeyAt() time.Time {
	if made := order.OrderID(r.ID).MadeAt(); !made.IsZero() && made.Before(r.ReservedAt) {
		return made
	}
	return r.ReservedAt
}

// outlives reports whether an order was placed when the other's hold on the same key was over.
func (r *orderRow) outlives(other *orderRow) bool {
	return r.usedKeyAt().Sub(other.usedKeyAt()) > order.IdempotencyLifetime-keyMargin
}

// The reads below happen while a product's row is locked, in a table that grows fast, so that an optimizer may go by
// statistics of a much smaller one. Each names its index, so that none can take another.

// readRelated reads the rows that have the id, or the user, product and idempotency key, of one of the orders.
func readRelated(ctx context.Context, tx *sqlx.Tx, orders []order.Order) ([]orderRow, error) {
	var related []orderRow
	for chunk := range slices.Chunk(orders, mysql.MaxInList) {
		ids := make([]mysql.UUID, len(chunk))
		var keys []any
		for i, o := range chunk {
			ids[i] = mysql.UUID(o.ID)
			if o.IdempotencyKey != "" {
				keys = append(keys, o.UserID, o.StockID, []byte(o.IdempotencyKey))
			}
		}

		query, args, err := sqlx.In(`SELECT `+orderColumns+` FROM orders FORCE INDEX (PRIMARY) WHERE id IN (?)`, ids)
		if err != nil {
			return nil, fmt.Errorf("read orders: %w", err)
		}
		if len(keys) > 0 {
			// Two reads of one round trip, since the product's row is locked meanwhile.
			scopes := strings.Repeat(", (?, ?, ?)", len(keys)/3)[2:]
			query += ` UNION ALL SELECT ` + orderColumns + ` FROM orders FORCE INDEX (orders_idempotency)
				WHERE (user_id, product_id, idempotency_key) IN (` + scopes + `)`
			args = append(args, keys...)
		}

		var rows []orderRow
		if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("read orders: %w", err)
		}
		related = append(related, rows...)
	}
	return related, nil
}

// readBought reads how many units of a product each of the users has bought. Users without any are not in the map.
func readBought(
	ctx context.Context, tx *sqlx.Tx, stockID order.StockID, users []order.UserID,
) (map[order.UserID]int64, error) {
	bought := make(map[order.UserID]int64, len(users))
	for chunk := range slices.Chunk(users, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT user_id, SUM(quantity) AS units FROM orders FORCE INDEX (orders_limit)
			WHERE product_id = ? AND user_id IN (?) AND status = ? GROUP BY user_id`, stockID, chunk, order.Completed)
		if err != nil {
			return nil, fmt.Errorf("read units bought: %w", err)
		}

		var sums []struct {
			UserID order.UserID `db:"user_id"`
			Units  int64        `db:"units"`
		}
		if err := tx.SelectContext(ctx, &sums, query, args...); err != nil {
			return nil, fmt.Errorf("read units bought: %w", err)
		}
		for _, sum := range sums {
			bought[sum.UserID] = sum.Units
		}
	}
	return bought, nil
}

// releaseKeys takes the keys from orders that have rows, so that other orders can hold them.
func releaseKeys(ctx context.Context, tx *sqlx.Tx, ids []mysql.UUID) error {
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(`UPDATE orders SET idempotency_key = NULL WHERE id IN (?)`, chunk)
		if err != nil {
			return fmt.Errorf("release idempotency keys: %w", err)
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("release idempotency keys: %w", err)
		}
	}
	return nil
}

// insertOrders writes rows, of which there must be at least one, by id, so that transactions which insert the same
// rows meet at the first and do not each hold one that the other wants. It returns ErrLostRace if one of the ids, or
// one of the idempotency keys, is taken by a row that this transaction has not looked at.
func insertOrders(ctx context.Context, tx *sqlx.Tx, rows []*orderRow) error {
	rows = slices.SortedFunc(slices.Values(rows), func(a, b *orderRow) int { return slices.Compare(a.ID[:], b.ID[:]) })

	insert := newInsert("orders", orderColumns)
	for _, r := range rows {
		insert.row()
		insert.bytes(r.ID[:])
		insert.ints(int64(r.UserID), int64(r.StockID), r.Quantity, r.UnitPrice)
		insert.bytes([]byte(r.Currency))
		insert.bytes([]byte(r.Status))
		insert.bytes(nullable(r.FailedReason))
		insert.bytes(r.IdempotencyKey)
		insert.time(r.ReservedAt)
		insert.time(r.DecidedAt)
	}

	switch err := insert.exec(ctx, tx); {
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

// Bought reads how many units of a product these users have by completed orders. Who has none is missing.
func (l *Ledger) Bought(ctx context.Context, stockID order.StockID,
	users []order.UserID) (bought map[order.UserID]int64, err error) {
	err = l.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		bought, err = readBought(ctx, tx, stockID, users)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("product %d: %w", stockID, err)
	}
	return bought, nil
}
