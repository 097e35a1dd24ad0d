package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"stampede/internal/payment"
	"stampede/internal/till"
)

const (
	// paymentsInterval is how often a provider of payments is asked about what is due.
	paymentsInterval = 250 * time.Millisecond
	// paymentsLimit is how many attempts and refunds are looked at each time, and paymentsAtOnce how many of them at
	// the same time.
	paymentsLimit  = 100
	paymentsAtOnce = 8
)

// takePayments has the worker close attempts to pay and make refunds by the providers of a till. It is called before
// Start.
func (w *Worker) takePayments(by *till.Till) {
	for _, p := range by.Providers { // what alerts compare is there before it happens the first time
		w.metrics.paymentEvents.WithLabelValues(p.Name(), string(till.OutcomeMismatch))
	}
	by.Counted = func(provider, outcome string) { w.metrics.paymentEvents.WithLabelValues(provider, outcome).Inc() }
	w.till = by
}

// settlePayments asks a provider about the attempts and refunds that are due. Each provider is asked in a loop of its
// own, so that one which does not answer keeps none of the others waiting.
func (w *Worker) settlePayments(ctx context.Context, by payment.Provider) {
	if w.breaker.isOpen() {
		return
	}
	attempts, err := w.till.Due(ctx, by.Name(), paymentsLimit)
	if err == nil {
		w.askProvider(ctx, attempts, w.till.Sweep)
		var refunds []string
		if refunds, err = w.till.DueRefunds(ctx, by.Name(), paymentsLimit); err == nil {
			w.askProvider(ctx, refunds, w.till.MakeRefund)
		}
	}
	if err != nil && ctx.Err() == nil {
		slog.Warn("payments: what is due could not be looked up now", "provider", by.Name(), "error", err)
	}
}

// askProvider calls f for each of the numbers, some at the same time.
func (w *Worker) askProvider(ctx context.Context, numbers []string, f func(context.Context, string) error) {
	var asked sync.WaitGroup
	free := make(chan struct{}, paymentsAtOnce)
	for _, number := range numbers {
		if ctx.Err() != nil {
			break
		}
		free <- struct{}{}
		asked.Go(func() {
			defer func() { <-free }()
			// Not the context of receiving: a call that was begun is finished.
			call, cancel := context.WithTimeout(context.WithoutCancel(ctx), till.CallTimeout)
			defer cancel()
			if err := f(call, number); err != nil {
				slog.Warn("payments: it is tried again later", "payment", number, "error", err)
			}
		})
	}
	asked.Wait()
}
