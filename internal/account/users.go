package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

const (
	// MaxEmailBytes is the longest address that mail can be sent to: RFC 5321, section 4.5.3.1.3, allows a path of 256
	// bytes, two of which are its angle brackets.
	MaxEmailBytes = 254
	// maxLocalPartBytes is the longest part before the @ (RFC 5321, section 4.5.3.1.1).
	maxLocalPartBytes = 64
	// maxLabelBytes is the longest part of a domain between two dots (RFC 1035, section 2.3.4).
	maxLabelBytes = 63
	// MaxUserNameChars bounds the name of a user, in characters.
	MaxUserNameChars = 100
	// maxPasswordHashBytes is the width of the column; a hash of argon2id has about 100 bytes.
	maxPasswordHashBytes = 255
)

// Role says what a user may do.
type Role string

// The roles.
const (
	// Buyer may place orders.
	Buyer Role = "buyer"
	// Merchant may also put products on sale.
	Merchant Role = "merchant"
	// Admin may also change roles and ban.
	Admin Role = "admin"
)

// Valid says whether the role is one of those above.
func (r Role) Valid() bool { return slices.Contains([]Role{Buyer, Merchant, Admin}, r) }

// User is an account.
type User struct {
	ID order.UserID `json:"id"`
	// Email is the address as the user typed it.
	Email string `json:"email"`
	Name  string `json:"name"`
	// PasswordHash says itself how it was made. It goes nowhere but to who checks a password.
	PasswordHash string    `json:"-"`
	Role         Role      `json:"role"`
	CreatedAt    time.Time `json:"created_at"`
	// PasswordChangedAt is when the user last chose another password, or zero. That a login renews the hash of the same
	// password is no change.
	PasswordChangedAt time.Time `json:"password_changed_at,omitzero"`
	// DisabledAt is since when nobody can log in to the account, or zero.
	DisabledAt time.Time `json:"disabled_at,omitzero"`
}

// ErrDisabled: an operator has disabled the account.
var ErrDisabled = mysql.OwnError("the account is disabled")

// ErrPasswordChanged: the password was changed since the account was read.
var ErrPasswordChanged = mysql.OwnError("the password was changed meanwhile")

// userRow is a row of the table users.
type userRow struct {
	ID                order.UserID `db:"id"`
	Email             string       `db:"email"`
	EmailKey          []byte       `db:"email_key"`
	Name              string       `db:"name"`
	PasswordHash      string       `db:"password_hash"`
	Role              Role         `db:"role"`
	CreatedAt         time.Time    `db:"created_at"`
	PasswordChangedAt sql.NullTime `db:"password_changed_at"`
	DisabledAt        sql.NullTime `db:"disabled_at"`
}

const userColumns = `id, email, email_key, name, password_hash, role, created_at, password_changed_at, disabled_at`

func (r userRow) user() User {
	return User{
		ID: r.ID, Email: r.Email, Name: r.Name, PasswordHash: r.PasswordHash, Role: r.Role, CreatedAt: r.CreatedAt,
		PasswordChangedAt: r.PasswordChangedAt.Time, DisabledAt: r.DisabledAt.Time,
	}
}

// NormalizeEmail checks an address and returns the form in which addresses are compared: the same in lower case.
// Otherwise it returns an ErrInvalid whose text may be shown to the user.
//
// It takes the bare addr-spec of RFC 5322, section 3.4.1, in its plain form: a dot-atom, an @ and a domain name of at
// least two labels, all in ASCII. Display names, angle brackets, comments, quoted local parts, address literals and
// blanks are refused. net/mail takes all of those, and nearly all that ever comes in such a form is a mistake or an
// attempt at something else. An internationalised domain is taken in its ASCII form (xn--), and only in that.
//
// RFC 5321, section 2.4, lets a server tell local parts apart by case. Hardly any does, and two accounts that differ in
// nothing else would be one person's by mistake or an imposter's. Dots and tags (a.b+tag@) stay as they are: whether
// they name the same mailbox is the provider's own rule, and where they do not, to drop them would give one person's
// account to another.
func NormalizeEmail(email string) (key string, err error) {
	if fault := emailFault(email); fault != "" {
		return "", fmt.Errorf("e-mail address: %w: %s", mysql.ErrInvalid, fault)
	}
	return strings.ToLower(email), nil
}

