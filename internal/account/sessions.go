package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

const (
	// MaxSessions is how many sessions of one user are live at a time: more devices than anybody has, and few enough
	// that ending them all is one short transaction. A further login revokes the oldest.
	MaxSessions = 50
	// MaxSessionTTL is the longest that a session may last.
	MaxSessionTTL = 90 * 24 * time.Hour
	// MaxRefreshes is how often a session's token may be replaced, since each replacement leaves a row until the
	// session is purged. A client that refreshes when its access token of 15 minutes runs out needs 2,880 in 30 days.
	MaxRefreshes = 5_000
	// RefreshGrace is for how long after its replacement a refresh token is answered with the token that replaced it:
	// long enough for a client whose answer got lost to try again, and for two tabs that refresh at once.
	RefreshGrace = 10 * time.Second
	// purgeBatch is how many sessions one transaction of PurgeSessions deletes, with up to MaxRefreshes tokens each.
	purgeBatch = 20
	// maxListed bounds the sessions that Sessions reads.
	maxListed = 100
)

var (
	// ErrEnded: the session has expired or was revoked. The user has to log in again.
	ErrEnded = mysql.OwnError("the session has ended")
	// ErrReused: a refresh token came back after it had been replaced, so two hold a token that only one should.
	ErrReused = mysql.OwnError("the refresh token was used before")
)

// Session is one login: the family of refresh tokens of which each replaced the one before.
type Session struct {
	// ID is a UUIDv7, and what access tokens name as their session.
	ID        uuid.UUID
	UserID    order.UserID
	CreatedAt time.Time
	// ExpiresAt is when the session ends however often it is refreshed. An access token should not outlast it.
	ExpiresAt time.Time
	// RevokedAt is zero while the session is not revoked.
	RevokedAt time.Time
	// Displaced are the sessions that StartSession revoked to make room. It is empty elsewhere.
	Displaced []uuid.UUID
}

// sessionRow is a row of the table sessions.
type sessionRow struct {
	ID        mysql.UUID   `db:"id"`
	UserID    order.UserID `db:"user_id"`
	CreatedAt time.Time    `db:"created_at"`
	ExpiresAt time.Time    `db:"expires_at"`
	RevokedAt sql.NullTime `db:"revoked_at"`
	Refreshes int64        `db:"refreshes"`
}

const sessionColumns = `id, user_id, created_at, expires_at, revoked_at, refreshes`

func (r sessionRow) session() Session {
	return Session{
		ID: uuid.UUID(r.ID), UserID: r.UserID, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt,
		RevokedAt: r.RevokedAt.Time,
	}
}

// tokenRow is a row of the table refresh_tokens.
type tokenRow struct {
	Hash       []byte       `db:"hash"`
	SessionID  mysql.UUID   `db:"session_id"`
	IssuedAt   time.Time    `db:"issued_at"`
	ReplacedAt sql.NullTime `db:"replaced_at"`
}

// Locks are taken in the order user, session. A session's tokens are read and written under the lock of its row, and
// need none of their own. Sessions of a user are found by plain reads under the lock of the user's row: a locking read
// of an index range would lock the gaps in it, and first logins of many new users would deadlock there.

// StartSession begins a session of a user that lasts for ttl, with a first refresh token, of which it is given the
// SHA-256. If the user has MaxSessions live ones the oldest are revoked and returned as Displaced, so that their access
// tokens can be refused too. ErrNotFound: there is no such user. ErrDisabled: the account is disabled.
// ErrPasswordChanged: the password is another one than when the user was read, so that nobody has shown to know it.
// ErrExists: the token is known already. ErrInvalid: ttl is not positive or over MaxSessionTTL.
func (a *Accounts) StartSession(
	ctx context.Context, user User, refreshHash [32]byte, ttl time.Duration,
) (Session, error) {
	if ttl <= 0 || ttl > MaxSessionTTL {
		return Session{}, fmt.Errorf("start session: %w: the time is not 0 to %s", mysql.ErrInvalid, MaxSessionTTL)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Session{}, fmt.Errorf("start session: %w", err)
	}
	var started Session
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		locked, err := lockUserRow(ctx, tx, user.ID)
		switch {
		case err != nil:
			return err
		case locked.DisabledAt.Valid:
			return ErrDisabled
		case !locked.PasswordChangedAt.Time.Equal(user.PasswordChangedAt):
			return ErrPasswordChanged
		}
		// The time is taken under the lock, so that sessions begin in the order of their times.
		at := mysql.Now()
		displaced, err := displaceSessions(ctx, tx, user.ID, at)
		if err != nil {
			return err
		}
		expires := at.Add(ttl).Truncate(time.Microsecond)
		row := sessionRow{ID: mysql.UUID(id), UserID: user.ID, CreatedAt: at, ExpiresAt: expires}
		if _, err := tx.NamedExecContext(ctx, `INSERT INTO sessions (`+sessionColumns+`)
			VALUES (:id, :user_id, :created_at, :expires_at, :revoked_at, :refreshes)`, row); err != nil {
			return fmt.Errorf("insert session: %w", err)
		}
		started = row.session()
		started.Displaced = displaced
		return insertToken(ctx, tx, refreshHash, row.ID, at)
	})
	if err != nil {
		return Session{}, fmt.Errorf("start session of user %d: %w", user.ID, err)
	}
	return started, nil
}

