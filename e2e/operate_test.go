package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
		"JWT_SECRET": "0123456789abcdef0123456789abcdef", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x",
		"AWS_SECRET_ACCESS_KEY": "hunter2",
		"AWS_ENDPOINT_URL_SQS":  "http://127.0.0.1:1", "EDGE_ADDR": "127.0.0.1:0", "SHOP_ADDR": "127.0.0.1:0",
		"ADMIN_ADDR": "127.0.0.1:0",
	}
	tests := []struct{ program, variable, value string }{
		{"edge", "REDIS_URL", ""}, {"worker", "REDIS_URL", ""},
		{"edge", "REDIS_URL", "http://user:hunter2@host"},
		{"worker", "REDIS_URL", "redis://user:hunter2@host:port:port"},
		{"edge", "MYSQL_DSN", ""}, {"worker", "MYSQL_DSN", ""},
		{"edge", "MYSQL_DSN", "root:hunter2@"}, {"worker", "MYSQL_DSN", "root:hunter2@tcp(127.0.0.1:1)"},
		{"edge", "JWT_SECRET", ""}, {"edge", "JWT_SECRET", "hunter2"},
		{"edge", "EDGE_ADDR", "8080"}, {"edge", "EDGE_ADDR", ":99999"}, {"edge", "ADMIN_ADDR", "x"},
		{"worker", "ADMIN_ADDR", "x"},
		{"edge", "LOG_LEVEL", "loud"}, {"worker", "LOG_LEVEL", "loud"},
		{"edge", "SHUTDOWN_NOTICE", "1 hour"}, {"edge", "SHUTDOWN_NOTICE", "1h"},
		{"edge", "TRUSTED_PROXIES", "everybody"}, {"shop", "TRUSTED_PROXIES", "everybody"},
		{"shop", "PASSWORD_MEMORY_KIB", "1"}, {"shop", "PASSWORD_ITERATIONS", "x"}, {"shop", "JWT_SECRET", "hunter2"},
		{"shop", "RATE_LIMIT_PASSWORDS", "5"}, {"shop", "SHOP_ADDR", "8080"}, {"shop", "MYSQL_DSN", ""},
		{"shop", "MYSQL_DSN", "root:hunter2@tcp(127.0.0.1:1)/x"},
		{"edge", "RATE_LIMIT_USER", "5"}, {"edge", "RATE_LIMIT_ADDRESS", "0/5"},
		{"edge", "AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1"},
		{"worker", "MYSQL_DSN", "root:hunter2@tcp(127.0.0.1:1)/x"},
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
	for program, says := range map[string]string{"edge": "orders-dlq", "worker": "orders-dlq", "shop": "SHOP_ADDR"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), "-help").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("REDIS_URL")) || !bytes.Contains(out, []byte(says)) {
			t.Errorf("%s -help: %v: %s", program, err, out)
		}
	}
}

