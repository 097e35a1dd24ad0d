package stacktest_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) {
	need := stacktest.Redis | stacktest.MariaDB | stacktest.SQS
	if os.Getenv("STACKTEST_ENDING") == "" { // the helper process does not use the Cluster, which is slow to start
		need |= stacktest.RedisCluster
	}
	stacktest.Main(m, need)
}

func TestRedisURLIsTheTestsOwn(t *testing.T) {
	write := func(t *testing.T) {
		o, err := redis.ParseURL(stacktest.RedisURL(t))
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(o)
		defer client.Close()
		if n, err := client.DBSize(t.Context()).Result(); err != nil || n != 0 {
			t.Fatalf("the database holds %d keys, error %v", n, err)
		}
		if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	// More rounds than there are databases: they come back, and empty.
	for range 300 {
		t.Run("one", write)
	}
	for range 10 {
		t.Run("parallel", func(t *testing.T) { t.Parallel(); write(t) })
	}
}

func TestRedisClusterURL(t *testing.T) {
	for range 2 {
		t.Run("empty", func(t *testing.T) {
			hosts := strings.Split(strings.TrimPrefix(stacktest.RedisClusterURL(t), "redis://"), ",")
			if len(hosts) < 2 {
				t.Fatalf("the URL names %q; one host does not mean Cluster", hosts)
			}
			client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: hosts})
			defer client.Close()
			for _, key := range []string{"{1}a", "{2}b", "{3}c"} {
				if n, err := client.Incr(t.Context(), key).Result(); err != nil || n != 1 {
					t.Fatalf("first INCR of %s gives %d, error %v", key, n, err)
				}
			}
		})
	}
}

func TestDSNIsTheTestsOwn(t *testing.T) {
	for range 3 {
		t.Run("parallel", func(t *testing.T) {
			t.Parallel()
			db, err := sql.Open("mysql", stacktest.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(t.Context(), "CREATE TABLE t (id INT PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDSNIsDroppedAtTheEnd(t *testing.T) {
	var dsn string
	t.Run("test", func(t *testing.T) { dsn = stacktest.DSN(t) })
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "Unknown database") {
		t.Errorf("connecting to the database of a test that has ended: %v", err)
	}
}

func TestQueuesAreTheTestsOwn(t *testing.T) {
	var ended stacktest.QueuePair
	t.Run("first", func(t *testing.T) { ended = stacktest.Queues(t) })
	client := ended.Client()
	_, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &ended.Orders})
	var gone *types.QueueDoesNotExist
	if !errors.As(err, &gone) {
		t.Errorf("asking for the queue of a test that has ended gives %v", err)
	}

	q := stacktest.Queues(t)
	if q.Orders == ended.Orders || q.DLQ == ended.DLQ {
		t.Errorf("%v after %v", q, ended)
	}
	for _, name := range []string{q.Orders, q.DLQ} {
		if _, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name}); err != nil {
			t.Error(err)
		}
	}
	env := strings.Join(q.Env(), "\n")
	for _, want := range []string{"ORDERS_QUEUE=" + q.Orders, "ORDERS_DLQ=" + q.DLQ, "AWS_ENDPOINT_URL_SQS=" +
		q.Endpoint} {
		if !strings.Contains(env, want) {
			t.Errorf("%s is not in\n%s", want, env)
		}
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	stacktest.Eventually(t, time.Minute, func() error {
		if calls++; calls < 5 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 5 {
		t.Errorf("called %d times", calls)
	}

	// A testing.TB of our own sees how it fails.
	failed := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		stacktest.Eventually(failed, time.Millisecond, func() error { return errors.New("never") })
	}()
	if !strings.Contains(failed.message, "never") {
		t.Errorf("a check that never passes fails with %q", failed.message)
	}
}

type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	panic(r)
}

// TestNothingIsLeft runs this test binary again in ways that end it badly, and looks for the servers and files of that
// run.
func TestNothingIsLeft(t *testing.T) {
	for _, ending := range []string{"pass", "fail", "leak", "panic", "exit", "term", "kill"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestEnding$", "-test.v")
			cmd.Env = append(os.Environ(), "STACKTEST_ENDING="+ending, "TMPDIR="+temp)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (ending == "pass") {
				t.Errorf("the run ended with %v:\n%s", err, out)
			}
			if !strings.Contains(string(out), "RUN   TestEnding") {
				t.Errorf("the test did not run:\n%s", out)
			}
			stacktest.Eventually(t, 10*time.Second, func() error {
				files, err := filepath.Glob(filepath.Join(temp, "stampede-test-*"))
				if err != nil || len(files) > 0 {
					return fmt.Errorf("left %q, error %v", files, err)
				}
				return processesIn(temp)
			})
		})
	}
}

// processesIn returns an error that names a process which mentions the directory in its arguments. It sees nothing
// where there is no /proc.
func processesIn(dir string) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, name := range lines {
		line, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(line), dir) {
			return fmt.Errorf("%s is still running: %q", name, line)
		}
	}
	return nil
}

// TestEnding is what TestNothingIsLeft runs in a process of its own.
func TestEnding(t *testing.T) {
	ending := os.Getenv("STACKTEST_ENDING")
	if ending == "" {
		t.Skip("helper of TestNothingIsLeft")
	}
	stacktest.RedisURL(t)
	stacktest.DSN(t)
	stacktest.Queues(t)
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	switch ending {
	case "fail":
		t.Fail()
	case "leak":
		go func() { select {} }()
	case "panic":
		panic("on purpose")
	case "exit":
		os.Exit(3)
	case "term":
		_ = self.Signal(syscall.SIGTERM)
		time.Sleep(time.Minute)
	case "kill":
		_ = self.Kill()
		time.Sleep(time.Minute)
	}
}
