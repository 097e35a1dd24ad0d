package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

const (
	// MaxBans is how many bans there may be at a time, since every edge holds all of them and tries each request
	// against them. Who has to keep out more keeps them out in front of the edge.
	MaxBans = 10_000
	// MaxBanReasonChars bounds the reason of a ban, in characters.
	MaxBanReasonChars = 200
	// MinBanBitsIPv4 and MinBanBitsIPv6 are the shortest prefixes that can be banned. A slip that leaves out a digit
	// should not close the shop to half the world.
	MinBanBitsIPv4 = 8
	MinBanBitsIPv6 = 16
	// maxBansSwept is how many expired bans one call of Ban deletes. Since a call adds at most one, none pile up.
	maxBansSwept = 100
)

// The kinds of bans, as stored.
const (
	banUser    = "user"
	banAddress = "address"
)

// Ban keeps out a user or a range of addresses: either UserID or Prefix is set.
type Ban struct {
	UserID order.UserID
	// Prefix has no bits set beyond its length. A range of IPv4 addresses in their IPv6-mapped form is stored as what
	// it stands for, so that addresses are to be unmapped before they are compared.
	Prefix netip.Prefix
	// Reason is for the operator and is not shown to who is banned.
	Reason    string
	CreatedAt time.Time
	// ExpiresAt is when the ban ends, to the millisecond; zero is never.
	ExpiresAt time.Time
}

// subject is what a ban is about, as stored, or what is wrong with it. Two bans of one subject have equal ones.
type subject struct {
	kind   string
	userID sql.NullInt64
	cidr   sql.NullString
}

// logged is the subject as the staff log has it.
func (s subject) logged() string {
	if s.kind == banUser {
		return aboutUser(order.UserID(s.userID.Int64))
	}
	return "address " + s.cidr.String
}

func (b Ban) subject() (subject, error) {
	switch {
	case b.UserID < 0:
		return subject{}, errors.New("the user's id is negative")
	case b.UserID != 0 && b.Prefix != (netip.Prefix{}):
		return subject{}, errors.New("it names both a user and a range of addresses")
	case b.UserID != 0:
		return subject{kind: banUser, userID: sql.NullInt64{Int64: int64(b.UserID), Valid: true}}, nil
	case !b.Prefix.IsValid():
		return subject{}, errors.New("it names neither a user nor a valid range of addresses")
	case b.Prefix != b.Prefix.Masked():
		return subject{}, fmt.Errorf("%s has bits set beyond its length; the range is %s, the address alone %s",
			b.Prefix, b.Prefix.Masked(), netip.PrefixFrom(b.Prefix.Addr(), b.Prefix.Addr().BitLen()))
	}
	prefix, shortest := b.Prefix, MinBanBitsIPv6
	if addr := prefix.Addr(); addr.Is4In6() {
		// It has at least 96 bits, or it would have bits set beyond its length.
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	if prefix.Addr().Is4() {
		shortest = MinBanBitsIPv4
	}
	if prefix.Bits() < shortest {
		return subject{}, fmt.Errorf("%s is too wide, the shortest prefix is /%d", prefix, shortest)
	}
	return subject{kind: banAddress, cidr: sql.NullString{String: prefix.String(), Valid: true}}, nil
}

func (b Ban) validate(at time.Time) error {
	switch {
	case strings.TrimSpace(b.Reason) == "" || !utf8.ValidString(b.Reason) ||
		utf8.RuneCountInString(b.Reason) > MaxBanReasonChars:
		return fmt.Errorf("the reason does not have 1 to %d characters", MaxBanReasonChars)
	case plaintext.Fault(b.Reason) != "":
		return errors.New("the reason: " + plaintext.Fault(b.Reason))
	case !mysql.IsStorable(b.ExpiresAt):
		return errors.New("it does not end in the years 1000 to 9999")
	case !b.ExpiresAt.IsZero() && !b.ExpiresAt.After(at):
		return errors.New("it ends in the past")
	}
	return nil
}

// Ban keeps somebody out from now on. A ban of the same subject that there is already takes on the new reason and end.
// It does not end the sessions of the user. CreatedAt is ignored. ErrInvalid: the ban does not name one subject, the
// range is wider than MinBanBitsIPv4 or MinBanBitsIPv6 allow, the reason or the end is not valid, or there are MaxBans
// already.
func (a *Accounts) Ban(ctx context.Context, b Ban) error {
	at := mysql.Now()
	about, err := b.subject()
	if err == nil {
		err = b.validate(at)
	}
	if err != nil {
		return fmt.Errorf("ban: %w: %w", mysql.ErrInvalid, err)
	}
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error { return ban(ctx, tx, about, b, at) })
	if err != nil {
		return fmt.Errorf("ban: %w", err)
	}
	return nil
}

