package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/stock"
	"stampede/internal/token"
)

const goodPassword = "seven quiet otters knit at dusk"

// call sends a JSON body, with an access token if it is not empty.
func (w *world) call(path, access string, fields map[string]any) reply {
	body, err := json.Marshal(fields)
	w.must(err)
	headers := []string{"Content-Type", "application/json"}
	if access != "" {
		headers = append(headers, "Authorization", "Bearer "+access)
	}
	return w.send("POST", path, string(body), headers...)
}

func (w *world) register(email string) reply {
	return w.call("/api/register", "", map[string]any{"email": email, "name": "Ada", "password": goodPassword})
}

// login wants a session and returns its tokens.
func (w *world) login(email string) tokensBody {
	w.Helper()
	r := w.call("/api/login", "", map[string]any{"email": email, "password": goodPassword})
	if r.status != 200 || r.header.Get("Cache-Control") != "no-store" {
		w.Fatalf("login: %v", r)
	}
	var tokens tokensBody
	r.read(w, &tokens)
	return tokens
}

func (w *world) refresh(refreshToken string) reply {
	return w.call("/api/refresh", "", map[string]any{"refresh_token": refreshToken})
}

func (w *world) me(access string) reply {
	return w.send("GET", "/api/me", "", "Authorization", "Bearer "+access)
}

func wantCode(t testing.TB, what string, r reply, status int, c code) {
	t.Helper()
	if r.status != status || r.code() != string(c) || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %v, want %d %s", what, r, status, c)
	}
}

// TestAccount is the life of an account: made, logged into, used, refreshed, logged out of.
func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register("Ada@Example.org")
	if r.status != http.StatusCreated || strings.Contains(r.body, "argon2") || strings.Contains(r.body, goodPassword) {
		t.Fatalf("register: %v", r)
	}
	var user userBody
	r.read(t, &user)
	if user.UserID <= 0 || user.Email != "Ada@Example.org" || user.Name != "Ada" || user.Role != account.Buyer {
		t.Errorf("registered as %+v", user)
	}
	wantCode(t, "the same address in other letters", w.register("ada@example.ORG"), 409, emailTaken)

	tokens := w.login("ADA@example.org")
	if tokens.TokenType != "Bearer" || tokens.ExpiresIn < 890 || tokens.ExpiresIn > 900 {
		t.Errorf("tokens: %+v", tokens)
	}
	claims, err := w.tokens.Verify([]byte(tokens.AccessToken), time.Now())
	if err != nil || claims.UserID != user.UserID || claims.SessionID == uuid.Nil || claims.Role != "buyer" {
		t.Errorf("the access token says %+v, %v", claims, err)
	}
	var me userBody
	w.me(tokens.AccessToken).read(t, &me)
	if me != user {
		t.Errorf("/api/me says %+v, want %+v", me, user)
	}
	product := w.addProduct(5)
	order := func(access string) reply {
		return w.call("/api/orders", access, map[string]any{"product_id": product.ID, "quantity": 1})
	}
	if r := order(tokens.AccessToken); r.status != 202 {
		t.Errorf("an order: %v", r)
	}

	r = w.refresh(tokens.RefreshToken)
	var second tokensBody
	r.read(t, &second)
	if r.status != 200 || second.RefreshToken == tokens.RefreshToken {
		t.Fatalf("refresh: %v", r)
	}
	if r := w.call("/api/logout", second.AccessToken, nil); r.status != http.StatusNoContent || r.body != "" {
		t.Errorf("logout: %v", r)
	}
	for what, access := range map[string]string{"the last": second.AccessToken, "the first": tokens.AccessToken} {
		wantCode(t, what+" token of a session that has ended", w.me(access), 401, unauthenticated)
		wantCode(t, "an order with it", order(access), 401, unauthenticated)
	}
	wantCode(t, "refreshing a session that has ended", w.refresh(second.RefreshToken), 401, invalidRefreshToken)
	w.login("ada@example.org")
}

