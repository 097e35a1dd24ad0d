package stacktest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/localstack"
)

// redisDatabases bounds the tests that use RedisURL at the same time. Redis looks for expired keys in 160 databases per
// second, so many more of them would make expiry late.
const redisDatabases = 256

// redisNumbers holds the databases that no test uses.
var redisNumbers = func() chan int {
	free := make(chan int, redisDatabases)
	for n := range redisDatabases {
		free <- n
	}
	return free
}()

// RedisURL returns the URL of an empty logical database that is the test's own until it ends. Scripts, configuration
// and FLUSHALL reach the whole server: tests that need those to themselves, or that kill Redis, use NewRedis.
func RedisURL(t testing.TB) string {
	t.Helper()
	if running.redis == nil {
		t.Fatal("TestMain has not asked for stacktest.Redis")
	}
	var n int
	select {
	case n = <-redisNumbers:
	default:
		t.Fatalf("all %d Redis databases are in use", redisDatabases)
	}
	url := fmt.Sprintf("redis://%s/%d", running.redis.Addr(), n)
	t.Cleanup(func() {
		if err := flush(url); err != nil {
			t.Errorf("emptying the Redis database: %v", err)
			return
		}
		redisNumbers <- n
	})
	return url
}

func flush(url string) error {
	o, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	client := redis.NewClient(o)
	defer client.Close()
	return client.FlushDB(context.Background()).Err()
}

// clusterInUse is held by the test that uses the Redis Cluster: a Cluster has one database, so it is shared by nobody.
var clusterInUse sync.Mutex

// RedisClusterURL returns the URL of an empty Redis Cluster of one node. It is the test's own until it ends, and one
// test at a time can have it: tests that call it must not be parallel.
func RedisClusterURL(t testing.TB) string {
	t.Helper()
	if running.redisCluster == nil {
		t.Fatal("TestMain has not asked for stacktest.RedisCluster")
	}
	if !clusterInUse.TryLock() {
		t.Fatal("another test is using the Redis Cluster")
	}
	t.Cleanup(clusterInUse.Unlock)
	if err := flush("redis://" + running.redisCluster.Addr()); err != nil {
		t.Fatalf("emptying the Redis Cluster: %v", err)
	}
	return running.redisCluster.URL()
}

// NewRedis starts a server for this test alone, which may kill it. It is stopped when the test ends. Dir may be empty.
func NewRedis(t testing.TB, o localstack.RedisOptions) *localstack.Redis {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	r, err := localstack.StartRedis(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
