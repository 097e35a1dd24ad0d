package lab

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

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
	Bar           string    `json:"bar"` // empty if there is none, which is always met
	Met           bool      `json:"met"`
	Explained     string    `json:"explained,omitempty"` // the heading of docs/performance.md that explains a miss
	Note          string    `json:"note,omitempty"`      // how the bar was chosen, if there are several
	Bound         string    `json:"bound,omitempty"`     // who used the processors in the last round
	Error         string    `json:"error,omitempty"`
}

// judge holds what was found against the bar. What has no figure has missed it.
func (m measure) judge(found map[string][]float64, failed map[string]error) result {
	sign := ">= "
	if m.atMost {
		sign = "<= "
	}
	bar, note := m.barFor(found)
	r := result{
		Measure: m.name, Values: found[m.figure], Baseline: m.over, Baselines: found[m.baseline],
		Bar: fmt.Sprintf("%s%g", sign, bar), Explained: m.explained, Note: note,
	}
	if m.noBar {
		r.Bar = ""
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

	switch {
	case m.noBar:
		r.Met = true
	case m.atMost:
		r.Met = judged <= bar
	default:
		r.Met = judged >= bar
	}
	return r
}

// barFor picks the bar for the kind of machine that no-op has shown this one to be, and says so if there are two.
func (m *measure) barFor(found map[string][]float64) (bar float64, note string) {
	if m.slowBar == 0 {
		return m.bar, ""
	}
	noop := median(found["no-op"])
	if noop > quickNoop {
		return m.bar, fmt.Sprintf("no-op made %.0f/s: this is a machine of the quicker kind, above %d/s, where the "+
			"bar for %s over no-op is %g; on the slower it is %g", noop, quickNoop, m.name, m.bar, m.slowBar)
	}
	return m.slowBar, fmt.Sprintf("no-op made %.0f/s: this is a machine of the slower kind, up to %d/s, where the bar "+
		"for %s over no-op is %g; on the quicker it is %g", noop, quickNoop, m.name, m.slowBar, m.bar)
}

// partsFound lists the medians of the figures that are shown beside this one.
func (m *measure) partsFound(found map[string][]float64) string {
	var parts []string
	for _, figure := range m.parts {
		name := strings.TrimPrefix(figure, m.figure+" ")
		parts = append(parts, name+" "+number(median(found[figure])))
	}
	return strings.Join(parts, ", ")
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
	case r.Bar == "":
		return ""
	case r.Met:
		return "yes"
	case r.passes():
		return "no, explained"
	}
	return "NO"
}

// passes reports whether the bar was met, or the docs say why it cannot be. What was not measured has missed it.
func (r *result) passes() bool { return r.Met || r.Error == "" && r.Explained != "" }

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
