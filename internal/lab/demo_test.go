package lab

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/audit"
	"stampede/internal/order"
	"stampede/internal/queue"
)

func TestPercentile(t *testing.T) {
	var sorted []time.Duration
	if got := percentile(sorted, .5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	for share, want := range map[float64]float64{.5: 501, .99: 991, .999: 1000} {
		if got := percentile(sorted, share); got != want {
			t.Errorf("p%v of 1 to 1000 ms is %v, want %v", share*100, got, want)
		}
	}
}

// soundSale is a sale of 10 units to 12 buyers at which nothing went wrong.
func soundSale() (*Demo, *load, audit.Report) {
	l := &load{duration: 2 * time.Second, retries: 2, sameOrder: 2, greedy: 1, refused: 1}
	for range 10 {
		l.orders = append(l.orders, order.OrderID(uuid.New()))
	}
	l.soldOut.Store(2)
	report := audit.Report{OK: true, Quiet: true, Products: []audit.Product{{
		ID: 1, Initial: 10, CompletedUnits: 10, Completed: 10, Loaded: true,
	}}}
	return &Demo{Units: 10, Quantity: 1, Buyers: 12}, l, report
}

// TestJudge lets one thing go wrong at a time and expects the promise that it breaks to be named.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(l *load, p *audit.Product, undecided *int)
		broken string
	}{
		{"nothing", func(*load, *audit.Product, *int) {}, ""},
		{"a unit too many", func(_ *load, p *audit.Product, _ *int) { p.CompletedUnits++ }, "P1"},
		{"an order is not decided", func(_ *load, p *audit.Product, n *int) { *n = 1; p.Completed-- }, "P2"},
		{"an order that nobody was promised", func(_ *load, p *audit.Product, _ *int) { p.Completed++ }, "P2"},
		{"an order took units twice", func(_ *load, p *audit.Product, _ *int) { p.DecidedTwice = 1 }, "P3"},
		{"a reservation is left", func(_ *load, p *audit.Product, _ *int) { p.Reserved = 1 }, "P5"},
		{"an outbox entry is left", func(_ *load, p *audit.Product, _ *int) { p.Outbox = 1 }, "P5"},
		{"sent away with a unit left", func(_ *load, p *audit.Product, _ *int) { p.Available = 1 }, "P6"},
		{"a buyer over the limit", func(_ *load, p *audit.Product, _ *int) { p.OverLimit = 1 }, "P7"},
		{"a second order was taken", func(l *load, _ *audit.Product, _ *int) { l.refused = 0 }, "P7"},
		{"a retry made another order", func(l *load, _ *audit.Product, _ *int) { l.sameOrder-- }, "P8"},
	} {
		o, l, report := soundSale()
		undecided := 0
		test.damage(l, &report.Products[0], &undecided)
		r := o.judge(l, report, 1, undecided)
		var broken []string
		for _, p := range r.promises {
			if !p.kept {
				broken = append(broken, p.id)
			}
		}
		if test.broken == "" {
			if r.Audit != "ok" || len(broken) > 0 || len(r.promises) != 8 {
				t.Errorf("%s: %v %v", test.name, r.Audit, broken)
			}
		} else if r.Audit == "ok" || !slices.Equal(broken, []string{test.broken}) {
			t.Errorf("%s: broken %v, audit %v, want %s", test.name, broken, r.Audit, test.broken)
		}
	}
}

// TestJudgeBusy tells orders that are still on their way from orders that are lost.
func TestJudgeBusy(t *testing.T) {
	o, l, report := soundSale()
	if r := o.judge(l, report, 1, 3); r.Lost != 3 || r.Pending != 0 {
		t.Errorf("quiet: lost %d, pending %d", r.Lost, r.Pending)
	}
	report.Quiet, report.OK, report.Queue = false, false, queue.Depth{Visible: 1}
	if r := o.judge(l, report, 1, 3); r.Lost != 0 || r.Pending != 3 || r.Audit == "ok" {
		t.Errorf("busy: lost %d, pending %d, audit %v", r.Lost, r.Pending, r.Audit)
	}
}
