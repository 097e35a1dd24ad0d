package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/localstack"
	"stampede/lua"
)

const (
	// closedConns is how many clients order at a time in the closed model, openConns how many connections the open one
	// has.
	closedConns = 256
	openConns   = 1_000
	// idleConns is how many connections an edge holds of which nothing comes.
	idleConns = 10_000
	// spareFiles are what a process needs to have open besides.
	spareFiles = 500
	// warmShare of a measurement's time comes before it.
	warmShare = 5
	// drainPerS and textbookPerS fill a queue with about as many orders as are decided in a measurement's time.
	drainPerS, textbookPerS = 20_000, 2_000
	// leastTextbook is time enough for the textbook worker to decide something.
	leastTextbook = 500 * time.Millisecond
	// drainLimit bounds the wait for a queue that is being drained.
	drainLimit = time.Minute
	// drainLook is how often it is looked at.
	drainLook = time.Millisecond
	// lonePause lets the system fall idle between lone orders.
	lonePause = 3 * time.Millisecond
	// insertRows is how many rows a statement inserts, of insertConns connections each: as many as the worker has in
	// a transaction.
	insertRows, insertConns = 500, 4
	// reservers call Redis at a time, so that it never waits for a client.
	reservers = 4
	// reservePerS orders are made in advance for each second of reserving; a Redis is not faster.
	reservePerS = 1_000_000
	// pipelineLength is how many calls a pipeline has: as many orders as a batch has.
	pipelineLength = stock.MaxBatch
	// memorySteps is of how many products, users and orders the memory is measured, and then of as many again: a little
	// less than a power of two, so that Redis's tables, which double, are about as full both times.
	memorySteps = 4_000
	// rehashPause is time enough for Redis to finish moving to a larger table, which it does on the side.
	rehashPause = 300 * time.Millisecond
	// settleDown is what a process gets to come to rest.
	settleDown = time.Second
)

// probes are all of them, in the order of a round: what is compared stands side by side.
func probes() []probe {
	return append([]probe{
		{name: "no-op", run: probeNoop},
		{name: "sold out", run: probeSoldOut},
		{name: "accepted", run: probeAccepted},
		{name: "textbook edge", run: probeTextbookEdge},
		{name: "telemetry", run: probeTelemetry},
		{name: "open", needs: "accepted", run: probeOpen},
		{name: "lone", run: probeLone},
		{name: "textbook lone", run: probeTextbookLone},
		{name: "saturation", run: probeSaturation},
		{name: "drain", run: probeDrain},
		{name: "payment drain", run: probePaymentDrain},
		{name: "points drain", run: probePointsDrain},
		{name: "textbook drain", run: probeTextbookDrain},
		{name: "insert", run: probeInsert},
		{name: "durable", run: probeDurable},
		{name: "reserve", run: probeReserve},
		{name: "pipelined reserve", run: probePipelinedReserve},
		{name: "masters", once: true, run: probeMasters},
		{name: "idle", once: true, run: probeIdle},
		{name: "memory", once: true, run: probeMemory},
		{name: "orders", once: true, run: probeOrders},
		{name: "rest", once: true, run: probeRest},
		{name: "steady", run: probeSteady},
	}, append(paymentProbes(), againstProbes()...)...)
}

// rate runs a closed model on an address and returns the answers a second, all of which must have one status.
func (b *bench) rate(ctx context.Context, addr string, requests [][]byte, status int) (rawResult, error) {
	l := rawLoad{addr: addr, conns: closedConns, requests: requests}
	r, err := l.closed(ctx, b.o.duration/warmShare, b.o.duration, b.mark)
	return r, errors.Join(err, r.all.only(status))
}

func probeNoop(ctx context.Context, b *bench) (figures, error) {
	r, err := b.rate(ctx, b.noop, b.orders, fasthttp.StatusAccepted)
	return figures{"no-op": r.perSecond}, err
}

func probeSoldOut(ctx context.Context, b *bench) (figures, error) {
	if err := b.reset(ctx); err != nil {
		return nil, err
	}
	r, err := b.rate(ctx, b.edge, b.soldOut, fasthttp.StatusConflict)
	return figures{"sold out": r.perSecond}, err
}

