package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"stampede/internal/batch"
	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

const (
	// maxWaiting bounds the requests that wait for one product's reservation. More than this could
	// not be served before their clients give up.
	maxWaiting = 8 * stock.MaxBatch
	// minGather is how much later than a call with several orders, but fewer than enoughGathered, the next one is made
	// at the earliest, so that it has more. An order that comes alone, or after the answer to the one before, does not
	// wait.
	minGather      = 2 * time.Millisecond
	enoughGathered = 64
	// maxGather bounds the wait for an earlier batch, so that one call to the queue that hangs does not stop the sale.
	maxGather = 10 * time.Millisecond
	// maxWait is how long a request may wait before its reservation is tried at all.
	maxWait = 5 * time.Second
)

// maxHops bounds how often a request goes to another bucket because the edge has learned of another number of them.
const maxHops = 4

// lane is a product or bucket with the way in which its orders are paid: what the orders of one call have in common.
type lane struct {
	stockID order.StockID
	points  bool
}

// ticket is a request to order on its way through the edge.
type ticket struct {
	request   stock.Request
	productID order.ProductID // as the client knows it
	points    bool            // it is to be paid with them
	since     time.Time
	requestID problem.RequestID
	trace     telemetry.Place
	hops      int          // from one bucket to another, or between the product and a bucket
	answer    chan *answer // buffered for one answer, so that nobody waits for a client
}

// answer is what became of a ticket.
type answer struct {
	code  problem.Code // accepted, or why not
	order order.Order  // set if accepted, or if its outcome is unknown
	sale  stock.Sale
}

// reserver moves units from available to reserved, one call of the script per lane at a time. As a rule two batches
// of one are on their way: while one is sent the next is reserved, and what comes meanwhile gathers for the one after.
// The larger a batch, the less an order costs, here, in Redis and in the queue.
type reserver struct {
	stock        *stock.Stock
	ledger       *ledger.Ledger
	products     *cache[order.ProductID, order.Product]
	refusalCache *refusalCache
	sender       *sender
	stores       buckets.Stores
	mysql        breaker
	metrics      *metrics
	// number of buckets, by product; one that is not there has none, or is not known
	splits  *lru.Cache[order.ProductID, int64]
	tickets batch.Batcher[lane, *ticket]

	unsent unsentBatches
}

func newReserver(
	st *stock.Stock, books *ledger.Ledger, products *cache[order.ProductID, order.Product],
	c *refusalCache, s *sender, m *metrics,
) *reserver {
	splits, err := lru.New[order.ProductID, int64](cacheEntries)
	if err != nil {
		panic(err) // only a size below 1 does this
	}
	r := &reserver{
		stock: st, ledger: books, products: products, refusalCache: c, sender: s, splits: splits,
		stores: buckets.Stores{Redis: st, MySQL: books}, metrics: m,
		unsent: unsentBatches{last: make(map[lane]*unsentBatch)},
	}
	r.tickets = batch.Batcher[lane, *ticket]{
		Do: r.reserve, Size: stock.MaxBatch, Parallel: 1, Waiting: maxWaiting,
	}
	return r
}

// stockID is the id from which a user buys a product, as far as this edge knows: the product's, or that of a bucket.
func (r *reserver) stockID(productID order.ProductID, userID order.UserID) order.StockID {
	n, ok := r.splits.Peek(productID)
	if !ok {
		return productID.Stock()
	}
	return productID.Bucket(order.BucketFor(userID, n))
}

// submit takes a ticket in; its answer comes through the ticket.
func (r *reserver) submit(t *ticket) {
	if r.tickets.Add(lane{r.stockID(t.productID, t.request.UserID), t.points}, t) == 0 {
		t.answer <- &answer{code: problem.StockUnavailable}
	}
}

