package main

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/internal/access"
	"stampede/internal/apitest"
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

// BenchmarkPostOrders takes orders through the whole handler, with Redis and the queue behind it. The time
// of an operation depends on how many requests are under way, since they share calls.
func BenchmarkPostOrders(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmarkPostOrders(b, clients) })
	}
}

func benchmarkPostOrders(b *testing.B, clients int) {
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	db, err := mysql.Open(stacktest.DSN(b))
	must(err)
	defer db.Close()
	_, err = db.Migrate(b.Context())
	must(err)
	rdb, err := redis.Open(stacktest.RedisURL(b))
	must(err)
	defer rdb.Close()
	server := stacktest.NewSQS(b, sqs.Options{Region: localstack.Region})
	must(queue.Create(b.Context(), localstack.SQSClient(server.URL()), localstack.QueueName,
		localstack.DLQName))
	tokens := token.NewKeeper(apitest.Secret)
	guard := access.New(db, rdb, tokens)
	must(guard.Limit(access.NoLimit, access.NoLimit))
	e := New(rdb, db, apitest.OpenQueue(b, server.URL()), guard, prometheus.NewRegistry())
	p, err := ledger.New(db).AddProduct(b.Context(), order.Product{Name: "thing", Price: 1999, Currency: "EUR",
		Stock: ledger.MaxStock})
	must(err)
	bearer := make([]string, 1000)
	for i := range bearer {
		signed, err := tokens.Sign(token.Claims{UserID: order.UserID(i + 1)}, 24*60*60*1e9)
		must(err)
		bearer[i] = "Bearer " + signed
	}
	body := fmt.Appendf(nil, `{"product_id":%d,"quantity":1}`, p.ID)

	var users atomic.Int64
	b.SetParallelism(clients)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var request fasthttp.Request
		for pb.Next() {
			request.Reset()
			request.Header.SetMethod("POST")
			request.SetRequestURI("/api/orders")
			request.Header.SetContentType("application/json")
			request.Header.Set("Authorization", bearer[users.Add(1)%int64(len(bearer))])
			request.SetBody(body)
			var ctx fasthttp.RequestCtx
			ctx.Init(&request, nil, nil)
			e.server.Handler(&ctx)
			if ctx.Response.StatusCode() != 202 {
				b.Errorf("got %d %s", ctx.Response.StatusCode(), ctx.Response.Body())
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
	e.reserver.tickets.Wait()
	e.sender.parcels.Wait()
	if n := server.Requests()[sendBatch]; n > 0 {
		b.ReportMetric(float64(b.N)/float64(n), "orders/send")
	}
}

// newSoldOut returns a request that a whole edge answers from memory, since the product is sold out. No server is
// behind that edge. Remember renews the edge's memory, which lasts for refusalTTL.
func newSoldOut(t testing.TB) (request, remember func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := mysql.Open("nobody@tcp(127.0.0.1:1)/none")
	must(err)
	t.Cleanup(func() { _ = db.Close() })
	rdb, err := redis.Open("redis://127.0.0.1:1/0")
	must(err)
	t.Cleanup(func() { _ = rdb.Close() })
	tokens := token.NewKeeper(apitest.Secret)
	guard := access.New(db, rdb, tokens)
	must(guard.Limit(access.NoLimit, access.NoLimit))
	e := New(rdb, db, nil, guard, prometheus.NewRegistry())
	signed, err := tokens.Sign(token.Claims{UserID: 7}, time.Hour)
	must(err)
	e.upgrade.done.Store(true)
	remember = func() { e.refusalCache.learn(1, stock.Sale{Now: time.Now()}, time.Now()) }
	remember()

	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, nil, nil)
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.SetRequestURI("/api/orders")
	ctx.Request.Header.SetContentType("application/json")
	ctx.Request.Header.Set("Authorization", "Bearer "+signed)
	ctx.Request.SetBodyString(`{"product_id":1,"quantity":1}`)
	return func() {
		// As a server does between the requests of a connection.
		ctx.Response.Reset()
		ctx.ResetUserValues()
		e.server.Handler(&ctx)
		if ctx.Response.StatusCode() != 409 {
			t.Fatalf("got %d %s", ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}, remember
}

// BenchmarkSoldOut is what each of those costs an edge who come too late.
func BenchmarkSoldOut(b *testing.B) {
	request, remember := newSoldOut(b)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%1000 == 0 {
			remember()
		}
		request()
	}
}

// maxSoldOutAllocs bounds the allocations of a sold-out answer: none now. The rest is for the race detector.
const maxSoldOutAllocs = 4

// TestSoldOutAllocations guards the answer that most of a crowd gets.
func TestSoldOutAllocations(t *testing.T) {
	request, remember := newSoldOut(t)
	remember()
	got := testing.AllocsPerRun(200, request)
	if got > maxSoldOutAllocs {
		t.Errorf("a sold-out answer takes %v allocations, at most %d are allowed", got, maxSoldOutAllocs)
	}
}
