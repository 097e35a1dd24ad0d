package stock

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func testReserve(t *testing.T, s *shop) {
	starts := s.now(t).Add(-time.Hour).Truncate(time.Millisecond).UTC()
	s.load(t, func(p *order.Product) { p.LimitPerUser, p.StartsAt = 5, starts })
	first, second := ask(7, 2, "a key with spaces"), ask(7, 3, "")
	before := s.now(t).Truncate(time.Millisecond)
	sale, results, err := s.Reserve(t.Context(), s.product.ID, 0, []Request{first, second})
	if err != nil {
		t.Fatal(err)
	}
	after := s.now(t)
	equal(t, "sale", sale, Sale{Currency: "EUR", StartsAt: starts, LimitPerUser: 5, State: order.OnSale, Now: sale.Now,
		Available: 5})
	at := sale.Now
	if at.Before(before) || at.After(after) {
		t.Errorf("reserved at %v, not between %v and %v", at, before, after)
	}
	want := make([]Reservation, 2)
	for i, r := range []Request{first, second} {
		want[i] = Reservation{Outcome: Reserved, Order: order.Order{
			ID: r.OrderID, UserID: 7, StockID: s.product.ID, Quantity: r.Quantity,
			UnitPrice: 1999, ReservedAt: at, IdempotencyKey: r.IdempotencyKey,
		}, Batch: results[0].Batch}
	}
	equal(t, "results", results, want)
	ms := at.UnixMilli()
	c := s.contents(t)
	c.sale = nil
	equal(t, "contents", c, contents{
		stock:    "5",
		reserved: map[string]string{first.OrderID.String(): "2", second.OrderID.String(): "3"},
		bought:   map[string]string{"7": "5"},
		outbox: map[string]string{
			first.OrderID.String():  fmt.Sprintf("%d 0 7 2 1999 a key with spaces", ms),
			second.OrderID.String(): fmt.Sprintf("%d 0 7 3 1999 ", ms),
		},
		idem: map[string]string{"7:a key with spaces": fmt.Sprintf("%s 2 1999 %d", first.OrderID, ms)},
	})
	key := s.keys.idem[at.UnixMilli()/order.IdempotencyLifetime.Milliseconds()%2]
	ttl := must(s.rdb.TTL(t.Context(), key).Result())(t)
	if ttl > 2*order.IdempotencyLifetime || ttl < order.IdempotencyLifetime-time.Minute {
		t.Errorf("the idempotency keys are kept for %v", ttl)
	}
}

func testReserveNotLoaded(t *testing.T, s *shop) {
	if _, _, err := s.Reserve(t.Context(), s.product.ID, 0, asks(2)); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Reserve: %v", err)
	}
	equal(t, "contents", s.contents(t), contents{})
	if _, _, err := s.Reserve(t.Context(), s.product.ID, 0, asks(MaxBatch+1)); err == nil ||
		errors.Is(err, ErrNotLoaded) {
		t.Errorf("more than MaxBatch requests: %v", err)
	}
}

func testReserveRefuses(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser = 4 })
	s.order(t, 1, 3, "k")
	s.order(t, 2, 4, "")
	for _, test := range []struct {
		what    string
		request Request
		want    Outcome
	}{
		{"more than is left", ask(3, 4, "a"), SoldOut},
		{"more than the limit", ask(3, 5, "b"), LimitExceeded},
		{"more than the rest of the limit", ask(1, 2, "c"), LimitExceeded},
		{"a user at the limit", ask(2, 1, ""), LimitExceeded},
		{"the same key, another quantity", ask(1, 1, "k"), IdempotencyMismatch},
	} {
		s.unchanged(t, test.what, func() {
			got := s.reserve(t, test.request)[0]
			equal(t, test.what, got, Reservation{Outcome: test.want})
		})
	}
	s.unchanged(t, "a call of refusals", func() {
		got := outcomes(s.reserve(t, ask(3, 4, ""), ask(1, 2, "x"), ask(1, 9, "k")))
		equal(t, "outcomes", got, []Outcome{SoldOut, LimitExceeded, IdempotencyMismatch})
	})
	// A key belongs to a user: another's is another key.
	equal(t, "another user's key", outcomes(s.reserve(t, ask(3, 1, "k"))), []Outcome{Reserved})
}

