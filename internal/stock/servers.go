package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Servers names the processes that hold the data, as one word. It changes when one of them is started again
// or gives way to a replica, and data may have been lost.
func (s *Stock) Servers(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var ids []string
	ask := func(ctx context.Context, c *redis.Client) error {
		id, err := runID(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	}
	if err := s.eachMaster(ctx, ask); err != nil {
		return "", fmt.Errorf("ask for the servers of Redis: %w", err)
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), nil
}

// runID names the process of a server.
func runID(ctx context.Context, c *redis.Client) (string, error) {
	info, err := c.InfoMap(ctx, "server").Result()
	return info["Server"]["run_id"], err
}

// ComparedBy reads the servers by whose data a product was last compared with MySQL while its sale was paused, as
// Servers names them. Who has lost the product's data has lost this as well.
func (s *Stock) ComparedBy(ctx context.Context, productID int64) (servers string, err error) {
	servers, err = s.rdb.HGet(ctx, keysOf(productID).sale, fieldComparedBy).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read who has compared product %d: %w", productID, err)
	}
	return servers, nil
}

// SetComparedBy notes what ComparedBy reads.
func (s *Stock) SetComparedBy(ctx context.Context, productID int64, servers string) error {
	if err := s.rdb.HSet(ctx, keysOf(productID).sale, fieldComparedBy, servers).Err(); err != nil {
		return fmt.Errorf("note that product %d was compared: %w", productID, err)
	}
	return nil
}
