package stock

import (
	"context"
	"slices"
	"testing"
	"time"

	"stampede/internal/notice"
	"stampede/internal/order"
)

// testNotices wants a notice with every change after which more units may be had, and with no other.
func testNotices(t *testing.T, s *shop) {
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan notice.Notice, 100), make(chan struct{})
	go func() {
		defer close(ended)
		notice.Listen(ctx, s.rdb, func(n notice.Notice) { heard <- n })
	}()
	defer func() {
		cancel()
		<-ended
	}()
	// flush publishes a product that does not exist until it is heard, and returns whether the shop's own
	// product was heard before: others' products share the channel.
	flush := func() (reopened bool) {
		t.Helper()
		mark := -s.product.ID
		deadline := time.After(20 * time.Second)
		for {
			if err := notice.Publish(t.Context(), s.rdb, notice.Notice{Reopened: []order.StockID{mark}}); err != nil {
				t.Fatal(err)
			}
			again := time.After(50 * time.Millisecond)
			for waiting := true; waiting; {
				select {
				case n := <-heard:
					if slices.Contains(n.Reopened, mark) {
						return reopened
					}
					reopened = reopened || slices.Contains(n.Reopened, s.product.ID)
				case <-again:
					waiting = false
				case <-deadline:
					t.Fatal("no notice is heard")
				}
			}
		}
	}
	flush()
	var a, b, c order.Order
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"load", func() { s.load(t, nil) }, true},
		{"load again", func() { must(s.Load(t.Context(), s.product))(t) }, false},
		{"reserve", func() { a, b, c = s.order(t, 1, 2, ""), s.order(t, 2, 3, ""), s.order(t, 3, 1, "") }, false},
		{"cancel", func() { must(s.Cancel(t.Context(), s.product.ID, []order.Order{a}))(t) }, true},
		{"cancel again", func() { must(s.Cancel(t.Context(), s.product.ID, []order.Order{a}))(t) }, false},
		{"settle completed", func() { s.settle(t, fresh(b, order.Completed, 6)) }, false},
		{"settle failed", func() { s.settle(t, fresh(c, order.Failed, 6)) }, true},
		{"settle failed again", func() { s.settle(t, fresh(c, order.Failed, 6)) }, false},
		{"restock", func() { must(s.Restock(t.Context(), s.product.ID, 4, 7, "a"))(t) }, true},
		{"return", func() { s.giveBack(t, returnOf(a.ID, 1, 1, 6, 8)) }, true},
		{"return again", func() { s.giveBack(t, returnOf(a.ID, 1, 1, 6, 8)) }, false},
		{"return of what the loaded stock has", func() { s.giveBack(t, returnOf(b.ID, 1, 1, 4, 5)) }, false},
		{"configure", func() { s.configure(t, func(p *order.Product) { p.Price = 5 }) }, true},
		{"configure by an older row", func() {
			older := s.product
			older.Revision--
			must(s.Configure(t.Context(), older))(t)
		}, false},
		{"pause", func() { s.pause(t, time.Hour) }, false},
		{"end of a pause", func() { s.pause(t, 0) }, true},
		{"correct upwards", func() { s.correct(t, 100) }, true},
		{"correct downwards", func() { s.correct(t, 3) }, false},
		{"restock again", func() { must(s.Restock(t.Context(), s.product.ID, 4, 7, "a"))(t) }, false},
	} {
		step.do()
		if got := flush(); got != step.want {
			t.Errorf("%s: a notice: %v, want %v", step.what, got, step.want)
		}
	}
}
