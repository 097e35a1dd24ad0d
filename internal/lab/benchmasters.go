package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/localstack"
)

const (
	// maxMasters is of how many masters a Redis Cluster is measured, from one on, and mastersBuckets over how many
	// buckets the product is spread each time: enough for each master to have about as many as the others.
	maxMasters     = 3
	mastersBuckets = 24
	// mastersTurns is how often each is measured, in turns; the figure is the median.
	mastersTurns = 3
	// mastersTime bounds one of these measurements.
	mastersTime = time.Second
)

// probeMasters reserves orders of one product in buckets on Clusters of one, two and three masters, as an edge does it:
// one call for a batch of a bucket's orders. Besides the orders a second it takes the time on processors that an order
// costs the masters together, which says how many orders a machine would serve that has enough processors.
func probeMasters(ctx context.Context, b *bench) (found figures, err error) {
	if err := b.reset(ctx); err != nil {
		return nil, err
	}

	clusters := make([]*mastersCluster, maxMasters)
	defer func() {
		for _, c := range clusters {
			if c != nil {
				err = errors.Join(err, c.close())
			}
		}
	}()
	for i := range clusters {
		if clusters[i], err = startMasters(ctx, i+1, filepath.Join(b.dir, fmt.Sprintf("masters-%d", i+1))); err != nil {
			return nil, err
		}
	}

	rates, costs := make([][]float64, maxMasters), make([][]float64, maxMasters)
	for range mastersTurns {
		for i, c := range clusters {
			rate, cost, err := c.reserve(ctx, min(b.o.duration, mastersTime))
			if err != nil {
				return nil, err
			}
			rates[i], costs[i] = append(rates[i], rate), append(costs[i], cost)
		}
	}

	found = figures{}
	for i := range clusters {
		found[fmt.Sprintf("masters/%d", i+1)] = median(rates[i])
		found[fmt.Sprintf("masters/us %d", i+1)] = median(costs[i])
	}
	return found, nil
}

// mastersCluster is a Cluster that is measured.
type mastersCluster struct {
	servers *localstack.RedisCluster
	redis   *redis.Client
	stock   *stock.Stock
	product order.StockID // of the measurement before
}

func startMasters(ctx context.Context, n int, dir string) (*mastersCluster, error) {
	servers, err := localstack.StartRedisCluster(ctx, n, localstack.RedisOptions{Dir: dir})
	if err != nil {
		return nil, err
	}
	c := &mastersCluster{servers: servers}
	if c.redis, err = redis.Open(servers.URL()); err != nil {
		return nil, errors.Join(err, servers.Close())
	}
	c.stock = stock.New(c.redis)
	return c, nil
}

func (c *mastersCluster) close() error { return errors.Join(c.redis.Close(), c.servers.Close()) }

// reserve reserves as many orders of a new product as it can in a time. It returns how many that are a second, and how
// many microseconds of processors one of them has cost the masters together.
func (c *mastersCluster) reserve(ctx context.Context, d time.Duration) (rate, cost float64, err error) {
	c.product++
	p := order.Product{
		ID: c.product, Price: 1999, Currency: "EUR", Stock: ledger.MaxStock, Version: 1, Revision: 1, LimitPerUser: 2,
		State: order.OnSale, Buckets: mastersBuckets,
	}

	// Every bucket is loaded, so that nothing is borrowed.
	ids := p.StockIDs()
	for _, id := range ids {
		bucket := p
		bucket.ID = id
		_, err := c.stock.Load(ctx, id, func(context.Context) (order.Product, error) { return bucket, nil })
		if err != nil {
			return 0, 0, err
		}
	}

	requests := reserveRequests(int(reservePerS * d.Seconds()))
	before, err := c.processorTime(ctx)
	if err != nil {
		return 0, 0, err
	}

	begin := time.Now()
	var next, done atomic.Int64
	errs := make([]error, reservers)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && time.Since(begin) < d {
				n := int(next.Add(1)) - 1
				from := n * stock.MaxBatch
				if from >= len(requests) {
					return
				}
				batch := requests[from:min(from+stock.MaxBatch, len(requests))]
				_, results, err := c.stock.Reserve(ctx, ids[n%len(ids)], mastersBuckets, batch)
				if err == nil && results[0].Outcome != stock.Reserved {
					err = fmt.Errorf("an order was not reserved: outcome %d", results[0].Outcome)
				}
				if errs[i] = err; err != nil {
					return
				}
				done.Add(int64(len(batch)))
			}
		})
	}

	all.Wait()
	took := time.Since(begin)
	after, err := c.processorTime(ctx)
	if err := errors.Join(append(errs, err)...); err != nil {
		return 0, 0, err
	}

	orders := float64(done.Load())
	return orders / took.Seconds(), float64((after - before).Microseconds()) / orders, nil
}

// processorTime is what the masters together have used of the processors.
func (c *mastersCluster) processorTime(ctx context.Context) (total time.Duration, err error) {
	for _, m := range c.servers.Masters {
		client := goredis.NewClient(&goredis.Options{Addr: m.Addr()})
		used, err := redisTime(ctx, client)
		_ = client.Close()
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}
