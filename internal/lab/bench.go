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
	"slices"
	"strings"
	"time"
)

const (
	// benchLimit bounds a whole run, so that a system that hangs is noticed.
	benchLimit = 15 * time.Minute
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
	)
	return []measure{
		{name: accepted, figure: "accepted", baseline: "no-op", over: "no-op", bar: .30},
		{name: accepted, figure: "accepted", baseline: "textbook edge", over: "textbook edge", bar: 6},
		{name: accepted, figure: "telemetry/on", baseline: "telemetry/off", over: "no telemetry", bar: .95},
		{name: "sold-out answers/s", figure: "sold out", baseline: "no-op", over: "no-op", bar: .80},
		{name: drained, figure: "drain", baseline: "textbook drain", over: "textbook worker", bar: 20},
		{name: drained, figure: "drain", baseline: "insert", over: "inserts alone", bar: .30},
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
		{name: "p99 ms at half of the accepted rate", figure: "open/p99", bar: 25, atMost: true},
		{name: "p99.9 ms at half of the accepted rate", figure: "open/p99.9", bar: 100, atMost: true},
		{name: "p50 ms of a lone order", figure: "lone", baseline: "textbook lone", over: "textbook edge",
			bar: 1.5, atMost: true},
		{name: "SQS requests per order at saturation", figure: "saturation", bar: .05, atMost: true},
		{name: "edge MB with 10,000 idle connections", figure: "idle", bar: 250, atMost: true},
		// That these are constant is the bar: of as many again, one more takes what it took before.
		{name: "bytes in Redis of one more product", figure: "memory/more products", baseline: "memory/products",
			over: first, bar: 1.1, atMost: true},
		{name: "bytes in Redis of one more user", figure: "memory/more users", baseline: "memory/users",
			over: first, bar: 1.1, atMost: true},
		{name: "bytes in Redis of one more order", figure: "memory/more orders", baseline: "memory/orders",
			over: first, bar: 1.1, atMost: true},
	}
}

// Bench says what is measured, and how.
type Bench struct {
	Only     *regexp.Regexp // of measures, by their name or baseline
	Duration time.Duration  // of each measurement
	Rounds   int            // how often each is measured
	Dir      string         // where the report goes, and programs, data and logs while it runs
	JSON     bool           // print the result as one JSON object, and not as a table
}

// Measured reports whether anything that a bench measures has such a name or baseline.
func Measured(only *regexp.Regexp) bool { return len(chosen(only)) > 0 }

func chosen(only *regexp.Regexp) []measure {
	return slices.DeleteFunc(measures(), func(m measure) bool {
		return !only.MatchString(m.name) && !only.MatchString(m.over)
	})
}

// Run measures, prints and writes the report, and reports whether every bar was met.
func (c *Bench) Run(ctx context.Context) (met bool, err error) {
	o := benchOptions{only: c.Only, duration: c.Duration, rounds: c.Rounds, dir: c.Dir, idleConns: idleConns}
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
	chosen := chosen(o.only)

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
			b.current, b.round, b.used = p.name, round, nil

			found, err := p.run(ctx, b)
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

// result is what was found for a measure. Median, Ratio and SpreadPercent are of the values of all rounds.
type result struct {
	Measure       string    `json:"measure"`
	Values        []float64 `json:"values"`
	Median        float64   `json:"median"`
	SpreadPercent float64   `json:"spread_percent"` // from the lowest to the highest value, of the median
	Baseline      string    `json:"baseline,omitempty"`
	Baselines     []float64 `json:"baseline_values,omitempty"`
	BaseMedian    float64   `json:"baseline_median,omitempty"`
	Ratios        []float64 `json:"ratios,omitempty"` // round by round
	Ratio         float64   `json:"ratio,omitempty"`
	Bar           string    `json:"bar"`
	Met           bool      `json:"met"`
	Bound         string    `json:"bound,omitempty"` // who used the processors in the last round
	Error         string    `json:"error,omitempty"`
}

// curve is a distribution of latencies in one round: of each share of the answers, how late it came at most.
type curve struct {
	Name   string       `json:"name"`
	Round  int          `json:"round"`
	Points [][2]float64 `json:"points"` // share, ms
}

func (b *bench) report(chosen []measure) *BenchReport {
	r := &BenchReport{
		OK: true, Rounds: b.o.rounds, DurationS: b.o.duration.Seconds(), Others: map[string][]float64{},
		Curves: b.curves,
		Machine: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
			runtime.Version()),
	}

	used := map[string]bool{}
	for _, m := range chosen {
		used[m.figure], used[m.baseline] = true, true
		result := m.judge(b.found, b.failed)
		result.Bound = b.busy[probeOf(m.figure)]
		r.OK = r.OK && result.Met
		r.Measures = append(r.Measures, result)
	}

	for name, values := range b.found {
		if !used[name] {
			r.Others[name] = values
		}
	}
	return r
}

// judge holds what was found against the bar. What has no figure has missed it.
func (m measure) judge(found map[string][]float64, failed map[string]error) result {
	sign := ">= "
	if m.atMost {
		sign = "<= "
	}
	r := result{
		Measure: m.name, Values: found[m.figure], Baseline: m.over, Baselines: found[m.baseline],
		Bar: fmt.Sprintf("%s%g", sign, m.bar),
	}

	for _, name := range m.probes() {
		if err := failed[name]; err != nil {
			r.Error = fmt.Sprintf("%s: %v", name, err)
			return r
		}
	}
	if len(r.Values) == 0 {
		r.Error = "it was not measured"
		return r
	}
	if m.baseline != "" && (len(r.Baselines) < len(r.Values) || slices.Min(r.Baselines) <= 0) {
		r.Error = "the baseline was not measured"
		return r
	}

	r.Median = median(r.Values)
	if r.Median != 0 {
		r.SpreadPercent = 100 * (slices.Max(r.Values) - slices.Min(r.Values)) / r.Median
	}

	judged := r.Median
	if m.baseline != "" {
		for i, value := range r.Values {
			r.Ratios = append(r.Ratios, value/r.Baselines[i])
		}
		r.BaseMedian, r.Ratio = median(r.Baselines), median(r.Ratios)
		judged = r.Ratio
	}

	r.Met = judged >= m.bar
	if m.atMost {
		r.Met = judged <= m.bar
	}
	return r
}

// median is the middle value, or the mean of the two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
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

// number writes a figure with three digits that count.
func number(v float64) string {
	size := math.Abs(v)
	switch {
	case v == math.Trunc(v) && size < 1e6:
		return fmt.Sprintf("%.0f", v)
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	case size >= .1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func (r *result) verdict() string {
	switch {
	case r.Error != "":
		return "NOT MEASURED"
	case r.Met:
		return "yes"
	}
	return "NO"
}

// cells are a line of the table, in print and on the page.
func (r *result) cells() []string {
	cells := []string{
		r.Measure, number(r.Median), fmt.Sprintf("%.0f %%", r.SpreadPercent), r.Baseline, "", "", r.Bar, r.verdict(),
		cmp.Or(r.Error, r.Bound),
	}
	if r.Baseline != "" {
		cells[4], cells[5] = number(r.BaseMedian), number(r.Ratio)
	}
	return cells
}

// benchTitles are the heads of the columns.
var benchTitles = []string{
	"measure", "median", "spread", "over", "baseline", "ratio", "bar", "met", "processors used by",
}
