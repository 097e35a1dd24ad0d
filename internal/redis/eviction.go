package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

// noEviction is the only policy with which a full Redis keeps what it has.
const noEviction = "noeviction"

// EvictionPolicy is what the servers of Redis do when they are full: noeviction, or the first other policy that one of
// them has. It is in INFO, which managed servers allow, and they may forbid CONFIG.
func (c *Client) EvictionPolicy(ctx context.Context) (string, error) {
	var mu sync.Mutex
	policy := noEviction
	err := c.EachMaster(ctx, func(ctx context.Context, server *goredis.Client) error {
		info, err := server.InfoMap(ctx, "memory").Result()
		if err != nil {
			return err
		}
		of := info["Memory"]["maxmemory_policy"]
		if of == "" {
			return errors.New("the server does not say it")
		}

		mu.Lock() // the masters of a Cluster are asked at the same time
		defer mu.Unlock()
		if of != noEviction {
			policy = of
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("ask for Redis's maxmemory-policy: %w", err)
	}
	return policy, nil
}

// Evicts reports whether, with this policy, a full Redis throws away what the promises rest on.
func Evicts(policy string) bool { return policy != noEviction }
