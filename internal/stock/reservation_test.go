package stock

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// testPending: an order is known from its reservation on until it is settled, and no longer.
func testPending(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.Buckets = 0 })
	first, second := s.order(t, 1<<62, 2, "a key  with spaces"), s.order(t, 2, 1, uuid.NewString())
	third, unknown := s.order(t, 3, 1, ""), order.NewID()
	pending := func(ids ...order.OrderID) Pending { return must(s.Pending(t.Context(), s.product.ID, ids))(t) }

	got := pending(unknown, first.ID, second.ID, third.ID)
	for i, want := range []*order.Order{nil, &first, &second, &third} {
		switch record := got.Records[i]; {
		case want == nil && record != nil:
			t.Errorf("of an unknown order Redis says %+v", record)
		case want != nil && (record == nil ||
			*record != order.Record{Order: *want, Currency: "EUR", Status: order.Pending}):
			t.Errorf("got %+v, want %+v", record, want)
		}
	}
	equal(t, "buckets", got.Buckets, 0)

	s.settle(t, fresh(first, order.Completed, 6), fresh(second, order.Failed, 6))
	s.cancel(t, third)
	if got = pending(first.ID, second.ID, third.ID); got.Records[0] != nil || got.Records[1] != nil ||
		got.Records[2] != nil {
		t.Errorf("of orders that are not pending any more Redis says %+v", got)
	}
	if got = pending(); len(got.Records) != 0 {
		t.Errorf("of no orders Redis says %+v", got)
	}

	other := newShop(s.Stock)
	all, err := s.PendingIn(t.Context(), []order.StockID{other.product.ID, s.product.ID}, []order.OrderID{first.ID})
	if err != nil || len(all) != 2 || all[0].Records[0] != nil {
		t.Errorf("PendingIn = %+v, %v", all, err)
	}
	if err := s.rdb.HSet(t.Context(), s.keys.reserved, first.ID.String(), "2 x").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pending(t.Context(), s.product.ID, []order.OrderID{first.ID}); err == nil {
		t.Error("a broken reservation is read")
	}
}

// testOlderReservations: what a program before message version 2 has left behind is sent, settled and replayed.
func testOlderReservations(t *testing.T, s *shop) {
	s.load(t, nil)
	s.KeepOldKeys.Store(true)
	old := func(user int64, units int, key string) order.Order {
		t.Helper()
		o := order.Order{ID: order.NewID(), UserID: order.UserID(user), StockID: s.product.ID, Quantity: int64(units),
			UnitPrice: 1998, ReservedAt: fromMillis(1_700_000_000_123), IdempotencyKey: key}
		id := o.ID.String()
		for _, write := range []error{
			s.rdb.DecrBy(t.Context(), s.keys.stock, int64(units)).Err(),
			s.rdb.HSet(t.Context(), s.keys.reserved, id, units).Err(),
			s.rdb.HIncrBy(t.Context(), s.keys.bought, fmt.Sprint(user), int64(units)).Err(),
			s.rdb.HSet(t.Context(), s.keys.outbox, id,
				fmt.Sprintf("%d 0 %d %d 1998 %s", o.ReservedAt.UnixMilli(), user, units, key)).Err(),
			s.rdb.Set(t.Context(), s.oldKeys(s.keys, o.UserID, key)[0],
				fmt.Sprintf("%s %d 1998 %d", id, units, s.now(t).UnixMilli()), time.Hour).Err(),
		} {
			if write != nil {
				t.Fatal(write)
			}
		}
		return o
	}

	// One that is left in the outbox is claimed with all that its message must say.
	left := old(1, 2, "a key")
	equal(t, "claimed", s.claim(t, time.Minute), []order.Order{left})
	replayed := s.reserve(t, ask(1, 2, "a key"))[0]
	equal(t, "replayed", []any{replayed.Outcome, replayed.Order.ID, replayed.Order.UnitPrice, replayed.Unsent},
		[]any{Replayed, left.ID, 1998, true})
	equal(t, "claimed by the replay", s.cancel(t, left), []bool{false})
	equal(t, "given back", s.settle(t, fresh(left, order.Failed, 6)), Settled{GivenBack: 2})

	// The outbox is cleared of those that are settled, and a completed order gives nothing back.
	done, refused := old(2, 3, "b"), old(3, 1, "c")
	equal(t, "settled", s.settle(t, fresh(done, order.Completed, 7)), Settled{})
	equal(t, "cancelled", s.cancel(t, refused), []bool{true})
	equal(t, "claimed", s.claim(t, 0), []order.Order(nil))
	equal(t, "entries", must(s.rdb.HLen(t.Context(), s.keys.outbox).Result())(t), 0)
	equal(t, "after a cancel the key is free", s.reserve(t, ask(3, 2, "c"))[0].Outcome, Reserved)

	// As long as such programs run, they find the keys of this one.
	mine := s.order(t, 4, 1, "d")
	record := must(s.rdb.Get(t.Context(), s.oldKeys(s.keys, 4, "d")[0]).Result())(t)
	equal(t, "record", record, fmt.Sprintf("%s 1 1999 %d", mine.ID, mine.ReservedAt.UnixMilli()))
	equal(t, "pending", must(s.Pending(t.Context(), s.product.ID, []order.OrderID{old(5, 1, "e").ID}))(t).Records,
		[]*order.Record{nil})
	s.KeepOldKeys.Store(false)
	if keys := s.oldKeys(s.keys, 4, "d"); keys != nil {
		t.Errorf("keys %v are thought of", keys)
	}
}

