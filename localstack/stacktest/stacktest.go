// Package stacktest gives tests real servers: one Redis, MariaDB and SQS-compatible server per test binary, and within
// them a place of its own for each test.
//
//	func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Redis|stacktest.MariaDB) }
//
//	func TestReserve(t *testing.T) {
//		url := stacktest.RedisURL(t)
//		...
//	}
//
// The servers and their files are gone when the binary has ended, however it ends. With STACKTEST_KEEP=1 in the
// environment the files are kept, and the directory is printed.
package stacktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stampede/localstack"
	"stampede/localstack/sqs"
)

// Need says which servers a package's tests use; combine with |.
type Need int

// The servers. RedisCluster takes two seconds to start, all others together less than one.
const (
	Redis Need = 1 << iota
	RedisCluster
	MariaDB
	SQS
)

// running holds the servers that Main has started. Main writes it before the first test starts.
var running servers

type servers struct {
	dir          string
	redis        *localstack.Redis
	redisCluster *localstack.Redis
	mariadb      *localstack.MariaDB
	sqs          *sqs.Server
}

// Dir is a directory for what tests have in common, such as a program that is built once. It is removed when they end.
func Dir() string { return running.dir }

// Main is the whole of a TestMain: it starts the servers, runs the tests, stops the servers, fails if goroutines of the
// tests are left, and exits.
func Main(m *testing.M, need Need) { os.Exit(run(m, need)) }

func run(m *testing.M, need Need) (code int) {
	dir, err := os.MkdirTemp("", "stampede-test-")
	if err != nil {
		return fail(err)
	}
	remove, err := removeAtExit(dir)
	if err != nil {
		return fail(err)
	}
	defer remove()

	// A signal ends the tests at once. The servers have process groups of their own, so Ctrl-C has not reached them. One
	// that comes while they start waits until it is known what has to be stopped.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	running.dir = dir
	err = running.start(dir, need)
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		if s, ok := <-signals; ok {
			running.close()
			remove()
			os.Exit(128 + int(s.(syscall.Signal)))
		}
	}()
	if err == nil {
		code = m.Run()
	} else {
		code = fail(err)
	}
	signal.Stop(signals)
	close(signals)
	<-watcher
	if err := running.close(); err != nil {
		code = fail(err)
	}
	if code == 0 {
		// Servers of fasthttp leave a clock that never ends, and cleaners that see only every ten seconds that they
		// should. A pool of Redis that tries a dead server sees only every second that it is closed.
		if err := goleak.Find(goleak.IgnoreTopFunction("stampede/localstack.startLoop"),
			goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
			goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
			goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")); err != nil {
			code = fail(err)
		}
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "stacktest:", err)
	return 1
}

// start starts the servers side by side.
func (s *servers) start(dir string, need Need) error {
	ctx := context.Background()
	var wg sync.WaitGroup
	var errs [4]error
	if need&Redis != 0 {
		wg.Go(func() {
			s.redis, errs[0] = localstack.StartRedis(ctx, localstack.RedisOptions{
				Dir:  filepath.Join(dir, "redis"),
				Args: []string{"--databases", fmt.Sprint(redisDatabases)},
			})
		})
	}
	if need&RedisCluster != 0 {
		wg.Go(func() {
			s.redisCluster, errs[1] = localstack.StartRedis(ctx, localstack.RedisOptions{
				Dir:     filepath.Join(dir, "redis-cluster"),
				Cluster: true,
			})
		})
	}
	if need&MariaDB != 0 {
		wg.Go(func() {
			s.mariadb, errs[2] = localstack.StartMariaDB(ctx, localstack.MariaDBOptions{Dir: filepath.Join(dir, "mariadb")})
		})
	}
	if need&SQS != 0 {
		wg.Go(func() { s.sqs, errs[3] = sqs.Start(sqs.Options{Region: localstack.Region}) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

func (s *servers) close() error {
	var errs []error
	if s.sqs != nil {
		errs = append(errs, s.sqs.Close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	if s.redisCluster != nil {
		errs = append(errs, s.redisCluster.Close())
	}
	if s.mariadb != nil {
		errs = append(errs, s.mariadb.Close())
	}
	return errors.Join(errs...)
}

// removeAtExit has a directory removed when this process ends, also by a panic in a test, os.Exit or SIGKILL: a shell
// waits at the other end of a pipe that only this process holds. The function it returns does it now.
func removeAtExit(dir string) (remove func(), err error) {
	if os.Getenv("STACKTEST_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "stacktest: keeping", dir)
		return func() {}, nil
	}
	// The second attempt is for a server that was killed at the same moment and wrote a file meanwhile.
	shell := exec.Command("/bin/sh", "-c", `cat; rm -rf "$0" || { sleep 1; rm -rf "$0"; }`, dir)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := shell.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := shell.Start(); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		pipe.Close()
		_ = shell.Wait() // what is left in the temporary directory is no reason to fail tests
	}), nil
}

// Eventually calls check until it returns nil, often at first and then every 50 ms. After the timeout it ends the test
// with the last error.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still failing after %v: %v", timeout, err)
		}
		time.Sleep(pause)
	}
}

// Together runs the functions at the same time and ends the test if one of them fails.
func Together(t testing.TB, functions ...func() error) {
	t.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, len(functions))
	for i, f := range functions {
		wg.Go(func() {
			<-start
			errs[i] = f()
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
