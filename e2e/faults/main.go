// Faults runs the fault matrix: whole sales on real processes and real servers, each with one fault in its middle, and
// after each an audit of what the buyers were told against what MySQL, Redis and the queue hold.
//
//	go run ./e2e/faults [--only regexp] [--list] [--orders 2000] [--parallel 6] [--seed 1]
//
// It listens and connects on loopback only, stops by itself, and leaves nothing running. Its report is in
// .local/faults.html; what a failed run leaves is in .local, too.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
)

// totalLimit bounds the whole matrix.
const totalLimit = 40 * time.Minute

type options struct {
	only             *regexp.Regexp
	short            bool
	local            string // where the report and what is left of failed runs go; .local if empty
	orders, parallel int
	seed             uint64
}

func main() {
	only := flag.String("only", "", "run the rows whose name matches this regular expression")
	list := flag.Bool("list", false, "print the rows and run none")
	var o options
	flag.BoolVar(&o.short, "short", false, "run the short selection that is part of make test")
	flag.IntVar(&o.orders, "orders", 2000, "orders in each run")
	flag.IntVar(&o.parallel, "parallel", 6, "runs at a time; most of a run is waiting")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of what buyers want and of faults that are random")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil || flag.NArg() > 0 || o.orders < 100 || o.parallel < 1 {
		fmt.Fprintln(os.Stderr, "faults: --only is a regular expression, --orders from 100, --parallel from 1 on", err)
		os.Exit(2)
	}
	if *list {
		for _, r := range o.rows() {
			fmt.Println(r.name)
		}
		return
	}
	// The first signal stops everything in order, the second ends this process, and with it its children.
	ctx, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, unregister)
	good, err := o.run(ctx, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// rows are those that are to be run.
func (o options) rows() []row {
	return slices.DeleteFunc(matrix(), func(r row) bool {
		return o.short && !r.short || o.only != nil && !o.only.MatchString(r.name)
	})
}

// run runs the rows, several at a time, and reports whether every promise was kept.
func (o options) run(ctx context.Context, out io.Writer) (good bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, totalLimit)
	defer cancel()
	quietLibraries()
	rows := o.rows()
	if len(rows) == 0 {
		return false, errors.New("no row has such a name: see --list")
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return false, err
	}
	local := cmp.Or(o.local, filepath.Join(root, ".local"))
	if err := os.MkdirAll(local, 0o755); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp(local, "faults-")
	if err != nil {
		return false, err
	}
	fmt.Fprintln(out, "building the programs with failpoints")
	skewed := slices.ContainsFunc(rows, func(r row) bool { return r.skew != 0 })
	bin, err := build(ctx, root, dir, skewed)
	if err != nil {
		return false, errors.Join(err, os.RemoveAll(dir))
	}

	start := time.Now()
	results := make([]*result, len(rows))
	fmt.Fprintf(out, "%d runs of %d orders, %d at a time, seed %d\n\n", len(rows), o.orders, o.parallel, o.seed)
	fmt.Fprintf(out, "%-42s %7s %8s %9s %7s %10s  %s\n", "fault", "orders", "accepted", "completed", "failed",
		"recovery s", "broken promises")
	var mu sync.Mutex
	var runs sync.WaitGroup
	room := make(chan struct{}, o.parallel)
	// The longest first, so that none is left to run alone at the end.
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rows[b].length(), rows[a].length()) })
	done := 0
	for _, i := range order {
		select {
		case <-ctx.Done():
		case room <- struct{}{}:
		}
		if ctx.Err() != nil {
			break
		}
		runs.Go(func() {
			defer func() { <-room }()
			res := do(ctx, rows[i], bin, dir, fmt.Sprintf("%03d", i+1), o.orders, o.seed)
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() != nil && res.err != nil {
				return // it was stopped
			}
			results[i] = res
			done++
			res.print(out)
			if f, ok := out.(*os.File); ok && f == os.Stdout {
				fmt.Fprintf(os.Stderr, "[%d/%d after %s]\r", done, len(rows), time.Since(start).Round(time.Second))
			}
		})
	}
	runs.Wait()
	results = slices.DeleteFunc(results, func(r *result) bool { return r == nil })
	good = ctx.Err() == nil && !slices.ContainsFunc(results, func(r *result) bool { return !r.ok() })
	keep := slices.ContainsFunc(results, func(r *result) bool { return !r.ok() })
	if !keep {
		err = os.RemoveAll(dir)
	}
	report := filepath.Join(local, "faults.html")
	err = errors.Join(err, ctx.Err(), writeReport(report, results, time.Since(start)))
	fmt.Fprintf(out, "\nreport: %s; %s\n", report, time.Since(start).Round(time.Second))
	if keep {
		fmt.Fprintf(out, "logs and data of the failed runs are in %s\n", dir)
	}
	fmt.Fprintln(out, summary(results))
	return good, err
}

