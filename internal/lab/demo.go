package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"stampede/internal/audit"
	"stampede/internal/order"
)

// drainWait bounds the wait for the queue to drain; the outbox relay, the slowest part, needs 40 s.
const drainWait = 90 * time.Second

// Demo is a sale that is run to be judged.
type Demo struct {
	Size
	Units    int64   // on sale
	Buyers   int     // who come
	Rate     float64 // buyers a second, in an open model
	Quantity int64   // units that each buyer orders
	Timeline bool    // print also what each tenth of a second of the sale was like
	Hold     bool    // keep the stack and its board running after the sale until the context ends
	JSON     bool    // print the result as one JSON object, and not as tables
}

// DemoResult is what a demo measured and found. Counts are of buyers and orders, units of goods.
type DemoResult struct {
	Buyers       int     `json:"buyers"`
	Accepted     int     `json:"accepted"`
	SoldOut      int     `json:"sold_out"`
	Errors       int     `json:"errors"`
	Completed    int64   `json:"completed"`
	Failed       int64   `json:"failed"`
	Pending      int     `json:"pending"` // accepted and still on their way when time ran out
	UnitsSold    int64   `json:"units_sold"`
	Oversold     int64   `json:"oversold"`      // units sold beyond those put on sale
	Lost         int     `json:"lost"`          // accepted, never decided, and no longer on their way
	Leaked       int64   `json:"leaked"`        // units reserved for no order
	DecidedTwice int64   `json:"decided_twice"` // orders that took units more than once
	DurationS    float64 `json:"duration_s"`    // from the first request to the last answer
	OrdersPerS   float64 `json:"orders_per_s"`  // order requests answered per second of that time
	// Latency is of all who were answered, and then of the accepted and the refused apart.
	Latency         Latencies `json:"latency_ms"`
	AcceptedLatency Latencies `json:"accepted_latency_ms"`
	RefusedLatency  Latencies `json:"refused_latency_ms"`
	Timeline        []Moment  `json:"timeline,omitempty"`
	// Audit is "ok" or a list of what is broken.
	Audit any `json:"audit"`

	units    int64
	promises []promise
	errors   map[string]int
}

// promise is one promise of docs/design.md with the check that this run made of it.
type promise struct {
	id, name, check string
	kept            bool
}

// Run runs the sale, prints what became of it, and reports whether all promises were kept.
func (c *Demo) Run(ctx context.Context) (kept bool, err error) {
	show := newProgress(os.Stderr)
	f, err := startFleet(ctx, c.Dir, "demo", show.step)
	keep := true // the logs of a run that went wrong
	defer func() {
		show.step("stopping")
		err = errors.Join(err, f.close(keep))
		if keep && f.dir != "" {
			show.step("logs and data are kept in " + f.dir)
		}
	}()

	if err != nil {
		return false, err
	}
	show.step(fmt.Sprintf("starting %d edge and %d worker processes", c.Edges, c.Workers))
	if err := f.runAll(ctx, c.Size); err != nil {
		return false, err
	}
	show.step("watch it live: " + f.board())

	product, err := f.sale.Ledger.AddProduct(ctx, order.Product{
		Name: "Concert ticket", Price: 4990, Currency: "EUR", Stock: c.Units, LimitPerUser: c.Quantity,
	})
	if err != nil {
		return false, err
	}

	show.step(fmt.Sprintf("%d buyers want %d of %d units each, %g buyers a second", c.Buyers, c.Quantity, c.Units,
		c.Rate))
	result, err := c.sell(ctx, f, product.ID, show)
	if err != nil {
		return false, err
	}

	if c.JSON {
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			return false, err
		}
	} else {
		result.print(os.Stdout)
	}

	if c.Hold {
		show.step("the board stays until Ctrl-C: " + f.board())
		<-ctx.Done()
	}

	keep = result.Audit != "ok"
	return !keep, nil
}

// sell sends the buyers, waits for their orders to be decided, and checks what became of them.
func (c *Demo) sell(ctx context.Context, f *fleet, stockID order.StockID, show *progress) (*DemoResult, error) {
	l := &load{urls: f.urls(), tokens: f.tokens, stockID: stockID, quantity: c.Quantity, buyers: c.Buyers,
		rate: c.Rate}

	// While the buyers come, what has become of them so far is shown.
	watch, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for watch.Err() == nil {
			look, err := f.sale.Look(watch)
			if err == nil {
				show.show(l.sent.Load(), int64(c.Buyers),
					fmt.Sprintf("%d/%d buyers  accepted %d  sold out %d  errors %d  |  in stock %d  reserved %d  "+
						"messages %d",
						l.sent.Load(), c.Buyers, l.accepted.Load(), l.soldOut.Load(), l.failed.Load(),
						look.Available, look.Reserved, look.Queue.Visible+look.Queue.InFlight))
			}
			select {
			case <-watch.Done():
			case <-time.After(show.interval()):
			}
		}
	}()

	l.run(ctx)
	stopWatching()
	<-watched
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	show.step("waiting until all orders are decided")
	accepted := l.accepted.Load()
	err := f.sale.WaitQuiet(ctx, drainWait, func(look audit.Look) {
		show.show(accepted*c.Quantity-look.Reserved, accepted*c.Quantity,
			fmt.Sprintf("reserved %d  messages %d", look.Reserved, look.Queue.Visible+look.Queue.InFlight))
	})
	if err != nil {
		return nil, err
	}

	show.step("auditing")
	report, err := f.sale.Audit(ctx)
	if err != nil {
		return nil, err
	}

	undecided, err := f.sale.Ledger.Undecided(ctx, l.orders)
	if err != nil {
		return nil, err
	}
	return c.judge(l, report, stockID, len(undecided)), nil
}

