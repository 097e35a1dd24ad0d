// Package wallet keeps what users have of points, in MySQL. Every change of a balance is a row of its ledger, written
// in the same transaction; a balance is never below zero.
package wallet

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

// Type is why a balance has changed.
type Type string

// The types of changes.
const (
	TopUp      Type = "topup"      // points were bought
	Spend      Type = "spend"      // an order was paid with them
	Refund     Type = "refund"     // points of an order came back
	Adjustment Type = "adjustment" // by staff, with a reason
)

const (
	// MaxPoints bounds a balance and a change.
	MaxPoints = 1 << 50
	// MaxNoteChars bounds the reason of an adjustment, in characters.
	MaxNoteChars = 200
	// maxRefBytes is what the column takes.
	maxRefBytes = 64
	// actAdjust is the action of an adjustment in the staff log.
	actAdjust = "wallet.adjust"
)

var (
	// ErrInsufficient: the wallet has fewer points than are to be taken out.
	ErrInsufficient = mysql.OwnError("there are not enough points")
	// ErrMismatch: a change of this type and for this reference was made before, of other points.
	ErrMismatch = mysql.OwnError("it was made before with other points")
)

// Wallet is what a user has. Who never had a point has an empty one.
type Wallet struct {
	UserID  order.UserID `db:"user_id"`
	Balance int64        `db:"balance"`
	// Earned are all points that ever came, and Spent all that ever went.
	Earned int64 `db:"earned"`
	Spent  int64 `db:"spent"`
	// Version counts the changes.
	Version int64 `db:"version"`
}

// Entry is a change of a wallet.
type Entry struct {
	UserID  order.UserID `db:"user_id"`
	Version int64        `db:"version"`
	Type    Type         `db:"type"`
	// Delta is how many points came, or went if it is below zero, and Balance what there was afterwards.
	Delta   int64 `db:"delta"`
	Balance int64 `db:"balance"`
	// Ref is what the change is for. A user has one change of each type for it.
	Ref       []byte    `db:"ref"`
	Note      string    `db:"note"`
	CreatedAt time.Time `db:"created_at"`
}

// Wallets are those of all users.
type Wallets struct{ db *mysql.DB }

// New keeps wallets in a database, which it does not close.
func New(db *mysql.DB) *Wallets { return &Wallets{db} }

// Get reads a user's wallet.
func (w *Wallets) Get(ctx context.Context, userID order.UserID) (Wallet, error) {
	wallet := Wallet{UserID: userID}
	err := w.db.GetContext(ctx, &wallet, `SELECT `+walletColumns+` FROM wallets WHERE user_id = ?`, userID)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Wallet{}, fmt.Errorf("read the wallet of user %d: %w", userID, err)
	}
	return wallet, nil
}

// Ledger reads up to limit changes of a wallet, at most mysql.MaxPage, the newest first. A page goes on before the last
// version of the page before it; 0 is the start.
func (w *Wallets) Ledger(ctx context.Context, userID order.UserID, before int64, limit int) ([]Entry, error) {
	entries := []Entry{}
	err := w.db.SelectContext(ctx, &entries, `SELECT `+entryColumns+` FROM wallet_ledger
		WHERE user_id = ? AND (version < ? OR ? = 0) ORDER BY version DESC LIMIT ?`,
		userID, before, before, mysql.PageSize(limit))
	if err != nil {
		return nil, fmt.Errorf("read the wallet's ledger of user %d: %w", userID, err)
	}
	return entries, nil
}

// TopUp adds points that were bought, once for each user and reference, and reports whether this call did. ErrMismatch:
// an earlier one has added others.
func (w *Wallets) TopUp(ctx context.Context, userID order.UserID, points int64, ref string) (Entry, bool, error) {
	if points <= 0 || points > MaxPoints {
		return Entry{}, false, mysql.Invalidf("points must be 1 to %d", int64(MaxPoints))
	}
	return w.change(ctx, topUp(userID, points, ref))
}

