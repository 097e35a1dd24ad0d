package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
)

// A crowd at two edges that both find the product not loaded: each edge reads it once to see that
// it exists and once to load it, and the stock is what it would be had they come one by one.
func TestLoadedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000)
	_, _, other := w.start()
	beside := *w.World
	beside.URL = "http://" + other
	w.MySQL.Forget()
	got := apitest.Count(apitest.Crowd(200, func(i int) apitest.Reply {
		if i%2 == 0 {
			return beside.Post(order.UserID(i+1), p.ID, 2)
		}
		return w.Post(order.UserID(i+1), p.ID, 2)
	}))
	if got["202"] != 200 {
		t.Errorf("got %v", got)
	}
	if n := w.MySQL.Asked(fromProducts); n < 1 || n > 4 {
		t.Errorf("the product was read %d times by two edges", n)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 600, 400, 0)
	if n := len(w.Copies()); n != 200 {
		t.Errorf("the queue holds %d orders", n)
	}
}

func TestUnknownProductCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begin := time.Now()
	got := apitest.Count(apitest.Crowd(200, func(i int) apitest.Reply { return w.Post(order.UserID(i+1), 4711, 1) }))
	if got["404 product_not_found"] != 200 {
		t.Errorf("got %v", got)
	}
	if n, most := w.MySQL.Asked(fromProducts), 1+int(time.Since(begin)/cacheTTL); n > most {
		t.Errorf("the product was looked for %d times, want at most %d", n, most)
	}
	if left := w.Dump(); len(left) != 0 {
		t.Errorf("Redis holds %v", left)
	}
	// Once there is such a product it can be bought, after what was found is forgotten.
	p := w.AddProduct(1, func(p *order.Product) { p.ID = 4711 })
	w.Eventually("it is on sale", func() bool { return w.Post(1, p.ID, 1).Status == 202 })
}

func TestNeverMoreThanThereIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(50)
	got := apitest.Count(apitest.Crowd(200, func(i int) apitest.Reply { return w.Post(order.UserID(i+1), p.ID, 1) }))
	if got["202"] != 50 || got["409 sold_out"] != 150 {
		t.Errorf("got %v", got)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 0, 50, 0)
	if n := len(w.Copies()); n != 50 {
		t.Errorf("the queue holds %d orders", n)
	}
}

func TestLimitHoldsInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000, func(p *order.Product) { p.LimitPerUser = 1 })
	got := apitest.Count(apitest.Crowd(200, func(int) apitest.Reply { return w.Post(1, p.ID, 1) }))
	if got["202"] != 1 || got["409 limit_exceeded"] != 199 {
		t.Errorf("got %v", got)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 999, 1, 0)
}

func TestRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	first := w.Post(1, p.ID, 2, "Idempotency-Key", "again")
	w.WantSettledOutbox(p.ID)
	for range 3 {
		r := w.Post(1, p.ID, 2, "Idempotency-Key", "again")
		if r.Status != 202 || r.Body != first.Body || r.Header.Get("Location") != first.Header.Get("Location") ||
			r.Header.Get("Retry-After") != "1" {
			t.Errorf("got %v, want %v", r, first)
		}
	}
	apitest.WantProblem(t, w.Post(1, p.ID, 3, "Idempotency-Key", "again"), 422, problem.IdempotencyMismatch)
	w.WantLevel(p.ID, 8, 2, 0)
	if n := len(w.Orders()); n != 1 {
		t.Errorf("the queue holds %d orders", n)
	}
	// The key still stands for the order when that is decided, and when nothing is left.
	var accepted acceptedBody
	first.Read(t, &accepted)
	w.decide(accepted.OrderID, 1, order.Completed, "")
	w.MustPost(2, p.ID, 8)
	if r := w.Post(1, p.ID, 2, "Idempotency-Key", "again"); r.Status != 202 || r.Body != first.Body {
		t.Errorf("got %v, want %v", r, first)
	}
	if r := w.Get(1, "/api/orders/"+accepted.OrderID); !strings.Contains(r.Body, `"completed"`) {
		t.Errorf("a retry has undone the decision: %v", r)
	}
}

func TestRetriesInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000)
	replies := apitest.Crowd(200, func(int) apitest.Reply {
		return w.Post(1, p.ID, 2, "Idempotency-Key",
			"all-the-same")
	})
	for _, r := range replies {
		if r.Status != 202 || r.Body != replies[0].Body {
			t.Fatalf("got %v and %v", r, replies[0])
		}
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 998, 2, 0)
	if copies := w.Copies(); len(copies) != 1 {
		t.Errorf("the queue holds %v", copies)
	}
}

// reserveUnsent reserves an order as an edge does that dies before it has sent the order.
func (w *world) reserveUnsent(user order.UserID, p order.Product, quantity int64, key string) order.Order {
	w.Helper()
	w.LoadNow(p)
	_, results, err := w.Stock.Reserve(w.Context(), p.ID, 0,
		[]stock.Request{{OrderID: order.NewID(), UserID: user, Quantity: quantity, IdempotencyKey: key}})
	w.Must(err)
	if results[0].Outcome != stock.Reserved {
		w.Fatalf("got %+v", results[0])
	}
	return results[0].Order
}

// locationOf is where an order is found.
func locationOf(o order.Order) string {
	return fmt.Sprintf("/api/orders/%s?product_id=%d", o.ID, o.StockID.Product())
}

func TestRetrySendsWhatAnEdgeLeftBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	left := w.reserveUnsent(1, p, 2, "k")
	// it was promised another price
	w.Must(w.RDB.HSet(t.Context(), fmt.Sprintf("sale:{%d}", p.ID), "price", 9999).Err())
	if id := w.MustPost(1, p.ID, 2, "Idempotency-Key", "k"); id != left.ID.String() {
		t.Errorf("got order %s, want %s", id, left.ID)
	}
	orders := w.Orders()
	if len(orders) != 1 || !orders[0].ReservedAt.Equal(left.ReservedAt) {
		t.Fatalf("the queue holds %+v, want %+v", orders, left)
	}
	orders[0].ReservedAt = left.ReservedAt
	if orders[0] != left {
		t.Errorf("the queue holds %+v, want %+v", orders[0], left)
	}
	if r := w.Get(1, "/api/orders/"+left.ID.String()); r.Status != 200 {
		t.Errorf("got %v", r)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 8, 2, 0)

	// Such an order can no longer be cancelled: somebody else may be about to send it.
	left = w.reserveUnsent(2, p, 2, "k")
	w.SQS.RefuseNext("SendMessageBatch", 3)
	r := w.Post(2, p.ID, 2, "Idempotency-Key", "k")
	apitest.WantProblem(t, r, 503, problem.OutcomeUnknown)
	if !strings.Contains(r.Body, left.ID.String()) || r.Header.Get("Location") != locationOf(left) {
		t.Errorf("got %v, %q", r, r.Header)
	}
	w.WantLevel(p.ID, 6, 4, 1)
}

// tickets are requests to order one unit each, made at a time; a key may be empty.
func tickets(product order.ProductID, since time.Time, keys ...string) []*ticket {
	made := make([]*ticket, len(keys))
	for i, key := range keys {
		made[i] = &ticket{
			request:   stock.Request{OrderID: order.NewID(), UserID: 1, Quantity: 1, IdempotencyKey: key},
			productID: product, since: since, answer: make(chan *answer, 1),
		}
	}
	return made
}