// TestRefreshIsRepeated: a client whose answer got lost, and tabs that refresh at once, get the same next token.
func TestRefreshIsRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ada@example.org")
	first := w.login("ada@example.org")
	seen := map[string]bool{}
	var last tokensBody
	for _, r := range crowd(8, func(int) reply { return w.refresh(first.RefreshToken) }) {
		if r.status != http.StatusOK {
			t.Fatalf("a repeated refresh: %v", r)
		}
		r.read(t, &last)
		seen[last.RefreshToken] = true
		if r := w.me(last.AccessToken); r.status != http.StatusOK {
			t.Errorf("its access token: %v", r)
		}
	}
	if len(seen) != 1 || seen[first.RefreshToken] {
		t.Errorf("%d different tokens replaced one", len(seen))
	}
	if r := w.refresh(last.RefreshToken); r.status != http.StatusOK {
		t.Errorf("the next refresh: %v", r)
	}
}

// age makes all that was replaced or issued as old as if more than the grace had gone by.
func (w *world) age() {
	w.Helper()
	db, err := sql.Open("mysql", w.dsn)
	w.must(err)
	defer db.Close()
	for _, column := range []string{"replaced_at", "issued_at"} {
		_, err := db.ExecContext(w.Context(), "UPDATE refresh_tokens SET "+column+" = "+column+
			" - INTERVAL ? MICROSECOND",
			(account.RefreshGrace + time.Second).Microseconds())
		w.must(err)
	}
}

// TestReusedRefreshToken: who presents a token that was replaced a while ago may be a thief or a victim, so nobody
// keeps the session.
func TestReusedRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ada@example.org")
	other := w.login("ada@example.org")
	first := w.login("ada@example.org")
	var second tokensBody
	w.refresh(first.RefreshToken).read(t, &second)
	w.age()
	wantCode(t, "a replaced token", w.refresh(first.RefreshToken), 401, invalidRefreshToken)
	wantCode(t, "the token that replaced it", w.refresh(second.RefreshToken), 401, invalidRefreshToken)
	wantCode(t, "its access token", w.me(second.AccessToken), 401, unauthenticated)
	if r := w.me(other.AccessToken); r.status != 200 {
		t.Errorf("another session of the user: %v", r)
	}
}

// TestLogoutIsHeardEverywhere: at once by notice, and without one from MySQL.
func TestLogoutIsHeardEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, addr := w.start()
	w.register("ada@example.org")
	elsewhere := func(access string) int {
		request, err := http.NewRequest("GET", "http://"+addr+"/api/me", nil)
		w.must(err)
		request.Header.Set("Authorization", "Bearer "+access)
		response, err := w.client.Do(request)
		w.must(err)
		response.Body.Close()
		return response.StatusCode
	}
	a, b := w.login("ada@example.org"), w.login("ada@example.org")
	if elsewhere(a.AccessToken) != 200 || elsewhere(b.AccessToken) != 200 {
		t.Fatal("the other edge does not know the sessions")
	}
	if r := w.call("/api/logout", a.AccessToken, nil); r.status != 204 {
		t.Fatal(r)
	}
	w.eventually("the other edge hears of it", func() bool { return elsewhere(a.AccessToken) == 401 })

	// A notice alone is enough; this session is none that MySQL could tell of.
	announced := uuid.New()
	w.must(w.stock.Publish(t.Context(), stock.Notice{EndedSessions: []uuid.UUID{announced}}))
	w.eventually("a notice is heard", func() bool { return w.edge.sessions.hasEnded(announced) })

	// Somebody whose notice gets lost.
	claims, err := w.tokens.Verify([]byte(b.AccessToken), time.Now())
	w.must(err)
	if _, err := w.accounts.EndSession(t.Context(), claims.SessionID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the other edge finds out", func() bool { return elsewhere(b.AccessToken) == 401 })

	// An edge that starts later knows both.
	_, _, addr = w.start()
	if elsewhere(a.AccessToken) != 401 || elsewhere(b.AccessToken) != 401 {
		t.Error("a new edge does not know the sessions that have ended")
	}
}

