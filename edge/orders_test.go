package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/localstack/sqs"
)

// acceptedBody is the body of a 202 as a client reads it.
type acceptedBody struct {
	OrderID    string        `json:"order_id"`
	Status     order.Status  `json:"status"`
	StockID    order.StockID `json:"product_id"`
	Quantity   int64         `json:"quantity"`
	UnitPrice  int64         `json:"unit_price"`
	TotalPrice int64         `json:"total_price"`
	Currency   string        `json:"currency"`
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	r := w.Post(7, p.ID, 3, "Idempotency-Key", "k-1")
	if r.Status != 202 {
		t.Fatalf("got %v", r)
	}
	orders := w.Orders() // before anything else: it must be there when the answer is
	var accepted acceptedBody
	r.Read(t, &accepted)
	id, err := uuid.Parse(accepted.OrderID)
	if err != nil || id.Version() != 7 {
		t.Errorf("order_id %q: version %d, %v", accepted.OrderID, id.Version(), err)
	}
	want := fmt.Sprintf(`{"order_id":"%s","status":"pending","product_id":%d,"quantity":3,"unit_price":1999,"total_price":5997,"currency":"EUR"}`, id, p.ID)
	if r.Body != want {
		t.Errorf("got  %s\nwant %s", r.Body, want)
	}
	for name, value := range map[string]string{
		"Location":    "/api/orders/" + id.String() + "?product_id=" + p.ID.String(),
		"Retry-After": "1", "Content-Type": "application/json",
	} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}

	if len(orders) != 1 {
		t.Fatalf("the queue holds %d orders", len(orders))
	}
	o := orders[0]
	if time.Since(o.ReservedAt).Abs() > time.Minute {
		t.Errorf("reserved at %v", o.ReservedAt)
	}
	o.ReservedAt = time.Time{}
	if o != (order.Order{ID: order.OrderID(id), UserID: 7, StockID: p.ID, Quantity: 3, UnitPrice: 1999,
		IdempotencyKey: "k-1"}) {
		t.Errorf("the queue holds %+v", o)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 7, 3, 0)
	if got := w.Requests(ordersRoute, "202", "ok"); got != 1 {
		t.Errorf("counted %v orders", got)
	}
}

// The pending order is visible at once, to its buyer only, and costs MySQL nothing.
func TestPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	id := w.MustPost(7, p.ID, 2)
	w.MySQL.Cut()
	w.MySQL.Forget()
	location := "/api/orders/" + id + "?product_id=" + p.ID.String()
	r := w.Get(7, location)
	var body orderBody
	r.Read(t, &body)
	if r.Status != 200 || r.Header.Get("Retry-After") != "1" || body.ReservedAt.IsZero() {
		t.Errorf("got %v", r)
	}
	body.ReservedAt = time.Time{}
	if body != (orderBody{OrderID: id, Status: order.Pending, ProductID: p.ID.Product(), Quantity: 2, UnitPrice: 1999,
		TotalPrice: 3998, Currency: "EUR"}) {
		t.Errorf("got %+v", body)
	}
	if n := w.MySQL.Asked(""); n != 0 {
		t.Errorf("MySQL was asked %d times", n)
	}
	// Without MySQL nobody can know that there is no such order. One of somebody else is treated alike.
	for _, product := range []string{"", "?product_id=" + p.ID.String()} {
		unknown := "/api/orders/" + order.NewID().String() + product
		apitest.WantProblem(t, w.Get(7, unknown), 503, problem.OrdersUnavailable)
		apitest.WantProblem(t, w.Get(8, "/api/orders/"+id+product), 503, problem.OrdersUnavailable)
	}
	w.MySQL.Heal()
	for _, product := range []string{"", "?product_id=" + p.ID.String(), "?product_id=99"} {
		unknown := "/api/orders/" + order.NewID().String() + product
		apitest.WantProblem(t, w.Get(7, unknown), 404, problem.OrderNotSeenYet)
		apitest.WantProblem(t, w.Get(8, "/api/orders/"+id+product), 404, problem.OrderNotSeenYet)

		// Who does not say of which product his order is waits a little longer.
		if r := w.Get(7, "/api/orders/"+id+product); (r.Status == 200) != (product != "?product_id=99") {
			t.Errorf("asked for with %q: %v", product, r)
		}
	}
	for _, product := range []string{"x", "0", "-1", "1.5", "99999999999999999999"} {
		r := w.Get(7, "/api/orders/"+id+"?product_id="+product)
		apitest.WantProblem(t, r, 400, problem.MalformedRequest)
	}

	// When it is decided it is found with any product, and then without MySQL.
	w.decide(id, 7, order.Completed, "")
	for _, product := range []string{"?product_id=99", ""} {
		if r := w.Get(7, "/api/orders/"+id+product); r.Status != 200 || !strings.Contains(r.Body, `"completed"`) {
			t.Errorf("of a decided order got %v", r)
		}
		w.MySQL.Cut()
	}
	apitest.WantProblem(t, w.Get(8, "/api/orders/"+id), 503, problem.OrdersUnavailable)
}

