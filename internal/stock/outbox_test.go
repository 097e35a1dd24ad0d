package stock

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

func testClaim(t *testing.T, s *shop) {
	s.load(t, nil)
	old, young, gone := s.order(t, 1, 2, "a key  with spaces"), s.order(t, 2, 1, ""), s.order(t, 3, 1, "")
	s.age(t, old.ID, 31*time.Second)
	s.age(t, gone.ID, 31*time.Second)
	s.acknowledge(t, gone)
	s.unchanged(t, "a claim of what is not old enough", func() {
		equal(t, "claimed", s.claim(t, 40*time.Second), []order.Order(nil))
	})
	from := s.now(t).UnixMilli()
	equal(t, "claimed", s.claim(t, 30*time.Second), []order.Order{old})
	f := strings.SplitN(s.contents(t).outbox[old.ID.String()], " ", 3)
	if claimed := must(strconv.ParseInt(f[1], 10, 64))(t); claimed < from || claimed > s.now(t).UnixMilli() {
		t.Errorf("claimed at %d, want the time of Redis, %d or a little later", claimed, from)
	}
	equal(t, "what is not a time", []string{f[0], f[2]},
		[]string{strconv.FormatInt(old.ReservedAt.Add(-31*time.Second).UnixMilli(), 10), "1 2 1999 a key  with spaces"})
	s.unchanged(t, "a claim of what another has claimed", func() {
		equal(t, "claimed", s.claim(t, 30*time.Second), []order.Order(nil))
	})

	// A claim grows old like an entry. Then the next takes it over.
	s.age(t, old.ID, 29*time.Second)
	equal(t, "a young claim", s.claim(t, 30*time.Second), []order.Order(nil))
	s.age(t, old.ID, 2*time.Second)
	equal(t, "an old claim", s.claim(t, 30*time.Second), []order.Order{old})

	// A client that repeats its request claims the order as well.
	s.age(t, young.ID, 31*time.Second)
	s.reserve(t, Request{OrderID: young.ID, UserID: 2, Quantity: 1})
	equal(t, "claimed by a replay", s.claim(t, 30*time.Second), []order.Order(nil))

	// What cannot be read is left out, and holds up no order beside it.
	s.age(t, young.ID, 31*time.Second)
	for key, value := range map[string]string{s.keys.reserved: "1 1 no-price 1 broken", s.keys.outbox: "1 0 no-id"} {
		field := map[bool]string{true: "broken", false: "no-id"}[key == s.keys.outbox]
		if err := s.rdb.HSet(t.Context(), key, field, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if orders := s.claim(t, 30*time.Second); len(orders) != 1 || orders[0].ID != young.ID {
		t.Errorf("beside a broken entry %v were claimed", orders)
	}
}

func testClaimPages(t *testing.T, s *shop) {
	const n, size = 10 * claimPage, 3
	s.load(t, func(p *order.Product) { p.Stock = n * size })
	var want []string
	for range n {
		for _, result := range s.reserve(t, asks2(size)...) {
			want = append(want, result.Order.ID.String())
		}
	}
	pages, got := 0, []string(nil)
	for cursor := uint64(0); ; {
		batches, next, err := s.Claim(t.Context(), s.product.ID, 0, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			for _, o := range b.Orders {
				got = append(got, o.ID.String())
			}
		}
		pages++
		if cursor = next; cursor == 0 {
			break
		}
	}
	if pages < 2 {
		t.Errorf("%d batches came on %d page", n, pages)
	}
	slices.Sort(want)
	slices.Sort(got)
	equal(t, "claimed", slices.Compact(got), want) // a scan may show an entry twice
}

// asks2 makes requests without keys.
func asks2(n int) []Request {
	requests := make([]Request, n)
	for i := range requests {
		requests[i] = ask(order.UserID(i+1), 1, "")
	}
	return requests
}

// Redis answers a scan of a hash that it stores compactly with the whole of it.
func TestClaimOfACompactOutbox(t *testing.T) {
	t.Parallel()
	const n = 2*MaxBatch + 1
	r := stacktest.NewRedis(t, localstack.RedisOptions{Args: []string{
		"--hash-max-listpack-entries", "10000", "--hash-max-listpack-value", "1000000"}})
	s := openShop(t, r.URL())
	s.load(t, func(p *order.Product) { p.Stock = n })
	s.reserve(t, asks2(MaxBatch)...)
	s.reserve(t, asks2(MaxBatch)...)
	s.reserve(t, asks2(1)...)
	batches, next, err := s.Claim(t.Context(), s.product.ID, 0, 0)
	orders := 0
	for _, b := range batches {
		orders += len(b.Orders)
	}
	if err != nil || next != 0 || orders != n {
		t.Errorf("Claim = %d orders, %d, %v", orders, next, err)
	}
}

func testAcknowledge(t *testing.T, s *shop) {
	s.load(t, nil)
	first, second := s.order(t, 1, 1, "k"), s.order(t, 2, 1, "")
	want := s.contents(t)
	delete(want.outbox, first.ID.String())
	for range 2 {
		s.acknowledge(t, first)
		equal(t, "contents", s.contents(t), want)
	}
	s.acknowledge(t, first, second)
	equal(t, "outbox", s.contents(t).outbox, map[string]string{})
}

func testLargestCalls(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.Stock, p.LimitPerUser = 2*MaxBatch, 2 })
	requests := asks(MaxBatch)
	first := s.reserve(t, requests...)
	orders := make([]order.Order, MaxBatch)
	for i := range first {
		orders[i] = first[i].Order
		if first[i].Outcome != Reserved {
			t.Fatalf("request %d: %+v", i, first[i])
		}
	}
	for i, result := range s.reserve(t, requests...) {
		if result.Outcome != Replayed || !result.Unsent || result.Order != orders[i] {
			t.Fatalf("replay %d: %+v", i, result)
		}
	}
	equal(t, "claimed", len(s.claim(t, 0)), MaxBatch)
	s.acknowledge(t, orders...)
	for _, cancelled := range s.cancel(t, orders...) {
		if cancelled {
			t.Fatal("an order was cancelled that has left the outbox")
		}
	}
	marks := make([]order.Decision, MaxBatch)
	for i, o := range orders {
		marks[i] = again(o, order.Completed)
	}
	equal(t, "marked", s.settle(t, marks...), Settled{})
	equal(t, "marks", len(s.contents(t).settled), MaxBatch)

	lost := make([]order.Decision, MaxBatch)
	for i, o := range orders {
		o.ID = order.NewID()
		lost[i] = fresh(o, order.Completed, 6)
	}
	equal(t, "lost", s.settle(t, lost...), Settled{TakenOut: MaxBatch})
	equal(t, "stock", s.contents(t).stock, 0)

	if err := s.rdb.IncrBy(t.Context(), s.keys.stock, MaxBatch).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.rdb.Del(t.Context(), s.keys.bought).Err(); err != nil {
		t.Fatal(err)
	}
	failed := make([]order.Decision, MaxBatch)
	second := s.reserve(t, asks2(MaxBatch)...)
	for i := range second {
		failed[i] = fresh(second[i].Order, order.Failed, 6)
	}
	equal(t, "failed", s.settle(t, failed...), Settled{GivenBack: MaxBatch})
	third := s.reserve(t, asks2(MaxBatch)...)
	for i := range third {
		orders[i] = third[i].Order
	}
	for i, cancelled := range s.cancel(t, orders...) {
		if !cancelled {
			t.Fatalf("order %d was not cancelled", i)
		}
	}
	c := s.contents(t)
	equal(t, "in the end", []any{c.stock, len(c.reserved), len(c.bought), len(c.outbox)}, []any{MaxBatch, 0, 0, 0})
}
