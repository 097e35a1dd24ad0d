package password

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheapest are the least parameters that are allowed.
var cheapest = Params{MemoryKiB: MinMemoryKiB, Iterations: 5, Parallelism: 1}

func newHasher(t *testing.T, p Params) *Hasher {
	t.Helper()
	h, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// quick makes a Hasher whose work is a function of the test.
func quick(t *testing.T, work func()) *Hasher {
	t.Helper()
	h := newHasher(t, cheapest)
	h.create = func(string, *argon2id.Params) (string, error) { work(); return h.nobody, nil }
	h.check = func(string, string) (bool, *argon2id.Params, error) { work(); return false, &h.params, nil }
	return h
}

func TestHash(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	h := newHasher(t, cheapest)
	long := strings.Repeat("🔑", MaxChars)
	for _, password := range []string{"correct horse", "", "Пароль и ключ", "a\x00b", long} {
		hash, err := h.Hash(ctx, password)
		if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=7168,t=5,p=1$") {
			t.Fatalf("%q: %s, error %v", password, hash, err)
		}
		again, err := h.Hash(ctx, password)
		if err != nil || again == hash {
			t.Errorf("%q: two hashes are the same, error %v", password, err)
		}
		if match, err := h.Verify(ctx, password, hash); !match || err != nil {
			t.Errorf("%q: match %t, error %v", password, match, err)
		}
		for _, wrong := range []string{password + "x", "x" + password, strings.ToUpper(password) + " ", long + "x"} {
			if match, err := h.Verify(ctx, wrong, hash); match || err != nil {
				t.Errorf("%q for %q: match %t, error %v", wrong, password, match, err)
			}
		}
	}
	if _, err := h.Hash(ctx, long+"x"); !errors.Is(err, ErrRefused) {
		t.Errorf("too long: error %v", err)
	}
	if err := h.VerifyNobody(ctx, "correct horse"); err != nil {
		t.Error(err)
	}
}

func TestDefaultParams(t *testing.T) {
	t.Parallel()
	h := newHasher(t, DefaultParams())
	hash, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%s, error %v", hash, err)
	}
	if match, err := h.Verify(t.Context(), "correct horse", hash); !match || err != nil {
		t.Errorf("match %t, error %v", match, err)
	}
}

