package localstack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func startRedis(t *testing.T, o RedisOptions) *Redis {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	r, err := StartRedis(t.Context(), o)
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

func startMariaDB(t *testing.T, dir string) *MariaDB {
	t.Helper()
	m, err := StartMariaDB(t.Context(), MariaDBOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func redisClient(t *testing.T, r *Redis) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() { c.Close() })
	return c
}

// longDir is longer than what the address of a Unix socket can hold, and has a blank in it.
func longDir(t *testing.T) string {
	return filepath.Join(t.TempDir(), strings.Repeat("long directory name/", 10))
}

func TestRedisKillAndStart(t *testing.T) {
	for _, persist := range []bool{false, true} {
		t.Run(fmt.Sprintf("persist=%v", persist), func(t *testing.T) {
			t.Parallel()
			r := startRedis(t, RedisOptions{Dir: longDir(t), Persist: persist})
			address, pid := r.Addr(), r.Pid()
			if want := "redis://" + address + "/0"; r.URL() != want {
				t.Errorf("URL %q, want %q", r.URL(), want)
			}
			if err := redisClient(t, r).Set(t.Context(), "key", "value", 0).Err(); err != nil {
				t.Fatal(err)
			}

			for range 2 {
				if err := r.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if runs(t, strconv.Itoa(pid)) {
				t.Error("Kill returned before the process was gone")
			}
			for range 2 {
				if err := r.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}

			if r.Addr() != address || r.Pid() == pid {
				t.Errorf("address %s and process %d before, %s and %d after", address, pid, r.Addr(), r.Pid())
			}
			got, err := redisClient(t, r).Get(t.Context(), "key").Result()
			if persist && got != "value" {
				t.Errorf("the key holds %q after the restart, error %v", got, err)
			}
			if !persist && !errors.Is(err, redis.Nil) {
				t.Errorf("the key holds %q after the restart, error %v; it should be gone", got, err)
			}
		})
	}
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	r := startRedis(t, RedisOptions{Cluster: true})
	if want := "redis://" + r.Addr() + "," + r.Addr(); r.URL() != want {
		t.Errorf("URL %q, want %q", r.URL(), want)
	}
	check := func() {
		t.Helper()
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{r.Addr(), r.Addr()}})
		defer c.Close()
		for i := range 100 {
			if err := c.Incr(t.Context(), fmt.Sprintf("{%d}", i)).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	check()
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
}

// A Cluster of three masters takes every key, each master some of them, and is whole again when one was killed.
func TestRedisClusterOfThree(t *testing.T) {
	t.Parallel()
	c, err := StartRedisCluster(t.Context(), 3, RedisOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(strings.TrimPrefix(c.URL(), "redis://"),
		",")})
	defer client.Close()
	for round := range 2 {
		for i := range 100 {
			if err := client.Incr(t.Context(), fmt.Sprintf("{%d}", i)).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for i, m := range c.Masters {
			one := redis.NewClient(&redis.Options{Addr: m.Addr()})
			n, err := one.DBSize(t.Context()).Result()
			_ = one.Close()
			if err != nil || n < 10 {
				t.Errorf("round %d: master %d has %d keys of 100, error %v", round, i+1, n, err)
			}
		}
		if err := c.Masters[1].Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Masters[1].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	r := startRedis(t, RedisOptions{})
	if err := r.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A server that hangs because it was stopped can still be closed in order.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if code := r.process.ExitCode(); code != 0 {
		t.Errorf("it ended with code %d", code)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	r := startRedis(t, RedisOptions{})
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if runs(t, strconv.Itoa(r.Pid())) {
		t.Error("the process is still there")
	}
	if err := r.Start(t.Context()); err == nil {
		t.Error("a closed server could be started")
	}
	if err := r.Kill(); err != nil {
		t.Errorf("Kill after Close: %v", err)
	}
}

func TestMariaDBKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	dir := longDir(t)
	m := startMariaDB(t, dir)
	address := m.Addr()
	for range 2 {
		if err := m.CreateDatabase(t.Context(), "some`name"); err != nil {
			t.Fatal(err)
		}
	}
	do := func(statement string) {
		t.Helper()
		db, err := sql.Open("mysql", m.DSN("some`name"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	count := func() (n int) {
		t.Helper()
		db, err := sql.Open("mysql", m.DSN("some`name"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	do("CREATE TABLE t (id INT PRIMARY KEY)")
	do("INSERT INTO t VALUES (1), (2)")
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Addr() != address {
		t.Errorf("address %s before, %s after", address, m.Addr())
	}
	if n := count(); n != 2 {
		t.Errorf("%d rows after a kill, want 2", n)
	}

	do("INSERT INTO t VALUES (3)")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = startMariaDB(t, dir)
	if n := count(); n != 3 {
		t.Errorf("%d rows in the directory of an earlier server, want 3", n)
	}
	for range 2 {
		if err := m.DropDatabase(t.Context(), "some`name"); err != nil {
			t.Fatal(err)
		}
	}
}

// A data directory that was only half made, because the process died meanwhile, is made again.
func TestMariaDBMakesHalfADirectoryAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "new", "mysql"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := startMariaDB(t, dir)
	if err := m.CreateDatabase(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
}

func TestMariaDBLeavesNoSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := startMariaDB(t, dir)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	checkNothingIsLeft(t, dir)
}

// checkNothingIsLeft looks for files that only make sense while a server runs.
func checkNothingIsLeft(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (e.Type()&fs.ModeSocket != 0 || filepath.Ext(path) == ".pid") {
			t.Errorf("left %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStartFailsWithTheLog(t *testing.T) {
	t.Parallel()
	_, err := StartRedis(t.Context(), RedisOptions{Dir: t.TempDir(), Args: []string{"--no-such-option", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("Redis: the error does not quote the log: %v", err)
	}
	_, err = StartMariaDB(t.Context(), MariaDBOptions{Dir: t.TempDir(), Args: []string{"--no-such-option"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("MariaDB: the error does not quote the log: %v", err)
	}
}

func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartRedis(ctx, RedisOptions{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Redis: %v", err)
	}
	if _, err := StartMariaDB(ctx, MariaDBOptions{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("MariaDB: %v", err)
	}
}

// Somebody else may have taken the port between FreePort and the server's start, and may even be a server of the same
// kind that answers just as ours would.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	first := startRedis(t, RedisOptions{})
	_, port, err := net.SplitHostPort(first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartRedis(t.Context(), RedisOptions{Dir: t.TempDir(), Args: []string{"--port", port}})
	if err == nil {
		t.Error("two servers were started on one port")
	}

	second := startRedis(t, RedisOptions{})
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	second.mu.Lock()
	err = second.startOnce(t.Context(), number)
	second.mu.Unlock()
	if !errors.Is(err, errPortTaken) {
		t.Errorf("starting on a port that another Redis has gives %v", err)
	}

	m := startMariaDB(t, t.TempDir())
	_, port, err = net.SplitHostPort(m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if number, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	other := startMariaDB(t, t.TempDir())
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	other.mu.Lock()
	err = other.startOnce(t.Context(), number)
	other.mu.Unlock()
	if !errors.Is(err, errPortTaken) {
		t.Errorf("starting on a port that another MariaDB has gives %v", err)
	}
}

// A server that comes back needs its old port, so it waits for it a little.
func TestRestartWaitsForItsPort(t *testing.T) {
	t.Parallel()
	r := startRedis(t, RedisOptions{})
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { l.Close(); close(released) })
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-released
}

func TestMissingBinaries(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, redisErr := StartRedis(t.Context(), RedisOptions{Dir: t.TempDir()})
	// mariadbd is found in /usr/sbin without PATH; the program that makes its data directory is not.
	_, mariadbErr := StartMariaDB(t.Context(), MariaDBOptions{Dir: t.TempDir()})
	for _, err := range []error{redisErr, mariadbErr} {
		if err == nil {
			t.Skip("the servers are installed where they are found without PATH")
		}
		for _, want := range []string{"scripts/install-deps", "docker compose up"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not name %s", err, want)
			}
		}
	}
}