func probeAccepted(ctx context.Context, b *bench) (figures, error) {
	if err := b.reset(ctx); err != nil {
		return nil, err
	}
	r, err := b.rate(ctx, b.edge, b.orders, fasthttp.StatusAccepted)
	messages := b.stack.SQS.Messages(localstack.QueueName)
	return figures{
		"accepted":                    r.perSecond,
		"accepted/orders per message": float64(r.all.all()) / float64(max(messages, 1)),
	}, err
}

func probeTextbookEdge(ctx context.Context, b *bench) (figures, error) {
	if err := b.reset(ctx); err != nil {
		return nil, err
	}
	r, err := b.rate(ctx, b.textbook, b.orders, fasthttp.StatusAccepted)
	if n := b.stack.SQS.Messages(textbookQueue); err == nil && int64(n) != r.all.all() {
		err = fmt.Errorf("%d orders were accepted, and %d are on the queue", r.all.all(), n)
	}
	return figures{"textbook edge": r.perSecond}, err
}

// probeTelemetry runs the edge, while its metrics are read once a second, against one that was built without telemetry.
// It measures them in the order on, off, off, on, so that what becomes slower with time does so for both.
func probeTelemetry(ctx context.Context, b *bench) (figures, error) {
	if b.bare == "" {
		if err := b.startBare(ctx); err != nil {
			return nil, err
		}
	}

	rates := map[string][]float64{}
	for _, name := range []string{"telemetry/on", "telemetry/off", "telemetry/off", "telemetry/on"} {
		if err := b.reset(ctx); err != nil {
			return nil, err
		}

		addr := b.bare
		watch, stop := context.WithCancel(ctx)
		var scraping sync.WaitGroup
		if name == "telemetry/on" {
			addr = b.edge
			scraping.Go(func() { scrape(watch, b.running["edge"][0].Admin) })
		}

		r, err := b.rate(ctx, addr, b.orders, fasthttp.StatusAccepted)
		stop()
		scraping.Wait()
		if err != nil {
			return nil, err
		}
		rates[name] = append(rates[name], r.perSecond)
	}

	return figures{"telemetry/on": median(rates["telemetry/on"]), "telemetry/off": median(rates["telemetry/off"])}, nil
}

// scrape reads a program's metrics every second until ctx ends, as Prometheus would.
func scrape(ctx context.Context, admin string) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
		if err != nil {
			return
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		wait(ctx, time.Second)
	}
}

// probeOpen offers half of what the edge has shown that it can take.
func probeOpen(ctx context.Context, b *bench) (figures, error) {
	capacity := median(b.found["accepted"])
	if capacity == 0 {
		return nil, errors.New("the edge's capacity is not known")
	}

	if err := b.reset(ctx); err != nil {
		return nil, err
	}
	l := rawLoad{addr: b.edge, conns: openConns, requests: b.orders}
	counts, latencies, err := l.open(ctx, capacity/2, b.o.duration/warmShare, b.o.duration, b.mark)
	if err != nil {
		return nil, err
	}

	b.draw("edge at half of its capacity", latencies)
	return figures{
		"open/rate":   capacity / 2,
		"open/errors": float64(counts.all() - counts[fasthttp.StatusAccepted]),
		"open/p50":    percentile(latencies, .5),
		"open/p99":    percentile(latencies, .99),
		"open/p99.9":  percentile(latencies, .999),
	}, nil
}

func probeLone(ctx context.Context, b *bench) (figures, error) {
	return b.lone(ctx, "lone", "lone order, edge", b.edge)
}

func probeTextbookLone(ctx context.Context, b *bench) (figures, error) {
	return b.lone(ctx, "textbook lone", "lone order, textbook edge", b.textbook)
}

func (b *bench) lone(ctx context.Context, figure, title, addr string) (figures, error) {
	if err := b.reset(ctx); err != nil {
		return nil, err
	}
	l := rawLoad{addr: addr, requests: b.orders}
	b.mark()
	counts, latencies, err := l.alone(ctx, lonePause, b.o.duration)
	b.mark()
	b.draw(title, latencies)
	return figures{figure: percentile(latencies, .5)}, errors.Join(err, counts.only(fasthttp.StatusAccepted))
}

// reserveRequests are orders with everything that the script has rules for: a user, a limit and an idempotency key.
func reserveRequests(n int) []stock.Request {
	requests := make([]stock.Request, n)
	for i := range requests {
		id := order.NewID()
		requests[i] = stock.Request{OrderID: id, UserID: order.UserID(i + 1), Quantity: 1, IdempotencyKey: id.String()}
	}
	return requests
}