// displaceSessions revokes the oldest live sessions of a user, whose row is locked, until there is room for one more.
func displaceSessions(ctx context.Context, tx *sqlx.Tx, userID order.UserID, at time.Time) ([]uuid.UUID, error) {
	// Times decide, and not ids, whose clocks are those of different processes.
	var live []mysql.UUID
	err := tx.SelectContext(ctx, &live, `SELECT id FROM sessions FORCE INDEX (sessions_user)
		WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ? ORDER BY created_at, id`, userID, at)
	if err != nil {
		return nil, fmt.Errorf("read live sessions: %w", err)
	}
	excess := len(live) - (MaxSessions - 1)
	if excess <= 0 {
		return nil, nil
	}
	return revoke(ctx, tx, live[:excess], at)
}

// revoke revokes those of the sessions that are not revoked yet, and returns all of them.
func revoke(ctx context.Context, tx *sqlx.Tx, ids []mysql.UUID, at time.Time) ([]uuid.UUID, error) {
	revoked := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		revoked[i] = uuid.UUID(id)
	}
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(
			`UPDATE sessions FORCE INDEX (PRIMARY) SET revoked_at = ? WHERE id IN (?) AND revoked_at IS NULL`, at, chunk)
		if err != nil {
			return nil, fmt.Errorf("revoke sessions: %w", err)
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return nil, fmt.Errorf("revoke sessions: %w", err)
		}
	}
	return revoked, nil
}

