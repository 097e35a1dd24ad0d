package redis

import (
	"strings"
	"testing"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

func serversOf(t *testing.T, c *Client) string {
	t.Helper()
	servers, err := c.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return servers
}

// TestServers: the word for the servers changes when Redis is started again.
func TestServers(t *testing.T) {
	t.Parallel()
	server := stacktest.NewRedis(t, localstack.RedisOptions{})
	c := open(t, server.URL())
	first := serversOf(t, c)
	if again := serversOf(t, c); again != first || len(first) < 20 {
		t.Errorf("%q, then %q", first, again)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Servers(t.Context()); err == nil {
		t.Error("a server that is gone has a name")
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := serversOf(t, c); second == first || strings.Contains(second, " ") {
		t.Errorf("after a restart: %q, before: %q", second, first)
	}
}

// It is not parallel, as the Cluster has only one database.
func TestServersOfCluster(t *testing.T) {
	c := open(t, stacktest.RedisClusterURL(t))
	if ids := serversOf(t, c); len(ids) < 20 || strings.Contains(ids, " ") {
		t.Errorf("the servers of a Cluster of one: %q", ids)
	}
}
