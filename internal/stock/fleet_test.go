package stock

import (
	"slices"
	"strconv"
	"testing"
	"time"
)

// disband forgets the processes of other tests, of which a Cluster keeps some.
func (s *shop) disband(t *testing.T) {
	t.Helper()
	if err := s.rdb.Del(t.Context(), fleetKey).Err(); err != nil {
		t.Fatal(err)
	}
}

func testReports(t *testing.T, s *shop) {
	s.disband(t)
	report := func(process, text string) {
		t.Helper()
		if err := s.Report(t.Context(), process, text); err != nil {
			t.Fatal(err)
		}
	}
	lately := func(maxAge time.Duration) []string {
		t.Helper()
		return slices.Sorted(slices.Values(must(s.Reports(t.Context(), maxAge))(t)))
	}
	equal(t, "before the first report", lately(time.Minute), []string{})
	report("a", `{"n": 1}`)
	report("b", "2\n3")
	report("a", `{"n": 4}`)
	equal(t, "reports", lately(time.Minute), []string{"2\n3", `{"n": 4}`})
	if ttl := must(s.rdb.PTTL(t.Context(), fleetKey).Result())(t); ttl <= 0 || ttl > reportKept {
		t.Errorf("what is left of a fleet that has ended stays for %s", ttl)
	}
	report("b", "")
	equal(t, "after the end of one", lately(time.Minute), []string{`{"n": 4}`})
	time.Sleep(3 * time.Millisecond)
	equal(t, "of the last millisecond", lately(time.Millisecond), []string{})
}

// However many processes have died without a word, the others forget them.
func testReportsOfTheDead(t *testing.T, s *shop) {
	s.disband(t)
	old := s.now(t).Add(-reportKept - time.Second).UnixMilli()
	for i := range 20 {
		value := strconv.FormatInt(old, 10) + " {}"
		if err := s.rdb.HSet(t.Context(), fleetKey, "dead-"+strconv.Itoa(i), value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "reports of the dead", must(s.Reports(t.Context(), reportKept))(t), []string{})
	for calls := 0; ; calls++ {
		if err := s.Report(t.Context(), "alive", "{}"); err != nil {
			t.Fatal(err)
		}
		if left := must(s.rdb.HKeys(t.Context(), fleetKey).Result())(t); len(left) == 1 {
			equal(t, "who is left", left, []string{"alive"})
			return
		} else if calls == 1000 {
			t.Fatalf("after %d calls these are left: %q", calls, left)
		}
	}
}

func testCounts(t *testing.T, s *shop) {
	s.load(t, nil)
	s.order(t, 1, 3, "")
	s.order(t, 2, 1, "")
	counts := must(s.Counts(t.Context(), []int64{s.product.ID, 404}))(t)
	equal(t, "counts", counts, map[int64]Count{s.product.ID: {Loaded: true, Available: 6, Reservations: 2}, 404: {}})
	equal(t, "of no product", must(s.Counts(t.Context(), nil))(t), map[int64]Count{})
}
