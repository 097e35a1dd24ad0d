package main

import (
	"context"
	"log/slog"
	"time"
)

const (
	// roomsInterval is how often places of waiting rooms are called.
	roomsInterval = 250 * time.Millisecond
	// roomsAge is how old the settings of rooms may be that this goes by.
	roomsAge = time.Second
)

// callPlaces calls the next places of the waiting rooms that this worker leads. Of the workers one leads each room, and
// another one within seconds if it dies.
func (w *Worker) callPlaces(ctx context.Context) {
	if w.breaker.isOpen() {
		return
	}
	if now := time.Now(); now.Sub(w.rooms.readAt) >= roomsAge {
		live, err := w.leader.Books.Live(ctx)
		if err != nil {
			if ctx.Err() == nil {
				slog.Warn("rooms: waiting rooms cannot be read now", "error", err)
			}
			return
		}
		w.rooms.live, w.rooms.readAt = live, now
	}
	for i := range w.rooms.live {
		of := &w.rooms.live[i]
		called, err := w.leader.Step(ctx, of)
		w.metrics.called.Add(float64(called))
		if err != nil && ctx.Err() == nil {
			slog.Warn("rooms: nobody can be called into a waiting room now", "product", of.Product, "error", err)
		}
	}
}
