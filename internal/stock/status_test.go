package stock

import (
	"testing"
	"time"

	"stampede/internal/order"
)

func testStatuses(t *testing.T, s *shop) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	record := func(status order.Status) order.Record {
		return order.Record{
			Order: order.Order{
				ID: order.NewID(), UserID: 1<<63 - 1, StockID: s.product.ID, Quantity: 2, UnitPrice: 1999,
				ReservedAt: at, IdempotencyKey: `"<k>`,
			},
			Currency: "EUR", Status: status,
		}
	}
	read := func(ids ...order.OrderID) []*order.Record { return must(s.Statuses(t.Context(), ids))(t) }
	write := func(f func(records []order.Record) error, records ...order.Record) {
		t.Helper()
		if err := f(records); err != nil {
			t.Fatal(err)
		}
	}
	pendingWrite := func(r []order.Record) error { return s.WritePending(t.Context(), r) }
	decidedWrite := func(r []order.Record) error { return s.WriteDecided(t.Context(), r) }

	first, second := record(order.Pending), record(order.Pending)
	unknown := order.NewID()
	write(pendingWrite, first, second)
	got := read(unknown, first.ID, second.ID)
	if got[0] != nil || got[1] == nil || got[2] == nil || *got[1] != first || *got[2] != second {
		t.Fatalf("Statuses = %+v", got)
	}
	kept := func(id order.OrderID, want time.Duration) {
		t.Helper()
		if ttl := must(s.rdb.TTL(t.Context(), orderKey(id)).Result())(t); ttl > want || ttl < want-time.Minute {
			t.Errorf("a status is kept for %v, want %v", ttl, want)
		}
	}
	kept(first.ID, PendingTTL)

	failed := first
	failed.Status, failed.FailedReason, failed.DecidedAt = order.Failed, order.SoldOut, at.Add(time.Second)
	write(decidedWrite, failed)
	kept(first.ID, StatusTTL)
	third := record(order.Pending)
	write(pendingWrite, first, third) // late, and not alone: the others are written all the same
	got = read(first.ID, third.ID)
	if *got[0] != failed || *got[1] != third {
		t.Errorf("after a late pending: %+v, %+v", got[0], got[1])
	}
	completed := failed
	completed.Status, completed.FailedReason = order.Completed, ""
	write(decidedWrite, completed)
	if got = read(first.ID); *got[0] != completed {
		t.Errorf("after a redrive: %+v", got[0])
	}

	if err := s.Forget(t.Context(), []order.Order{first.Order, third.Order, record(order.Pending).Order}); err != nil {
		t.Fatal(err)
	}
	if got = read(first.ID, second.ID, third.ID); got[0] != nil || got[1] == nil || got[2] != nil {
		t.Errorf("after Forget: %+v", got)
	}
	for _, err := range []error{s.WritePending(t.Context(), nil), s.WriteDecided(t.Context(), nil),
		s.Forget(t.Context(), nil)} {
		if err != nil {
			t.Errorf("writing nothing: %v", err)
		}
	}
	if got = read(); len(got) != 0 {
		t.Errorf("Statuses of nothing = %+v", got)
	}
	if err := s.rdb.Set(t.Context(), orderKey(second.ID), "{", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Statuses(t.Context(), []order.OrderID{unknown, second.ID}); err == nil {
		t.Error("a status that is not JSON is no error")
	}
}
