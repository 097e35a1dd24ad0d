package access

import (
	"net/http"
	"testing"
	"time"
)

// TestLimitsAreBounded asks from more users than are remembered.
func TestLimitsAreBounded(t *testing.T) {
	t.Parallel()
	l, err := NewLimiter[int64]("user", "1/1", "")
	if err != nil {
		t.Fatal(err)
	}
	for user := range int64(maxClients + 1000) {
		answer := http.Header{}
		if l.Allow(answer, user) != nil || (user%1000 == 0 && l.Allow(answer, user) == nil) {
			t.Fatalf("user %d", user)
		}
	}
	if n := l.clients.Len(); n != maxClients {
		t.Errorf("%d users are remembered", n)
	}
}

func TestParseLimit(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "5", "5/", "/5", "0/5", "-1/5", "5/0", "5/-1", "5/1.5", "NaN/5", "Inf/5", "1e9/5",
		"5/5/5", "5/10000000", "on"} {
		if l, err := parseLimit(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, l)
		}
	}
	for text, want := range map[string]limit{"off": {}, "5/10": {5, 10}, "0.5/1": {0.5, 1}} {
		if l, err := parseLimit(text); err != nil || l != want {
			t.Errorf("%q: %+v, %v", text, l, err)
		}
	}
	w, err := NewLimiter[int64]("user", NoLimit, "")
	for range 10_000 {
		if answer := (http.Header{}); err != nil || w.Allow(answer, 1) != nil || len(answer) != 0 {
			t.Fatal("a limit that is off is in force", err)
		}
	}
}

// TestBucketFills: tokens come back at the rate, whatever was refused meanwhile.
func TestBucketFills(t *testing.T) {
	t.Parallel()
	l, err := NewLimiter[int64]("user", "100/10", "")
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	begin := time.Now()
	for time.Since(begin) < 500*time.Millisecond {
		if l.Allow(http.Header{}, 1) == nil {
			allowed++
		}
	}
	if most := 10 + int(100*time.Since(begin).Seconds()) + 1; allowed < 15 || allowed > most {
		t.Errorf("%d requests in half a second, at most %d", allowed, most)
	}
}
