package audit

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes the report as a table and a list of problems.
func (r Report) Print(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "product\tinitial\trestocked\tcompleted\tmysql stock\tredis "+
		"available\treserved\toutbox\torders\tfailed\t")
	for _, a := range r.Products {
		fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t\n", a.ID, a.Initial, a.Restocked, a.CompletedUnits,
			a.Stock, a.available(), a.Reserved, a.Outbox, a.Completed+a.Failed, a.Failed)
	}
	tab.Flush()

	fmt.Fprintf(w, "\nqueue: %d waiting, %d being worked, %d delayed; dead letters: %d\n", r.Queue.Visible,
		r.Queue.InFlight, r.Queue.Delayed, r.Queue.Dead)
	r.printVerdict(w)
}

// PrintBooks writes a report of Books, which has nothing of Redis and of the queue.
func (r Report) PrintBooks(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "product\tinitial\trestocked\tcompleted\tmysql stock\torders\tfailed\t")
	for _, a := range r.Products {
		fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", a.ID, a.Initial, a.Restocked, a.CompletedUnits, a.Stock,
			a.Completed+a.Failed, a.Failed)
	}
	tab.Flush()

	fmt.Fprintln(w)
	r.printVerdict(w)
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
	if r.OK {
		fmt.Fprintln(w, "audit: ok")
		return
	}
	fmt.Fprintln(w, "audit: FAILED")
	for _, problem := range r.Problems {
		fmt.Fprintln(w, "  -", problem)
	}
}
