package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestBench measures everything for a moment, also against the programs of this very build as if it were another one.
// What it finds says nothing about speed, but each measure must work, and nothing may be left behind.
func TestBench(t *testing.T) {
	t.Chdir("../..") // where the programs are built
	dir := t.TempDir()
	environment := os.Environ()
	t.Cleanup(func() { // of which startFleet has changed a few
		os.Clearenv()
		for _, variable := range environment {
			name, value, _ := strings.Cut(variable, "=")
			_ = os.Setenv(name, value)
		}
	})
	against := t.TempDir()
	if err := Build(t.Context(), "", "-o", against+"/", "./edge", "./worker", "./ctl"); err != nil {
		t.Fatal(err)
	}
	if err := CheckAgainst(against); err != nil {
		t.Fatal(err)
	}
	o := benchOptions{only: regexp.MustCompile(""), duration: 150 * time.Millisecond, rounds: 1, dir: dir,
		idleConns: 200, against: against}
	report, err := o.run(t.Context(), newProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Measures) != len(measures()) {
		t.Errorf("%d of %d measures", len(report.Measures), len(measures()))
	}
	for _, m := range report.Measures {
		mayBeZero := strings.Contains(m.Measure, "errors") || strings.Contains(m.Measure, "at rest")
		if m.Error != "" || len(m.Values) == 0 || m.Values[0] <= 0 && !mayBeZero {
			t.Errorf("%s over %q: %v %s", m.Measure, m.Baseline, m.Values, m.Error)
		}
		// These do not depend on the time it takes.
		exact := strings.Contains(m.Measure, "Redis of one more") || strings.Contains(m.Measure, "errors")
		if exact && !m.Met {
			t.Errorf("%s: %v, %v before", m.Measure, m.Values, m.Baselines)
		}
		if strings.Contains(m.Measure, "decided a day ago") && m.Values[0] >= 500 {
			t.Errorf("after a day an order still takes %v bytes", m.Values[0])
		}
	}
	var again BenchReport
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	err = errors.Join(err, json.Unmarshal(text, &again))
	if err != nil || len(again.Measures) != len(report.Measures) || len(again.Curves) == 0 {
		t.Errorf("bench.json: %v, %.200s", err, text)
	}
	page, err := os.ReadFile(filepath.Join(dir, "bench.html"))
	if err != nil || !bytes.Contains(page, []byte("<svg")) || bytes.Contains(page, []byte("NaN")) {
		t.Errorf("bench.html: %v", err)
	}
	var out bytes.Buffer
	report.print(&out)
	if !strings.Contains(out.String(), "textbook worker") {
		t.Errorf("the table:\n%s", out.String())
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestBenchStops ends a bench in its middle.
func TestBenchStops(t *testing.T) {
	t.Chdir("../..")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := benchOptions{only: regexp.MustCompile(""), duration: time.Second, rounds: 1, dir: t.TempDir()}
	if _, err := o.run(ctx, newProgress(os.Stderr)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestMeasuresAreProbed(t *testing.T) {
	var names []string
	for _, p := range probes() {
		if p.needs != "" && !slices.Contains(names, p.needs) {
			t.Errorf("%s needs %q, which does not come before it", p.name, p.needs)
		}
		names = append(names, p.name)
	}
	for _, m := range measures() {
		for _, name := range m.probes() {
			if !slices.Contains(names, name) {
				t.Errorf("%s rests on %q, which nobody measures", m.name, name)
			}
		}
	}
}

func TestJudgeMeasure(t *testing.T) {
	found := map[string][]float64{"a": {10, 30, 20}, "b": {10, 10, 40}, "none": {}, "nothing": {0, 0, 0}}
	for _, test := range []struct {
		m      measure
		median float64
		ratio  float64
		met    bool
	}{
		{measure{figure: "a", bar: 20}, 20, 0, true},
		{measure{figure: "a", bar: 21}, 20, 0, false},
		{measure{figure: "a", bar: 20, atMost: true}, 20, 0, true},
		{measure{figure: "a", bar: 19, atMost: true}, 20, 0, false},
		{measure{figure: "a", baseline: "b", bar: 1}, 20, 1, true}, // 1, 3 and 1/2: not the ratio of the medians
		{measure{figure: "a", baseline: "b", bar: 1.1}, 20, 1, false},
		{measure{figure: "none", bar: 0, atMost: true}, 0, 0, false},
		{measure{figure: "broken", bar: 0, atMost: true}, 0, 0, false},
		{measure{figure: "a", baseline: "broken"}, 0, 0, false},
		{measure{figure: "a", baseline: "nothing"}, 0, 0, false},
	} {
		r := test.m.judge(found, map[string]error{"broken": errors.New("no")})
		if r.Median != test.median || r.Ratio != test.ratio || r.Met != test.met || (r.Error != "") != (r.Median == 0) {
			t.Errorf("%+v: %+v", test.m, r)
		}
	}
}

// TestBarOfMachine: which of two bars counts is said by the no-op server.
func TestBarOfMachine(t *testing.T) {
	m := measure{name: "orders", figure: "a", bar: 10, slowBar: 20}
	for noop, want := range map[float64]string{51_000: ">= 20", 100_000: ">= 20", 165_000: ">= 10"} {
		r := m.judge(map[string][]float64{"a": {15}, "no-op": {noop}}, nil)
		if r.Bar != want || r.Met != (want == ">= 10") || !strings.Contains(r.Note, number(noop)) {
			t.Errorf("at %v no-ops: %+v", noop, r)
		}
	}
}

// TestVerdict: a miss that the docs explain is said and passes; one that they do not explain fails, and so does what
// was not measured.
func TestVerdict(t *testing.T) {
	met, missed := measure{figure: "a", bar: 1}, measure{figure: "a", bar: 9}
	explained := measure{figure: "a", bar: 9, explained: "deciding-orders"}
	broken := measure{figure: "broken", bar: 1, explained: "deciding-orders"}
	free := measure{figure: "a", parts: []string{"a x", "a y"}, noBar: true}
	for _, test := range []struct {
		measures []measure
		ok       bool
		says     string
	}{
		{[]measure{met, free}, true, "every bar is met"},
		{[]measure{met, explained}, true, "1 bar is not met; docs/performance.md#deciding-orders says what stands in"},
		{[]measure{explained, explained}, true, "2 bars are not met; docs/performance.md#deciding-orders says"},
		{[]measure{explained, missed}, false, "1 bar is MISSED; 1 bar is not met; "},
		{[]measure{broken}, false, "1 bar is MISSED"},
		{[]measure{missed, {figure: "none", noBar: true}}, false, "2 bars are MISSED"},
	} {
		b := bench{
			found:  map[string][]float64{"a": {5}, "a x": {2}, "a y": {3}},
			failed: map[string]error{"broken": errors.New("no")},
		}
		r := b.report(test.measures)
		if r.OK != test.ok || !strings.HasPrefix(r.verdict(), test.says) {
			t.Errorf("%v %q, want %v %q", r.OK, r.verdict(), test.ok, test.says)
		}
	}
	if got := free.partsFound(map[string][]float64{"a x": {2}, "a y": {3}}); got != "x 2, y 3" {
		t.Errorf("parts: %q", got)
	}
}

// TestExplanations: a bar whose miss is forgiven has a section of the docs that says why.
func TestExplanations(t *testing.T) {
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			sections = append(sections, strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-"))
		}
	}
	for _, m := range append(measures(), measure{name: "none", explained: "what-was-measured"}) {
		if m.explained != "" && !slices.Contains(sections, m.explained) {
			t.Errorf("%s: docs/performance.md has no section %s", m.name, m.explained)
		}
	}
}

func TestCheckAgainst(t *testing.T) {
	dir := t.TempDir()
	for _, name := range againstPrograms {
		if err := CheckAgainst(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(CheckAgainst(dir), CheckAgainst("")); err != nil {
		t.Error(err)
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(test.values); got != test.want {
			t.Errorf("of %v: %v", test.values, got)
		}
	}
}

func TestParseHead(t *testing.T) {
	for _, test := range []struct {
		head           string
		status, length int // status 0 is an error
	}{
		{"HTTP/1.1 202 Accepted\r\nServer: x\r\nContent-Length: 17\r\nX: y\r\n", 202, 17},
		{"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n", 409, 0},
		{"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n", 0, 0},
		{"HTTP/1.1 202 Accepted\r\nContent-Length: -1\r\n", 0, 0},
		{"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n", 0, 0},
		{"HTTP/1.1 2", 0, 0},
		{"SSH-2.0-OpenSSH_9.2\r\n", 0, 0},
	} {
		status, length, err := parseHead([]byte(test.head))
		if (err != nil) != (test.status == 0) || err == nil && (status != test.status || length != test.length) {
			t.Errorf("%q: %d %d %v", test.head, status, length, err)
		}
	}
}

// startHTTP serves for the time of a test.
func startHTTP(t *testing.T, handler fasthttp.RequestHandler) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fasthttp.Server{Handler: handler, CloseOnShutdown: true, Logger: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func testRequests(n int) (requests [][]byte) {
	for i := range n {
		requests = append(requests, fmt.Appendf(nil, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", i))
	}
	return requests
}

// TestRawLoadCount sends as many requests as it was told, and reads answers of every size to their end.
func TestRawLoadCount(t *testing.T) {
	addr := startHTTP(t, func(ctx *fasthttp.RequestCtx) {
		size := 0
		fmt.Sscanf(string(ctx.Path()), "/%d", &size)
		ctx.SetStatusCode(202)
		if size%2 == 1 {
			ctx.SetStatusCode(409)
		}
		ctx.SetBody(make([]byte, size*100)) // longer than the buffer, too
	})
	l := rawLoad{addr: addr, conns: 7, requests: testRequests(70)}
	counts, err := l.count(t.Context(), 700)
	if err != nil || counts.all() != 700 || counts[202] == 0 || counts[409] == 0 {
		t.Errorf("%d of 202, %d of 409, %v", counts[202], counts[409], err)
	}
	if err := counts.only(202); err == nil || !strings.Contains(err.Error(), "status 409") {
		t.Errorf("only 202: %v", err)
	}
}

// TestRawLoadBroken reports a connection that ends, and does not wait for the other ones.
func TestRawLoadBroken(t *testing.T) {
	addr := startHTTP(t, func(ctx *fasthttp.RequestCtx) { _ = ctx.Conn().Close() })
	l := rawLoad{addr: addr, conns: 3, requests: testRequests(1)}
	if _, err := l.closed(t.Context(), 0, time.Minute, func() {}); err == nil {
		t.Error("no error")
	}
}

// TestRawLoadOpen: a server that stalls costs everybody who came in that time, and not only who was being served.
func TestRawLoadOpen(t *testing.T) {
	const stall = 300 * time.Millisecond
	start := time.Now()
	addr := startHTTP(t, func(ctx *fasthttp.RequestCtx) {
		if since := time.Since(start); since < stall {
			time.Sleep(stall - since)
		}
	})
	l := rawLoad{addr: addr, conns: 2, requests: testRequests(1)}
	counts, latencies, err := l.open(t.Context(), 200, 0, 2*stall, func() {})
	if err != nil || counts[200] != 120 || len(latencies) != 120 {
		t.Fatalf("%d answers, %d latencies, %v", counts[200], len(latencies), err)
	}
	if !slices.IsSorted(latencies) {
		t.Error("latencies are not sorted")
	}
	// 60 came during the stall, each waiting for its rest. Two connections alone would have seen two late answers.
	if late := latencies[len(latencies)-30]; late < stall/4 {
		t.Errorf("the 30th of the latest answers came after %s", late)
	}
}

func TestRawLoadAlone(t *testing.T) {
	addr := startHTTP(t, func(ctx *fasthttp.RequestCtx) { time.Sleep(2 * time.Millisecond) })
	l := rawLoad{addr: addr, requests: testRequests(1)}
	counts, latencies, err := l.alone(t.Context(), time.Millisecond, 50*time.Millisecond)
	if err != nil || counts.all() < 3 || int(counts[200]) != len(latencies) || latencies[0] < 2*time.Millisecond {
		t.Errorf("%d answers, latencies %v, %v", counts[200], latencies, err)
	}
}

func TestUsage(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only Linux has this file")
	}
	before, bytes, err := usage(os.Getpid())
	if err != nil || bytes < 1e6 {
		t.Fatalf("%d bytes, %v", bytes, err)
	}
	// It is counted in hundredths of a second.
	for end, after := time.Now().Add(30*time.Second), before; after == before; {
		if after, _, err = usage(os.Getpid()); err != nil || time.Now().After(end) {
			t.Fatalf("it stays at %s: %v", after, err)
		}
	}
}

func TestNiceTop(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, .3: .5, 1: 1, 1.1: 2, 4200: 5000, 99_000: 100_000} {
		if got := niceTop(v); got != want {
			t.Errorf("%v: %v", v, got)
		}
	}
}
