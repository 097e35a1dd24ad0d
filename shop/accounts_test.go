package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/apitest"
	"stampede/internal/notice"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/token"
)

const goodPassword = "seven quiet otters knit at dusk"

func (w *world) register(email string) apitest.Reply {
	return w.Call("/api/register", "", map[string]any{"email": email, "name": "Ada", "password": goodPassword})
}

// login wants a session and returns its tokens.
func (w *world) login(email string) tokensBody {
	w.Helper()
	r := w.Call("/api/login", "", map[string]any{"email": email, "password": goodPassword})
	if r.Status != 200 || r.Header.Get("Cache-Control") != "no-store" {
		w.Fatalf("login: %v", r)
	}
	var tokens tokensBody
	r.Read(w, &tokens)
	return tokens
}

func (w *world) refresh(refreshToken string) apitest.Reply {
	return w.Call("/api/refresh", "", map[string]any{"refresh_token": refreshToken})
}

func (w *world) me(access string) apitest.Reply {
	return w.Send("GET", "/api/me", "", "Authorization", "Bearer "+access)
}

// TestAccount is the life of an account: made, logged into, used, refreshed, logged out of.
func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register("Ada@Example.org")
	if r.Status != http.StatusCreated || strings.Contains(r.Body, "argon2") || strings.Contains(r.Body, goodPassword) {
		t.Fatalf("register: %v", r)
	}
	var user userBody
	r.Read(t, &user)
	if user.UserID <= 0 || user.Email != "Ada@Example.org" || user.Name != "Ada" || user.Role != account.Buyer {
		t.Errorf("registered as %+v", user)
	}
	apitest.WantCode(t, "the same address in other letters", w.register("ada@example.ORG"), 409, problem.EmailTaken)

	tokens := w.login("ADA@example.org")
	if tokens.TokenType != "Bearer" || tokens.ExpiresIn < 890 || tokens.ExpiresIn > 900 {
		t.Errorf("tokens: %+v", tokens)
	}
	claims, err := w.Tokens.Verify([]byte(tokens.AccessToken), time.Now())
	if err != nil || claims.UserID != user.UserID || claims.SessionID == uuid.Nil || claims.Role != "buyer" {
		t.Errorf("the access token says %+v, %v", claims, err)
	}
	var me userBody
	w.me(tokens.AccessToken).Read(t, &me)
	if me != user {
		t.Errorf("/api/me says %+v, want %+v", me, user)
	}
	product := w.AddProduct(5)
	order := func(access string) apitest.Reply {
		return w.Call("/api/orders", access, map[string]any{"product_id": product.ID, "quantity": 1})
	}
	if r := order(tokens.AccessToken); r.Status != 202 {
		t.Errorf("an order: %v", r)
	}

	r = w.refresh(tokens.RefreshToken)
	var second tokensBody
	r.Read(t, &second)
	if r.Status != 200 || second.RefreshToken == tokens.RefreshToken {
		t.Fatalf("refresh: %v", r)
	}
	if r := w.Call("/api/logout", second.AccessToken, nil); r.Status != http.StatusNoContent || r.Body != "" {
		t.Errorf("logout: %v", r)
	}
	for what, access := range map[string]string{"the last": second.AccessToken, "the first": tokens.AccessToken} {
		apitest.WantCode(t, what+" token of a session that has ended", w.me(access), 401, problem.Unauthenticated)
		w.Eventually("the edge hears of it",
			func() bool { return order(access).Code() == string(problem.Unauthenticated) })
	}
	apitest.WantCode(t, "refreshing a session that has ended", w.refresh(second.RefreshToken), 401,
		problem.InvalidRefreshToken)
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
	for _, r := range apitest.Crowd(8, func(int) apitest.Reply { return w.refresh(first.RefreshToken) }) {
		if r.Status != http.StatusOK {
			t.Fatalf("a repeated refresh: %v", r)
		}
		r.Read(t, &last)
		seen[last.RefreshToken] = true
		if r := w.me(last.AccessToken); r.Status != http.StatusOK {
			t.Errorf("its access token: %v", r)
		}
	}
	if len(seen) != 1 || seen[first.RefreshToken] {
		t.Errorf("%d different tokens replaced one", len(seen))
	}
	if r := w.refresh(last.RefreshToken); r.Status != http.StatusOK {
		t.Errorf("the next refresh: %v", r)
	}
}

