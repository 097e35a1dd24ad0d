package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	goredis "github.com/redis/go-redis/v9"
)

// IsCluster reports whether it is a Cluster, whose keys lie in slots.
func (c *Client) IsCluster() bool {
	_, ok := c.UniversalClient.(*goredis.ClusterClient)
	return ok
}

// EachMaster calls f with each server that holds data, of a Cluster with all at once.
func (c *Client) EachMaster(ctx context.Context, f func(context.Context, *goredis.Client) error) error {
	switch client := c.UniversalClient.(type) {
	case *goredis.ClusterClient:
		return client.ForEachMaster(ctx, f)
	case *goredis.Client:
		return f(ctx, client)
	}
	return fmt.Errorf("no way to ask a %T for its servers", c.UniversalClient)
}

// Ping asks whether Redis answers; of a Cluster, whether any master does.
func (c *Client) Ping(ctx context.Context) error {
	var answered atomic.Bool
	err := c.EachMaster(ctx, func(ctx context.Context, server *goredis.Client) error {
		err := server.Ping(ctx).Err()
		if err == nil {
			answered.Store(true)
		}
		return err
	})
	if answered.Load() {
		return nil
	}
	return err
}

// IsPartlyUp reports whether Redis is a Cluster of which some master answers. What fails then need not fail for the
// keys of all.
func (c *Client) IsPartlyUp(ctx context.Context) bool { return c.IsCluster() && c.Ping(ctx) == nil }

// Servers names the processes that hold the data, as one word. It changes when one of them is started again
// or gives way to a replica, and data may have been lost.
func (c *Client) Servers(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var ids []string
	ask := func(ctx context.Context, server *goredis.Client) error {
		id, err := RunID(ctx, server)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	}
	if err := c.EachMaster(ctx, ask); err != nil {
		return "", fmt.Errorf("ask for the servers of Redis: %w", err)
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), nil
}

// RunID names the process of a server. A server that is started again gets another.
func RunID(ctx context.Context, server *goredis.Client) (string, error) {
	info, err := server.InfoMap(ctx, "server").Result()
	return info["Server"]["run_id"], err
}
