package main

import (
	"bytes"
	"context"
	"fmt"
	"github.com/prometheus/client_golang/prometheus"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/sqs"
)

// stop stops the edge within a time and returns the outcome through a channel.
func (w *world) stop(within, notice time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		done <- w.edge.Stop(ctx, notice)
	}()
	return done
}

// During the notice the edge is not ready, and takes orders all the same.
func TestReadinessFailsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	if r := w.get(1, "/readyz"); r.status != 200 || r.body != "ok\n" {
		t.Errorf("got %v", r)
	}
	done := w.stop(20*time.Second, 2*time.Second)
	w.eventually("readiness fails", func() bool {
		r := w.get(1, "/readyz")
		if r.status != 503 {
			return false
		}
		wantProblem(t, r, 503, notReady)
		return true
	})
	if err := w.edge.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the admin port says %v", err)
	}
	w.mustPost(1, p.ID, 1)
	if r := w.get(1, "/healthz"); r.status != 200 {
		t.Errorf("got %v", r)
	}
	w.must(<-done)
	if _, err := net.Dial("tcp", w.addr); err == nil {
		t.Error("a stopped edge takes connections")
	}
	w.wantLevel(p.ID, 9, 1, 0)
}

// Requests under way are finished and answered, also those that still have to ask MySQL or Redis.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	decided := order.Order{ID: order.NewID(), UserID: 1, ProductID: p.ID, Quantity: 1, UnitPrice: 1500,
		ReservedAt: time.Now()}
	_, err := w.ledger.Decide(t.Context(), p.ID, []order.Order{decided})
	w.must(err)
	w.mustPost(1, p.ID, 1) // so that the stock is loaded
	w.sqs.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Delay: time.Second})
	ordered, looked, listed := make(chan reply, 1), make(chan reply, 1), make(chan reply, 1)
	go func() { ordered <- w.post(1, p.ID, 1) }()
	w.eventually("the order is sent", func() bool { return w.sqs.Requests()[sendBatch] == 2 })
	w.mysql.hang()
	go func() { looked <- w.get(1, "/api/orders/"+decided.ID.String()) }()
	go func() { listed <- w.get(1, "/api/orders") }()
	w.eventually("MySQL is asked", func() bool { return w.mysql.holding() == 2 })
	done := w.stop(20*time.Second, 0)
	w.eventually("no more connections are taken", func() bool {
		c, err := net.Dial("tcp", w.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	w.mysql.heal()
	if r := <-ordered; r.status != 202 || r.header.Get("Connection") != "" && r.header.Get("Connection") != "close" {
		t.Errorf("got %v", r)
	}
	if r := <-looked; r.status != 200 {
		t.Errorf("got %v", r)
	}
	if r := <-listed; r.status != 200 {
		t.Errorf("got %v", r)
	}
	w.must(<-done)
	w.wantLevel(p.ID, 7, 2, 0) // the decided one is out of MySQL's stock
}

// An order that was answered is not yet done with: the edge stops when it has left the outbox.
func TestStopClearsTheOutbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.sqs.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Delay: 300 * time.Millisecond})
	answered := make(chan reply, 1)
	go func() { answered <- w.post(1, p.ID, 1) }()
	w.eventually("the order is sent", func() bool { return w.sqs.Requests()[sendBatch] == 1 })
	w.redis.hang()
	if r := <-answered; r.status != 202 {
		t.Fatalf("got %v", r)
	}
	done := w.stop(20*time.Second, 0)
	select {
	case err := <-done:
		t.Fatalf("it has stopped before: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	w.redis.heal()
	w.must(<-done)
	w.wantLevel(p.ID, 9, 1, 0)
}

// Who waits for a decision, or has an idle connection, does not hold the edge up.
func TestStopEndsWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	id := w.mustPost(1, p.ID, 1)
	crowd(20, func(int) reply { return w.get(1, "/healthz") }) // which leaves idle connections
	for range 3 {                                              // and these never ask for anything
		c, err := net.Dial("tcp", w.addr)
		w.must(err)
		defer c.Close()
	}
	answers := make(chan []reply, 1)
	go func() { answers <- crowd(20, func(int) reply { return w.get(1, "/api/orders/"+id+"?wait=20s") }) }()
	w.eventually("20 clients wait", func() bool { return w.waiting() == 20 })
	begin := time.Now()
	done := w.stop(20*time.Second, 0)
	for _, r := range <-answers {
		if r.status != 200 || !strings.Contains(r.body, `"pending"`) {
			t.Errorf("got %v", r)
		}
	}
	w.must(<-done)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	w.must(w.edge.Stop(t.Context(), 0)) // again
}

