package mysql

import (
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/google/uuid"
)

// UUID is a UUID in a BINARY(16) column; the UUID type itself would be written as text.
type UUID uuid.UUID

// Value implements driver.Valuer.
func (id UUID) Value() (driver.Value, error) { return id[:], nil }

// Scan implements sql.Scanner.
func (id *UUID) Scan(value any) error { return (*uuid.UUID)(id).Scan(value) }

// Now is the time to store, in the resolution of the columns that take it. MySQL would round it up.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Later is the later one of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// IsStorable reports whether a time is zero or in the range of DATETIME.
func IsStorable(t time.Time) bool {
	year := t.UTC().Year()
	return t.IsZero() || (year >= 1000 && year <= 9999)
}

// NullMillis is a time for a DATETIME(3) column: NULL if it is zero. It is cut here because MySQL would round it.
func NullMillis(t time.Time) sql.NullTime {
	return sql.NullTime{Time: t.UTC().Truncate(time.Millisecond), Valid: !t.IsZero()}
}

// TimeOrNil is a time as JSON has it, so that two of them can be compared.
func TimeOrNil(t sql.NullTime) any {
	if !t.Valid {
		return nil
	}
	return t.Time.UTC().Format(time.RFC3339Nano)
}

// PageSize brings a limit into the bounds of a page.
func PageSize(limit int) int { return min(max(limit, 0), MaxPage) }
