package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/password"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/token"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// runEnv makes the test binary be the edge, for the tests of its process.
const runEnv = "EDGE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
		return
	}
	slog.SetDefault(slog.New(&logs))
	stacktest.Main(m, stacktest.Redis|stacktest.MariaDB|stacktest.SQS)
}

// logs keeps what is logged as a warning or an error. Tests that look at it are not parallel.
var logs recorder

type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (*recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler             { return r }
func (r *recorder) WithGroup(string) slog.Handler                  { return r }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

// take returns what was logged since the last call.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

const secret = "0123456789abcdef0123456789abcdef"

// world is an edge that serves on a free port, with its own database, Redis database and queues. The edge
// reaches each of them through a proxy that can fail; the test reaches them directly.
type world struct {
	*testing.T
	edge   *Edge
	url    string
	addr   string
	client *http.Client
	reg    *prometheus.Registry
	tokens *token.Keeper

	mysql, redis, aws *proxy
	db                *mysql.DB
	ledger            *ledger.Ledger
	accounts          *account.Accounts
	stock             *stock.Stock
	rdb               *redis.Client
	sqs               *sqs.Server
	sqsClient         *awssqs.Client
	queueURL          string

	dsn, redisURL string
	queue         *queue.Queue
	received      []order.Order
}

// newWorld starts an edge; tune may change it before it serves.
func newWorld(t *testing.T, tune ...func(*Edge)) *world {
	t.Helper()
	return newWorldOn(t, stacktest.RedisURL(t), tune...)
}

// newWorldOn starts an edge on a Redis that the test chooses.
func newWorldOn(t *testing.T, redisURL string, tune ...func(*Edge)) *world {
	t.Helper()
	w := &world{T: t, tokens: token.NewKeeper(secret)}
	dsn := stacktest.DSN(t)
	w.sqs = stacktest.NewSQS(t, sqs.Options{Region: localstack.Region})
	w.sqsClient = localstack.SQSClient(w.sqs.URL())
	w.must(queue.Create(t.Context(), w.sqsClient, localstack.QueueName, localstack.DLQName))
	found, err := w.sqsClient.GetQueueUrl(t.Context(),
		&awssqs.GetQueueUrlInput{QueueName: aws.String(localstack.QueueName)})
	w.must(err)
	w.queueURL = aws.ToString(found.QueueUrl)

	options, err := redis.ParseURL(redisURL)
	w.must(err)
	w.rdb = redis.NewClient(options)
	t.Cleanup(func() { _ = w.rdb.Close() })
	w.db = w.openMySQL(dsn)
	w.ledger, w.accounts = ledger.New(w.db), account.New(w.db)
	_, err = w.db.Migrate(t.Context())
	w.must(err)
	w.stock = w.openStock(redisURL)

	_, host, _ := strings.Cut(dsn, "tcp(")
	host, _, _ = strings.Cut(host, ")")
	w.mysql = newProxy(t, host, true)
	w.dsn = strings.Replace(dsn, host, w.mysql.addr, 1)
	w.redis = newProxy(t, options.Addr, false)
	w.redisURL = strings.Replace(redisURL, options.Addr, w.redis.addr, 1)
	w.aws = newProxy(t, strings.TrimPrefix(w.sqs.URL(), "http://"), false)
	w.queue = openQueue(t, "http://"+w.aws.addr)

	transport := apiContract().Transport(&http.Transport{MaxIdleConnsPerHost: 256}, func(err error) { t.Error(err) })
	w.client = &http.Client{Timeout: 60 * time.Second, Transport: transport}
	w.edge, w.reg, w.addr = w.start(tune...)
	w.url = "http://" + w.addr
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// start starts an edge beside those that run.
func (w *world) start(tune ...func(*Edge)) (*Edge, *prometheus.Registry, string) {
	w.Helper()
	reg := prometheus.NewRegistry()
	e := New(w.openStock(w.redisURL), w.openMySQL(w.dsn), w.queue, w.tokens, newHasher(w), reg)
	// What fasthttp leaves running for some seconds after its end, or for ever, is not a leak of the edge.
	e.server.NoDefaultDate = true
	e.server.MaxIdleWorkerDuration = 50 * time.Millisecond
	for _, change := range tune {
		change(e)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	w.Cleanup(func() {
		w.client.CloseIdleConnections()
		for _, p := range []*proxy{w.mysql, w.redis, w.aws} {
			p.heal()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := e.Stop(ctx, 0); err != nil {
			w.Errorf("stop: %v", err)
		}
		if err := <-served; err != nil {
			w.Errorf("serve: %v", err)
		}
	})
	return e, reg, ln.Addr().String()
}

// newHasher makes the cheapest hasher that is allowed.
func newHasher(t testing.TB) *password.Hasher {
	t.Helper()
	h, err := password.New(password.Params{MemoryKiB: 7168, Iterations: 5, Parallelism: 1})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (w *world) openMySQL(dsn string) *mysql.DB {
	w.Helper()
	db, err := mysql.Open(dsn)
	w.must(err)
	w.Cleanup(func() { _ = db.Close() })
	return db
}

func (w *world) openStock(url string) *stock.Stock {
	w.Helper()
	st, err := stock.Open(url)
	w.must(err)
	w.Cleanup(func() { _ = st.Close() })
	return st
}

// awsEnv guards the environment, from which the AWS SDK reads where the queue is.
var awsEnv sync.Mutex

func openQueue(t testing.TB, endpoint string) *queue.Queue {
	t.Helper()
	awsEnv.Lock()
	defer awsEnv.Unlock()
	for _, variable := range localstack.SQSEnv(endpoint) {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	q, err := queue.Open(t.Context(), localstack.QueueName, localstack.DLQName)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// eventually waits until something is true.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for end := time.Now().Add(15 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not within 15 s: %s", what)
		}
	}
}

// addProduct puts a product on sale at 19.99 euros; change may make it another.
func (w *world) addProduct(units int64, change ...func(*order.Product)) order.Product {
	w.Helper()
	p := order.Product{Name: "thing", Description: "a thing", Price: 1999, Currency: "EUR", Stock: units}
	for _, c := range change {
		c(&p)
	}
	p, err := w.ledger.AddProduct(w.Context(), p)
	w.must(err)
	return p
}

// loadNow brings a product to Redis.
func (w *world) loadNow(p order.Product) {
	w.Helper()
	_, err := w.stock.Load(w.Context(), p.ID, func(context.Context) (order.Product, error) { return p, nil })
	w.must(err)
}

// reply is an answer over HTTP.
type reply struct {
	status int
	header http.Header
	body   string
	took   time.Duration
	err    error
}

// code is the code of a problem document, or empty.
func (r reply) code() string {
	var document struct{ Code string }
	_ = json.Unmarshal([]byte(r.body), &document)
	return document.Code
}

// told is the body without what differs from request to request.
func (r reply) told() string {
	return strings.Replace(r.body, `,"request_id":"`+r.header.Get(requestIDHeader)+`"`, "", 1)
}

func (r reply) String() string {
	return fmt.Sprintf("%d %s after %v (%v)", r.status, strings.TrimSpace(r.body), r.took.Round(time.Millisecond),
		r.err)
}

// read unpacks a JSON body.
func (r reply) read(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), into); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
}

// send makes a request; fields alternates names and values of headers.
func (w *world) send(method, path, body string, fields ...string) reply {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequest(method, w.url+path, reader)
	if err != nil {
		return reply{err: err}
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Add(fields[i], fields[i+1])
	}
	begin := time.Now()
	response, err := w.client.Do(request)
	if err != nil {
		return reply{err: err, took: time.Since(begin)}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(content), time.Since(begin), err}
}

func (w *world) bearer(user int64) string {
	signed, err := w.tokens.Sign(token.Claims{UserID: user}, time.Hour)
	if err != nil {
		w.Error(err)
	}
	return "Bearer " + signed
}

// post orders units of a product for a user; fields are further headers.
func (w *world) post(user, product, quantity int64, fields ...string) reply {
	return w.send("POST", "/api/orders", fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, product, quantity),
		append([]string{"Authorization", w.bearer(user), "Content-Type", "application/json"}, fields...)...)
}

// mustPost orders and wants a 202; it returns the order's id.
func (w *world) mustPost(user, product, quantity int64, fields ...string) string {
	w.Helper()
	r := w.post(user, product, quantity, fields...)
	if r.status != 202 {
		w.Fatalf("got %v, want 202", r)
	}
	var accepted acceptedBody
	r.read(w, &accepted)
	return accepted.OrderID
}

// get reads something as a user.
func (w *world) get(user int64, path string) reply {
	return w.send("GET", path, "", "Authorization", w.bearer(user))
}

// crowd makes n requests at once and returns their answers.
func crowd(n int, request func(i int) reply) []reply {
	replies := make([]reply, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			replies[i] = request(i)
		})
	}
	start.Done()
	done.Wait()
	return replies
}