func insertToken(ctx context.Context, tx *sqlx.Tx, hash [32]byte, id mysql.UUID, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO refresh_tokens (hash, session_id, issued_at) VALUES (?, ?, ?)`, hash[:],
		id, at)
	switch {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("the refresh token %w", mysql.ErrExists)
	case err != nil:
		return fmt.Errorf("insert refresh token: %w", err)
	}
	return nil
}

// Refresh replaces a refresh token by another, given the SHA-256 of both, and returns the session with its user as
// they are now. The session expires when it did before.
//
// ErrNotFound: nobody has issued the old token, or its session was purged. ErrEnded: the session has expired, was
// revoked, or has used up MaxRefreshes. ErrReused: the old token had been replaced more than RefreshGrace ago, or by
// another token. One of those who hold it may have stolen it, and nobody can tell which, so the session is revoked (RFC
// 9700, section 4.14.2). With ErrReused, and with no other error, the session is returned as well, for its access
// tokens to be refused. It is returned each time, so that a word about it which was lost is given again.
//
// A repeated call with the same new token within RefreshGrace is no reuse and returns what the first returned, whatever
// became of the new token since. So callers make the new token of the old one, for a client that has lost the answer
// and asks again, and for one that asks from two places at once. Of calls with the same old token and different new
// ones exactly one succeeds; each other ends the session.
func (a *Accounts) Refresh(ctx context.Context, oldHash, newHash [32]byte) (Session, User, error) {
	if oldHash == newHash {
		return Session{}, User{}, fmt.Errorf("refresh: %w: a token cannot replace itself", mysql.ErrInvalid)
	}
	// A token never changes its session, so this needs no lock; with it in the transaction the snapshot would be older
	// than the lock.
	var id mysql.UUID
	err := a.db.GetContext(ctx, &id, `SELECT session_id FROM refresh_tokens WHERE hash = ?`, oldHash[:])
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Session{}, User{}, fmt.Errorf("refresh: token %w", mysql.ErrNotFound)
	case err != nil:
		return Session{}, User{}, fmt.Errorf("refresh: read token: %w", err)
	}
	var session Session
	var user User
	var refused error // an answer whose changes are to be kept, unlike an error of the transaction
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		row, err := lockSessionRow(ctx, tx, id)
		if err != nil {
			return err
		}
		if refused, err = refresh(ctx, tx, &row, oldHash, newHash); err != nil {
			return err
		}
		session = row.session()
		if refused == nil {
			user, err = readUser(ctx, tx, row.UserID)
		}
		return err
	})
	switch {
	case err != nil:
		return Session{}, User{}, fmt.Errorf("refresh: %w", err)
	case errors.Is(refused, ErrReused):
		return session, User{}, fmt.Errorf("refresh session %s of user %d: %w", session.ID, session.UserID, refused)
	case refused != nil:
		return Session{}, User{}, fmt.Errorf("refresh: %w", refused)
	}
	return session, user, nil
}

// lockSessionRow locks a session until the transaction ends and reads it. It must be the first statement of its
// transaction: under REPEATABLE READ the first plain read takes the snapshot that all later ones see.
func lockSessionRow(ctx context.Context, tx *sqlx.Tx, id mysql.UUID) (sessionRow, error) {
	var row sessionRow
	err := tx.GetContext(ctx, &row, `SELECT `+sessionColumns+` FROM sessions WHERE id = ? FOR UPDATE`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return sessionRow{}, fmt.Errorf("session %s %w", uuid.UUID(id), mysql.ErrNotFound)
	case err != nil:
		return sessionRow{}, fmt.Errorf("lock session %s: %w", uuid.UUID(id), err)
	}
	return row, nil
}

// refresh replaces the token of a session whose row is locked, or says why not. It keeps row like the stored one.
func refresh(ctx context.Context, tx *sqlx.Tx, row *sessionRow, oldHash, newHash [32]byte) (refused, err error) {
	var tokens []tokenRow
	err = tx.SelectContext(ctx, &tokens,
		`SELECT hash, session_id, issued_at, replaced_at FROM refresh_tokens FORCE INDEX (PRIMARY)
		WHERE hash IN (?, ?)`, oldHash[:], newHash[:])
	if err != nil {
		return nil, fmt.Errorf("read refresh tokens: %w", err)
	}
	find := func(hash [32]byte) *tokenRow {
		i := slices.IndexFunc(tokens, func(t tokenRow) bool { return [32]byte(t.Hash) == hash })
		if i < 0 || tokens[i].SessionID != row.ID {
			return nil
		}
		return &tokens[i]
	}
	old := find(oldHash)
	if old == nil {
		return mysql.ErrNotFound, nil
	}
	at := mysql.Now()
	if expired := !at.Before(row.ExpiresAt); expired {
		return ErrEnded, nil
	}
	if old.ReplacedAt.Valid {
		next := find(newHash)
		repeated := next != nil && next.IssuedAt.Equal(old.ReplacedAt.Time) &&
			at.Sub(old.ReplacedAt.Time) <= RefreshGrace
		switch {
		case !repeated:
			return ErrReused, revokeLocked(ctx, tx, row, at)
		case row.RevokedAt.Valid:
			return ErrEnded, nil
		}
		return nil, nil
	}
	switch {
	case row.RevokedAt.Valid:
		return ErrEnded, nil
	case row.Refreshes >= MaxRefreshes:
		return ErrEnded, revokeLocked(ctx, tx, row, at)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE refresh_tokens SET replaced_at = ? WHERE hash = ?`, at,
		oldHash[:]); err != nil {
		return nil, fmt.Errorf("replace refresh token: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE sessions SET refreshes = refreshes + 1 WHERE id = ?`, row.ID); err != nil {
		return nil, fmt.Errorf("count refreshes: %w", err)
	}
	row.Refreshes++
	return nil, insertToken(ctx, tx, newHash, row.ID, at)
}

// revokeLocked revokes a session whose row is locked, unless it is revoked.
func revokeLocked(ctx context.Context, tx *sqlx.Tx, row *sessionRow, at time.Time) error {
	if row.RevokedAt.Valid {
		return nil
	}
	if _, err := revoke(ctx, tx, []mysql.UUID{row.ID}, at); err != nil {
		return err
	}
	row.RevokedAt = sql.NullTime{Time: at, Valid: true}
	return nil
}

