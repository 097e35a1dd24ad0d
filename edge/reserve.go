package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"stampede/internal/batch"
	"stampede/internal/buckets"
	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/internal/store"
	"stampede/internal/telemetry"
)

const (
	// maxWaiting bounds the requests that wait for one product's reservation. More than this could
	// not be served before their clients give up.
	maxWaiting = 8 * stock.MaxBatch
	// maxGather bounds the wait for an earlier batch, so that one call to the queue that hangs does not stop the sale.
	maxGather = 10 * time.Millisecond
	// maxWait is how long a request may wait before its reservation is tried at all.
	maxWait = 5 * time.Second
)

// maxHops bounds how often a request goes to another bucket because the edge has learned of another number of them.
const maxHops = 4

// ticket is a request to order on its way through the edge.
type ticket struct {
	request   stock.Request
	productID int64 // as the client knows it
	since     time.Time
	requestID requestID
	trace     telemetry.Place
	hops      int          // from one bucket to another, or between the product and a bucket
	answer    chan *answer // buffered for one answer, so that nobody waits for a client
}

// answer is what became of a ticket.
type answer struct {
	// code is empty if the order was accepted.
	code  code
	order order.Order // set if accepted, or if its outcome is unknown
	sale  stock.Sale
}

// reserver moves units from available to reserved, one call of the script per product or bucket at a time. As a rule two
// batches of one are on their way: while one is sent the next is reserved, and what comes meanwhile gathers for the one
// after. The larger a batch, the less an order costs, here, in Redis and in the queue.
type reserver struct {
	stock    *stock.Stock
	store    *store.Store
	products *cache[int64, order.Product]
	closed   *closed
	sender   *sender
	mover    buckets.Mover
	mysql    outage
	metrics  *metrics
	splits   *lru.Cache[int64, int64]      // number of buckets, by product; one that is not there has none, or is not known
	tickets  batch.Batcher[int64, *ticket] // by product or bucket

	mu      sync.Mutex
	sending map[int64]*flight // the last batch of a product or bucket, until it is sent
}

// flight is a batch on its way to the queue.
type flight struct {
	left   atomic.Int32 // orders whose fate is not known yet
	sent   chan struct{}
	landed func() // called when no order is left
}

// done tells that the fate of an order is known.
func (f *flight) done() {
	if f.left.Add(-1) == 0 {
		close(f.sent)
		f.landed()
	}
}

func newReserver(st *stock.Stock, db *store.Store, products *cache[int64, order.Product], c *closed, s *sender, m *metrics) *reserver {
	splits, err := lru.New[int64, int64](cacheEntries)
	if err != nil {
		panic(err) // only a size below 1 does this
	}
	r := &reserver{
		stock: st, store: db, products: products, closed: c, sender: s, splits: splits,
		mover: buckets.Mover{Redis: st, MySQL: db}, sending: make(map[int64]*flight), metrics: m,
	}
	r.tickets = batch.Batcher[int64, *ticket]{Do: r.reserve, Size: stock.MaxBatch, Parallel: 1, Waiting: maxWaiting}
	return r
}

// shelf is the id from which a user buys a product, as far as this edge knows: the product's, or that of a bucket.
func (r *reserver) shelf(productID, userID int64) int64 {
	n, ok := r.splits.Peek(productID)
	if !ok {
		return productID
	}
	return order.BucketID(productID, order.BucketFor(userID, n))
}

// submit takes a ticket in; its answer comes through the ticket.
func (r *reserver) submit(t *ticket) {
	if r.tickets.Add(r.shelf(t.productID, t.request.UserID), t) == 0 {
		t.answer <- &answer{code: stockUnavailable}
	}
}

// reserve serves a batch of one product or bucket, sends every ticket on its way, and waits a moment for the batch
// before it.
func (r *reserver) reserve(productID int64, waiting []*ticket) {
	split, _ := r.splits.Peek(order.ProductOf(productID))
	tickets := waiting[:0]
	var elsewhere []*ticket
	for _, t := range waiting {
		switch {
		case time.Since(t.since) > maxWait:
			t.answer <- &answer{code: stockUnavailable}
		case r.shelf(t.productID, t.request.UserID) != productID:
			elsewhere = append(elsewhere, t) // it was sent here by another number of buckets
		default:
			tickets = append(tickets, t)
		}
	}
	r.redirect(elsewhere)
	if len(tickets) == 0 {
		return
	}
	sale, short, before := r.ask(productID, split, tickets)
	if len(short) > 0 {
		r.borrow(productID, split, sale, short)
	} else if before != nil {
		timer := time.NewTimer(maxGather)
		defer timer.Stop()
		select {
		case <-before:
		case <-timer.C:
		}
	}
}

// redirect sends tickets to the buckets that are theirs by what is known now.
func (r *reserver) redirect(tickets []*ticket) {
	for _, t := range tickets {
		if t.hops++; t.hops > maxHops {
			t.answer <- &answer{code: stockUnavailable}
			continue
		}
		r.submit(t)
	}
}