// age makes all that was replaced or issued as old as if more than the grace had gone by.
func (w *world) age() {
	w.Helper()
	db, err := sql.Open("mysql", w.DSN)
	w.Must(err)
	defer db.Close()
	for _, column := range []string{"replaced_at", "issued_at"} {
		_, err := db.ExecContext(w.Context(), "UPDATE refresh_tokens SET "+column+" = "+column+
			" - INTERVAL ? MICROSECOND",
			(account.RefreshGrace + time.Second).Microseconds())
		w.Must(err)
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
	w.refresh(first.RefreshToken).Read(t, &second)
	w.age()
	apitest.WantCode(t, "a replaced token", w.refresh(first.RefreshToken), 401, problem.InvalidRefreshToken)
	apitest.WantCode(t, "the token that replaced it", w.refresh(second.RefreshToken), 401, problem.InvalidRefreshToken)
	apitest.WantCode(t, "its access token", w.me(second.AccessToken), 401, problem.Unauthenticated)
	if r := w.me(other.AccessToken); r.Status != 200 {
		t.Errorf("another session of the user: %v", r)
	}
}

// TestLogoutIsHeardEverywhere: at once by notice, and without one from MySQL.
func TestLogoutIsHeardEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, addr := w.start()
	w.register("ada@example.org")
	elsewhere := func(access string) int {
		request, err := http.NewRequest("GET", "http://"+addr+"/api/me", nil)
		w.Must(err)
		request.Header.Set("Authorization", "Bearer "+access)
		response, err := w.Client.Do(request)
		w.Must(err)
		response.Body.Close()
		return response.StatusCode
	}
	a, b := w.login("ada@example.org"), w.login("ada@example.org")
	if elsewhere(a.AccessToken) != 200 || elsewhere(b.AccessToken) != 200 {
		t.Fatal("the other shop does not know the sessions")
	}
	if r := w.Call("/api/logout", a.AccessToken, nil); r.Status != 204 {
		t.Fatal(r)
	}
	w.Eventually("the other shop hears of it", func() bool { return elsewhere(a.AccessToken) == 401 })

	// A notice alone is enough; this session is none that MySQL could tell of.
	announced := uuid.New()
	w.Must(notice.Publish(t.Context(), w.RDB, notice.Notice{EndedSessions: []uuid.UUID{announced}}))
	w.Eventually("a notice is heard", func() bool { return w.shop.guard.Sessions.HaveEnded(announced) })

	// Somebody whose notice gets lost.
	claims, err := w.Tokens.Verify([]byte(b.AccessToken), time.Now())
	w.Must(err)
	if _, err := w.Accounts.EndSession(t.Context(), claims.SessionID); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the other shop finds out", func() bool { return elsewhere(b.AccessToken) == 401 })

	// A shop that starts later knows both.
	_, addr = w.start()
	if elsewhere(a.AccessToken) != 401 || elsewhere(b.AccessToken) != 401 {
		t.Error("a new shop does not know the sessions that have ended")
	}
}