// count counts answers by status and code.
func count(replies []reply) map[string]int {
	counted := map[string]int{}
	for _, r := range replies {
		if r.err != nil {
			counted[r.err.Error()]++
		} else {
			counted[strings.TrimSpace(fmt.Sprint(r.status, " ", r.code()))]++
		}
	}
	return counted
}

// wantProblem checks a problem document and its headers.
func wantProblem(t testing.TB, r reply, status int, c code) {
	t.Helper()
	var document struct {
		Status      int
		Title, Code string
	}
	_ = json.Unmarshal([]byte(r.body), &document)
	if r.err != nil || r.status != status || document.Status != status || document.Code != string(c) ||
		document.Title == "" ||
		document.Title != problems[c].title {
		t.Errorf("got %v, want %d %s", r, status, c)
		return
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s has Content-Type %q", c, got)
	}
	if retry := r.header.Get("Retry-After"); slices.Contains(retryTimes, retry) != (status == 503 ||
		c == orderNotSeenYet) {
		t.Errorf("%s has Retry-After %q", c, retry)
	}
}

// level is what Redis holds of a product.
func (w *world) level(product int64) stock.Level {
	w.Helper()
	level, err := w.stock.Level(context.Background(), product)
	w.must(err)
	return level
}

// wantLevel checks available units, reserved units, and the orders in the outbox.
func (w *world) wantLevel(product, available, reserved, outbox int64) {
	w.Helper()
	if l := w.level(product); l.Available != available || l.Reserved != reserved || l.Outbox != outbox {
		w.Errorf("available, reserved, outbox: %d, %d, %d; want %d, %d, %d",
			l.Available, l.Reserved, l.Outbox, available, reserved, outbox)
	}
}

