package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
)

// TestConfiguration starts each program with one variable missing or malformed: it must end at once,
// name the variable, and not repeat a secret.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"REDIS_URL": "redis://user:hunter2@127.0.0.1:1/0", "MYSQL_DSN": "root:hunter2@tcp(127.0.0.1:1)/x",
		"JWT_SECRET": strings.Repeat("k", 32), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "hunter2",
		"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "EDGE_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0",
	}
	tests := []struct{ program, variable, value string }{
		{"edge", "REDIS_URL", ""}, {"worker", "REDIS_URL", ""},
		{"edge", "REDIS_URL", "http://user:hunter2@host"}, {"worker", "REDIS_URL", "redis://user:hunter2@host:port:port"},
		{"edge", "MYSQL_DSN", ""}, {"worker", "MYSQL_DSN", ""},
		{"edge", "MYSQL_DSN", "root:hunter2@"}, {"worker", "MYSQL_DSN", "root:hunter2@tcp(127.0.0.1:1)"},
		{"edge", "JWT_SECRET", ""}, {"edge", "JWT_SECRET", "hunter2"},
		{"edge", "EDGE_ADDR", "8080"}, {"edge", "EDGE_ADDR", ":99999"}, {"edge", "ADMIN_ADDR", "x"}, {"worker", "ADMIN_ADDR", "x"},
		{"edge", "LOG_LEVEL", "loud"}, {"worker", "LOG_LEVEL", "loud"},
		{"edge", "SHUTDOWN_NOTICE", "1 hour"}, {"edge", "SHUTDOWN_NOTICE", "1h"},
		{"edge", "TRUSTED_PROXIES", "everybody"}, {"edge", "PASSWORD_MEMORY_KIB", "1"}, {"edge", "PASSWORD_ITERATIONS", "x"},
		{"edge", "AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1"}, {"worker", "MYSQL_DSN", "root:hunter2@tcp(127.0.0.1:1)/x"},
	}
	for _, test := range tests {
		t.Run(test.program+" "+test.variable+"="+strings.ReplaceAll(test.value, "/", "|"), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, test.program))
			cmd.Env = []string{}
			for name, value := range good {
				if name != test.variable {
					cmd.Env = append(cmd.Env, name+"="+value)
				}
			}
			cmd.Env = append(cmd.Env, test.variable+"="+test.value)
			out, err := cmd.CombinedOutput()
			if ctx.Err() != nil || err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("it ended with %v: %s", err, out)
			}
			name := test.variable
			if strings.HasPrefix(name, "AWS") {
				name = "ORDERS_QUEUE, ORDERS_DLQ, AWS_"
			}
			if !bytes.Contains(out, []byte(name)) || bytes.Contains(out, []byte("hunter2")) {
				t.Errorf("it says: %s", out)
			}
		})
	}
	for _, program := range []string{"edge", "worker"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), "-help").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("REDIS_URL")) || !bytes.Contains(out, []byte("orders-dlq")) {
			t.Errorf("%s -help: %v: %s", program, err, out)
		}
	}
}

// TestNoLocalCode proves that the edge and the worker hold nothing of the local stack, nor of what judges them.
func TestNoLocalCode(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./edge", "./worker")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "stampede/localstack") || strings.Contains(string(out), "stampede/internal/contract") ||
		!strings.Contains(string(out), "stampede/internal/stock") {
		t.Errorf("the programs are made of:\n%s", out)
	}
}

// TestAuditFindsDamage breaks the books by hand, in one place after the other.
func TestAuditFindsDamage(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "50")
	s.startEdge()
	s.startWorker()
	c := newCrowd()
	s.rush(t.Context(), c, 1, 20, 200)
	s.mustBeClean(c, 30*time.Second, 20)

	db, err := sql.Open("mysql", s.stack.MariaDB.DSN("stampede"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rdb := redis.NewClient(&redis.Options{Addr: s.stack.Redis.Addr()})
	defer rdb.Close()
	mysql := func(statement string) func() error {
		return func() error { _, err := db.ExecContext(t.Context(), statement); return err }
	}
	command := func(args ...any) func() error {
		return func() error { return rdb.Do(t.Context(), args...).Err() }
	}
	for _, test := range []struct {
		name, want   string
		damage, mend func() error
	}{
		{"a unit that is nowhere", "redis has", command("DECRBY", "stock:{1}", 1), command("INCRBY", "stock:{1}", 1)},
		{"a reservation of no order", "reserved though no order", command("HSET", "reserved:{1}", "x", 1), command("HDEL", "reserved:{1}", "x")},
		{"a forgotten outbox entry", "in the outbox", command("HSET", "outbox:{1}", "x", "1 0 1 1 1 "), command("HDEL", "outbox:{1}", "x")},
		{"stock from nowhere", "stock", mysql("UPDATE products SET stock = stock + 1"), mysql("UPDATE products SET stock = stock - 1")},
		{"a sale without a ledger row", "ledger", mysql("UPDATE stock_ledger SET reason = 'restock' WHERE reason = 'order' AND version = 2"),
			mysql("UPDATE stock_ledger SET reason = 'order' WHERE version = 2")},
	} {
		if err := test.damage(); err != nil {
			t.Fatal(test.name, err)
		}
		if a := s.audit(0); a.OK || !strings.Contains(strings.Join(a.Problems, "; "), test.want) {
			t.Errorf("%s: the audit found %q", test.name, a.Problems)
		}
		if err := test.mend(); err != nil {
			t.Fatal(test.name, err)
		}
		if a := s.audit(0); !a.OK {
			t.Fatalf("%s: after mending the audit found %q", test.name, a.Problems)
		}
	}
}
