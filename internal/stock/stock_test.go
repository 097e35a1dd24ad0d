package stock

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"stampede/internal/order"
)

func testLoad(t *testing.T, s *shop) {
	starts := time.UnixMilli(1_700_000_000_123)
	ends := time.UnixMilli(4_000_000_000_000)
	s.load(t, func(p *order.Product) { p.StartsAt, p.EndsAt, p.LimitPerUser = starts, ends, 3 })
	equal(t, "loaded", s.contents(t), contents{
		stock: "10",
		sale: map[string]string{
			"version": "5", "born": "5", "seen": "5", "price": "1999", "currency": "EUR", "buckets": "0",
			"points_price": "0", "starts_at": "1700000000123", "ends_at": "4000000000000", "limit": "3",
			"state": "on_sale", "revision": "3",
		},
	})
	s.unchanged(t, "loading again", func() {
		p := s.product
		p.Stock, p.Version, p.Price = 99, 9, 1
		if loaded, err := s.Load(t.Context(), p); loaded || err != nil {
			t.Errorf("Load = %v, %v", loaded, err)
		}
	})
	equal(t, "currency", must(s.Currency(t.Context(), s.product.ID))(t), "EUR")
	for _, key := range []string{s.keys.stock, s.keys.sale, productsKey} {
		if ttl := must(s.rdb.TTL(t.Context(), key).Result())(t); ttl != -1 {
			t.Errorf("%s expires in %v; stock must not", key, ttl)
		}
	}
}

func testLoadStale(t *testing.T, s *shop) {
	o := order.Order{ID: order.NewID(), UserID: 1, Quantity: 1}
	s.settle(t, fresh(o, order.Completed, 6)) // the row of version 5 is known to be out of date
	s.unchanged(t, "a load that is out of date", func() {
		if _, err := s.Load(t.Context(), s.product); !errors.Is(err, ErrStale) {
			t.Errorf("Load: %v", err)
		}
	})
	if _, err := s.Currency(t.Context(), s.product.ID); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Currency: %v", err)
	}
	s.load(t, func(p *order.Product) { p.Version, p.Stock = 6, 9 })
	equal(t, "stock", s.contents(t).stock, 9)
}

// Lua's numbers are floats: what goes through its arithmetic is exact up to 2^53, and what does not is
// exact up to 2^63.
func testLargeNumbers(t *testing.T, s *shop) {
	const user = 1<<63 - 1
	s.load(t, func(p *order.Product) {
		p.Stock, p.Version, p.Price, p.LimitPerUser = 1<<53, 1<<53-1, order.MaxUnitPrice, 1<<53
	})
	o := s.order(t, user, order.MaxQuantity, "k")
	other := s.order(t, user-1, 1, "k")
	equal(t, "price", []int64{o.UnitPrice, other.UnitPrice}, []int64{order.MaxUnitPrice, order.MaxUnitPrice})
	c := s.contents(t)
	equal(t, "stock", c.stock, strconv.FormatInt(1<<53-order.MaxQuantity-1, 10))
	equal(t, "bought", c.bought, map[string]string{"9223372036854775806": "1", "9223372036854775807": "1000"})
	equal(t, "version", c.sale["seen"], 1<<53-1)
	equal(t, "claimed", s.claim(t, 0)[0].UnitPrice, int64(order.MaxUnitPrice))
	replay := s.reserve(t, ask(user, order.MaxQuantity, "k"))[0]
	equal(t, "replayed", replay.Order, o)
	s.settle(t, fresh(o, order.Failed, 1<<53))
	c = s.contents(t)
	equal(t, "stock after settling", c.stock, strconv.FormatInt(1<<53-1, 10))
	equal(t, "bought after settling", c.bought, map[string]string{"9223372036854775806": "1"})
	equal(t, "version after settling", c.sale["seen"], 1<<53)
}

