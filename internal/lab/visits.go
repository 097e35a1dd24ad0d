package lab

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// momentLength is how long the sale is looked at in one line of its timeline.
const momentLength = 100 * time.Millisecond

// visit is what a buyer met with. Its times count from when the buyer was due.
type visit struct {
	sent    time.Duration // until the load generator sent the request: it is late if there is no processor for it
	latency time.Duration // until the answer
	outcome visitOutcome
}

type visitOutcome int8

const (
	unanswered visitOutcome = iota // or answered with an error
	accepted
	refused
)

// Latencies are percentiles of the times until answers came, in milliseconds.
type Latencies struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// latenciesOf are those of the visits with one of these outcomes.
func latenciesOf(visits []visit, outcomes ...visitOutcome) Latencies {
	var all []time.Duration
	for i := range visits {
		if slices.Contains(outcomes, visits[i].outcome) {
			all = append(all, visits[i].latency)
		}
	}
	slices.Sort(all)
	return Latencies{P50: percentile(all, .5), P99: percentile(all, .99), P999: percentile(all, .999)}
}

// Moment is what a tenth of a second of a sale was like for those who were due in it.
type Moment struct {
	AtS      float64   `json:"at_s"` // its begin
	Accepted int       `json:"accepted"`
	Refused  int       `json:"refused"`
	Errors   int       `json:"errors"`
	Waiting  int       `json:"waiting"`     // for an answer, at its end, whenever they were due
	SentMS   float64   `json:"sent_ms"`     // until the load generator had sent a request, at most
	Took     Latencies `json:"accepted_ms"` // of those who were accepted
	Refusal  Latencies `json:"refused_ms"`  // of those who were refused
}

// timeline cuts a sale into moments. The visits are in the order in which the buyers were due.
func timeline(visits []visit, due func(i int) time.Duration) (moments []Moment) {
	var waiting []int // visits
	for from := 0; from < len(visits); {
		begin := due(from).Truncate(momentLength)
		to := from
		for to < len(visits) && due(to) < begin+momentLength {
			waiting = append(waiting, to)
			to++
		}
		waiting = slices.DeleteFunc(waiting, func(i int) bool { return due(i)+visits[i].latency <= begin+momentLength })

		m := Moment{AtS: begin.Seconds(), Waiting: len(waiting)}
		for _, v := range visits[from:to] {
			switch v.outcome {
			case accepted:
				m.Accepted++
			case refused:
				m.Refused++
			default:
				m.Errors++
			}
			m.SentMS = max(m.SentMS, milliseconds(v.sent))
		}
		m.Took, m.Refusal = latenciesOf(visits[from:to], accepted), latenciesOf(visits[from:to], refused)
		moments = append(moments, m)
		from = to
	}
	return moments
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func printTimeline(w io.Writer, moments []Moment) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "at s\taccepted\tp50 ms\tp99 ms\trefused\tp50 ms\tp99 ms\terrors\twaiting\t"+
		"sent after ms, at most\t")
	for _, m := range moments {
		fmt.Fprintf(tab, "%.1f\t%d\t%.1f\t%.1f\t%d\t%.1f\t%.1f\t%d\t%d\t%.1f\t\n", m.AtS, m.Accepted, m.Took.P50,
			m.Took.P99, m.Refused, m.Refusal.P50, m.Refusal.P99, m.Errors, m.Waiting, m.SentMS)
	}
	tab.Flush()
}
