package batch

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Do that notes its calls. Each call waits until the test lets it go on.
type recorder struct {
	mu      sync.Mutex
	calls   []string
	running int
	gate    chan struct{}
}

func newRecorder() *recorder { return &recorder{gate: make(chan struct{})} }

func (r *recorder) do(key string, items []int) {
	r.mu.Lock()
	r.calls = append(r.calls, fmt.Sprint(key, items))
	r.running++
	r.mu.Unlock()
	<-r.gate
	r.mu.Lock()
	r.running--
	r.mu.Unlock()
}

// take returns the calls since the last take, sorted, since calls side by side start in any order.
func (r *recorder) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	slices.Sort(calls)
	return calls
}

func (r *recorder) want(t *testing.T, what string, calls ...string) {
	t.Helper()
	if got := r.take(); !slices.Equal(got, calls) {
		t.Errorf("%s: calls %v, want %v", what, got, calls)
	}
}

// next lets one call end.
func (r *recorder) next() { r.gate <- struct{}{} }

func lanes[K comparable, T any](b *Batcher[K, T]) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lanes)
}

// In these tests time stands still until everybody waits, so that a timer would be seen to fire.

func TestWhatGathersGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		b := Batcher[string, int]{Do: r.do, Size: 3, Parallel: 1}
		start := time.Now()
		b.Add("a", 1)
		r.want(t, "a lone item goes at once", "a[1]")
		for i := 2; i <= 6; i++ {
			b.Add("a", i)
		}
		r.want(t, "while a call is under way")
		b.Add("b", 9)
		r.want(t, "another key does not wait", "b[9]")
		r.next()
		r.next()
		r.want(t, "then as many as fit", "a[2 3 4]")
		r.next()
		r.want(t, "then the rest", "a[5 6]")
		r.next()
		synctest.Wait()
		if n := lanes(&b); n != 0 {
			t.Errorf("%d lanes are left", n)
		}
		b.Add("a", 7)
		r.want(t, "a lone item after that", "a[7]")
		r.next()
		b.Wait()
		if time.Since(start) != 0 {
			t.Errorf("somebody slept for %v", time.Since(start))
		}
	})
}

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		b := Batcher[string, int]{Do: r.do, Size: 2, Parallel: 3}
		b.Add("a", 1, 2, 3)
		r.want(t, "as many calls as the items need", "a[1 2]", "a[3]")
		b.Add("a", 4, 5, 6, 7, 8)
		r.want(t, "no more calls than allowed", "a[4 5]")
		r.next()
		r.want(t, "the next when one ends", "a[6 7]")
		r.next()
		r.want(t, "and the next", "a[8]")
		for range 3 {
			r.next()
		}
		b.Wait()
		if n := lanes(&b); n != 0 {
			t.Errorf("%d lanes are left", n)
		}
	})
}

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		b := Batcher[string, int]{Do: r.do, Size: 2, Parallel: 1, Waiting: 3}
		if n := b.Add("a", 1); n != 1 {
			t.Errorf("Add took %d", n)
		}
		r.want(t, "first", "a[1]")
		for _, test := range []struct{ items, want int }{{2, 2}, {2, 1}, {1, 0}, {0, 0}} {
			if n := b.Add("a", []int{2, 3}[:test.items]...); n != test.want {
				t.Errorf("Add took %d of %d, want %d", n, test.items, test.want)
			}
		}
		if n := b.Add("b", 9); n != 1 {
			t.Errorf("another key's Add took %d", n)
		}
		r.want(t, "another key", "b[9]")
		r.next()
		r.next()
		r.want(t, "those that were taken", "a[2 3]")
		if n := b.Add("a", 5, 6, 7); n != 2 {
			t.Errorf("when two have left, Add took %d", n)
		}
		r.next()
		r.want(t, "then", "a[2 5]")
		r.next()
		r.want(t, "and", "a[6]")
		r.next()
		b.Wait()
	})
}