// ask makes one call for tickets of one product or bucket. It sends on their way all but those for which a bucket has
// too few units, which it returns. Before is closed when the batch before this one is sent, nil if it is already.
func (r *reserver) ask(productID, split int64, tickets []*ticket) (sale stock.Sale, short []*ticket, before <-chan struct{}) {
	requests := make([]stock.Request, len(tickets))
	for i, t := range tickets {
		requests[i] = t.request
	}
	r.metrics.reserveBatch.Observe(float64(len(tickets)))
	asked := time.Now()
	sale, results, err := r.stock.Reserve(context.Background(), productID, split, requests)
	if errors.Is(err, stock.ErrNotLoaded) {
		if err = r.load(productID); err == nil {
			asked = time.Now()
			sale, results, err = r.stock.Reserve(context.Background(), productID, split, requests)
		}
	}
	addSpans(tickets, asked, err)
	if err != nil {
		r.fail(productID, tickets, err)
		return sale, nil, nil
	}
	if results[0].Outcome == stock.OtherBuckets {
		r.learnSplit(productID, split, sale.Buckets)
		r.redirect(tickets)
		return sale, nil, nil
	}
	var send []*parcel
	underWay := r.newFlight(productID)
	for i, t := range tickets {
		result := &results[i]
		switch {
		case result.Outcome == stock.Reserved || result.Unsent:
			send = append(send, &parcel{order: result.Order, sale: sale, since: time.Now(), tickets: []*ticket{t}, flight: underWay, trace: t.trace})
		case result.Outcome == stock.Replayed:
			t.answer <- &answer{order: result.Order, sale: sale}
		case result.Outcome == stock.SoldOut && split > 0:
			short = append(short, t)
		default:
			t.answer <- &answer{code: t.refusal(result.Outcome), sale: sale}
		}
	}
	if len(send) > 0 {
		underWay.left.Store(int32(len(send)))
		before = r.follow(productID, underWay)
		r.sender.submit(send)
	}
	if split > 0 {
		sale.Available = order.MaxQuantity // what a bucket has too little of can be borrowed
	}
	if len(short) == 0 {
		r.closed.learn(productID, sale, asked)
	}
	return sale, short, before
}

func (r *reserver) newFlight(productID int64) *flight {
	f := &flight{sent: make(chan struct{})}
	f.landed = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sending[productID] == f {
			delete(r.sending, productID)
		}
	}
	return f
}

// follow notes a batch as the last of its product, until it is sent, and returns the one before if that is not.
func (r *reserver) follow(productID int64, f *flight) (before <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.sending[productID]; last != nil {
		before = last.sent
	}
	r.sending[productID] = f
	return before
}

// learnSplit takes in that Redis does not go by a number of buckets. The product itself says what the number is; a
// bucket that is not in use, or one of another number, says only that it must be asked for anew.
func (r *reserver) learnSplit(id, split, now int64) {
	product := order.ProductOf(id)
	switch {
	case id == product && now > 0:
		slog.Info("a product has buckets", "product", product, "buckets", now)
		r.splits.Add(product, now)
	default:
		if known, ok := r.splits.Peek(product); ok && known == split {
			r.splits.Remove(product)
		}
	}
}

// fail answers tickets that could not be served.
func (r *reserver) fail(productID int64, tickets []*ticket, err error) {
	c := stockUnavailable
	if errors.Is(err, store.ErrNotFound) {
		c = productNotFound
	} else {
		slog.Error("units could not be reserved", "product", productID, "orders", len(tickets), "first", tickets[0].request.OrderID,
			"error", err, telemetry.TraceID(tickets[0].trace), logIDs(tickets))
	}
	for _, t := range tickets {
		t.answer <- &answer{code: c}
	}
}

// refusals maps the outcomes of a reservation that change nothing to what the client is told.
var refusals = map[stock.Outcome]code{
	stock.SoldOut:             soldOut,
	stock.LimitExceeded:       limitExceeded,
	stock.NotStarted:          saleNotStarted,
	stock.Ended:               saleEnded,
	stock.IdempotencyMismatch: idempotencyMismatch,
	stock.Paused:              stockUnavailable,
	stock.NotOnSale:           notOnSale,
}

// refusal is what the client is told of an outcome that changes nothing. One that this edge does not know, such as of a
// newer script, must not look like an order that was taken.
func (t *ticket) refusal(o stock.Outcome) code {
	c, ok := refusals[o]
	if !ok {
		slog.Error("reserve: Redis gave an outcome that this edge does not know", "outcome", o, logIDs([]*ticket{t}))
		return stockUnavailable
	}
	return c
}

// load brings a product's stock from MySQL to Redis. It runs once for all that wait for the product
// on this edge, and of several edges one wins.
func (r *reserver) load(productID int64) error {
	if r.products.missing(productID) {
		return store.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxWait)
	defer cancel()
	var product order.Product
	loaded, err := r.stock.Load(ctx, productID, func(ctx context.Context) (p order.Product, err error) {
		product, err = r.store.Product(ctx, productID)
		return product, err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		r.products.setMissing(productID) // so that the next request for it need not ask MySQL
	case loaded:
		slog.Info("stock loaded", "product", productID, "units", product.Stock, "version", product.Version)
	}
	return err
}
