package stock

import "testing"

// A Redis that evicts is noticed on whichever master it is, without CONFIG.
func TestEvictionPolicy(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		s := openOwnRedis(t, cluster)
		for _, policy := range []string{"noeviction", "volatile-lru", "allkeys-random"} {
			if err := s.rdb.ConfigSet(t.Context(), "maxmemory-policy", policy).Err(); err != nil {
				t.Fatal(err)
			}
			got := must(s.EvictionPolicy(t.Context()))(t)
			equal(t, "policy", got, policy)
			equal(t, "evicts", Evicts(got), policy != "noeviction")
		}
	}
}
