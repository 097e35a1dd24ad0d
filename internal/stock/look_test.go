package stock

import (
	"context"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// between calls do once, before the first call of a command whose name it has.
type between struct {
	name string
	do   func()
	// calls counts the calls of the command.
	calls int
}

func (b *between) DialHook(next goredis.DialHook) goredis.DialHook { return next }
func (b *between) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

func (b *between) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if cmd.Name() == b.name {
			b.calls++
			if do := b.do; do != nil {
				b.do = nil
				do()
			}
		}
		return next(ctx, cmd)
	}
}

// TestLookByPages: a look at many reservations is made of small calls. It says whether it is of one moment, and what is
// not can neither correct the stock nor unload the product.
func TestLookByPages(t *testing.T) {
	t.Parallel()
	url := stacktest.RedisURL(t)
	s, other := openShop(t, url), openShop(t, url)
	const orders = 3 * lookPage
	s.load(t, func(p *order.Product) { p.Stock = 2 * orders })
	other.product, other.keys = s.product, s.keys
	for made := 0; made < orders; made += MaxBatch {
		requests := asks(min(MaxBatch, orders-made))
		for i := range requests {
			requests[i].IdempotencyKey = ""
		}
		s.reserve(t, requests...)
	}

	hook := &between{name: "hscan"}
	s.rdb.AddHook(hook)
	l := must(s.Look(t.Context(), s.product.ID))(t)
	if !l.Still || len(l.Reserved) != orders || len(l.Outbox) != orders || l.Available != orders {
		t.Errorf("still %v, %d reserved, %d in the outbox, %d available", l.Still, len(l.Reserved), len(l.Outbox),
			l.Available)
	}
	if hook.calls < 2*orders/(2*lookPage) {
		t.Errorf("it took %d calls to see them", hook.calls)
	}

	hook.calls = 0
	level := must(s.Level(t.Context(), s.product.ID))(t)
	want := Level{Loaded: true, Available: orders, Reserved: orders, Reservations: orders, Outbox: orders, Version: 5}
	equal(t, "level", level, want)
	if hook.calls < 2 {
		t.Errorf("the level took %d calls after the first page", hook.calls)
	}
	hook.do = func() { other.reserve(t, ask(1, 1, "")) }
	if level = must(s.Level(t.Context(), s.product.ID))(t); !level.Moving {
		t.Error("a level of several moments is not told from one of one")
	}
	l = must(s.Look(t.Context(), s.product.ID))(t)

	for name, move := range map[string]func(){
		"reserved": func() { other.reserve(t, ask(1, 1, "")) },
		"settled": func() {
			for id := range l.Reserved {
				o := order.Order{ID: id, UserID: 1, StockID: s.product.ID, Quantity: 1}
				other.settle(t, again(o, order.Completed))
				return
			}
		},
	} {
		hook.do = move
		l := must(s.Look(t.Context(), s.product.ID))(t)
		now := must(s.Look(t.Context(), s.product.ID))(t)
		if l.Still || !now.Still || l.SameAs(now) {
			t.Errorf("%s meanwhile: still %v, then %v", name, l.Still, now.Still)
		}
		// Not even if the numbers happen to be those of now.
		l.epoch, l.changes = now.epoch, now.changes
		equal(t, name+": corrected", must(s.Correct(t.Context(), s.product.ID, l, 1, 99))(t), false)
		equal(t, name+": unloaded", must(s.Unload(t.Context(), s.product.ID, l))(t), false)
	}
}
