// Package apitest is what tests of servers over HTTP have in common: the servers that these depend on, each behind a
// proxy that can fail, requests that are held against the contract, and a look at what became of them.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/apidoc"
	"stampede/internal/catalog"
	"stampede/internal/contract"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/token"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// Secret is the key of the tokens in tests.
const Secret = "0123456789abcdef0123456789abcdef"

// World is a database, a Redis database and queues of a test's own. The server that is tested reaches each of them
// through a proxy that can fail; the test reaches them directly.
type World struct {
	*testing.T
	// URL and Addr are those of the server that is tested.
	URL, Addr string
	// Route returns where requests go that are not for that server; nil if all are.
	Route  func(method, path string) string
	Client *http.Client
	Tokens *token.Keeper

	MySQL, Redis, AWS *Proxy
	DB                *mysql.DB
	Ledger            *ledger.Ledger
	Stock             *stock.Stock
	RDB               *redis.Client
	SQS               *sqs.Server
	SQSClient         *awssqs.Client
	QueueURL          string

	// DSN and RedisURL lead through the proxies, as does Queue.
	DSN, RedisURL string
	Queue         *queue.Queue
	received      []order.Order
}

// agreed is the contract of edge and shop.
var agreed = sync.OnceValue(func() *contract.Contract {
	c, err := contract.Load(apidoc.Contract)
	if err != nil {
		panic(err)
	}
	return c
})

// NewWorld makes a world on a Redis. Whatever is answered in it is held against the contract.
func NewWorld(t *testing.T, redisURL string) *World {
	t.Helper()
	w := &World{T: t, Tokens: token.NewKeeper(Secret)}
	dsn := stacktest.DSN(t)
	w.SQS = stacktest.NewSQS(t, sqs.Options{Region: localstack.Region})
	w.SQSClient = localstack.SQSClient(w.SQS.URL())
	w.Must(queue.Create(t.Context(), w.SQSClient, localstack.QueueName, localstack.DLQName))
	found, err := w.SQSClient.GetQueueUrl(t.Context(),
		&awssqs.GetQueueUrlInput{QueueName: aws.String(localstack.QueueName)})
	w.Must(err)
	w.QueueURL = aws.ToString(found.QueueUrl)

	options, err := goredis.ParseURL(redisURL)
	w.Must(err)
	w.RDB = w.OpenRedis(redisURL)
	w.DB = w.OpenMySQL(dsn)
	w.Ledger = ledger.New(w.DB)
	_, err = w.DB.Migrate(t.Context())
	w.Must(err)
	w.Stock = stock.New(w.RDB)

	_, host, _ := strings.Cut(dsn, "tcp(")
	host, _, _ = strings.Cut(host, ")")
	w.MySQL = NewProxy(t, host, true)
	w.DSN = strings.Replace(dsn, host, w.MySQL.Addr, 1)
	w.Redis = NewProxy(t, options.Addr, false)
	w.RedisURL = strings.Replace(redisURL, options.Addr, w.Redis.Addr, 1)
	w.AWS = NewProxy(t, strings.TrimPrefix(w.SQS.URL(), "http://"), false)
	w.Queue = OpenQueue(t, "http://"+w.AWS.Addr)

	transport := agreed().Transport(&http.Transport{MaxIdleConnsPerHost: 256}, func(err error) { t.Error(err) })
	w.Client = &http.Client{Timeout: 60 * time.Second, Transport: transport}
	t.Cleanup(w.Client.CloseIdleConnections)
	return w
}

// Heal ends what the proxies do to connections.
func (w *World) Heal() {
	for _, p := range []*Proxy{w.MySQL, w.Redis, w.AWS} {
		p.Heal()
	}
}

// base is where a request goes.
func (w *World) base(method, path string) string {
	if w.Route != nil {
		if url := w.Route(method, path); url != "" {
			return url
		}
	}
	return w.URL
}

// PathOf is the path of a product.
func PathOf(p order.Product) string { return fmt.Sprintf("/api/products/%d", p.ID) }

// Send makes a request; fields alternates names and values of headers.
func (w *World) Send(method, path, body string, fields ...string) Reply {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequest(method, w.base(method, path)+path, reader)
	if err != nil {
		return Reply{Err: err}
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Add(fields[i], fields[i+1])
	}
	begin := time.Now()
	response, err := w.Client.Do(request)
	if err != nil {
		return Reply{Err: err, Took: time.Since(begin)}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return Reply{response.StatusCode, response.Header, string(content), time.Since(begin), err}
}

// Bearer makes the Authorization of a user.
func (w *World) Bearer(user order.UserID) string {
	signed, err := w.Tokens.Sign(token.Claims{UserID: user}, time.Hour)
	if err != nil {
		w.Error(err)
	}
	return "Bearer " + signed
}

// Post orders units of a product for a user; fields are further headers.
func (w *World) Post(user order.UserID, product order.StockID, quantity int64, fields ...string) Reply {
	return w.Send("POST", "/api/orders", fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, product, quantity),
		append([]string{"Authorization", w.Bearer(user), "Content-Type", "application/json"}, fields...)...)
}