// A request and its retry can meet in one call of the script. The retry must not be told that the order
// was accepted before the queue has it.
func TestRetryInTheSameBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.RefuseNext("SendMessageBatch", 3)
	refused := tickets(p.ID.Product(), time.Now(), "k", "k", "k")
	w.edge.reserver.reserve(lane{p.ID, false}, append([]*ticket(nil), refused...))
	for i, r := range refused {
		if a := <-r.answer; a.code != problem.QueueUnavailable {
			t.Errorf("%d: got %q, though the queue has refused the order", i, a.code)
		}
	}
	w.WantLevel(p.ID, 10, 0, 0)
	sent := tickets(p.ID.Product(), time.Now(), "k", "k", "", "k")
	w.edge.reserver.reserve(lane{p.ID, false}, append([]*ticket(nil), sent...))
	ids := map[order.OrderID]int{}
	for _, s := range sent {
		a := <-s.answer
		if a.code != accepted {
			t.Errorf("got %q", a.code)
		}
		ids[a.order.ID]++
	}
	if len(ids) != 2 || len(w.Copies()) != 2 {
		t.Errorf("the answers are %v, the queue holds %v", ids, w.Copies())
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 8, 2, 0)
}

// A request that has waited too long for its reservation is not reserved.
func TestLateTickets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	late := tickets(p.ID.Product(), time.Now().Add(-2*maxWait), "", "")
	timely := tickets(p.ID.Product(), time.Now(), "")
	w.edge.reserver.reserve(lane{p.ID, false}, []*ticket{late[0], timely[0], late[1]})
	for _, l := range late {
		if a := <-l.answer; a.code != problem.StockUnavailable {
			t.Errorf("got %q", a.code)
		}
	}
	if a := <-timely[0].answer; a.code != accepted {
		t.Errorf("got %q", a.code)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 9, 1, 0)
}

// A crowd that is larger than what can be served in time is told so at once.
func TestWaitingRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(100_000)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.Redis.Hang()
	crowd := tickets(p.ID.Product(), time.Now(), make([]string, 1+maxWaiting)...)
	w.edge.reserver.submit(crowd[0])
	w.Eventually("a call is under way", func() bool { return w.Redis.Holding() > 0 })
	for _, c := range crowd[1:] {
		w.edge.reserver.submit(c)
	}
	r := w.Post(1, p.ID, 1)
	apitest.WantProblem(t, r, 503, problem.StockUnavailable)
	if r.Took > 2*time.Second {
		t.Errorf("the answer took %v", r.Took)
	}
	w.Redis.Heal()
	for _, c := range crowd {
		if a := <-c.answer; a.code != accepted {
			t.Fatalf("who was let in got %q", a.code)
		}
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 100_000-2-maxWaiting, 2+maxWaiting, 0)
	w.MustPost(1, p.ID, 1)
}

func TestRedisDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	pending := w.MustPost(1, p.ID, 1)
	decided := order.Order{ID: order.NewID(), UserID: 1, StockID: p.ID, Quantity: 1, UnitPrice: 1500,
		ReservedAt: time.Now()}
	_, err := w.Ledger.Decide(t.Context(), p.ID, []order.Order{decided})
	w.Must(err)
	w.WantSettledOutbox(p.ID)
	before := w.Level(p.ID)
	w.Redis.Cut()
	apitest.WantProblem(t, w.Post(1, p.ID, 1), 503, problem.StockUnavailable)
	apitest.WantProblem(t, w.Get(1, "/readyz"), 503, problem.NotReady)
	apitest.WantProblem(t, w.Get(1, "/api/orders/"+pending), 503, problem.OrdersUnavailable)
	for _, path := range []string{"/healthz", "/api/orders", "/api/products", fmt.Sprintf("/api/products/%d", p.ID),
		"/api/orders/" + decided.ID.String()} {
		if r := w.Get(1, path); r.Status != 200 {
			t.Errorf("%s: %v", path, r)
		}
	}
	if r := w.Get(1, "/readyz"); strings.Contains(r.Body, "127.0.0.1") {
		t.Errorf("the public learns where Redis is: %v", r)
	}
	if got := w.Level(p.ID); got != before {
		t.Errorf("got %+v, want %+v", got, before)
	}
	w.Redis.Heal()
	w.Eventually("the edge is ready", func() bool { return w.Get(1, "/readyz").Status == 200 })
	w.Eventually("orders are taken", func() bool { return w.Post(1, p.ID, 1).Status == 202 })
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(100)
	pending := w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.Redis.Hang()
	var took sync.Map
	var all sync.WaitGroup
	for name, request := range map[string]func() apitest.Reply{
		"order":   func() apitest.Reply { return w.Post(2, p.ID, 1) },
		"status":  func() apitest.Reply { return w.Get(1, "/api/orders/"+pending) },
		"ready":   func() apitest.Reply { return w.Get(1, "/readyz") },
		"product": func() apitest.Reply { return w.Get(1, fmt.Sprintf("/api/products/%d", p.ID)) },
	} {
		all.Go(func() { took.Store(name, request()) })
	}
	all.Wait()
	for name, want := range map[string]string{"order": "503 stock_unavailable", "status": "503 orders_unavailable",
		"ready": "503 not_ready", "product": "200"} {
		v, _ := took.Load(name)
		if r := v.(apitest.Reply); apitest.Count([]apitest.Reply{r})[want] != 1 || r.Took > 12*time.Second {
			t.Errorf("%s: got %v, want %s", name, r, want)
		}
	}
	w.Redis.Heal()
	w.Eventually("orders are taken", func() bool { return w.Post(3, p.ID, 1).Status == 202 })
}