func ban(ctx context.Context, tx *sqlx.Tx, about subject, b Ban, at time.Time) error {
	expires := mysql.NullMillis(b.ExpiresAt)
	// The new values are given twice, because the names by which an update can refer to those of the insert are not the
	// same in MySQL and MariaDB.
	_, err := tx.ExecContext(ctx,
		`INSERT INTO bans (kind, user_id, cidr, reason, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE reason = ?, created_at = ?, expires_at = ?`,
		about.kind, about.userID, about.cidr, b.Reason, at, expires, b.Reason, at, expires)
	if err != nil {
		return fmt.Errorf("insert ban: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM bans WHERE expires_at <= ? ORDER BY expires_at LIMIT ?`, at,
		maxBansSwept); err != nil {
		return fmt.Errorf("delete expired bans: %w", err)
	}
	// Calls at the same time do not see each other's rows, so that a few more may slip in; Bans has room for them.
	var count int64
	if err := tx.GetContext(ctx, &count, `SELECT COUNT(*) FROM bans WHERE expires_at IS NULL OR expires_at > ?`,
		at); err != nil {
		return fmt.Errorf("count bans: %w", err)
	}
	if count > MaxBans {
		return fmt.Errorf("%w: there are %d bans already", mysql.ErrInvalid, MaxBans)
	}
	return mysql.LogChange(ctx, tx, actBanAdd, about.logged(), nil,
		mysql.Values{"reason": b.Reason, "expires_at": mysql.TimeOrNil(expires)})
}

// Unban lifts the ban of b's UserID or Prefix, whatever else b says, and reports whether there was one.
func (a *Accounts) Unban(ctx context.Context, b Ban) (bool, error) {
	about, err := b.subject()
	if err != nil {
		return false, fmt.Errorf("unban: %w: %w", mysql.ErrInvalid, err)
	}
	// Each form has one of the two unique indexes to go by.
	statement, value := `DELETE FROM bans WHERE user_id = ?`, any(about.userID)
	if about.kind == banAddress {
		statement, value = `DELETE FROM bans WHERE cidr = ?`, any(about.cidr)
	}
	var lifted int64
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, statement, value)
		if err == nil {
			lifted, err = result.RowsAffected()
		}
		if err != nil || lifted == 0 {
			return err
		}
		return mysql.LogChange(ctx, tx, actBanLift, about.logged(), nil, nil)
	})
	if err != nil {
		return false, fmt.Errorf("unban: %w", err)
	}
	return lifted == 1, nil
}

// Bans reads the bans that hold at a time, newest first: as many as Ban admits. A row that names no valid subject is an
// error, since to pass over it would let somebody in.
func (a *Accounts) Bans(ctx context.Context, at time.Time) ([]Ban, error) {
	var rows []struct {
		ID        int64          `db:"id"`
		Kind      string         `db:"kind"`
		UserID    sql.NullInt64  `db:"user_id"`
		CIDR      sql.NullString `db:"cidr"`
		Reason    string         `db:"reason"`
		CreatedAt time.Time      `db:"created_at"`
		ExpiresAt sql.NullTime   `db:"expires_at"`
	}
	err := a.db.SelectContext(ctx, &rows, `SELECT id, kind, user_id, cidr, reason, created_at, expires_at FROM bans
		WHERE expires_at IS NULL OR expires_at > ? ORDER BY created_at DESC, id DESC LIMIT ?`, at.UTC(), 2*MaxBans)
	if err != nil {
		return nil, fmt.Errorf("read bans: %w", err)
	}
	bans := make([]Ban, len(rows))
	for i, row := range rows {
		b := Ban{UserID: order.UserID(row.UserID.Int64), Reason: row.Reason, CreatedAt: row.CreatedAt,
			ExpiresAt: row.ExpiresAt.Time}
		if row.CIDR.Valid {
			if b.Prefix, err = netip.ParsePrefix(row.CIDR.String); err != nil {
				return nil, fmt.Errorf("read ban %d: %w", row.ID, err)
			}
		}
		if about, err := b.subject(); err != nil || about.kind != row.Kind {
			return nil, fmt.Errorf("read ban %d: it is of kind %q, but does not name one (%v)", row.ID, row.Kind, err)
		}
		bans[i] = b
	}
	return bans, nil
}
