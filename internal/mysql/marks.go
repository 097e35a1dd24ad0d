package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Mark reads what was last set under a name, or an empty text.
func (db *DB) Mark(ctx context.Context, name string) (value string, err error) {
	err = db.GetContext(ctx, &value, `SELECT value FROM marks WHERE name = ?`, name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read mark %s: %w", name, err)
	}
	return value, nil
}

// SetMark sets what a name stands for.
func (db *DB) SetMark(ctx context.Context, name, value string) error {
	_, err := db.ExecContext(ctx, `INSERT INTO marks (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = ?`,
		name, value, value)
	if err != nil {
		return fmt.Errorf("set mark %s: %w", name, err)
	}
	return nil
}
