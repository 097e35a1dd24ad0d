package main

import (
	"context"
	"errors"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"stampede/internal/batch"
	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/stock"
)

const (
	// decidedEntries bounds the decided orders that an edge remembers, of less than a kilobyte each.
	decidedEntries = 10_000
	// maxRows is how many orders a read of MySQL asks for, and rowReads how many reads are under way at a time.
	maxRows  = 100
	rowReads = 4
	// maxSearch bounds the orders of one search among all products that are loaded, maxSearched those products, and
	// maxSearches the orders that wait for a search.
	maxSearch   = 20
	maxSearched = 1_000
	maxSearches = 200
)

// errTooMany answers who asks for an order when too many ask for theirs.
var errTooMany = errors.New("too many orders are looked for at this moment")

// finder looks up orders: those that are pending in Redis, with their product, and others in MySQL. What gathers while
// a call is under way goes into the next one, so that a crowd that asks costs little.
type finder struct {
	stock    *stock.Stock
	ledger   *ledger.Ledger
	reserver *reserver

	decided  *lru.Cache[order.OrderID, *order.Record] // what does not change any more
	pending  batch.Batcher[order.StockID, *question]
	rows     batch.Batcher[struct{}, *question]
	searches batch.Batcher[struct{}, *question]
}

// question is an order that somebody asks for.
type question struct {
	id      order.OrderID
	product order.ProductID // 0 if who asks does not say
	answer  chan found      // buffered, so that nobody waits for who asks
}

// found is what is known of an order in one place; its record is nil if that is nothing.
type found struct {
	record *order.Record
	err    error
}

func newFinder(st *stock.Stock, books *ledger.Ledger, r *reserver) *finder {
	decided, err := lru.New[order.OrderID, *order.Record](decidedEntries)
	if err != nil {
		panic(err) // only a size below 1 does this
	}
	f := &finder{stock: st, ledger: books, reserver: r, decided: decided}
	f.pending = batch.Batcher[order.StockID, *question]{Do: f.readPending, Size: stock.MaxBatch, Parallel: 1}
	f.rows = batch.Batcher[struct{}, *question]{Do: f.readRows, Size: maxRows, Parallel: rowReads}
	f.searches = batch.Batcher[struct{}, *question]{
		Do: f.search, Size: maxSearch, Parallel: 1, Waiting: maxSearches,
	}
	return f
}

// ask puts a question into a batch and waits for its answer, for as long as one call may take.
func ask[K comparable](b *batch.Batcher[K, *question], key K, id order.OrderID,
	product order.ProductID) (*order.Record, error) {
	q := &question{id: id, product: product, answer: make(chan found, 1)}
	if b.Add(key, q) == 0 {
		return nil, errTooMany
	}
	timer := time.NewTimer(lookupTimeout)
	defer timer.Stop()
	select {
	case a := <-q.answer:
		return a.record, a.err
	case <-timer.C:
		return nil, errTooMany
	}
}

// find returns a user's order, or nil if it is not known, or not the user's: then it is looked for just as long. It is
// found at once if the product is given.
func (f *finder) find(id order.OrderID, productID order.ProductID, userID order.UserID) (*order.Record, error) {
	own := func(record *order.Record) bool { return record != nil && record.UserID == userID }
	if record, ok := f.decided.Get(id); ok && own(record) {
		return record, nil
	}

	// What is not in Redis any more is in MySQL.
	var redisErr error
	if productID != 0 {
		var record *order.Record
		if record, redisErr = f.findPending(id, productID, userID); own(record) {
			return record, nil
		}
	}
	record, mysqlErr := ask(&f.rows, struct{}{}, id, productID)
	if own(record) {
		return record, nil
	}

	// It may be pending, and who asks does not know of which product, or have been moved to another bucket.
	if redisErr == nil && mayBeUnseen(id) {
		if record, redisErr = ask(&f.searches, struct{}{}, id, productID); own(record) {
			return record, nil
		}
	}
	return nil, errors.Join(redisErr, mysqlErr) // neither alone can know that there is no such order
}

// findPending asks Redis for an order of a product or, if the product is split, of the user's bucket.
func (f *finder) findPending(id order.OrderID, productID order.ProductID,
	userID order.UserID) (record *order.Record, err error) {
	for range 2 { // the first look may tell of how many buckets there are
		stockID := f.reserver.stockID(productID, userID)
		record, err = ask(&f.pending, stockID, id, productID)
		if record != nil || err != nil || f.reserver.stockID(productID, userID) == stockID {
			break
		}
	}
	return record, err
}

// readPending reads orders of a product, or of a bucket, from Redis.
func (f *finder) readPending(stockID order.StockID, questions []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	pending, err := f.stock.Pending(ctx, stockID, idsOf(questions))
	if err == nil && pending.Buckets > 0 && stockID == stockID.Product().Stock() {
		f.reserver.learnSplit(stockID, 0, pending.Buckets)
	}
	for i, q := range questions {
		a := found{err: err}
		if err == nil {
			a.record = pending.Records[i]
		}
		q.answer <- a
	}
}

// readRows reads orders from MySQL.
func (f *finder) readRows(_ struct{}, questions []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	records, err := f.readDecided(ctx, idsOf(questions))
	for _, q := range questions {
		q.answer <- found{records[q.id], err}
	}
}

// readDecided reads those of the orders that are decided, and remembers what cannot change any more.
func (f *finder) readDecided(ctx context.Context, ids []order.OrderID) (map[order.OrderID]*order.Record, error) {
	rows, err := f.ledger.Decided(ctx, ids)
	records := make(map[order.OrderID]*order.Record, len(rows))
	for id := range rows {
		record := rows[id]
		records[id] = &record
		if record.Final() {
			f.decided.Add(id, &record)
		}
	}
	return records, err
}

// search looks for orders among all products that are loaded, unless those are too many, or among the buckets of the
// product that is given.
func (f *finder) search(_ struct{}, questions []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	ids := idsOf(questions)
	records := make(map[order.OrderID]*order.Record)

	stockIDs, err := f.stock.Products(ctx)
	few := len(stockIDs) <= maxSearched
	stockIDs = slices.DeleteFunc(stockIDs, func(id order.StockID) bool {
		return !slices.ContainsFunc(questions, func(q *question) bool {
			return q.product == id.Product() || q.product == 0 && few
		})
	})
	for some := range slices.Chunk(stockIDs, maxRows) {
		var all []stock.Pending
		if all, err = f.stock.PendingIn(ctx, some, ids); err != nil {
			break
		}
		for _, pending := range all {
			for i, record := range pending.Records {
				if record != nil {
					records[ids[i]] = record
				}
			}
		}
	}
	for _, q := range questions {
		q.answer <- found{records[q.id], err}
	}
}

func idsOf(questions []*question) []order.OrderID {
	ids := make([]order.OrderID, len(questions))
	for i, q := range questions {
		ids[i] = q.id
	}
	return ids
}

// mayBeUnseen reports whether an order that nobody knows may be on its way nevertheless: it is young by its id, which
// edges make as UUIDs of version 7 (RFC 9562).
func mayBeUnseen(id order.OrderID) bool {
	return time.Since(id.MadeAt()).Abs() < unseenAge
}