func emailFault(email string) string {
	if len(email) > MaxEmailBytes {
		return fmt.Sprintf("it has more than %d bytes", MaxEmailBytes)
	}
	local, domain, found := strings.Cut(email, "@")
	switch {
	case !found:
		return "it has no @"
	case local == "" || len(local) > maxLocalPartBytes:
		return fmt.Sprintf("the part before the @ does not have 1 to %d bytes", maxLocalPartBytes)
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return !isAtomChar(r) }) {
			return "the part before the @ is not words of letters, digits and !#$%&'*+-/=?^_`{|}~ with single dots " +
				"between them"
		}
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		return "the part after the @ is not a full domain name"
	}
	for _, label := range labels {
		if !isLabel(label) {
			return "the part after the @ is not a domain name in ASCII"
		}
	}
	// RFC 3696, section 2: no top-level domain is all digits. What looks like one is an IPv4 address.
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "the part after the @ does not end in a top-level domain"
	}
	return ""
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// isAtomChar says whether a character may be in an atom (RFC 5322, section 3.2.3).
func isAtomChar(r rune) bool {
	return isAlphanumeric(r) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// isLabel says whether a text is a label of a host name (RFC 1123, section 2.1).
func isLabel(label string) bool {
	return label != "" && len(label) <= maxLabelBytes && label[0] != '-' && label[len(label)-1] != '-' &&
		!strings.ContainsFunc(label, func(r rune) bool { return !isAlphanumeric(r) && r != '-' })
}

// NormalizeName checks the name of a user and returns it without the blanks around it: 1 to MaxUserNameChars characters
// that show on paper, or blanks between them. Otherwise it returns an ErrInvalid whose text may be shown to the user.
// Characters that cannot be seen (see plaintext) are refused.
func NormalizeName(name string) (string, error) {
	name = strings.TrimSpace(name)
	switch {
	case name == "" || len(name) > MaxUserNameChars*utf8.UTFMax || utf8.RuneCountInString(name) > MaxUserNameChars:
		return "", fmt.Errorf("name: %w: it does not have 1 to %d characters", mysql.ErrInvalid, MaxUserNameChars)
	}
	if fault := plaintext.Fault(name); fault != "" {
		return "", fmt.Errorf("name: %w: %s", mysql.ErrInvalid, fault)
	}
	return name, nil
}

// AddUser adds an account and returns it as stored: with an id that the database chose, the time, and its name without
// blanks around it. The ID and CreatedAt that it is given are ignored. ErrExists: the address, as NormalizeEmail
// compares it, has an account. ErrInvalid: the address, the name, the role or the hash is not valid.
func (a *Accounts) AddUser(ctx context.Context, u User) (User, error) {
	key, emailErr := NormalizeEmail(u.Email)
	name, nameErr := NormalizeName(u.Name)
	if err := errors.Join(emailErr, nameErr, checkPasswordHash(u.PasswordHash), checkRole(u.Role)); err != nil {
		return User{}, fmt.Errorf("add user: %w", err)
	}
	row := userRow{
		Email: u.Email, EmailKey: []byte(key), Name: name, PasswordHash: u.PasswordHash, Role: u.Role,
		CreatedAt: mysql.Now(),
	}
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) error { return insertUser(ctx, tx, &row) })
	if err != nil {
		return User{}, fmt.Errorf("add user: %w", err)
	}
	return row.user(), nil
}

func checkRole(role Role) error {
	if !role.Valid() {
		return fmt.Errorf("role: %w: it is none of %s, %s and %s", mysql.ErrInvalid, Buyer, Merchant, Admin)
	}
	return nil
}

