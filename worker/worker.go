package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/account"
	"stampede/internal/batch"
	"stampede/internal/ledger"
	"stampede/internal/loop"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/redis"
	"stampede/internal/room"
	"stampede/internal/stock"
	"stampede/internal/till"
)

const (
	// pollers is how many receives wait at a time. One hands out up to 10 messages of up to 100 orders.
	pollers = 4
	// maxDeliveries bounds the messages that a worker holds. It keeps memory small, and the work that
	// another worker has to do again if this one dies.
	maxDeliveries = 200
	// maxTransaction bounds the orders of one transaction, and with it the time for which the
	// product's row stays locked.
	maxTransaction = stock.MaxBatch
	// decideTimeout bounds one transaction, with its repetitions.
	decideTimeout = 30 * time.Second
	// maxSettles bounds the settle calls of one product that are under way. While they run, the next
	// transaction is decided already.
	maxSettles = 4
	// maxDeletes bounds the delete requests under way; each deletes up to 10 messages.
	maxDeletes = 4
	// maxDeleteBatch bounds the messages of a call to delete.
	maxDeleteBatch = 50
	// gatherPause is how long a poller or a delete waits after a request that was not full, so that the next has more
	// in it. All pollers together still ask every few milliseconds, and an order that comes alone finds them waiting.
	gatherPause = 40 * time.Millisecond
	// relayInterval and relayAge say how often the outbox is looked at, and after what time an order
	// in it is taken for left behind by its edge, whose own deadline is much shorter.
	relayInterval = 10 * time.Second
	relayAge      = 30 * time.Second
	// receiveGrace is how long receives under way may still bring messages after a stop. The queue hides what a
	// cancelled receive has taken, and nobody would get to see it until its visibility ends.
	receiveGrace = time.Second
	// giveBackTimeout bounds giving messages back at the end of a stop.
	giveBackTimeout = 4 * time.Second
)

// Worker drains the queue: it decides orders in MySQL, settles them in Redis, and deletes them.
type Worker struct {
	redis    *redis.Client
	stock    *stock.Stock
	db       *mysql.DB
	ledger   *ledger.Ledger
	accounts *account.Accounts
	queue    *queue.Queue
	till     *till.Till
	leader   room.Leader // of waiting rooms
	metrics  *metrics
	breaker  breaker
	held     deliveries

	progress    progress
	unreachable unreachable

	jobs    batch.Batcher[order.StockID, *job]       // by product, to be decided
	settles batch.Batcher[order.StockID, settlement] // by product, to be settled
	deletes batch.Batcher[struct{}, *delivery]       // to be deleted

	// What the constants of the same names say; tests are less patient.
	visibility, heartbeatInterval, attemptPause, productPause, relayInterval, relayAge time.Duration
	reconcileInterval, staleAge, lostAge, drainedAge, deadLettersInterval              time.Duration

	stuckAge, restLength, maxRest time.Duration

	// loaded are the products that were loaded when a list of them was read the last time.
	loaded struct {
		sync.Mutex
		products []order.StockID
	}

	// rooms are the waiting rooms as they were read the last time.
	rooms struct {
		live   []room.Room
		readAt time.Time
	}

	// emptySince is since when reconcile has seen no message, or zero.
	emptySince time.Time

	// receiving ends first: then nothing new is begun or tried again, but what is under way finishes.
	receiving context.Context
	stop      context.CancelFunc
	// receives ends receiveGrace later, and with it the receives that still wait.
	receives    context.Context
	endReceives context.CancelFunc
	loops       sync.WaitGroup
}

