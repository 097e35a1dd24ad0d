package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
	"stampede/lua"
)

// ownMariaDB is a server that a test may kill, and the DSN of a database on it.
func ownMariaDB(t testing.TB) (*localstack.MariaDB, string) {
	t.Helper()
	m := stacktest.NewMariaDB(t, localstack.MariaDBOptions{})
	if err := m.CreateDatabase(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	return m, m.DSN("test")
}

// No order's attempts are used up while MySQL is down, and no message's receives.
func TestAWorkerWaitsWhileMySQLIsDown(t *testing.T) {
	t.Parallel()
	m, dsn := ownMariaDB(t)
	r := newRig(t, dsn, "")
	p := r.product(500, 0)
	orders := r.reserve(p.ID, 40, 1)
	r.setMaxReceives(2)
	reg := prometheus.NewRegistry()
	w := New(r.redis, r.db, r.queue, reg)
	impatient(w)
	r.run(w)
	r.send(4, orders...)
	r.quiet(w)
	sends := r.sqs.Requests()["SendMessageBatch"]

	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	more := r.reserve(p.ID, 200, 1)
	orders = append(orders, more...)
	r.send(1, more...)
	r.eventuallyTrue("receiving is paused", w.breaker.isOpen)
	if err := w.Ready(t.Context()); err == nil {
		t.Error("it is ready")
	}
	if n := paused(t, reg); n != 1 {
		t.Errorf("the metric says %v", n)
	}
	// What waits for messages already may still get some; then nothing is received any more.
	r.eventuallyTrue("the last receive has ended", func() bool {
		d := r.depth()
		return d.InFlight > 0 && d.InFlight == int64(w.held.len())
	})
	receives, before := r.sqs.Requests()["ReceiveMessage"], r.depth()
	if before.Visible == 0 {
		t.Errorf("all messages were received: %+v", before)
	}
	r.throughout(2*w.visibility, func() error {
		if d, n := r.depth(), r.sqs.Requests()["ReceiveMessage"]; d != before || n != receives || !w.breaker.isOpen() {
			return fmt.Errorf("while MySQL was down the queue went from %+v to %+v after %d more receives; paused: %v",
				before, d, n-receives, w.breaker.isOpen())
		}
		return nil
	})

	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.quiet(w)
	r.mustBe("", orders...)
	if d := r.depth(); d.Dead != 0 {
		t.Errorf("%d dead letters", d.Dead)
	}
	// Each message was received once, and none was sent again.
	mustCount(t, len(orders), "decisions", decisions, w)
	mustCount(t, 0, "repeated", repeated, w)
	if n := r.sqs.Requests()["SendMessageBatch"] - sends; n != 20 {
		t.Errorf("%d requests to send, of which 20 are the test's", n)
	}
	if n := paused(t, reg); n != 0 {
		t.Errorf("the metric says %v", n)
	}
}

// paused reads the metric that tells operators that receiving is paused.
func paused(t testing.TB, reg prometheus.Gatherer) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "stampede_breaker_open" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no such metric")
	return 0
}

// The decision stands, and its message is what remembers that it must be settled.
func TestADecisionIsSettledWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	for _, persist := range []bool{true, false} {
		t.Run(fmt.Sprintf("persist=%v", persist), func(t *testing.T) {
			t.Parallel()
			server := stacktest.NewRedis(t, localstack.RedisOptions{Persist: persist})
			r := newRig(t, "", server.URL())
			p := r.product(100, 0)
			orders := r.reserve(p.ID, 30, 2)
			w := r.start(impatient)
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			r.enqueue(10, orders...)
			r.eventuallyTrue("the orders are decided", func() bool {
				return value(t, w.metrics.decisions) == float64(len(orders))
			})
			r.eventuallyTrue("receiving is paused", w.breaker.isOpen)
			r.throughout(2*w.visibility, func() error {
				if d := r.depth(); d.InFlight != 3 || d.Visible != 0 {
					return fmt.Errorf("the messages are not kept and hidden: %+v", d)
				}
				return nil
			})
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.quiet(w)
			if r.load(p.ID) == persist {
				t.Error("Redis has lost its data, or has not")
			}
			r.mustBe("", orders...)
			r.audit()
			if n := r.transactions(p.ID); n > 3 {
				t.Errorf("%d transactions", n)
			}
			mustCount(t, 0, "repeated", repeated, w)
		})
	}
}

