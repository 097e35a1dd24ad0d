package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/internal/mysql"
	"stampede/internal/notice"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// reconciling makes a worker that takes every order for old, and reconciles when the test asks it to.
func (r *rig) reconciling() *Worker {
	return r.worker(func(w *Worker) {
		w.staleAge, w.lostAge = time.Nanosecond, time.Hour
		w.reconcileInterval = time.Millisecond // for as long the lock holds
	})
}

// reconcileNow reconciles whoever's turn it is.
func (r *rig) reconcileNow(w *Worker) {
	r.t.Helper()
	if err := w.reconcileAll(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// found counts what a worker has found of a cause, and repaired.
func found(t testing.TB, w *Worker, cause reconcile.Cause) [2]int {
	t.Helper()
	return [2]int{
		int(value(t, w.metrics.driftFound.WithLabelValues(string(cause)))),
		int(value(t, w.metrics.driftRepaired.WithLabelValues(string(cause)))),
	}
}

// decideOnly decides orders as a worker that dies before it settles.
func (r *rig) decideOnly(orders ...order.Order) {
	r.t.Helper()
	if _, err := r.ledger.Decide(r.t.Context(), orders[0].StockID, orders); err != nil {
		r.t.Fatal(err)
	}
}

func TestReconcileSettlesWhatIsDecided(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 3)
	orders := r.reserve(p.ID, 4, 2)
	r.acknowledge(orders[:2]...)
	r.decideOnly(orders[0], orders[2])
	if _, err := r.ledger.Fail(t.Context(), orders[1], order.DeadLetter); err != nil {
		t.Fatal(err)
	}
	w := r.reconciling()
	w.staleAge = time.Hour
	r.reconcileNow(w)
	if l := r.level(p.ID); l.Reservations != 4 {
		t.Fatalf("orders that a worker may be about to settle: %+v", l)
	}
	w.staleAge = time.Nanosecond
	r.reconcileNow(w)
	if l := r.level(p.ID); l.Reservations != 1 || l.Available != 14 || l.Outbox != 1 {
		t.Errorf("Redis has %+v", l)
	}
	if n := found(t, w, reconcile.Unsettled); n != [2]int{3, 3} {
		t.Errorf("found and repaired: %v", n)
	}
	r.mustBe("", orders[0], orders[2])
	r.mustBe(order.DeadLetter, orders[1])
	// Who has decided them comes late, and takes nothing out.
	late := order.Decision{Record: order.Record{Order: orders[0], Status: order.Completed}, Fresh: true, Version: 99}
	if _, err := r.stock.Settle(t.Context(), p.ID, []order.Decision{late}); err != nil {
		t.Fatal(err)
	}
	if l := r.level(p.ID); l.Available != 14 {
		t.Errorf("after a late settle Redis has %+v", l)
	}
}

func TestReconcileBringsWhatRedisHasMissed(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(2, 0)
	first := r.reserve(p.ID, 1, 2) // orders on their way are no hindrance
	r.acknowledge(first...)
	for i := range 2 {
		if _, err := r.ledger.Restock(t.Context(), p.ID.Product(), 5, fmt.Sprint("delivery-", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.stock.Restock(t.Context(), p.ID, 5, 2, "delivery-0"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ledger.UpdateProduct(t.Context(), p.ID.Product(),
		func(p *order.Product) { p.Price = 5 }); err != nil {
		t.Fatal(err)
	}
	w := r.reconciling()
	r.reconcileNow(w)
	if l := r.level(p.ID); l.Available != 10 || l.Reserved != 2 {
		t.Errorf("Redis has %+v", l)
	}
	if a, b := found(t, w, reconcile.Restock), found(t, w, reconcile.Settings); a != [2]int{1, 1} || b != [2]int{1, 1} {
		t.Errorf("restocks %v, settings %v", a, b)
	}
	if o := r.reserve(p.ID, 1, 1)[0]; o.UnitPrice != 5 {
		t.Errorf("the price is %d", o.UnitPrice)
	}
	// Whoever made the restock comes late.
	if again, err := r.stock.Restock(t.Context(), p.ID, 5, 3, "delivery-1"); err != nil || again {
		t.Errorf("the restock is applied twice: %v, %v", again, err)
	}
	r.reconcileNow(w)
	if a := found(t, w, reconcile.Restock); a != [2]int{1, 1} {
		t.Errorf("a second look found %v", a)
	}
}

// TestReconcileBringsMoreThanAPage: Redis knows of the first thousand restocks since it loaded the product. What it has
// missed lies behind them.
func TestReconcileBringsMoreThanAPage(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(2, 0)
	first := r.reserve(p.ID, 1, 2) // with orders on their way the stock itself is not compared
	r.acknowledge(first...)
	for i := range mysql.MaxPage + 3 {
		made, err := r.ledger.Restock(t.Context(), p.ID.Product(), 5, fmt.Sprint("delivery-", i))
		if err != nil {
			t.Fatal(err)
		}
		if i >= mysql.MaxPage {
			continue
		}
		if _, err := r.stock.Restock(t.Context(), p.ID, 5, made.Version, made.ID); err != nil {
			t.Fatal(err)
		}
	}

	w := r.reconciling()
	r.reconcileNow(w)

	if l := r.level(p.ID); l.Available != 5*(mysql.MaxPage+3) {
		t.Errorf("Redis has %+v", l)
	}
	if a := found(t, w, reconcile.Restock); a != [2]int{3, 3} {
		t.Errorf("restocks %v", a)
	}
}

func TestReconcileCorrectsTheStockOfAQuietProduct(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	w := r.reconciling()
	key := fmt.Sprintf("stock:{%d}", p.ID)
	for _, wrong := range []int64{3, -4} {
		orders := r.reserve(p.ID, 1, 2)
		if err := r.redis.IncrBy(t.Context(), key, wrong).Err(); err != nil {
			t.Fatal(err)
		}
		before := r.level(p.ID)
		r.reconcileNow(w)
		if l := r.level(p.ID); l != before {
			t.Errorf("with an order on its way: %+v, before %+v", l, before)
		}
		r.decideOnly(orders...)
		r.reconcileNow(w)
		r.audit()
	}
	if n := found(t, w, reconcile.Stock); n != [2]int{2, 2} {
		t.Errorf("found and repaired: %v", n)
	}
}

// A worker dies between commit and settle while Redis loses its data: nothing but the comparison can tell.
func TestReconcileMendsADoubleFault(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 5, 2)
	if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.load(p.ID)
	r.decideOnly(orders...)
	w := r.reconciling()
	r.run(w)
	r.send(5, orders...)
	r.eventuallyTrue("the messages are gone", func() bool { return r.depth().Empty() && w.held.len() == 0 })
	if l := r.level(p.ID); l.Available != 20 {
		t.Fatalf("Redis has %+v; the test proves nothing", l)
	}
	r.eventually(func() error {
		if l := r.level(p.ID); l.Available != 10 {
			return fmt.Errorf("Redis has %+v", l)
		}
		return nil
	})
	r.audit()
}

// Redis fails over to a replica that lagged: it has forgotten that orders were reserved, sold and given back, and
// believes in reservations that are settled. Sales go on all the time.
func TestReconcileAfterAFailOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(40, 0)
	ctx := t.Context()
	settle := func(status order.Status, orders ...order.Order) {
		t.Helper()
		for _, o := range orders {
			var d order.Decision
			var err error
			if status == order.Completed {
				var all []order.Decision
				if all, err = r.ledger.Decide(ctx, p.ID, []order.Order{o}); err == nil {
					d = all[0]
				}
			} else {
				d, err = r.ledger.Fail(ctx, o, order.DeadLetter)
			}
			if err == nil {
				_, err = r.stock.Settle(ctx, p.ID, []order.Decision{d})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	before := r.reserve(p.ID, 4, 1)
	r.acknowledge(before...)
	keys, err := r.redis.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	replica := map[string]string{}
	for _, key := range keys {
		if replica[key], err = r.redis.Dump(ctx, key).Result(); err != nil {
			t.Fatal(err)
		}
	}
	after := r.reserve(p.ID, 6, 1)
	settle(order.Completed, before[0], after[0], after[1], after[2])
	settle(order.Failed, before[1], after[3])
	if err := r.redis.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for key, dump := range replica {
		if err := r.redis.RestoreReplace(ctx, key, 0, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
	onTheirWay := r.reserve(p.ID, 3, 2)
	w := r.reconciling()
	if err := r.db.SetMark(ctx, serversMark, "others"); err != nil {
		t.Fatal(err)
	}
	r.reconcileNow(w)
	// 40 less 4 sold; of what is reserved 2 from before and 6 units from after are undecided.
	if l := r.level(p.ID); l.Available != 28 || l.Reserved != 8 {
		t.Errorf("Redis has %+v", l)
	}
	r.mustBe("", before[0], after[0])
	r.mustBe(order.DeadLetter, before[1])
	r.mustBePending(before[2:]...)
	r.run(w)
	r.send(5, before...)
	r.send(5, after...) // two of which Redis has forgotten
	r.send(5, onTheirWay...)
	r.quiet(w)
	r.mustBe("", onTheirWay...)
	r.mustBe("", after[4], after[5])
	if l := r.level(p.ID); l.Available != 40-4-2-2-6 {
		t.Errorf("in the end Redis has %+v", l)
	}
	if reserve := r.reserve(p.ID, 1, 1); len(reserve) != 1 {
		t.Error("the sale is still paused")
	}
	if mark, err := r.db.Mark(ctx, serversMark); err != nil || mark == "others" {
		t.Errorf("the servers are %q, %v", mark, err)
	}
}

// A reservation whose message is nowhere is sent again, and decided, however often it is found.
// TestWhatCannotBeComparedPausesNobodyElse: Redis has failed over, and of three products one cannot be read, and one
// MySQL does not know. The sound one is paused and compared once, and not again with every look.
func TestWhatCannotBeComparedPausesNobodyElse(t *testing.T) {
	t.Parallel()
	// Notices go to all who listen to a server, whichever database they use: this one is the test's own.
	r := newRig(t, "", stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	sound, broken := r.product(20, 0), r.product(20, 0)
	for _, err := range []error{
		r.redis.Set(t.Context(), fmt.Sprintf("outbox:{%d}", broken.ID), "x", 0).Err(),
		r.redis.SAdd(t.Context(), "products", 404).Err(),
		r.db.SetMark(t.Context(), serversMark, "others"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := r.reconciling()
	if err := w.reconcileAll(t.Context()); err == nil {
		t.Error("a product that cannot be read was compared")
	}

	servers, err := r.redis.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[order.StockID]string{sound.ID: servers, broken.ID: ""} {
		if by, err := r.stock.ComparedBy(t.Context(), id); err != nil || by != want {
			t.Errorf("product %d was compared by %q, want %q; %v", id, by, want, err)
		}
	}
	if mark, err := r.db.Mark(t.Context(), serversMark); err != nil || mark != "others" {
		t.Errorf("all is well by %q, %v", mark, err)
	}
	if known, err := r.stock.Products(t.Context()); err != nil || slices.Contains(known, 404) {
		t.Errorf("the products are %v, %v", known, err)
	}

	// What ends a pause gives a notice. Those of product 999 say that all before them have been heard.
	reopened := make(chan []order.StockID, 1000)
	listening, end := context.WithCancel(t.Context())
	defer end()
	go notice.Listen(listening, r.redis, func(n notice.Notice) { reopened <- n.Reopened })
	heard := func() (products []order.StockID) {
		r.eventuallyTrue("notices are heard", func() bool {
			if err := r.stock.Pause(t.Context(), 999, 0); err != nil {
				t.Fatal(err)
			}
			for len(reopened) > 0 {
				products = append(products, <-reopened...)
			}
			return slices.Contains(products, 999)
		})
		return products
	}
	heard()
	if err := w.reconcileAll(t.Context()); err == nil {
		t.Error("a product that cannot be read was compared")
	}
	if err := r.redis.Del(t.Context(), fmt.Sprintf("outbox:{%d}", broken.ID)).Err(); err != nil {
		t.Fatal(err)
	}
	r.reconcileNow(w)
	if mark, err := r.db.Mark(t.Context(), serversMark); err != nil || mark != servers {
		t.Errorf("all is well by %q, %v", mark, err)
	}
	if paused := heard(); slices.Contains(paused, sound.ID) {
		t.Errorf("the sound product was paused again: %v", paused)
	}
}

// TestGivingUpIsNoSuccess: orders of a product are on their way for longer than its sale may be paused. It is not taken
// for compared, and is compared once it comes to rest.
func TestGivingUpIsNoSuccess(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", stacktest.NewRedis(t, localstack.RedisOptions{}).URL())
	p := r.product(20, 0)
	if err := r.redis.IncrBy(t.Context(), fmt.Sprintf("stock:{%d}", p.ID), 5).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.db.SetMark(t.Context(), serversMark, "others"); err != nil {
		t.Fatal(err)
	}
	w := r.reconciling()
	w.redis = r.openRedis(r.redisURL)
	w.stock = stock.New(w.redis)
	var moving atomic.Bool
	moving.Store(true)
	w.redis.Observe(func(string, time.Duration, error) { // something moves between any two calls of a look
		if moving.Load() {
			_ = r.redis.HIncrBy(context.Background(), fmt.Sprintf("sale:{%d}", p.ID), "changes", 1).Err()
		}
	})
	if err := w.reconcileAll(t.Context()); !errors.Is(err, errGaveUp) {
		t.Errorf("with orders on their way all the time: %v", err)
	}
	if by, err := r.stock.ComparedBy(t.Context(), p.ID); by != "" || err != nil {
		t.Errorf("it was compared by %q, %v", by, err)
	}
	if available := r.level(p.ID).Available; available != 25 {
		t.Errorf("%d units are available: something was corrected by a look that was of no moment", available)
	}
	moving.Store(false)
	r.reconcileNow(w)
	if available := r.level(p.ID).Available; available != 20 {
		t.Errorf("%d units are available at rest, want 20", available)
	}
}

func TestReconcileSendsLostOrdersAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 3, 1)
	r.acknowledge(orders...)
	w := r.reconciling()
	r.reconcileNow(w)
	if d := r.depth(); d.Visible != 0 {
		t.Fatalf("orders that are not old are sent again: %+v", d)
	}
	w.lostAge = time.Minute
	r.makeOlder(p.ID, orders)
	if err := r.redis.HSet(t.Context(), fmt.Sprintf("reserved:{%d}", p.ID), // as a program of before left it
		orders[2].ID.String(), orders[2].Quantity).Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.reconcileNow(w)
	}
	if n := r.received(); len(n) != 2 {
		t.Errorf("%d orders are on the queue: %v", len(n), n)
	}

	// Of the third nobody knows what it was. Its units are for sale again once it cannot be on the queue.
	if l := r.level(p.ID); l.Reservations != 3 {
		t.Fatalf("Redis has %+v", l)
	}
	r.decideOnly(orders[:2]...)
	if _, err := r.aws.PurgeQueue(t.Context(),
		&awssqs.PurgeQueueInput{QueueUrl: r.url(localstack.QueueName)}); err != nil {
		t.Fatal(err)
	}
	w.drainedAge = 0
	r.eventuallyTrue("the queue is empty", func() bool { return r.depth().Empty() })
	r.reconcileNow(w)
	if l := r.level(p.ID); l.Reservations != 0 {
		t.Errorf("Redis has %+v", l)
	}
	r.reconcileNow(w) // which finds that its buyer counts as having it
	r.audit()
}

// makeOlder gives reservations ids of an hour ago.
func (r *rig) makeOlder(stockID order.StockID, orders []order.Order) {
	r.t.Helper()
	ctx := r.t.Context()
	for i := range orders {
		old := orders[i].ID
		ms := time.Now().Add(-time.Hour).UnixMilli()
		for b := range 6 {
			orders[i].ID[b] = byte(ms >> (40 - 8*b))
		}
		key := fmt.Sprintf("reserved:{%d}", stockID)
		text, err := r.redis.HGet(ctx, key, old.String()).Result()
		if err == nil {
			err = r.redis.HSet(ctx, key, orders[i].ID.String(), text).Err()
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.redis.HDel(ctx, key, old.String()).Err(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestReconcileUnloadsWhatIsLongOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p, going := r.product(20, 0), r.product(20, 0)
	orders := r.reserve(p.ID, 1, 1)
	_, err := r.ledger.UpdateProduct(t.Context(), p.ID.Product(), func(p *order.Product) {
		p.EndsAt = time.Now().Add(-25 * time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	w := r.reconciling()
	r.reconcileNow(w)
	if !r.level(p.ID).Loaded {
		t.Fatal("a product with an order on its way is forgotten")
	}
	w.staleAge = time.Hour // what it decides it settles itself
	r.run(w)
	r.send(1, orders...)
	r.quiet(w)
	r.eventuallyTrue("the product is forgotten", func() bool { return !r.level(p.ID).Loaded })
	keys, err := r.redis.Keys(t.Context(), fmt.Sprintf("*{%d}*", p.ID)).Result()
	keys = slices.DeleteFunc(keys, func(key string) bool { // those that expire
		return strings.HasPrefix(key, "idem:") || strings.HasPrefix(key, "completed:")
	})
	if err != nil || len(keys) != 0 || !r.level(going.ID).Loaded {
		t.Errorf("Redis holds %q, %v", keys, err)
	}
	if !r.load(p.ID) {
		t.Error("it cannot be loaded again")
	}
}

// Of several workers one reconciles, and none while a dependency is down.
func TestOneWorkerReconcilesAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.product(20, 0)
	reconciles := func(w *Worker) bool {
		t.Helper()
		if err := r.db.SetMark(t.Context(), serversMark, ""); err != nil {
			t.Fatal(err)
		}
		w.reconcile(t.Context())
		mark, err := r.db.Mark(t.Context(), serversMark)
		if err != nil {
			t.Fatal(err)
		}
		return mark != ""
	}
	a, b := r.reconciling(), r.reconciling()
	a.breaker.closes = make(chan struct{})
	a.reconcileInterval, b.reconcileInterval = time.Hour, time.Hour
	if reconciles(a) {
		t.Error("a worker whose breaker is open reconciles")
	}
	a.breaker.closes = nil
	if first, second := reconciles(a), reconciles(b); !first || second {
		t.Errorf("the first: %v, the second: %v", first, second)
	}
}

// A busy sale is reconciled again and again, paused and not, while orders are cancelled, lost, decided, failed and
// restocked. In the end all is as it should be, and no unit was sold twice.
func TestReconcileWhileTheSaleGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(300, 0)
	w := r.start(func(w *Worker) { w.relayInterval, w.relayAge = 200*time.Millisecond, 500*time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var loops sync.WaitGroup
	for _, pause := range []bool{false, true} {
		loops.Go(func() {
			rec := reconcile.Reconciler{Redis: r.stock, MySQL: r.ledger, Apply: true, Pause: pause,
				StaleAge: time.Nanosecond}
			for ctx.Err() == nil {
				if _, err := rec.Product(ctx, p.ID); err != nil && ctx.Err() == nil {
					t.Errorf("pause %v: %v", pause, err)
				}
				sleep(ctx, 20*time.Millisecond)
			}
		})
	}
	var buyers sync.WaitGroup
	for buyer := range order.UserID(4) {
		buyers.Go(func() {
			for i := range 60 {
				request := stock.Request{OrderID: order.NewID(), UserID: buyer + 1, Quantity: 1 + int64(i)%3}
				_, results, err := r.stock.Reserve(t.Context(), p.ID, 0, []stock.Request{request})
				if err != nil {
					t.Error(err)
					return
				}
				if results[0].Outcome != stock.Reserved {
					time.Sleep(5 * time.Millisecond) // paused, or sold out for now
					continue
				}
				o := results[0].Order
				switch i % 5 {
				case 0:
					if _, err := r.stock.Cancel(t.Context(), p.ID, []order.Order{o}); err != nil {
						t.Error(err)
					}
				case 1: // its edge dies
				default:
					r.send(1, o)
				}
				if i%20 == 0 {
					done, err := r.ledger.Restock(t.Context(), p.ID.Product(), 2, fmt.Sprint(buyer, "-", i))
					if err == nil && i%40 == 0 {
						_, err = r.stock.Restock(t.Context(), p.ID, 2, done.Version, done.ID)
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	buyers.Wait()
	r.eventuallyTrue("all orders are settled", func() bool {
		l := r.level(p.ID)
		return l.Reservations == 0 && l.Outbox == 0 && r.depth().Empty() && w.held.len() == 0
	})
	cancel()
	loops.Wait()
	last := r.reconciling()
	r.reconcileNow(last) // a restock may have come after the last look
	r.audit()
	if n := found(t, last, reconcile.Stock); n != [2]int{0, 0} {
		t.Errorf("the stock was wrong in the end: %v", n)
	}
}

// giveUp receives messages until the queue moves them to the dead-letter queue, as workers that die of them do.
func (r *rig) giveUp() {
	r.t.Helper()
	r.setMaxReceives(1)
	r.eventually(func() error {
		messages, err := r.queue.Receive(r.t.Context(), 0, time.Second)
		if err != nil {
			return err
		}
		if d := r.depth(); !d.Empty() || len(messages) > 0 {
			return fmt.Errorf("the queues have %+v", d)
		}
		return nil
	})
}

// TestReconcileSparesWhatIsRedriven: reconcile has read that an order failed as a dead letter, and an operator has it
// decided anew at the same time. Its reservation and its place in the outbox stay, or nobody would ever send it.
func TestReconcileSparesWhatIsRedriven(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 5)
	orders := r.reserve(p.ID, 1, 2)
	if _, err := r.ledger.Fail(t.Context(), orders[0], order.DeadLetter); err != nil {
		t.Fatal(err)
	}
	if outcome, err := r.stock.Readmit(t.Context(), orders[0]); outcome != stock.Replayed || err != nil {
		t.Fatal(outcome, err)
	}
	w := r.reconciling()
	r.reconcileNow(w)
	if l := r.level(p.ID); l.Reservations != 1 || l.Outbox != 1 {
		t.Fatalf("Redis has %+v", l)
	}
	if err := r.ledger.Redrive(t.Context(), orders[0].ID); err != nil {
		t.Fatal(err)
	}

	// The redrive dies here, and the relay does the rest.
	w.relayAge = time.Second
	r.eventually(func() error {
		w.relay(t.Context())
		if d := r.depth(); d.Visible == 0 {
			return fmt.Errorf("the queues have %+v", d)
		}
		return nil
	})
	r.quiet(r.start())
	r.mustBe("", orders...)
	r.audit()
}

// TestTheOrdersOfADeadLetterAreDecided: whatever its workers died of, its orders are as good as any.
func TestTheOrdersOfADeadLetterAreDecided(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 10, 2)
	bad, good := orders[4], append(orders[:4:4], orders[5:]...)
	r.sabotage(completing(bad))
	r.send(5, orders...)
	r.giveUp()
	w := r.reconciling()
	for range 2 { // the second look changes nothing
		w.handleDeadLetters(t.Context())
	}

	r.mustBe("", good...)
	r.mustBe(order.DeadLetter, bad)
	if l := r.level(p.ID); l.Reservations != 0 || l.Available != 2 {
		t.Errorf("Redis has %+v", l)
	}
	r.audit()
	letters := r.deadLetters()
	if len(letters) != 1 || !strings.Contains(letters[0].reason, bad.ID.String()+" is failed") {
		t.Errorf("the dead letters are %+v", letters)
	}
}

// judged makes it look as if a worker had begun to decide orders of a dead letter, each alone, and not survived it.
func (r *rig) judged(orders ...order.Order) {
	r.t.Helper()
	for _, o := range orders {
		if first, err := r.redis.TryLock(r.t.Context(), "judge:"+o.ID.String(), decisionLock); err != nil || !first {
			r.t.Fatal(first, err)
		}
	}
}

func TestTheOrdersOfADeadLetterFail(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 5)
	orders := r.reserve(p.ID, 4, 2)
	r.decideOnly(orders[3]) // before its worker died
	r.judged(orders...)
	r.send(4, orders...)
	r.sendMessages(queue.Outgoing{Body: "nonsense"})
	r.giveUp()
	w := r.reconciling()
	for range 2 { // the second look changes nothing
		w.handleDeadLetters(t.Context())
	}
	r.mustBe(order.DeadLetter, orders[:3]...)
	r.mustBe("", orders[3])
	if l := r.level(p.ID); l.Reservations != 0 || l.Available != 18 || l.Outbox != 0 {
		t.Errorf("Redis has %+v", l)
	}
	r.audit()
	letters := r.deadLetters()
	if len(letters) != 2 {
		t.Fatalf("%d dead letters: %+v", len(letters), letters)
	}
	for _, l := range letters {
		want := "cannot be decoded"
		if l.body != "nonsense" {
			want = "order " + orders[3].ID.String() + " is completed"
		}
		if !strings.Contains(l.reason, want) {
			t.Errorf("the reason of %.20q is %q, want %q", l.body, l.reason, want)
		}
	}
	mustCount(t, 2, "dead letters", deadLetters, w)
}

// The orders cannot be failed now: the dead letter stays as it was, and the next look fails them.
func TestADeadLetterWaitsUntilItsOrdersCanFail(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 2, 2)
	r.judged(orders...)
	r.send(2, orders...)
	r.giveUp()
	r.sabotage("1 = 1")
	w := r.reconciling()
	w.handleDeadLetters(t.Context())
	r.mustBePending(orders...)
	if d := r.depth(); d.Dead != 1 {
		t.Errorf("the queues have %+v", d)
	}
	r.exec("DROP TRIGGER sabotage")
	w.handleDeadLetters(t.Context())
	r.mustBe(order.DeadLetter, orders...)
	r.audit()
	if letters := r.deadLetters(); len(letters) != 1 || letters[0].reason == "" {
		t.Errorf("dead letters: %+v", letters)
	}
}

// The copy that says what became of its orders cannot be written now: until it is there the dead letter stays.
func TestADeadLetterStaysUntilItsCopyIsThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(20, 0)
	orders := r.reserve(p.ID, 2, 2)
	r.judged(orders...)
	r.send(2, orders...)
	r.giveUp()
	r.sqs.SetFaults(sqs.Faults{Queue: localstack.DLQName, Actions: []string{"SendMessageBatch"}, Refuse: 1,
		RefuseWith: "OverLimit"})
	w := r.reconciling()
	w.handleDeadLetters(t.Context())
	if d := r.depth(); d.Dead != 1 {
		t.Fatalf("the dead letter is gone and has no copy: %+v", d)
	}
	r.sqs.SetFaults(sqs.Faults{})
	w.handleDeadLetters(t.Context())
	r.mustBe(order.DeadLetter, orders...)
	r.audit()
	if letters := r.deadLetters(); len(letters) != 1 || letters[0].reason == "" {
		t.Errorf("dead letters: %+v", letters)
	}
	mustCount(t, 1, "dead letters", deadLetters, w)
}
