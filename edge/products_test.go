package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/apitest"
	"stampede/internal/catalog"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
)

// fromProducts is in every query for a product.
const fromProducts = "FROM products"

func TestProducts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.Send("GET", "/api/products", ""); r.Status != 200 || r.Body != `{"products":[]}` {
		t.Errorf("of nothing got %v", r)
	}
	start, end := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)
	first := w.AddProduct(3, func(p *order.Product) { p.StartsAt, p.EndsAt, p.LimitPerUser = start, end, 2 })
	for range 119 {
		w.AddProduct(1)
	}
	path := fmt.Sprintf("/api/products/%d", first.ID)
	want := fmt.Sprintf(`{"product_id":%d,"name":"thing","description":"a thing","price":1999,"currency":"EUR","available":3,`+
		`"starts_at":"2026-01-02T03:04:05.006Z","ends_at":"2099-01-02T03:04:05Z",`+
		`"limit_per_user":2,"state":"on_sale"}`, first.ID)
	if r := w.Send("GET", path, ""); r.Status != 200 || r.Body != want ||
		r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got  %v\nwant %s", r, want)
	}

	available := func(n int) func() bool {
		return func() bool { return strings.Contains(w.Send("GET", path, "").Body, fmt.Sprintf(`"available":%d,`, n)) }
	}
	w.MustPost(1, first.ID, 2)
	w.Eventually("one is available", available(1))
	w.MustPost(2, first.ID, 1)
	w.Eventually("none is available", available(0))
	// Available may go below zero, which buyers need not see.
	w.Must(w.RDB.Set(t.Context(), fmt.Sprintf("stock:{%d}", first.ID), -2, 0).Err())
	w.Eventually("a reading that is newer", func() bool {
		entry, _ := w.edge.products.entries.Peek(first.ID.Product())
		return entry.value.Stock == -2 || !available(0)()
	})
	if !available(0)() {
		t.Error("less than nothing is available")
	}

	w.Eventually("the list is new", func() bool { return len(w.Send("GET", "/api/products", "").Body) > 100 })
	seen := map[order.ProductID]bool{}
	cursor := ""
	for _, size := range []int{50, 50, 20} {
		var page struct {
			Products   []catalog.Product
			NextCursor string `json:"next_cursor"`
		}
		r := w.Send("GET", "/api/products?cursor="+cursor, "")
		r.Read(t, &page)
		if len(page.Products) != size || (page.NextCursor == "") != (size == 20) {
			t.Errorf("a page has %d products and goes on with %q", len(page.Products), page.NextCursor)
		}
		for _, p := range page.Products {
			seen[p.ID] = true
		}
		cursor = page.NextCursor
	}
	if len(seen) != 120 {
		t.Errorf("%d of 120 products are listed", len(seen))
	}
	for _, id := range []string{"999999", "0", "-1", "1.5", "x", "9223372036854775808", "%31"} {
		apitest.WantProblem(t, w.Send("GET", "/api/products/"+id, ""), 404, problem.ProductNotFound)
	}
}

func TestProductCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(5)
	known, unknown := fmt.Sprintf("/api/products/%d", p.ID), "/api/products/777"
	for path, want := range map[string]string{known: "200", unknown: "404 product_not_found", "/api/products": "200"} {
		w.MySQL.Forget()
		begin := time.Now()
		got := apitest.Count(apitest.Crowd(200, func(int) apitest.Reply { return w.Send("GET", path, "") }))
		loads := 1 + int(time.Since(begin)/cacheTTL)
		if len(got) != 1 || got[want] != 200 {
			t.Errorf("%s: got %v", path, got)
		}
		if n := w.MySQL.Asked(fromProducts); n < 1 || n > loads {
			t.Errorf("%s: MySQL was asked %d times, want at most %d", path, n, loads)
		}
	}

	w.MySQL.Cut()
	for begin := time.Now(); time.Since(begin) < 2*cacheTTL; time.Sleep(10 * time.Millisecond) {
		if r := w.Send("GET", known, ""); r.Status != 200 {
			t.Fatalf("while MySQL is down got %v", r)
		}
	}
	if r := w.Send("GET", unknown, ""); r.Status != 404 {
		t.Errorf("while MySQL is down got %v", r)
	}
	apitest.WantProblem(t, w.Send("GET", "/api/products/778", ""), 503, problem.ProductsUnavailable)
	w.MySQL.Heal()
	w.Must(w.RDB.Set(t.Context(), fmt.Sprintf("stock:{%d}", p.ID), 4, 0).Err())
	w.Eventually("the product is read anew", func() bool {
		return strings.Contains(w.Send("GET", known, "").Body, `"available":4`)
	})

	w.MySQL.Hang()
	entry, _ := w.edge.products.entries.Peek(p.ID.Product())
	w.Eventually("what is known is old", func() bool { return time.Since(entry.at) > cacheTTL })
	replies := apitest.Crowd(50, func(int) apitest.Reply { return w.Send("GET", known, "") })
	if got := apitest.Count(replies); got["200"] != 50 {
		t.Errorf("while MySQL hangs got %v", got)
	}
	for _, r := range replies {
		if r.Took > 2*loadTimeout {
			t.Errorf("while MySQL hangs got %v", r)
		}
	}
}

// The cache by itself, without servers around it.
func TestCache(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	loads, value, fault := 0, "one", error(nil)
	set := func(v string, err error) { mu.Lock(); value, fault = v, err; mu.Unlock() }
	c := newCache(func(context.Context, int) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		loads++
		return value, fault
	}, func(string) int { return 0 })
	age := func(key int) {
		entry, ok := c.entries.Peek(key)
		if !ok {
			t.Fatalf("%d is not kept", key)
		}
		entry.at = entry.at.Add(-2 * cacheTTL)
		c.entries.Add(key, entry)
	}
	want := func(what string, key int, wantValue string, wantErr error, wantLoads int) {
		t.Helper()
		got, err := c.get(key)
		if got != wantValue || !errors.Is(err, wantErr) || loads != wantLoads {
			t.Errorf("%s: got %q, %v after %d loads; want %q, %v after %d", what, got, err, loads, wantValue, wantErr,
				wantLoads)
		}
	}
	down := errors.New("down")
	want("first", 1, "one", nil, 1)
	set("two", nil)
	want("young", 1, "one", nil, 1)
	age(1)
	want("old", 1, "two", nil, 2)
	age(1)
	set("", down)
	want("the source fails", 1, "two", nil, 3)
	want("it is not asked again at once", 1, "two", nil, 3)
	age(1)
	set("three", nil)
	want("the source is back", 1, "three", nil, 4)
	set("", down)
	want("nothing is known", 2, "", down, 5)
	want("a fault is not kept", 2, "", down, 6)
	set("", fmt.Errorf("product 3 %w", mysql.ErrNotFound))
	want("no such key", 3, "", mysql.ErrNotFound, 7)
	want("still none", 3, "", mysql.ErrNotFound, 7)
	if !c.missing(3) || c.missing(1) || c.missing(2) {
		t.Error("only 3 is known to be missing")
	}
	age(3)
	if c.missing(3) {
		t.Error("that is too long ago")
	}
	set("here", nil)
	want("now there is", 3, "here", nil, 8)
	c.setMissing(4)
	want("somebody else found out", 4, "", mysql.ErrNotFound, 8)
	set("crowded", nil)
	for key := -1; key > -1000; key-- {
		before := loads
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { _, _ = c.get(key) })
		}
		if all.Wait(); loads != before+1 {
			t.Fatalf("a crowd loaded a value %d times", loads-before)
		}
	}
	for key := range 2 * cacheEntries {
		c.setMissing(key)
	}
	if n := c.entries.Len(); n != cacheEntries {
		t.Errorf("%d keys are kept", n)
	}
}
