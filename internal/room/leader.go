package room

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stampede/internal/order"
	"stampede/internal/stock"
)

const (
	// LeadFor is for how long one leads a room without leading it again: then another one may.
	LeadFor = 3 * time.Second
	// checkpointInterval is how often it is noted in MySQL how a room stands.
	checkpointInterval = time.Second
)

// Leader calls the places of rooms. It is for one goroutine.
type Leader struct {
	// Name is that of nobody else.
	Name  string
	Hall  *Hall
	Books *Books
	Stock *stock.Stock

	rooms map[order.ProductID]*led
}

// led is what a leader remembers of a room.
type led struct {
	put     Settings
	tokens  float64 // places that may be called by the rate
	filled  time.Time
	noted   int64 // how many had joined, as it was noted last
	notedAt time.Time
}

// Step does what there is to do now in a room, if nobody else leads it, and returns how many places it has called. It
// is called some times a second.
//
// Who may be called is decided by how many turns are out, read first, and then by the units that are available: an
// order that is placed in between counts twice, and never not at all.
func (l *Leader) Step(ctx context.Context, room *Room) (called int, err error) {
	if l.rooms == nil {
		l.rooms = map[order.ProductID]*led{}
	}
	of := l.rooms[room.Product]
	if of == nil {
		of = &led{}
		l.rooms[room.Product] = of
	}

	lead, leads, err := l.Hall.Lead(ctx, room.Product, l.Name, LeadFor)
	if errors.Is(err, ErrNoRoom) {
		lost, err := l.Books.load(ctx, room)
		if err != nil {
			return 0, err
		}
		of.put = room.Settings
		return 0, l.Hall.Put(ctx, room, lost)
	}
	if err != nil || !leads {
		*of = led{}
		return 0, err
	}
	if of.put != room.Settings {
		if err := l.Hall.Put(ctx, room, 0); err != nil {
			return 0, err
		}
		of.put = room.Settings
	}
	if err := l.draw(ctx, room, &lead); err != nil {
		return 0, err
	}

	ids := []order.StockID{room.Product.Stock()}
	if room.Buckets > 0 {
		ids = room.Product.Buckets(room.Buckets)
	}
	available, err := l.Stock.Available(ctx, ids)
	if err != nil {
		return 0, fmt.Errorf("waiting room of product %d: %w", room.Product, err)
	}
	budget := min(Allowed(available, lead.Overbook)-lead.Turns, of.allows(lead.Now, lead.Rate))
	plan := lead.Plan(budget)
	if err := l.note(ctx, room, &lead, plan, of); err != nil {
		return 0, err
	}
	called, err = l.Hall.Call(ctx, room.Product, l.Name, &lead, plan)
	of.tokens -= float64(called)
	return called, err
}

// draw keeps in MySQL how many take part in the draw, once that is fixed, and then reveals the seed to the edges: so
// the draw stands even if Redis loses its data at once.
func (l *Leader) draw(ctx context.Context, room *Room, lead *Lead) error {
	if lead.Early < 0 || lead.Drawn {
		return nil
	}
	if room.Early < 0 {
		if err := l.Books.checkpoint(ctx, room.Product, &lead.Standing, lead.Turns); err != nil {
			return err
		}
		room.Early = lead.Early
	}
	if err := l.Hall.Reveal(ctx, room.Product, room.Seed); err != nil {
		return err
	}
	lead.Drawn = true
	return nil
}

// note keeps in MySQL how a room stands: at once up to which place all are about to be called, so that nobody is called
// twice if Redis loses its data, and now and then how many have joined.
func (l *Leader) note(ctx context.Context, room *Room, lead *Lead, plan Plan, of *led) error {
	if plan.front == lead.Front && (lead.Joined == of.noted || lead.Now.Sub(of.notedAt) < checkpointInterval) {
		return nil
	}
	standing := lead.Standing
	standing.Front = plan.front
	turns := lead.Turns + int64(len(plan.places))
	if err := l.Books.checkpoint(ctx, room.Product, &standing, turns); err != nil {
		return err
	}
	of.noted, of.notedAt = lead.Joined, lead.Now
	return nil
}

// allows is how many places may be called now by the rate. What was not called in a second may not be called later.
func (of *led) allows(now time.Time, rate int64) int64 {
	if !of.filled.IsZero() {
		of.tokens += now.Sub(of.filled).Seconds() * float64(rate)
	}
	of.filled, of.tokens = now, min(of.tokens, float64(rate))
	return int64(of.tokens)
}
