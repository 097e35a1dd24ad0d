package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/localstack/sqs"
)

// shortDeadline makes the edge give up on the queue's acknowledgement early.
func shortDeadline(e *Edge) { e.sender.deadline = 700 * time.Millisecond }

// sendBatch is the action by which orders reach the queue.
const sendBatch = "SendMessageBatch"

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10, func(p *order.Product) { p.LimitPerUser = 3 })
	w.MustPost(2, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	before := w.Dump()
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit"})
	r := w.Post(1, p.ID, 3, "Idempotency-Key", "k")
	apitest.WantProblem(t, r, 503, problem.QueueUnavailable)
	if r.Header.Get("Location") != "" || r.Took > 5*time.Second {
		t.Errorf("got %v, %q", r, r.Header)
	}
	// Units, buyer's count, key and order are as if nothing had been, when the batch has left the outbox.
	w.edge.sender.acks.Wait()
	if after := w.Dump(); !maps.Equal(before, after) {
		t.Errorf("before %q\nafter  %q", before, after)
	}
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit"})
	apitest.WantProblem(t, w.Post(1, p.ID, 3), 503, problem.QueueUnavailable)

	w.SQS.SetFaults(sqs.Faults{})
	w.SQS.RefuseNext(sendBatch, 2) // a moment's refusal is not the client's business
	w.MustPost(1, p.ID, 2, "Idempotency-Key", "k")
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 7, 3, 0)
	if n := len(w.Orders()); n != 2 {
		t.Errorf("the queue holds %d orders", n)
	}
}

// A refused order is forgotten, also by who has learnt its id meanwhile.
func TestRefusedOrderIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit",
		Delay: 300 * time.Millisecond})
	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Post(1, p.ID, 1) }()
	var id string
	w.Eventually("the order is pending", func() bool {
		ids, err := w.RDB.HKeys(t.Context(), fmt.Sprintf("reserved:{%d}", p.ID)).Result()
		if err == nil && len(ids) == 1 {
			id = ids[0]
		}
		return id != ""
	})
	if r := w.Get(1, "/api/orders/"+id); r.Status != 200 {
		t.Errorf("who has learnt the id of an order that is pending got %v", r)
	}
	apitest.WantProblem(t, <-answered, 503, problem.QueueUnavailable)
	apitest.WantProblem(t, w.Get(1, "/api/orders/"+id), 404, problem.OrderNotSeenYet)
}

func TestQueueIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.AWS.Cut()
	// The connection of before may break with the first request on it, which is then of unknown outcome.
	var r apitest.Reply
	var before map[string]string
	for range 3 {
		before = w.Dump()
		if r = w.Post(1, p.ID, 1, "Idempotency-Key", "k"); r.Code() == string(problem.QueueUnavailable) {
			break
		}
	}
	apitest.WantProblem(t, r, 503, problem.QueueUnavailable)
	w.edge.sender.acks.Wait()
	for key, value := range w.Dump() {
		if before[key] != value && !strings.HasPrefix(key, "sale:") && !strings.HasPrefix(key, "stock:") &&
			key != "products" {
			t.Errorf("%s is left behind", key)
		}
	}
	w.AWS.Heal()
	w.MustPost(1, p.ID, 1, "Idempotency-Key", "k")
	w.WantSettledOutbox(p.ID)
	if l := w.Level(p.ID); l.Available+l.Reserved != 10 {
		t.Errorf("got %+v", l)
	}
}

func TestAnswerIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.LoseNext(sendBatch, 2)
	id := w.MustPost(1, p.ID, 1)
	if copies := w.Copies(); len(copies) != 1 || copies[id] != 3 {
		t.Errorf("the queue holds %v", copies)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 9, 1, 0)
}

// An order whose first sending had no answer may be on the queue, so that no later refusal cancels it.
func TestUnknownIsNeverCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.LoseNext(sendBatch, 1)
	w.SQS.RefuseNext(sendBatch, 4) // the first of which nobody hears of
	r := w.Post(1, p.ID, 1, "Idempotency-Key", "k")
	apitest.WantProblem(t, r, 503, problem.OutcomeUnknown)
	w.wantUnknown(r, p, "k")
}

// wantUnknown checks that the order of an answer is named, is visible, stays reserved, and is sent by a retry.
func (w *world) wantUnknown(r apitest.Reply, p order.Product, key string) {
	w.Helper()
	var document struct {
		OrderID string `json:"order_id"`
	}
	r.Read(w, &document)
	if got := r.Header.Get("Location"); document.OrderID == "" ||
		got != fmt.Sprintf("/api/orders/%s?product_id=%d", document.OrderID, p.ID) {
		w.Fatalf("Location is %q for order %q", got, document.OrderID)
	}
	w.WantLevel(p.ID, p.Stock-1, 1, 1)
	w.SQS.SetFaults(sqs.Faults{})
	if got := w.Get(1, r.Header.Get("Location")); got.Status != 200 || !strings.Contains(got.Body, `"pending"`) {
		w.Errorf("got %v", got)
	}
	if id := w.MustPost(1, p.ID, 1, "Idempotency-Key", key); id != document.OrderID {
		w.Errorf("the retry is order %s, want %s", id, document.OrderID)
	}
	if copies := w.Copies(); len(copies) != 1 || copies[document.OrderID] == 0 {
		w.Errorf("the queue holds %v", copies)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, p.Stock-1, 1, 0)
}

