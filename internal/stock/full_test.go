package stock

import (
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// fill makes a Redis full, and it stays so whatever is taken out of it.
func (s *shop) fill(t *testing.T) {
	t.Helper()
	if err := s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.rdb.Set(t.Context(), "one-more", "x", 0).Err(); !full(err) {
		t.Fatalf("Redis is not full: %v", err)
	}
}

// openOwnRedis opens a Redis of the test's own.
func openOwnRedis(t *testing.T, cluster bool) *shop {
	t.Helper()
	return openShop(t, stacktest.NewRedis(t, localstack.RedisOptions{Cluster: cluster}).URL())
}

// A sale drains from a Redis that is full, and only what would begin something is refused.
func TestFullRedisDrains(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		t.Run(map[bool]string{false: "one server", true: "Cluster"}[cluster], func(t *testing.T) {
			t.Parallel()
			s := openOwnRedis(t, cluster)
			s.load(t, nil)
			completed, failed := s.order(t, 1, 1, "a"), s.order(t, 2, 2, "b")
			cancelled, left := s.order(t, 3, 3, "c"), s.order(t, 4, 1, "d")
			s.fill(t)

			_, _, err := s.Reserve(t.Context(), s.product.ID, 0, asks(2))
			refusedAsFull(t, "Reserve", err)
			_, err = s.Readmit(t.Context(), order.Order{ID: order.NewID(), StockID: s.product.ID, UserID: 9,
				Quantity: 1})
			refusedAsFull(t, "Readmit", err)

			equal(t, "cancelled", s.cancel(t, cancelled), []bool{true})
			equal(t, "claimed", len(s.claim(t, 0)), 3)
			s.acknowledge(t, completed, failed, left)
			equal(t, "settled", s.settle(t, fresh(completed, order.Completed, 6), fresh(failed, order.Failed, 6),
				again(left, order.Completed)), Settled{GivenBack: 2})
			equal(t, "left to send", s.claim(t, 0), []order.Order(nil))
			equal(t, "level", must(s.Level(t.Context(), s.product.ID))(t),
				Level{Loaded: true, Available: 8, Version: 5})
		})
	}
}

// refusedAsFull fails unless a call was refused before it changed anything.
func refusedAsFull(t *testing.T, what string, err error) {
	t.Helper()
	if !full(err) || !redis.NotExecuted(err) {
		t.Errorf("%s in a Redis that is full: %v", what, err)
	}
}

// Whoever looks at a Redis that is full, or puts it right, can do so.
func TestFullRedisIsRepaired(t *testing.T) {
	t.Parallel()
	s := openOwnRedis(t, false)
	s.load(t, nil)
	lent := must(s.rdb.HSet(t.Context(), s.keys.lent, "m", 1).Result())(t)
	equal(t, "lent", lent, 1)
	s.fill(t)

	ctx, id := t.Context(), s.product.ID
	equal(t, "lock", must(s.rdb.TryLock(ctx, "l", time.Minute))(t), true)
	equal(t, "lock again", must(s.rdb.TryLock(ctx, "l", time.Minute))(t), false)
	equal(t, "restock", must(s.Restock(ctx, id, 5, 7, "r"))(t), true)
	s.product.Revision++
	equal(t, "configure", must(s.Configure(ctx, s.product))(t), true)
	for _, err := range []error{
		s.Pause(ctx, id, time.Minute), s.Pause(ctx, id, 0), s.FindProducts(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}

	equal(t, "products", must(s.Products(ctx))(t), []order.StockID{id})
	equal(t, "counts", must(s.Counts(ctx, []order.StockID{id}))(t),
		map[order.StockID]Count{id: {Loaded: true, Available: 15, Transfers: 1}})
	equal(t, "totals", must(s.Totals(ctx))(t), Totals{Products: 1, Available: 15})
	equal(t, "level", must(s.Level(ctx, id))(t), Level{Loaded: true, Available: 15, InTransfer: 1, Version: 5})
	if err := s.rdb.HDel(ctx, s.keys.lent, "m").Err(); err != nil {
		t.Fatal(err)
	}

	l := must(s.Look(ctx, id))(t)
	equal(t, "look", l.Available, 15)
	equal(t, "correct", must(s.Correct(ctx, id, l, 12, 8))(t), true)
	equal(t, "unload", must(s.Unload(ctx, id, must(s.Look(ctx, id))(t)))(t), true)
}
