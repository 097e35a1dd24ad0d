package main

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
)

// refusalTTL is how long an edge answers from memory what it has learned of a product. It is under the second
// within which units that came back must be for sale even if the notice of it was lost.
const refusalTTL = 750 * time.Millisecond

// refusalCache remembers of products why nobody can order them right now, so that the crowd which comes too late,
// or too early, costs Redis no call. Whoever asks for what may be possible is sent on to Redis, which judges.
type refusalCache struct {
	mu      sync.Mutex // held over a look and the change that rests on it
	entries *lru.Cache[order.StockID, *verdict]
	// opened is when products were reopened. What is known of a bucket from before it says nothing either, since units
	// that come back to one bucket can be borrowed by all.
	opened *lru.Cache[order.ProductID, time.Time]
}

// verdict is what Redis said of a product at a time. It is not changed once it is remembered.
type verdict struct {
	code  problem.Code // why no unit can be had, or empty
	sale  stock.Sale
	at    time.Time // before Redis was asked, so that the answer is no older than that
	opens time.Time // of a sale that has not started, by the clock of this machine
}

func newRefusalCache() *refusalCache {
	entries, err := lru.New[order.StockID, *verdict](cacheEntries)
	if err != nil {
		panic(err) // only a size below 1 does this
	}
	opened, err := lru.New[order.ProductID, time.Time](cacheEntries)
	if err != nil {
		panic(err)
	}
	return &refusalCache{entries: entries, opened: opened}
}

// ask returns why an order for so many units of a product or bucket would be refused at a time, or an empty code if
// that is not known.
func (c *refusalCache) ask(stockID order.StockID, quantity int64, now time.Time) (problem.Code, *stock.Sale) {
	known, ok := c.entries.Peek(stockID)
	switch {
	case !ok || now.Sub(known.at) > refusalTTL:
		return "", nil
	case c.reopened(stockID, known.at):
		return "", nil
	case known.code == problem.SaleNotStarted && !now.Before(known.opens):
		return "", nil
	case known.code != "":
		return known.code, &known.sale
	case quantity > known.sale.Available:
		return problem.SoldOut, &known.sale
	}
	return "", nil
}

// reopened reports whether a product, or that of a bucket, was reopened since a time.
func (c *refusalCache) reopened(stockID order.StockID, since time.Time) bool {
	at, ok := c.opened.Peek(stockID.Product())
	return ok && !since.After(at)
}

// learn takes in what Redis said of a product or bucket, when it was asked at a time. An answer that was on its way
// when the product was reopened is kept, and ask knows not to believe it.
func (c *refusalCache) learn(stockID order.StockID, sale stock.Sale, asked time.Time) {
	entry := &verdict{sale: sale, at: asked}
	switch {
	case sale.State == order.OffSale:
		entry.code = problem.NotOnSale
	case sale.Now.Before(sale.StartsAt):
		entry.code, entry.opens = problem.SaleNotStarted, asked.Add(sale.StartsAt.Sub(sale.Now))
	case !sale.EndsAt.IsZero() && !sale.Now.Before(sale.EndsAt):
		entry.code = problem.SaleEnded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.entries.Peek(stockID); !ok || !known.at.After(asked) {
		c.entries.Add(stockID, entry)
	}
}

// reopen forgets what is known of products of which more may be had than before; of a bucket, what is known of its
// product and all the other buckets.
func (c *refusalCache) reopen(stockIDs ...order.StockID) {
	now := time.Now()
	for _, id := range stockIDs {
		c.opened.Add(id.Product(), now)
	}
}
