package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/stock"
)

// relay sends what edges have left in the outbox: orders that were reserved, and never acknowledged
// by the queue as far as their edge could tell. An order that was sent after all is decided once.
func (w *Worker) relay(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}
	products, err := w.products(ctx)
	if err != nil {
		w.warnRelay(ctx, err) // and go on with those that are known
	}

	for _, stockID := range products {
		for cursor := uint64(0); ; {
			batches, next, err := w.stock.Claim(ctx, stockID, w.relayAge, cursor)
			if err == nil && len(batches) > 0 {
				err = w.relayBatches(ctx, stockID, batches)
			}
			if err != nil {
				w.warnRelay(ctx, err)
				break
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
}

// products lists the products that are loaded. If the server that knows them is away, which of a Cluster may be one of
// many, they are those that were loaded the last time, and it is an error as well.
func (w *Worker) products(ctx context.Context) ([]order.StockID, error) {
	products, err := w.stock.Products(ctx)
	w.loaded.Lock()
	defer w.loaded.Unlock()
	if err == nil {
		w.loaded.products = products
	}
	return w.loaded.products, err
}

func (w *Worker) warnRelay(ctx context.Context, err error) {
	if ctx.Err() == nil {
		slog.Warn("relay: the outbox could not be relayed now", "error", err)
	}
}

// relayBatches sends the orders of batches that this worker has claimed. A batch that the queue does not acknowledge in
// full stays in the outbox, and can be claimed again when the claim is old.
func (w *Worker) relayBatches(ctx context.Context, stockID order.StockID, batches []stock.Batch) (err error) {
	var orders []order.Order
	for _, b := range batches {
		orders = append(orders, b.Orders...)
	}

	messages, groups := queue.Pack(orders)
	send, cancel := context.WithTimeout(ctx, w.relayAge/2) // well before the claim can be taken over
	defer cancel()
	sent := make(map[order.OrderID]bool, len(orders))
	w.queue.Send(send, messages, func(i int, r queue.Result) {
		if r.Outcome != queue.Sent {
			err = errors.Join(err, r.Err)
			return
		}
		for _, o := range groups[i] {
			sent[o.ID] = true
		}
	})
	if len(sent) == 0 {
		return err
	}

	slog.Info("relay: orders were sent that their edge had left behind", "product", stockID, "orders", len(sent))
	w.metrics.relayed.Add(float64(len(sent)))
	var whole []string
	for _, b := range batches {
		if !slices.ContainsFunc(b.Orders, func(o order.Order) bool { return !sent[o.ID] }) {
			whole = append(whole, b.Name)
		}
	}
	if len(whole) > 0 {
		err = errors.Join(err, w.stock.Acknowledge(ctx, stockID, whole))
	}
	return err
}
