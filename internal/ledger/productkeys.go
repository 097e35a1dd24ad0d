package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// ProductKey makes adding a product repeatable: the idempotency key of a user, and the hash of what was asked under it.
// A key stands for one product for order.IdempotencyLifetime, as it does for an order.
type ProductKey struct {
	UserID   order.UserID
	Key      string
	BodyHash [sha256.Size]byte
}

// productKeyRow is a row of the table product_keys.
type productKeyRow struct {
	UserID    order.UserID    `db:"user_id"`
	Key       []byte          `db:"idempotency_key"`
	BodyHash  []byte          `db:"body_hash"`
	ProductID order.ProductID `db:"product_id"`
	CreatedAt time.Time       `db:"created_at"`
}

// AddProductOnce is AddProduct, but returns what the first call with the key returned if there was one. Of another body
// it is ErrMismatch, and nothing is added.
func (l *Ledger) AddProductOnce(ctx context.Context, p order.Product, key ProductKey) (order.Product, error) {
	return l.addProduct(ctx, p, &key)
}

// productOfKey returns the id of the product that was added under a key, or 0 if there is none. The row is locked.
func productOfKey(ctx context.Context, tx *sqlx.Tx, key *ProductKey) (id order.ProductID, err error) {
	var known productKeyRow
	err = tx.GetContext(ctx, &known,
		`SELECT user_id, idempotency_key, body_hash, product_id, created_at FROM product_keys
		WHERE user_id = ? AND idempotency_key = ? FOR UPDATE`, key.UserID, []byte(key.Key))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read product key: %w", err)
	}

	// One that is over and not yet purged stands for nothing.
	if mysql.Now().Sub(known.CreatedAt) > order.IdempotencyLifetime {
		_, err := tx.ExecContext(ctx, `DELETE FROM product_keys WHERE user_id = ? AND idempotency_key = ?`,
			key.UserID, []byte(key.Key))
		if err != nil {
			return 0, fmt.Errorf("drop expired product key: %w", err)
		}
		return 0, nil
	}

	if [sha256.Size]byte(known.BodyHash) != key.BodyHash {
		return 0, fmt.Errorf("%w: the key stands for product %d", ErrMismatch, known.ProductID)
	}
	return known.ProductID, nil
}

// insertProductKey returns ErrLostRace if the key was used since this transaction looked.
func insertProductKey(ctx context.Context, tx *sqlx.Tx, key *ProductKey, added productRow) error {
	_, err := tx.NamedExecContext(ctx, `INSERT INTO product_keys
			(user_id, idempotency_key, body_hash, product_id, created_at)
		VALUES (:user_id, :idempotency_key, :body_hash, :product_id, :created_at)`,
		productKeyRow{key.UserID, []byte(key.Key), key.BodyHash[:], added.ID.Product(), added.CreatedAt})
	switch {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("insert product key: %w: %w", mysql.ErrLostRace, err)
	case err != nil:
		return fmt.Errorf("insert product key: %w", err)
	}
	return nil
}

// PurgeProductKeys deletes up to limit keys whose lifetime is over, at most MaxPage, and returns how many it deleted,
// also with an error.
func (l *Ledger) PurgeProductKeys(ctx context.Context, limit int) (purged int, err error) {
	over := mysql.Now().Add(-order.IdempotencyLifetime)
	var old []productKeyRow
	err = l.db.SelectContext(ctx, &old,
		`SELECT user_id, idempotency_key FROM product_keys WHERE created_at < ? LIMIT ?`,
		over, mysql.PageSize(limit))
	if err != nil {
		return 0, fmt.Errorf("purge product keys: %w", err)
	}

	// One by one, by their primary key: a range would lock the keys between, which are in use.
	for _, row := range old {
		result, err := l.db.ExecContext(ctx, `DELETE FROM product_keys
			WHERE user_id = ? AND idempotency_key = ? AND created_at < ?`, row.UserID, row.Key, over)
		if err != nil {
			return purged, fmt.Errorf("purge product keys: %w", err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return purged, fmt.Errorf("purge product keys: %w", err)
		}
		purged += int(n)
	}
	return purged, nil
}