func TestQueueIsUnreachable(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*world){
		"closes connections": func(w *world) { w.SQS.SetFaults(sqs.Faults{Unavailable: true}) },
		"says nothing":       func(w *world) { w.AWS.Hang() },
		"loses all answers":  func(w *world) { w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Lose: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shortDeadline)
			p := w.AddProduct(10)
			fail(w)
			r := w.Post(1, p.ID, 1, "Idempotency-Key", "k")
			apitest.WantProblem(t, r, 503, problem.OutcomeUnknown)
			if r.Took < w.edge.sender.deadline || r.Took > w.edge.sender.deadline+5*time.Second {
				t.Errorf("the answer took %v", r.Took)
			}
			w.AWS.Heal()
			w.wantUnknown(r, p, "k")
		})
	}
}

// reserveMany reserves an order for each of n users, and returns what is to be sent.
func (w *world) reserveMany(p order.Product, n int) []*parcel {
	w.Helper()
	w.LoadNow(p)
	var parcels []*parcel
	for len(parcels) < n {
		requests := make([]stock.Request, min(n-len(parcels), stock.MaxBatch))
		for i := range requests {
			requests[i] = stock.Request{OrderID: order.NewID(), UserID: order.UserID(len(parcels) + i + 1), Quantity: 1,
				IdempotencyKey: uuid.NewString()}
		}
		sale, results, err := w.Stock.Reserve(w.Context(), p.ID, 0, requests)
		w.Must(err)
		all, _ := w.edge.reserver.unsent.begin(lane{p.ID, false}, results[0].Batch, len(results))
		for i := range results {
			parcels = append(parcels, &parcel{
				order: results[i].Order, sale: sale, since: time.Now(),
				tickets: []*ticket{{request: requests[i], productID: p.ID.Product(), answer: make(chan *answer, 1)}},
				batch:   all,
			})
		}
	}
	return parcels
}

// Of a batch of messages of which the queue takes some, each order has its own fate.
func TestQueueTakesAPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(2000)
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, FailEntry: 0.7, Seed: 1, RefuseWith: "OverLimit"})
	parcels := w.reserveMany(p, 1000)
	all := append([]*parcel(nil), parcels...)
	w.edge.sender.submit(parcels)
	var taken, refused int
	answers := make([]*answer, len(all))
	for i, sent := range all {
		answers[i] = <-sent.tickets[0].answer
	}
	copies := w.Copies()
	for i, sent := range all {
		id := sent.order.ID.String()
		n, known := copies[id], w.Get(sent.order.UserID, "/api/orders/"+id).Status
		switch answers[i].code {
		case accepted:
			taken++
			if n != 1 || known != 200 {
				t.Errorf("an accepted order is %d times on the queue, its state gets %d", n, known)
			}
		case problem.QueueUnavailable:
			refused++
			if n != 0 || known != 404 {
				t.Errorf("a refused order is %d times on the queue, its state gets %d", n, known)
			}
		default:
			t.Errorf("got %q", answers[i].code)
		}
	}
	if taken == 0 || refused == 0 {
		t.Errorf("%d accepted and %d refused: the fault tests nothing", taken, refused)
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 2000-int64(taken), int64(taken), 0)
}

// An order that the relay has claimed may be on its way through it, so that its edge can no longer cancel it.
func TestClaimedOrderIsNotCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Refuse: 1, RefuseWith: "OverLimit",
		Delay: 300 * time.Millisecond})
	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Post(1, p.ID, 1, "Idempotency-Key", "k") }()
	w.Eventually("the order is in the outbox", func() bool { return w.Level(p.ID).Outbox == 1 })
	claimed, _, err := w.Stock.Claim(t.Context(), p.ID, 0, 0)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %v, %v", claimed, err)
	}
	r := <-answered
	apitest.WantProblem(t, r, 503, problem.OutcomeUnknown)
	w.wantUnknown(r, p, "k")
}