// reserve serves a batch of one lane: it makes one call for it, moves units to the bucket for those for
// whom it has too few, sends on those that belong elsewhere, and waits a moment for the batch before it.
func (r *reserver) reserve(l lane, waiting []*ticket) {
	stockID := l.stockID
	split, _ := r.splits.Peek(stockID.Product())
	tickets, elsewhere := r.sort(stockID, waiting)
	r.redirect(elsewhere)
	if len(tickets) == 0 {
		return
	}

	begin := time.Now()
	served := r.serve(stockID, split, tickets)
	r.redirect(served.elsewhere)
	if len(served.short) > 0 {
		r.redirect(r.borrow(stockID, split, served))
	} else {
		awaitEarlier(served.earlier)
		if n := len(tickets); 1 < n && n < enoughGathered {
			time.Sleep(minGather - time.Since(begin))
		}
	}
}

// sort divides tickets into those of a product or bucket, and those that were sent there by another number of buckets.
// It answers those that have waited for too long.
func (r *reserver) sort(stockID order.StockID, waiting []*ticket) (tickets, elsewhere []*ticket) {
	tickets = waiting[:0]
	for _, t := range waiting {
		switch {
		case time.Since(t.since) > maxWait:
			t.answer <- &answer{code: problem.StockUnavailable}
		case r.stockID(t.productID, t.request.UserID) != stockID:
			elsewhere = append(elsewhere, t)
		default:
			tickets = append(tickets, t)
		}
	}
	return tickets, elsewhere
}

// redirect sends tickets to the buckets that are theirs by what is known now.
func (r *reserver) redirect(tickets []*ticket) {
	for _, t := range tickets {
		if t.hops++; t.hops > maxHops {
			t.answer <- &answer{code: problem.StockUnavailable}
			continue
		}
		r.submit(t)
	}
}

// awaitEarlier waits until the batch before is sent, for a moment.
func awaitEarlier(sent <-chan struct{}) {
	if sent == nil {
		return
	}
	timer := time.NewTimer(maxGather)
	defer timer.Stop()
	select {
	case <-sent:
	case <-timer.C:
	}
}

// served is what became of a batch beside the tickets that are answered or on their way to the queue.
type served struct {
	sale      stock.Sale
	short     []*ticket       // for whom their bucket has too few units
	elsewhere []*ticket       // who went by another number of buckets than Redis does
	earlier   <-chan struct{} // closed when the batch before is sent; nil if it is already
}

// serve makes one call for tickets of one lane, and sends on their way all whose fate that decides.
func (r *reserver) serve(stockID order.StockID, split int64, tickets []*ticket) served {
	said, err := r.call(stockID, split, tickets)
	if err != nil {
		r.fail(stockID, tickets, err)
		return served{}
	}
	if said.results[0].Outcome == stock.OtherBuckets {
		r.learnSplit(stockID, split, said.sale.Buckets)
		return served{elsewhere: tickets}
	}
	return r.dispatch(stockID, split, tickets, said)
}

// batchReply is what Redis said of a batch, ticket by ticket.
type batchReply struct {
	sale    stock.Sale
	results []stock.Reservation
	asked   time.Time // before the call, so that what it says is no older
}

// call asks Redis for the units of a batch. A product that is not loaded is loaded once.
func (r *reserver) call(stockID order.StockID, split int64, tickets []*ticket) (said batchReply, err error) {
	requests := make([]stock.Request, len(tickets))
	for i, t := range tickets {
		requests[i] = t.request
	}
	r.metrics.reserveBatch.Observe(float64(len(tickets)))
	reserve := r.stock.Reserve
	if tickets[0].points {
		reserve = r.stock.ReserveByPoints
	}

	said.asked = time.Now()
	said.sale, said.results, err = reserve(context.Background(), stockID, split, requests)
	if errors.Is(err, stock.ErrNotLoaded) {
		if err = r.load(stockID); err == nil {
			said.asked = time.Now()
			said.sale, said.results, err = reserve(context.Background(), stockID, split, requests)
		}
	}
	addSpans(tickets, said.asked, err)
	return said, err
}

