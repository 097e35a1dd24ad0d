package stock

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
)

// Notice is something that every edge should know at once. It may get lost, as Redis keeps no messages
// for who is not listening: what it says must be found out in another way as well, if later.
type Notice struct {
	// EndedSessions are sessions whose access tokens are no longer valid.
	EndedSessions []uuid.UUID `json:"ended_sessions,omitempty"`
	// Reopened are products of which more may be had than before. The scripts publish it together with the
	// change, so that nobody can die in between.
	Reopened []int64 `json:"reopened,omitempty"`
}

// Publish sends a notice to all who listen.
func (s *Stock) Publish(ctx context.Context, n Notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := s.rdb.Publish(ctx, noticesChannel, body).Err(); err != nil {
		return fmt.Errorf("publish a notice: %w", err)
	}
	return nil
}

// Listen calls handle with every notice until ctx ends. It connects again by itself; what is published
// meanwhile is missed.
func (s *Stock) Listen(ctx context.Context, handle func(Notice)) {
	subscription := s.rdb.Subscribe(ctx, noticesChannel)
	defer subscription.Close()
	messages := subscription.Channel()
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			var n Notice
			if err := json.Unmarshal([]byte(m.Payload), &n); err != nil {
				slog.Warn("notices: a notice cannot be read", "error", err)
				continue
			}
			handle(n)
		}
	}
}
