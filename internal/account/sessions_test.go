package account

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

var tokens atomic.Int64

// newToken is the hash of a token that no other test has.
func newToken() [32]byte { return sha256.Sum256(fmt.Appendf(nil, "token %d", tokens.Add(1))) }

func startSession(t testing.TB, a *Accounts, userID order.UserID) (Session, [32]byte) {
	t.Helper()
	token := newToken()
	session, err := a.StartSession(t.Context(), User{ID: userID}, token, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return session, token
}

// revokedAt reads when a session was revoked, or the zero time.
func revokedAt(t testing.TB, a *Accounts, id uuid.UUID) time.Time {
	t.Helper()
	var row sessionRow
	if err := a.db.Get(&row, "SELECT "+sessionColumns+" FROM sessions WHERE id = ?", mysql.UUID(id)); err != nil {
		t.Fatal(err)
	}
	return row.RevokedAt.Time
}

func count(t testing.TB, a *Accounts, query string, args ...any) (n int) {
	t.Helper()
	if err := a.db.Get(&n, "SELECT COUNT(*) FROM "+query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStartSession(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	session, token := startSession(t, a, ann.ID)
	if session.ID.Version() != 7 || session.UserID != ann.ID || time.Since(session.CreatedAt) > time.Minute ||
		session.ExpiresAt.Sub(session.CreatedAt) != time.Hour || !session.RevokedAt.IsZero() ||
		session.Displaced != nil ||
		session.CreatedAt.Location() != time.UTC {
		t.Errorf("%+v", session)
	}
	n := count(t, a, "refresh_tokens WHERE hash = ? AND session_id = ? AND replaced_at IS NULL",
		token[:], mysql.UUID(session.ID))
	if n != 1 {
		t.Errorf("%d tokens are stored", n)
	}
	if _, err := a.StartSession(t.Context(), ann, token, time.Hour); !errors.Is(err, mysql.ErrExists) {
		t.Errorf("a token that is known: error %v", err)
	}
	if _, err := a.StartSession(t.Context(), User{ID: ann.ID + 1000}, newToken(), time.Hour); !errors.Is(err,
		mysql.ErrNotFound) {
		t.Errorf("a user who is not there: error %v", err)
	}
	for _, ttl := range []time.Duration{0, -1, MaxSessionTTL + 1, math.MaxInt64} {
		if _, err := a.StartSession(t.Context(), ann, newToken(), ttl); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%s: error %v", ttl, err)
		}
	}
	if n := count(t, a, "sessions"); n != 1 {
		t.Errorf("%d sessions after one start and others that failed", n)
	}
}

func TestStartSessionDisplaces(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann, bob := addUser(t, a, "ann"), addUser(t, a, "bob")
	bobs, _ := startSession(t, a, bob.ID)
	var sessions []Session
	for range MaxSessions {
		session, _ := startSession(t, a, ann.ID)
		if session.Displaced != nil {
			t.Fatalf("session %d displaced %v", len(sessions), session.Displaced)
		}
		sessions = append(sessions, session)
	}
	next, _ := startSession(t, a, ann.ID)
	if !slices.Equal(next.Displaced, []uuid.UUID{sessions[0].ID}) ||
		!revokedAt(t, a, sessions[0].ID).Equal(next.CreatedAt) {
		t.Errorf("displaced %v at %s", next.Displaced, revokedAt(t, a, sessions[0].ID))
	}
	// Sessions that have ended take no room.
	if _, err := a.EndSession(t.Context(), sessions[7].ID); err != nil {
		t.Fatal(err)
	}
	exec(t, a, "UPDATE sessions SET expires_at = created_at WHERE id = ?", mysql.UUID(sessions[8].ID))
	for range 2 {
		if next, _ = startSession(t, a, ann.ID); next.Displaced != nil {
			t.Errorf("displaced %v though there was room", next.Displaced)
		}
	}
	if next, _ = startSession(t, a, ann.ID); !slices.Equal(next.Displaced, []uuid.UUID{sessions[1].ID}) {
		t.Errorf("displaced %v, want %s", next.Displaced, sessions[1].ID)
	}
	if !revokedAt(t, a, bobs.ID).IsZero() {
		t.Error("another user's session was displaced")
	}

	// However many start at once, no more are live than may be.
	var functions []func() error
	for range 20 {
		functions = append(functions, func() error {
			_, err := a.StartSession(t.Context(), ann, newToken(), time.Hour)
			return err
		})
	}
	stacktest.Together(t, functions...)
	if n := count(t, a, "sessions WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ?", ann.ID,
		mysql.Now()); n != MaxSessions {
		t.Errorf("%d live sessions, want %d", n, MaxSessions)
	}
}

// TestStartSessionManyUsers has the first logins of many users at once, which must not wait for one another in circles.
func TestStartSessionManyUsers(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	var before, after int
	deadlocks := func() (n int) {
		_ = a.db.Get(&n, "SELECT COUNT FROM information_schema.innodb_metrics WHERE NAME = 'lock_deadlocks'")
		return n
	}
	var functions []func() error
	for i := range 64 {
		user := addUser(t, a, fmt.Sprint("user", i))
		functions = append(functions, func() error {
			_, err := a.StartSession(t.Context(), user, newToken(), time.Hour)
			return err
		})
	}
	before = deadlocks()
	stacktest.Together(t, functions...)
	if after = deadlocks(); after > before {
		t.Logf("%d deadlocks on the server meanwhile", after-before) // other tests may have made them
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	ann := addUser(t, a, "ann")
	session, token := startSession(t, a, ann.ID)
	for i := range 5 {
		// The user is as of now, not as of the login.
		ann.Role = []Role{Buyer, Admin}[i%2]
		if err := a.SetRole(ctx, ann.ID, ann.Role); err != nil {
			t.Fatal(err)
		}
		next := newToken()
		for range 2 { // a caller that does not know whether the first call was committed
			got, user, err := a.Refresh(ctx, token, next)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(session) || user != ann {
				t.Fatalf("refresh %d: %+v, %+v, error %v", i, got, user, err)
			}
		}
		token = next
	}
	if n := count(t, a, "refresh_tokens WHERE session_id = ?", mysql.UUID(session.ID)); n != 6 {
		t.Errorf("%d tokens, want 6", n)
	}
	if n := count(t, a, "sessions WHERE refreshes = 5"); n != 1 {
		t.Error("refreshes were not counted once each")
	}

	other, otherToken := startSession(t, a, ann.ID)
	for name, try := range map[string]struct {
		old, new [32]byte
		want     error
	}{
		"an unknown token":             {newToken(), newToken(), mysql.ErrNotFound},
		"no token":                     {[32]byte{}, newToken(), mysql.ErrNotFound},
		"itself":                       {token, token, mysql.ErrInvalid},
		"the token of another session": {token, otherToken, mysql.ErrExists},
	} {
		if got, user, err := a.Refresh(ctx, try.old, try.new); !errors.Is(err, try.want) || got.ID != uuid.Nil ||
			user.ID != 0 {
			t.Errorf("%s: %+v, %+v, error %v", name, got, user, err)
		}
	}
	// None of those has changed anything.
	for id, token := range map[uuid.UUID][32]byte{session.ID: token, other.ID: otherToken} {
		if got, _, err := a.Refresh(ctx, token, newToken()); err != nil || got.ID != id {
			t.Errorf("after refusals: %+v, error %v", got, err)
		}
	}
}

func TestRefreshReuse(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	ann := addUser(t, a, "ann")
	bystander, bystanderToken := startSession(t, a, ann.ID)
	session, first := startSession(t, a, ann.ID)
	second, third := newToken(), newToken()
	for _, pair := range [][2][32]byte{{first, second}, {second, third}} {
		if _, _, err := a.Refresh(ctx, pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	var revoked time.Time
	for i, token := range [][32]byte{first, first, second} {
		got, user, err := a.Refresh(ctx, token, newToken())
		if !errors.Is(err, ErrReused) || mysql.Classify(err) != mysql.Own || got.ID != session.ID ||
			got.UserID != ann.ID || user.ID != 0 {
			t.Fatalf("reuse %d: %+v, %+v, error %v", i, got, user, err)
		}
		if i == 0 {
			revoked = got.RevokedAt
		}
		if stored := revokedAt(t, a, session.ID); stored.IsZero() || !stored.Equal(revoked) ||
			!got.RevokedAt.Equal(revoked) {
			t.Fatalf("reuse %d: revoked at %s, stored %s, first %s", i, got.RevokedAt, stored, revoked)
		}
	}
	if got, user, err := a.Refresh(ctx, third, newToken()); !errors.Is(err, ErrEnded) || got.ID != uuid.Nil ||
		user.ID != 0 {
		t.Errorf("the last token of a revoked session: %+v, %+v, error %v", got, user, err)
	}
	// The repetition of a refresh is answered by what has become of the session since.
	if _, _, err := a.Refresh(ctx, second, third); !errors.Is(err, ErrEnded) {
		t.Errorf("a repeated call in a revoked session: error %v", err)
	}
	if got, _, err := a.Refresh(ctx, bystanderToken, newToken()); err != nil || got.ID != bystander.ID {
		t.Errorf("another session of the user: %+v, error %v", got, err)
	}
}

// TestRefreshRepeated tells the repetition of a call from a replaced token with a new token that is known.
func TestRefreshRepeated(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	for name, build := range map[string]func(first, second, third, other [32]byte) (old, new [32]byte){
		"a token that did not replace it": func(first, _, third, _ [32]byte) (old, new [32]byte) {
			return first, third
		},
		"the token of another session": func(first, _, _, other [32]byte) (old, new [32]byte) { return first, other },
		"backwards":                    func(first, second, _, _ [32]byte) (old, new [32]byte) { return second, first },
	} {
		_, other := startSession(t, a, ann.ID)
		session, first := startSession(t, a, ann.ID)
		second, third := newToken(), newToken()
		for _, pair := range [][2][32]byte{{first, second}, {second, third}} {
			if _, _, err := a.Refresh(t.Context(), pair[0], pair[1]); err != nil {
				t.Fatal(err)
			}
		}
		old, next := build(first, second, third, other)
		if _, _, err := a.Refresh(t.Context(), old, next); !errors.Is(err, ErrReused) ||
			revokedAt(t, a, session.ID).IsZero() {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestRefreshEnded(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	for name, end := range map[string]func(id uuid.UUID){
		"expired": func(id uuid.UUID) {
			exec(t, a, "UPDATE sessions SET expires_at = ? WHERE id = ?", mysql.Now(), mysql.UUID(id))
		},
		"ended": func(id uuid.UUID) {
			if ended, err := a.EndSession(t.Context(), id); err != nil || !ended {
				t.Errorf("ended %t, error %v", ended, err)
			}
		},
		"worn out": func(id uuid.UUID) {
			exec(t, a, "UPDATE sessions SET refreshes = ? WHERE id = ?", MaxRefreshes, mysql.UUID(id))
		},
	} {
		session, token := startSession(t, a, ann.ID)
		end(session.ID)
		for range 2 {
			if got, user, err := a.Refresh(t.Context(), token, newToken()); !errors.Is(err, ErrEnded) ||
				got.ID != uuid.Nil || user.ID != 0 {
				t.Errorf("%s: %+v, %+v, error %v", name, got, user, err)
			}
		}
		if n := count(t, a, "refresh_tokens WHERE session_id = ?", mysql.UUID(session.ID)); n != 1 {
			t.Errorf("%s: %d tokens", name, n)
		}
		if wornOut := name == "worn out"; wornOut && revokedAt(t, a, session.ID).IsZero() {
			t.Errorf("%s: it is not revoked", name)
		}
	}
	session, token := startSession(t, a, ann.ID)
	exec(t, a, "UPDATE sessions SET refreshes = ? WHERE id = ?", MaxRefreshes-1, mysql.UUID(session.ID))
	if _, _, err := a.Refresh(t.Context(), token, newToken()); err != nil {
		t.Errorf("the last refresh: error %v", err)
	}
	// A replaced token of a session that has expired has nothing left to revoke.
	exec(t, a, "UPDATE sessions SET expires_at = ? WHERE id = ?", mysql.Now(), mysql.UUID(session.ID))
	if _, _, err := a.Refresh(t.Context(), token, newToken()); !errors.Is(err, ErrEnded) ||
		!revokedAt(t, a, session.ID).IsZero() {
		t.Errorf("reuse after the end: error %v", err)
	}
}

// TestRefreshGrace repeats a refresh soon, when the new token is used already as well, and late.
func TestRefreshGrace(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	session, first := startSession(t, a, ann.ID)
	second, third := newToken(), newToken()
	for i, pair := range [][2][32]byte{{first, second}, {first, second}, {second, third}, {first, second},
		{second, third}} {
		if got, user, err := a.Refresh(t.Context(), pair[0], pair[1]); err != nil || got.ID != session.ID ||
			user != ann {
			t.Fatalf("refresh %d: %+v, %+v, error %v", i, got, user, err)
		}
	}
	if n := count(t, a, "refresh_tokens WHERE session_id = ?", mysql.UUID(session.ID)); n != 3 {
		t.Errorf("%d tokens", n)
	}

	// The replacement was longer ago.
	late := (RefreshGrace + time.Second).Microseconds()
	exec(t, a, "UPDATE refresh_tokens SET replaced_at = replaced_at - INTERVAL ? MICROSECOND WHERE hash = ?", late,
		first[:])
	exec(t, a, "UPDATE refresh_tokens SET issued_at = issued_at - INTERVAL ? MICROSECOND WHERE hash = ?", late,
		second[:])
	if got, _, err := a.Refresh(t.Context(), first, second); !errors.Is(err, ErrReused) || got.ID != session.ID {
		t.Errorf("a late repetition: %+v, error %v", got, err)
	}
	if revokedAt(t, a, session.ID).IsZero() {
		t.Error("the session is not revoked")
	}
}

// TestRefreshConcurrently has many holders of one token at once: one gets the next token, the others end the session.
func TestRefreshConcurrently(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	for round := range 10 {
		session, token := startSession(t, a, ann.ID)
		const callers = 20
		var winners, reused atomic.Int64
		var winner [32]byte
		var functions []func() error
		for range callers {
			functions = append(functions, func() error {
				next := newToken()
				got, user, err := a.Refresh(t.Context(), token, next)
				switch {
				case err == nil && got.ID == session.ID && user == ann:
					winners.Add(1)
					winner = next
					return nil
				case errors.Is(err, ErrReused) && got.ID == session.ID && !got.RevokedAt.IsZero():
					reused.Add(1)
					return nil
				}
				return fmt.Errorf("%+v, %+v, error %w", got, user, err)
			})
		}
		stacktest.Together(t, functions...)
		if winners.Load() != 1 || reused.Load() != callers-1 {
			t.Fatalf("round %d: %d won, %d reused", round, winners.Load(), reused.Load())
		}
		if revokedAt(t, a, session.ID).IsZero() {
			t.Errorf("round %d: the session is not revoked", round)
		}
		if n := count(t, a, "refresh_tokens WHERE session_id = ?", mysql.UUID(session.ID)); n != 2 {
			t.Errorf("round %d: %d tokens", round, n)
		}
		if _, _, err := a.Refresh(t.Context(), winner, newToken()); !errors.Is(err, ErrEnded) {
			t.Errorf("round %d: the winner's token: error %v", round, err)
		}
	}
}

// TestSessionsChurn runs everything that locks sessions at once, for deadlocks that repetition does not cure.
func TestSessionsChurn(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	users := []User{addUser(t, a, "ann"), addUser(t, a, "bob")}
	var functions []func() error
	for i := range 12 {
		user := users[i%2]
		functions = append(functions, func() error {
			for range 10 {
				token := newToken()
				if _, err := a.StartSession(ctx, user, token, time.Hour); err != nil {
					return err
				}
				for range 4 {
					next := newToken()
					_, _, err := a.Refresh(ctx, token, next)
					switch {
					case errors.Is(err, ErrEnded) || errors.Is(err, mysql.ErrNotFound):
					case err != nil:
						return err
					}
					token = next
				}
			}
			return nil
		})
	}
	for i := range 4 {
		functions = append(functions, func() error {
			for range 10 {
				if _, err := a.EndSessions(ctx, users[i%2].ID); err != nil {
					return err
				}
				if _, err := a.PurgeSessions(ctx, time.Now(), 100); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stacktest.Together(t, functions...)
	if n := count(t, a, "refresh_tokens t LEFT JOIN sessions s ON s.id = t.session_id WHERE s.id IS NULL"); n != 0 {
		t.Errorf("%d tokens without a session", n)
	}
	if n := count(t, a, "sessions s LEFT JOIN refresh_tokens t ON s.id = t.session_id WHERE t.hash IS NULL"); n != 0 {
		t.Errorf("%d sessions without a token", n)
	}
	if n := count(t, a, "(SELECT session_id FROM refresh_tokens WHERE replaced_at IS NULL GROUP BY session_id HAVING "+
		"COUNT(*) <> 1) AS odd"); n != 0 {
		t.Errorf("%d sessions do not have one token that is good", n)
	}
}

func TestEndSessions(t *testing.T) {
	t.Parallel()
	accounts := newAccounts(t)
	ctx := t.Context()
	ann, bob := addUser(t, accounts, "ann"), addUser(t, accounts, "bob")
	bobs, bobsToken := startSession(t, accounts, bob.ID)
	var ids []uuid.UUID
	for range 3 {
		session, _ := startSession(t, accounts, ann.ID)
		ids = append(ids, session.ID)
	}
	for i, want := range []bool{true, false} {
		if ended, err := accounts.EndSession(ctx, ids[1]); err != nil || ended != want {
			t.Errorf("call %d: %t, error %v", i, ended, err)
		}
	}
	at := revokedAt(t, accounts, ids[1])
	if ended, err := accounts.EndSession(ctx, uuid.New()); err != nil || ended {
		t.Errorf("an unknown session: %t, error %v", ended, err)
	}
	ended, err := accounts.EndSessions(ctx, ann.ID)
	if slices.SortFunc(ended, func(a, b uuid.UUID) int {
		return slices.Compare(a[:], b[:])
	}); err != nil || !slices.Equal(ended, []uuid.UUID{ids[0], ids[2]}) {
		t.Errorf("ended %v of %v, error %v", ended, ids, err)
	}
	if revokedAt(t, accounts, ids[0]).IsZero() || revokedAt(t, accounts, ids[2]).IsZero() ||
		!revokedAt(t, accounts, ids[1]).Equal(at) {
		t.Error("not all of them are revoked once")
	}
	for _, id := range []order.UserID{ann.ID, ann.ID + 1000} {
		if ended, err := accounts.EndSessions(ctx, id); err != nil || len(ended) != 0 {
			t.Errorf("user %d: ended %v, error %v", id, ended, err)
		}
	}
	if got, _, err := accounts.Refresh(ctx, bobsToken, newToken()); err != nil || got.ID != bobs.ID {
		t.Errorf("another user's session: %+v, error %v", got, err)
	}
}

func TestPurgeSessions(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	ann := addUser(t, a, "ann")
	limit := mysql.Now().Add(-time.Hour)
	var kept []uuid.UUID
	const old = 2*purgeBatch + 5
	for i := range 2*old + 4 {
		user := addUser(t, a, fmt.Sprint("user", i)) // so that none displaces another
		session, token := startSession(t, a, user.ID)
		if _, _, err := a.Refresh(ctx, token, newToken()); err != nil {
			t.Fatal(err)
		}
		column, at := "expires_at", limit.Add(-time.Microsecond)
		if i%2 == 1 {
			column = "revoked_at"
		}
		if i >= 2*old {
			kept = append(kept, session.ID)
			at = limit
		}
		if i < 2*old+2 {
			exec(t, a, "UPDATE sessions SET "+column+" = ? WHERE id = ?", at, mysql.UUID(session.ID))
		}
	}
	live, token := startSession(t, a, ann.ID)
	kept = append(kept, live.ID)

	if n, err := a.PurgeSessions(ctx, time.Now().Add(time.Minute), 100); !errors.Is(err, mysql.ErrInvalid) || n != 0 {
		t.Errorf("of the future: %d, error %v", n, err)
	}
	if n, err := a.PurgeSessions(ctx, limit, 0); err != nil || n != 0 {
		t.Errorf("none: %d, error %v", n, err)
	}
	for i, want := range []int{old + 3, old - 3, 0} {
		if n, err := a.PurgeSessions(ctx, limit, old+3); err != nil || n != want {
			t.Errorf("purge %d: %d sessions, want %d, error %v", i, n, want, err)
		}
		var ids []mysql.UUID
		if err := a.db.Select(&ids, "SELECT DISTINCT session_id FROM refresh_tokens"); err != nil {
			t.Fatal(err)
		}
		if n := count(t, a, "sessions"); len(ids) != n {
			t.Errorf("purge %d: %d sessions, tokens of %d", i, n, len(ids))
		}
	}
	for _, id := range kept {
		if n := count(t, a, "sessions WHERE id = ?", mysql.UUID(id)); n != 1 {
			t.Errorf("session %s is gone", id)
		}
	}
	if got, _, err := a.Refresh(ctx, token, newToken()); err != nil || got.ID != live.ID {
		t.Errorf("the session that is live: %+v, error %v", got, err)
	}
}

// TestPurgeSessionsConcurrently counts each session once, however many purge.
func TestPurgeSessionsConcurrently(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	const users, each = 3, 40
	for i := range users {
		user := addUser(t, a, fmt.Sprint("user", i))
		for range each {
			startSession(t, a, user.ID)
		}
	}
	exec(t, a, "UPDATE sessions SET expires_at = ?", mysql.Now().Add(-time.Hour))
	var purged atomic.Int64
	var functions []func() error
	for range 4 {
		functions = append(functions, func() error {
			n, err := a.PurgeSessions(t.Context(), time.Now(), mysql.MaxPage)
			purged.Add(int64(n))
			return err
		})
	}
	stacktest.Together(t, functions...)
	if purged.Load() != users*each || count(t, a, "sessions") != 0 || count(t, a, "refresh_tokens") != 0 {
		t.Errorf("%d sessions were purged, want %d", purged.Load(), users*each)
	}
}

// TestLateRevocation has sessions that another call ended, or deleted, after they were found.
func TestLateRevocation(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	ended, _ := startSession(t, a, ann.ID)
	live, _ := startSession(t, a, ann.ID)
	if _, err := a.EndSession(t.Context(), ended.ID); err != nil {
		t.Fatal(err)
	}
	first, later := revokedAt(t, a, ended.ID), mysql.Now().Add(time.Minute)
	ids := []mysql.UUID{mysql.UUID(ended.ID), mysql.UUID(uuid.New()), mysql.UUID(live.ID)}
	if err := a.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		_, err := revoke(t.Context(), tx, ids, later)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !revokedAt(t, a, ended.ID).Equal(first) || !revokedAt(t, a, live.ID).Equal(later) {
		t.Errorf("revoked at %s and %s, want %s and %s", revokedAt(t, a, ended.ID), revokedAt(t, a, live.ID), first,
			later)
	}
	for i, want := range []int{2, 0} {
		if n, err := a.purge(t.Context(), ids); err != nil || n != want {
			t.Errorf("purge %d: %d sessions, want %d, error %v", i, n, want, err)
		}
	}
}

// TestRefreshRepeatedElsewhere has a token of another session that was issued at the very moment of a refresh.
func TestRefreshRepeatedElsewhere(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	_, other := startSession(t, a, ann.ID)
	session, first := startSession(t, a, ann.ID)
	second := newToken()
	if _, _, err := a.Refresh(t.Context(), first, second); err != nil {
		t.Fatal(err)
	}
	exec(t, a, "UPDATE refresh_tokens o JOIN refresh_tokens f ON f.hash = ? SET o.issued_at = f.replaced_at WHERE "+
		"o.hash = ?", first[:], other[:])
	if got, _, err := a.Refresh(t.Context(), first, other); !errors.Is(err, ErrReused) || got.ID != session.ID {
		t.Errorf("%+v, error %v", got, err)
	}
}
