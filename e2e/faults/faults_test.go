package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestShort runs the short selection of the matrix, as a part of "make test". The load, the proxies and the queue are
// all in this process, with the race detector in them: a fuller load would need processors that other tests have, until
// nothing is answered in time any more.
func TestShort(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := options{short: true, local: t.TempDir(), orders: 600, parallel: 2, seed: 1}
	good, err := o.run(t.Context(), &out)
	if err != nil || !good || !strings.Contains(out.String(), " 0 oversold, 0 lost, 0 leaked, 0 decided twice, ") ||
		!strings.HasSuffix(out.String(), " payments, 0 kept for nothing, 0 completed unpaid, 0 refunded twice, "+
			"0 units not returned, 0 cancelled though paid, 0 forged notices taken\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
	page, err := os.ReadFile(filepath.Join(o.local, "faults.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range o.rows() {
		if !strings.Contains(string(page), r.name) || !strings.Contains(out.String(), r.name) {
			t.Errorf("%q is not reported", r.name)
		}
	}
	if bytes.Count(page, []byte("<svg")) != len(o.rows()) || bytes.Contains(page, []byte("http")) {
		t.Error("the report is not complete, or needs something from elsewhere")
	}
}

// TestBroken shows that a fault that breaks promises, here one that nothing could repair, is found by the whole of it.
// It has the machine to itself, since what it expects to be told is exact.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bin, err := build(t.Context(), root, dir, false)
	if err != nil {
		t.Fatal(err)
	}
	r := row{name: "theft", span: 2 * time.Second, within: 5 * time.Second,
		fault: func(ctx context.Context, r *run) error {
			rdb := newRedis(r.system.redisAddr())
			defer rdb.Close()
			for { // until an order has brought the product to Redis: before that there is nothing to steal
				loaded, err := rdb.Exists(ctx, "stock:{1}").Result()
				if err != nil {
					return err
				}
				if loaded == 1 {
					return rdb.DecrBy(ctx, "stock:{1}", 3).Err()
				}
				if err := sleep(ctx, 10*time.Millisecond); err != nil {
					return err
				}
			}
		}}
	res := do(t.Context(), r, bin, dir, "x", 200, 1)
	if res.err != nil || res.ok() || res.recovered || count(res.broken, "P4") != 3 {
		t.Errorf("%+v", res)
	}
	if _, err := os.Stat(filepath.Join(res.dir, "edge-1.log")); err != nil {
		t.Errorf("the logs of a failed run are gone: %v", err)
	}
	var out bytes.Buffer
	res.print(&out)
	for _, want := range []string{"theft", "never", "Redis has", res.dir} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
	want := "faults: 1 runs, 200 orders, 0 oversold, 0 lost, 3 leaked, 0 decided twice, 1 not recovered"
	if s := summary([]*result{res}); s != want {
		t.Errorf("it ends with %q", s)
	}
}

// TestBrokenPayments is TestBroken for money: an operator who gives back what has completed an order is found.
func TestBrokenPayments(t *testing.T) {
	dir := t.TempDir()
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bin, err := build(t.Context(), root, dir, false)
	if err != nil {
		t.Fatal(err)
	}
	r := row{name: "pay: theft", span: 2 * time.Second, within: 5 * time.Second, pays: true,
		wishes: wishes{{paysOnce, 100}}, fault: func(ctx context.Context, r *run) error {
			p := r.system.cashier.pay
			err := r.await(ctx, happenWait, "something is paid", func() bool { return len(p.Books().Payments) > 0 })
			if err != nil {
				return err
			}
			paid := p.Books().Payments[0]
			return p.RefundByHand(paid.Provider, paid.Number, "theft", paid.Amount)
		}}
	res := do(t.Context(), r, bin, dir, "x", 60, 1)
	if res.err != nil || res.recovered || count(res.broken, refundedTwice) != 1 {
		t.Errorf("%+v", res)
	}
	if s := summary([]*result{res}); !strings.Contains(s, " 0 completed unpaid, 1 refunded twice, ") {
		t.Errorf("it ends with %q", s)
	}
}

// TestSettling: nobody pays at ECPay in a run that could be under way while it settles, from 12:15 to 12:30 UTC.
func TestSettling(t *testing.T) {
	t.Parallel()
	for minute, want := range map[int]int{0: 3, 8: 3, 9: 2, 29: 2, 30: 3} {
		now := time.Date(2026, 1, 1, 12, minute, 0, 0, time.UTC)
		if got := paidProducts(100, now)[0].providers; len(got) != want {
			t.Errorf("at %s there are %v", now, got)
		}
	}
}

// TestRows: names are what --only and the report go by.
func TestRows(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range matrix() {
		if seen[r.name] || r.fault == nil || len(r.name) > 42 {
			t.Errorf("row %q is there twice, does nothing, or has too long a name", r.name)
		}
		seen[r.name] = true
	}
	o := options{only: regexp.MustCompile("^edge-redis cut$")}
	if rows := o.rows(); len(rows) != 1 {
		t.Errorf("%d rows are selected", len(rows))
	}
	if n := len(options{short: true}.rows()); n < 4 || n > 8 {
		t.Errorf("the short selection has %d rows", n)
	}
}
