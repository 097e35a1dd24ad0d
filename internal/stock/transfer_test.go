package stock

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

func newTransfer() Transfer {
	return Transfer{ID: uuid.Must(uuid.NewV7()), Receiver: order.ProductID(7).Bucket(2)}
}

func (s *shop) transfer(t testing.TB, units int64, l Transfer) int64 {
	t.Helper()
	return must(s.BeginTransfer(t.Context(), s.product.ID, units, l))(t)
}

func (s *shop) endTransfer(t testing.TB, units, version int64, l Transfer, fresh bool) {
	t.Helper()
	if err := s.EndTransfer(t.Context(), s.product.ID, units, version, l, fresh); err != nil {
		t.Fatal(err)
	}
}

// wantUnits checks what is available and on its way.
func (s *shop) wantUnits(t testing.TB, what string, available, inTransfer int64) {
	t.Helper()
	level := must(s.Level(t.Context(), s.product.ID))(t)
	equal(t, what, []int64{level.Available, level.InTransfer}, []int64{available, inTransfer})
}

func testTransfer(t *testing.T, s *shop) {
	l := newTransfer()
	equal(t, "nothing is loaded", s.transfer(t, 3, l), 0)
	s.load(t, nil)
	before := s.dump(t)
	equal(t, "taken", s.transfer(t, 3, l), 3)
	s.wantUnits(t, "after it", 7, 3)
	s.unchanged(t, "the same again", func() { equal(t, "again", s.transfer(t, 5, l), 3) })
	more := newTransfer()
	equal(t, "more than there is", s.transfer(t, 8, more), 7)
	s.unchanged(t, "a transfer of nothing", func() { equal(t, "nothing is left", s.transfer(t, 1, newTransfer()), 0) })
	equal(t, "an order", outcomes(s.reserve(t, ask(1, 1, ""))), []Outcome{SoldOut})

	look := must(s.Look(t.Context(), s.product.ID))(t)
	equal(t, "look", look.Transfers, map[Transfer]int64{l: 3, more: 7})
	if done := must(s.Unload(t.Context(), s.product.ID, look))(t); done {
		t.Error("a bucket that has units on their way was unloaded")
	}
	counts := must(s.Counts(t.Context(), []order.StockID{s.product.ID, 404}))(t)
	equal(t, "counts", counts, map[order.StockID]Count{s.product.ID: {Loaded: true, Transfers: 2}, 404: {}})

	// Cancelled moves leave nothing behind.
	s.endTransfer(t, 3, 0, l, true)
	s.endTransfer(t, 7, 0, more, false)
	after := s.dump(t)
	equal(t, "cancelled", len(after), len(before))
	for key, value := range before {
		if after[key] != value {
			t.Errorf("%s is %q after a cancelled move, and was %q", key, after[key], value)
		}
	}
	s.unchanged(t, "cancelled again", func() { s.endTransfer(t, 3, 0, l, true) })

	if err := s.Pause(t.Context(), s.product.ID, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.unchanged(t, "while the sale is paused", func() { equal(t, "paused", s.transfer(t, 1, newTransfer()), 0) })
}

func testTransferMoved(t *testing.T, s *shop) {
	s.load(t, nil)
	l := newTransfer()
	s.transfer(t, 4, l)
	s.endTransfer(t, 4, s.product.Version+1, l, true)
	s.wantUnits(t, "moved", 6, 0)
	s.unchanged(t, "settled again", func() { s.endTransfer(t, 4, s.product.Version+1, l, false) })
	equal(t, "nobody has bought them", s.contents(t).bought, map[string]string{})

	// Who decided it comes later than who repaired it.
	late := newTransfer()
	s.transfer(t, 2, late)
	s.endTransfer(t, 2, s.product.Version+2, late, false)
	s.wantUnits(t, "repaired", 4, 0)
	s.unchanged(t, "the decider, late", func() { s.endTransfer(t, 2, s.product.Version+2, late, true) })
}

// A move that is decided after Redis has lost the transfer takes its units out by the version rule, as an order does.
func testTransferLost(t *testing.T, s *shop) {
	s.load(t, nil)
	old, recent := newTransfer(), newTransfer()
	s.endTransfer(t, 2, s.product.Version, old, true)
	s.wantUnits(t, "a move that the loaded stock holds", 10, 0)
	s.endTransfer(t, 2, s.product.Version+1, recent, true)
	s.wantUnits(t, "a move that it does not hold", 8, 0)
	s.endTransfer(t, 2, s.product.Version+2, newTransfer(), false)
	s.wantUnits(t, "one that somebody else has decided", 8, 0)
	equal(t, "nobody has bought them", s.contents(t).bought, map[string]string{})
}

func testOtherBuckets(t *testing.T, s *shop) {
	s.load(t, func(p *order.Product) { p.Buckets = 4 })
	for _, buckets := range []int64{0, 3, 5} {
		s.unchanged(t, "an order by another number of buckets", func() {
			sale, results, err := s.Reserve(t.Context(), s.product.ID, buckets, []Request{ask(1, 1, "k")})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "outcome", outcomes(results), []Outcome{OtherBuckets})
			equal(t, "buckets", sale.Buckets, 4)
		})
	}
	_, results, err := s.Reserve(t.Context(), s.product.ID, 4, []Request{ask(1, 1, "k")})
	if err != nil || results[0].Outcome != Reserved {
		t.Fatalf("%v, %v", results, err)
	}
	// A bucket that goes out of use says so, whatever its state.
	s.product.Revision++
	s.product.Buckets, s.product.State = 0, order.OffSale
	if _, err := s.Configure(t.Context(), s.product); err != nil {
		t.Fatal(err)
	}
	_, results, err = s.Reserve(t.Context(), s.product.ID, 4, []Request{ask(2, 1, "")})
	if err != nil || results[0].Outcome != OtherBuckets {
		t.Errorf("out of use: %v, %v", results, err)
	}
}

