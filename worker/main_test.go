package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	_ "github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) {
	// Faults are the subject of these tests, so what a worker says of them is of interest on demand only.
	if os.Getenv("WORKER_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	// They mostly wait for time-outs, and hardly need a processor each.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	stacktest.Main(m, stacktest.Redis|stacktest.MariaDB)
}

// patience is how long a test waits for what should take much less.
const patience = 30 * time.Second

// environment guards the process's environment, from which queue.Open reads where SQS is.
var environment sync.Mutex

// rig is everything around a worker, for one test: a database, a Redis and queues of its own.
type rig struct {
	t      testing.TB
	db     *mysql.DB
	ledger *ledger.Ledger
	mysql  *sql.DB // the same database, by the driver alone
	stock  *stock.Stock
	redis  *redis.Client
	sqs    *sqs.Server
	aws    *awssqs.Client
	queue  *queue.Queue

	dsn, redisURL string
	users         order.UserID
}

// newRig makes a rig. A test that kills servers brings its own; an empty dsn or redisURL means a place
// in the ones that all tests share.
func newRig(t testing.TB, dsn, redisURL string) *rig {
	t.Helper()
	if dsn == "" {
		dsn = stacktest.DSN(t)
	}
	if redisURL == "" {
		redisURL = stacktest.RedisURL(t)
	}
	r := &rig{t: t, dsn: dsn, redisURL: redisURL}
	r.db = r.openMySQL()
	r.ledger = ledger.New(r.db)
	if _, err := r.db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.mysql, err = sql.Open("mysql", dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.mysql.Close() })
	r.redis = r.openRedis(redisURL)
	r.stock = stock.New(r.redis)

	r.sqs = stacktest.NewSQS(t, sqs.Options{})
	r.aws = localstack.SQSClient(r.sqs.URL())
	if err := queue.Create(t.Context(), r.aws, localstack.QueueName, localstack.DLQName); err != nil {
		t.Fatal(err)
	}
	r.queue = r.openQueue()
	return r
}

func (r *rig) openMySQL() *mysql.DB {
	r.t.Helper()
	db, err := mysql.Open(r.dsn)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = db.Close() })
	return db
}

func (r *rig) openRedis(url string) *redis.Client {
	r.t.Helper()
	rdb, err := redis.Open(url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func (r *rig) openQueue() *queue.Queue {
	r.t.Helper()
	environment.Lock()
	defer environment.Unlock()
	for _, variable := range localstack.SQSEnv(r.sqs.URL()) {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			r.t.Fatal(err)
		}
	}
	q, err := queue.Open(r.t.Context(), localstack.QueueName, localstack.DLQName)
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

// worker makes a worker that is impatient where a test would have to wait.
func (r *rig) worker(change ...func(*Worker)) *Worker {
	w := New(r.redis, r.db, r.queue, prometheus.NewRegistry())
	w.attemptPause = time.Second // SQS counts in whole seconds
	w.relayInterval, w.reconcileInterval, w.deadLettersInterval = time.Hour, time.Hour, time.Hour
	for _, f := range change {
		f(w)
	}
	return w
}

// start starts a worker and stops it when the test ends.
func (r *rig) start(change ...func(*Worker)) *Worker {
	r.t.Helper()
	w := r.worker(change...)
	r.run(w)
	return w
}

func (r *rig) run(w *Worker) {
	r.t.Helper()
	w.Start()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.Stop(ctx); err != nil {
			r.t.Errorf("stop: %v", err)
		}
	})
}

// impatient makes messages visible again soon, and has them renewed before that.
func impatient(w *Worker) {
	w.visibility = 2 * time.Second
	w.heartbeatInterval = 200 * time.Millisecond
}

