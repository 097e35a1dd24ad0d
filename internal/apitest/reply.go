package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/front"
	"stampede/internal/problem"
)

// Recorder keeps what is logged as a warning or an error. Tests that look at it are not parallel.
type Recorder struct {
	mu    sync.Mutex
	lines []string
}

func (*Recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (r *Recorder) WithAttrs([]slog.Attr) slog.Handler             { return r }
func (r *Recorder) WithGroup(string) slog.Handler                  { return r }

func (r *Recorder) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

// Take returns what was logged since the last call.
func (r *Recorder) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

// Reply is an answer over HTTP.
type Reply struct {
	Status int
	Header http.Header
	Body   string
	Took   time.Duration
	Err    error
}

// Code is the code of a problem document, or empty.
func (r Reply) Code() string {
	var document struct{ Code string }
	_ = json.Unmarshal([]byte(r.Body), &document)
	return document.Code
}

// Told is the body without what differs from request to request.
func (r Reply) Told() string {
	return strings.Replace(r.Body, `,"request_id":"`+r.Header.Get(problem.RequestIDHeader)+`"`, "", 1)
}

func (r Reply) String() string {
	return fmt.Sprintf("%d %s after %v (%v)", r.Status, strings.TrimSpace(r.Body), r.Took.Round(time.Millisecond),
		r.Err)
}

// Read unpacks a JSON body.
func (r Reply) Read(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Body), into); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
}

// Crowd makes n requests at once and returns their answers.
func Crowd(n int, request func(i int) Reply) []Reply {
	replies := make([]Reply, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			replies[i] = request(i)
		})
	}
	start.Done()
	done.Wait()
	return replies
}

// Count counts answers by status and code.
func Count(replies []Reply) map[string]int {
	counted := map[string]int{}
	for _, r := range replies {
		if r.Err != nil {
			counted[r.Err.Error()]++
		} else {
			counted[strings.TrimSpace(fmt.Sprint(r.Status, " ", r.Code()))]++
		}
	}
	return counted
}

// WantProblem checks a problem document and its headers.
func WantProblem(t testing.TB, r Reply, status int, c problem.Code) {
	t.Helper()
	var document struct {
		Status      int
		Title, Code string
	}
	_ = json.Unmarshal([]byte(r.Body), &document)
	if r.Err != nil || r.Status != status || document.Status != status || document.Code != string(c) ||
		document.Title == "" ||
		document.Title != c.Title() {
		t.Errorf("got %v, want %d %s", r, status, c)
		return
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s has Content-Type %q", c, got)
	}
	if retry := r.Header.Get("Retry-After"); problem.IsRetryAfter(retry) != (status == 503 ||
		c == problem.OrderNotSeenYet) {
		t.Errorf("%s has Retry-After %q", c, retry)
	}
}

// WantCode checks a problem document by its code.
func WantCode(t testing.TB, what string, r Reply, status int, c problem.Code) {
	t.Helper()
	if r.Status != status || r.Code() != string(c) || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %v, want %d %s", what, r, status, c)
	}
}

// WantRoutes holds the routes of a server, such as "GET /api/me", to the table of the front door. HEAD, which is
// wherever GET is, goes without saying.
func WantRoutes(t testing.TB, process string, routes []string) {
	t.Helper()
	var table []string
	for _, r := range front.Routes {
		if r.Process == process {
			table = append(table, r.Method+" "+r.Pattern)
		}
	}
	slices.Sort(routes)
	slices.Sort(table)
	if !slices.Equal(routes, table) {
		t.Errorf("the %s has\n%v, the front door\n%v", process, routes, table)
	}
}