// TestAStolenAccountIsWonBack: a change of the password, a logout everywhere and an operator end all sessions on every
// server.
func TestAStolenAccountIsWonBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.start()
	w.register("ada@example.org")
	const newPassword = "eight loud herons unravel at dawn"
	user, err := w.Accounts.UserByEmail(t.Context(), "ada@example.org")
	w.Must(err)

	wantEnded := func(what string, tokens ...tokensBody) {
		t.Helper()
		for _, tok := range tokens {
			apitest.WantCode(t, what+": the access token", w.me(tok.AccessToken), 401, problem.Unauthenticated)
			apitest.WantCode(t, what+": the refresh token", w.refresh(tok.RefreshToken), 401,
				problem.InvalidRefreshToken)
			claims, err := w.Tokens.Verify([]byte(tok.AccessToken), time.Now())
			w.Must(err)
			w.Eventually(what+": the other shop hears of it", func() bool {
				return other.guard.Sessions.HaveEnded(claims.SessionID)
			})
		}
	}
	login := func(plain string) apitest.Reply {
		return w.Call("/api/login", "", map[string]any{"email": "ada@example.org", "password": plain})
	}
	change := func(access, old, plain string) apitest.Reply {
		return w.Call("/api/password", access, map[string]any{"old_password": old, "new_password": plain})
	}

	a, b := w.login("ada@example.org"), w.login("ada@example.org")
	if r := w.Call("/api/logout-everywhere", a.AccessToken, nil); r.Status != http.StatusNoContent {
		t.Fatal(r)
	}
	wantEnded("logged out everywhere", a, b)

	a, b = w.login("ada@example.org"), w.login("ada@example.org")
	apitest.WantCode(t, "a wrong old password", change(a.AccessToken, "a wrong guess", newPassword), 401,
		problem.InvalidCredentials)
	apitest.WantCode(t, "a weak new password", change(a.AccessToken, goodPassword, "short"), 422, problem.WeakPassword)
	if r := w.me(a.AccessToken); r.Status != http.StatusOK {
		t.Errorf("after a change that was refused: %v", r)
	}
	if r := change(a.AccessToken, goodPassword, newPassword); r.Status != http.StatusNoContent {
		t.Fatal(r)
	}
	wantEnded("the password was changed", a, b)
	apitest.WantCode(t, "a login with the old password", login(goodPassword), 401, problem.InvalidCredentials)

	// A login that had checked the old password before the change.
	if _, err := w.Accounts.StartSession(t.Context(), user, [32]byte{1}, time.Hour); !errors.Is(err,
		account.ErrPasswordChanged) {
		t.Errorf("a login under way: error %v", err)
	}
	r := login(newPassword)
	if r.Status != http.StatusOK {
		t.Fatalf("a login with the new password: %v", r)
	}

	r.Read(t, &a)
	ended, err := w.Accounts.Disable(t.Context(), user.ID)
	w.Must(err)
	w.Must(notice.Publish(t.Context(), w.RDB, notice.Notice{EndedSessions: ended}))
	w.Eventually("the shop hears of it", func() bool { return w.me(a.AccessToken).Status == 401 })
	wantEnded("disabled", a)
	apitest.WantCode(t, "a login to a disabled account", login(newPassword), 403, problem.Banned)
	apitest.WantCode(t, "a wrong guess at one", login(goodPassword), 401, problem.InvalidCredentials)
	w.Must(w.Accounts.Enable(t.Context(), user.ID))
	if r := login(newPassword); r.Status != http.StatusOK {
		t.Errorf("a login after all: %v", r)
	}
}

