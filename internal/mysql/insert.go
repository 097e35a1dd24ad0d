package mysql

import (
	"context"
	"encoding/hex"
	"strconv"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// Insert is an INSERT of many rows, as text. The product's row is locked while it is made, and to pass each value
// through database/sql and the driver takes several times as long. Whatever may hold any bytes is written as
// hexadecimal, so that nothing has to be escaped.
type Insert struct{ text []byte }

// inserts keeps the room that the text of the last ones took.
var inserts = sync.Pool{New: func() any { return new(Insert) }}

// NewInsert begins a statement, which ends with Exec, Add or End.
func NewInsert(table, columns string) *Insert {
	i := inserts.Get().(*Insert)
	i.text = append(i.text[:0], "INSERT INTO "+table+" ("+columns+") VALUES "...)
	return i
}

// Row begins a row, whose values follow in the order of the columns.
func (i *Insert) Row() {
	if last := len(i.text) - 1; i.text[last] == ',' {
		i.text[last] = ')'
		i.text = append(i.text, ',')
	}
	i.text = append(i.text, '(')
}

// Ints are values of columns of whole numbers.
func (i *Insert) Ints(values ...int64) {
	for _, n := range values {
		i.text = append(strconv.AppendInt(i.text, n, 10), ',')
	}
}

// Bytes is a value of text or bytes; nil is NULL.
func (i *Insert) Bytes(value []byte) {
	if value == nil {
		i.text = append(i.text, "NULL,"...)
		return
	}
	i.text = append(hex.AppendEncode(append(i.text, "x'"...), value), "',"...)
}

// Time is a time in UTC, for a column that has no fewer digits than it has, since it would be rounded. It is written as
// RFC 3339 has it, which package time is quickest at, but for the Z that not every MySQL takes.
func (i *Insert) Time(t time.Time) {
	text := t.UTC().AppendFormat(append(i.text, '\''), time.RFC3339Nano)
	i.text = append(text[:len(text)-len("Z")], "',"...)
}

// Exec writes the rows.
func (i *Insert) Exec(ctx context.Context, tx *sqlx.Tx) error { return i.End(ctx, tx, "") }

// Add is Exec for rows that may be there: then the column, which is a number, grows by the value.
func (i *Insert) Add(ctx context.Context, tx *sqlx.Tx, column string) error {
	return i.End(ctx, tx, " ON DUPLICATE KEY UPDATE "+column+" = "+column+" + VALUES("+column+")")
}

// End is Exec with something behind the rows.
func (i *Insert) End(ctx context.Context, tx *sqlx.Tx, suffix string) error {
	defer inserts.Put(i)
	i.text[len(i.text)-1] = ')'
	i.text = append(i.text, suffix...)
	_, err := tx.ExecContext(ctx, string(i.text))
	return err
}