// checkPasswordHash checks the shape alone. What it must not let pass is a password that nobody hashed.
func checkPasswordHash(hash string) error {
	visible := !strings.ContainsFunc(hash, func(r rune) bool { return r <= ' ' || r > '~' })
	if !visible || !strings.HasPrefix(hash, "$") || len(hash) > maxPasswordHashBytes {
		return fmt.Errorf("password hash: %w: it is not a PHC string of at most %d bytes",
			mysql.ErrInvalid, maxPasswordHashBytes)
	}
	return nil
}

// insertUser inserts a row and sets its id. Its errors do not name the address, which is nobody's business but its
// owner's.
func insertUser(ctx context.Context, tx *sqlx.Tx, row *userRow) error {
	result, err := tx.NamedExecContext(ctx, `INSERT INTO users (email, email_key, name, password_hash, role, created_at)
		VALUES (:email, :email_key, :name, :password_hash, :role, :created_at)`, row)
	switch {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("an account with this e-mail address %w", mysql.ErrExists)
	case err != nil:
		return fmt.Errorf("insert user: %w", err)
	}
	id, err := result.LastInsertId()
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	row.ID = order.UserID(id)
	return nil
}

// User reads one account, or returns ErrNotFound.
func (a *Accounts) User(ctx context.Context, id order.UserID) (User, error) {
	return readUser(ctx, a.db, id)
}

func readUser(ctx context.Context, q sqlx.QueryerContext, id order.UserID) (User, error) {
	var row userRow
	err := sqlx.GetContext(ctx, q, &row, `SELECT `+userColumns+` FROM users WHERE id = ?`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return User{}, fmt.Errorf("user %d %w", id, mysql.ErrNotFound)
	case err != nil:
		return User{}, fmt.Errorf("read user %d: %w", id, err)
	}
	return row.user(), nil
}

// UserByEmail reads the account of an address, however its letters are cased, or returns ErrNotFound. An address that
// is not valid has no account, so that who logs in meets one error and not two.
func (a *Accounts) UserByEmail(ctx context.Context, email string) (User, error) {
	key, err := NormalizeEmail(email)
	if err != nil {
		return User{}, fmt.Errorf("user of this e-mail address %w", mysql.ErrNotFound)
	}
	var row userRow
	err = a.db.GetContext(ctx, &row, `SELECT `+userColumns+` FROM users WHERE email_key = ?`, []byte(key))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return User{}, fmt.Errorf("user of this e-mail address %w", mysql.ErrNotFound)
	case err != nil:
		return User{}, fmt.Errorf("read user by e-mail address: %w", err)
	}
	return row.user(), nil
}

// SetRole changes what a user may do. ErrNotFound: there is no such user. An access token that was made before carries
// the old role until it expires: to take rights away at once, end the user's sessions as well, after this.
func (a *Accounts) SetRole(ctx context.Context, id order.UserID, role Role) error {
	if err := checkRole(role); err != nil {
		return fmt.Errorf("set role of user %d: %w", id, err)
	}
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		// The server does not count a row that had the role already, so its count does not tell whether there is one.
		user, err := lockUserRow(ctx, tx, id)
		if err != nil || user.Role == role {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET role = ? WHERE id = ?`, role, id); err != nil {
			return err
		}
		before, after := mysql.Values{"role": user.Role}, mysql.Values{"role": role}
		return mysql.LogChange(ctx, tx, actUserRole, aboutUser(id), before, after)
	})
	if err != nil {
		return fmt.Errorf("set role of user %d: %w", id, err)
	}
	return nil
}

// ReplacePasswordHash puts a hash of the same password in the place of another: one with newer parameters at a login.
// It changes nothing and returns false if the user's hash is not the old one any more, so that a login which renews a
// hash cannot undo a change of the password that happened meanwhile.
func (a *Accounts) ReplacePasswordHash(ctx context.Context, id order.UserID, old, hash string) (bool, error) {
	if err := checkPasswordHash(hash); err != nil {
		return false, fmt.Errorf("replace password hash of user %d: %w", id, err)
	}
	var replaced int64
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?`,
			hash, id, old)
		if err == nil {
			replaced, err = result.RowsAffected()
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("replace password hash of user %d: %w", id, err)
	}
	return replaced == 1, nil
}