// TestWrongLogin: nobody learns whether an account exists, and neither costs less work.
func TestWrongLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ada@example.org")
	wrong := w.Call("/api/login", "", map[string]any{"email": "ada@example.org",
		"password": "wrong horse battery staple"})
	unknown := w.Call("/api/login", "", map[string]any{"email": "eve@example.org",
		"password": "wrong horse battery staple"})
	broken := w.Call("/api/login", "", map[string]any{"email": "not an address", "password": goodPassword})
	for what, r := range map[string]apitest.Reply{"a wrong password": wrong, "an unknown address": unknown,
		"a broken address": broken} {
		apitest.WantCode(t, what, r, 401, problem.InvalidCredentials)
		if r.Told() != wrong.Told() {
			t.Errorf("%s is answered with %q, a wrong password with %q", what, r.Body, wrong.Body)
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
		code       problem.Code
	}{
		{"no @", "/api/register", map[string]any{"email": "ada", "name": "Ada", "password": goodPassword}, 422,
			problem.InvalidEmail},
		{"no e-mail", "/api/register", map[string]any{"name": "Ada", "password": goodPassword}, 422,
			problem.InvalidEmail},
		{"two e-mails", "/api/register", map[string]any{"email": "a@b.de, c@d.de", "name": "Ada",
			"password": goodPassword}, 422, problem.InvalidEmail},
		{"a named e-mail", "/api/register", map[string]any{"email": "Ada <a@b.de>", "name": "Ada",
			"password": goodPassword}, 422, problem.InvalidEmail},
		{"a header in an e-mail", "/api/register", map[string]any{"email": "a@b.de\r\nBcc: c@d.de", "name": "Ada",
			"password": goodPassword}, 422, problem.InvalidEmail},
		{"a long e-mail", "/api/register", map[string]any{"email": long + "@b.de", "name": "Ada",
			"password": goodPassword}, 422, problem.InvalidEmail},
		{"no name", "/api/register", map[string]any{"email": "b@b.de", "password": goodPassword}, 422,
			problem.InvalidName},
		{"a name of blanks", "/api/register", map[string]any{"email": "b@b.de", "name": "  ", "password": goodPassword},
			422, problem.InvalidName},
		{"a name with a bell", "/api/register", map[string]any{"email": "b@b.de", "name": "a\ab",
			"password": goodPassword}, 422, problem.InvalidName},
		{"no password", "/api/register", map[string]any{"email": "b@b.de", "name": "B"}, 422, problem.WeakPassword},
		{"a short password", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": "short"}, 422,
			problem.WeakPassword},
		{"a common password", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": "1234567890"},
			422, problem.WeakPassword},
		{"a password of 10 kB", "/api/register", map[string]any{"email": "b@b.de", "name": "B", "password": long}, 422,
			problem.WeakPassword},
		{"a login with 10 kB", "/api/login", map[string]any{"email": "ada@example.org", "password": long}, 401,
			problem.InvalidCredentials},
		{"numbers for strings", "/api/register", map[string]any{"email": 1, "name": 2, "password": 3}, 400,
			problem.MalformedRequest},
		{"a number for a password", "/api/login", map[string]any{"email": "ada@example.org", "password": 3}, 400,
			problem.MalformedRequest},
		{"no refresh token", "/api/refresh", map[string]any{}, 401, problem.InvalidRefreshToken},
		{"a broken refresh token", "/api/refresh", map[string]any{"refresh_token": "!"}, 401,
			problem.InvalidRefreshToken},
		{"an unknown refresh token", "/api/refresh", map[string]any{"refresh_token": strings.Repeat("A", 43)}, 401,
			problem.InvalidRefreshToken},
		{"an access token to refresh with", "/api/refresh", map[string]any{"refresh_token": tokens.AccessToken}, 401,
			problem.InvalidRefreshToken},
	} {
		apitest.WantCode(t, test.what, w.Call(test.path, "", test.fields), test.status, test.code)
	}
	for _, path := range []string{"/api/register", "/api/login", "/api/refresh"} {
		apitest.WantCode(t, path+" without JSON", w.Send("POST", path, "x", "Content-Type", "application/json"), 400,
			problem.MalformedRequest)
		apitest.WantCode(t, path+" without a content type", w.Send("POST", path, "{}"), 415,
			problem.UnsupportedMediaType)
	}
	apitest.WantCode(t, "logout without a token", w.Call("/api/logout", "", nil), 401, problem.Unauthenticated)
	apitest.WantCode(t, "logout with a refresh token", w.Call("/api/logout", tokens.RefreshToken, nil), 401,
		problem.Unauthenticated)
	free, err := w.Tokens.Sign(token.Claims{UserID: 999}, time.Hour)
	w.Must(err)
	apitest.WantCode(t, "logout without a session", w.Call("/api/logout", free, nil), 400, problem.MalformedRequest)
	apitest.WantCode(t, "a user without an account", w.me(free), 404, problem.UserNotFound)
	forged, err := token.NewKeeper(strings.Repeat("x", 32)).Sign(token.Claims{UserID: 1}, time.Hour)
	w.Must(err)
	apitest.WantCode(t, "a token of another key", w.me(forged), 401, problem.Unauthenticated)
}

