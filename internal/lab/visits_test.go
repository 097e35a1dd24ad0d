package lab

import (
	"strings"
	"testing"
	"time"
)

// TestTimeline puts a sale of half a second together in which one moment was bad.
func TestTimeline(t *testing.T) {
	l := load{rate: 100}
	for i := range 50 { // ten in each tenth of a second
		v := visit{sent: time.Millisecond, latency: 2 * time.Millisecond, outcome: accepted}
		switch {
		case i >= 20 && i < 30: // they are all answered 5 ms after the last of them came
			v.latency = l.due(30) - l.due(i) + 5*time.Millisecond
		case i >= 40:
			v.outcome = refused
		}
		l.visits = append(l.visits, v)
	}
	l.visits[49].outcome = unanswered

	moments := timeline(l.visits, l.due)
	if len(moments) != 5 {
		t.Fatalf("%d moments: %+v", len(moments), moments)
	}
	calm, bad, last := moments[0], moments[2], moments[4]
	if calm.Accepted != 10 || calm.Waiting != 0 || calm.SentMS != 1 || calm.Took != (Latencies{2, 2, 2}) {
		t.Errorf("a calm moment: %+v", calm)
	}
	if bad.AtS != .2 || bad.Waiting != 10 || bad.Took.P99 != 105 || moments[3].Waiting != 0 {
		t.Errorf("a bad moment: %+v, and %+v after it", bad, moments[3])
	}
	if last.Accepted != 0 || last.Refused != 9 || last.Errors != 1 || last.Refusal.P50 != 2 || last.Took.P50 != 0 {
		t.Errorf("the last moment: %+v", last)
	}
	if all := latenciesOf(l.visits, accepted, refused); all.P50 != 2 || all.P999 != 105 {
		t.Errorf("all together: %+v", all)
	}

	var out strings.Builder
	printTimeline(&out, moments)
	if got := strings.Count(strings.TrimSpace(out.String()), "\n"); got != 5 {
		t.Errorf("%d lines below the head:\n%s", got, out.String())
	}
}