// wantSettledOutbox waits until the outbox is empty.
func (w *world) wantSettledOutbox(product int64) {
	w.Helper()
	w.eventually("the outbox is empty", func() bool { return w.level(product).Outbox == 0 })
}

// dump is all that Redis holds, in its own serialization, by key.
func (w *world) dump() map[string]string {
	w.Helper()
	ctx := context.Background()
	keys, err := w.rdb.Keys(ctx, "*").Result()
	w.must(err)
	all := make(map[string]string, len(keys))
	for _, key := range keys {
		if strings.HasPrefix(key, "sale:") { // without the number of calls that have changed something
			sale, err := w.rdb.HGetAll(ctx, key).Result()
			w.must(err)
			delete(sale, "changes")
			all[key] = fmt.Sprint(sale)
			continue
		}
		if all[key], err = w.rdb.Dump(ctx, key).Result(); err != nil {
			w.Fatal(err)
		}
	}
	return all
}

// orders receives what is on the queue, without deleting it, and returns all orders received so far.
func (w *world) orders() []order.Order {
	w.Helper()
	for {
		out, err := w.sqsClient.ReceiveMessage(context.Background(),
			&awssqs.ReceiveMessageInput{QueueUrl: &w.queueURL, MaxNumberOfMessages: 10})
		w.must(err)
		if len(out.Messages) == 0 {
			return w.received
		}
		for _, m := range out.Messages {
			orders, err := order.Decode([]byte(aws.ToString(m.Body)))
			w.must(err)
			w.received = append(w.received, orders...)
		}
	}
}

// copies counts the received orders by id.
func (w *world) copies() map[string]int {
	w.Helper()
	counted := map[string]int{}
	for _, o := range w.orders() {
		counted[o.ID.String()]++
	}
	return counted
}

// requests reads the counter of requests with these labels.
func (w *world) requests(route, status string, c code) float64 {
	w.Helper()
	families, err := w.reg.Gather()
	w.must(err)
	for _, family := range families {
		if family.GetName() != "stampede_http_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["route"] == route && labels["status"] == status && labels["code"] == string(c) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// exchange writes bytes to the edge on a connection of their own and reads one answer, or the first that
// is no 100. It goes on writing while it reads.
func (w *world) exchange(raw []byte) reply {
	begin := time.Now()
	connection, err := net.Dial("tcp", w.addr)
	if err != nil {
		return reply{err: err}
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(connection, bytes.NewReader(raw)); err != nil {
		return reply{err: err, took: time.Since(begin)}
	}
	r := readReply(connection)
	r.took = time.Since(begin)
	if r.err == nil {
		// The path is empty if there is no request line that can be read.
		line, _, _ := bytes.Cut(raw, []byte("\r\n"))
		method, rest, _ := strings.Cut(string(line), " ")
		path, _, _ := strings.Cut(rest, " HTTP/1.1")
		if err := apiContract().Check(method, path, r.status, r.header, []byte(r.body)); err != nil {
			w.Error(err)
		}
	}
	return r
}