func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		b := Batcher[string, int]{Do: r.do, Size: 3, Parallel: 1, Alone: func(i int) bool { return i < 0 }}
		b.Add("a", -1, -2, 1, 2, -3, 3, 4, 5, -4)
		for _, want := range []string{"a[-1]", "a[-2]", "a[1 2]", "a[-3]", "a[3 4 5]", "a[-4]"} {
			r.want(t, "next", want)
			r.next()
		}
		b.Wait()
	})
}

func TestAddNothing(t *testing.T) {
	t.Parallel()
	b := Batcher[string, int]{Do: func(string, []int) { t.Error("a call without items") }, Size: 1, Parallel: 1}
	if n := b.Add("a"); n != 0 || lanes(&b) != 0 {
		t.Errorf("Add took %d and left %d lanes", n, lanes(&b))
	}
	b.Wait()
}

// Wait is for what a call adds, too: a call that hands its items on is not the last.
func TestWaitForWhatCallsAdd(t *testing.T) {
	t.Parallel()
	var done atomic.Int64
	var b Batcher[int, int]
	b = Batcher[int, int]{Size: 2, Parallel: 1, Do: func(key int, items []int) {
		done.Add(int64(len(items)))
		if key < 100 {
			b.Add(key+1, items...)
		}
	}}
	b.Add(1, 1, 2, 3)
	b.Wait()
	if done.Load() != 300 {
		t.Errorf("%d items were done, want 300", done.Load())
	}
}

func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	type item struct{ from, n int }
	const keys, adders, each = 3, 8, 500
	for _, parallel := range []int{1, 4} {
		var mu sync.Mutex
		var running, most [keys]int
		var done [keys][]item
		var overwritten atomic.Bool
		b := Batcher[int, item]{Size: 7, Parallel: parallel, Alone: func(i item) bool { return i.n%50 == 0 }}
		b.Do = func(key int, items []item) {
			mu.Lock()
			running[key]++
			most[key] = max(most[key], running[key])
			done[key] = append(done[key], items...)
			mu.Unlock()
			if len(items) == 0 || len(items) > b.Size || len(items) > 1 && slices.ContainsFunc(items, b.Alone) {
				t.Errorf("a call with %v", items)
			}
			clone := slices.Clone(items)
			if rand.IntN(10) == 0 {
				runtime.Gosched()
			}
			if !slices.Equal(items, clone) {
				overwritten.Store(true)
			}
			_ = append(items, item{-1, -1}) // what is behind a batch is not the caller's to write
			clear(items)
			mu.Lock()
			running[key]--
			mu.Unlock()
		}
		var adding sync.WaitGroup
		for from := range adders {
			adding.Go(func() {
				buffer := make([]item, 0, 3)
				for n := 0; n < each*keys; n += keys {
					for key := range keys {
						buffer = append(buffer[:0], item{from, n + key})
						if b.Add(key, buffer...) != 1 {
							t.Error("an item was refused")
						}
					}
				}
			})
		}
		adding.Wait()
		b.Wait()
		for key := range keys {
			if most[key] > parallel {
				t.Errorf("%d calls of a key at a time, want at most %d", most[key], parallel)
			}
			last := map[int]int{}
			seen := map[item]bool{}
			for _, i := range done[key] {
				if seen[i] || i.n%keys != key {
					t.Fatalf("%+v came twice, or under another's key", i)
				}
				seen[i] = true
				if before, ok := last[i.from]; parallel == 1 && ok && i.n < before {
					t.Fatalf("%+v came after %d", i, before)
				}
				last[i.from] = i.n
			}
			if len(seen) != adders*each {
				t.Errorf("%d items arrived, want %d", len(seen), adders*each)
			}
		}
		if overwritten.Load() || lanes(&b) != 0 {
			t.Errorf("batches were overwritten: %v; lanes left: %d", overwritten.Load(), lanes(&b))
		}
	}
}
