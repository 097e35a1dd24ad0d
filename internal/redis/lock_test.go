package redis

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

// It is not parallel, as the Cluster has only one user at a time.
func TestLock(t *testing.T) {
	urls := map[string]string{"one server": stacktest.RedisURL(t), "Cluster": stacktest.RedisClusterURL(t)}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			c, name := open(t, url), rand.Text()
			try := func(name string, length time.Duration) bool {
				t.Helper()
				locked, err := c.TryLock(t.Context(), name, length)
				if err != nil {
					t.Fatal(err)
				}
				return locked
			}
			if !try(name, time.Hour) {
				t.Error("what nobody has locked is locked")
			}
			if try(name, time.Hour) {
				t.Error("two have locked it")
			}

			if !try(name+"x", time.Millisecond) {
				t.Error("another is locked")
			}
			stacktest.Eventually(t, 10*time.Second, func() error {
				if !try(name+"x", time.Hour) {
					return errors.New("it is still locked")
				}
				return nil
			})
			if err := c.Unlock(t.Context(), name); err != nil || !try(name, time.Hour) {
				t.Errorf("what was unlocked is still locked: %v", err)
			}
		})
	}
}
