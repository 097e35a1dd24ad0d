package board

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	stacktest.Main(m, stacktest.Redis|stacktest.RedisCluster|stacktest.MariaDB)
}

// environment guards the process's environment, from which queue.Open reads where SQS is.
var environment sync.Mutex

// rig is what a board looks at, of a test's own.
type rig struct {
	redis  *redis.Client
	stock  *stock.Stock
	db     *mysql.DB
	ledger *ledger.Ledger
	queue  *queue.Queue
	sqs    *sqs.Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return rigOf(t, stacktest.DSN(t), stacktest.RedisURL(t))
}

// rigOf makes a rig of servers that need not be there.
func rigOf(t *testing.T, dsn, redisURL string) *rig {
	t.Helper()
	r := &rig{}
	var err error
	if r.db, err = mysql.Open(dsn); err != nil {
		t.Fatal(err)
	}
	r.ledger = ledger.New(r.db)
	t.Cleanup(func() { _ = r.db.Close() })
	if r.redis, err = redis.Open(redisURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.redis.Close() })
	r.stock = stock.New(r.redis)
	r.sqs = stacktest.NewSQS(t, sqs.Options{})
	if err := queue.Create(t.Context(), localstack.SQSClient(r.sqs.URL()), localstack.QueueName,
		localstack.DLQName); err != nil {
		t.Fatal(err)
	}
	environment.Lock()
	defer environment.Unlock()
	for _, variable := range localstack.SQSEnv(r.sqs.URL()) {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if r.queue, err = queue.Open(t.Context(), localstack.QueueName, localstack.DLQName); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) migrate(t *testing.T) {
	t.Helper()
	if _, err := r.db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// add adds a product, and loads it.
func (r *rig) add(t *testing.T, p order.Product) order.Product {
	t.Helper()
	p.Currency = "EUR"
	if p.Name == "" {
		p.Name = "thing"
	}
	p, err := r.ledger.AddProduct(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range p.StockIDs() {
		if _, err := r.stock.Load(t.Context(), id, func(ctx context.Context) (order.Product, error) {
			return r.ledger.Product(ctx, id)
		}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// order reserves units, and decides the order if it is to be.
func (r *rig) order(t *testing.T, id order.StockID, userID order.UserID, units int64, decide bool) {
	t.Helper()
	request := stock.Request{OrderID: order.NewID(), UserID: userID, Quantity: units}
	p, err := r.ledger.Product(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, results, err := r.stock.Reserve(t.Context(), id, p.Buckets, []stock.Request{request})
	if err != nil || results[0].Outcome != stock.Reserved {
		t.Fatalf("%+v, %v", results, err)
	}
	if !decide {
		return
	}
	decisions, err := r.ledger.Decide(t.Context(), id, []order.Order{results[0].Order})
	if err == nil {
		_, err = r.stock.Settle(t.Context(), id, decisions)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) sampler() *sampler {
	return &sampler{redis: r.redis, stock: r.stock, ledger: r.ledger, queue: r.queue}
}

// closedAddr is an address on which nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// served is a board behind a server like that of the admin address.
type served struct {
	*Board
	server *httptest.Server
}

func serve(t *testing.T, r *rig, metrics ...prometheus.Collector) *served {
	t.Helper()
	b := Start("edge", r.redis, r.ledger, r.queue, metrics...)
	t.Cleanup(b.Close)
	s := httptest.NewUnstartedServer(b)
	s.Config.ReadTimeout = time.Second // a stream outlives it
	s.Start()
	t.Cleanup(s.Close)
	return &served{b, s}
}

// stream is one viewer.
type stream struct {
	body  io.ReadCloser
	lines *bufio.Reader
}

func (s *served) watch(t *testing.T) (*stream, *http.Response) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(s.server.URL + "/board/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &stream{resp.Body, bufio.NewReader(resp.Body)}, resp
}

// event reads the next event.
func (s *stream) event() (name, data string, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		switch field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); field {
		case "event":
			name = value
		case "data":
			data = value
		case "":
			return name, data, nil
		}
	}
}

// update reads events up to the next update.
func (s *stream) update(t *testing.T) update {
	t.Helper()
	for {
		name, data, err := s.event()
		if err != nil {
			t.Fatal(err)
		}
		if name == "" {
			var u update
			if err := json.Unmarshal([]byte(data), &u); err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
}

// show prints what a pointer points to.
func show(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}