// ChangePassword puts the hash of a new password in the place of that of the old one, ends all sessions of the user,
// and returns those. A login with the old password that is under way begins no session afterwards. ErrPasswordChanged:
// the hash is not the old one any more. ErrNotFound: there is no such user.
func (a *Accounts) ChangePassword(
	ctx context.Context, id order.UserID, old, hash string,
) (ended []uuid.UUID, err error) {
	if err := checkPasswordHash(hash); err != nil {
		return nil, fmt.Errorf("change password of user %d: %w", id, err)
	}
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		user, err := lockUserRow(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case user.PasswordHash != old:
			return ErrPasswordChanged
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET password_hash = ?, password_changed_at = ? WHERE id = ?`,
			hash, mysql.Now(), id)
		if err != nil {
			return err
		}
		ended, err = endSessions(ctx, tx, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("change password of user %d: %w", id, err)
	}
	return ended, nil
}

// Disable keeps everybody from logging in to an account, ends all its sessions, and returns those. ErrNotFound: there
// is no such user.
func (a *Accounts) Disable(ctx context.Context, id order.UserID) (ended []uuid.UUID, err error) {
	err = a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		user, err := lockUserRow(ctx, tx, id)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET disabled_at = COALESCE(disabled_at, ?) WHERE id = ?`,
			mysql.Now(), id)
		if err != nil {
			return err
		}
		if ended, err = endSessions(ctx, tx, id); err != nil || user.DisabledAt.Valid && len(ended) == 0 {
			return err
		}
		before := mysql.Values{"disabled": user.DisabledAt.Valid}
		after := mysql.Values{"disabled": true, "sessions_ended": len(ended)}
		return mysql.LogChange(ctx, tx, actUserDisable, aboutUser(id), before, after)
	})
	if err != nil {
		return nil, fmt.Errorf("disable user %d: %w", id, err)
	}
	return ended, nil
}

// Enable undoes Disable. The sessions that it ended stay ended. ErrNotFound: there is no such user.
func (a *Accounts) Enable(ctx context.Context, id order.UserID) error {
	err := a.db.InTx(ctx, func(tx *sqlx.Tx) error {
		user, err := lockUserRow(ctx, tx, id)
		if err != nil || !user.DisabledAt.Valid {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET disabled_at = NULL WHERE id = ?`, id); err != nil {
			return err
		}
		before, after := mysql.Values{"disabled": true}, mysql.Values{"disabled": false}
		return mysql.LogChange(ctx, tx, actUserEnable, aboutUser(id), before, after)
	})
	if err != nil {
		return fmt.Errorf("enable user %d: %w", id, err)
	}
	return nil
}

// lockUserRow is lockUser for who needs to know more of the user. ErrNotFound: there is none.
func lockUserRow(ctx context.Context, tx *sqlx.Tx, id order.UserID) (userRow, error) {
	var row userRow
	err := tx.GetContext(ctx, &row, `SELECT `+userColumns+` FROM users WHERE id = ? FOR UPDATE`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return userRow{}, mysql.ErrNotFound
	case err != nil:
		return userRow{}, fmt.Errorf("lock user %d: %w", id, err)
	}
	return row, nil
}

// lockUser locks a user's row until the transaction ends and says whether there is one. Like lockSessionRow it must be
// the first statement of its transaction.
func lockUser(ctx context.Context, tx *sqlx.Tx, id order.UserID) (bool, error) {
	var found int64
	err := tx.GetContext(ctx, &found, `SELECT id FROM users WHERE id = ? FOR UPDATE`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("lock user %d: %w", id, err)
	}
	return true, nil
}
