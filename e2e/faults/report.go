package main

import (
	"fmt"
	"html"
	"os"
	"strings"
	"time"
)

const (
	plotWidth, plotHeight = 640.0, 120.0
	plotLeft              = 4.0
)

// series are what a plot shows. Available stock is on a scale of its own, since it is so much larger.
var series = []struct {
	class, name string
	of          func(sample) int64
}{
	{"queue", "messages in the queue", func(s sample) int64 { return s.queue }},
	{"reserved", "units reserved", func(s sample) int64 { return s.reserved }},
	{"available", "units available", func(s sample) int64 { return s.available }},
}

const reportStyle = `
:root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --faint: #66758a; --line: #d5dce5; --shade: #f4c7c3;
  --queue: #2a6fdb; --reserved: #b35c00; --available: #2b8a3e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ef; --paper: #14181d; --faint: #93a1b3; --line: #333c47;
  --shade: #5a2b28; --queue: #7db0ff; --reserved: #ffb265; --available: #6fd388; --bad: #ff8a80; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
a { color: inherit; } h2 { font-size: 1.05rem; margin: 2rem 0 .2rem; } p { margin: .2rem 0; color: var(--faint); }
.bad { color: var(--bad); } svg { width: 100%; height: auto; border: 1px solid var(--line); }
svg text { fill: var(--faint); font: 10px system-ui, sans-serif; }
rect { fill: var(--shade); } path { fill: none; stroke-width: 1.5; }
path.queue { stroke: var(--queue); } path.reserved { stroke: var(--reserved); }
path.available { stroke: var(--available); stroke-dasharray: 4 2; }
.key { font-weight: 600; }
.key.queue { color: var(--queue); } .key.reserved { color: var(--reserved); }
.key.available { color: var(--available); }
`

// writeReport writes a page that needs nothing else.
func writeReport(path string, results []*result, took time.Duration) error {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">" +
		"<meta name=\"viewport\" content=\"width=device-width\"><title>Stampede: the fault matrix</title>" +
		"<style>" + reportStyle + "</style></head><body>\n<h1>The fault matrix</h1>\n")
	fmt.Fprintf(&b, "<p>%s; it took %s.</p>\n<p>The fault is shaded.", html.EscapeString(summary(results)),
		took.Round(time.Second))
	for _, s := range series {
		fmt.Fprintf(&b, ` <span class="key %s">%s</span>`, s.class, s.name)
	}
	b.WriteString("</p>\n<table><tr>")
	for _, title := range []string{
		"fault", "orders", "accepted", "completed", "failed", "recovery s", "edge MiB", "worker MiB", "broken promises",
	} {
		b.WriteString("<th>" + title + "</th>")
	}
	b.WriteString("</tr>\n")
	for i, r := range results {
		fmt.Fprintf(&b, `<tr><td><a href="#r%d">%s</a></td>`, i, html.EscapeString(r.row.name))
		for _, cell := range []any{
			r.orders, r.accepted, r.completed, r.failed, r.recoveryText(), r.edgeRSS >> 20, r.workerRSS >> 20,
		} {
			fmt.Fprintf(&b, "<td>%v</td>", cell)
		}
		b.WriteString(r.verdictCell() + "</tr>\n")
	}
	b.WriteString("</table>\n")
	for i, r := range results {
		fmt.Fprintf(&b, `<h2 id="r%d">%s</h2>`+"\n", i, html.EscapeString(r.row.name))
		r.plot(&b)
		for _, f := range r.broken {
			fmt.Fprintf(&b, `<p class="bad">%s: %s</p>`+"\n", f.promise, html.EscapeString(f.text))
		}
		if r.err != nil {
			fmt.Fprintf(&b, `<p class="bad">%s</p>`+"\n", html.EscapeString(r.err.Error()))
		}
	}
	b.WriteString("</body></html>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (r *result) recoveryText() string {
	if !r.recovered {
		return "never"
	}
	return fmt.Sprintf("%.1f", r.recovery.Seconds())
}

func (r *result) verdictCell() string {
	if r.ok() {
		return "<td>none</td>"
	}
	if r.err != nil {
		return `<td class="bad">the run failed</td>`
	}
	return fmt.Sprintf(`<td class="bad">%d</td>`, len(r.broken))
}

// plot draws the run over its time. Each line has the whole height for its largest value, which is written beside it.
func (r *result) plot(b *strings.Builder) {
	if len(r.samples) == 0 {
		return
	}
	end := max(r.samples[len(r.samples)-1].at, r.healed, time.Second)
	x := func(at time.Duration) float64 { return plotLeft + (plotWidth-2*plotLeft)*float64(at)/float64(end) }
	const says = "queue, reserved and available units over"
	fmt.Fprintf(b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s %.0f seconds">`+"\n", plotWidth, plotHeight+16,
		says, end.Seconds())
	fmt.Fprintf(b, `<rect x="%.1f" y="0" width="%.1f" height="%g"><title>the fault</title></rect>`+"\n", x(r.began),
		max(1.5, x(r.healed)-x(r.began)), plotHeight)
	for n, s := range series {
		top := int64(1)
		for _, p := range r.samples {
			top = max(top, s.of(p))
		}
		var path strings.Builder
		pen := "M"
		for _, p := range r.samples {
			if !p.redis { // not known
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, x(p.at),
				plotHeight-2-(plotHeight-14)*float64(max(0, s.of(p)))/float64(top))
			pen = "L"
		}
		fmt.Fprintf(b, `<path class="%s" d="%s"/>`+"\n", s.class, path.String())
		fmt.Fprintf(b, `<text x="%g" y="%g">%s: at most %d</text>`+"\n", plotLeft+float64(n)*.29*plotWidth,
			plotHeight+11, s.name, top)
	}
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="end">%.0f s</text></svg>`+"\n", plotWidth-plotLeft,
		plotHeight+11, end.Seconds())
}
