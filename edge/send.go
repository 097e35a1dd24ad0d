package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"stampede/internal/batch"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

const (
	// maxSends bounds the calls to the queue that are under way at a time. What is reserved meanwhile
	// gathers and goes into the next ones.
	maxSends = 8
	// maxSend bounds the orders of one call: ten full envelopes.
	maxSend = 10 * order.MaxOrdersPerMessage
	// sendDeadline is how long the queue's acknowledgement is tried for.
	sendDeadline = 10 * time.Second
	// maxAcks bounds the batches that leave the outbox by one call.
	maxAcks = 100
	// gatherAcks is how long after such a call the next one waits, so that it has more batches: nobody waits for it,
	// and the relay looks at batches that are hundreds of times as old.
	gatherAcks = 20 * time.Millisecond
	// settleTimeout bounds the calls to Redis after the queue's answer, for all products together.
	settleTimeout = 5 * time.Second
)

// parcel is a reserved order on its way to the queue, with the tickets that wait for it. It has more
// than one if a client repeats a request whose order has not left yet.
type parcel struct {
	order   order.Order
	sale    stock.Sale
	since   time.Time // of the reservation
	tickets []*ticket
	batch   *unsentBatch // that it is of
	// replayed says that it was reserved by another call, in whose batch it is in the outbox; alone names that batch if
	// no other order is in it.
	replayed bool
	alone    string
	trace    telemetry.Place
}

// envelope is a message to the queue with the parcels whose orders it holds.
type envelope struct {
	message queue.Outgoing
	parcels []*parcel
	spans   []telemetry.Span
}

// sender puts reserved orders on the queue. Nothing is answered with a 202 before the queue has
// acknowledged it, and nothing is cancelled that may have reached it.
type sender struct {
	stock   *stock.Stock
	queue   *queue.Queue
	metrics *metrics
	parcels batch.Batcher[struct{}, *parcel]
	acks    batch.Batcher[order.StockID, string] // batches that may leave the outbox
	// deadline is sendDeadline, but for tests.
	deadline time.Duration

	mu      sync.Mutex
	pending map[order.OrderID]*parcel // parcels waiting or being sent, by order
}

func newSender(st *stock.Stock, q *queue.Queue, m *metrics) *sender {
	s := &sender{stock: st, queue: q, metrics: m, deadline: sendDeadline, pending: make(map[order.OrderID]*parcel)}
	// What waits is bounded by the connections of the edge, each of which has one request under way.
	s.parcels = batch.Batcher[struct{}, *parcel]{Do: s.send, Size: maxSend, Parallel: maxSends}
	s.acks = batch.Batcher[order.StockID, string]{Do: s.acknowledge, Size: maxAcks, Parallel: 1}
	return s
}

// submit takes parcels in. A parcel of an order that is already on its way joins that one.
func (s *sender) submit(parcels []*parcel) {
	s.mu.Lock()
	var joined []*parcel
	fresh := parcels[:0]
	for _, p := range parcels {
		if first, ok := s.pending[p.order.ID]; ok {
			first.tickets = append(first.tickets, p.tickets...)
			joined = append(joined, p)
			continue
		}
		s.pending[p.order.ID] = p
		fresh = append(fresh, p)
	}
	s.mu.Unlock()
	for _, p := range joined {
		s.settled(p)
	}
	s.parcels.Add(struct{}{}, fresh...)
}

// settled tells that the fate of a parcel is known. With the last one of its batch, that leaves the outbox if all of
// its orders are on the queue, or cancelled.
func (s *sender) settled(p *parcel) {
	b := p.batch
	if b.left.Add(-1) > 0 {
		return
	}
	close(b.sent)
	b.end()
	if b.name != "" && !b.open.Load() {
		s.acks.Add(b.stockID, b.name)
	}
}

// finish answers everybody who waits for a parcel.
func (s *sender) finish(p *parcel, c problem.Code) {
	s.mu.Lock()
	delete(s.pending, p.order.ID)
	tickets := p.tickets
	s.mu.Unlock()
	switch {
	case p.replayed && p.alone != "" && c == accepted:
		s.acks.Add(p.order.StockID, p.alone)
	case !p.replayed && c == problem.OutcomeUnknown:
		p.batch.open.Store(true)
	}
	s.settled(p)

	told := &answer{code: c, order: p.order, sale: p.sale}
	for _, t := range tickets {
		t.answer <- told
	}
}

// finishAll answers everybody who waits for some parcels.
func (s *sender) finishAll(parcels []*parcel, c problem.Code) {
	for _, p := range parcels {
		s.finish(p, c)
	}
}

// send sends parcels, and answers each as soon as its fate is known.
func (s *sender) send(_ struct{}, gathered []*parcel) {
	parcels := s.dropLate(gathered)
	if len(parcels) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.deadline)
	defer cancel()

	envelopes := s.pack(parcels)
	messages := make([]queue.Outgoing, len(envelopes))
	for i := range envelopes {
		messages[i] = envelopes[i].message
	}
	var refused []*parcel
	s.queue.Send(ctx, messages, func(i int, r queue.Result) {
		e := &envelopes[i]
		s.note(e, r)
		switch r.Outcome {
		case queue.Sent:
			// The client need not wait until the outbox is cleared: if that fails, the relay sends the
			// order again, and a worker decides it once all the same.
			s.finishAll(e.parcels, accepted)
		case queue.Refused:
			refused = append(refused, e.parcels...)
		default:
			s.finishAll(e.parcels, problem.OutcomeUnknown)
		}
	})

	s.cancel(refused, problem.QueueUnavailable)
}

