package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	// benchLimit bounds a whole run, so that a system that hangs is noticed.
	benchLimit = 15 * time.Minute
	// benchGCPercent is how far the heap of the bench grows before garbage is collected: to some hundred megabytes.
	benchGCPercent = 500
	// MaxRounds and MaxBenchDuration bound what can be asked for.
	MaxRounds        = 50
	MaxBenchDuration = 30 * time.Second
)

// benchOptions say what to measure, and how long.
type benchOptions struct {
	only      *regexp.Regexp
	duration  time.Duration
	rounds    int
	dir       string
	idleConns int
	against   string // the folder of another build, or nothing
}

// figures are what a probe found, by name: its own, or its own and the figure's, with a slash between them.
type figures map[string]float64

// probe measures one thing, once. Baselines and what is held against them have the same shape, and each takes its
// turn in every round, so that what the machine does besides meets all of them alike.
type probe struct {
	name string
	// needs names a probe whose figure this one starts from.
	needs string
	// once says that the figure has no noise worth a second round.
	once bool
	run  func(ctx context.Context, b *bench) (figures, error)
}

// measure is a line of the table: a figure, maybe over that of a baseline, and the bar for it.
type measure struct {
	name   string
	figure string
	// baseline is the figure to divide by, over what people call it. Without one the bar is for the figure itself.
	baseline, over string
	bar            float64
	atMost         bool // the bar is an upper one
	// slowBar is the bar on a machine of the slower kind: see quickNoop.
	slowBar float64
	noBar   bool // the figure is only shown
	// parts are figures that are shown, too, such as those that this one is the sum of.
	parts []string
	// explained names the heading of docs/performance.md, as it stands in a link, that shows by measurement what stands
	// in the way of the bar. Missing it is then said and does not fail the bench.
	explained string
}

// quickNoop is how many answers a second the no-op server gives at most on a machine of the slower kind. On a quicker
// one an order takes more of the time of a no-op, though less time.
const quickNoop = 100_000

// matches reports whether a measure is chosen, by its name or its baseline.
func (m *measure) matches(only *regexp.Regexp) bool {
	return only.MatchString(m.name) || only.MatchString(m.over)
}

func (m *measure) probes() []string {
	names := []string{probeOf(m.figure)}
	if m.baseline != "" && probeOf(m.baseline) != names[0] {
		names = append(names, probeOf(m.baseline))
	}
	return names
}

// probeOf is the name of the probe that gives a figure.
func probeOf(figure string) string {
	name, _, _ := strings.Cut(figure, "/")
	return name
}