func testReserveBatch(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser = 6 })
	results := s.reserve(t,
		ask(1, 4, ""), ask(1, 3, ""), ask(1, 2, ""), // the limit counts within a call
		// one that is too large for what is left does not stop a smaller one
		ask(2, 5, ""), ask(3, 3, ""), ask(2, 2, ""),
		ask(2, 1, ""), ask(1, 1, ""))
	equal(t, "outcomes", outcomes(results), []Outcome{
		Reserved, LimitExceeded, Reserved,
		SoldOut, Reserved, SoldOut,
		Reserved, LimitExceeded,
	})
	c := s.contents(t)
	equal(t, "stock", c.stock, "0")
	equal(t, "bought", c.bought, map[string]string{"1": "6", "2": "1", "3": "3"})
	equal(t, "reservations and outbox", []int{len(c.reserved), len(c.outbox)}, []int{4, 4})
	// Units below zero are sold out, and come back as any others.
	if err := s.rdb.Set(t.Context(), s.keys.stock, -1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	equal(t, "below zero", outcomes(s.reserve(t, ask(9, 1, ""))), []Outcome{SoldOut})
}

func testReserveRefusedKey(t *testing.T, s *shop) {
	s.load(t, nil)
	results := s.reserve(t, ask(1, 11, "k"), ask(1, 2, "k"), ask(1, 11, "k"))
	equal(t, "a refused order does not use up its key", outcomes(results),
		[]Outcome{SoldOut, Reserved, IdempotencyMismatch})
}

func testReserveWindow(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.StartsAt = s.now(t).Add(time.Hour) })
	s.unchanged(t, "an order before the sale", func() {
		equal(t, "before", outcomes(s.reserve(t, ask(1, 1, "k"))), []Outcome{NotStarted})
	})
	set := func(starts, ends time.Time) {
		if err := s.rdb.HSet(t.Context(), s.keys.sale, "starts_at", millis(starts), "ends_at",
			millis(ends)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	now := s.now(t)
	set(now.Add(-time.Hour), now.Add(-time.Second))
	s.unchanged(t, "an order after the sale", func() {
		equal(t, "after", outcomes(s.reserve(t, ask(1, 1, "k"))), []Outcome{Ended})
	})
	// The first and the last order of a sale that is open for a moment bear times within it.
	now = s.now(t)
	starts, ends := now.Add(20*time.Millisecond).Truncate(time.Millisecond),
		now.Add(60*time.Millisecond).Truncate(time.Millisecond)
	set(starts, ends)
	var seen []Outcome
	stacktest.Eventually(t, 10*time.Second, func() error {
		for {
			result := s.reserve(t, ask(1, 1, ""))[0]
			if at := result.Order.ReservedAt; result.Outcome == Reserved && (at.Before(starts) || !at.Before(ends)) {
				t.Errorf("reserved at %v, the sale is from %v to %v", at, starts, ends)
			}
			if len(seen) == 0 || seen[len(seen)-1] != result.Outcome {
				seen = append(seen, result.Outcome)
			}
			switch result.Outcome {
			case Ended:
				return nil
			case NotStarted:
				return errors.New("the sale has not started")
			}
			s.cancel(t, result.Order)
		}
	})
	if len(seen) != 3 {
		// A machine that stood still for the whole sale has not seen it, which is no fault.
		t.Logf("outcomes in turn: %v", seen)
	}
}

func testReplayByOrderID(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser = 2 })
	request := ask(1, 2, "")
	first := s.reserve(t, request)[0].Order
	got := s.reserve(t, request)[0]
	equal(t, "still in the outbox", got,
		Reservation{Outcome: Replayed, Order: first, Batch: s.batchOf(t, first.ID), Unsent: true})
	equal(t, "a claimed order is not cancelled", s.cancel(t, first), []bool{false})
	s.acknowledge(t, first)
	s.unchanged(t, "a replay of a sent order", func() {
		equal(t, "sent", s.reserve(t, request)[0], Reservation{Outcome: Replayed, Order: first})
	})
	c := s.contents(t)
	equal(t, "stock and count", []string{c.stock, c.bought["1"]}, []string{"8", "2"})
}

