package redis

import (
	"testing"

	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Redis|stacktest.RedisCluster) }

// open opens a connection for as long as the test lasts.
func open(t *testing.T, url string) *Client {
	t.Helper()
	c, err := Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