// A key stands for its order for its lifetime, in whichever of the two hashes its record is.
func TestKeyLifetime(t *testing.T) {
	t.Parallel()
	s := openShop(t, stacktest.RedisURL(t))
	s.load(t, nil)
	now := s.now(t).UnixMilli()
	lifetime := order.IdempotencyLifetime.Milliseconds()
	current := now / lifetime % 2
	for i, test := range []struct {
		hash int64
		age  int64
		want Outcome
	}{
		{current, 0, Replayed},
		{1 - current, lifetime - 60_000, Replayed},
		{1 - current, lifetime, Reserved},
		{current, lifetime + 1, Reserved}, // of a hash that should have died
	} {
		request := ask(order.UserID(i+1), 1, "k")
		first := order.NewID()
		record := fmt.Sprintf("%s 1 1999 %d", first, now-test.age)
		if err := s.rdb.HSet(t.Context(), s.keys.idem[test.hash], fmt.Sprintf("%d:k", i+1), record).Err(); err != nil {
			t.Fatal(err)
		}
		got := s.reserve(t, request)[0]
		if got.Outcome != test.want || got.Outcome == Replayed && got.Order.ID != first {
			t.Errorf("a key %d ms old: %+v, want %d", test.age, got, test.want)
		}
		// From then on there is one order under it.
		if again := s.reserve(t, ask(order.UserID(i+1), 1, "k"))[0]; again.Order.ID != got.Order.ID {
			t.Errorf("a key %d ms old leads to %s, and then to %s", test.age, got.Order.ID, again.Order.ID)
		}
	}

	// It dies with the period after its own, which is one lifetime or more from now.
	dies := must(s.rdb.PExpireTime(t.Context(), s.keys.idem[current]).Result())(t).Milliseconds()
	if want := (now/lifetime+2)*lifetime - 1; dies != want {
		t.Errorf("the records die at %d, want %d", dies, want)
	}
}

func TestPackKey(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "k", "a key  with spaces", uuid.NewString(), uuid.Nil.String(), uuid.Max.String(),
		strings.ToUpper(uuid.NewString()), "urn:uuid:" + uuid.NewString(), strings.Repeat("x", 255)} {
		packed := packKey(key)
		if got := unpackKey(packed); got != key {
			t.Errorf("%q is kept as %q, which is read as %q", key, packed, got)
		}
		if id, err := uuid.Parse(key); err == nil && id.String() == key && len(packed) != 17 {
			t.Errorf("%q takes %d bytes", key, len(packed))
		}
	}
}
