package ledger

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// keyScope is what an idempotency key is unique in: a user and a product.
type keyScope struct {
	userID  order.UserID
	stockID order.StockID
	key     string
}

// keyHolder is the order that holds a key.
type keyHolder struct {
	usedAt time.Time
	// row is that of an order which is about to be stored, nil if the key is stored.
	row *orderRow
}

const (
	// keyMargin is by how much a key lives shorter here than in Redis, which forgets it by its own clock: an order that
	// Redis has accepted must not meet its key's last holder here.
	keyMargin = time.Minute
	// keysKept is for how long keys are stored: as long as an order may come that was placed in a key's lifetime. The
	// queue keeps a message for 14 days.
	keysKept = order.IdempotencyLifetime + 14*24*time.Hour
)

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

// outlives reports whether an order that used a key at one time was placed when the hold of another on it was over.
func outlives(usedAt, other time.Time) bool {
	return usedAt.Sub(other) > order.IdempotencyLifetime-keyMargin
}

// The reads below happen while a product's row is locked, in a table that grows fast, so that an optimizer may go by
// statistics of a much smaller one. Each names its index, so that none can take another.

// inKeys is a condition on the primary key of order_keys: product, user and key of so many keys.
func inKeys(n int) string {
	return `(product_id, user_id, idempotency_key) IN (` + strings.Repeat(", (?, ?, ?)", n)[2:] + `)`
}

// readHolders reads since when the keys of the orders are held, of those that are.
func readHolders(ctx context.Context, tx *sqlx.Tx, orders []order.Order) (map[keyScope]*keyHolder, error) {
	holders := make(map[keyScope]*keyHolder)
	for chunk := range slices.Chunk(orders, mysql.MaxInList) {
		var keys []any
		for _, o := range chunk {
			if o.IdempotencyKey != "" {
				keys = append(keys, o.StockID, o.UserID, []byte(o.IdempotencyKey))
			}
		}
		if len(keys) == 0 {
			continue
		}
		var rows []struct {
			UserID  order.UserID  `db:"user_id"`
			StockID order.StockID `db:"product_id"`
			Key     []byte        `db:"idempotency_key"`
			UsedAt  time.Time     `db:"used_at"`
		}
		err := tx.SelectContext(ctx, &rows, `SELECT product_id, user_id, idempotency_key, used_at
			FROM order_keys FORCE INDEX (PRIMARY) WHERE `+inKeys(len(keys)/3), keys...)
		if err != nil {
			return nil, fmt.Errorf("read idempotency keys: %w", err)
		}
		for _, row := range rows {
			holders[keyScope{row.UserID, row.StockID, string(row.Key)}] = &keyHolder{usedAt: row.UsedAt}
		}
	}
	return holders, nil
}

// releaseKeys takes keys from the orders that hold them, so that other orders can.
func releaseKeys(ctx context.Context, tx *sqlx.Tx, keys []keyScope) error {
	for chunk := range slices.Chunk(keys, mysql.MaxInList) {
		args := make([]any, 0, 3*len(chunk))
		for _, k := range chunk {
			args = append(args, k.stockID, k.userID, []byte(k.key))
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM order_keys WHERE `+inKeys(len(chunk)), args...)
		if err != nil {
			return fmt.Errorf("release idempotency keys: %w", err)
		}
	}
	return nil
}

// insertKeys writes the keys that orders hold, sorted like the table. It returns ErrLostRace if one of them is taken by
// an order that this transaction has not looked at.
func insertKeys(ctx context.Context, tx *sqlx.Tx, orders []*orderRow) error {
	holding := slices.DeleteFunc(slices.Clone(orders), func(r *orderRow) bool { return r.IdempotencyKey == nil })
	if len(holding) == 0 {
		return nil
	}
	slices.SortFunc(holding, func(a, b *orderRow) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), bytes.Compare(a.IdempotencyKey, b.IdempotencyKey))
	})

	insert := mysql.NewInsert("order_keys", "product_id, user_id, idempotency_key, order_id, used_at")
	for _, r := range holding {
		insert.Row()
		insert.Ints(int64(r.StockID), int64(r.UserID))
		insert.Bytes(r.IdempotencyKey)
		insert.Bytes(r.ID[:])
		insert.Time(r.usedKeyAt())
	}
	switch err := insert.Exec(ctx, tx); {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("insert idempotency keys: %w: %w", mysql.ErrLostRace, err)
	case err != nil:
		return fmt.Errorf("insert idempotency keys: %w", err)
	}
	return nil
}

// PurgeOrderKeys deletes up to limit keys, at most MaxPage, that no order can be in conflict with any more, and returns
// how many it deleted, also with an error.
func (l *Ledger) PurgeOrderKeys(ctx context.Context, limit int) (purged int, err error) {
	over := mysql.Now().Add(-keysKept)
	var old []struct {
		UserID  order.UserID  `db:"user_id"`
		StockID order.StockID `db:"product_id"`
		Key     []byte        `db:"idempotency_key"`
	}
	err = l.db.SelectContext(ctx, &old, `SELECT product_id, user_id, idempotency_key FROM order_keys
		FORCE INDEX (order_keys_used) WHERE used_at < ? ORDER BY used_at LIMIT ?`, over, mysql.PageSize(limit))
	if err != nil {
		return 0, fmt.Errorf("purge idempotency keys: %w", err)
	}

	// By their primary key: a range of times would lock the keys between, which are in use.
	for chunk := range slices.Chunk(old, purgeBatch) {
		args := make([]any, 0, 3*len(chunk)+1)
		for _, row := range chunk {
			args = append(args, row.StockID, row.UserID, row.Key)
		}
		result, err := l.db.ExecContext(ctx, `DELETE FROM order_keys WHERE `+inKeys(len(chunk))+` AND used_at < ?`,
			append(args, over)...)
		if err != nil {
			return purged, fmt.Errorf("purge idempotency keys: %w", err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return purged, fmt.Errorf("purge idempotency keys: %w", err)
		}
		purged += int(n)
	}
	return purged, nil
}

// purgeBatch is how many keys one statement of PurgeOrderKeys deletes.
const purgeBatch = 100