// judge compares what the buyers were told with what the audit found.
func (c *Demo) judge(l *load, report audit.Report, stockID order.StockID, undecided int) *DemoResult {
	r := &DemoResult{
		Buyers: c.Buyers, Accepted: len(l.orders), SoldOut: int(l.soldOut.Load()), Errors: int(l.failed.Load()),
		DurationS: l.duration.Seconds(), OrdersPerS: float64(c.Buyers) / l.duration.Seconds(),
		units: c.Units, errors: l.errors,
	}

	r.Latency = latenciesOf(l.visits, accepted, refused)
	r.AcceptedLatency, r.RefusedLatency = latenciesOf(l.visits, accepted), latenciesOf(l.visits, refused)
	if c.Timeline {
		r.Timeline = timeline(l.visits, l.due)
	}

	var p audit.Product
	if i := slices.IndexFunc(report.Products, func(p audit.Product) bool { return p.ID == stockID }); i >= 0 {
		p = report.Products[i]
	}
	r.Completed, r.Failed, r.UnitsSold = p.Completed, p.Failed, p.CompletedUnits
	r.Oversold = max(0, p.CompletedUnits-c.Units)
	r.DecidedTwice = p.DecidedTwice
	if report.Quiet {
		r.Lost, r.Leaked = undecided, p.Reserved
	} else {
		r.Pending = undecided
	}

	check := func(id, name string, kept bool, format string, args ...any) {
		r.promises = append(r.promises, promise{id, name, fmt.Sprintf(format, args...), kept})
	}
	check("P1", "never oversell", r.Oversold == 0 && p.Stock >= 0, "%d of %d units sold", r.UnitsSold, c.Units)
	// A buyer who got an error may have an order all the same; nobody else may.
	decided := r.Completed + r.Failed
	check("P2", "a 202 is kept", undecided == 0 && decided >= int64(r.Accepted) &&
		decided <= int64(r.Accepted+r.Errors),
		"%d accepted = %d completed + %d failed", r.Accepted, r.Completed, r.Failed)
	check("P3", "decided once", r.DecidedTwice == 0, "%d orders took units twice", r.DecidedTwice)
	check("P4", "conservation", report.OK, "redis %d + %d = mysql %d; mysql %d + %d sold = %d put on sale",
		p.Available, p.Reserved, p.Stock, p.Stock, p.CompletedUnits, p.Initial+p.Restocked)
	check("P5", "no leaked reservation", p.Reserved == 0 && p.Outbox == 0, "%d units reserved, %d orders in the outbox",
		p.Reserved, p.Outbox)
	check("P6", "no phantom sold out", r.SoldOut == 0 || p.Available < c.Quantity, "%d sent away, %d units left",
		r.SoldOut, p.Available)
	check("P7", "purchase limit holds", p.OverLimit == 0 && l.refused == l.greedy,
		"%d second orders, %d refused; %d buyers over the limit", l.greedy, l.refused, p.OverLimit)
	check("P8", "a retry is safe", l.sameOrder == l.retries, "%d requests repeated, %d got the same order", l.retries,
		l.sameOrder)

	broken := slices.Clone(report.Problems)
	for _, p := range r.promises {
		if !p.kept {
			broken = append(broken, fmt.Sprintf("%s %s: %s", p.id, p.name, p.check))
		}
	}
	r.Audit = broken
	if len(broken) == 0 {
		r.Audit = "ok"
	}
	return r
}

// print writes the result as tables that line up.
func (r *DemoResult) print(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "buyers\taccepted\tsold out\terrors\tcompleted\tfailed\tpending\t")
	fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.Buyers, r.Accepted, r.SoldOut, r.Errors, r.Completed, r.Failed,
		r.Pending)
	tab.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "units\tsold\toversold\tlost\tleaked\tdecided twice\t")
	fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%d\t\n", r.units, r.UnitsSold, r.Oversold, r.Lost, r.Leaked, r.DecidedTwice)
	tab.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "orders/s\tduration s\tanswers\tp50 ms\tp99 ms\tp99.9 ms\t")
	for i, line := range []struct {
		answers   string
		latencies Latencies
	}{{"all", r.Latency}, {"accepted", r.AcceptedLatency}, {"sold out", r.RefusedLatency}} {
		if i == 0 {
			fmt.Fprintf(tab, "%.0f\t%.2f\t", r.OrdersPerS, r.DurationS)
		} else {
			fmt.Fprint(tab, "\t\t")
		}
		fmt.Fprintf(tab, "%s\t%.1f\t%.1f\t%.1f\t\n", line.answers, line.latencies.P50, line.latencies.P99,
			line.latencies.P999)
	}
	tab.Flush()
	if r.Timeline != nil {
		printTimeline(w, r.Timeline)
	}
	fmt.Fprintln(w)
	left := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(left, "promise\t\tcheck\tresult")
	for _, p := range r.promises {
		verdict := "kept"
		if !p.kept {
			verdict = "BROKEN"
		}
		fmt.Fprintf(left, "%s\t%s\t%s\t%s\n", p.id, p.name, p.check, verdict)
	}
	left.Flush()
	fmt.Fprintln(w)
	for what, n := range r.errors {
		fmt.Fprintf(w, "error, %d times: %s\n", n, what)
	}
	if r.Audit == "ok" {
		fmt.Fprintln(w, "audit: ok")
		return
	}
	fmt.Fprintln(w, "audit: FAILED")
	for _, problem := range r.Audit.([]string) {
		fmt.Fprintln(w, "  -", problem)
	}
}