// TestAStolenAccountIsWonBack: a change of the password, a logout everywhere and an operator end all sessions on every
// edge.
func TestAStolenAccountIsWonBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _, _ := w.start()
	w.register("ada@example.org")
	const newPassword = "eight loud herons unravel at dawn"
	user, err := w.accounts.UserByEmail(t.Context(), "ada@example.org")
	w.must(err)

	wantEnded := func(what string, tokens ...tokensBody) {
		t.Helper()
		for _, tok := range tokens {
			wantCode(t, what+": the access token", w.me(tok.AccessToken), 401, unauthenticated)
			wantCode(t, what+": the refresh token", w.refresh(tok.RefreshToken), 401, invalidRefreshToken)
			claims, err := w.tokens.Verify([]byte(tok.AccessToken), time.Now())
			w.must(err)
			w.eventually(what+": the other edge hears of it", func() bool {
				return other.sessions.hasEnded(claims.SessionID)
			})
		}
	}
	login := func(plain string) reply {
		return w.call("/api/login", "", map[string]any{"email": "ada@example.org", "password": plain})
	}
	change := func(access, old, plain string) reply {
		return w.call("/api/password", access, map[string]any{"old_password": old, "new_password": plain})
	}

	a, b := w.login("ada@example.org"), w.login("ada@example.org")
	if r := w.call("/api/logout-everywhere", a.AccessToken, nil); r.status != http.StatusNoContent {
		t.Fatal(r)
	}
	wantEnded("logged out everywhere", a, b)

	a, b = w.login("ada@example.org"), w.login("ada@example.org")
	wantCode(t, "a wrong old password", change(a.AccessToken, "a wrong guess", newPassword), 401, invalidCredentials)
	wantCode(t, "a weak new password", change(a.AccessToken, goodPassword, "short"), 422, weakPassword)
	if r := w.me(a.AccessToken); r.status != http.StatusOK {
		t.Errorf("after a change that was refused: %v", r)
	}
	if r := change(a.AccessToken, goodPassword, newPassword); r.status != http.StatusNoContent {
		t.Fatal(r)
	}
	wantEnded("the password was changed", a, b)
	wantCode(t, "a login with the old password", login(goodPassword), 401, invalidCredentials)

	// A login that had checked the old password before the change.
	if _, err := w.accounts.StartSession(t.Context(), user, [32]byte{1}, time.Hour); !errors.Is(err,
		account.ErrPasswordChanged) {
		t.Errorf("a login under way: error %v", err)
	}
	r := login(newPassword)
	if r.status != http.StatusOK {
		t.Fatalf("a login with the new password: %v", r)
	}

	r.read(t, &a)
	ended, err := w.accounts.Disable(t.Context(), user.ID)
	w.must(err)
	w.must(w.stock.Publish(t.Context(), stock.Notice{EndedSessions: ended}))
	w.eventually("the edge hears of it", func() bool { return w.me(a.AccessToken).status == 401 })
	wantEnded("disabled", a)
	wantCode(t, "a login to a disabled account", login(newPassword), 403, banned)
	wantCode(t, "a wrong guess at one", login(goodPassword), 401, invalidCredentials)
	w.must(w.accounts.Enable(t.Context(), user.ID))
	if r := login(newPassword); r.status != http.StatusOK {
		t.Errorf("a login after all: %v", r)
	}
}

// TestWrongLogin: nobody learns whether an account exists, and neither costs less work.
func TestWrongLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ada@example.org")
	wrong := w.call("/api/login", "", map[string]any{"email": "ada@example.org",
		"password": "wrong horse battery staple"})
	unknown := w.call("/api/login", "", map[string]any{"email": "eve@example.org",
		"password": "wrong horse battery staple"})
	broken := w.call("/api/login", "", map[string]any{"email": "not an address", "password": goodPassword})
	for what, r := range map[string]reply{"a wrong password": wrong, "an unknown address": unknown,
		"a broken address": broken} {
		wantCode(t, what, r, 401, invalidCredentials)
		if r.told() != wrong.told() {
			t.Errorf("%s is answered with %q, a wrong password with %q", what, r.body, wrong.body)
		}
	}
}

func TestBadAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ada@example.org")
	tokens := w.login("ada@example.org")
	long := strings.Repeat("x", 10_000)
	for _, test := range []struct {
		what, path string
		fields     map[string]any
		status     int
		code       code
	}{
		{"no @", "/api/register", map[string]any{"email": "ada", "name": "Ada", "password": goodPassword}, 422,
			invalidEmail},
		{"no e-mail", "/api/register", map[string]any{"name": "Ada", "password": goodPassword}, 422, invalidEmail},
		{"two e-mails", "/api/register", map[string]any{"email": "a@b.de, c@d.de", "name": "Ada",
			"password": goodPassword}, 422, invalidEmail},
		{"a named e-mail", "/api/register", map[string]any{"email": "Ada <a@b.de>", "name": "Ada",
			"password": goodPassword}, 422, invalidEmail},
		{"a header in an e-mail", "/api/register", map[string]any{"email": "a@b.de\r\nBcc: c@d.de", "name": "Ada",
			"password": goodPassword}, 422, invalidEmail},
		{"a long e-mail", "/api/register", map[string]any{"email": long + "@b.de", "name": "Ada",
			"password": goodPassword}, 422, invalidEmail},
		{"no name", "/api/register", map[string]any{"email": "b@b.de", "password": goodPassword}, 422, invalidName},
		{"a name of blanks", "/api/register", map[string]any{"email": "b@b.de", "name": "  ", "password": goodPassword},
			422, invalidName},
		{"a name with a bell", "/api/register", map[string]any{"email": "b@b.de", "name": "a\ab",
			"password": goodPassword}, 422, invalidName},
		{"no password", "/api/register", map[string]any{"email": "b@b.de", "name": "B"}, 422, weakPassword},
		{"a short password", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": "short"}, 422,
			weakPassword},
		{"a common password", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": "1234567890"},
			422, weakPassword},
		{"a password of 10 kB", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": long}, 422,
			weakPassword},
		{"a login with 10 kB", "/api/login", map[string]any{"email": "ada@example.org", "password": long}, 401,
			invalidCredentials},
		{"numbers for strings", "/api/register", map[string]any{"email": 1, "name": 2, "password": 3}, 400,
			malformedRequest},
		{"a number for a password", "/api/login", map[string]any{"email": "ada@example.org", "password": 3}, 400,
			malformedRequest},
		{"no refresh token", "/api/refresh", map[string]any{}, 401, invalidRefreshToken},
		{"a broken refresh token", "/api/refresh", map[string]any{"refresh_token": "!"}, 401, invalidRefreshToken},
		{"an unknown refresh token", "/api/refresh", map[string]any{"refresh_token": strings.Repeat("A", 43)}, 401,
			invalidRefreshToken},
		{"an access token to refresh with", "/api/refresh", map[string]any{"refresh_token": tokens.AccessToken}, 401,
			invalidRefreshToken},
	} {
		wantCode(t, test.what, w.call(test.path, "", test.fields), test.status, test.code)
	}
	for _, path := range []string{"/api/register", "/api/login", "/api/refresh"} {
		wantCode(t, path+" without JSON", w.send("POST", path, "x", "Content-Type", "application/json"), 400,
			malformedRequest)
		wantCode(t, path+" without a content type", w.send("POST", path, "{}"), 415, unsupportedMediaType)
	}
	wantCode(t, "logout without a token", w.call("/api/logout", "", nil), 401, unauthenticated)
	wantCode(t, "logout with a refresh token", w.call("/api/logout", tokens.RefreshToken, nil), 401, unauthenticated)
	free, err := w.tokens.Sign(token.Claims{UserID: 999}, time.Hour)
	w.must(err)
	wantCode(t, "logout without a session", w.call("/api/logout", free, nil), 400, malformedRequest)
	wantCode(t, "a user without an account", w.me(free), 404, userNotFound)
	forged, err := token.NewKeeper(strings.Repeat("x", 32)).Sign(token.Claims{UserID: 1}, time.Hour)
	w.must(err)
	wantCode(t, "a token of another key", w.me(forged), 401, unauthenticated)
}

// TestLoginFlood: many logins at once do not stop orders.
func TestLoginFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.addProduct(1000)
	w.mustPost(1, product.ID, 1)
	replies := crowd(150, func(i int) reply {
		if i%10 == 0 {
			return w.post(int64(i+1), product.ID, 1)
		}
		return w.call("/api/login", "", map[string]any{"email": fmt.Sprintf("eve%d@example.org", i),
			"password": goodPassword})
	})
	for i, r := range replies {
		switch {
		case i%10 == 0:
			if r.status != 202 {
				t.Errorf("an order during the flood: %v", r)
			}
		case r.status != 401 && !isLimited(r):
			t.Errorf("a login of the flood: %v", r)
		}
	}
}

