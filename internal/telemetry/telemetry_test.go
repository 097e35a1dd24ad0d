package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace"
)

func TestCalls(t *testing.T) {
	reg := prometheus.NewRegistry()
	redis := NewCalls(reg).Of("redis")
	redis("reserve", 3*time.Millisecond, nil)
	redis("reserve", 30*time.Millisecond, errors.New("broken"))
	redis("reserve", time.Second, fmt.Errorf("stopping: %w", context.Canceled))
	want := `
		# HELP stampede_call_errors_total Calls that failed, by system and call.
		# TYPE stampede_call_errors_total counter
		stampede_call_errors_total{call="reserve",system="redis"} 1
	`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "stampede_call_errors_total"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "stampede_call_duration_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 3 || len(h.GetBucket()) == 0 || h.GetSchema() == 0 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("the histogram is not classic and native: %v", h)
		}
	}
}

// A sample is taken when somebody looks, is good for a while, and is not shown while it cannot be taken.
func TestSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		depth := prometheus.NewGauge(prometheus.GaugeOpts{Name: "depth", Help: "h"})
		taken, fails := 0, false
		s := NewSampled(func(context.Context) error {
			taken++
			depth.Set(float64(taken))
			if fails {
				return errors.New("broken")
			}
			return nil
		}, depth)
		reg := prometheus.NewRegistry()
		reg.MustRegister(s)
		look := func() string {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			if len(families) == 0 {
				return "nothing"
			}
			return fmt.Sprint(families[0].GetMetric()[0].GetGauge().GetValue())
		}
		if got := look(); got != "1" || taken != 1 {
			t.Errorf("first look: %s after %d samples", got, taken)
		}
		time.Sleep(SampleInterval - time.Millisecond)
		if got := look(); got != "1" || taken != 1 {
			t.Errorf("soon after: %s after %d samples", got, taken)
		}
		fails = true
		time.Sleep(time.Millisecond)
		if got := look(); got != "nothing" {
			t.Errorf("when it cannot be known: %s", got)
		}
		fails = false
		time.Sleep(SampleInterval)
		if got := look(); got != "3" {
			t.Errorf("when it can be known again: %s", got)
		}
	})
}

// lines are the log lines that f writes, through the bound.
func lines(t *testing.T, f func(*slog.Logger)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	f(slog.New(newLimited(slog.NewJSONHandler(&out, nil))))
	var all []map[string]any
	for line := range strings.Lines(out.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, fields)
	}
	return all
}

// A failure that a crowd meets is told some times and then counted; others, and what is no failure, are not held back.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := testutil.ToFloat64(linesDropped)
		all := lines(t, func(log *slog.Logger) {
			storm := log.With("part", "a").WithGroup("g")
			for i := range 1000 {
				storm.Error("broken", "n", i)
			}
			log.Error("something else")
			for range 2 * maxLines {
				log.Info("works")
			}
			time.Sleep(logWindow)
			log.Error("broken")
			log.Error("broken")
		})
		if got := testutil.ToFloat64(linesDropped) - before; got != 1000-maxLines {
			t.Errorf("%v lines are counted as dropped", got)
		}
		if want := maxLines + 1 + 2*maxLines + 2; len(all) != want {
			t.Fatalf("%d lines, want %d", len(all), want)
		}
		if all[0]["part"] != "a" || fmt.Sprint(all[0]["g"]) != "map[n:0]" {
			t.Errorf("attributes are lost: %v", all[0])
		}
		if first := all[len(all)-2]; first["lines_dropped"] != 1000.-maxLines {
			t.Errorf("the next line does not tell what was dropped: %v", first)
		}
		if last := all[len(all)-1]; last["lines_dropped"] != nil {
			t.Errorf("told twice: %v", last)
		}
	})
}

// Messages that are not constants do not fill the memory.
func TestLogCountsAreBounded(t *testing.T) {
	c := counts{byMessage: make(map[string]*count)}
	now := time.Now()
	written := 0
	for i := range 3 * maxMessages {
		if ok, _ := c.admit(fmt.Sprint("message ", i), now); ok {
			written++
		}
	}
	if len(c.byMessage) > maxMessages+1 || written != maxMessages+maxLines {
		t.Errorf("%d messages are counted, %d lines written", len(c.byMessage), written)
	}
}

// Places in traces survive the way through the queue, whatever else is in the attribute.
func TestPlaces(t *testing.T) {
	at := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{7: 2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	const written = "00-00000000000000000000000000000001-0000000000000002-01"
	for _, test := range []struct {
		places []Place
		want   string
	}{
		{[]Place{at}, written},
		{[]Place{{}, at, {}}, "- " + written + " -"},
		{[]Place{{}, at.WithTraceFlags(0)}, ""},
		{nil, ""},
	} {
		got := FormatPlaces(test.places)
		if got != test.want {
			t.Errorf("%v is written as %q, want %q", test.places, got, test.want)
		}
		for i, place := range ParsePlaces(got, len(test.places)) {
			if want := test.places[i]; want.IsSampled() && !place.Equal(want) || !want.IsSampled() && place.IsValid() {
				t.Errorf("%q: place %d is %v", got, i, place)
			}
		}
	}
	for _, value := range []string{"", "x", "-", strings.Repeat(" ", 99), written[:50], strings.Repeat(written+" ", 9),
		"\x00 \xff"} {
		for i, place := range ParsePlaces(value, 2) {
			if place.IsValid() && !place.Equal(at) {
				t.Errorf("%q: place %d is %v", value, i, place)
			}
		}
	}
}
