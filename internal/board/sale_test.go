package board

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// line is a product in a line.
func (p product) line() string {
	return fmt.Sprintf("%s: %s, available %s, reserved %s in %s orders, sold %s", p.Name, p.State, show(p.Available),
		show(p.Reserved), show(p.Orders), show(p.Sold))
}

func lines(u update) []string {
	var all []string
	for _, p := range u.Products {
		all = append(all, p.line())
	}
	return all
}

func TestProducts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.migrate(t)
	whole := r.add(t, order.Product{Name: "whole", Stock: 10})
	split := r.add(t, order.Product{Name: "split", Stock: 30, Buckets: 3})
	gone := r.add(t, order.Product{Name: "gone", Stock: 2})
	if _, err := r.ledger.AddProduct(t.Context(), order.Product{Name: "not loaded", Currency: "EUR",
		Stock: 7}); err != nil {
		t.Fatal(err)
	}
	r.add(t, order.Product{Name: "off sale", Stock: 1, State: order.OffSale})
	r.add(t, order.Product{Name: "later", Stock: 1, StartsAt: time.Now().Add(time.Hour)})
	r.add(t, order.Product{Name: "earlier", Stock: 1, EndsAt: time.Now().Add(-time.Hour)})
	r.order(t, whole.ID, 1, 3, true)
	r.order(t, whole.ID, 2, 2, false)
	r.order(t, whole.ID, 3, 1, false)
	r.order(t, split.ID.Product().Bucket(1), 1, 4, true)
	r.order(t, split.ID.Product().Bucket(3), 2, 5, false)
	r.order(t, gone.ID, 1, 2, true)

	s := r.sampler()
	u := s.look(t.Context())
	want := []string{
		"whole: on sale, available 4, reserved 3 in 2 orders, sold 3",
		"split: on sale, available 21, reserved 5 in 1 orders, sold 4",
		"gone: sold out, available 0, reserved 0 in 0 orders, sold 2",
		"not loaded: on sale, available 7, reserved 0 in 0 orders, sold 0",
		"off sale: off sale, available 1, reserved 0 in 0 orders, sold 0",
		"later: not started, available 1, reserved 0 in 0 orders, sold 0",
		"earlier: ended, available 1, reserved 0 in 0 orders, sold 0",
	}
	if got := lines(u); !slices.Equal(got, want) || len(u.Silent) > 0 || u.More {
		t.Errorf("silent: %v, more: %v, got\n%s\nwant\n%s", u.Silent, u.More, strings.Join(got, "\n"),
			strings.Join(want, "\n"))
	}
	if u.Queue == nil || !u.Queue.Empty() || u.Fleet == nil || u.Fleet.Edges+u.Fleet.Workers != 0 {
		t.Errorf("queue %+v, fleet %+v", u.Queue, u.Fleet)
	}
}

// Of many products those are shown in which something moves, and else the newest.
func TestBusiestProducts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.migrate(t)
	var products []order.Product
	for i := range maxProducts + 10 {
		products = append(products, r.add(t, order.Product{Name: fmt.Sprint(i), Stock: 100}))
	}
	s := r.sampler()
	shown := func() []string {
		s.chosenAt = time.Time{}
		u := s.look(t.Context())
		if len(u.Products) != maxProducts || !u.More {
			t.Errorf("%d products, more: %v", len(u.Products), u.More)
		}
		var names []string
		for _, p := range u.Products {
			names = append(names, p.Name)
		}
		return names
	}
	if first := shown(); first[0] != "10" || first[maxProducts-1] != "29" {
		t.Errorf("at first %v", first)
	}
	r.order(t, products[3].ID, 1, 2, true)
	r.order(t, products[5].ID, 1, 1, false)
	if moved := shown(); !slices.Equal(moved[:3], []string{"3", "5", "12"}) {
		t.Errorf("after orders %v", moved)
	}
	if still := shown(); still[0] != "3" {
		t.Errorf("a moment later %v", still)
	}
}