func testReplayByKey(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser = 2 })
	first := s.order(t, 1, 2, "k")
	before := s.contents(t)
	from := s.now(t).UnixMilli()
	got := s.reserve(t, ask(1, 2, "k"))[0]
	equal(t, "still in the outbox", got,
		Reservation{Outcome: Replayed, Order: first, Batch: s.batchOf(t, first.ID), Unsent: true})
	after := s.contents(t)
	var at, claimed int64
	var rest string
	if _, err := fmt.Sscanf(after.outbox[first.ID.String()], "%d %d %s", &at, &claimed, &rest); err != nil {
		t.Fatal(err)
	}
	if at != first.ReservedAt.UnixMilli() || claimed < from {
		t.Errorf("entry %q was not claimed at %d or later", after.outbox[first.ID.String()], from)
	}
	after.outbox = before.outbox
	equal(t, "but for the claim nothing changes", after, before)
	equal(t, "a claimed order is not cancelled", s.cancel(t, first), []bool{false})

	s.acknowledge(t, first)
	s.unchanged(t, "a replay of a sent order", func() {
		equal(t, "sent", s.reserve(t, ask(1, 2, "k"))[0], Reservation{Outcome: Replayed, Order: first})
	})
	s.settle(t, fresh(first, order.Completed, 6))
	s.unchanged(t, "a replay of a decided order", func() {
		equal(t, "decided", s.reserve(t, ask(1, 2, "k"))[0], Reservation{Outcome: Replayed, Order: first})
		equal(t, "mismatch", s.reserve(t, ask(1, 1, "k"))[0], Reservation{Outcome: IdempotencyMismatch})
	})
}

// What was promised stays promised: neither the end of the sale nor an empty shop changes the answer.
func testReplayOutlivesTheSale(t *testing.T, s *shop) {
	s.load(t, nil)
	first := s.order(t, 1, 10, "k")
	if err := s.rdb.HSet(t.Context(), s.keys.sale, "ends_at", 1, "limit", 1, "price", 1).Err(); err != nil {
		t.Fatal(err)
	}
	results := s.reserve(t, ask(1, 10, "k"), Request{OrderID: first.ID, UserID: 1, Quantity: 10}, ask(1, 10, ""))
	equal(t, "outcomes", outcomes(results), []Outcome{Replayed, Replayed, Ended})
	for _, result := range results[:2] {
		equal(t, "price", result.Order.UnitPrice, 1999)
		equal(t, "time", result.Order.ReservedAt, first.ReservedAt)
	}
}

func testReplayWithinCall(t *testing.T, s *shop) {
	s.load(t, nil)
	request := ask(1, 2, "k")
	results := s.reserve(t, request, ask(1, 2, "k"), request, ask(1, 3, "k"), ask(2, 2, "k"), ask(1, 2, "other"))
	equal(t, "outcomes", outcomes(results), []Outcome{Reserved, Replayed, Replayed, IdempotencyMismatch, Reserved,
		Reserved})
	for _, result := range results[1:3] {
		// It must not be promised yet: the first of the call is not on the queue.
		equal(t, "replay", result, Reservation{Outcome: Replayed, Order: results[0].Order, Unsent: true})
	}
	keyless := ask(3, 1, "")
	results = append(results, s.reserve(t, keyless, keyless)...)
	equal(t, "keyless", results[7], Reservation{Outcome: Replayed, Order: results[6].Order, Unsent: true})
	c := s.contents(t)
	equal(t, "stock, reservations, bought", []any{c.stock, len(c.reserved), c.bought},
		[]any{"3", 4, map[string]string{"1": "4", "2": "2", "3": "1"}})
	// Who asked twice in a call holds both answers, so that nothing keeps the order from being cancelled.
	equal(t, "cancelled", s.cancel(t, results[0].Order, results[6].Order), []bool{true, true})
}