func TestNeedsRehash(t *testing.T) {
	t.Parallel()
	old := newHasher(t, cheapest)
	hash, err := old.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if old.NeedsRehash(hash) || old.NeedsRehash(old.nobody) {
		t.Error("a new hash needs to be made again")
	}
	for _, p := range []Params{{MinMemoryKiB + 1, 5, 1}, {MinMemoryKiB, 6, 1}, {MinMemoryKiB, 5, 2}, DefaultParams()} {
		if h := newHasher(t, p); !h.NeedsRehash(hash) {
			t.Errorf("%+v: an old hash need not be made again", p)
		}
	}
	// What is stored stays good under other parameters.
	if match, err := newHasher(t, DefaultParams()).Verify(t.Context(), "correct horse", hash); !match || err != nil {
		t.Errorf("match %t, error %v", match, err)
	}
	for _, broken := range []string{"", "x", "$2a$10$abcdefghijklmnopqrstuv", strings.Replace(hash, "t=5", "t=0", 1)} {
		if !old.NeedsRehash(broken) {
			t.Errorf("%q need not be made again", broken)
		}
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	for _, p := range []Params{DefaultParams(), {47_104, 1, 1}, {12_288, 3, 1}, {9_216, 4, 1}, {7_168, 5, 1},
		{MaxMemoryKiB, MaxIterations, MaxParallelism}} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Params{
		{}, {7_167, 6, 1}, {7_168, 4, 1}, {19_456, 1, 1}, {19_456, 0, 1}, {19_456, 2, 0},
		{MaxMemoryKiB + 1, 2, 1}, {19_456, MaxIterations + 1, 1}, {19_456, 2, MaxParallelism + 1},
	} {
		if _, err := New(p); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
}

// TestBadHash has stored hashes that would make argon2 panic, or take all memory, among others.
func TestBadHash(t *testing.T) {
	t.Parallel()
	const salt, key = "c29tZXNhbHRzb21lc2FsdA", "RdescudvJCsgt3ub+b+dWRWJTmaaJObGRdescudvJCs"
	h := quick(t, func() { t.Error("a bad hash was worked at") })
	for _, hash := range []string{
		"", "correct horse", "$", "$$$$$",
		"$argon2i$v=19$m=7168,t=5,p=1$" + salt + "$" + key,
		"$argon2id$v=18$m=7168,t=5,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=0,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=5,p=0$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=-5,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967295,t=5,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=4294967295,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=5,p=255$" + salt + "$" + key,
		"$argon2id$v=19$m=7168,t=5,p=1$$" + key,
		"$argon2id$v=19$m=7168,t=5,p=1$" + salt + "$",
		"$argon2id$v=19$m=7168,t=5,p=1$" + salt + "$" + strings.Repeat("A", maxHashBytes),
		"$argon2id$v=19$m=7168,t=5,p=1$" + salt + "$!",
	} {
		if match, err := h.Verify(t.Context(), "correct horse", hash); match || !errors.Is(err, ErrBadHash) {
			t.Errorf("%q: match %t, error %v", hash, match, err)
		}
	}
}

// TestNobodyTakesAsLong counts what takes the time, rather than the time: a wrong password costs one hash with the same
// parameters, whether the user exists or not.
func TestNobodyTakesAsLong(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	h := newHasher(t, DefaultParams())
	stored, err := h.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	var work []string
	check := h.check
	h.check = func(password, hash string) (bool, *argon2id.Params, error) {
		match, p, err := check(password, hash)
		work = append(work, fmt.Sprintf("%+v", p))
		return match, p, err
	}
	for _, password := range []string{"wrong horse", "", strings.Repeat("x", maxBytes),
		strings.Repeat("x", maxBytes+1)} {
		work = nil
		if match, err := h.Verify(ctx, password, stored); match || err != nil {
			t.Fatalf("match %t, error %v", match, err)
		}
		wrong := fmt.Sprint(work)
		work = nil
		if err := h.VerifyNobody(ctx, password); err != nil {
			t.Fatal(err)
		}
		if nobody := fmt.Sprint(work); nobody != wrong {
			t.Errorf("%d bytes: wrong password %s, nobody %s", len(password), wrong, nobody)
		}
		if len(password) <= maxBytes && len(work) != 1 {
			t.Errorf("%d bytes: %d hashes", len(password), len(work))
		}
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	h := quick(t, func() { begun <- struct{}{}; <-finish })
	running := cap(h.slots)
	if want := min(max(1, runtime.GOMAXPROCS(0)/2), maxRunning); running != want {
		t.Fatalf("%d hashes run at a time, want %d", running, want)
	}
	calls := []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := h.Hash(ctx, "correct horse"); return err },
		func(ctx context.Context) error { _, err := h.Verify(ctx, "correct horse", h.nobody); return err },
		func(ctx context.Context) error { return h.VerifyNobody(ctx, "correct horse") },
	}
	errs := make(chan error, running+MaxWaiting)
	for i := range running {
		go func() { errs <- calls[i%len(calls)](t.Context()) }()
		<-begun
	}
	// One waiter more than the rest has a context of its own.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- calls[0](ctx) }()
	for i := range MaxWaiting - 1 {
		go func() { errs <- calls[i%len(calls)](t.Context()) }()
	}
	full := func() {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); len(h.places) < running+MaxWaiting; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%d callers", len(h.places))
			}
		}
		for i, call := range calls {
			if err := call(t.Context()); !errors.Is(err, ErrBusy) {
				t.Errorf("call %d: error %v", i, err)
			}
		}
	}
	full()
	// Who leaves makes room for another.
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: error %v", err)
	}
	go func() { errs <- calls[1](t.Context()) }()
	full()
	select {
	case <-begun:
		t.Error("more hashes run at a time than may")
	default:
	}
	go func() {
		for range MaxWaiting {
			<-begun
		}
	}()
	close(finish)
	for range running + MaxWaiting {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(h.places) != 0 || len(h.slots) != 0 {
		t.Errorf("%d places and %d slots are still held", len(h.places), len(h.slots))
	}
}

func TestAtMostSoManyRun(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int64
	h := quick(t, func() {
		n := running.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(time.Millisecond)
		running.Add(-1)
	})
	var wg sync.WaitGroup
	for range MaxWaiting {
		wg.Go(func() {
			if err := h.VerifyNobody(t.Context(), "correct horse"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > int64(cap(h.slots)) {
		t.Errorf("%d ran at a time, %d may", most.Load(), cap(h.slots))
	}
}

func TestEndedContext(t *testing.T) {
	t.Parallel()
	h := quick(t, func() { t.Error("work was done for nobody") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Hash(ctx, "correct horse"); !errors.Is(err, context.Canceled) {
		t.Errorf("hash: error %v", err)
	}
	if _, err := h.Verify(ctx, "correct horse", h.nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: error %v", err)
	}
	if err := h.VerifyNobody(ctx, "correct horse"); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody: error %v", err)
	}
}

// TestNoPlaceInTime has a caller's time go by in the queue, which is no fault of the hasher.
func TestNoPlaceInTime(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	h := quick(t, func() { begun <- struct{}{}; <-finish })
	var wg sync.WaitGroup
	for range cap(h.slots) {
		wg.Go(func() { _ = h.VerifyNobody(t.Context(), "correct horse") })
		<-begun
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := h.VerifyNobody(ctx, "correct horse"); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	close(finish)
	wg.Wait()
}

// TestPanic has the work panic, which must not keep its slot.
func TestPanic(t *testing.T) {
	t.Parallel()
	h := quick(t, func() { panic("argon2") })
	for range 3 * (cap(h.slots) + MaxWaiting) {
		func() {
			defer func() { _ = recover() }()
			_ = h.VerifyNobody(t.Context(), "correct horse")
		}()
	}
	if len(h.places) != 0 || len(h.slots) != 0 {
		t.Errorf("%d places and %d slots are still held", len(h.places), len(h.slots))
	}
}

func BenchmarkHash(b *testing.B) {
	h, err := New(DefaultParams())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