// Without MySQL orders are taken for what is loaded, and for nothing else.
func TestMySQLDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loaded, fresh := w.AddProduct(10), w.AddProduct(10)
	w.MustPost(1, loaded.ID, 1)
	w.MySQL.Cut()
	w.MustPost(1, loaded.ID, 1)
	apitest.WantProblem(t, w.Post(1, fresh.ID, 1), 503, problem.StockUnavailable)
	if r := w.Get(1, "/readyz"); r.Status != 200 {
		t.Errorf("got %v", r)
	}
	w.MySQL.Heal()
	w.Eventually("orders are taken", func() bool { return w.Post(1, fresh.ID, 1).Status == 202 })
}

// A MySQL that hangs costs who needs it a bounded time, and others nothing.
func TestMySQLHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	id := w.MustPost(1, p.ID, 1)
	w.MySQL.Hang()
	if r := w.Post(1, p.ID, 1); r.Status != 202 || r.Took > 2*time.Second {
		t.Errorf("got %v", r)
	}
	location := fmt.Sprintf("/api/orders/%s?product_id=%d", id, p.ID)
	if r := w.Get(1, location); r.Status != 200 || r.Took > 2*time.Second {
		t.Errorf("got %v", r)
	}
	for _, r := range apitest.Crowd(50, func(int) apitest.Reply { return w.Get(1, "/api/orders") }) {
		apitest.WantProblem(t, r, 503, problem.OrdersUnavailable)
		if r.Took > lookupTimeout+3*time.Second {
			t.Errorf("got %v", r)
		}
	}
}

// Every outcome that the script can refuse with has a code, and every code a title and a status.
func TestEveryOutcomeHasACode(t *testing.T) {
	t.Parallel()
	for _, outcome := range []stock.Outcome{stock.SoldOut, stock.LimitExceeded, stock.NotStarted, stock.Ended,
		stock.IdempotencyMismatch} {
		if c := refusals[outcome]; c.Status() < 400 || c.Title() == "" {
			t.Errorf("outcome %d has code %q", outcome, c)
		}
	}
	for _, c := range problem.Codes() {
		if c.Status() < 400 || c.Status() > 599 || c.Title() == "" || c == "" {
			t.Errorf("%q: %d %q", c, c.Status(), c.Title())
		}
	}
}

// TestAnUnknownOutcomeIsNoAcceptedOrder: an empty code is a 202.
func TestAnUnknownOutcomeIsNoAcceptedOrder(t *testing.T) {
	for o := stock.Outcome(-20); o <= 20; o++ {
		if new(ticket).refusal(o) == "" {
			t.Errorf("outcome %d is answered as an accepted order", o)
		}
	}
}
