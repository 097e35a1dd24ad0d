package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"stampede/internal/mysql"
	"stampede/internal/notice"
	"stampede/internal/redis"
)

const (
	// TokenTTL is how long an access token is valid.
	TokenTTL = 15 * time.Minute
	// endedTTL is how long an ended session is remembered: until its last access token has expired by
	// any clock.
	endedTTL = TokenTTL + time.Minute
	// maxEnded bounds the ended sessions that are remembered. Beyond it the oldest, whose tokens expire
	// first, are forgotten: 200,000 logouts within endedTTL are 200 a second.
	maxEnded = 200_000
	// endedInterval is how often MySQL is asked for ended sessions, for notices may get lost.
	endedInterval = time.Second
	// endedOverlap is by how much the question reaches back behind the last answer: further than a
	// transaction takes from writing its time to its commit, and than clocks differ.
	endedOverlap = 10 * time.Second
	// endedTimeout bounds one question.
	endedTimeout = 3 * time.Second
)

// Sessions knows the sessions that have ended before the access tokens which belong to them, so that a
// token is checked without asking anybody.
type Sessions struct {
	redis *redis.Client
	db    *mysql.DB

	mu    sync.RWMutex
	ended map[uuid.UUID]struct{}
	order []endedSession // oldest first, to forget by
	since time.Time      // sessions that ended earlier are known; only poll uses it
}

type endedSession struct {
	id uuid.UUID
	at time.Time // when this process learned it
}

func newSessions(rdb *redis.Client, db *mysql.DB) *Sessions {
	return &Sessions{redis: rdb, db: db, ended: map[uuid.UUID]struct{}{}, since: time.Now().Add(-endedTTL)}
}

// HaveEnded reports whether the tokens of a session are no longer valid.
func (s *Sessions) HaveEnded(id uuid.UUID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ended := s.ended[id]
	return ended
}

// End remembers that sessions have ended.
func (s *Sessions) End(ids ...uuid.UUID) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if _, known := s.ended[id]; !known {
			s.ended[id] = struct{}{}
			s.order = append(s.order, endedSession{id, now})
		}
	}
	for len(s.order) > 0 && (len(s.order) > maxEnded || now.Sub(s.order[0].at) > endedTTL) {
		delete(s.ended, s.order[0].id)
		s.order = s.order[1:]
	}
}

// Announce ends sessions here and in every other process. If the notice gets lost, the others learn it
// from MySQL within about a second.
func (s *Sessions) Announce(ids ...uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	s.End(ids...)
	ctx, cancel := context.WithTimeout(context.Background(), endedTimeout)
	defer cancel()
	if err := notice.Publish(ctx, s.redis, notice.Notice{EndedSessions: ids}); err != nil {
		slog.Warn("announce ended sessions: others learn of them a little later, from MySQL", "sessions", len(ids),
			"error", err)
	}
}

// poll asks MySQL for the sessions that have ended since it was last asked.
func (s *Sessions) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endedTimeout)
	defer cancel()
	asked := time.Now()
	for since := s.since; ; {
		page, err := s.revoked(ctx, since, mysql.MaxPage)
		if err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(page))
		for i := range page {
			ids[i] = uuid.UUID(page[i].ID)
		}
		s.End(ids...)
		if len(page) < mysql.MaxPage {
			break
		}
		since = page[len(page)-1].RevokedAt
	}
	s.since = asked.Add(-endedOverlap)
	return nil
}

// revokedSession is a session whose access tokens are to be refused.
type revokedSession struct {
	ID        mysql.UUID `db:"id"`
	RevokedAt time.Time  `db:"revoked_at"`
}

// revoked reads up to limit sessions that were revoked at since or later, in the order of their times. A page goes on
// from the last RevokedAt of the page before it, and repeats what was revoked at that very moment. The times are of the
// clocks of different processes, and become visible with their commit: hence endedOverlap.
func (s *Sessions) revoked(ctx context.Context, since time.Time, limit int) (page []revokedSession, err error) {
	err = s.db.SelectContext(ctx, &page, `SELECT id, revoked_at FROM sessions FORCE INDEX (sessions_revoked)
		WHERE revoked_at >= ? ORDER BY revoked_at, id LIMIT ?`, since.UTC().Truncate(time.Microsecond), limit)
	if err != nil {
		return nil, fmt.Errorf("read revoked sessions: %w", err)
	}
	return page, nil
}
