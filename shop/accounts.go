package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"stampede/internal/access"
	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/password"
	"stampede/internal/problem"
	"stampede/internal/token"
)

const (
	// sessionTTL is how long a login lasts, however often its tokens are refreshed.
	sessionTTL = 30 * 24 * time.Hour
	// refreshTokenBytes is the entropy of a refresh token; its hash needs no salt.
	refreshTokenBytes = 32
)

// userBody is a user as clients see it.
type userBody struct {
	UserID    order.UserID `json:"user_id"`
	Email     string       `json:"email"`
	Name      string       `json:"name"`
	Role      account.Role `json:"role"`
	CreatedAt time.Time    `json:"created_at"`
}

func newUserBody(u account.User) userBody {
	return userBody{UserID: u.ID, Email: u.Email, Name: u.Name, Role: u.Role, CreatedAt: u.CreatedAt}
}

// tokensBody is the answer to a login and a refresh, with the member names of OAuth 2 (RFC 6749, 5.1).
type tokensBody struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token"`
}

// registration is the body of a request for an account.
type registration struct{ Email, Name, Password string }

// readRegistration reads one that is acceptable.
func readRegistration(r *http.Request) (in registration, err error) {
	if err := readFields(r, &in, `{"email":"ada@example.org","name":"Ada","password":"…"}`); err != nil {
		return in, err
	}
	if _, err := account.NormalizeEmail(in.Email); err != nil {
		return in, problem.New(problem.InvalidEmail, err.Error())
	}
	if in.Name, err = account.NormalizeName(in.Name); err != nil {
		return in, problem.New(problem.InvalidName, err.Error())
	}
	if err := password.Check(in.Password, in.Email, in.Name); err != nil {
		return in, problem.New(problem.WeakPassword, err.Error())
	}
	return in, nil
}

// postRegister makes an account.
func (s *Shop) postRegister(w http.ResponseWriter, r *http.Request) error {
	in, err := readRegistration(r)
	if err != nil {
		return err
	}

	ctx, cancel := s.work(r)
	defer cancel()
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return err
	}
	user, err := s.accounts.AddUser(ctx, account.User{Email: in.Email, Name: in.Name, PasswordHash: hash,
		Role: account.Buyer})
	if errors.Is(err, mysql.ErrExists) {
		return problem.New(problem.EmailTaken, "Log in, or use another address.")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/me")
	return sendJSON(w, http.StatusCreated, newUserBody(user))
}

// postLogin begins a session. Whether the address is unknown or the password wrong, the answer and the
// work are the same.
func (s *Shop) postLogin(w http.ResponseWriter, r *http.Request) error {
	var in struct{ Email, Password string }
	if err := readFields(r, &in, `{"email":"ada@example.org","password":"…"}`); err != nil {
		return err
	}
	try, err := s.mayGuess(w, r, in.Email)
	if err != nil {
		return err
	}

	ctx, cancel := s.work(r)
	defer cancel()
	user, err := s.verify(ctx, in.Email, in.Password)
	if err != nil {
		return err
	}
	s.passwords.guesses.Forget(try)
	if s.passwords.NeedsRehash(user.PasswordHash) {
		s.rehash(ctx, user, in.Password, logID(w))
	}

	refresh, hash := newRefreshToken()
	session, err := s.accounts.StartSession(ctx, user, hash, sessionTTL)
	switch {
	case errors.Is(err, account.ErrDisabled):
		return problem.New(problem.Banned, "The account is disabled.")
	case errors.Is(err, account.ErrPasswordChanged):
		return problem.New(problem.InvalidCredentials, "")
	case err != nil:
		return err
	}
	s.guard.Sessions.Announce(session.Displaced...)
	return s.sendTokens(w, session, user, refresh)
}

// verify finds the user with this address and password. For an address that nobody has it works as long.
func (s *Shop) verify(ctx context.Context, email, plain string) (user account.User, err error) {
	user, err = s.accounts.UserByEmail(ctx, email)
	var match bool
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		err = s.passwords.VerifyNobody(ctx, plain)
	case err == nil:
		match, err = s.passwords.Verify(ctx, plain, user.PasswordHash)
	}
	if err == nil && !match {
		err = problem.New(problem.InvalidCredentials, "")
	}
	return user, err
}

// rehash stores a password by the parameters of today. If that fails, the next login tries again.
func (s *Shop) rehash(ctx context.Context, user account.User, plain string, request slog.Attr) {
	hash, err := s.passwords.Hash(ctx, plain)
	if err == nil {
		_, err = s.accounts.ReplacePasswordHash(ctx, user.ID, user.PasswordHash, hash)
	}
	if err != nil {
		slog.Warn("rehash a password: it keeps its old hash", request, "user", user.ID, "error", err)
	}
}

// readRefreshToken reads a token that may be one.
func readRefreshToken(r *http.Request) (raw []byte, err error) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := readFields(r, &in, `{"refresh_token":"…"}`); err != nil {
		return nil, err
	}
	raw, err = base64.RawURLEncoding.Strict().DecodeString(in.RefreshToken)
	if err != nil || len(raw) != refreshTokenBytes {
		return nil, problem.New(problem.InvalidRefreshToken, "")
	}
	return raw, nil
}

