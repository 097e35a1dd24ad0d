package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/password"
	"stampede/internal/token"
)

const (
	// sessionTTL is how long a login lasts, however often its tokens are refreshed.
	sessionTTL = 30 * 24 * time.Hour
	// accountTimeout bounds the work of a request about an account, the wait for a free hasher included.
	accountTimeout = 5 * time.Second
	// refreshTokenBytes is the entropy of a refresh token; its hash needs no salt.
	refreshTokenBytes = 32
)

// userBody is a user as clients see it.
type userBody struct {
	UserID    int64        `json:"user_id"`
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

// readFields reads a JSON object of strings. If it cannot, it answers the request and returns false.
func readFields(ctx *fasthttp.RequestCtx, fields any, example string) bool {
	if !isJSON(ctx.Request.Header.ContentType()) {
		sendProblem(ctx, unsupportedMediaType, "Send the body with Content-Type: application/json.")
		return false
	}
	if detail := checkBody(ctx.PostBody(), example); detail != "" {
		sendProblem(ctx, malformedRequest, detail)
		return false
	}
	if err := json.Unmarshal(ctx.PostBody(), fields); err != nil {
		sendProblem(ctx, malformedRequest, notAnObject(example))
		return false
	}
	return true
}

// registration is the body of a request for an account.
type registration struct{ Email, Name, Password string }

// readRegistration reads one that is acceptable. If it cannot, it answers the request and returns false.
func readRegistration(ctx *fasthttp.RequestCtx) (in registration, ok bool) {
	if !readFields(ctx, &in, `{"email":"ada@example.org","name":"Ada","password":"…"}`) {
		return in, false
	}
	if _, err := account.NormalizeEmail(in.Email); err != nil {
		sendProblem(ctx, invalidEmail, err.Error())
		return in, false
	}
	var err error
	if in.Name, err = account.NormalizeName(in.Name); err != nil {
		sendProblem(ctx, invalidName, err.Error())
		return in, false
	}
	if err := password.Check(in.Password, in.Email, in.Name); err != nil {
		sendProblem(ctx, weakPassword, err.Error())
		return in, false
	}
	return in, true
}

// postRegister makes an account.
func (e *Edge) postRegister(ctx *fasthttp.RequestCtx) {
	in, ok := readRegistration(ctx)
	if !ok {
		return
	}
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	hash, err := e.passwords.Hash(work, in.Password)
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	user, err := e.accounts.AddUser(work, account.User{Email: in.Email, Name: in.Name, PasswordHash: hash,
		Role: account.Buyer})
	switch {
	case errors.Is(err, mysql.ErrExists):
		sendProblem(ctx, emailTaken, "Log in, or use another address.")
	case err != nil:
		e.accountsFail(ctx, err)
	default:
		sendJSON(ctx, fasthttp.StatusCreated, newUserBody(user))
		ctx.Response.Header.Set(fasthttp.HeaderLocation, "/api/me")
	}
}

// postLogin begins a session. Whether the address is unknown or the password wrong, the answer and the
// work are the same.
func (e *Edge) postLogin(ctx *fasthttp.RequestCtx) {
	var in struct{ Email, Password string }
	if !readFields(ctx, &in, `{"email":"ada@example.org","password":"…"}`) {
		return
	}
	try, ok := e.mayGuess(ctx, in.Email)
	if !ok {
		return
	}
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	user, err := e.accounts.UserByEmail(work, in.Email)
	var match bool
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		err = e.passwords.VerifyNobody(work, in.Password)
	case err == nil:
		match, err = e.passwords.Verify(work, in.Password, user.PasswordHash)
	}
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	if !match {
		sendProblem(ctx, invalidCredentials, "")
		return
	}
	e.guesses.forget(try)
	if e.passwords.NeedsRehash(user.PasswordHash) {
		e.rehash(work, user, in.Password, logID(ctx))
	}
	refresh, hash := newRefreshToken()
	session, err := e.accounts.StartSession(work, user, hash, sessionTTL)
	switch {
	case errors.Is(err, account.ErrDisabled):
		sendProblem(ctx, banned, "The account is disabled.")
	case errors.Is(err, account.ErrPasswordChanged):
		sendProblem(ctx, invalidCredentials, "")
	case err != nil:
		e.accountsFail(ctx, err)
	default:
		e.sessions.announce(session.Displaced...)
		e.sendTokens(ctx, session, user, refresh)
	}
}

// rehash stores a password by the parameters of today. If that fails, the next login tries again.
func (e *Edge) rehash(ctx context.Context, user account.User, plain string, request slog.Attr) {
	hash, err := e.passwords.Hash(ctx, plain)
	if err == nil {
		_, err = e.accounts.ReplacePasswordHash(ctx, user.ID, user.PasswordHash, hash)
	}
	if err != nil {
		slog.Warn("a password keeps its old hash", request, "user", user.ID, "error", err)
	}
}

// readRefreshToken reads a token that may be one. If it cannot, it answers the request and returns false.
func readRefreshToken(ctx *fasthttp.RequestCtx) (raw []byte, ok bool) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if !readFields(ctx, &in, `{"refresh_token":"…"}`) {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(in.RefreshToken)
	if err != nil || len(raw) != refreshTokenBytes {
		sendProblem(ctx, invalidRefreshToken, "")
		return nil, false
	}
	return raw, true
}

