//go:build failpoints

package failpoint

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestTerms runs itself with each kind of term in the environment.
func TestTerms(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		child()
	}
	for _, test := range []struct {
		term string
		want int // exit code of child, or -1 for a signal

		after string
	}{
		{want: 3},
		{`stampede/before-send=1*return("error")`, 3, "1h"},
		{`stampede/before-send=1*return("error")`, 10, "1ns"},
		{`stampede/before-send=1*return("error")`, 10, ""},
		{`stampede/before-send=1*off->1*return("error")`, 3, ""}, // the second pass does not come
		{`stampede/after-send=1*return("lost")`, 21, ""},
		{`stampede/before-send=1*return("lost")`, 11, ""},
		{`stampede/after-send=1*return("delay 200ms")`, 4, ""},
		{`stampede/after-send=1*return("crash")`, -1, ""},
		{`stampede/after-send=1*return("error")`, 2, ""}, // after a step there is no certain error: a panic
		{`stampede/before-send=1*return("typo")`, 2, ""},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTerms$")
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "GOFAIL_FAILPOINTS="+test.term,
			"FAILPOINTS_AFTER="+test.after)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != test.want {
			t.Errorf("%s: exit code %d, want %d: %s", test.term, got, test.want, out)
		}
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if test.want == -1 && (!status.Signaled() || status.Signal() != syscall.SIGKILL) {
			t.Errorf("%s: ended with %v", test.term, cmd.ProcessState)
		}
	}
}

// child makes one step, and says by its exit code what came of it: tens for whether the step was made,
// ones for the error.
func child() {
	code, start := 10, time.Now()
	err := Around(Send, func() error { code = 20; return nil })
	var op *net.OpError
	switch {
	case err == nil && time.Since(start) > 100*time.Millisecond:
		os.Exit(4)
	case err == nil:
		os.Exit(3)
	case errors.As(err, &op) && op.Op == "dial":
		os.Exit(code)
	case errors.As(err, &op) && op.Op == "read":
		os.Exit(code + 1)
	}
	os.Exit(1)
}

// TestHaste runs itself with and without haste in the environment.
func TestHaste(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		os.Exit(int(Wait(time.Minute) / time.Second))
	}
	for haste, want := range map[string]int{"": 60, "1": 60, "10": 6, "0": 2, "x": 2} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHaste$")
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "FAILPOINTS_HASTE="+haste)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("haste %q: exit code %d, want %d: %s", haste, got, want, out)
		}
	}
}