// measures are all bars, in the order of the table. They are ratios where they can be: those hold on other machines.
func measures() []measure {
	const (
		accepted = "accepted orders/s, each on the queue"
		drained  = "orders/s from a full queue to deleted"
		first    = "of the first ones"
		tail     = "a-crowd-that-comes-at-once"
	)
	return slices.Concat([]measure{
		{name: accepted, figure: "accepted", baseline: "no-op", over: "no-op", bar: .33, slowBar: .43,
			explained: "taking-an-order"},
		{name: accepted, figure: "accepted", baseline: "textbook edge", over: "textbook edge", bar: 4.7},
		{name: accepted, figure: "telemetry/on", baseline: "telemetry/off", over: "no telemetry", bar: .95,
			explained: "being-watched"},
		{name: "sold-out answers/s", figure: "sold out", baseline: "no-op", over: "no-op", bar: .88,
			explained: "refusing-an-order"},
		{name: drained, figure: "drain", baseline: "textbook drain", over: "textbook worker", bar: 20},
		{name: drained, figure: "drain", baseline: "insert", over: "inserts alone", bar: .45,
			explained: "deciding-orders"},
		{name: drained + ", awaiting payment", figure: "payment drain", baseline: "drain", over: "without payment",
			bar: .9, explained: "orders-that-must-be-paid"},
		{name: drained + ", paid with points", figure: "points drain", baseline: "drain", over: "without payment",
			bar: .4},
		{name: drained + ", each commit synced", figure: "durable", baseline: "drain", over: "synced once a second",
			noBar: true},
		{name: "orders/s reserved by one Redis, batched", figure: "reserve", baseline: "pipelined reserve",
			over: "an EVALSHA each", bar: 2},
		// How much more several masters do depends on the processors: with one for each of them, and some for the
		// clients, as much more as there are masters. That an order costs Redis no more is the bar.
		{name: "orders/s reserved of one product, 2 masters", figure: "masters/2", baseline: "masters/1",
			over: "1 master", bar: .75},
		{name: "orders/s reserved of one product, 3 masters", figure: "masters/3", baseline: "masters/1",
			over: "1 master", bar: .75},
		{name: "processor us of Redis per order, 3 masters", figure: "masters/us 3", baseline: "masters/us 1",
			over: "1 master", bar: 1.3, atMost: true},
		{name: "errors at half of the accepted rate", figure: "open/errors", bar: 0, atMost: true},
		{name: "p99 ms at half of the accepted rate", figure: "open/p99", bar: 25, atMost: true,
			explained: tail},
		{name: "p99.9 ms at half of the accepted rate", figure: "open/p99.9", bar: 100, atMost: true,
			explained: tail},
		{name: "p50 ms of a lone order", figure: "lone", baseline: "textbook lone", over: "textbook edge",
			bar: 1.15, atMost: true, explained: "a-lone-order"},
		{name: "SQS requests per order at saturation", figure: "saturation", bar: .02, atMost: true},
		// Of the bodies of messages as they stand in the requests, where JSON is a string of JSON.
		{name: "SQS bytes per order", figure: "saturation/bytes", noBar: true},
		{name: "SQS bytes per order with an idempotency key", figure: "orders/sqs bytes", bar: 110, atMost: true},
		{name: "edge MB with 10,000 idle connections", figure: "idle", bar: 200, atMost: true,
			explained: "idle-connections"},
		// That these are constant is the bar: of as many again, one more takes what it took before.
		{name: "bytes in Redis of one more product", figure: "memory/more products", baseline: "memory/products",
			over: first, bar: 1.1, atMost: true},
		{name: "bytes in Redis of one more user", figure: "memory/more users", baseline: "memory/users",
			over: first, bar: 1.1, atMost: true},
		{name: "bytes in Redis of one more order", figure: "memory/more orders", baseline: "memory/orders",
			over: first, bar: 1.1, atMost: true},
		{name: "bytes in Redis of an order in flight", figure: "orders/in flight", bar: 350, atMost: true},
		{name: "bytes in Redis of an order decided a day ago", figure: "orders/a day later", bar: 60, atMost: true,
			explained: "an-order-a-day-later"},
		{name: "bytes in Redis of an order decided two days ago", figure: "orders/two days later", noBar: true},
	}, paymentMeasures(), steadyMeasures(), againstMeasures())
}

// Bench says what is measured, and how.
type Bench struct {
	Only     *regexp.Regexp // of measures, by their name or baseline
	Duration time.Duration  // of each measurement
	Rounds   int            // how often each is measured
	Dir      string         // where the report goes, and programs, data and logs while it runs
	JSON     bool           // print the result as one JSON object, and not as a table
	Against  string         // a folder with edge, worker and ctl of another build to hold this one against; or nothing
}

// Measures reports whether anything that it would measure has a name or baseline that matches Only.
func (c *Bench) Measures() bool { return len(chosen(c.Only, c.Against)) > 0 }

func chosen(only *regexp.Regexp, against string) []measure {
	return slices.DeleteFunc(measures(), func(m measure) bool {
		return !m.matches(only) || m.over == otherBuild && against == ""
	})
}

// Run measures, prints and writes the report, and reports whether every bar was met, but for those whose
// misses are explained.
func (c *Bench) Run(ctx context.Context) (met bool, err error) {
	o := benchOptions{only: c.Only, duration: c.Duration, rounds: c.Rounds, dir: c.Dir, idleConns: idleConns,
		against: c.Against}
	report, err := o.run(ctx, newProgress(os.Stderr))
	if err != nil {
		return false, err
	}

	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		report.print(os.Stdout)
	}
	return report.OK, err
}