// MustPost orders and wants a 202; it returns the order's id.
// Must ends the test if there is an error.
func (w *World) MustPost(user order.UserID, product order.StockID, quantity int64, fields ...string) string {
	w.Helper()
	r := w.Post(user, product, quantity, fields...)
	if r.Status != 202 {
		w.Fatalf("got %v, want 202", r)
	}
	var accepted struct {
		OrderID string `json:"order_id"`
	}
	r.Read(w, &accepted)
	return accepted.OrderID
}

// Get reads something as a user.
func (w *World) Get(user order.UserID, path string) Reply {
	return w.Send("GET", path, "", "Authorization", w.Bearer(user))
}

// Level is what Redis holds of a product.
func (w *World) Level(product order.StockID) stock.Level {
	w.Helper()
	level, err := w.Stock.Level(context.Background(), product)
	w.Must(err)
	return level
}

// WantLevel checks available units, reserved units, and the orders in the outbox. One that is to be empty is waited
// for: an edge clears it some milliseconds after it has answered.
func (w *World) WantLevel(product order.StockID, available, reserved, outbox int64) {
	w.Helper()
	if outbox == 0 {
		w.WantSettledOutbox(product)
	}
	if l := w.Level(product); l.Available != available || l.Reserved != reserved || l.Outbox != outbox {
		w.Errorf("available, reserved, outbox: %d, %d, %d; want %d, %d, %d",
			l.Available, l.Reserved, l.Outbox, available, reserved, outbox)
	}
}

// WantSettledOutbox waits until the outbox is empty.
func (w *World) WantSettledOutbox(product order.StockID) {
	w.Helper()
	w.Eventually("the outbox is empty", func() bool { return w.Level(product).Outbox == 0 })
}

// Dump is all that Redis holds of products and orders, in its own serialization, by key.
func (w *World) Dump() map[string]string {
	w.Helper()
	ctx := context.Background()
	keys, err := w.RDB.Keys(ctx, "*").Result()
	w.Must(err)
	all := make(map[string]string, len(keys))
	for _, key := range keys {
		if key == "fleet" { // what processes report of themselves
			continue
		}
		if strings.HasPrefix(key, "sale:") { // without the number of calls that have changed something
			sale, err := w.RDB.HGetAll(ctx, key).Result()
			w.Must(err)
			delete(sale, "changes")
			all[key] = fmt.Sprint(sale)
			continue
		}
		if all[key], err = w.RDB.Dump(ctx, key).Result(); err != nil {
			w.Fatal(err)
		}
	}
	return all
}

// Orders receives what is on the queue, without deleting it, and returns all orders received so far.
func (w *World) Orders() []order.Order {
	w.Helper()
	for {
		out, err := w.SQSClient.ReceiveMessage(context.Background(),
			&awssqs.ReceiveMessageInput{QueueUrl: &w.QueueURL, MaxNumberOfMessages: 10})
		w.Must(err)
		if len(out.Messages) == 0 {
			return w.received
		}
		for _, m := range out.Messages {
			orders, err := order.Decode([]byte(aws.ToString(m.Body)))
			w.Must(err)
			w.received = append(w.received, orders...)
		}
	}
}

// Copies counts the received orders by id.
func (w *World) Copies() map[string]int {
	w.Helper()
	counted := map[string]int{}
	for _, o := range w.Orders() {
		counted[o.ID.String()]++
	}
	return counted
}

