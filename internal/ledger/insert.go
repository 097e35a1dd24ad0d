package ledger

import (
	"context"
	"encoding/hex"
	"strconv"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// insert is an INSERT of many rows, as text. The product's row is locked while it is made, and to pass each value
// through database/sql and the driver takes several times as long. Whatever may hold any bytes is written as
// hexadecimal, so that nothing has to be escaped.
type insert struct{ text []byte }

// inserts keeps the room that the text of the last ones took.
var inserts = sync.Pool{New: func() any { return new(insert) }}

// newInsert begins a statement, which ends with exec.
func newInsert(table, columns string) *insert {
	i := inserts.Get().(*insert)
	i.text = append(i.text[:0], "INSERT INTO "+table+" ("+columns+") VALUES "...)
	return i
}

// row begins a row, whose values follow in the order of the columns.
func (i *insert) row() {
	if last := len(i.text) - 1; i.text[last] == ',' {
		i.text[last] = ')'
		i.text = append(i.text, ',')
	}
	i.text = append(i.text, '(')
}

func (i *insert) ints(values ...int64) {
	for _, n := range values {
		i.text = append(strconv.AppendInt(i.text, n, 10), ',')
	}
}

// bytes is a value of text or bytes; nil is NULL.
func (i *insert) bytes(value []byte) {
	if value == nil {
		i.text = append(i.text, "NULL,"...)
		return
	}
	i.text = append(hex.AppendEncode(append(i.text, "x'"...), value), "',"...)
}

// time is a time in UTC, for a column that has no fewer digits than it has, since it would be rounded. It is written as
// RFC 3339 has it, which package time is quickest at, but for the Z that not every MySQL takes.
func (i *insert) time(t time.Time) {
	text := t.UTC().AppendFormat(append(i.text, '\''), time.RFC3339Nano)
	i.text = append(text[:len(text)-len("Z")], "',"...)
}

func (i *insert) exec(ctx context.Context, tx *sqlx.Tx) error { return i.end(ctx, tx, "") }

// add is exec for rows that may be there: then the column, which is a number, grows by the value.
func (i *insert) add(ctx context.Context, tx *sqlx.Tx, column string) error {
	return i.end(ctx, tx, " ON DUPLICATE KEY UPDATE "+column+" = "+column+" + VALUES("+column+")")
}

func (i *insert) end(ctx context.Context, tx *sqlx.Tx, suffix string) error {
	defer inserts.Put(i)
	i.text[len(i.text)-1] = ')'
	i.text = append(i.text, suffix...)
	_, err := tx.ExecContext(ctx, string(i.text))
	return err
}
