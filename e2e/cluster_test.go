package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// stall counts what the buyers of one product were told.
type stall struct {
	mu      sync.Mutex
	orders  map[string]int // buyer by order
	refused map[string]int
}

func (s *stall) note(user, status int, body map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, _ := body["order_id"].(string); status == http.StatusAccepted && id != "" {
		s.orders[id] = user
		return
	}
	s.refused[fmt.Sprint(status, " ", body["code"])]++
}

// TestCluster sells several products side by side on a Redis Cluster of three masters, one of them from eight buckets:
// two edges, more demand than stock, a restock in the middle, a limit per user, and every request repeated. In the end
// every unit of it is sold once.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := newSystemOf(t, localstack.Options{RedisMasters: 3})
	const hot, hotStock, restocked, users = 4, 500, 100, 400
	for id := 1; id < hot; id++ {
		s.mustCtl("product", "add", "--id", fmt.Sprint(id), "--name", "ticket", "--price", "100", "--stock", "1000")
	}
	s.mustCtl("product", "add", "--id", fmt.Sprint(hot), "--name", "hot ticket", "--price", "100",
		"--stock", fmt.Sprint(hotStock),
		"--limit", "2", "--state", "off_sale")
	out := s.mustCtl("product", "set", "--id", fmt.Sprint(hot), "--buckets", "8", "--state", "on_sale")
	if !strings.Contains(out, "on_sale") || !strings.Contains(out, "in 8 buckets") {
		t.Fatalf("ctl says %q", out)
	}
	s.startEdge()
	urls := []string{s.url}
	s.startEdge()
	urls = append(urls, s.url)
	s.startWorker()
	s.startWorker()

	stalls := make([]*stall, hot+1)
	for id := range stalls {
		stalls[id] = &stall{orders: map[string]int{}, refused: map[string]int{}}
	}
	// buy orders a unit with a key, at one edge, and again with the same key at the other.
	buy := func(user, product int, key string) {
		var first string
		for attempt := range 2 {
			url := urls[(user+attempt)%2] + "/api/orders"
			status, body, err := tryRequest(t, "POST", url, s.token(user),
				fmt.Sprintf(`{"product_id":%d,"quantity":1}`, product),
				"Idempotency-Key", key)
			if err != nil {
				t.Error(err)
				return
			}
			id, _ := body["order_id"].(string)
			if attempt == 1 && first != "" && id != first {
				t.Errorf("user %d has order %s, and %v by a retry: %d", user, first, id, status)
			}
			if first = id; attempt == 0 || id != "" {
				stalls[product].note(user, status, body)
			}
		}
	}
	jobs := make(chan func())
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	for user := 1; user <= users; user++ {
		jobs <- func() { buy(user, 1+user%(hot-1), fmt.Sprint("side-", user)) }
		for n := range 3 { // one more than the limit
			jobs <- func() { buy(user, hot, fmt.Sprint("hot-", n)) }
		}
		if user == users/2 {
			s.mustCtl("restock", "--product", fmt.Sprint(hot), "--units", fmt.Sprint(restocked), "--id", "more")
		}
	}
	close(jobs)
	clients.Wait()
	for user := users + 1; ; user++ { // what somebody left who was refused while it was on its way
		status, body := request(t, "POST", urls[user%2]+"/api/orders", s.token(user),
			fmt.Sprintf(`{"product_id":%d,"quantity":1}`, hot))
		stalls[hot].note(user, status, body)
		if status == http.StatusConflict && body["code"] == "sold_out" {
			break
		}
		if status != http.StatusAccepted {
			t.Fatalf("%d %v", status, body)
		}
	}

	a := s.audit(time.Minute)
	if !a.OK {
		t.Fatalf("the audit found: %s", strings.Join(a.Problems, "; "))
	}
	if len(a.Products) != hot {
		t.Fatalf("the audit shows %d products", len(a.Products))
	}
	for i, p := range a.Products {
		told := stalls[i+1]
		if p.ID != i+1 || p.CompletedUnits != len(told.orders) || p.Failed != 0 {
			t.Errorf("product %d: %d units sold and %d orders failed, %d were promised; refused: %v", p.ID,
				p.CompletedUnits, p.Failed, len(told.orders), told.refused)
		}
	}
	if p := a.Products[hot-1]; p.CompletedUnits != hotStock+restocked || p.Stock != 0 || p.Available != 0 ||
		p.Buckets != 8 || p.Restocked != restocked {
		t.Errorf("of %d units in buckets %d are sold: %+v", hotStock+restocked, p.CompletedUnits, p)
	}
	has := map[int]int{}
	for _, user := range stalls[hot].orders {
		if has[user]++; has[user] > 2 {
			t.Errorf("user %d has %d units, the limit is 2", user, has[user])
		}
	}
	// The buckets are on all masters.
	for i, m := range s.stack.Cluster.Masters {
		rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
		keys, err := rdb.Keys(t.Context(), "stock:{*}").Result()
		_ = rdb.Close()
		if err != nil || len(keys) == 0 {
			t.Errorf("master %d has no stock, error %v", i+1, err)
		}
	}
	if out := s.mustCtl("reconcile"); strings.Contains(out, "false") {
		t.Errorf("reconcile finds\n%s", out)
	}
	if out := s.mustCtl("product", "list"); !strings.Contains(out, "hot ticket") ||
		strings.Count(out, "hot ticket") != 1 {
		t.Errorf("ctl lists\n%s", out)
	}
}

// TestMasterIsKilled ends one of three masters in the middle of a sale, with all that it held. When it is back every
// order is decided and the books are right.
func TestMasterIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystemOf(t, localstack.Options{RedisMasters: 3})
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "1500", "--buckets", "8")
	s.startEdge()
	s.startWorker()
	s.startWorker()
	c := newCrowd()
	sold := make(chan struct{})
	go func() {
		defer close(sold)
		s.rush(t.Context(), c, 1, 3000, 400)
	}()
	stacktest.Eventually(t, time.Minute, func() error {
		if c.accepted() < 300 {
			return fmt.Errorf("only %d orders are accepted", c.accepted())
		}
		return nil
	})
	victim := s.stack.Cluster.Masters[1]
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, time.Minute, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := c.refused["stock_unavailable"] + c.refused["outcome_unknown"]; n < 50 {
			return fmt.Errorf("%d orders were refused since a master is gone", n)
		}
		return nil
	})
	if err := victim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.stack.Cluster.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-sold
	s.rush(t.Context(), c, 3001, 4500, 400) // whoever comes now gets the rest
	// Reconcile looks every 15 s, and lets an order alone for two minutes.
	var a audit
	stacktest.Eventually(t, 4*time.Minute, func() error {
		if a = s.audit(20 * time.Second); !a.OK {
			return fmt.Errorf("the audit finds: %s", strings.Join(a.Problems, "; "))
		}
		return nil
	})
	p := a.Products[0]
	if p.CompletedUnits > 1500 || p.Completed+p.Failed < len(c.orders) {
		t.Errorf("%d units sold of 1500; %d orders decided, %d promised", p.CompletedUnits, p.Completed+p.Failed,
			len(c.orders))
	}
	t.Logf("%d accepted, %d completed, %d failed; refused %v, without an answer %d", len(c.orders), p.Completed,
		p.Failed, c.refused, len(c.errors))
}
