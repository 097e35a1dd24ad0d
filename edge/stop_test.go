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

	"stampede/internal/access"
	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
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
	p := w.AddProduct(10)
	if r := w.Get(1, "/readyz"); r.Status != 200 || r.Body != "ok\n" {
		t.Errorf("got %v", r)
	}
	done := w.stop(20*time.Second, 2*time.Second)
	w.Eventually("readiness fails", func() bool {
		r := w.Get(1, "/readyz")
		if r.Status != 503 {
			return false
		}
		apitest.WantProblem(t, r, 503, problem.NotReady)
		return true
	})
	if err := w.edge.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the admin port says %v", err)
	}
	w.MustPost(1, p.ID, 1)
	if r := w.Get(1, "/healthz"); r.Status != 200 {
		t.Errorf("got %v", r)
	}
	w.Must(<-done)
	if _, err := net.Dial("tcp", w.Addr); err == nil {
		t.Error("a stopped edge takes connections")
	}
	w.WantLevel(p.ID, 9, 1, 0)
}

// Requests under way are finished and answered, also those that still have to ask MySQL or Redis.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	decided := order.Order{ID: order.NewID(), UserID: 1, StockID: p.ID, Quantity: 1, UnitPrice: 1500,
		ReservedAt: time.Now()}
	_, err := w.Ledger.Decide(t.Context(), p.ID, []order.Order{decided})
	w.Must(err)
	w.MustPost(1, p.ID, 1) // so that the stock is loaded
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Delay: time.Second})
	ordered, looked, listed := make(chan apitest.Reply, 1), make(chan apitest.Reply, 1), make(chan apitest.Reply, 1)
	go func() { ordered <- w.Post(1, p.ID, 1) }()
	w.Eventually("the order is sent", func() bool { return w.SQS.Requests()[sendBatch] == 2 })
	w.MySQL.Hang()
	go func() { looked <- w.Get(1, "/api/orders/"+decided.ID.String()) }()
	go func() { listed <- w.Get(1, "/api/orders") }()
	w.Eventually("MySQL is asked", func() bool { return w.MySQL.Holding() == 2 })
	done := w.stop(20*time.Second, 0)
	w.Eventually("no more connections are taken", func() bool {
		c, err := net.Dial("tcp", w.Addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	w.MySQL.Heal()
	if r := <-ordered; r.Status != 202 || r.Header.Get("Connection") != "" && r.Header.Get("Connection") != "close" {
		t.Errorf("got %v", r)
	}
	if r := <-looked; r.Status != 200 {
		t.Errorf("got %v", r)
	}
	if r := <-listed; r.Status != 200 {
		t.Errorf("got %v", r)
	}
	w.Must(<-done)
	w.WantLevel(p.ID, 7, 2, 0) // the decided one is out of MySQL's stock
}

// An order that was answered is not yet done with: the edge stops when it has left the outbox.
func TestStopClearsTheOutbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.SQS.SetFaults(sqs.Faults{Actions: []string{sendBatch}, Delay: 300 * time.Millisecond})
	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Post(1, p.ID, 1) }()
	w.Eventually("the order is sent", func() bool { return w.SQS.Requests()[sendBatch] == 1 })
	w.Redis.Hang()
	if r := <-answered; r.Status != 202 {
		t.Fatalf("got %v", r)
	}
	done := w.stop(20*time.Second, 0)
	select {
	case err := <-done:
		t.Fatalf("it has stopped before: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	w.Redis.Heal()
	w.Must(<-done)
	w.WantLevel(p.ID, 9, 1, 0)
}

// Who waits for a decision, or has an idle connection, does not hold the edge up.
func TestStopEndsWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	id := w.MustPost(1, p.ID, 1)
	apitest.Crowd(20, func(int) apitest.Reply { return w.Get(1, "/healthz") }) // which leaves idle connections
	for range 3 {                                                              // and these never ask for anything
		c, err := net.Dial("tcp", w.Addr)
		w.Must(err)
		defer c.Close()
	}
	answers := make(chan []apitest.Reply, 1)
	go func() {
		answers <- apitest.Crowd(20, func(int) apitest.Reply { return w.Get(1, "/api/orders/"+id+"?wait=20s") })
	}()
	w.Eventually("20 clients wait", func() bool { return w.waiting() == 20 })
	begin := time.Now()
	done := w.stop(20*time.Second, 0)
	for _, r := range <-answers {
		if r.Status != 200 || !strings.Contains(r.Body, `"pending"`) {
			t.Errorf("got %v", r)
		}
	}
	w.Must(<-done)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	w.Must(w.edge.Stop(t.Context(), 0)) // again
}

// Not even a queue that never answers keeps the edge from stopping; the order stays for the relay.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	w.AWS.Hang()
	answered := make(chan apitest.Reply, 1)
	go func() { answered <- w.Post(1, p.ID, 1) }()
	w.Eventually("the order is in the outbox", func() bool { return w.Level(p.ID).Outbox == 1 })
	begin := time.Now()
	if err := <-w.stop(300*time.Millisecond, 10*time.Second); err == nil ||
		!strings.Contains(err.Error(), "outbox relay") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	w.WantLevel(p.ID, 8, 2, 1)
	w.AWS.Heal()
	if r := <-answered; r.Status != 202 {
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
	p := w.AddProduct(10)
	deaf, err := net.Dial("tcp", w.Addr)
	w.Must(err)
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
	slow, err := net.Dial("tcp", w.Addr)
	w.Must(err)
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
	w.MustPost(1, p.ID, 1)
	_ = slow.SetReadDeadline(time.Now().Add(15 * time.Second))
	apitest.WantProblem(t, apitest.ReadReply(slow), 408, problem.RequestTimeout)
	<-dripping
	<-asking
	w.Client.CloseIdleConnections()
	w.Eventually("no connection is left", func() bool { return w.edge.server.GetOpenConnectionsCount() == 0 })
	w.MustPost(1, p.ID, 1)
}

// A client that goes away before its answer leaves an order that is like any other.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	w.AWS.Hang()
	c, err := net.Dial("tcp", w.Addr)
	w.Must(err)
	body := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	_, err = io.WriteString(c, fmt.Sprintf("POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: "+
		"%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		w.Bearer(1), len(body), body))
	w.Must(err)
	w.Eventually("the order is in the outbox", func() bool { return w.Level(p.ID).Outbox == 1 })
	w.Must(c.Close())
	w.AWS.Heal()
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 9, 1, 0)
	if n := len(w.Copies()); n != 1 {
		t.Errorf("the queue holds %d orders", n)
	}
}

// TestStopBeforeServe: an edge that is stopped while it starts does not go on to serve.
func TestStopBeforeServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := New(w.RDB, w.DB, w.Queue, access.New(w.DB, w.RDB, w.Tokens), prometheus.NewRegistry())
	w.Must(e.Stop(t.Context(), 0))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	select {
	case err := <-served:
		w.Must(err)
	case <-time.After(15 * time.Second):
		t.Fatal("it serves after its stop")
	}
}
