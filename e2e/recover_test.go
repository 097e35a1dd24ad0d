package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/localstack/stacktest"
)

// TestRedisLosesEverything empties Redis in the middle of a sale. Within two minutes and without anybody's help the
// books are clean again, nothing was oversold, and every order that was promised is decided.
func TestRedisLosesEverything(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "700")
	s.startEdge()
	s.startWorker()
	s.startWorker()
	c := newCrowd()
	rdb := redis.NewClient(&redis.Options{Addr: s.stack.Redis.Addr()})
	defer rdb.Close()
	for first := 1; first <= 901; first += 300 {
		s.rush(t.Context(), c, first, first+299, 600)
		if first < 601 {
			if err := rdb.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	lost := time.Now()
	stacktest.Eventually(t, 2*time.Minute, func() error {
		if a := s.audit(5 * time.Second); !a.OK {
			return fmt.Errorf("the audit found: %s", strings.Join(a.Problems, "; "))
		}
		return nil
	})
	t.Logf("clean after %v", time.Since(lost).Round(time.Second))
	s.mustBeClean(c, 0, 700)
}

// TestReconcile breaks the stock in Redis by hand, has it shown and repaired.
func TestReconcile(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "50")
	s.startEdge()
	s.startWorker()
	c := newCrowd()
	s.rush(t.Context(), c, 1, 20, 200)
	s.mustBeClean(c, 30*time.Second, 20)
	if out := s.mustCtl("reconcile"); !strings.Contains(out, "none") {
		t.Errorf("of a sound product: %s", out)
	}
	rdb := redis.NewClient(&redis.Options{Addr: s.stack.Redis.Addr()})
	defer rdb.Close()
	// the worker shall not be faster
	if err := rdb.Set(t.Context(), "lock:reconcile", "", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.IncrBy(t.Context(), "stock:{1}", 7).Err(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.ctl("reconcile"); err == nil || !strings.Contains(out, "wrong stock") ||
		!strings.Contains(out, "+7") {
		t.Errorf("of a wrong stock: %v: %s", err, out)
	}
	out := s.mustCtl("reconcile", "--apply", "--fence", "--json")
	var reports []struct {
		Available int `json:"redis_available"`
		Findings  []struct {
			Cause    string
			Units    int
			Repaired bool
		}
	}
	if err := json.Unmarshal([]byte(out), &reports); err != nil || len(reports) != 1 || reports[0].Available != 30 ||
		len(reports[0].Findings) != 1 || reports[0].Findings[0].Units != 7 || !reports[0].Findings[0].Repaired {
		t.Errorf("repaired: %v: %s", err, out)
	}
	s.mustCtl("reconcile")
	s.mustBeClean(c, 0, 20)
	if out, err := s.ctl("reconcile", "--fence"); err == nil {
		t.Errorf("--fence without --apply: %s", out)
	}
}

// TestRedrive makes orders poison, by a fault in MySQL that hits two buyers, mends it, and has the operator redrive
// them: one is completed, and the other stays failed, since nothing is left for it.
func TestRedrive(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "3")
	s.startEdge()
	s.startWorker()
	db, err := sql.Open("mysql", s.stack.MariaDB.DSN("stampede"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TRIGGER poison BEFORE INSERT ON orders FOR EACH ROW
		BEGIN IF NEW.user_id < 3 AND NEW.status = 'completed' THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = 'poison'; END IF; END`)
	c := newCrowd()
	s.rush(t.Context(), c, 1, 2, 10)
	type deadLetter struct {
		ID       string `json:"message_id"`
		Reason   string
		Attempts int
		Age      string
		Result   string
		Orders   []struct {
			UserID        int `json:"user_id"`
			State, Result string
		}
	}
	letters := func(args ...string) (all []deadLetter) {
		t.Helper()
		out := s.mustCtl(append([]string{"dlq"}, append(args, "--json")...)...)
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return all
	}
	stacktest.Eventually(t, time.Minute, func() error {
		if all := letters("list"); len(all) != 2 {
			return fmt.Errorf("%d dead letters", len(all))
		}
		return nil
	})
	var ids [3]string
	for _, l := range letters("list") {
		if !strings.Contains(l.Reason, "23000") || l.Attempts != 3 || l.Age == "" || len(l.Orders) != 1 ||
			l.Orders[0].State != "failed: dead_letter" {
			t.Fatalf("dead letter %+v", l)
		}
		ids[l.Orders[0].UserID] = l.ID
	}
	if out := s.mustCtl("dlq", "show", "--id", ids[1]); !strings.Contains(out, `",1,1]]}]}`) {
		t.Errorf("shown: %s", out)
	}
	if l := letters("redrive", "--all", "--dry-run"); len(l) != 2 || l[0].Orders[0].Result != "would be decided anew" {
		t.Errorf("a dry run: %+v", l)
	}
	s.mustBeClean(c, 30*time.Second, 0)

	exec("DROP TRIGGER poison")
	if l := letters("redrive", "--id", ids[1]); len(l) != 1 || l[0].Result != "redriven" {
		t.Errorf("redriven: %+v", l)
	}
	s.mustBeClean(c, 30*time.Second, 1)
	s.rush(t.Context(), c, 3, 4, 10)
	s.mustBeClean(c, 30*time.Second, 3)
	if l := letters("redrive", "--id", ids[2]); len(l) != 1 || l[0].Orders[0].Result != "stays failed: sold out" {
		t.Errorf("with nothing left: %+v", l)
	}
	if l := letters("list"); len(l) != 1 || l[0].Orders[0].State != "failed: dead_letter" {
		t.Errorf("in the end: %+v", l)
	}
	for id, user := range c.orders {
		want := map[bool]string{false: "completed", true: "failed"}[user == 2]
		if _, body := request(t, "GET", s.url+"/api/orders/"+id, s.token(user), ""); body["status"] != want {
			t.Errorf("user %d is shown %v, want %s", user, body, want)
		}
	}
	if l := letters("discard", "--all"); len(l) != 1 || l[0].Result != "discarded" || len(letters("list")) != 0 {
		t.Errorf("discarded: %+v", l)
	}
	s.mustBeClean(c, 0, 3)
}