// reserveCall reserves a batch of orders.
type reserveCall func(ctx context.Context, productID order.StockID, requests []stock.Request) error

// reserveAll has several callers work off orders, a batch at a time, and returns how many they did a second.
func (b *bench) reserveAll(ctx context.Context, call reserveCall) (float64, error) {
	if err := b.reset(ctx); err != nil {
		return 0, err
	}
	product, err := b.sale.Ledger.AddProduct(ctx, order.Product{
		Name: "limited", Price: 1999, Currency: "EUR", Stock: ledger.MaxStock, LimitPerUser: 2,
	})
	if err != nil {
		return 0, err
	}
	if err := b.load(ctx, product.ID); err != nil {
		return 0, err
	}

	requests := reserveRequests(int(reservePerS * min(b.o.duration, maxReserve).Seconds()))

	end := time.Now().Add(b.o.duration)
	var next, done atomic.Int64
	errs := make([]error, reservers)
	var all sync.WaitGroup

	b.mark()
	begin := time.Now()
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && time.Now().Before(end) {
				from := int(next.Add(stock.MaxBatch)) - stock.MaxBatch
				if from >= len(requests) {
					return
				}
				batch := requests[from:min(from+stock.MaxBatch, len(requests))]
				if errs[i] = call(ctx, product.ID, batch); errs[i] != nil {
					return
				}
				done.Add(int64(len(batch)))
			}
		})
	}

	all.Wait()
	took := time.Since(begin)
	b.mark()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}

	level, err := b.sale.Stock.Level(ctx, product.ID)
	if err == nil && (level.Reservations != done.Load() || level.Outbox != done.Load()) {
		err = fmt.Errorf("of %d orders %d are reserved and %d in the outbox", done.Load(), level.Reservations,
			level.Outbox)
	}
	return float64(done.Load()) / took.Seconds(), err
}

// maxReserve bounds the orders that are made in advance, which take memory here and, once reserved, in Redis.
const maxReserve = 2 * time.Second

func probeReserve(ctx context.Context, b *bench) (figures, error) {
	rate, err := b.reserveAll(ctx, func(ctx context.Context, stockID order.StockID, requests []stock.Request) error {
		_, _, err := b.sale.Stock.Reserve(ctx, stockID, 0, requests)
		return err
	})
	return figures{"reserve": rate}, err
}

