package main

import (
	"context"
	"errors"
	"log/slog"

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
			orders, next, err := w.stock.Claim(ctx, stockID, w.relayAge, cursor)
			if err == nil && len(orders) > 0 {
				err = w.relayOrders(ctx, stockID, orders)
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

// relayOrders sends orders that this worker has claimed. What the queue does not acknowledge stays in
// the outbox, and can be claimed again when the claim is old.
func (w *Worker) relayOrders(ctx context.Context, stockID order.StockID, orders []order.Order) error {
	currency, err := w.stock.Currency(ctx, stockID)
	if err != nil && !errors.Is(err, stock.ErrNotLoaded) {
		return err
	}

	// Whoever receives the message must find the order's state.
	pending := make([]order.Record, len(orders))
	for i, o := range orders {
		pending[i] = order.Record{Order: o, Currency: currency, Status: order.Pending}
	}
	if err := w.stock.WritePending(ctx, pending); err != nil {
		return err
	}

	messages, groups := queue.Pack(orders)
	send, cancel := context.WithTimeout(ctx, w.relayAge/2) // well before the claim can be taken over
	defer cancel()
	var sent []order.Order
	w.queue.Send(send, messages, func(i int, r queue.Result) {
		if r.Outcome == queue.Sent {
			sent = append(sent, groups[i]...)
		} else {
			err = errors.Join(err, r.Err)
		}
	})

	if len(sent) > 0 {
		slog.Info("relay: orders were sent that their edge had left behind", "product", stockID, "orders", len(sent))
		w.metrics.relayed.Add(float64(len(sent)))
		err = errors.Join(err, w.stock.Acknowledge(ctx, stockID, sent))
	}
	return err
}
