package audit

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Print writes the report as tables, a list of problems, and what was compared.
func (r Report) Print(w io.Writer) {
	r.printProducts(w, true)
	fmt.Fprintf(w, "\nqueue: %d waiting, %d being worked, %d delayed; dead letters: %d\n", r.Queue.Visible,
		r.Queue.InFlight, r.Queue.Delayed, r.Queue.Dead)
	if r.Returning > 0 {
		fmt.Fprintf(w, "units being put on sale again: those of %s\n", many(r.Returning, "order"))
	}
	r.printMoney(w)
	if len(r.Money) > 0 {
		fmt.Fprintln(w)
	}
	r.printVerdict(w)
}

// PrintBooks writes a report of Books, which has nothing of Redis and of the queue.
func (r Report) PrintBooks(w io.Writer) {
	r.printProducts(w, false)
	r.printMoney(w)
	fmt.Fprintln(w)
	r.printVerdict(w)
}

// printProducts writes a line for each product. Columns of orders that must be paid are there if there are any.
func (r Report) printProducts(w io.Writer, redis bool) {
	paid := slices.ContainsFunc(r.Products, func(p Product) bool { return p.Held > 0 || p.Returned > 0 })
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...any) {
		for _, cell := range cells {
			fmt.Fprint(tab, cell, "\t")
		}
		fmt.Fprintln(tab)
	}
	columns := func(first, held, stock, inRedis, last []any) {
		cells := first
		if paid {
			cells = append(cells, held...)
		}
		cells = append(cells, stock...)
		if redis {
			cells = append(cells, inRedis...)
		}
		line(append(cells, last...)...)
	}
	columns([]any{"product", "initial", "restocked", "completed"}, []any{"held", "returned"}, []any{"mysql stock"},
		[]any{"redis available", "reserved", "outbox"}, []any{"orders", "failed"})
	for _, a := range r.Products {
		columns([]any{a.ID, a.Initial, a.Restocked, a.CompletedUnits}, []any{a.Held, a.Returned}, []any{a.Stock},
			[]any{a.available(), a.Reserved, a.Outbox}, []any{a.Completed + a.Failed, a.Failed})
	}
	tab.Flush()
}

// printMoney writes a line for each currency in which anything was paid.
func (r Report) printMoney(w io.Writer) {
	if len(r.Money) == 0 {
		return
	}
	fmt.Fprintln(w)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "currency\ttaken\tcompleted\trefunded\tdue\tby hand\tof these by staff\t")
	for _, m := range r.Money {
		fmt.Fprintf(tab, "%s\t", m.Currency)
		for _, amount := range []int64{m.Taken, m.Completed, m.Refunded, m.Due, m.ByHand, m.ByStaff} {
			fmt.Fprintf(tab, "%s\t", decimal(amount, m.Currency))
		}
		fmt.Fprintln(tab)
	}
	tab.Flush()
}

// available is what Redis has, and of how many buckets if it is not all of them.
func (a Product) available() string {
	switch {
	case !a.Loaded:
		return "-"
	case a.BucketsLoaded < a.Buckets:
		return fmt.Sprintf("%d in %d of %d buckets", a.Available, a.BucketsLoaded, a.Buckets)
	}
	return fmt.Sprint(a.Available)
}

func (r Report) printVerdict(w io.Writer) {
	defer r.printCompared(w)
	if r.OK {
		fmt.Fprintln(w, "audit: ok")
		return
	}
	fmt.Fprintln(w, "audit: FAILED")
	for _, problem := range r.Problems {
		fmt.Fprintln(w, "  -", problem)
	}
}

// printCompared says what the verdict rests on.
func (r Report) printCompared(w io.Writer) {
	fmt.Fprintln(w, "\ncompared:")
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Compared {
		fmt.Fprintf(tab, "  %s\t%s\n", c.Promise, c.What)
	}
	tab.Flush()
}