// What a silent server would say is unknown, not old, and the others are heard.
func TestSilence(t *testing.T) {
	t.Parallel()
	dsn := stacktest.DSN(t)
	nowhere := closedAddr(t)
	ok := rigOf(t, dsn, stacktest.RedisURL(t))
	ok.migrate(t)
	p := ok.add(t, order.Product{Stock: 10})
	ok.order(t, p.ID, 1, 4, false)
	for _, test := range []struct {
		name   string
		break_ func(*sampler)
		silent []string
		line   string
	}{
		{"Redis", func(s *sampler) {
			away := rigOf(t, dsn, "redis://"+nowhere)
			s.redis, s.stock = away.redis, away.stock
		}, []string{"Redis"},
			"thing: on sale, available unknown, reserved unknown in unknown orders, sold 0"},
		{"MySQL", func(s *sampler) {
			s.ledger = rigOf(t, "u:p@tcp("+nowhere+")/d", "redis://"+nowhere).ledger
		}, []string{"MySQL"}, "thing: on sale, available 6, reserved unknown in 1 orders, sold unknown"},
		{"the queue", func(s *sampler) {
			gone := rigOf(t, dsn, "redis://"+nowhere)
			s.queue = gone.queue
			if err := gone.sqs.Close(); err != nil {
				t.Fatal(err)
			}
		}, []string{"the queue"}, "thing: on sale, available 6, reserved 4 in 1 orders, sold 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := ok.sampler()
			if u := s.look(t.Context()); len(u.Silent) > 0 {
				t.Fatalf("silent from the start: %v", u.Silent)
			}
			test.break_(s)
			start := time.Now()
			u := s.look(t.Context())
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("the look took %s", took)
			}
			if !slices.Equal(u.Silent, test.silent) || !slices.Equal(lines(u), []string{test.line}) {
				t.Errorf("silent %v: %q", u.Silent, lines(u))
			}
			if (u.Queue == nil) != (test.name == "the queue") || (u.Fleet == nil) != (test.name == "Redis") {
				t.Errorf("queue %v, fleet %v", u.Queue, u.Fleet)
			}
			if (u.Point[4] == nil) != (u.Queue == nil) || (u.Point[1] == nil) != (u.Fleet == nil) {
				t.Errorf("the charts show %v", u.Point)
			}
		})
	}
}

func TestFleet(t *testing.T) {
	t.Parallel()
	f := fleetOf([]string{
		`{"role":"worker","id":"w","started_at_ms":5,"per_second":{"completed":3,"failed":1},"drift":{"found":2,"repaired":1},"paused":true}`,
		`{"role":"edge","id":"b","started_at_ms":2,"per_second":{"accepted":1},"latency":{"count":4,"bounds":[0.1,0.2],"through":[4,4]}}`,
		`{"role":"edge","id":"a","started_at_ms":1,"per_second":{"accepted":2,"sold_out":5,"errors":1},"latency":{"count":6,"bounds":[0.1,0.2],"through":[0,6]}}`,
		`{"role":"router","id":"of a later version"}`,
		`not JSON`,
	})
	if f.Edges != 2 || f.Workers != 1 || f.Paused != 1 || f.Drift != (drift{2, 1}) ||
		f.PerSecond != (rates{Accepted: 3, SoldOut: 5, Errors: 1, Completed: 3, Failed: 1}) {
		t.Errorf("%+v", f)
	}
	var ids []string
	for _, p := range f.Processes {
		ids = append(ids, fmt.Sprint(p.Role, " ", p.ID, " ", p.PerSecond))
	}
	if want := []string{"edge a 8", "edge b 1", "router of a later version 0", "worker w 4"}; !slices.Equal(ids, want) {
		t.Errorf("%q, want %q", ids, want)
	}
	// 4 of 10 took up to 100 ms, 6 up to 200.
	if f.P50 == nil || *f.P50 < 116 || *f.P50 > 117 || f.P99 == nil || *f.P99 < 198 || *f.P99 > 199 {
		t.Errorf("p50 %v, p99 %v", *f.P50, *f.P99)
	}
	many := make([]string, maxProcesses+1)
	for i := range many {
		many[i] = fmt.Sprintf(`{"role":"edge","id":"%d"}`, i)
	}
	if f := fleetOf(many); f.Edges != maxProcesses+1 || len(f.Processes) != maxProcesses {
		t.Errorf("%d edges, %d listed", f.Edges, len(f.Processes))
	}
}
