package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// The actions of the staff log that concern no row of MySQL's: they are written by who does them, before. Ledger and
// account have those of their rows. Who reads the log may search for these words, so they stay as they are.
const (
	ActDiscard     = "dlq.discard"
	ActAcceptMySQL = "product.accept_mysql"
)

// UnknownActor is who made a change whose context names nobody.
const UnknownActor = "unknown"

const (
	// maxActorBytes is what the column takes.
	maxActorBytes = 255
	// maxLoggedBytes bounds one side of a change. The longest name and description that a product may have fit.
	maxLoggedBytes = 60_000
)

type actorKey struct{}

// WithActor is a context whose changes are logged as those of an actor: "user:7" or "ctl:root".
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor is who makes the changes of a context, or UnknownActor.
func Actor(ctx context.Context) string {
	who, _ := ctx.Value(actorKey{}).(string)
	if who == "" {
		return UnknownActor
	}
	return who[:min(len(who), maxActorBytes)]
}

// Values are one side of a change: only what changed, and no secrets.
type Values map[string]any

// Changed are the values that differ on two sides of a change, as they were and as they are.
func Changed(was, is Values) (before, after Values) {
	before, after = Values{}, Values{}
	for name := range was {
		if was[name] != is[name] {
			before[name], after[name] = was[name], is[name]
		}
	}
	return before, after
}

// LogChange adds the row of a change to the staff log, in the transaction of the change.
func LogChange(ctx context.Context, tx *sqlx.Tx, action, subject string, before, after Values) error {
	was, err := logged(before)
	if err != nil {
		return fmt.Errorf("staff log: %w", err)
	}
	is, err := logged(after)
	if err != nil {
		return fmt.Errorf("staff log: %w", err)
	}

	_, err = tx.ExecContext(ctx, `INSERT INTO staff_log (at, actor, action, subject, before_value, after_value)
		VALUES (?, ?, ?, ?, ?, ?)`, Now(), Actor(ctx), action, subject, was, is)
	if err != nil {
		return fmt.Errorf("staff log: %w", err)
	}
	return nil
}

// logged is the JSON of one side of a change, nil if it is empty.
func logged(v Values) ([]byte, error) {
	if len(v) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err == nil && len(text) > maxLoggedBytes {
		text = []byte(`{"omitted":"it is too long"}`)
	}
	return text, err
}

// LogAction adds a row to the staff log for what changes nothing in MySQL itself.
func (db *DB) LogAction(ctx context.Context, action, subject string, before map[string]any) error {
	return db.InTx(ctx, func(tx *sqlx.Tx) error { return LogChange(ctx, tx, action, subject, before, nil) })
}

// LogEntry is a row of the staff log: who did what, to what, and what that changed. Before and After are JSON objects,
// or nil.
type LogEntry struct {
	ID      int64     `db:"id"`
	At      time.Time `db:"at"`
	Actor   string    `db:"actor"`
	Action  string    `db:"action"`
	Subject string    `db:"subject"`
	Before  []byte    `db:"before_value"`
	After   []byte    `db:"after_value"`
}

// StaffLog reads up to limit rows of the staff log, at most MaxPage, the newest first: those about a subject, unless it
// is empty, and not older than since, unless that is zero.
func (db *DB) StaffLog(ctx context.Context, subject string, since time.Time, limit int) ([]LogEntry, error) {
	entries := []LogEntry{}
	err := db.SelectContext(ctx, &entries, `SELECT id, at, actor, action, subject, before_value, after_value FROM staff_log
		WHERE (? = '' OR subject = ?) AND at >= ? ORDER BY id DESC LIMIT ?`,
		subject, subject, Later(since, time.Unix(0, 0)).UTC(), min(max(limit, 1), MaxPage))
	if err != nil {
		return nil, fmt.Errorf("read the staff log: %w", err)
	}
	return entries, nil
}

// guardStaffLog makes the server refuse changes of the staff log's rows. A server with a binary log wants a right for
// that which the owner of a database need not have; then it reports false.
func guardStaffLog(ctx context.Context, db *sql.Conn) (bool, error) {
	for _, change := range []string{"UPDATE", "DELETE"} {
		_, err := db.ExecContext(ctx, `CREATE TRIGGER IF NOT EXISTS staff_log_no_`+strings.ToLower(change)+` BEFORE `+change+` ON staff_log
			FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'rows of the staff log are only ever added'`)
		switch ErrorNumber(err) {
		case 0:
			if err != nil {
				return false, fmt.Errorf("guard the staff log: %w", err)
			}
		case errBinlogTriggers, errNoTriggerRight:
			return false, nil
		default:
			return false, fmt.Errorf("guard the staff log: %w", err)
		}
	}
	return true, nil
}
