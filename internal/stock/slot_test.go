package stock

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/localstack/stacktest"
)

// TestNewOrderID: on a Cluster an order's state lies with its product, as Redis itself says; everywhere ids differ and
// tell when they were made. It is not parallel, as the Cluster has only one user at a time.
func TestNewOrderID(t *testing.T) {
	cluster := stacktest.RedisClusterURL(t)
	for _, url := range []string{stacktest.RedisURL(t), cluster} {
		s, isCluster := openShop(t, url), url == cluster
		seen := map[uuid.UUID]bool{}
		for i := range int64(500) {
			productID := i * 7919
			id := s.NewOrderID(productID)
			if made := time.Unix(id.Time().UnixTime()); seen[id] || id.Version() != 7 ||
				time.Since(made).Abs() > time.Minute {
				t.Fatalf("id %s is not new, or of %v", id, made)
			}
			seen[id] = true
			if !isCluster {
				continue
			}
			product, err := s.rdb.ClusterKeySlot(t.Context(), keysOf(productID).stock).Result()
			if err != nil {
				t.Fatal(err)
			}
			state, err := s.rdb.ClusterKeySlot(t.Context(), orderKey(id)).Result()
			if err != nil || state != product {
				t.Fatalf("order %s of product %d is in slot %d, its product in %d (%v)", id, productID, state, product,
					err)
			}
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	slot := slotOf(strconv.Itoa(7))
	id := uuid.Must(uuid.NewV7())
	for b.Loop() {
		place(&id, slot)
	}
}
