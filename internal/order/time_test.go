package order

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 1, 2, 3, 4, 5, 500_000_000, time.UTC)
	for _, text := range []string{"2026-01-02T03:04:05.5Z", "2026-01-02T05:34:05.500+02:30",
		"2026-01-01T03:05:05.5-23:59"} {
		if got, err := ParseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s is read as %v, error %v", text, got, err)
		}
	}

	for _, text := range []string{
		"", "tomorrow", "2026-01-02", "2026-01-02T03:04Z", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z",
		"2026-01-02T3:04:05Z", "2026-01-02T03:04:05,5Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05+24:00",
		"2026-01-02T03:04:05+01:60", "2026-01-02T03:04:05+0100", "2026-01-02T24:00:00Z", "2026-02-29T03:04:05Z",
		"2026-01-02T03:04:60Z", "2026-01-02T03:04:05Z ", "2026-01-02T03:04:05Z\n", "12026-01-02T03:04:05Z",
	} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