// A client that repeats a request whose order is on its way gets the answer of that order, and no earlier.
func TestRetryOfWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"acknowledged": false, "not acknowledged": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shortDeadline)
			p := w.AddProduct(10)
			w.AWS.Hang()
			answers := make(chan apitest.Reply, 10)
			post := func() { answers <- w.Post(1, p.ID, 1, "Idempotency-Key", "k") }
			go post()
			w.Eventually("the order is in the outbox", func() bool { return w.Level(p.ID).Outbox == 1 })
			for range cap(answers) - 1 {
				go post()
			}
			w.Eventually("all wait for it", func() bool {
				w.edge.sender.mu.Lock()
				defer w.edge.sender.mu.Unlock()
				for _, sent := range w.edge.sender.pending {
					return len(sent.tickets) == cap(answers)
				}
				return len(answers) > 0
			})
			if !lost {
				w.AWS.Heal()
			}
			first := <-answers
			if (first.Status == 202) == lost {
				t.Errorf("got %v", first)
			}
			for range cap(answers) - 1 {
				if r := <-answers; r.Status != first.Status || r.Told() != first.Told() {
					t.Errorf("got %v, want %v", r, first)
				}
			}
			w.AWS.Heal()
			w.MustPost(1, p.ID, 1, "Idempotency-Key", "k")
			w.WantSettledOutbox(p.ID)
			w.WantLevel(p.ID, 9, 1, 0)
			if copies := w.Copies(); len(copies) != 1 {
				t.Errorf("the queue holds %v", copies)
			}
			w.edge.sender.mu.Lock()
			defer w.edge.sender.mu.Unlock()
			if len(w.edge.sender.pending) != 0 {
				t.Errorf("%d parcels are never forgotten", len(w.edge.sender.pending))
			}
		})
	}
}

// While calls to the queue hang, further orders are reserved and sent: they wait for an earlier batch for a moment
// only.
func TestHangingQueueStopsNoSale(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.AWS.Hang()
	const n = 5
	answers := make(chan apitest.Reply, n)
	begin := time.Now()
	for i := range int64(n) {
		go func() { answers <- w.Post(order.UserID(i+2), p.ID, 1) }()
		w.Eventually("the order is reserved", func() bool { return w.Level(p.ID).Outbox == i+1 })
	}
	if took := time.Since(begin); took > maxWait {
		t.Errorf("%d orders were reserved in %v", n, took)
	}
	w.AWS.Heal()
	for range n {
		if r := <-answers; r.Status != 202 {
			t.Errorf("got %v", r)
		}
	}
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 9-n, 1+n, 0)
}

// A batch of which the queue has a part for sure stays in the outbox, so that the rest of it is sent.
func TestABatchThatIsSentInPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shortDeadline)
	p := w.AddProduct(10)
	parcels := w.reserveMany(p, 2)
	w.edge.sender.submit(parcels[:1:1])
	if a := <-parcels[0].tickets[0].answer; a.code != accepted {
		t.Fatalf("got %q", a.code)
	}
	w.AWS.Hang()
	w.edge.sender.submit(parcels[1:])
	if a := <-parcels[1].tickets[0].answer; a.code != problem.OutcomeUnknown {
		t.Fatalf("got %q", a.code)
	}
	w.edge.sender.parcels.Wait()
	w.edge.sender.acks.Wait()
	if n := w.Level(p.ID).Outbox; n != 2 {
		t.Errorf("%d orders are in the outbox", n)
	}

	// When the rest is sent as well it leaves.
	w.AWS.Heal()
	parcels = w.reserveMany(p, 2)
	w.edge.sender.submit(parcels[:1:1])
	<-parcels[0].tickets[0].answer
	if n := w.Level(p.ID).Outbox; n != 4 {
		t.Errorf("before all of it is sent %d orders are in the outbox", n)
	}
	w.edge.sender.submit(parcels[1:])
	<-parcels[1].tickets[0].answer
	w.edge.sender.acks.Wait()
	w.Eventually("the batch that is sent has left the outbox", func() bool { return w.Level(p.ID).Outbox == 2 })
}

// Reserved orders that have waited too long for a failing queue are given back unsent.
func TestLateParcels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	parcels := slices.Concat(w.reserveMany(p, 1), w.reserveMany(p, 1), w.reserveMany(p, 1)) // in a batch each
	// A retry claims it.
	_, results, err := w.Stock.Reserve(t.Context(), p.ID, 0, []stock.Request{{
		OrderID: parcels[1].order.ID, UserID: 1, Quantity: 1, IdempotencyKey: parcels[1].order.IdempotencyKey,
	}})
	if err != nil || !results[0].Unsent {
		t.Fatalf("got %+v, %v", results, err)
	}
	for _, late := range parcels[:2] {
		late.since = time.Now().Add(-2 * maxWait)
	}
	w.edge.sender.submit(append([]*parcel(nil), parcels...))
	for i, want := range []problem.Code{problem.QueueUnavailable, problem.OutcomeUnknown, accepted} {
		if a := <-parcels[i].tickets[0].answer; a.code != want {
			t.Errorf("%d: got %q, want %q", i, a.code, want)
		}
	}
	w.Eventually("the sent order has left the outbox", func() bool { return w.Level(p.ID).Outbox == 1 })
	w.WantLevel(p.ID, 8, 2, 1)
	if copies := w.Copies(); len(copies) != 1 || copies[parcels[2].order.ID.String()] != 1 {
		t.Errorf("the queue holds %v", copies)
	}
}
