package access

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/mysql"
)

// TestEndedSessionsAreForgotten: what is remembered is bounded.
func TestEndedSessionsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newSessions(nil, nil)
	old := uuid.New()
	s.End(old)
	s.order[0].at = time.Now().Add(-endedTTL - time.Second)
	s.End(uuid.New())
	if s.HaveEnded(old) || len(s.ended) != 1 {
		t.Error("a session is remembered for longer than its tokens last")
	}
	first := s.order[0].id
	for range maxEnded {
		s.End(uuid.New())
	}
	if len(s.ended) != maxEnded || len(s.order) != maxEnded || s.HaveEnded(first) {
		t.Errorf("%d sessions are remembered", len(s.ended))
	}
	if s.HaveEnded(uuid.Nil) {
		t.Error("tokens without a session have ended")
	}
}

func TestRevokedSessions(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	ctx, accounts, sessions := t.Context(), account.New(db), newSessions(nil, db)
	ann := addUser(t, accounts)
	base := mysql.Now().Add(-time.Minute)
	var want []revokedSession
	for i := range 7 {
		session, err := accounts.StartSession(ctx, ann, sha256.Sum256(fmt.Append(nil, i)), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if i < 6 {
			// Two of them at the same moment.
			at := base.Add(time.Duration(i-i%2) * time.Microsecond)
			if _, err := db.ExecContext(ctx, "UPDATE sessions SET revoked_at = ? WHERE id = ?", at,
				mysql.UUID(session.ID)); err != nil {
				t.Fatal(err)
			}
			want = append(want, revokedSession{mysql.UUID(session.ID), at})
		}
	}
	slices.SortFunc(want, func(a, b revokedSession) int {
		if c := a.RevokedAt.Compare(b.RevokedAt); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	for _, test := range []struct {
		since    time.Time
		limit    int
		from, to int
	}{
		{base.Add(-time.Hour), 100, 0, 6},
		{time.Time{}.AddDate(1000, 0, 0), mysql.MaxPage, 0, 6},
		{base, 3, 0, 3},
		{want[2].RevokedAt, 100, 2, 6},
		{want[2].RevokedAt.In(time.FixedZone("", 3600)), 2, 2, 4},
		{want[5].RevokedAt.Add(time.Microsecond), 100, 6, 6},
	} {
		got, err := sessions.revoked(ctx, test.since, test.limit)
		if err != nil || !slices.Equal(got, want[test.from:test.to]) {
			t.Errorf("since %s, limit %d: %v, error %v, want %v", test.since, test.limit, got, err,
				want[test.from:test.to])
		}
	}
}