// lossyRedis is a proxy that can lose the answer to a script call.
type lossyRedis struct {
	listener net.Listener
	upstream string
	work     sync.WaitGroup

	mu    sync.Mutex
	lose  string // the hash of the script whose next answer is lost
	lost  int
	conns []net.Conn
}

func newLossyRedis(t testing.TB, upstream string) *lossyRedis {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lossyRedis{listener: listener, upstream: upstream}
	l.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, client, server)
			l.mu.Unlock()
			l.work.Go(func() { l.serve(client, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.work.Wait()
	})
	return l
}

// serve passes on requests one by one, since a client waits for each answer. Small ones are read at once.
func (l *lossyRedis) serve(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<20)
	l.work.Go(func() {
		defer client.Close()
		answer := make([]byte, 1<<20)
		for {
			n, err := server.Read(answer)
			if err != nil {
				return
			}
			if _, err := client.Write(answer[:n]); err != nil {
				return
			}
		}
	})
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		lose := l.lose != "" && bytes.Contains(buf[:n], []byte(l.lose))
		if lose {
			l.lose = ""
			l.lost++
		}
		l.mu.Unlock()
		if lose {
			_ = client.Close() // the answer has nowhere to go
		}
		if _, err := server.Write(buf[:n]); err != nil || lose {
			// The server answers what it has read before it sees the end.
			_ = server.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// A settle whose answer is lost may have been carried out. Repeating it as if it had not would take an
// order's units out of the available ones twice.
func TestASettleWhoseAnswerIsLostIsNotRepeatedAsFresh(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	opts, err := goredis.ParseURL(r.redisURL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := newLossyRedis(t, opts.Addr)
	p := r.product(100, 0)
	orders := r.reserve(p.ID, 4, 3)
	// Redis loses the reservations and is loaded before the orders are decided, so that the decision
	// takes their units out.
	if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.load(p.ID)
	// The server knows the script, so that one request carries the settle.
	if err := r.redis.ScriptLoad(t.Context(), lua.Script("settle")).Err(); err != nil {
		t.Fatal(err)
	}
	proxy.lose = goredis.NewScript(lua.Script("settle")).Hash()
	w := r.worker()
	w.redis = r.openRedis(fmt.Sprintf("redis://%s/%d", proxy.listener.Addr(), opts.DB))
	w.stock = stock.New(w.redis)
	r.run(w)
	r.enqueue(4, orders...)
	r.quiet(w)
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if proxy.lost != 1 {
		t.Fatalf("%d answers were lost", proxy.lost)
	}
	r.mustBe("", orders...)
	if l := r.level(p.ID); l.Available != 88 {
		t.Errorf("Redis has %+v, want 88 available", l)
	}
}

// Redis lost everything, or failed over, between reserve and settle.
func TestUnitsWhoseReservationIsLostAreTakenOutOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		loadFirst bool // before the orders are decided, or after
		takenOut  int
	}{
		"loaded before the decision": {true, 12},
		"loaded after the decision":  {false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "")
			p := r.product(100, 5)
			lost := r.reserve(p.ID, 4, 3)
			if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			var kept []order.Order
			if test.loadFirst {
				r.load(p.ID)
				kept = r.reserve(p.ID, 2, 1)
			}
			w := r.start()
			r.enqueue(3, slices.Concat(lost, kept)...)
			r.quiet(w)
			if !test.loadFirst && !r.load(p.ID) {
				t.Error("somebody else has loaded the product")
			}
			r.audit()
			r.mustBe("", slices.Concat(lost, kept)...)
			mustCount(t, test.takenOut, "units taken out", takenOut, w)
			if test.loadFirst {
				if n := r.bought(p.ID, lost[0].UserID); n != "3" {
					t.Errorf("the buyer has %q", n)
				}
			}
			// The messages come again: nothing moves.
			r.enqueue(1, lost...)
			r.quiet(w)
		})
	}
}

// The queue is down for a moment: nobody gives up, and what it kept is decided.
func TestReceivingGoesOnWhenTheQueueIsBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(10, 0)
	orders := r.reserve(p.ID, 3, 1)
	r.send(1, orders...)
	r.sqs.SetFaults(sqs.Faults{Actions: []string{"ReceiveMessage"}, Refuse: 1})
	w := r.start()
	r.eventuallyTrue("every poller has been refused", func() bool {
		return r.sqs.Requests()["ReceiveMessage"] >= pollers
	})
	r.throughout(receivePause/2, func() error {
		if n := r.sqs.Requests()["ReceiveMessage"]; n > 2*pollers {
			return fmt.Errorf("%d receives in less than a pause", n)
		}
		return nil
	})
	if w.breaker.isOpen() {
		t.Error("an outage of the queue is not one of MySQL or Redis")
	}
	r.sqs.SetFaults(sqs.Faults{})
	r.quiet(w)
	r.mustBe("", orders...)
}

