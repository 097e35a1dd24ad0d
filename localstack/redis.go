package localstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisOptions say how to run Redis.
type RedisOptions struct {
	Dir     string   // holds the log and, with Persist or Cluster, data; made if missing
	Cluster bool     // run as a Cluster of one node that owns all slots; needs Redis 7 and takes two seconds to start
	Persist bool     // keep the data across Kill and Start
	Args    []string // further arguments of redis-server; they win over this package's own
}

// Redis is a Redis server on a free port of 127.0.0.1.
type Redis struct {
	server
	cluster bool
	busPort int  // of a Cluster's nodes among themselves
	up      bool // it has answered once
	// slots are the first and the last one that the server owns at its first start.
	slots [2]int
}

const lastSlot = 16383 // of a Redis Cluster

// StartRedis starts a server and returns when it answers; in Cluster mode, when the Cluster is up.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	return startRedisNode(ctx, o, [2]int{0, lastSlot})
}

func startRedisNode(ctx context.Context, o RedisOptions, slots [2]int) (*Redis, error) {
	binary, err := findBinary("redis-server")
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("starting redis: %w", err)
	}
	r := &Redis{cluster: o.Cluster, slots: slots}
	r.name = "redis"
	r.options = func(port int) (ProcessOptions, error) {
		args := []string{
			"--port", strconv.Itoa(port),
			"--bind", "127.0.0.1",
			"--dir", dir,
			"--daemonize", "no",
			"--save", "",
			"--maxmemory-policy", "noeviction",
		}
		if o.Persist {
			// Without fsync every write still reaches the kernel before it is answered, which is all that a killed
			// process needs. "everysec" would keep less: it may hold writes back for two seconds while an fsync runs.
			args = append(args, "--appendonly", "yes", "--appendfsync", "no")
		} else {
			args = append(args, "--appendonly", "no")
		}
		if o.Cluster {
			if !r.up { // the other nodes know it by then
				if r.busPort, err = FreePort(); err != nil {
					return ProcessOptions{}, err
				}
			}
			args = append(args,
				"--cluster-enabled", "yes",
				"--cluster-port", strconv.Itoa(r.busPort),
				"--cluster-announce-ip", "127.0.0.1",
				"--cluster-config-file", "nodes.conf")
		}
		return ProcessOptions{
			Name:    "redis",
			Path:    binary,
			Args:    append(args, o.Args...),
			Dir:     dir,
			LogFile: filepath.Join(dir, "redis.log"),
		}, nil
	}
	r.ready = r.answers
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// URL returns what REDIS_URL takes. In Cluster mode it names the address twice: several hosts mean Cluster, and this
// one has a single node.
func (r *Redis) URL() string {
	if r.cluster {
		return "redis://" + r.Addr() + "," + r.Addr()
	}
	return "redis://" + r.Addr() + "/0"
}

func (r *Redis) answers(ctx context.Context, port, pid int) error {
	client := redis.NewClient(&redis.Options{
		Addr:                  addr(port),
		MaxRetries:            -1, // the caller polls
		DialerRetries:         1,
		ContextTimeoutEnabled: true,
	})
	defer client.Close()
	if err := client.Ping(ctx).Err(); err != nil {
		return err
	}
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", pid)) {
		return fmt.Errorf("another Redis answers on %s", addr(port))
	}
	if !r.cluster {
		return nil
	}
	if info, err = client.ClusterInfo(ctx).Result(); err != nil {
		return err
	}
	if strings.Contains(info, "cluster_slots_assigned:0\r\n") {
		if err := client.ClusterAddSlotsRange(ctx, r.slots[0], r.slots[1]).Err(); err != nil {
			return err
		}
	}
	r.up = true
	// If others own the rest of the slots, the Cluster is up only when all are.
	if alone := r.slots == [2]int{0, lastSlot}; alone && !strings.Contains(info, "cluster_state:ok") {
		return fmt.Errorf("the Cluster is not up: %q", info)
	}
	return nil
}

// makeDir makes a directory if it is missing, for its owner only, and returns its absolute path.
func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}
