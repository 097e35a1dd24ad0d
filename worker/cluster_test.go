package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/localstack"
)

const masters = 3

// TestAMasterThatIsAway: what a dead master of a Cluster holds can be neither relayed, compared nor settled; all else
// is, though the worker is full of what cannot. When the master is back the rest is settled as well. The dead one is
// that of the list of products or another.
func TestAMasterThatIsAway(t *testing.T) {
	t.Parallel()
	for _, other := range []int{0, 1} {
		t.Run(fmt.Sprint(other), func(t *testing.T) {
			t.Parallel()
			cluster, err := localstack.StartRedisCluster(t.Context(), masters, localstack.RedisOptions{
				Dir: t.TempDir(), Persist: true, Args: []string{"--cluster-require-full-coverage", "no"},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := cluster.Close(); err != nil {
					t.Error(err)
				}
			})
			dead := (masterOf(t, cluster, "products") + other) % masters
			r := newRig(t, "", "")
			r.redisURL = cluster.URL()
			r.redis = r.openRedis(r.redisURL)
			r.stock = stock.New(r.redis)

			// One order of each product is left in the outbox. Of the dead master's there are more than a worker may
			// hold.
			var kept, lost []order.Order
			for range 10 {
				p := r.product(1000, 0)
				left := r.reserve(p.ID, 1, 1)
				if masterOf(t, cluster, fmt.Sprintf("stock:{%d}", p.ID)) != dead {
					kept = append(kept, left...)
					continue
				}
				lost = append(lost, left...)
				others := r.reserve(p.ID, 300, 1)
				r.send(1, others...)
				lost = append(lost, others...)
			}
			if len(kept) == 0 || len(lost) == 0 {
				t.Fatalf("%d orders are of the dead master's products, and %d of others", len(lost), len(kept))
			}
			w := r.worker(func(w *Worker) {
				w.relayAge, w.stuckAge, w.restLength = time.Second, 300*time.Millisecond, time.Second
			})
			if _, err := w.products(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := cluster.Masters[dead].Kill(); err != nil {
				t.Fatal(err)
			}

			before := r.depth().Visible
			r.eventuallyTrue("the orders of the others are sent", func() bool {
				w.relay(t.Context())
				return r.depth().Visible >= before+int64(len(kept))
			})
			r.setMaxReceives(1000) // the others are given back again and again
			r.run(w)
			r.eventuallyTrue("the orders of the others are settled", func() bool {
				return !slices.ContainsFunc(kept, func(o order.Order) bool {
					return r.level(o.StockID).Reservations > 0
				})
			})
			r.mustBe("", kept...)
			for _, o := range kept { // a unit too few in Redis is what a comparison finds
				if err := r.redis.Decr(t.Context(), fmt.Sprintf("stock:{%d}", o.StockID)).Err(); err != nil {
					t.Fatal(err)
				}
			}
			_ = r.redis.Unlock(t.Context(), "reconcile") // the worker has it, unless it lies with the dead master
			w.reconcile(t.Context())
			for _, o := range kept {
				if level := r.level(o.StockID); level.Available != 999 {
					t.Errorf("product %d has %d units, want 999", o.StockID, level.Available)
				}
			}

			if err := cluster.Masters[dead].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := cluster.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.eventuallyTrue("all orders but those in the outbox are settled", func() bool {
				left := 0
				for _, id := range productsOf(lost) {
					level := r.level(id)
					left += int(level.Reservations - level.Outbox)
				}
				return left == 0
			})
		})
	}
}

func productsOf(orders []order.Order) (ids []order.StockID) {
	for _, o := range orders {
		if !slices.Contains(ids, o.StockID) {
			ids = append(ids, o.StockID)
		}
	}
	return ids
}

func masterOf(t *testing.T, cluster *localstack.RedisCluster, key string) int {
	t.Helper()
	master, err := cluster.MasterOf(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return master
}