// postRefresh replaces a refresh token. A token that comes back soon after it was replaced gets the same answer, since
// answers get lost and tabs refresh at once. One that comes back later is in two hands, so that the whole session ends.
func (e *Edge) postRefresh(ctx *fasthttp.RequestCtx) {
	raw, ok := readRefreshToken(ctx)
	if !ok {
		return
	}
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	next := e.tokens.Successor(raw)
	session, user, err := e.accounts.Refresh(work, sha256.Sum256(raw), sha256.Sum256(next))
	switch {
	case errors.Is(err, account.ErrReused):
		slog.Warn("a refresh token was used twice; its session has ended", logID(ctx), "user", session.UserID,
			"session", session.ID)
		e.sessions.announce(session.ID)
		sendProblem(ctx, invalidRefreshToken, "")
	case errors.Is(err, mysql.ErrNotFound), errors.Is(err, account.ErrEnded):
		sendProblem(ctx, invalidRefreshToken, "")
	case err != nil:
		e.accountsFail(ctx, err)
	default:
		e.sendTokens(ctx, session, user, base64.RawURLEncoding.EncodeToString(next))
	}
}

// postLogout ends the session that the access token belongs to, on every edge.
func (e *Edge) postLogout(ctx *fasthttp.RequestCtx, who *token.Claims) {
	if who.SessionID == uuid.Nil {
		sendProblem(ctx, malformedRequest, "This token belongs to no session; it expires by itself.")
		return
	}
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	if _, err := e.accounts.EndSession(work, who.SessionID); err != nil {
		e.accountsFail(ctx, err)
		return
	}
	e.sessions.announce(who.SessionID)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// postLogoutEverywhere ends all sessions of a user, on every edge.
func (e *Edge) postLogoutEverywhere(ctx *fasthttp.RequestCtx, who *token.Claims) {
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	ended, err := e.accounts.EndSessions(work, who.UserID)
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	e.sessions.announce(ended...)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// postPassword changes a user's password and ends all sessions, so that who has stolen one loses it. The old password
// is asked for, since a stolen token must not be enough to take the account over; it is guessed no faster here than at
// a login.
func (e *Edge) postPassword(ctx *fasthttp.RequestCtx, who *token.Claims) {
	var in struct {
		Old string `json:"old_password"`
		New string `json:"new_password"`
	}
	if !readFields(ctx, &in, `{"old_password":"…","new_password":"…"}`) {
		return
	}
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	user, err := e.accounts.User(work, who.UserID)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		sendProblem(ctx, userNotFound, "The token was made for a user without an account.")
		return
	case err != nil:
		e.accountsFail(ctx, err)
		return
	}
	if err := password.Check(in.New, user.Email, user.Name); err != nil {
		sendProblem(ctx, weakPassword, err.Error())
		return
	}
	try, ok := e.mayGuess(ctx, user.Email)
	if !ok {
		return
	}
	match, err := e.passwords.Verify(work, in.Old, user.PasswordHash)
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	if !match {
		sendProblem(ctx, invalidCredentials, "The old password is not right.")
		return
	}
	e.guesses.forget(try)
	e.changePassword(ctx, work, user, in.New)
}

// changePassword gives a user, whose old password was right, a new one.
func (e *Edge) changePassword(ctx *fasthttp.RequestCtx, work context.Context, user account.User, plain string) {
	hash, err := e.passwords.Hash(work, plain)
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	ended, err := e.accounts.ChangePassword(work, user.ID, user.PasswordHash, hash)
	switch {
	case errors.Is(err, account.ErrPasswordChanged):
		sendProblem(ctx, invalidCredentials, "The password was changed meanwhile.")
	case err != nil:
		e.accountsFail(ctx, err)
	default:
		e.sessions.announce(ended...)
		ctx.SetStatusCode(fasthttp.StatusNoContent)
	}
}

// getMe tells users who they are.
func (e *Edge) getMe(ctx *fasthttp.RequestCtx, who *token.Claims) {
	work, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	user, err := e.accounts.User(work, who.UserID)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		sendProblem(ctx, userNotFound, "The token was made for a user without an account.")
	case err != nil:
		e.accountsFail(ctx, err)
	default:
		sendJSON(ctx, fasthttp.StatusOK, newUserBody(user))
	}
}

// accountsFail answers a request about an account that could not be worked.
func (e *Edge) accountsFail(ctx *fasthttp.RequestCtx, err error) {
	if errors.Is(err, password.ErrBusy) {
		sendBusy(ctx)
		return
	}
	slog.Error("a request about an account failed", logID(ctx), "error", err)
	sendProblem(ctx, accountsUnavailable, "")
}

func (e *Edge) sendTokens(ctx *fasthttp.RequestCtx, session account.Session, user account.User, refresh string) {
	ttl := min(accessTTL, time.Until(session.ExpiresAt))
	access, err := e.tokens.Sign(token.Claims{UserID: user.ID, SessionID: session.ID, Role: string(user.Role)}, ttl)
	if err != nil {
		e.accountsFail(ctx, err)
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	sendJSON(ctx, fasthttp.StatusOK, tokensBody{access, "Bearer", int64(ttl / time.Second), refresh})
}

// newRefreshToken makes a token for the client and the hash that is stored of it.
func newRefreshToken() (refresh string, hash [sha256.Size]byte) {
	raw := make([]byte, refreshTokenBytes)
	rand.Read(raw)
	return base64.RawURLEncoding.EncodeToString(raw), sha256.Sum256(raw)
}
