package redis

import (
	"context"
	"fmt"
	"time"
)

// putScript writes a key that is not there, also if Redis is full.
var putScript = NewScript("put")

// lockKey is the key of a lock.
func lockKey(name string) string { return "lock:" + name }

// TryLock makes the caller the only one, for a time, who does what the name says. It is no guarantee: what is
// done under it must bear being done by two.
func (c *Client) TryLock(ctx context.Context, name string, length time.Duration) (bool, error) {
	// Redis takes no time of 0 ms.
	n, err := putScript.Run(ctx, c, []string{lockKey(name)}, "", max(length.Milliseconds(), 1), 1).Int()
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	return n == 1, nil
}

// Unlock ends what TryLock began before its time is over.
func (c *Client) Unlock(ctx context.Context, name string) error {
	if err := c.Del(ctx, lockKey(name)).Err(); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}