// New makes a worker of its parts. It closes none of them.
func New(rdb *redis.Client, db *mysql.DB, q *queue.Queue, reg prometheus.Registerer) *Worker {
	w := &Worker{
		redis: rdb, stock: stock.New(rdb), db: db, ledger: ledger.New(db), accounts: account.New(db), queue: q,
		till: &till.Till{DB: db},
		leader: room.Leader{
			Name: uuid.NewString(), Hall: room.NewHall(rdb), Books: room.NewBooks(db), Stock: stock.New(rdb),
		},
		visibility: queue.VisibilityTimeout, heartbeatInterval: heartbeatInterval,
		attemptPause: attemptPause, productPause: productPause, relayInterval: relayInterval, relayAge: relayAge,
		reconcileInterval: reconcileInterval, staleAge: reconcile.StaleAge, lostAge: reconcile.LostAge,
		drainedAge:          drainedAge,
		deadLettersInterval: deadLettersInterval, stuckAge: stuckAge, restLength: restLength, maxRest: maxRest,
	}
	w.metrics = newMetrics(reg, w)

	w.breaker.probe = func(ctx context.Context) error { return errors.Join(w.Ready(ctx), w.ledger.RehearseAny(ctx)) }
	w.held.all = make(map[*delivery]struct{})
	w.unreachable.until = make(map[order.StockID]time.Time)
	w.progress.since, w.progress.stuck = make(map[order.StockID]time.Time), make(map[order.StockID]bool)

	// What waits is bounded by the messages held.
	w.jobs = batch.Batcher[order.StockID, *job]{Do: w.decide, Size: maxTransaction, Parallel: 1, Alone: (*job).alone}
	w.settles = batch.Batcher[order.StockID, settlement]{Do: w.settle, Size: 1, Parallel: maxSettles}
	w.deletes = batch.Batcher[struct{}, *delivery]{Do: w.delete, Size: maxDeleteBatch, Parallel: maxDeletes}

	w.receiving, w.stop = context.WithCancel(context.Background())
	w.receives, w.endReceives = context.WithCancel(context.Background())
	return w
}

// Ready reports whether the worker can decide and settle orders.
func (w *Worker) Ready(ctx context.Context) error {
	if err := w.db.CheckSchema(ctx); err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	if err := w.redis.Ping(ctx); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// Start begins to receive messages.
func (w *Worker) Start() {
	for range pollers {
		w.loops.Go(w.poll)
	}
	w.loops.Go(func() { loop.Every(w.receiving, w.heartbeatInterval, w.heartbeat) })
	w.loops.Go(func() { loop.Every(w.receiving, w.stuckAge, w.share) })
	w.loops.Go(func() { loop.Every(w.receiving, w.relayInterval, w.relay) })
	w.loops.Go(func() { loop.Every(w.receiving, expireInterval, w.expire) })
	w.loops.Go(func() { loop.Every(w.receiving, roomsInterval, w.callPlaces) })
	for _, by := range w.till.Providers {
		w.loops.Go(func() {
			loop.Every(w.receiving, paymentsInterval, func(ctx context.Context) { w.settlePayments(ctx, by) })
		})
	}
	w.loops.Go(func() {
		w.reconcile(w.receiving) // at once, so that it is known which servers of Redis there are
		loop.Every(w.receiving, w.reconcileInterval, w.reconcile)
	})
	w.loops.Go(func() { loop.Every(w.receiving, w.deadLettersInterval, w.handleDeadLetters) })
	w.loops.Go(func() { loop.Every(w.receiving, purgeInterval, w.purge) })
}

// Stop ends receiving, finishes what is under way until ctx ends, and gives the rest back to the queue.
func (w *Worker) Stop(ctx context.Context) error {
	w.stop()
	defer w.endReceives()

	// In good time before messages are given back, or a receive that still waits would get them.
	grace := receiveGrace
	if end, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(end)/2)
	}
	time.AfterFunc(grace, w.endReceives)

	finished := make(chan struct{})
	go func() {
		w.loops.Wait()
		w.jobs.Wait()
		w.settles.Wait()
		w.deletes.Wait()
		w.breaker.probes.Wait()
		close(finished)
	}()

	var err error
	select {
	case <-finished:
	case <-ctx.Done():
		err = errors.New("work was still under way when time ran out")
	}

	rest := w.held.receipts()
	if len(rest) == 0 {
		return err
	}
	slog.Info("stop: giving messages back", "messages", len(rest))
	// The context may have ended; what the queue does not hear now it finds out by itself.
	giveBack, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	return errors.Join(err, w.queue.ChangeVisibility(giveBack, rest, 0))
}

// settlement is a batch of decisions to settle.
type settlement struct {
	decisions []order.Decision
	jobs      []*job
}