// TestAnOrderThatNobodyHasSeen: Redis has lost its data in the middle of a sale. An order that is on the queue is not
// denied but waited for.
func TestAnOrderThatNobodyHasSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	id := w.MustPost(7, p.ID, 1)
	w.Must(w.RDB.FlushDB(t.Context()).Err())
	r := w.Get(7, "/api/orders/"+id)
	apitest.WantProblem(t, r, 404, problem.OrderNotSeenYet)
	if r.Header.Get("Retry-After") != "1" {
		t.Errorf("got %v", r)
	}

	answer := make(chan apitest.Reply)
	go func() { answer <- w.Get(7, "/api/orders/"+id+"?wait=20s") }()
	w.Eventually("a client waits", func() bool { return w.waiting() == 1 })
	w.decide(id, 7, order.Completed, "")
	var body orderBody
	if r := <-answer; r.Status != 200 || json.Unmarshal([]byte(r.Body), &body) != nil ||
		body.Status != order.Completed {
		t.Errorf("got %v", r)
	}

	// Of what is too old to be on its way there is nothing to wait for, nor of what no edge has named.
	old := order.NewID()
	ms := time.Now().Add(-2 * unseenAge).UnixMilli()
	for b := range 6 {
		old[b] = byte(ms >> (40 - 8*b))
	}
	for _, id := range []order.OrderID{old, order.OrderID(uuid.New()), order.OrderID(uuid.Max)} {
		apitest.WantProblem(t, w.Get(7, "/api/orders/"+id.String()+"?wait=20s"), 404, problem.OrderNotFound)
	}
}

func TestNoAnswerBeforeTheQueueHasTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	const delay = 500 * time.Millisecond
	w.SQS.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, Delay: delay})
	if r := w.Post(7, p.ID, 1); r.Status != 202 || r.Took < delay {
		t.Errorf("got %v, though the queue acknowledges after %v", r, delay)
	}
}

// decide decides an order as a worker does. If Redis has lost it, it is of the product that is loaded, or of the first.
func (w *world) decide(id string, user order.UserID, status order.Status, reason order.Reason) {
	w.Helper()
	o := order.Order{ID: order.OrderID(uuid.MustParse(id)), UserID: user, StockID: 1, Quantity: 1, UnitPrice: 1999,
		ReservedAt: time.Now()}
	products, err := w.Stock.Products(w.Context())
	w.Must(err)
	for _, stockID := range products {
		pending, err := w.Stock.Pending(w.Context(), stockID, []order.OrderID{o.ID})
		w.Must(err)
		if record := pending.Records[0]; record != nil {
			o = record.Order
		}
	}

	var decisions []order.Decision
	if status == order.Completed {
		decisions, err = w.Ledger.Decide(w.Context(), o.StockID, []order.Order{o})
	} else {
		decisions = make([]order.Decision, 1)
		decisions[0], err = w.Ledger.Fail(w.Context(), o, reason)
	}
	w.Must(err)
	if d := decisions[0]; d.Status != status {
		w.Fatalf("order %s is %s %s", id, d.Status, d.FailedReason)
	}
	_, err = w.Stock.Settle(w.Context(), o.StockID, decisions)
	w.Must(err)
}

// waiting is how many clients wait for a decision.
func (w *world) waiting() int {
	w.edge.watcher.mu.Lock()
	defer w.edge.watcher.mu.Unlock()
	return w.edge.watcher.count
}

func TestLongPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(100)
	completed, failed, idle := w.MustPost(1, p.ID, 1), w.MustPost(1, p.ID, 1), w.MustPost(1, p.ID, 1)
	answers := make(chan []apitest.Reply)
	go func() {
		answers <- apitest.Crowd(20, func(i int) apitest.Reply {
			return w.Get(1, "/api/orders/"+[]string{completed, failed}[i%2]+"?wait=20s")
		})
	}()
	w.Eventually("20 clients wait", func() bool { return w.waiting() == 20 })

	if r := w.Get(1, "/api/orders/"+idle+"?wait=300ms"); r.Status != 200 || r.Header.Get("Retry-After") != "1" ||
		r.Took < 300*time.Millisecond || r.Took > 5*time.Second {
		t.Errorf("nothing is decided: got %v", r)
	}
	// An order of somebody else is waited for as if nobody knew it, also when it is decided.
	strangers := make(chan apitest.Reply)
	go func() { strangers <- w.Get(2, "/api/orders/"+completed+"?wait=3s") }()
	w.Eventually("21 clients wait", func() bool { return w.waiting() == 21 })

	w.decide(completed, 1, order.Completed, "")
	w.decide(failed, 1, order.Failed, order.SoldOut)
	decided := time.Now()
	defer func() {
		r := <-strangers
		apitest.WantProblem(t, r, 404, problem.OrderNotSeenYet)
		if r.Took < 3*time.Second {
			t.Errorf("a stranger could tell by the time that the order was decided: %v", r)
		}
	}()
	for i, r := range <-answers {
		var body orderBody
		r.Read(t, &body)
		want := []orderBody{{Status: order.Completed}, {Status: order.Failed, FailedReason: order.SoldOut}}[i%2]
		if r.Status != 200 || body.Status != want.Status || body.FailedReason != want.FailedReason ||
			body.DecidedAt.IsZero() || r.Header.Get("Retry-After") != "" {
			t.Errorf("got %v", r)
		}
	}
	if late := time.Since(decided); late > 5*time.Second {
		t.Errorf("the answers came %v after the decision", late)
	}
	if r := w.Get(1, "/api/orders/"+completed+"?wait=20s"); r.Status != 200 || r.Took > 5*time.Second {
		t.Errorf("of a decided order got %v", r)
	}
	w.Eventually("nobody waits and nothing is looked at", func() bool {
		w.edge.watcher.mu.Lock()
		defer w.edge.watcher.mu.Unlock()
		return w.edge.watcher.count == 0 && len(w.edge.watcher.waiting) == 0 && !w.edge.watcher.running
	})

	w.edge.watcher.mu.Lock()
	w.edge.watcher.count = maxWatches
	w.edge.watcher.mu.Unlock()
	if r := w.Get(1, "/api/orders/"+idle+"?wait=20s"); r.Status != 200 || r.Took > 5*time.Second {
		t.Errorf("when too many wait got %v", r)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000)
	page := func(user order.UserID, cursor string) (ids []string, next string) {
		t.Helper()
		r := w.Get(user, "/api/orders?cursor="+cursor)
		var body struct {
			Orders     []orderBody
			NextCursor string `json:"next_cursor"`
		}
		r.Read(t, &body)
		if r.Status != 200 {
			t.Fatalf("got %v", r)
		}
		for _, o := range body.Orders {
			if o.Status != order.Completed || o.UnitPrice != 1500 || o.TotalPrice != 3000 || o.Currency != "EUR" ||
				o.DecidedAt.IsZero() {
				t.Errorf("got %+v", o)
			}
			ids = append(ids, o.OrderID)
		}
		return ids, body.NextCursor
	}
	if r := w.Get(1, "/api/orders"); r.Status != 200 || r.Body != `{"orders":[]}` {
		t.Errorf("of nothing got %v", r)
	}

	var want []string // newest first
	for range 120 {
		for user := order.UserID(1); user <= 2; user++ {
			o := order.Order{ID: order.NewID(), UserID: user, StockID: p.ID, Quantity: 2, UnitPrice: 1500,
				ReservedAt: time.Now()}
			if _, err := w.Ledger.Decide(t.Context(), p.ID, []order.Order{o}); err != nil {
				t.Fatal(err)
			}
			if user == 1 {
				want = append([]string{o.ID.String()}, want...)
			}
		}
	}
	var got []string
	cursor := ""
	for _, size := range []int{50, 50, 20} {
		ids, next := page(1, cursor)
		if len(ids) != size || (next == "") != (size == 20) {
			t.Errorf("a page has %d orders and goes on with %q", len(ids), next)
		}
		got, cursor = append(got, ids...), next
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// An order that Redis has forgotten is read from MySQL.
	if r := w.Get(1, "/api/orders/"+want[0]); r.Status != 200 || r.Header.Get("Retry-After") != "" {
		t.Errorf("got %v", r)
	}
	apitest.WantProblem(t, w.Get(2, "/api/orders/"+want[0]), 404, problem.OrderNotSeenYet)
	w.MySQL.Cut()
	apitest.WantProblem(t, w.Get(1, "/api/orders"), 503, problem.OrdersUnavailable)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.AddProduct(5)
	limited := w.AddProduct(100, func(p *order.Product) { p.LimitPerUser = 3 })
	start, end := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond),
		time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	early := w.AddProduct(5, func(p *order.Product) { p.StartsAt = start })
	over := w.AddProduct(5, func(p *order.Product) { p.EndsAt = end })

	w.MustPost(1, plain.ID, 3, "Idempotency-Key", "mine")
	w.MustPost(1, limited.ID, 2)
	apitest.WantProblem(t, w.Post(1, plain.ID, 2, "Idempotency-Key", "mine"), 422, problem.IdempotencyMismatch)
	w.MustPost(2, plain.ID, 1, "Idempotency-Key", "mine") // keys are each user's own
	apitest.WantProblem(t, w.Post(1, plain.ID, 2), 409, problem.SoldOut)
	w.MustPost(1, plain.ID, 1) // fewer are left, not none
	apitest.WantProblem(t, w.Post(1, plain.ID, 1), 409, problem.SoldOut)

	r := w.Post(1, limited.ID, 2)
	apitest.WantProblem(t, r, 409, problem.LimitExceeded)
	var document struct {
		StartsAt time.Time `json:"starts_at"`
		EndsAt   time.Time `json:"ends_at"`
		Limit    int64     `json:"limit_per_user"`
	}
	if r.Read(t, &document); document.Limit != 3 {
		t.Errorf("got %v", r)
	}
	w.MustPost(1, limited.ID, 1)

	r = w.Post(1, early.ID, 1)
	apitest.WantProblem(t, r, 409, problem.SaleNotStarted)
	if r.Read(t, &document); !document.StartsAt.Equal(start) {
		t.Errorf("got %v, want %v", r, start)
	}
	r = w.Post(1, over.ID, 1)
	apitest.WantProblem(t, r, 409, problem.SaleEnded)
	if r.Read(t, &document); !document.EndsAt.Equal(end) {
		t.Errorf("got %v, want %v", r, end)
	}
	w.WantSettledOutbox(plain.ID)
	w.WantLevel(plain.ID, 0, 5, 0)
	w.WantLevel(early.ID, 5, 0, 0)
	w.WantLevel(over.ID, 5, 0, 0)
	// The code of one answer does not stick to the next on its connection.
	if got := w.Requests(ordersRoute, "202", problem.SoldOut); got != 0 {
		t.Errorf("%v orders were counted as accepted and sold out", got)
	}
	if got := w.Requests(ordersRoute, "409", problem.SoldOut); got != 2 {
		t.Errorf("%v orders were counted as sold out", got)
	}
}

func TestCursorOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{
		"/api/orders?cursor=" + testCursors.Order(order.OrderID{}),
		"/api/products?cursor=" + testCursors.Product(math.MaxInt64),
	} {
		if r := w.Get(1, path); r.Status != 200 || !json.Valid([]byte(r.Body)) {
			t.Errorf("%s: %v", path, r)
		}
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(5)
	for _, path := range []string{"/healthz", "/readyz", "/api/products", "/api/products/" +
		p.ID.String()} {
		get := w.Get(1, path)
		head := w.Send("HEAD", path, "")
		if head.Status != http.StatusOK || head.Body != "" ||
			head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %v", path, head)
		}
		if get.Status != http.StatusOK {
			t.Errorf("GET %s: %v", path, get)
		}
	}
	if r := w.Get(1, "/healthz"); r.Body != "ok\n" || r.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %v, %q", r, r.Header)
	}
}