// TestNoLocalCode proves that edge, shop and worker hold nothing of the local stack, nor of what judges them.
func TestNoLocalCode(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./edge", "./shop", "./worker")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "stampede/localstack") ||
		strings.Contains(string(out), "stampede/internal/contract") ||
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
		{"a reservation of no order", "reserved though no order", command("HSET", "reserved:{1}", "x", 1),
			command("HDEL", "reserved:{1}", "x")},
		{"stock from nowhere", "stock", mysql("UPDATE products SET stock = stock + 1"),
			mysql("UPDATE products SET stock = stock - 1")},
		{"a sale without a ledger row", "ledger",
			mysql("UPDATE stock_ledger SET reason = 'restock' WHERE reason = 'order' AND version = 2"),
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

// TestAuditWhileItSells audits a sale again and again while orders come in: it may say that they are on their way, but
// what it has seen of a system in motion at two moments is no broken promise.
func TestAuditWhileItSells(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "100000")
	s.startEdge()
	s.startWorker()
	c := newCrowd()
	ctx, stop := context.WithCancel(t.Context())
	var sale sync.WaitGroup
	sale.Go(func() { s.rush(ctx, c, 1, 50_000, 25) })

	for range 15 {
		for _, problem := range s.audit(0).Problems {
			if !strings.Contains(problem, "are on their way") && !strings.Contains(problem, "changed with every look") {
				t.Errorf("the audit found: %s", problem)
			}
		}
	}

	stop()
	sale.Wait()
	s.mustBeClean(c, 30*time.Second, c.accepted())
}

// TestManageProducts changes a product by hand and by HTTP while it is sold. What was accepted stays as promised.
func TestManageProducts(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "5", "--state", "off_sale")
	s.startServers()
	merchant := strings.TrimSpace(s.mustCtl("token", "--user", "99", "--role", "merchant"))
	c := newCrowd()
	order := func(user int, want string) (id string) {
		t.Helper()
		status, body := request(t, "POST", s.url+"/api/orders", s.token(user), `{"product_id":1,"quantity":2}`)
		if got := fmt.Sprint(status, " ", body["unit_price"], " ", body["code"]); got != want {
			t.Fatalf("got %s %v, want %s", got, body, want)
		}
		if id, _ = body["order_id"].(string); id != "" {
			c.orders[id] = user
		}
		return id
	}
	order(1, "409 <nil> not_on_sale")
	s.mustCtl("product", "set", "--id", "1", "--state", "on_sale", "--limit", "2", "--ends", "2099-01-01T00:00:00Z")
	first := order(1, "202 100 <nil>")
	order(1, "409 <nil> limit_exceeded")
	s.mustCtl("product", "set", "--id", "1", "--price", "70", "--no-limit", "--no-ends")
	second := order(1, "202 70 <nil>")
	order(2, "409 <nil> sold_out")
	status, body := request(t, "PUT", s.front+"/api/products/1/restocks/monday", merchant, `{"units":10}`)
	if status != http.StatusCreated || body["stock"] != 15.0 {
		t.Fatalf("restock: %d %v", status, body)
	}
	status, body = request(t, "PATCH", s.front+"/api/products/1", merchant, `{"price":60,"limit_per_user":4}`)
	if status != http.StatusOK {
		t.Fatalf("patch: %d %v", status, body)
	}
	order(1, "409 <nil> limit_exceeded")
	third := order(3, "202 60 <nil>")
	s.mustCtl("product", "set", "--id", "1", "--state", "off_sale", "--name", "old ticket")
	order(4, "409 <nil> not_on_sale")
	list := s.mustCtl("product", "list")
	if !strings.Contains(list, "off_sale") || !strings.Contains(list, "old ticket") {
		t.Errorf("ctl lists %s", list)
	}
	// All of it is decided only now.
	s.startWorker()
	s.mustBeClean(c, 30*time.Second, 6)
	for id, price := range map[string]float64{first: 100, second: 70, third: 60} {
		_, body := request(t, "GET", s.url+"/api/orders/"+id, s.token(c.orders[id]), "")
		if body["unit_price"] != price || body["total_price"] != 2*price || body["status"] != "completed" {
			t.Errorf("order %s, promised at %v, is %v", id, price, body)
		}
	}
	_, err := s.ctl("product", "set", "--id", "1", "--price", "-1")
	if err == nil || !strings.Contains(err.Error(), "price must be") {
		t.Errorf("a price of -1: %v", err)
	}
	if _, err := s.ctl("product", "set", "--id", "2"); err == nil || !strings.Contains(err.Error(), "no product 2") {
		t.Errorf("a product that is not there: %v", err)
	}
}

// TestAppUser sells with a database user who may not change the schema, as migrate makes it, and whose password comes
// in a variable of its own.
func TestAppUser(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	owner := s.env
	s.env = append(owner[:len(owner):len(owner)], "MYSQL_APP_PASSWORD=hunter2")
	if out := s.mustCtl("migrate", "--app-user", "app"); strings.Contains(out, "hunter2") {
		t.Errorf("the password is told: %s", out)
	}
	if _, err := s.ctl("migrate"); err == nil || !strings.Contains(err.Error(), "--app-user") {
		t.Errorf("a password for nobody: %v", err)
	}
	s.env = append(owner[:len(owner):len(owner)],
		"MYSQL_DSN=app@tcp("+s.stack.MariaDB.Addr()+")/stampede", "MYSQL_PASSWORD=hunter2")
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "5")
	s.startWorker()
	s.startEdge()
	c := newCrowd()
	s.rush(t.Context(), c, 1, 8, 100)
	s.mustBeClean(c, 60*time.Second, 5)
	if _, err := s.ctl("migrate"); err != nil {
		t.Errorf("a migration that has nothing to do: %v", err)
	}
}