// Exchange writes bytes to the server on a connection of their own and reads one answer, or the first that
// is no 100. It goes on writing while it reads.
func (w *World) Exchange(raw []byte) Reply {
	begin := time.Now()
	connection, err := net.Dial("tcp", w.Addr)
	if err != nil {
		return Reply{Err: err}
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(connection, bytes.NewReader(raw)); err != nil {
		return Reply{Err: err, Took: time.Since(begin)}
	}
	r := ReadReply(connection)
	r.Took = time.Since(begin)
	if r.Err == nil {
		// The path is empty if there is no request line that can be read.
		line, _, _ := bytes.Cut(raw, []byte("\r\n"))
		method, rest, _ := strings.Cut(string(line), " ")
		path, _, _ := strings.Cut(rest, " HTTP/1.1")
		if err := agreed().Check(method, path, r.Status, r.Header, []byte(r.Body)); err != nil {
			w.Error(err)
		}
	}
	return r
}

// OpenMySQL opens a pool for as long as the test lasts.
func (w *World) OpenMySQL(dsn string) *mysql.DB {
	w.Helper()
	db, err := mysql.Open(dsn)
	w.Must(err)
	w.Cleanup(func() { _ = db.Close() })
	return db
}

// OpenRedis opens a connection for as long as the test lasts.
func (w *World) OpenRedis(url string) *redis.Client {
	w.Helper()
	rdb, err := redis.Open(url)
	w.Must(err)
	w.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// awsEnv guards the environment, from which the AWS SDK reads where the queue is.
var awsEnv sync.Mutex

// OpenQueue opens the queues at an endpoint.
func OpenQueue(t testing.TB, endpoint string) *queue.Queue {
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

// Must ends the test if there is an error.
func (w *World) Must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// Eventually waits until something is true.
func (w *World) Eventually(what string, is func() bool) {
	w.Helper()
	for end := time.Now().Add(15 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not within 15 s: %s", what)
		}
	}
}

// AddProduct puts a product on sale at 19.99 euros; change may make it another.
func (w *World) AddProduct(units int64, change ...func(*order.Product)) order.Product {
	w.Helper()
	p := order.Product{Name: "thing", Description: "a thing", Price: 1999, Currency: "EUR", Stock: units}
	for _, c := range change {
		c(&p)
	}
	p, err := w.Ledger.AddProduct(w.Context(), p)
	w.Must(err)
	return p
}

// LoadNow brings a product to Redis.
func (w *World) LoadNow(p order.Product) {
	w.Helper()
	_, err := w.Stock.Load(w.Context(), p.ID, func(context.Context) (order.Product, error) { return p, nil })
	w.Must(err)
}

// AddSplit puts a product on sale whose units are in buckets.
func (w *World) AddSplit(units, buckets int64, change ...func(*order.Product)) order.Product {
	w.Helper()
	return w.AddProduct(units, append(change, func(p *order.Product) { p.Buckets = buckets })...)
}

// Whole adds up what Redis and MySQL hold of a product's buckets, which must fit for each of them.
func (w *World) Whole(p order.Product) (l stock.Level) {
	w.Helper()
	units, err := w.Ledger.Stocks(w.Context(), p.StockIDs())
	w.Must(err)
	for _, id := range p.StockIDs() {
		b := w.Level(id)
		if b.Loaded && b.Available+b.Reserved+b.InTransfer != units[id] {
			w.Errorf("bucket %d has %d available + %d reserved + %d lent, MySQL %d", id.Bucket(), b.Available,
				b.Reserved, b.InTransfer, units[id])
		}
		l.Available += b.Available
		l.Reserved += b.Reserved
		l.InTransfer += b.InTransfer
		l.Outbox += b.Outbox
	}
	return l
}

// Audit wants the books to be sound.
func (w *World) Audit() {
	w.Helper()
	audits, err := w.Ledger.Audit(w.Context())
	w.Must(err)
	for _, a := range audits {
		for _, problem := range a.Problems {
			w.Errorf("product %d: %s", a.ID, problem)
		}
	}
}

// Call sends a JSON body, with an access token if it is not empty.
func (w *World) Call(path, access string, fields map[string]any) Reply {
	body, err := json.Marshal(fields)
	w.Must(err)
	headers := []string{"Content-Type", "application/json"}
	if access != "" {
		headers = append(headers, "Authorization", "Bearer "+access)
	}
	return w.Send("POST", path, string(body), headers...)
}

// BearerOf makes a token of a user with a role.
func (w *World) BearerOf(user order.UserID, role string) string {
	signed, err := w.Tokens.Sign(token.Claims{UserID: user, Role: role}, time.Hour)
	w.Must(err)
	return "Bearer " + signed
}

// Manage sends a JSON body, which may be empty, as a merchant.
func (w *World) Manage(method, path, body string) Reply {
	fields := []string{"Authorization", w.BearerOf(99, token.Merchant)}
	if body != "" {
		fields = append(fields, "Content-Type", "application/json")
	}
	return w.Send(method, path, body, fields...)
}

// Managed sends a body as a merchant, wants a status, and returns the product of the answer.
func (w *World) Managed(method, path, body string, status int) catalog.Product {
	w.Helper()
	r := w.Manage(method, path, body)
	if r.Status != status {
		w.Fatalf("%s %s %s: got %v, want %d", method, path, body, r, status)
	}
	var p catalog.Product
	r.Read(w, &p)
	return p
}

// Stored is a product as MySQL has it.
func (w *World) Stored(id order.StockID) order.Product {
	w.Helper()
	p, err := w.Ledger.Product(context.Background(), id)
	w.Must(err)
	return p
}

// GoodProduct is a body that makes a product.
const GoodProduct = `{"name":"ticket","price":4990,"currency":"EUR","stock":3}`

// Decided decides a product's orders that are on the queue, as a worker does, and returns the decisions by order id.
func (w *World) Decided(product order.StockID) map[string]order.Decision {
	w.Helper()
	orders := slices.DeleteFunc(slices.Clone(w.Orders()), func(o order.Order) bool { return o.StockID != product })
	decisions, err := w.Ledger.Decide(w.Context(), product, orders)
	w.Must(err)
	_, err = w.Stock.Settle(w.Context(), product, decisions)
	w.Must(err)
	byID := map[string]order.Decision{}
	for _, d := range decisions {
		byID[d.ID.String()] = d
	}
	return byID
}