func testRestock(t *testing.T, s *shop) {
	s.load(t, nil)
	for _, step := range []struct {
		what           string
		units, version int64
		id             string
		added          bool
		stock, seen    string
	}{
		{"one that the loaded stock holds", 4, 5, "a", false, "10", "5"},
		{"an older one", 4, 4, "b", false, "10", "5"},
		{"a newer one", 4, 7, "c", true, "14", "7"},
		{"the same again", 4, 7, "c", false, "14", "7"},
		{"one that comes late", 1, 6, "d", true, "15", "7"},
		{"the same again, under a newer version", 1, 9, "d", false, "15", "9"},
	} {
		added, err := s.Restock(t.Context(), s.product.ID, step.units, step.version, step.id)
		if err != nil || added != step.added {
			t.Errorf("%s: Restock = %v, %v, want %v", step.what, added, err, step.added)
		}
		c := s.contents(t)
		equal(t, step.what, []string{c.stock, c.sale["seen"], c.sale["version"]}, []string{step.stock, step.seen, "5"})
	}
	equal(t, "marks", s.contents(t).settled, []string{"restock:c", "restock:d"})
}

func testRestockNotLoaded(t *testing.T, s *shop) {
	if added, err := s.Restock(t.Context(), s.product.ID, 4, 6, "a"); added || err != nil {
		t.Errorf("Restock = %v, %v", added, err)
	}
	equal(t, "contents", s.contents(t), contents{sale: map[string]string{"seen": "6"}})
	if _, err := s.Load(t.Context(), s.product); !errors.Is(err, ErrStale) {
		t.Errorf("a product as it was before the restock is loaded: %v", err)
	}
	s.load(t, func(p *order.Product) { p.Stock, p.Version = 14, 6 })
	if added, err := s.Restock(t.Context(), s.product.ID, 4, 6, "a"); added || err != nil {
		t.Errorf("Restock = %v, %v, but the loaded stock has it", added, err)
	}
	equal(t, "stock", s.contents(t).stock, "14")
}

func testLevel(t *testing.T, s *shop) {
	equal(t, "not loaded", must(s.Level(t.Context(), s.product.ID))(t), Level{})
	s.load(t, nil)
	equal(t, "loaded", must(s.Level(t.Context(), s.product.ID))(t), Level{Loaded: true, Available: 10, Version: 5})
	first := s.order(t, 1, 3, "")
	s.order(t, 2, 4, "")
	s.acknowledge(t, first)
	equal(t, "reserved", must(s.Level(t.Context(), s.product.ID))(t),
		Level{Loaded: true, Available: 3, Reserved: 7, Reservations: 2, Outbox: 1, Version: 5})
	if err := s.rdb.HSet(t.Context(), s.keys.reserved, "x", "many").Err(); err != nil {
		t.Fatal(err)
	}
	if level, err := s.Level(t.Context(), s.product.ID); err == nil {
		t.Errorf("a reservation that is no number counts as %+v", level)
	}
}

func testProductsAndCounts(t *testing.T, s *shop) {
	s.load(t, nil)
	second := s.product
	second.ID, second.Stock = s.product.ID+1, 0
	if loaded, err := s.Load(t.Context(), second); !loaded || err != nil {
		t.Fatalf("Load = %v, %v", loaded, err)
	}
	ids := must(s.Products(t.Context()))(t)
	if !slices.Contains(ids, s.product.ID) || !slices.Contains(ids, second.ID) {
		t.Errorf("Products = %v", ids)
	}
	// What is not loaded comes first: it must not hide the others, nor their errors.
	missing := s.product.ID + 2
	counts := must(s.Counts(t.Context(), []order.StockID{missing, s.product.ID, second.ID}))(t)
	if !maps.Equal(counts, map[order.StockID]Count{
		missing: {}, s.product.ID: {Loaded: true, Available: 10}, second.ID: {Loaded: true},
	}) {
		t.Errorf("Counts = %v", counts)
	}
	if err := s.rdb.Set(t.Context(), keysOf(second.ID).stock, "many", 0).Err(); err != nil {
		t.Fatal(err)
	}
	counts, err := s.Counts(t.Context(), []order.StockID{missing, s.product.ID, second.ID})
	if err == nil {
		t.Errorf("stock that is no number is %v", counts)
	}
	if _, ok := counts[second.ID]; ok || counts[s.product.ID].Available != 10 {
		t.Errorf("beside stock that is no number: %v", counts)
	}
	if counts := must(s.Counts(t.Context(), nil))(t); len(counts) != 0 {
		t.Errorf("Counts of nothing = %v", counts)
	}
}
