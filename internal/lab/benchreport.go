package lab

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// print writes the table: words to the left, figures to the right.
func (r *BenchReport) print(w io.Writer) {
	lines := [][]string{benchTitles}
	for i := range r.Measures {
		lines = append(lines, r.Measures[i].cells())
	}
	widths := make([]int, len(benchTitles))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}

	fmt.Fprintln(w)
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if isWords(i) {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
			b.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}

	fmt.Fprintf(w, "\n%s; %d rounds of %g s; it took %.0f s\n", r.Machine, r.Rounds, r.DurationS, r.TookS)
	for i := range r.Measures {
		if note := r.Measures[i].Note; note != "" {
			fmt.Fprintln(w, note)
		}
	}
	fmt.Fprintln(w, "bench: "+r.verdict())
}

// verdict says in words how the bench ends.
func (r *BenchReport) verdict() string {
	var sections []string
	missed, explained := 0, 0
	for i := range r.Measures {
		m := &r.Measures[i]
		switch {
		case m.Met:
		case !m.passes():
			missed++
		default:
			explained++
			if section := "docs/performance.md#" + m.Explained; !slices.Contains(sections, section) {
				sections = append(sections, section)
			}
		}
	}

	var texts []string
	if missed > 0 {
		texts = append(texts, bars(missed)+" MISSED")
	}
	if explained > 0 {
		texts = append(texts, fmt.Sprintf("%s not met; %s says what stands in the way", bars(explained),
			strings.Join(sections, " and ")))
	}
	if len(texts) == 0 {
		return "every bar is met"
	}
	return strings.Join(texts, "; ")
}

func bars(n int) string {
	if n == 1 {
		return "1 bar is"
	}
	return fmt.Sprintf("%d bars are", n)
}

// isWords tells which columns of the table hold words.
func isWords(column int) bool { return column == 0 || column == 3 || column >= 7 }

const (
	plotWidth, plotHeight = 640.0, 150.0
	plotLeft, plotRight   = 56.0, 8.0
	plotTop, plotBottom   = 8.0, 18.0
)

const benchStyle = `
:root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --faint: #66758a; --line: #d5dce5;
  --subject: #2a6fdb; --baseline: #b35c00; --third: #2b8a3e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ef; --paper: #14181d; --faint: #93a1b3; --line: #333c47;
  --subject: #7db0ff; --baseline: #ffb265; --third: #6fd388; --bad: #ff8a80; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
.words { text-align: left; } td:last-child { white-space: normal; min-width: 16rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .2rem; } p { margin: .2rem 0; color: var(--faint); }
.bad { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 0 1.5rem; }
svg { width: 100%; max-width: 48rem; height: auto; } svg text { fill: var(--faint); font: 10px system-ui, sans-serif; }
.grid { stroke: var(--line); stroke-width: 1; } path { fill: none; stroke-width: 1.5; }
.c0 { stroke: var(--subject); } .c1 { stroke: var(--baseline); } .c2 { stroke: var(--third); }
circle.c0 { fill: var(--subject); } circle.c1 { fill: var(--baseline); }
.key { font-weight: 600; } .k0 { color: var(--subject); } .k1 { color: var(--baseline); } .k2 { color: var(--third); }
`

// html is a page that needs nothing else.
func (r *BenchReport) html() string {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">" +
		"<meta name=\"viewport\" content=\"width=device-width\"><title>Stampede: the bench</title>" +
		"<style>" + benchStyle + "</style></head><body>\n<h1>The bench</h1>\n")
	fmt.Fprintf(&b, "<p>%s; %s; %d rounds of %g s; it took %.0f s. "+
		"Programs, servers and the load generator share the processors.</p>\n",
		r.StartedAt.Format("2006-01-02 15:04 MST"), html.EscapeString(r.Machine), r.Rounds, r.DurationS, r.TookS)

	fmt.Fprintf(&b, "<p>%s.</p>\n", html.EscapeString(r.verdict()))
	b.WriteString("<div class=\"wide\"><table><tr>")
	for i, title := range benchTitles {
		fmt.Fprintf(&b, "<th%s>%s</th>", wordsClass(i), title)
	}
	b.WriteString("</tr>\n")

	for i := range r.Measures {
		m := &r.Measures[i]
		b.WriteString("<tr>")
		for column, cell := range m.cells() {
			class := wordsClass(column)
			if benchTitles[column] == "met" && !m.passes() {
				class = ` class="words bad"`
			}
			fmt.Fprintf(&b, "<td%s>%s</td>", class, html.EscapeString(cell))
		}
		b.WriteString("</tr>\n")
	}

	b.WriteString("</table></div>\n<div class=\"plots\">\n")
	for i := range r.Measures {
		if m := &r.Measures[i]; len(m.Values) > 1 {
			m.plot(&b)
		}
	}
	b.WriteString("</div>\n")

	r.plotCurves(&b)
	b.WriteString("</body></html>\n")
	return b.String()
}

