package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"stampede/internal/batch"
	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/internal/store"
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

// ticket is a request to order on its way through the edge.
type ticket struct {
	request   stock.Request
	productID int64
	since     time.Time
	answer    chan answer // buffered for one answer, so that nobody waits for a client
}

// answer is what became of a ticket.
type answer struct {
	// code is empty if the order was accepted.
	code  code
	order order.Order // set if accepted, or if its outcome is unknown
	sale  stock.Sale
}

// reserver moves units from available to reserved, one call of the script per product at a time. As a rule two batches
// of a product are on their way: while one is sent the next is reserved, and what comes meanwhile gathers for the one
// after. The larger a batch, the less an order costs, here, in Redis and in the queue.
type reserver struct {
	stock    *stock.Stock
	store    *store.Store
	products *cache[int64, order.Product]
	closed   *closed
	sender   *sender
	tickets  batch.Batcher[int64, *ticket] // by product

	mu      sync.Mutex
	sending map[int64]chan struct{} // closed when the last batch of a product is sent
	sends   sync.WaitGroup
}

func newReserver(st *stock.Stock, db *store.Store, products *cache[int64, order.Product], c *closed, s *sender) *reserver {
	r := &reserver{stock: st, store: db, products: products, closed: c, sender: s, sending: make(map[int64]chan struct{})}
	r.tickets = batch.Batcher[int64, *ticket]{Do: r.reserve, Size: stock.MaxBatch, Parallel: 1, Waiting: maxWaiting}
	return r
}

// submit takes a ticket in; its answer comes through the ticket.
func (r *reserver) submit(t *ticket) {
	if r.tickets.Add(t.productID, t) == 0 {
		t.answer <- answer{code: stockUnavailable}
	}
}

// reserve makes one call for a batch, sends every ticket on its way, and waits a moment for the batch before it.
func (r *reserver) reserve(productID int64, waiting []*ticket) {
	tickets := waiting[:0]
	for _, t := range waiting {
		if time.Since(t.since) > maxWait {
			t.answer <- answer{code: stockUnavailable}
		} else {
			tickets = append(tickets, t)
		}
	}
	if len(tickets) == 0 {
		return
	}
	requests := make([]stock.Request, len(tickets))
	for i, t := range tickets {
		requests[i] = t.request
	}
	asked := time.Now()
	sale, results, err := r.stock.Reserve(context.Background(), productID, requests)
	if errors.Is(err, stock.ErrNotLoaded) {
		if err = r.load(productID); err == nil {
			asked = time.Now()
			sale, results, err = r.stock.Reserve(context.Background(), productID, requests)
		}
	}
	if err != nil {
		c := stockUnavailable
		if errors.Is(err, store.ErrNotFound) {
			c = productNotFound
		} else {
			slog.Error("units could not be reserved", "product", productID, "orders", len(tickets), "error", err)
		}
		for _, t := range tickets {
			t.answer <- answer{code: c}
		}
		return
	}
	r.closed.learn(productID, sale, asked)
	var send []*parcel
	underWay := new(sync.WaitGroup)
	for i, t := range tickets {
		result := &results[i]
		switch {
		case result.Outcome == stock.Reserved || result.Unsent:
			send = append(send, &parcel{order: result.Order, sale: sale, since: time.Now(), tickets: []*ticket{t}, batch: underWay})
		case result.Outcome == stock.Replayed:
			t.answer <- answer{order: result.Order, sale: sale}
		default:
			t.answer <- answer{code: refusals[result.Outcome], sale: sale}
		}
	}
	if len(send) == 0 {
		return
	}
	underWay.Add(len(send))
	r.sender.submit(send)
	if before := r.follow(productID, underWay); before != nil {
		timer := time.NewTimer(maxGather)
		defer timer.Stop()
		select {
		case <-before:
		case <-timer.C:
		}
	}
}

// follow notes a batch as the last of its product until all of it is sent, and returns the one before if that is not.
func (r *reserver) follow(productID int64, underWay *sync.WaitGroup) (before <-chan struct{}) {
	sent := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	before = r.sending[productID]
	r.sending[productID] = sent
	r.sends.Go(func() {
		underWay.Wait()
		close(sent)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sending[productID] == sent {
			delete(r.sending, productID)
		}
	})
	return before
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
