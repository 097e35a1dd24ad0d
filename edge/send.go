package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"stampede/internal/batch"
	"stampede/internal/order"
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
	flight  *flight // the batch that it is of
	trace   telemetry.Place
}

// sender puts reserved orders on the queue. Nothing is answered with a 202 before the queue has
// acknowledged it, and nothing is cancelled that may have reached it.
type sender struct {
	stock   *stock.Stock
	queue   *queue.Queue
	metrics *metrics
	parcels batch.Batcher[struct{}, *parcel]
	// deadline is sendDeadline, but for tests.
	deadline time.Duration

	mu      sync.Mutex
	pending map[uuid.UUID]*parcel // parcels waiting or being sent, by order
}

func newSender(st *stock.Stock, q *queue.Queue, m *metrics) *sender {
	s := &sender{stock: st, queue: q, metrics: m, deadline: sendDeadline, pending: make(map[uuid.UUID]*parcel)}
	// What waits is bounded by the connections of the edge, each of which has one request under way.
	s.parcels = batch.Batcher[struct{}, *parcel]{Do: s.send, Size: maxSend, Parallel: maxSends}
	return s
}

// submit takes parcels in. A parcel of an order that is already on its way joins that one.
func (s *sender) submit(parcels []*parcel) {
	s.mu.Lock()
	fresh := parcels[:0]
	for _, p := range parcels {
		if first, ok := s.pending[p.order.ID]; ok {
			first.tickets = append(first.tickets, p.tickets...)
			p.flight.done()
			continue
		}
		s.pending[p.order.ID] = p
		fresh = append(fresh, p)
	}
	s.mu.Unlock()
	s.parcels.Add(struct{}{}, fresh...)
}

// finish answers everybody who waits for a parcel.
func (s *sender) finish(p *parcel, c code) {
	s.mu.Lock()
	delete(s.pending, p.order.ID)
	tickets := p.tickets
	s.mu.Unlock()
	p.flight.done()
	told := &answer{code: c, order: p.order, sale: p.sale}
	for _, t := range tickets {
		t.answer <- told
	}
}

// send sends parcels, and answers each as soon as its fate is known. Those that have waited for so long
// that the queue must be failing are given back: they are not on it, and others need not wait as long.
func (s *sender) send(_ struct{}, gathered []*parcel) {
	var parcels, late []*parcel
	for _, p := range gathered {
		if time.Since(p.since) > maxWait {
			late = append(late, p)
		} else {
			parcels = append(parcels, p)
		}
	}
	if len(late) > 0 {
		slog.Error("orders are given back, since the queue is too slow", "orders", len(late), s.logIDs(late))
		s.cancel(late, queueUnavailable)
	}
	if len(parcels) == 0 {
		return
	}
	// Envelopes hold orders of one product each.
	slices.SortStableFunc(parcels, func(a, b *parcel) int { return cmp.Compare(a.order.ProductID, b.order.ProductID) })
	ctx, cancel := context.WithTimeout(context.Background(), s.deadline)
	defer cancel()
	orders := make([]order.Order, len(parcels))
	records := make([]order.Record, len(parcels))
	for i, p := range parcels {
		orders[i] = p.order
		records[i] = order.Record{Order: p.order, Currency: p.sale.Currency, Status: order.Pending}
	}
	if err := s.stock.WritePending(ctx, records); err != nil {
		slog.Error("accepted orders could not be made visible", "orders", len(parcels), "error", err, s.logIDs(parcels))
		s.cancel(parcels, stockUnavailable)
		return
	}
	messages, groups := queue.Pack(orders)
	contents := make([][]*parcel, len(messages))
	spans := make([][]telemetry.Span, len(messages))
	rest := parcels
	for i := range messages {
		s.metrics.envelopeOrders.Observe(float64(len(groups[i])))
		contents[i], rest = rest[:len(groups[i])], rest[len(groups[i]):]
		places, begun := beginSends(contents[i])
		if spans[i] = begun; places != "" {
			messages[i].Attributes = map[string]string{telemetry.TraceAttribute: places}
		}
	}
	var sent, refused []*parcel
	s.queue.Send(ctx, messages, func(i int, r queue.Result) {
		s.metrics.sent[r.Outcome].Add(float64(len(contents[i])))
		first := contents[i][0]
		switch r.Outcome {
		case queue.Sent:
			endSends(spans[i], "")
			// The client need not wait until the outbox is cleared: if that fails, the relay sends the
			// order again, and a worker decides it once all the same.
			for _, p := range contents[i] {
				s.finish(p, "")
			}
			sent = append(sent, contents[i]...)
		case queue.Refused:
			endSends(spans[i], "refused")
			slog.Error("the queue refused orders", "orders", len(contents[i]), "first", first.order.ID, "error", r.Err,
				telemetry.TraceID(first.trace), s.logIDs(contents[i]))
			refused = append(refused, contents[i]...)
		default:
			endSends(spans[i], "unknown")
			slog.Error("the queue did not acknowledge orders", "orders", len(contents[i]), "first", first.order.ID, "error", r.Err,
				telemetry.TraceID(first.trace), s.logIDs(contents[i]))
			for _, p := range contents[i] {
				s.finish(p, outcomeUnknown)
			}
		}
	})
	s.cancel(refused, queueUnavailable)
	settle, cancelSettle := context.WithTimeout(context.Background(), settleTimeout)
	defer cancelSettle()
	for productID, orders := range byProduct(sent) {
		if err := s.stock.Acknowledge(settle, productID, orders); err != nil {
			slog.Warn("sent orders stay in the outbox until they are sent again", "orders", len(orders), "error", err)
		}
	}
}

// cancel gives back the units of orders that are certainly not on the queue, and answers with c. An
// order that cannot be cancelled, or of which that is not known, has an unknown outcome.
func (s *sender) cancel(parcels []*parcel, c code) {
	if len(parcels) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), settleTimeout)
	defer stop()
	cancelled := make(map[uuid.UUID]bool, len(parcels))
	for productID, orders := range byProduct(parcels) {
		for len(orders) > 0 {
			n := min(len(orders), stock.MaxBatch)
			results, err := s.stock.Cancel(ctx, productID, orders[:n])
			if err != nil {
				slog.Error("orders could not be cancelled and will be sent by the relay", "orders", n, "error", err,
					s.logIDs(parcelsOf(parcels, orders[:n])))
			}
			var gone []order.Order
			for i, ok := range results {
				if ok {
					cancelled[orders[i].ID] = true
					gone = append(gone, orders[i])
				}
			}
			if err := s.stock.Forget(ctx, gone); err != nil {
				slog.Warn("cancelled orders stay visible as pending for a day", "orders", len(gone), "error", err)
			}
			orders = orders[n:]
		}
	}
	s.metrics.cancelled.Add(float64(len(cancelled)))
	for _, p := range parcels {
		if cancelled[p.order.ID] {
			s.finish(p, c)
		} else {
			s.finish(p, outcomeUnknown)
		}
	}
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

func byProduct(parcels []*parcel) map[int64][]order.Order {
	products := make(map[int64][]order.Order)
	for _, p := range parcels {
		products[p.order.ProductID] = append(products[p.order.ProductID], p.order)
	}
	return products
}