// isLimited reports whether a client is told that it asks too often, and when to ask again.
func isLimited(r reply) bool {
	return r.status == http.StatusTooManyRequests && r.code() == string(rateLimited) &&
		r.header.Get("Retry-After") != ""
}

// loginFrom logs in from an address that a trusted proxy tells of.
func (w *world) loginFrom(address, email, plain string) reply {
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, email, plain)
	return w.send("POST", "/api/login", body, "Content-Type", "application/json", "X-Forwarded-For", address)
}

// TestLoginFloodOfOneAddress: whatever one address asks for, others log in, and no answer to the flood is an error of
// ours.
func TestLoginFloodOfOneAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	w.register("ada@example.org")
	replies := crowd(200, func(i int) reply {
		if i%20 == 19 {
			return w.loginFrom(fmt.Sprint("192.0.2.", i), "ada@example.org", goodPassword)
		}
		return w.loginFrom("198.51.100.1", fmt.Sprintf("eve%d@example.org", i), goodPassword)
	})
	limited := 0
	for i, r := range replies {
		switch {
		case i%20 == 19:
			if r.status != http.StatusOK {
				t.Errorf("a login from elsewhere during the flood: %v", r)
			}
		case isLimited(r):
			limited++
		case r.status != http.StatusUnauthorized:
			t.Errorf("a login of the flood: %v", r)
		}
	}
	if limited < 100 {
		t.Errorf("%d of 190 logins from one address at once were held back", limited)
	}
	if held := w.edge.hashShares.held; len(held) != 0 {
		t.Errorf("shares are still held: %v", held)
	}
}

// TestGuessesAreSlowedDown: who guesses at an account has to wait, whether the account exists or not, and its owner
// logs in from elsewhere, and later from there.
func TestGuessesAreSlowedDown(t *testing.T) {
	t.Parallel()
	guessing := func(rate string) *world {
		w := newWorld(t, behindProxy, func(e *Edge) {
			var err error
			if e.guesses, err = newLimiter[guess]("account", rate); err != nil {
				t.Error(err)
			}
		})
		w.register("ada@example.org")
		return w
	}

	w := guessing("0.01/10") // so slow that no guess is free again however long the test takes
	for _, email := range []string{"ada@example.org", "nobody@example.org"} {
		for i := range 10 {
			wantCode(t, "a guess", w.loginFrom("198.51.100.1", email, fmt.Sprint("a wrong guess ", i)), 401,
				invalidCredentials)
		}
		if r := w.loginFrom("198.51.100.1", strings.ToUpper(email), goodPassword); !isLimited(r) {
			t.Errorf("a guess too many at %s: %v", email, r)
		}
	}
	if r := w.loginFrom("192.0.2.1", "ada@example.org", goodPassword); r.status != http.StatusOK {
		t.Errorf("the owner, from elsewhere: %v", r)
	}
	for range 12 {
		if r := w.loginFrom("192.0.2.2", "ada@example.org", goodPassword); r.status != http.StatusOK {
			t.Fatalf("a right password is no guess: %v", r)
		}
	}

	w = guessing("0.5/1")
	w.eventually("guesses are slowed down", func() bool {
		return isLimited(w.loginFrom("198.51.100.1", "ada@example.org", "a wrong guess"))
	})
	w.eventually("the owner logs in from there as well", func() bool {
		return w.loginFrom("198.51.100.1", "ada@example.org", goodPassword).status == http.StatusOK
	})
}

// TestEndedSessionsAreForgotten: what is remembered is bounded.
func TestEndedSessionsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newSessions(nil, nil)
	old := uuid.New()
	s.end(old)
	s.order[0].at = time.Now().Add(-endedTTL - time.Second)
	s.end(uuid.New())
	if s.hasEnded(old) || len(s.ended) != 1 {
		t.Error("a session is remembered for longer than its tokens last")
	}
	first := s.order[0].id
	for range maxEnded {
		s.end(uuid.New())
	}
	if len(s.ended) != maxEnded || len(s.order) != maxEnded || s.hasEnded(first) {
		t.Errorf("%d sessions are remembered", len(s.ended))
	}
	if s.hasEnded(uuid.Nil) {
		t.Error("tokens without a session have ended")
	}
}
