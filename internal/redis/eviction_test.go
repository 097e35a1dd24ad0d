package redis

import (
	"testing"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// A Redis that evicts is noticed on whichever master it is, without CONFIG.
func TestEvictionPolicy(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		c := open(t, stacktest.NewRedis(t, localstack.RedisOptions{Cluster: cluster}).URL())
		for _, policy := range []string{"noeviction", "volatile-lru", "allkeys-random"} {
			if err := c.ConfigSet(t.Context(), "maxmemory-policy", policy).Err(); err != nil {
				t.Fatal(err)
			}
			got, err := c.EvictionPolicy(t.Context())
			if err != nil || got != policy || Evicts(got) != (policy != "noeviction") {
				t.Errorf("the policy is %q, which evicts: %v, want %q; %v", got, Evicts(got), policy, err)
			}
		}
	}
}