// TestLoginFlood: many logins at once do not stop orders.
func TestLoginFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.AddProduct(1000)
	w.MustPost(1, product.ID, 1)
	replies := apitest.Crowd(150, func(i int) apitest.Reply {
		if i%10 == 0 {
			return w.Post(order.UserID(i+1), product.ID, 1)
		}
		return w.Call("/api/login", "", map[string]any{"email": fmt.Sprintf("eve%d@example.org", i),
			"password": goodPassword})
	})
	for i, r := range replies {
		switch {
		case i%10 == 0:
			if r.Status != 202 {
				t.Errorf("an order during the flood: %v", r)
			}
		case r.Status != 401 && !isLimited(r):
			t.Errorf("a login of the flood: %v", r)
		}
	}
}

// isLimited reports whether a client is told that it asks too often, and when to ask again.
func isLimited(r apitest.Reply) bool {
	return r.Status == http.StatusTooManyRequests && r.Code() == string(problem.RateLimited) &&
		r.Header.Get("Retry-After") != ""
}

// loginFrom logs in from an address that a trusted proxy tells of.
func (w *world) loginFrom(address, email, plain string) apitest.Reply {
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, email, plain)
	return w.Send("POST", "/api/login", body, "Content-Type", "application/json", "X-Forwarded-For", address)
}

// TestLoginFloodOfOneAddress: whatever one address asks for, others log in, and no answer to the flood is an error of
// ours.
func TestLoginFloodOfOneAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	w.register("ada@example.org")
	replies := apitest.Crowd(200, func(i int) apitest.Reply {
		if i%20 == 19 {
			return w.loginFrom(fmt.Sprint("192.0.2.", i), "ada@example.org", goodPassword)
		}
		return w.loginFrom("198.51.100.1", fmt.Sprintf("eve%d@example.org", i), goodPassword)
	})
	limited := 0
	for i, r := range replies {
		switch {
		case i%20 == 19:
			if r.Status != http.StatusOK {
				t.Errorf("a login from elsewhere during the flood: %v", r)
			}
		case isLimited(r):
			limited++
		case r.Status != http.StatusUnauthorized:
			t.Errorf("a login of the flood: %v", r)
		}
	}
	if limited < 100 {
		t.Errorf("%d of 190 logins from one address at once were held back", limited)
	}
	if held := w.shop.passwords.shares.held; len(held) != 0 {
		t.Errorf("shares are still held: %v", held)
	}
}

// TestGuessesAreSlowedDown: who guesses at an account has to wait, whether the account exists or not, and its owner
// logs in from elsewhere, and later from there.
func TestGuessesAreSlowedDown(t *testing.T) {
	t.Parallel()
	guessing := func(rate string) *world {
		w := newWorld(t, behindProxy, func(s *Shop) {
			if err := s.passwords.setGuessLimit(rate); err != nil {
				t.Error(err)
			}
		})
		w.register("ada@example.org")
		return w
	}

	w := guessing("0.01/10") // so slow that no guess is free again however long the test takes
	for _, email := range []string{"ada@example.org", "nobody@example.org"} {
		for i := range 10 {
			apitest.WantCode(t, "a guess", w.loginFrom("198.51.100.1", email, fmt.Sprint("a wrong guess ", i)), 401,
				problem.InvalidCredentials)
		}
		if r := w.loginFrom("198.51.100.1", strings.ToUpper(email), goodPassword); !isLimited(r) {
			t.Errorf("a guess too many at %s: %v", email, r)
		}
	}
	if r := w.loginFrom("192.0.2.1", "ada@example.org", goodPassword); r.Status != http.StatusOK {
		t.Errorf("the owner, from elsewhere: %v", r)
	}
	for range 12 {
		if r := w.loginFrom("192.0.2.2", "ada@example.org", goodPassword); r.Status != http.StatusOK {
			t.Fatalf("a right password is no guess: %v", r)
		}
	}

	w = guessing("0.5/1")
	w.Eventually("guesses are slowed down", func() bool {
		return isLimited(w.loginFrom("198.51.100.1", "ada@example.org", "a wrong guess"))
	})
	w.Eventually("the owner logs in from there as well", func() bool {
		return w.loginFrom("198.51.100.1", "ada@example.org", goodPassword).Status == http.StatusOK
	})
}