// Not even a queue that never answers keeps the edge from stopping; the order stays for the relay.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.mustPost(1, p.ID, 1)
	w.wantSettledOutbox(p.ID)
	w.aws.hang()
	answered := make(chan reply, 1)
	go func() { answered <- w.post(1, p.ID, 1) }()
	w.eventually("the order is in the outbox", func() bool { return w.level(p.ID).Outbox == 1 })
	begin := time.Now()
	if err := <-w.stop(300*time.Millisecond, 10*time.Second); err == nil ||
		!strings.Contains(err.Error(), "outbox relay") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	w.wantLevel(p.ID, 8, 2, 1)
	w.aws.heal()
	if r := <-answered; r.status != 202 {
		t.Errorf("got %v", r)
	}
}

// Clients that are slow to send or to read lose their connection and cost others nothing.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(e *Edge) {
		if e.server.ReadTimeout <= 0 || e.server.WriteTimeout <= 0 || e.server.IdleTimeout <= 60*time.Second ||
			e.server.Concurrency <= 0 {
			t.Error("the edge has no bound for its clients")
		}
		e.server.ReadTimeout, e.server.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	})
	p := w.addProduct(10)
	deaf, err := net.Dial("tcp", w.addr)
	w.must(err)
	defer deaf.Close()
	// It asks for far more than the buffers between hold, and reads nothing of it.
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		ask := bytes.Repeat([]byte("GET /nowhere HTTP/1.1\r\nHost: edge\r\n\r\n"), 1000)
		for {
			if _, err := deaf.Write(ask); err != nil {
				return
			}
		}
	}()
	slow, err := net.Dial("tcp", w.addr)
	w.must(err)
	defer slow.Close()
	dripping := make(chan struct{})
	go func() {
		defer close(dripping)
		for _, b := range []byte("POST /api/orders HTTP/1.1\r\nHost: edge\r\nX: " + strings.Repeat("x", 10_000)) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	w.mustPost(1, p.ID, 1)
	_ = slow.SetReadDeadline(time.Now().Add(15 * time.Second))
	wantProblem(t, readReply(slow), 408, requestTimeout)
	<-dripping
	<-asking
	w.client.CloseIdleConnections()
	w.eventually("no connection is left", func() bool { return w.edge.server.GetOpenConnectionsCount() == 0 })
	w.mustPost(1, p.ID, 1)
}

// A client that goes away before its answer leaves an order that is like any other.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.aws.hang()
	c, err := net.Dial("tcp", w.addr)
	w.must(err)
	body := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	_, err = io.WriteString(c, fmt.Sprintf("POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: "+
		"%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		w.bearer(1), len(body), body))
	w.must(err)
	w.eventually("the order is in the outbox", func() bool { return w.level(p.ID).Outbox == 1 })
	w.must(c.Close())
	w.aws.heal()
	w.wantSettledOutbox(p.ID)
	w.wantLevel(p.ID, 9, 1, 0)
	if n := len(w.copies()); n != 1 {
		t.Errorf("the queue holds %d orders", n)
	}
}

// TestStopBeforeServe: an edge that is stopped while it starts does not go on to serve.
func TestStopBeforeServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := New(w.openStock(w.redisURL), w.openMySQL(w.dsn), w.queue, w.tokens, newHasher(t), prometheus.NewRegistry())
	w.must(e.Stop(t.Context(), 0))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	select {
	case err := <-served:
		w.must(err)
	case <-time.After(15 * time.Second):
		t.Fatal("it serves after its stop")
	}
}
