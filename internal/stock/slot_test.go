package stock

import (
	"strconv"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// TestNewOrderID: on a Cluster an order's state lies with its product, as Redis itself says; everywhere ids differ and
// tell when they were made. It is not parallel, as the Cluster has only one user at a time.
func TestNewOrderID(t *testing.T) {
	cluster := stacktest.RedisClusterURL(t)
	for _, url := range []string{stacktest.RedisURL(t), cluster} {
		s, isCluster := openShop(t, url), url == cluster
		seen := map[order.OrderID]bool{}
		for i := range int64(500) {
			productID := i * 7919
			id := s.NewOrderID(order.StockID(productID))
			if made := id.MadeAt(); seen[id] || time.Since(made).Abs() > time.Minute {
				t.Fatalf("id %s is not new, or of %v", id, made)
			}
			seen[id] = true
			if !isCluster {
				continue
			}
			product, err := s.rdb.ClusterKeySlot(t.Context(), keysOf(order.StockID(productID)).stock).Result()
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
	id := order.NewID()
	for b.Loop() {
		place(&id, slot)
	}
}
