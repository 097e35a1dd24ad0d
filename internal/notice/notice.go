// Package notice is what every process should know at once, and hears through Redis.
package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/google/uuid"

	"stampede/internal/order"
	"stampede/internal/redis"
)

// Channel is where notices are published. The scripts have the same name of it in lua/prelude.lua.
const Channel = "notices"

// Notice is something that every process should know at once. It may get lost, as Redis keeps no messages
// for who is not listening: what it says must be found out in another way as well, if later.
type Notice struct {
	// EndedSessions are sessions whose access tokens are no longer valid.
	EndedSessions []uuid.UUID `json:"ended_sessions,omitempty"`
	// Reopened are products of which more may be had than before. The scripts publish it together with the
	// change, so that nobody can die in between.
	Reopened []order.StockID `json:"reopened,omitempty"`
}

// Publish sends a notice to all who listen.
func Publish(ctx context.Context, rdb *redis.Client, n Notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := rdb.Publish(ctx, Channel, body).Err(); err != nil {
		return fmt.Errorf("publish a notice: %w", err)
	}
	return nil
}

// Listen calls handle with every notice until ctx ends. It connects again by itself; what is published
// meanwhile is missed.
func Listen(ctx context.Context, rdb *redis.Client, handle func(Notice)) {
	subscription := rdb.Subscribe(ctx, Channel)
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