// A Cluster whose master of the set of products has died knows them by their stock.
func testFindProducts(t *testing.T, s *shop) {
	s.load(t, nil)
	if err := s.rdb.SRem(t.Context(), productsKey, s.product.ID).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.FindProducts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := must(s.Products(t.Context()))(t); !slices.Contains(ids, s.product.ID) {
		t.Errorf("product %d is not found: %v", s.product.ID, ids)
	}
}

// TestSearchProducts: the search goes through Redis by bounded pages, and begins anew with another server.
func TestSearchProducts(t *testing.T) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		s := openOwnRedis(t, cluster)
		var want []order.StockID
		for range 2 {
			shop := newShop(s.Stock)
			shop.load(t, nil)
			want = append(want, shop.product.ID)
		}
		slices.Sort(want)
		_, err := s.rdb.Pipelined(t.Context(), func(p goredis.Pipeliner) error {
			for i := range 10 * scanPage {
				p.Set(t.Context(), fmt.Sprint("order:", i), "", 0)
			}
			p.Del(t.Context(), productsKey)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}

		found, rounds := int64(0), 0
		for next := "another-server=7"; next != "" && rounds < 100; rounds++ {
			var n int64
			if next, n, err = s.SearchProducts(t.Context(), next, 1); err != nil {
				t.Fatal(err)
			}
			found += n
		}
		if rounds < 3 || rounds == 100 {
			t.Errorf("the search has taken %d rounds", rounds)
		}
		got := must(s.Products(t.Context()))(t)
		slices.Sort(got)
		equal(t, "products", got, want)
		equal(t, "found", found, 2)
	}
}

func TestParseTransfer(t *testing.T) {
	t.Parallel()
	l := newTransfer()
	if got, err := parseTransfer(l.name()); err != nil || got != l {
		t.Errorf("%q is read as %+v, %v", l.name(), got, err)
	}
	if _, err := uuid.Parse(l.name()); err == nil {
		t.Errorf("%q can be taken for an order", l.name())
	}
	for _, bad := range []string{"", "move:x:1", l.ID.String(), "move:" + l.ID.String(),
		strings.TrimPrefix(l.name(), "move:"), l.name() + ":1", "move:" + l.ID.String() + ":x"} {
		if got, err := parseTransfer(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