// TopUpIn is TopUp in another transaction, in which it comes after all locks but those of wallets.
func TopUpIn(ctx context.Context, tx *sqlx.Tx, userID order.UserID, points int64, ref string) (Entry, error) {
	e, _, err := changeIn(ctx, tx, topUp(userID, points, ref))
	return e, err
}

// RefundIn gives back points that were spent on an order, in another transaction, once for each reference.
func RefundIn(ctx context.Context, tx *sqlx.Tx, userID order.UserID, points int64, ref string) (Entry, error) {
	e, _, err := changeIn(ctx, tx, Entry{UserID: userID, Type: Refund, Delta: points, Ref: []byte(ref)})
	return e, err
}

// SpentOn reads how many points a user has spent on an order.
func SpentOn(ctx context.Context, tx *sqlx.Tx, userID order.UserID, id order.OrderID) (points int64, err error) {
	err = tx.GetContext(ctx, &points, `SELECT -delta FROM wallet_ledger WHERE user_id = ? AND type = ? AND ref = ?`,
		userID, Spend, id[:])
	if errors.Is(err, sql.ErrNoRows) {
		err = mysql.ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("read what user %d has spent on order %s: %w", userID, id, err)
	}
	return points, nil
}

func topUp(userID order.UserID, points int64, ref string) Entry {
	return Entry{UserID: userID, Type: TopUp, Delta: points, Ref: []byte(ref)}
}

// Adjust adds points, or takes them out if they are below zero, for a reason that is kept and shown to the user, once
// for each user and reference. It is noted in the staff log, as of the context's actor. ErrInsufficient: there are not
// as many to take out. ErrMismatch: as with TopUp.
func (w *Wallets) Adjust(ctx context.Context, userID order.UserID, points int64,
	ref, reason string) (Entry, bool, error) {
	switch {
	case points == 0 || points > MaxPoints || points < -MaxPoints:
		return Entry{}, false, mysql.Invalidf("points must be 1 to %d, or as many below zero to take them out",
			int64(MaxPoints))
	case reason == "" || utf8.RuneCountInString(reason) > MaxNoteChars || plaintext.Fault(reason) != "":
		return Entry{}, false, mysql.Invalidf("the reason must be 1 to %d characters", MaxNoteChars)
	}
	return w.change(ctx, Entry{UserID: userID, Type: Adjustment, Delta: points, Ref: []byte(ref), Note: reason})
}

// change makes one change in a transaction of its own, unless it was made before.
func (w *Wallets) change(ctx context.Context, e Entry) (done Entry, applied bool, err error) {
	if len(e.Ref) == 0 || len(e.Ref) > maxRefBytes {
		return Entry{}, false, mysql.Invalidf("a reference must be 1 to %d bytes", maxRefBytes)
	}
	err = w.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		done, applied, err = changeIn(ctx, tx, e)
		return err
	})
	if err != nil {
		return Entry{}, false, fmt.Errorf("change the wallet of user %d: %w", e.UserID, err)
	}
	return done, applied, nil
}

func changeIn(ctx context.Context, tx *sqlx.Tx, e Entry) (done Entry, applied bool, err error) {
	// So that there is a row to be locked: of two that find none, each would keep the other from adding one.
	_, err = tx.ExecContext(ctx, `INSERT IGNORE INTO wallets (`+walletColumns+`) VALUES (?, 0, 0, 0, 0)`, e.UserID)
	if err != nil {
		return Entry{}, false, err
	}
	locked, err := Lock(ctx, tx, []order.UserID{e.UserID})
	if err != nil {
		return Entry{}, false, err
	}

	err = tx.GetContext(ctx, &done, `SELECT `+entryColumns+` FROM wallet_ledger
		WHERE user_id = ? AND type = ? AND ref = ?`, e.UserID, e.Type, e.Ref)
	switch {
	case err == nil && done.Delta != e.Delta:
		return Entry{}, false, ErrMismatch
	case err == nil:
		return done, false, nil
	case !errors.Is(err, sql.ErrNoRows):
		return Entry{}, false, err
	}

	if err := locked.add(&e); err != nil {
		return Entry{}, false, err
	}
	if err := locked.Write(ctx, tx); err != nil {
		return Entry{}, false, err
	}
	if e.Type != Adjustment {
		return e, true, nil
	}
	return e, true, mysql.LogChange(ctx, tx, actAdjust, fmt.Sprintf("user %d", e.UserID),
		mysql.Values{"balance": e.Balance - e.Delta}, mysql.Values{"balance": e.Balance, "reason": e.Note})
}

