package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/localstack"
)

// TestAMasterThatIsAway: while a master of a Cluster is dead, every order of the products of the others is taken and
// shown; its own are refused, and the edge is ready.
func TestAMasterThatIsAway(t *testing.T) {
	t.Parallel()
	const masters, buyers = 3, 30
	cluster, err := localstack.StartRedisCluster(t.Context(), masters, localstack.RedisOptions{
		Dir: t.TempDir(), Args: []string{"--cluster-require-full-coverage", "no"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t)
	w.RedisURL = cluster.URL()
	w.Stock = stock.New(w.OpenRedis(w.RedisURL))
	_, _, addr := w.start()
	w.URL = "http://" + addr

	byMaster := [masters][]order.StockID{}
	for i := range int64(9) {
		p := w.AddProduct(2 * buyers)
		w.MustPost(order.UserID(1000+i), p.ID, 1)
		master, err := cluster.MasterOf(t.Context(), fmt.Sprintf("stock:{%d}", p.ID))
		w.Must(err)
		byMaster[master] = append(byMaster[master], p.ID)
	}
	const dead = 1
	w.Must(cluster.Masters[dead].Kill())

	var all sync.WaitGroup
	for buyer := range int64(buyers) {
		all.Go(func() {
			for master, products := range byMaster {
				for _, id := range products {
					got := w.Post(order.UserID(1+buyer), id, 1)
					if master == dead {
						if got.Status != http.StatusServiceUnavailable {
							t.Errorf("an order of a product of the dead master: %v", got)
						}
						continue
					}
					if got.Status != http.StatusAccepted {
						t.Errorf("an order of another product: %v", got)
					} else if shown := w.Get(order.UserID(1+buyer),
						got.Header.Get("Location")); shown.Status != http.StatusOK {
						t.Errorf("it is shown as %v", shown)
					}
				}
			}
		})
	}
	all.Wait()
	for _, path := range []string{"/readyz", "/api/products"} {
		if got := w.Get(1, path); got.Status != http.StatusOK {
			t.Errorf("%s: %v", path, got)
		}
	}
}