// product puts a product on sale in MySQL and Redis.
func (r *rig) product(units, limit int64) order.Product {
	r.t.Helper()
	p, err := r.ledger.AddProduct(r.t.Context(), order.Product{
		Name: "thing", Price: 1999, Currency: "EUR", Stock: units, LimitPerUser: limit,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.load(p.ID)
	return p
}

// load loads a product into Redis as an edge does, and reports whether it was not there.
func (r *rig) load(stockID order.StockID) bool {
	r.t.Helper()
	loaded, err := r.stock.Load(r.t.Context(), stockID, func(ctx context.Context) (order.Product, error) {
		return r.ledger.Product(ctx, stockID)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return loaded
}

// reserve reserves one order of so many units for each of n new users.
func (r *rig) reserve(stockID order.StockID, n int, units int64) []order.Order {
	r.t.Helper()
	requests := make([]stock.Request, n)
	for i := range requests {
		r.users++
		requests[i] = stock.Request{OrderID: order.NewID(), UserID: r.users, Quantity: units,
			IdempotencyKey: fmt.Sprint("key ", i)}
	}
	return r.reserveAll(stockID, requests...)
}

func (r *rig) reserveAll(stockID order.StockID, requests ...stock.Request) []order.Order {
	r.t.Helper()
	orders := make([]order.Order, 0, len(requests))
	for chunk := range slices.Chunk(requests, stock.MaxBatch) {
		_, reservations, err := r.stock.Reserve(r.t.Context(), stockID, 0, chunk)
		if err != nil {
			r.t.Fatal(err)
		}
		for i, reservation := range reservations {
			if reservation.Outcome != stock.Reserved {
				r.t.Fatalf("request %d: outcome %d", i, reservation.Outcome)
			}
			orders = append(orders, reservation.Order)
		}
	}
	return orders
}

// send sends orders as an edge does, in envelopes of so many, and acknowledges them.
func (r *rig) send(perMessage int, orders ...order.Order) {
	r.t.Helper()
	r.enqueue(perMessage, orders...)
	r.acknowledge(orders...)
}

// acknowledge takes orders out of the outbox: a batch as a whole, as edges do, or else some of its orders, while no
// worker runs that would settle them meanwhile.
func (r *rig) acknowledge(orders ...order.Order) {
	r.t.Helper()
	sent := make(map[string]bool)
	products := make(map[order.StockID]bool)
	for _, o := range orders {
		sent[o.ID.String()], products[o.StockID] = true, true
	}
	for stockID := range products {
		key := fmt.Sprintf("reserved:{%d}", stockID)
		reserved, err := r.redis.HGetAll(r.t.Context(), key).Result()
		if err != nil {
			r.t.Fatal(err)
		}
		const batch = 4 // the field of a reservation
		left := make(map[string]bool)
		for id, text := range reserved {
			name := strings.Split(text, " ")[batch]
			left[name] = left[name] || !sent[id]
		}
		for id, text := range reserved {
			f := strings.Split(text, " ")
			if name := f[batch]; !left[name] {
				err = r.stock.Acknowledge(r.t.Context(), stockID, []string{name})
			} else if f[batch] = "sent"; sent[id] {
				err = r.redis.HSet(r.t.Context(), key, id, strings.Join(f, " ")).Err()
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// enqueue puts orders on the queue in envelopes of so many, as edges of before did: they may be of several products.
func (r *rig) enqueue(perMessage int, orders ...order.Order) {
	r.t.Helper()
	var messages []queue.Outgoing
	for chunk := range slices.Chunk(orders, perMessage) {
		body, err := json.Marshal(map[string]any{"v": 1, "orders": chunk})
		if err != nil {
			r.t.Fatal(err)
		}
		messages = append(messages, queue.Outgoing{Body: string(body)})
	}
	r.sendMessages(messages...)
}

func (r *rig) sendMessages(messages ...queue.Outgoing) {
	r.t.Helper()
	r.queue.Send(r.t.Context(), messages, func(i int, result queue.Result) {
		if result.Outcome != queue.Sent {
			r.t.Errorf("message %d: %v", i, result.Err)
		}
	})
}

// eventually waits for a condition.
func (r *rig) eventually(check func() error) {
	r.t.Helper()
	stacktest.Eventually(r.t, patience, check)
}

// eventuallyTrue waits for a condition that needs no words.
func (r *rig) eventuallyTrue(what string, check func() bool) {
	r.t.Helper()
	r.eventually(func() error {
		if !check() {
			return errors.New("not yet: " + what)
		}
		return nil
	})
}

// throughout watches for a time that a condition holds. What must never happen cannot be waited for.
func (r *rig) throughout(d time.Duration, check func() error) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := check(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) depth() queue.Depth {
	r.t.Helper()
	d, err := r.queue.Depth(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *rig) level(stockID order.StockID) stock.Level {
	r.t.Helper()
	l, err := r.stock.Level(r.t.Context(), stockID)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// quiet waits until no order is on its way and the workers hold nothing, and audits all products.
func (r *rig) quiet(workers ...*Worker) {
	r.t.Helper()
	products, err := r.ledger.Products(r.t.Context(), 0, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	r.eventually(func() error {
		if d, err := r.queue.Depth(r.t.Context()); err != nil || !d.Empty() {
			return fmt.Errorf("the queue is not empty: %+v, %v", d, err)
		}
		for _, p := range products {
			l, err := r.stock.Level(r.t.Context(), p.ID)
			if err != nil || l.Reservations != 0 || l.Outbox != 0 {
				return fmt.Errorf("product %d: %+v, %v", p.ID, l, err)
			}
		}
		for _, w := range workers {
			if n := w.held.len(); n != 0 {
				return fmt.Errorf("a worker holds %d messages", n)
			}
		}
		return nil
	})
	r.audit()
}

// audit checks that what Redis has available and reserved is the stock in MySQL, which its own audit
// proves.
func (r *rig) audit() {
	r.t.Helper()
	audits, err := r.ledger.Audit(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range audits {
		for _, problem := range a.Problems {
			r.t.Errorf("product %d: %s", a.ID, problem)
		}
		if !a.Known {
			continue
		}
		if a.DecidedTwice != 0 || a.UsersOverLimit != 0 {
			r.t.Errorf("product %d: %d decided twice, %d users over the limit", a.ID, a.DecidedTwice, a.UsersOverLimit)
		}
		if l := r.level(a.ID); l.Loaded && l.Available+l.Reserved != a.Stock {
			r.t.Errorf("product %d: %d available + %d reserved in Redis, but MySQL has %d", a.ID, l.Available,
				l.Reserved, a.Stock)
		}
	}
}

// mustBe checks the fate of orders in MySQL and what their buyers are shown. An empty reason means that
// they are completed.
func (r *rig) mustBe(reason order.Reason, orders ...order.Order) {
	r.t.Helper()
	status := order.Completed
	if reason != "" {
		status = order.Failed
	}
	for i, o := range orders {
		record, err := r.ledger.Order(r.t.Context(), o.ID)
		if err != nil || record.Status != status || record.FailedReason != reason ||
			record.TotalPrice() != o.TotalPrice() {
			r.t.Errorf("order %d is %s %s at %d (%v), want %s %s at %d", i, record.Status, record.FailedReason,
				record.TotalPrice(), err,
				status, reason, o.TotalPrice())
		}
	}
	for i, record := range r.pending(orders...) {
		if record != nil {
			r.t.Errorf("order %d is shown as %+v, want %s %s", i, record, status, reason)
		}
	}
}

// pending is what Redis says of orders that are not decided, and nil for others.
func (r *rig) pending(orders ...order.Order) (records []*order.Record) {
	r.t.Helper()
	for _, o := range orders {
		pending, err := r.stock.Pending(r.t.Context(), o.StockID, []order.OrderID{o.ID})
		if err != nil {
			r.t.Fatal(err)
		}
		records = append(records, pending.Records...)
	}
	return records
}

// mustBePending checks that orders are shown as pending and that MySQL does not know them.
func (r *rig) mustBePending(orders ...order.Order) {
	r.t.Helper()
	for i, record := range r.pending(orders...) {
		if record == nil || record.Status != order.Pending || record.Currency != "EUR" {
			r.t.Errorf("order %d is shown as %+v", i, record)
		}
		if _, err := r.ledger.Order(r.t.Context(), orders[i].ID); !errors.Is(err, mysql.ErrNotFound) {
			r.t.Errorf("order %d: %v", i, err)
		}
	}
}

// bought reads how many units Redis counts for a user.
func (r *rig) bought(stockID order.StockID, userID order.UserID) string {
	r.t.Helper()
	n, err := r.redis.HGet(r.t.Context(), fmt.Sprintf("bought:{%d}", stockID), fmt.Sprint(userID)).Result()
	if err != nil && !errors.Is(err, goredis.Nil) {
		r.t.Fatal(err)
	}
	return n
}

// hasTombstone reports whether Redis remembers that an order's reservation was dropped by another.
func (r *rig) hasTombstone(o order.Order) bool {
	r.t.Helper()
	is, err := r.redis.SIsMember(r.t.Context(), fmt.Sprintf("settled:{%d}", o.StockID), o.ID.String()).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return is
}

// transactions counts the deciding transactions that the database has seen.
func (r *rig) transactions(stockID order.StockID) int {
	r.t.Helper()
	var n int
	err := r.mysql.QueryRowContext(r.t.Context(), "SELECT COUNT(DISTINCT decided_at) FROM orders WHERE product_id = ?",
		stockID).Scan(&n)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *rig) exec(statement string, args ...any) {
	r.t.Helper()
	if _, err := r.mysql.ExecContext(r.t.Context(), statement, args...); err != nil {
		r.t.Fatalf("%s: %v", statement, err)
	}
}

// lock holds a product's row until the function that it returns is called.
func (r *rig) lock(stockID order.StockID) (unlock func()) {
	r.t.Helper()
	tx, err := r.mysql.BeginTx(context.Background(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := tx.QueryRow("SELECT id FROM products WHERE id = ? FOR UPDATE", stockID).Scan(&stockID); err != nil {
		r.t.Fatal(err)
	}
	unlock = sync.OnceFunc(func() { _ = tx.Rollback() })
	r.t.Cleanup(unlock)
	return unlock
}

// url finds the URL of a queue.
func (r *rig) url(name string) *string {
	r.t.Helper()
	out, err := r.aws.GetQueueUrl(r.t.Context(), &awssqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.QueueUrl
}

// letter is a dead letter.
type letter struct {
	body, reason string
	attributes   map[string]string
}

// deadLetters reads the dead-letter queue and leaves it empty.
func (r *rig) deadLetters() []letter {
	r.t.Helper()
	url := r.url(localstack.DLQName)
	var letters []letter
	for {
		out, err := r.aws.ReceiveMessage(r.t.Context(), &awssqs.ReceiveMessageInput{
			QueueUrl: url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			r.t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return letters
		}
		for _, m := range out.Messages {
			l := letter{body: aws.ToString(m.Body), attributes: make(map[string]string)}
			for name, value := range m.MessageAttributes {
				l.attributes[name] = aws.ToString(value.StringValue)
			}
			l.reason = l.attributes[queue.ReasonAttribute]
			letters = append(letters, l)
			if _, err := r.aws.DeleteMessage(r.t.Context(),
				&awssqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// setMaxReceives changes after how many receives the queue gives a message up.
func (r *rig) setMaxReceives(n int) {
	r.t.Helper()
	dlq, err := r.aws.GetQueueAttributes(r.t.Context(), &awssqs.GetQueueAttributesInput{
		QueueUrl: r.url(localstack.DLQName), AttributeNames: []types.QueueAttributeName{"QueueArn"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	policy := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, dlq.Attributes["QueueArn"], n)
	_, err = r.aws.SetQueueAttributes(r.t.Context(), &awssqs.SetQueueAttributesInput{
		QueueUrl: r.url(localstack.QueueName), Attributes: map[string]string{"RedrivePolicy": policy},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// value reads a counter or gauge of a worker; it adds up what has labels.
func value(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	collected := make(chan prometheus.Metric, 100)
	c.Collect(collected)
	close(collected)
	var sum float64
	for m := range collected {
		var d dto.Metric
		if err := m.Write(&d); err != nil {
			t.Fatal(err)
		}
		sum += d.GetCounter().GetValue() + d.GetGauge().GetValue() + float64(d.GetHistogram().GetSampleCount())
	}
	return sum
}

// mustCount checks counters of several workers together.
func mustCount(t testing.TB, want int, what string, pick func(*metrics) prometheus.Collector, workers ...*Worker) {
	t.Helper()
	var sum float64
	for _, w := range workers {
		sum += value(t, pick(w.metrics))
	}
	if sum != float64(want) {
		t.Errorf("%s: %v, want %d", what, sum, want)
	}
}

func decisions(m *metrics) prometheus.Collector   { return m.decisions }
func repeated(m *metrics) prometheus.Collector    { return m.repeated }
func deadLetters(m *metrics) prometheus.Collector { return m.deadLetters }
func relayed(m *metrics) prometheus.Collector     { return m.relayed }
func givenBack(m *metrics) prometheus.Collector   { return m.givenBack }
func takenOut(m *metrics) prometheus.Collector    { return m.takenOut }
func batches(m *metrics) prometheus.Collector     { return m.batchOrders }
