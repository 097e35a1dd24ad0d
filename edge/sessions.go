package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/stock"
)

const (
	// accessTTL is how long an access token is valid.
	accessTTL = 15 * time.Minute
	// endedTTL is how long an ended session is remembered: until its last access token has expired by
	// any clock.
	endedTTL = accessTTL + time.Minute
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

// sessions knows the sessions that have ended before the access tokens which belong to them, so that a
// token is checked without asking anybody.
type sessions struct {
	stock    *stock.Stock
	accounts *account.Accounts

	mu    sync.RWMutex
	ended map[uuid.UUID]struct{}
	order []endedSession // oldest first, to forget by
	since time.Time      // sessions that ended earlier are known; only poll uses it
}

type endedSession struct {
	id uuid.UUID
	at time.Time // when this edge learned it
}

func newSessions(st *stock.Stock, accounts *account.Accounts) *sessions {
	return &sessions{stock: st, accounts: accounts, ended: map[uuid.UUID]struct{}{}, since: time.Now().Add(-endedTTL)}
}

// hasEnded tells whether the tokens of a session are no longer valid.
func (s *sessions) hasEnded(id uuid.UUID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ended := s.ended[id]
	return ended
}

// end remembers that sessions have ended.
func (s *sessions) end(ids ...uuid.UUID) {
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

// announce ends sessions here and on every other edge. If the notice gets lost, the others learn it
// from MySQL within about a second.
func (s *sessions) announce(ids ...uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	s.end(ids...)
	ctx, cancel := context.WithTimeout(context.Background(), endedTimeout)
	defer cancel()
	if err := s.stock.Publish(ctx, stock.Notice{EndedSessions: ids}); err != nil {
		slog.Warn("other edges learn a little later that sessions have ended", "sessions", len(ids), "error", err)
	}
}

// keepUp calls poll again and again until ctx ends. Of several failures in a row it logs the first.
func keepUp(ctx context.Context, interval time.Duration, poll func(context.Context) error, complaint string) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := poll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			slog.Warn(complaint, "error", err)
		}
		failing = err != nil
	}
}

// poll asks MySQL for the sessions that have ended since it was last asked.
func (s *sessions) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endedTimeout)
	defer cancel()
	asked := time.Now()
	for since := s.since; ; {
		page, err := s.accounts.RevokedSessions(ctx, since, mysql.MaxPage)
		if err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(page))
		for i := range page {
			ids[i] = page[i].ID
		}
		s.end(ids...)
		if len(page) < mysql.MaxPage {
			break
		}
		since = page[len(page)-1].RevokedAt
	}
	s.since = asked.Add(-endedOverlap)
	return nil
}