const (
	walletColumns = `user_id, balance, earned, spent, version`
	entryColumns  = `user_id, version, type, delta, balance, ref, note, created_at`
)

// Locked are the wallets of some users, locked in a transaction, with the changes that are to be written.
type Locked struct {
	time    time.Time
	wallets map[order.UserID]*Wallet
	changed map[order.UserID]*Wallet
	entries []Entry
}

// Lock locks the wallets of users until the transaction ends, in the order of their ids. Users who have none are left
// out. It comes after all locks of products, checkouts and orders.
func Lock(ctx context.Context, tx *sqlx.Tx, users []order.UserID) (*Locked, error) {
	l := &Locked{
		time: mysql.Now(), wallets: make(map[order.UserID]*Wallet, len(users)), changed: map[order.UserID]*Wallet{},
	}
	users = slices.Clone(users)
	slices.Sort(users)
	for chunk := range slices.Chunk(slices.Compact(users), mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT `+walletColumns+` FROM wallets WHERE user_id IN (?)
			ORDER BY user_id FOR UPDATE`, chunk)
		if err != nil {
			return nil, fmt.Errorf("lock wallets: %w", err)
		}
		var rows []Wallet
		if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("lock wallets: %w", err)
		}
		for i := range rows {
			l.wallets[rows[i].UserID] = &rows[i]
		}
	}
	return l, nil
}

// Spend takes points for an order out of its buyer's wallet, or reports that there are not enough. The caller sees to
// it that no order is paid twice; if one were, Write would fail.
func (l *Locked) Spend(userID order.UserID, points int64, id order.OrderID) bool {
	return points > 0 && l.add(&Entry{UserID: userID, Type: Spend, Delta: -points, Ref: id[:]}) == nil
}

// Refund gives back points that were spent on an order.
func (l *Locked) Refund(userID order.UserID, points int64, id order.OrderID) error {
	if points <= 0 {
		return mysql.Invalidf("points must be at least 1")
	}
	return l.add(&Entry{UserID: userID, Type: Refund, Delta: points, Ref: id[:]})
}

// add makes a change that is to be written.
func (l *Locked) add(e *Entry) error {
	w := l.wallets[e.UserID]
	switch {
	case w == nil || w.Balance+e.Delta < 0:
		return ErrInsufficient
	case w.Balance+e.Delta > MaxPoints:
		return mysql.Invalidf("a wallet holds at most %d points", int64(MaxPoints))
	}
	w.Balance += e.Delta
	w.Earned += max(e.Delta, 0)
	w.Spent += max(-e.Delta, 0)
	w.Version++
	e.Version, e.Balance, e.CreatedAt = w.Version, w.Balance, l.time
	l.entries = append(l.entries, *e)
	l.changed[e.UserID] = w
	return nil
}

// Write writes the changes. It is called once.
func (l *Locked) Write(ctx context.Context, tx *sqlx.Tx) error {
	slices.SortFunc(l.entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Version, b.Version))
	})
	if len(l.entries) == 0 {
		return nil
	}
	insert := mysql.NewInsert("wallet_ledger", entryColumns)
	for i := range l.entries {
		e := &l.entries[i]
		insert.Row()
		insert.Ints(int64(e.UserID), e.Version)
		insert.Bytes([]byte(e.Type))
		insert.Ints(e.Delta, e.Balance)
		insert.Bytes(e.Ref)
		insert.Bytes([]byte(e.Note))
		insert.Time(e.CreatedAt)
	}
	if err := insert.Exec(ctx, tx); err != nil {
		return fmt.Errorf("write the ledger of wallets: %w", err)
	}

	insert = mysql.NewInsert("wallets", walletColumns)
	for _, user := range slices.Sorted(maps.Keys(l.changed)) {
		w := l.changed[user]
		insert.Row()
		insert.Ints(int64(w.UserID), w.Balance, w.Earned, w.Spent, w.Version)
	}
	err := insert.End(ctx, tx, ` ON DUPLICATE KEY UPDATE balance = VALUES(balance), earned = VALUES(earned),
		spent = VALUES(spent), version = VALUES(version)`)
	if err != nil {
		return fmt.Errorf("write wallets: %w", err)
	}
	return nil
}

// Problem is a wallet whose books do not add up.
type Problem struct {
	UserID order.UserID
	What   string
}

// maxProblems bounds how many wallets an audit names.
const maxProblems = 100

// Count counts wallets, and the changes of all of them.
func (w *Wallets) Count(ctx context.Context) (wallets, changes int64, err error) {
	err = w.db.Snapshot(ctx, func(tx *sqlx.Tx) error {
		return tx.QueryRowxContext(ctx, `SELECT (SELECT COUNT(*) FROM wallets), (SELECT COUNT(*) FROM wallet_ledger)`).
			Scan(&wallets, &changes)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("count wallets: %w", err)
	}
	return wallets, changes, nil
}

// Audit compares each balance with the sum of its ledger, of which each row must follow from the one before, in one
// snapshot. It returns the first wallets that do not add up, which are none.
func (w *Wallets) Audit(ctx context.Context) (problems []Problem, err error) {
	err = w.db.Snapshot(ctx, func(tx *sqlx.Tx) error {
		problems = nil
		for _, check := range []struct{ what, query string }{
			{"its balance, earned, spent or version is not what its ledger adds up to",
				`SELECT w.user_id FROM wallets AS w LEFT JOIN (
					SELECT user_id, COUNT(*) AS entries, MAX(version) AS last, SUM(delta) AS delta,
						SUM(CASE WHEN delta > 0 THEN delta ELSE 0 END) AS earned FROM wallet_ledger GROUP BY user_id
				) AS l ON l.user_id = w.user_id
				WHERE w.balance <> COALESCE(l.delta, 0) OR w.earned <> COALESCE(l.earned, 0)
					OR w.spent <> w.earned - w.balance OR w.version <> COALESCE(l.entries, 0)
					OR w.version <> COALESCE(l.last, 0)
				ORDER BY w.user_id LIMIT ?`},
			{"a balance in its ledger does not follow from the one before, or is below zero",
				`SELECT DISTINCT l.user_id FROM wallet_ledger AS l
				LEFT JOIN wallet_ledger AS b ON b.user_id = l.user_id AND b.version = l.version - 1
				WHERE l.balance <> COALESCE(b.balance, 0) + l.delta OR l.balance < 0 ORDER BY l.user_id LIMIT ?`},
			{"it has a ledger and no wallet",
				`SELECT DISTINCT l.user_id FROM wallet_ledger AS l LEFT JOIN wallets AS w ON w.user_id = l.user_id
				WHERE w.user_id IS NULL ORDER BY l.user_id LIMIT ?`},
		} {
			var users []order.UserID
			if err := tx.SelectContext(ctx, &users, check.query, maxProblems); err != nil {
				return err
			}
			for _, user := range users {
				problems = append(problems, Problem{user, check.what})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("audit wallets: %w", err)
	}
	return problems, nil
}