func wordsClass(column int) string {
	if isWords(column) {
		return ` class="words"`
	}
	return ""
}

// plot draws a measure and its baseline over the rounds.
func (r *result) plot(b *strings.Builder) {
	lines := [][]float64{r.Values}
	fmt.Fprintf(b, "<section><h2>%s</h2>\n<p><span class=\"key k0\">measured</span>", html.EscapeString(r.Measure))
	if r.Baseline != "" {
		lines = append(lines, r.Baselines)
		fmt.Fprintf(b, ` <span class="key k1">%s</span>, round by round`, html.EscapeString(r.Baseline))
	}
	b.WriteString("</p>\n")

	top := 0.0
	for _, line := range lines {
		top = max(top, slices.Max(line))
	}
	top = niceTop(top)
	y := func(v float64) float64 { return plotTop + (plotHeight-plotTop-plotBottom)*(1-v/top) }
	x := func(i int) float64 {
		return plotLeft + (plotWidth-plotLeft-plotRight)*(float64(i)+.5)/float64(len(r.Values))
	}

	beginPlot(b, plotHeight, r.Measure+", round by round")
	for _, v := range []float64{0, top / 2, top} {
		gridLine(b, y(v), number(v))
	}
	for i := range r.Values {
		fmt.Fprintf(b, `<text x="%.1f" y="%g" text-anchor="middle">%d</text>`, x(i), plotHeight-4, i+1)
	}

	for n, line := range lines {
		var path strings.Builder
		pen := "M"
		for i, v := range line {
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, x(i), y(v))
			fmt.Fprintf(b, `<circle class="c%d" cx="%.1f" cy="%.1f" r="2.5"><title>%s</title></circle>`,
				n, x(i), y(v), number(v))
			pen = "L"
		}
		fmt.Fprintf(b, `<path class="c%d" d="%s"/>`+"\n", n, path.String())
	}
	b.WriteString("</svg></section>\n")
}

func beginPlot(b *strings.Builder, height float64, says string) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`+"\n", plotWidth, height,
		html.EscapeString(says))
}

func gridLine(b *strings.Builder, y float64, label string) {
	fmt.Fprintf(b, `<path class="grid" d="M%g %.1fH%g"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n",
		plotLeft, y, plotWidth-plotRight, plotLeft-4, y+3, label)
}

// niceTop is the next 1, 2 or 5 times a power of ten.
func niceTop(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 2, 5} {
		if v <= n*power {
			return n * power
		}
	}
	return 10 * power
}

// The latency plot goes from the median to one answer in ten thousand, and over five powers of ten.
const (
	leastMS, mostMS = .01, 1000.0
	leastTail       = 1e-4
)

// plotCurves draws the latencies: to the right the rarer and worse answers, upwards the later ones, both on
// logarithmic scales, a line for each round.
func (r *BenchReport) plotCurves(b *strings.Builder) {
	if len(r.Curves) == 0 {
		return
	}
	var names []string
	for _, c := range r.Curves {
		if !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}

	const height = 2 * plotHeight
	y := func(ms float64) float64 {
		share := math.Log(min(max(ms, leastMS), mostMS)/leastMS) / math.Log(mostMS/leastMS)
		return plotTop + (height-plotTop-plotBottom)*(1-share)
	}
	x := func(share float64) float64 {
		tail := min(max(1-share, leastTail), 1)
		return plotLeft + (plotWidth-plotLeft-plotRight)*math.Log(tail)/math.Log(leastTail)
	}

	b.WriteString("<h2>Latency</h2>\n<p>Milliseconds by percentile, a line for each round.")
	for i, name := range names {
		fmt.Fprintf(b, ` <span class="key k%d">%s</span>`, i%3, html.EscapeString(name))
	}
	b.WriteString("</p>\n")

	beginPlot(b, height, "latency in milliseconds by percentile")
	for ms := leastMS; ms <= mostMS; ms *= 10 {
		gridLine(b, y(ms), fmt.Sprintf("%g ms", ms))
	}
	for _, share := range []float64{0, .5, .9, .99, .999, .9999} {
		fmt.Fprintf(b, `<text x="%.1f" y="%g" text-anchor="middle">%g %%</text>`, x(share), height-4, share*100)
	}

	for _, c := range r.Curves {
		var path strings.Builder
		pen := "M"
		for _, p := range c.Points {
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, x(p[0]), y(p[1]))
			pen = "L"
		}
		fmt.Fprintf(b, `<path class="c%d" d="%s"><title>%s, round %d</title></path>`+"\n",
			slices.Index(names, c.Name)%3, path.String(), html.EscapeString(c.Name), c.Round+1)
	}
	b.WriteString("</svg>\n")
}