// dropLate gives those parcels back that have waited for so long that the queue must be failing, and returns the
// others: what is given back is not on the queue, and others need not wait as long.
func (s *sender) dropLate(gathered []*parcel) (parcels []*parcel) {
	var late []*parcel
	for _, p := range gathered {
		if time.Since(p.since) > maxWait {
			late = append(late, p)
		} else {
			parcels = append(parcels, p)
		}
	}
	if len(late) > 0 {
		slog.Error("send: orders are given back, since the queue is too slow", "orders", len(late), s.logIDs(late))
		s.cancel(late, problem.QueueUnavailable)
	}
	return parcels
}

// pack puts parcels into envelopes, which hold orders of one product each.
func (s *sender) pack(parcels []*parcel) []envelope {
	slices.SortStableFunc(parcels, func(a, b *parcel) int { return cmp.Compare(a.order.StockID, b.order.StockID) })
	orders := make([]order.Order, len(parcels))
	for i, p := range parcels {
		orders[i] = p.order
	}
	messages, groups := queue.Pack(orders)

	envelopes := make([]envelope, len(messages))
	rest := parcels
	for i := range envelopes {
		e := &envelopes[i]
		e.message = messages[i]
		e.parcels, rest = rest[:len(groups[i])], rest[len(groups[i]):]
		s.metrics.envelopeOrders.Observe(float64(len(e.parcels)))

		var places string
		if places, e.spans = beginSends(e.parcels); places != "" {
			e.message.Attributes = map[string]string{telemetry.TraceAttribute: places}
		}
	}
	return envelopes
}

// note counts what the queue said of an envelope, and logs it if that was no acknowledgement.
func (s *sender) note(e *envelope, r queue.Result) {
	s.metrics.sent[r.Outcome].Add(float64(len(e.parcels)))
	failure, text := "", ""
	switch r.Outcome {
	case queue.Sent:
	case queue.Refused:
		failure, text = "refused", "send: the queue refused orders"
	default:
		failure, text = "unknown", "send: the queue did not acknowledge orders"
	}
	endSends(e.spans, failure)
	if failure != "" {
		first := e.parcels[0]
		slog.Error(text, "orders", len(e.parcels), "first", first.order.ID, "error", r.Err,
			telemetry.TraceID(first.trace), s.logIDs(e.parcels))
	}
}

// acknowledge takes batches that are on the queue out of the outbox.
func (s *sender) acknowledge(stockID order.StockID, batches []string) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := s.stock.Acknowledge(ctx, stockID, batches); err != nil {
		slog.Warn("send: sent orders stay in the outbox until they are sent again", "product", stockID, "batches",
			len(batches), "error", err)
	}
	if len(batches) < maxAcks {
		time.Sleep(gatherAcks)
	}
}

// cancel gives back the units of orders that are certainly not on the queue, and answers with c. An
// order that cannot be cancelled, or of which that is not known, has an unknown outcome.
func (s *sender) cancel(parcels []*parcel, c problem.Code) {
	if len(parcels) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), settleTimeout)
	defer stop()
	cancelled := make(map[order.OrderID]bool, len(parcels))
	for stockID, orders := range byProduct(parcels) {
		for some := range slices.Chunk(orders, stock.MaxBatch) {
			for _, o := range s.giveBack(ctx, stockID, some, parcels) {
				cancelled[o.ID] = true
			}
		}
	}
	s.metrics.cancelled.Add(float64(len(cancelled)))

	for _, p := range parcels {
		if cancelled[p.order.ID] {
			s.finish(p, c)
		} else {
			s.finish(p, problem.OutcomeUnknown)
		}
	}
}

// giveBack cancels some orders of a product in Redis, and returns those that are cancelled now.
func (s *sender) giveBack(ctx context.Context, stockID order.StockID, orders []order.Order,
	of []*parcel) (gone []order.Order) {
	results, err := s.stock.Cancel(ctx, stockID, orders)
	if err != nil {
		slog.Error("send: orders cannot be cancelled and will be sent by the relay", "orders", len(orders), "error",
			err,
			s.logIDs(parcelsOf(of, orders)))
	}
	for i, ok := range results {
		if ok {
			gone = append(gone, orders[i])
		}
	}
	return gone
}

// parcelsOf are the parcels of some of their orders.
func parcelsOf(parcels []*parcel, orders []order.Order) (of []*parcel) {
	for _, p := range parcels {
		if slices.ContainsFunc(orders, func(o order.Order) bool { return o.ID == p.order.ID }) {
			of = append(of, p)
		}
	}
	return of
}

// logIDs are the ids of the requests that wait for parcels, as an attribute of a log line.
func (s *sender) logIDs(parcels []*parcel) slog.Attr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var tickets []*ticket
	for _, p := range parcels {
		tickets = append(tickets, p.tickets...)
	}
	return logIDs(tickets)
}

func byProduct(parcels []*parcel) map[order.StockID][]order.Order {
	products := make(map[order.StockID][]order.Order)
	for _, p := range parcels {
		products[p.order.StockID] = append(products[p.order.StockID], p.order)
	}
	return products
}
