package board

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/localstack/stacktest"
)

func openRedis(t testing.TB, url string) *redis.Client {
	t.Helper()
	rdb, err := redis.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestPage(t *testing.T) {
	t.Parallel()
	s := serve(t, newRig(t))
	resp, err := http.Get(s.server.URL + "/board")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	policy := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-",
		"connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %q", policy, want)
		}
	}
	for _, bad := range []string{"unsafe", "http:", "https:", "*"} {
		if strings.Contains(policy, bad) {
			t.Errorf("the policy %q has %q", policy, bad)
		}
	}
	for _, bad := range []string{"{{", "innerHTML", "<link rel=\"stylesheet\"", "src=\"", "@import", "url("} {
		if strings.Contains(string(body), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for path, status := range map[string]int{"/board/other": 404, "/board/": 404} {
		resp, err := http.Get(s.server.URL + path)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
		resp.Body.Close()
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.migrate(t)
	r.add(t, order.Product{Stock: 10})
	s := serve(t, r)
	viewer, resp := s.watch(t)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" ||
		resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	if name, data, err := viewer.event(); err != nil || name != "history" || data != "[]" {
		t.Errorf("first event %q: %s, %v", name, data, err)
	}
	var times []int64
	for range 3 {
		u := viewer.update(t)
		times = append(times, u.AtMS)
		if len(u.Products) != 1 || len(u.Silent) > 0 || u.Fleet == nil || u.Fleet.Edges != 1 {
			t.Errorf("%+v", u)
		}
	}
	if times[2]-times[0] < 1900 {
		t.Errorf("three updates in %d ms", times[2]-times[0])
	}
	// Who comes later has the charts at once.
	later, _ := s.watch(t)
	if name, data, err := later.event(); err != nil || name != "history" || strings.Count(data, "[") < 1+3 {
		t.Errorf("first event of a later viewer %q: %s, %v", name, data, err)
	}
	// It is one look for all viewers, and none when nobody watches.
	a, b := viewer.update(t), later.update(t)
	for a.AtMS < b.AtMS {
		a = viewer.update(t)
	}
	if a.AtMS != b.AtMS {
		t.Errorf("two viewers, updates of %d and %d", a.AtMS, b.AtMS)
	}
	viewer.body.Close()
	later.body.Close()
	stacktest.Eventually(t, 10*time.Second, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sampling || len(s.viewers) > 0 {
			return fmt.Errorf("%d viewers, sampling: %v", len(s.viewers), s.sampling)
		}
		return nil
	})
}

func TestViewersAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.migrate(t)
	s := serve(t, r)
	var streams []*stream
	for range maxViewers {
		viewer, resp := s.watch(t)
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		streams = append(streams, viewer)
	}
	one, resp := s.watch(t)
	if resp.StatusCode != 503 {
		t.Fatalf("one too many: %s", resp.Status)
	}
	if text, err := io.ReadAll(one.body); err != nil || !strings.Contains(string(text), "100 viewers") {
		t.Errorf("one too many: %q, %v", text, err)
	}
	streams[0].body.Close()
	stacktest.Eventually(t, 10*time.Second, func() error {
		_, resp := s.watch(t)
		if resp.StatusCode != 200 {
			return fmt.Errorf("after one has gone: %s", resp.Status)
		}
		return nil
	})
}

// Close ends the streams, and says that the process ends. That nothing is left running is checked at the end of the
// tests.
func TestClose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.migrate(t)
	s := serve(t, r)
	viewer, _ := s.watch(t)
	viewer.update(t)
	if reports, err := readReports(t.Context(), r.redis, reportAge); err != nil || len(reports) != 1 {
		t.Errorf("%q, %v", reports, err)
	}
	start := time.Now()
	s.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Close took %s", took)
	}
	s.mu.Lock()
	if s.sampling {
		t.Error("it looks at the system after Close")
	}
	s.mu.Unlock()
	if reports, err := readReports(t.Context(), r.redis, reportAge); err != nil || len(reports) != 0 {
		t.Errorf("after Close %q, %v", reports, err)
	}
	for {
		if _, _, err := viewer.event(); err != nil {
			break
		}
	}
	if _, resp := s.watch(t); resp.StatusCode != 503 {
		t.Errorf("after Close %s", resp.Status)
	}
}

// Without Redis nothing waits for the reports.
func TestReportsToNobody(t *testing.T) {
	t.Parallel()
	r := rigOf(t, stacktest.DSN(t), "redis://"+closedAddr(t))
	r.migrate(t)
	s := serve(t, r)
	viewer, _ := s.watch(t)
	if u := viewer.update(t); !slices.Equal(u.Silent, []string{"Redis"}) || u.Fleet != nil {
		t.Errorf("%+v", u)
	}
	start := time.Now()
	s.Close()
	if took := time.Since(start); took > 2*reportTimeout {
		t.Errorf("Close took %s", took)
	}
}