// EndSession revokes a session and says whether this call did it: not if it was revoked before, or never existed.
func (a *Accounts) EndSession(ctx context.Context, id uuid.UUID) (bool, error) {
	var ended int64
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE sessions SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL`,
			mysql.Now(), mysql.UUID(id))
		if err == nil {
			ended, err = result.RowsAffected()
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("end session %s: %w", id, err)
	}
	return ended == 1, nil
}

// EndSessions revokes all sessions of a user and returns those that it revoked, none if there is no such user. One that
// another call revokes at the same moment may be among them. A session that starts after it is not.
func (a *Accounts) EndSessions(ctx context.Context, userID order.UserID) ([]uuid.UUID, error) {
	var ended []uuid.UUID
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) (err error) {
		ended = nil
		if found, err := lockUser(ctx, tx, userID); err != nil || !found {
			return err
		}
		// What users do themselves has no actor, and no place in the staff log.
		ended, err = endSessions(ctx, tx, userID)
		if err != nil || len(ended) == 0 || mysql.Actor(ctx) == mysql.UnknownActor {
			return err
		}
		after := mysql.Values{"sessions_ended": len(ended)}
		return mysql.LogChange(ctx, tx, actUserLogout, aboutUser(userID), nil, after)
	})
	if err != nil {
		return nil, fmt.Errorf("end sessions of user %d: %w", userID, err)
	}
	return ended, nil
}

// endSessions revokes all sessions of a user whose row is locked.
func endSessions(ctx context.Context, tx *sqlx.Tx, userID order.UserID) ([]uuid.UUID, error) {
	var ids []mysql.UUID
	err := tx.SelectContext(ctx, &ids, `SELECT id FROM sessions FORCE INDEX (sessions_user)
		WHERE user_id = ? AND revoked_at IS NULL ORDER BY id`, userID)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	return revoke(ctx, tx, ids, mysql.Now())
}

// PurgeSessions deletes up to limit sessions, at most MaxPage, that expired or were revoked before olderThan, with
// their tokens, and returns how many it deleted, also with an error. Their tokens are then ErrNotFound. olderThan must
// lie further back than the longest access token, or nobody learns of revoked sessions whose access tokens are
// still good. ErrInvalid: it lies in the future.
func (a *Accounts) PurgeSessions(ctx context.Context, olderThan time.Time, limit int) (purged int, err error) {
	if olderThan.After(time.Now()) {
		return 0, fmt.Errorf("purge sessions: %w: the time lies in the future", mysql.ErrInvalid)
	}
	limit, olderThan = mysql.PageSize(limit), olderThan.UTC().Truncate(time.Microsecond)
	for _, query := range []string{
		`SELECT id FROM sessions FORCE INDEX (sessions_expires) WHERE expires_at < ? ORDER BY expires_at LIMIT ?`,
		`SELECT id FROM sessions FORCE INDEX (sessions_revoked) WHERE revoked_at < ? ORDER BY revoked_at LIMIT ?`,
	} {
		var ids []mysql.UUID
		if err := a.db.SelectContext(ctx, &ids, query, olderThan, limit-purged); err != nil {
			return purged, fmt.Errorf("purge sessions: %w", err)
		}
		// Neither time is ever put off, so what was old enough without a lock still is.
		for chunk := range slices.Chunk(ids, purgeBatch) {
			n, err := a.purge(ctx, chunk)
			purged += n
			if err != nil {
				return purged, fmt.Errorf("purge sessions: %w", err)
			}
		}
	}
	return purged, nil
}

// purge deletes sessions and their tokens and returns how many sessions there were.
func (a *Accounts) purge(ctx context.Context, ids []mysql.UUID) (purged int, err error) {
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		query, args, err := sqlx.In(
			`SELECT id FROM sessions FORCE INDEX (PRIMARY) WHERE id IN (?) ORDER BY id FOR UPDATE`, ids)
		if err != nil {
			return err
		}
		var locked []mysql.UUID
		if err := tx.SelectContext(ctx, &locked, query, args...); err != nil {
			return fmt.Errorf("lock sessions: %w", err)
		}
		if len(locked) == 0 {
			purged = 0
			return nil
		}
		// The form for several tables, because the one for a single table takes no index hint.
		for _, statement := range []string{
			`DELETE refresh_tokens FROM refresh_tokens FORCE INDEX (refresh_tokens_session) WHERE session_id IN (?)`,
			`DELETE sessions FROM sessions FORCE INDEX (PRIMARY) WHERE id IN (?)`,
		} {
			query, args, err := sqlx.In(statement, locked)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, query, args...); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
		}
		purged = len(locked)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}

// Sessions reads the sessions of a user that are not purged yet, newest first and at most 100.
func (a *Accounts) Sessions(ctx context.Context, userID order.UserID) ([]Session, error) {
	var rows []sessionRow
	err := a.db.SelectContext(ctx, &rows, `SELECT `+sessionColumns+` FROM sessions FORCE INDEX (sessions_user)
		WHERE user_id = ? ORDER BY id DESC LIMIT ?`, userID, maxListed)
	if err != nil {
		return nil, fmt.Errorf("read sessions of user %d: %w", userID, err)
	}
	sessions := make([]Session, len(rows))
	for i, row := range rows {
		sessions[i] = row.session()
	}
	return sessions, nil
}