// dispatch answers the tickets of a batch or sends them to the queue, by what Redis said of each.
func (r *reserver) dispatch(stockID order.StockID, split int64, tickets []*ticket, said batchReply) served {
	left := served{sale: said.sale}
	var parcels []*parcel
	var batch string // of the orders that this call has reserved
	for i, t := range tickets {
		result := &said.results[i]
		switch {
		case result.Outcome == stock.Reserved || result.Unsent:
			p := &parcel{
				order: result.Order, sale: said.sale, since: time.Now(), tickets: []*ticket{t}, trace: t.trace,
				replayed: result.Unsent,
			}
			if p.replayed {
				p.alone = result.Batch
			} else {
				batch = result.Batch
			}
			parcels = append(parcels, p)
		case result.Outcome == stock.Replayed:
			t.answer <- &answer{code: accepted, order: result.Order, sale: said.sale}
		case result.Outcome == stock.SoldOut && split > 0:
			left.short = append(left.short, t)
		default:
			t.answer <- &answer{code: t.refusal(result.Outcome), sale: said.sale}
		}
	}
	if len(parcels) > 0 {
		left.earlier = r.send(lane{stockID, tickets[0].points}, batch, parcels)
	}

	// What is refused now is refused from memory for a moment.
	if split > 0 {
		left.sale.Available = order.MaxQuantity // what a bucket has too little of can be borrowed
	}
	if len(left.short) == 0 {
		r.refusalCache.learn(stockID, left.sale, said.asked)
	}
	return left
}

// send hands parcels to the sender as one batch. It returns what is closed when the batch before is sent.
func (r *reserver) send(l lane, name string, parcels []*parcel) (earlier <-chan struct{}) {
	batch, earlier := r.unsent.begin(l, name, len(parcels))
	for _, p := range parcels {
		p.batch = batch
	}
	r.sender.submit(parcels)
	return earlier
}

// learnSplit takes in that Redis does not go by a number of buckets. The product itself says what the number is; a
// bucket that is not in use, or one of another number, says only that it must be asked for anew.
func (r *reserver) learnSplit(id order.StockID, split, now int64) {
	product := id.Product()
	switch {
	case id == product.Stock() && now > 0:
		slog.Info("reserve: a product has another number of buckets", "product", product, "buckets", now)
		r.splits.Add(product, now)
	default:
		if known, ok := r.splits.Peek(product); ok && known == split {
			r.splits.Remove(product)
		}
	}
}

// fail answers tickets that could not be served.
func (r *reserver) fail(stockID order.StockID, tickets []*ticket, err error) {
	c := problem.StockUnavailable
	if errors.Is(err, mysql.ErrNotFound) {
		c = problem.ProductNotFound
	} else {
		slog.Error("reserve: no answer for a batch", "product", stockID, "orders", len(tickets), "first",
			tickets[0].request.OrderID,
			"error", err, telemetry.TraceID(tickets[0].trace), logIDs(tickets))
	}
	for _, t := range tickets {
		t.answer <- &answer{code: c}
	}
}

// load brings a product's stock from MySQL to Redis. It runs once for all that wait for the product
// on this edge, and of several edges one wins.
func (r *reserver) load(stockID order.StockID) error {
	key := order.ProductID(stockID) // a bucket that MySQL does not have says nothing of its product
	if r.products.missing(key) {
		return mysql.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxWait)
	defer cancel()
	var product order.Product
	loaded, err := r.stock.Load(ctx, stockID, func(ctx context.Context) (p order.Product, err error) {
		product, err = r.ledger.Product(ctx, stockID)
		return product, err
	})
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		r.products.setMissing(key) // so that the next request for it need not ask MySQL
	case loaded:
		slog.Info("load stock: a product is loaded", "product", stockID, "units", product.Stock, "version",
			product.Version)
	}
	return err
}