// probePipelinedReserve makes a call of the same script for each order. The calls go out and come back together, so
// that what differs is what the script costs and not the way to Redis.
func probePipelinedReserve(ctx context.Context, b *bench) (figures, error) {
	script := redis.NewScript(lua.Script("reserve"))
	if err := script.Load(ctx, b.rdb).Err(); err != nil {
		return nil, err
	}

	rate, err := b.reserveAll(ctx, func(ctx context.Context, stockID order.StockID, requests []stock.Request) error {
		// The keys of docs/design.md.
		tag := fmt.Sprintf("{%d}", stockID)
		keys := []string{"stock:" + tag, "reserved:" + tag, "bought:" + tag, "sale:" + tag, "outbox:" + tag,
			"idem:" + tag + ":0", "idem:" + tag + ":1"}
		for calls := range slices.Chunk(requests, pipelineLength) {
			_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, r := range calls {
					p.EvalSha(ctx, script.Hash(), keys, order.IdempotencyLifetime.Milliseconds(), 0,
						r.OrderID.String(), 0, r.OrderID.String(), r.UserID, r.Quantity, r.IdempotencyKey)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return figures{"pipelined reserve": rate}, err
}

// probeIdle opens connections to a new edge, makes one request on each, and leaves them open.
func probeIdle(ctx context.Context, b *bench) (figures, error) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if need := b.o.idleConns + spareFiles; err == nil && limit.Max < uint64(need) {
		return nil, fmt.Errorf("%d open files are needed and %d allowed: see ulimit -Hn", need, limit.Max)
	}

	if err := b.reset(ctx); err != nil {
		return nil, err
	}

	edge, err := b.launch(ctx, "edge", "edge", "edge-idle")
	if edge != nil {
		b.running["edge"] = append(b.running["edge"], edge)
		defer func() { _ = edge.Kill() }()
	}
	if err != nil {
		return nil, err
	}

	_, empty, err := usage(edge.Pid())
	if err != nil {
		return nil, err
	}
	l := rawLoad{addr: edge.Addr, conns: b.o.idleConns, requests: b.orders}
	conns, err := l.dial(ctx, drainLimit)
	defer closeAll(conns)
	if err != nil {
		return nil, err
	}

	// A request on each connection, some at a time.
	turns := make(chan *rawConn, len(conns))
	for _, c := range conns {
		turns <- c
	}
	close(turns)

	errs := make([]error, closedConns)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for c := range turns {
				status, err := c.exchange(b.orders[i%len(b.orders)])
				if err == nil && status != fasthttp.StatusAccepted {
					err = fmt.Errorf("an order was answered with %d", status)
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}

	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	wait(ctx, settleDown)
	_, bytes, err := usage(edge.Pid())
	return figures{"idle": float64(bytes) / 1e6, "idle/without connections": float64(empty) / 1e6}, err
}

// probeMemory fills Redis step by step and reads what it holds.
func probeMemory(ctx context.Context, b *bench) (figures, error) {
	const some = 1 << 40 // ids of users, and of products that MySQL does not know
	product := order.StockID(some)
	products, moreProducts, err := b.memoryOf(ctx, b.redisBytes, func(n int) error {
		for range n {
			product++
			p := order.Product{
				ID: product, Price: 1999, Currency: "EUR", Stock: 1000, Version: 1, Revision: 1, State: order.OnSale,
			}
			_, err := b.sale.Stock.Load(ctx, p.ID, func(context.Context) (order.Product, error) { return p, nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}

	// Of one user, so that an order's bytes are its own; users are then counted by orders of many.
	orders, moreOrders, err := b.memoryOf(ctx, b.redisBytes, func(n int) error {
		return b.placeOrders(ctx, n, func() order.UserID { return some })
	})
	if err != nil {
		return nil, err
	}

	bought := func(ctx context.Context) (int64, error) {
		bytes, err := b.rdb.MemoryUsage(ctx, fmt.Sprintf("bought:{%d}", b.hot.ID), 0).Result()
		if errors.Is(err, redis.Nil) { // nobody has
			err = nil
		}
		return bytes, err
	}

	user := order.UserID(some)
	users, moreUsers, err := b.memoryOf(ctx, bought, func(n int) error {
		return b.placeOrders(ctx, n, func() order.UserID { user++; return user })
	})

	return figures{
		"memory/products": products, "memory/more products": moreProducts,
		"memory/orders": orders, "memory/more orders": moreOrders,
		"memory/users": users, "memory/more users": moreUsers,
	}, err
}

// memoryOf starts from nothing and measures what one of many costs, and then of as many again: if both are the same, it
// is constant.
func (b *bench) memoryOf(
	ctx context.Context, held func(context.Context) (int64, error), add func(n int) error,
) (first, more float64, err error) {
	if err := b.reset(ctx); err != nil {
		return 0, 0, err
	}
	if err := b.load(ctx, b.hot.ID); err != nil {
		return 0, 0, err
	}

	var bytes [3]int64
	for i := range bytes {
		if i > 0 {
			if err := add(memorySteps); err != nil {
				return 0, 0, err
			}
		}
		wait(ctx, rehashPause)
		if bytes[i], err = held(ctx); err != nil {
			return 0, 0, err
		}
	}
	return float64(bytes[1]-bytes[0]) / memorySteps, float64(bytes[2]-bytes[1]) / memorySteps, nil
}

// placeOrders leaves orders in Redis as an edge leaves them.
func (b *bench) placeOrders(ctx context.Context, n int, user func() order.UserID) error {
	for requests := range slices.Chunk(reserveRequests(n), stock.MaxBatch) {
		for i := range requests {
			requests[i].UserID = user()
		}

		_, results, err := b.sale.Stock.Reserve(ctx, b.hot.ID, 0, requests)
		if err != nil {
			return err
		}
		for i := range results {
			if results[i].Outcome != stock.Reserved {
				return fmt.Errorf("an order was not reserved: outcome %d", results[i].Outcome)
			}
		}
		if err := b.sale.Stock.Acknowledge(ctx, b.hot.ID, []string{results[0].Batch}); err != nil {
			return err
		}
	}
	return nil
}
