package problem

import (
	"strings"
	"testing"
)

func TestTraceID(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for sent, want := range map[string]string{
		"00-" + trace + "-" + parent + "-01":            trace,
		"00-" + trace + "-" + parent + "-00":            trace,
		"cc-" + trace + "-" + parent + "-01":            trace,
		"cc-" + trace + "-" + parent + "-01-what-comes": trace,
		"":   "",
		"00": "",
		"00-" + trace + "-" + parent + "-01-what-comes":         "",
		"cc-" + trace + "-" + parent + "-01.what-comes":         "",
		"ff-" + trace + "-" + parent + "-01":                    "",
		"0x-" + trace + "-" + parent + "-01":                    "",
		"00_" + trace + "-" + parent + "-01":                    "",
		"00-" + trace + "_" + parent + "-01":                    "",
		"00-" + trace + "-" + parent + "_01":                    "",
		"00-" + trace + "-" + parent + "-0g":                    "",
		"00-" + strings.ToUpper(trace) + "-" + parent + "-01":   "",
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01":  "",
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":   "",
		"00-" + trace[:30] + `"}` + "-" + parent + "-01":        "",
		"00-" + trace[:31] + "é" + "-" + parent[:15] + "-01":    "",
		"00-" + trace + "-" + parent[:15] + "\x00" + "-01":      "",
		" 00-" + trace + "-" + parent + "-01":                   "",
		"00-" + trace + "-" + parent + "-01,00-" + trace + "-0": "",
	} {
		if got := string(traceID([]byte(sent))); got != want {
			t.Errorf("%q: got %q", sent, got)
		}
	}
}