func testCancel(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.LimitPerUser = 3 })
	empty := s.dump(t)
	first, second, third := s.order(t, 1, 2, "k"), s.order(t, 1, 1, ""), s.order(t, 2, 3, "k")
	equal(t, "cancelled", s.cancel(t, first, third), []bool{true, true})
	c := s.contents(t)
	c.sale, c.outbox = nil, nil
	equal(t, "contents", c, contents{
		stock: "9", reserved: map[string]string{second.ID.String(): "1"}, bought: map[string]string{"1": "1"},
	})
	s.unchanged(t, "cancelling again", func() {
		equal(t, "again", s.cancel(t, first, third), []bool{false, false})
	})
	// The key and the limit are free again.
	replacement := s.order(t, 1, 2, "k")
	equal(t, "cancelled", s.cancel(t, replacement, second, second), []bool{true, true, false})
	equal(t, "to be sent", s.claim(t, 0), []order.Order(nil)) // which clears the outbox of what is left
	after := s.dump(t)
	equal(t, "as if nothing had been", fmt.Sprintf("%q", after), fmt.Sprintf("%q", empty))
}

func testCancelTooLate(t *testing.T, s *shop) {
	s.load(t, nil)
	claimed, sent, failed, done, open := s.order(t, 1, 1, "a"), s.order(t, 1, 1, "b"), s.order(t, 1, 1, "c"),
		s.order(t, 1, 1, "d"), s.order(t, 1, 1, "e")
	s.age(t, claimed.ID, time.Minute)
	equal(t, "claimed", s.claim(t, 30*time.Second), []order.Order{claimed})
	s.acknowledge(t, sent)
	s.settle(t, fresh(failed, order.Failed, 6), fresh(done, order.Completed, 6))
	s.unchanged(t, "a cancel that comes too late", func() {
		equal(t, "cancelled", s.cancel(t, claimed, sent, failed, done), []bool{false, false, false, false})
	})
	equal(t, "only the open one is cancelled", s.cancel(t, claimed, open, sent), []bool{false, true, false})
}

// An order whose key has expired, and then was used for another order, takes only its own record along.
func testCancelForeignKey(t *testing.T, s *shop) {
	s.load(t, nil)
	first := s.order(t, 1, 2, "k")
	if err := s.rdb.Del(t.Context(), s.keys.idem[:]...).Err(); err != nil {
		t.Fatal(err)
	}
	second := s.order(t, 1, 2, "k")
	equal(t, "cancelled", s.cancel(t, first), []bool{true})
	equal(t, "the key", s.reserve(t, ask(1, 2, "k"))[0].Order, second)
}

func testCancelAfterLoss(t *testing.T, s *shop) {
	s.load(t, nil)
	o := s.order(t, 1, 2, "k")
	s.flush(t)
	s.load(t, nil)
	s.unchanged(t, "cancelling what Redis has lost", func() {
		equal(t, "cancelled", s.cancel(t, o), []bool{false})
	})
}

func TestConcurrentOrdersNeverOversell(t *testing.T) {
	t.Parallel()
	s := openShop(t, stacktest.RedisURL(t))
	const units, buyers = 100, 16
	s.load(t, func(p *order.Product) { p.Stock = units })
	var reserved atomic.Int64
	var buying, watching sync.WaitGroup
	for user := range int64(buyers) {
		buying.Go(func() {
			for attempt := 0; ; attempt++ {
				results := s.reserve(t, ask(order.UserID(user), 1, ""), ask(order.UserID(user), 2, ""),
					ask(order.UserID(user), 1, ""))
				for _, result := range results {
					if result.Outcome != Reserved {
						continue
					}
					n := reserved.Add(result.Order.Quantity)
					if attempt < 10 && n%3 != 0 && s.cancel(t, result.Order)[0] {
						reserved.Add(-result.Order.Quantity)
					}
				}
				if results[2].Outcome == SoldOut {
					return
				}
			}
		})
	}
	bought := make(chan struct{})
	watching.Go(func() {
		for done := false; !done; {
			select {
			case <-bought:
				done = true
			default:
			}
			level := must(s.Level(background, s.product.ID))(t)
			if level.Available < 0 || level.Available+level.Reserved != units {
				t.Errorf("%d available and %d reserved are not %d", level.Available, level.Reserved, units)
				return
			}
		}
	})
	buying.Wait()
	close(bought)
	watching.Wait()
	level := must(s.Level(t.Context(), s.product.ID))(t)
	equal(t, "sold", []int64{reserved.Load(), level.Reserved},
		[]int64{units - level.Available, units - level.Available})
}