// postRefresh replaces a refresh token. A token that comes back soon after it was replaced gets the same answer, since
// answers get lost and tabs refresh at once. One that comes back later is in two hands, so that the whole session ends.
func (s *Shop) postRefresh(w http.ResponseWriter, r *http.Request) error {
	raw, err := readRefreshToken(r)
	if err != nil {
		return err
	}

	ctx, cancel := s.work(r)
	defer cancel()
	next := s.guard.Tokens.Successor(raw)
	session, user, err := s.accounts.Refresh(ctx, sha256.Sum256(raw), sha256.Sum256(next))
	switch {
	case errors.Is(err, account.ErrReused):
		slog.Warn("refresh: a token was used twice; its session has ended", logID(w), "user", session.UserID,
			"session", session.ID)
		s.guard.Sessions.Announce(session.ID)
		return problem.New(problem.InvalidRefreshToken, "")
	case errors.Is(err, mysql.ErrNotFound), errors.Is(err, account.ErrEnded):
		return problem.New(problem.InvalidRefreshToken, "")
	case err != nil:
		return err
	}
	return s.sendTokens(w, session, user, base64.RawURLEncoding.EncodeToString(next))
}

// postLogout ends the session that the access token belongs to, on every server.
func (s *Shop) postLogout(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	if who.SessionID == uuid.Nil {
		return problem.New(problem.MalformedRequest, "This token belongs to no session; it expires by itself.")
	}

	ctx, cancel := s.work(r)
	defer cancel()
	if _, err := s.accounts.EndSession(ctx, who.SessionID); err != nil {
		return err
	}
	s.guard.Sessions.Announce(who.SessionID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postLogoutEverywhere ends all sessions of a user, on every server.
func (s *Shop) postLogoutEverywhere(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	ctx, cancel := s.work(r)
	defer cancel()
	ended, err := s.accounts.EndSessions(ctx, who.UserID)
	if err != nil {
		return err
	}
	s.guard.Sessions.Announce(ended...)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postPassword changes a user's password and ends all sessions, so that who has stolen one loses it. The old password
// is asked for, since a stolen token must not be enough to take the account over; it is guessed no faster here than at
// a login.
func (s *Shop) postPassword(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	var in struct {
		Old string `json:"old_password"`
		New string `json:"new_password"`
	}
	if err := readFields(r, &in, `{"old_password":"…","new_password":"…"}`); err != nil {
		return err
	}

	ctx, cancel := s.work(r)
	defer cancel()
	user, err := s.user(ctx, who)
	if err != nil {
		return err
	}
	if err := password.Check(in.New, user.Email, user.Name); err != nil {
		return problem.New(problem.WeakPassword, err.Error())
	}

	try, err := s.mayGuess(w, r, user.Email)
	if err != nil {
		return err
	}
	match, err := s.passwords.Verify(ctx, in.Old, user.PasswordHash)
	if err != nil {
		return err
	}
	if !match {
		return problem.New(problem.InvalidCredentials, "The old password is not right.")
	}
	s.passwords.guesses.Forget(try)

	hash, err := s.passwords.Hash(ctx, in.New)
	if err != nil {
		return err
	}
	ended, err := s.accounts.ChangePassword(ctx, user.ID, user.PasswordHash, hash)
	if errors.Is(err, account.ErrPasswordChanged) {
		return problem.New(problem.InvalidCredentials, "The password was changed meanwhile.")
	}
	if err != nil {
		return err
	}
	s.guard.Sessions.Announce(ended...)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// user is the account of whom a token names.
func (s *Shop) user(ctx context.Context, who *token.Claims) (account.User, error) {
	user, err := s.accounts.User(ctx, who.UserID)
	if errors.Is(err, mysql.ErrNotFound) {
		return user, problem.New(problem.UserNotFound, "The token was made for a user without an account.")
	}
	return user, err
}

// getMe tells users who they are.
func (s *Shop) getMe(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	ctx, cancel := s.work(r)
	defer cancel()
	user, err := s.user(ctx, who)
	if err != nil {
		return err
	}
	return sendJSON(w, http.StatusOK, newUserBody(user))
}

func (s *Shop) sendTokens(w http.ResponseWriter, session account.Session, user account.User, refresh string) error {
	ttl := min(access.TokenTTL, time.Until(session.ExpiresAt))
	signed, err := s.guard.Tokens.Sign(token.Claims{
		UserID: user.ID, SessionID: session.ID, Role: string(user.Role),
	}, ttl)
	if err != nil {
		return err
	}
	return sendJSON(w, http.StatusOK, tokensBody{signed, "Bearer", int64(ttl / time.Second), refresh})
}

// newRefreshToken makes a token for the client and the hash that is stored of it.
func newRefreshToken() (refresh string, hash [sha256.Size]byte) {
	raw := make([]byte, refreshTokenBytes)
	rand.Read(raw)
	return base64.RawURLEncoding.EncodeToString(raw), sha256.Sum256(raw)
}
