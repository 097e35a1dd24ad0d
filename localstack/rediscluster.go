package localstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisCluster is a Redis Cluster of masters without replicas, each of which owns as many slots as the others.
type RedisCluster struct{ Masters []*Redis }

// StartRedisCluster starts a Cluster of so many masters side by side, and returns when it is up. The options are those
// of each master, with a directory of its own below Dir.
func StartRedisCluster(ctx context.Context, masters int, o RedisOptions) (*RedisCluster, error) {
	o.Cluster = true
	c := &RedisCluster{Masters: make([]*Redis, masters)}
	errs := make([]error, masters)
	var starts sync.WaitGroup
	for i := range masters {
		node := o
		node.Dir = filepath.Join(o.Dir, fmt.Sprintf("master-%d", i+1))
		slots := [2]int{i * (lastSlot + 1) / masters, (i+1)*(lastSlot+1)/masters - 1}
		starts.Go(func() { c.Masters[i], errs[i] = startRedisNode(ctx, node, slots) })
	}
	starts.Wait()
	err := errors.Join(errs...)
	if err == nil {
		err = c.join(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting a Redis Cluster: %w", err), c.Close())
	}
	return c, nil
}

// join makes the masters know one another, and waits until each says that the Cluster is up.
func (c *RedisCluster) join(ctx context.Context) error {
	first := redis.NewClient(&redis.Options{Addr: c.Masters[0].Addr()})
	defer first.Close()
	for _, m := range c.Masters[1:] {
		host, port, err := net.SplitHostPort(m.Addr())
		if err != nil {
			return err
		}
		if err := first.Do(ctx, "CLUSTER", "MEET", host, port, m.busPort).Err(); err != nil {
			return err
		}
	}
	return c.Wait(ctx)
}

// Wait waits until each master says that the Cluster is up, as after one of them was started again.
func (c *RedisCluster) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, m := range c.Masters {
		client := redis.NewClient(&redis.Options{Addr: m.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
		defer client.Close()
		for {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_size:%d\r\n", len(c.Masters))) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the Cluster is not up: %q %w", info, errors.Join(err, ctx.Err()))
			case <-time.After(pollInterval):
			}
		}
	}
	return nil
}

// MasterOf is the index of the master that owned a key when the Cluster was started. It asks the first one for the
// key's slot.
func (c *RedisCluster) MasterOf(ctx context.Context, key string) (int, error) {
	first := redis.NewClient(&redis.Options{Addr: c.Masters[0].Addr()})
	defer first.Close()
	slot, err := first.ClusterKeySlot(ctx, key).Result()
	return slices.IndexFunc(c.Masters, func(m *Redis) bool {
		return m.slots[0] <= int(slot) && int(slot) <= m.slots[1]
	}), err
}

// URL returns what REDIS_URL takes.
func (c *RedisCluster) URL() string {
	addrs := make([]string, len(c.Masters))
	for i, m := range c.Masters {
		addrs[i] = m.Addr()
	}
	if len(addrs) == 1 {
		addrs = append(addrs, addrs[0]) // several hosts mean Cluster
	}
	return "redis://" + strings.Join(addrs, ",")
}

// Close ends the masters.
func (c *RedisCluster) Close() error {
	var errs []error
	for _, m := range c.Masters {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