// run measures everything that was asked for and writes the reports.
func (o benchOptions) run(ctx context.Context, show *progress) (report *BenchReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, benchLimit)
	defer cancel()
	chosen := chosen(o.only, o.against)

	// The load generator and the queue are in this process. While it collects garbage it takes both of two processors,
	// for tens of milliseconds, from what is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(benchGCPercent))

	start := time.Now()
	b, err := startBench(ctx, o, show)
	defer func() {
		show.step("stopping")
		keep := (err != nil || len(b.failed) > 0) && ctx.Err() == nil // of a run that went wrong, and was not stopped
		err = errors.Join(err, b.close(keep))
		if keep && b.dir != "" {
			show.step("logs and data are kept in " + b.dir)
		}
	}()
	if err != nil {
		return nil, err
	}

	if err := b.rounds(ctx, chosen); err != nil {
		return nil, err
	}

	report = b.report(chosen)
	report.StartedAt, report.TookS = start.UTC().Truncate(time.Second), math.Round(time.Since(start).Seconds())
	return report, report.write(o.dir)
}

// rounds runs the probes that the measures rest on.
func (b *bench) rounds(ctx context.Context, chosen []measure) error {
	var wanted []string
	for i := range chosen {
		wanted = append(wanted, chosen[i].probes()...)
	}

	// The probes that are wanted, and those that these start from.
	all := probes()
	for _, p := range all {
		if p.needs != "" && slices.Contains(wanted, p.name) {
			wanted = append(wanted, p.needs)
		}
	}
	all = slices.DeleteFunc(all, func(p probe) bool { return !slices.Contains(wanted, p.name) })

	for round := range b.o.rounds {
		for i, p := range all {
			if p.once && round > 0 || b.failed[p.name] != nil {
				continue
			}

			b.show.show(int64(round*len(all)+i), int64(b.o.rounds*len(all)),
				fmt.Sprintf("round %d of %d: %s", round+1, b.o.rounds, p.name))
			b.round, b.used, b.bound = round, nil, ""

			found, err := p.run(ctx, b)
			b.busy[p.name] = b.bound
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				// The others can still be measured.
				b.show.step(fmt.Sprintf("%s: %v", p.name, err))
				b.failed[p.name] = err
				continue
			}

			for name, value := range found {
				b.found[name] = append(b.found[name], value)
			}
		}
	}
	return nil
}

// BenchReport is the result of a bench.
type BenchReport struct {
	StartedAt time.Time `json:"started_at"`
	TookS     float64   `json:"took_s"`
	OK        bool      `json:"ok"`
	Machine   string    `json:"machine"`
	Rounds    int       `json:"rounds"`
	DurationS float64   `json:"duration_s"`
	Measures  []result  `json:"measures"`
	// Others are figures that no bar is for.
	Others map[string][]float64 `json:"others"`
	Curves []curve              `json:"latency_ms"`
}

// curve is a distribution of latencies in one round: of each share of the answers, how late it came at most.
type curve struct {
	Name   string       `json:"name"`
	Round  int          `json:"round"`
	Points [][2]float64 `json:"points"` // share, ms
}

// machine is what the figures are of.
func machine() string {
	return fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
}

func (b *bench) report(chosen []measure) *BenchReport {
	r := &BenchReport{
		OK: true, Rounds: b.o.rounds, DurationS: b.o.duration.Seconds(), Others: map[string][]float64{},
		Curves:  b.curves,
		Machine: machine(),
	}

	used := map[string]bool{}
	for _, m := range chosen {
		used[m.figure], used[m.baseline] = true, true
		result := m.judge(b.found, b.failed)
		result.Bound = cmp.Or(m.partsFound(b.found), b.busy[probeOf(m.figure)])
		r.OK = r.OK && result.passes()
		r.Measures = append(r.Measures, result)
	}

	for name, values := range b.found {
		if !used[name] {
			r.Others[name] = values
		}
	}
	return r
}

// write writes bench.json and bench.html.
func (r *BenchReport) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "bench.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "bench.html"), []byte(r.html()), 0o644),
	)
}