// The keys of one product are broken: its orders are decided and wait to be settled, and those of others go on.
func TestBrokenKeysConcernTheirProductOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	broken, sound := r.product(20, 0), r.product(20, 0)
	wait, others := r.reserve(broken.ID, 3, 1), r.reserve(sound.ID, 3, 1)
	key := fmt.Sprintf("reserved:{%d}", broken.ID)
	for _, step := range []error{r.redis.Rename(t.Context(), key, "aside").Err(),
		r.redis.Set(t.Context(), key, "x", 0).Err()} {
		if step != nil {
			t.Fatal(step)
		}
	}
	w := r.start(impatient)
	r.enqueue(1, wait...)
	r.eventuallyTrue("its orders are decided", func() bool {
		undecided, err := r.ledger.Undecided(t.Context(), []order.OrderID{wait[0].ID, wait[1].ID, wait[2].ID})
		return err == nil && len(undecided) == 0
	})
	r.send(1, others...)
	r.eventuallyTrue("orders of the other product are settled", func() bool {
		return !slices.ContainsFunc(r.pending(others...), func(o *order.Record) bool { return o != nil })
	})
	r.mustBe("", others...)
	if w.breaker.isOpen() {
		t.Error("the worker has stopped receiving")
	}
	if err := r.redis.Rename(t.Context(), "aside", key).Err(); err != nil {
		t.Fatal(err)
	}
	r.quiet(w)
	r.mustBe("", wait...)
}

// Somebody holds a product's row for longer than a transaction waits for it: other products go on.
func TestALockedRowConcernsItsProductOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, stacktest.DSN(t)+"?innodb_lock_wait_timeout=1", "")
	locked, free := r.product(20, 0), r.product(20, 0)
	wait, others := r.reserve(locked.ID, 3, 1), r.reserve(free.ID, 3, 1)
	unlock := r.lock(locked.ID)
	w := r.start()
	r.send(1, wait...)
	r.throughout(12*time.Second, func() error { // eight attempts of a second, and a pause
		if w.breaker.isOpen() {
			return errors.New("the worker has stopped receiving")
		}
		return nil
	})
	r.send(1, others...)
	r.eventuallyTrue("orders of the other product are settled", func() bool {
		return r.level(free.ID).Reservations == 0
	})
	unlock()
	r.quiet(w)
	r.mustBe("", append(wait, others...)...)
}

// TestWhatEveryOrderFailsForIsNoOrdersFault: whatever MySQL says, what every order fails for is not the fault of any.
// The orders wait, and are completed once it is mended.
func TestWhatEveryOrderFailsForIsNoOrdersFault(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct{ begin, end string }{
		"a constraint that no row can keep": {
			`CREATE TRIGGER sabotage BEFORE INSERT ON orders FOR EACH ROW
				BEGIN IF NEW.status = 'completed' THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = 'sabotage'; END IF; END`,
			`DROP TRIGGER sabotage`,
		},
		"an error number that is not listed": {
			`CREATE TRIGGER sabotage BEFORE INSERT ON orders FOR EACH ROW
				SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1105, MESSAGE_TEXT = 'sabotage'`,
			`DROP TRIGGER sabotage`,
		},
		"a table without a column": {
			`ALTER TABLE stock_ledger RENAME COLUMN balance TO aside`,
			`ALTER TABLE stock_ledger RENAME COLUMN aside TO balance`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "")
			p := r.product(100, 0)
			orders := r.reserve(p.ID, 40, 1)
			r.exec(outage.begin)
			w := r.start(func(w *Worker) { w.attemptPause = 0 })
			r.send(10, orders...)
			r.eventuallyTrue("it has stopped receiving, several times", func() bool {
				w.breaker.mu.Lock()
				defer w.breaker.mu.Unlock()
				return w.breaker.pause > 4*minProbeWait
			})
			r.mustBePending(orders...)

			r.exec(outage.end)
			r.quiet(w)
			r.mustBe("", orders...)
			if n := len(r.deadLetters()); n != 0 {
				t.Errorf("%d dead letters", n)
			}
		})
	}
}