// length is about how long a row takes.
func (r row) length() time.Duration {
	d := cmp.Or(r.span, usualSpan)
	switch {
	case strings.Contains(r.name, "66 s") || strings.Contains(r.name, "66s") || strings.HasPrefix(r.name, "relay"):
		d += 2 * time.Minute
	case strings.Contains(r.name, "worker") || strings.Contains(r.name, "crash") || strings.Contains(r.name, "60 s"):
		d += time.Minute
	}
	return d
}

// print writes the line of a run, and what was wrong below it.
func (r *result) print(out io.Writer) {
	verdict := "none"
	switch {
	case r.err != nil:
		verdict = "THE RUN FAILED"
	case len(r.broken) > 0:
		verdict = fmt.Sprintf("%d BROKEN", len(r.broken))
	}
	if r.edgeRSS > 0 && strings.Contains(r.row.name, "down for") {
		verdict += fmt.Sprintf("; memory: edge %d MiB, worker %d MiB", r.edgeRSS>>20, r.workerRSS>>20)
	}
	recovery := fmt.Sprintf("%.1f", r.recovery.Seconds())
	if !r.recovered {
		recovery = "never"
	}
	fmt.Fprintf(out, "%-42s %7d %8d %9d %7d %10s  %s\n", r.row.name, r.orders, r.accepted, r.completed, r.failed,
		recovery, verdict)
	for i, f := range r.broken {
		if i == maxFindings {
			fmt.Fprintf(out, "    … and %d more\n", len(r.broken)-i)
			break
		}
		fmt.Fprintf(out, "    %s: %s\n", f.promise, f.text)
	}
	if r.err != nil {
		fmt.Fprintf(out, "    %s\n", strings.ReplaceAll(strings.TrimSpace(r.err.Error()), "\n", "\n    "))
	}
	if !r.ok() {
		fmt.Fprintf(out, "    logs: %s\n", r.dir)
	}
}

// maxFindings bounds what is printed of one run; the report has all.
const maxFindings = 8

// summary is the last line.
func summary(results []*result) string {
	var orders int
	var oversold, lost, leaked, twice, other int64
	var payments int
	var broken []finding
	for _, r := range results {
		orders += r.orders
		oversold += count(r.broken, "P1")
		lost += count(r.broken, "P2")
		twice += count(r.broken, "P3")
		leaked += count(r.broken, "P4", "P5")
		other += count(r.broken, "P7", "P8", "DLQ", "process", moneyOpen)
		payments += r.payments
		broken = append(broken, r.broken...)
	}
	line := fmt.Sprintf("faults: %d runs, %d orders, %d oversold, %d lost, %d leaked, %d decided twice", len(results),
		orders, oversold, lost, leaked, twice)
	if slices.ContainsFunc(results, func(r *result) bool { return r.row.pays }) {
		line += fmt.Sprintf(", %d payments, %d kept for nothing, %d completed unpaid, %d refunded twice, "+
			"%d units not returned, %d cancelled though paid, %d forged notices taken", payments,
			count(broken, keptForNothing), count(broken, completedUnpaid), count(broken, refundedTwice),
			count(broken, unitsAway), count(broken, cancelledPaid), count(broken, forgedTaken))
	}
	if other > 0 {
		line += fmt.Sprintf(", %d other promises broken", other)
	}
	if n := len(slices.DeleteFunc(slices.Clone(results),
		func(r *result) bool { return r.err == nil && r.recovered })); n > 0 {
		line += fmt.Sprintf(", %d not recovered", n)
	}
	return line
}

// quietLibraries drops what clients log about servers that are down on purpose.
func quietLibraries() {
	_ = mysql.SetLogger(log.New(io.Discard, "", 0))
	slog.SetDefault(slog.New(slog.DiscardHandler)) // of the front door
	redis.SetLogger(silent{})
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
