package main

import (
	"fmt"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/room"
)

// TestCallPlaces: one of two workers calls places, and the other goes on when it is gone. Nobody is called twice.
func TestCallPlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	p := r.product(5, 0)
	id := p.ID.Product()
	_, err := room.NewBooks(r.db).Set(t.Context(), id, func(s *room.Settings) {
		*s = room.Settings{State: room.Open, Rate: 1000, Overbook: 1000, Grace: time.Minute, PassTTL: time.Minute}
	})
	if err != nil {
		t.Fatal(err)
	}
	one, two := r.start(), r.start()
	hall := room.NewHall(r.redis)
	join := func(users ...order.UserID) (front int64) {
		joiners := make([]room.Joiner, len(users))
		for i, user := range users {
			joiners[i] = room.Joiner{User: user, Ticket: room.NoIndex, Over: room.NoIndex}
		}
		r.eventually(func() error {
			standing, _, err := hall.Join(t.Context(), id, joiners)
			front = standing.Front
			return err
		})
		return front
	}
	called := func(want int64) {
		r.eventually(func() error {
			if front := join(); front != want {
				return fmt.Errorf("%d are called, want %d", front, want)
			}
			return nil
		})
	}

	join(1, 2, 3, 4, 5, 6, 7, 8, 9)
	called(5)
	leads := one
	if value(t, two.metrics.called) > 0 {
		leads = two
	}
	leads.stop()
	var users []order.UserID
	for user := range order.UserID(5) {
		_, until, err := hall.Enter(t.Context(), id, []room.Arrival{{User: user + 1, Place: int64(user)}})
		if err != nil || until[0].IsZero() {
			t.Fatalf("user %d may enter until %s, %v", user+1, until, err)
		}
		users = append(users, user+1)
	}
	if err := hall.Leave(t.Context(), id, users[:3]); err != nil {
		t.Fatal(err)
	}
	called(8)
	if n := value(t, one.metrics.called) + value(t, two.metrics.called); n != 8 {
		t.Errorf("%v were called, want 8", n)
	}
}
