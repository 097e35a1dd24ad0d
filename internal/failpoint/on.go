//go:build failpoints

package failpoint

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	gofail "go.etcd.io/gofail/runtime"
)

var points = map[string]*gofail.Failpoint{}

// haste is by how much the waits of Wait are shorter: FAILPOINTS_HASTE, a whole number.
var haste = time.Duration(1)

// since is when passes begin to count: FAILPOINTS_AFTER, a time such as 3s, after the start of the process.
var since = time.Now()

func init() {
	if text := os.Getenv("FAILPOINTS_AFTER"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic("FAILPOINTS_AFTER: " + err.Error())
		}
		since = since.Add(d)
	}
	if text := os.Getenv("FAILPOINTS_HASTE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			panic("FAILPOINTS_HASTE: it is no number from 1 on")
		}
		haste = time.Duration(n)
	}
	for _, s := range Steps() {
		for _, place := range []string{"before-", "after-"} {
			name := place + string(s)
			points[name] = gofail.NewFailpoint("stampede/" + name)
		}
	}
}

// Around makes a step between its two points.
func Around(s Step, f func() error) error {
	if err := Before(s); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return After(s)
}

// Before is the point before a step. The step is not to be made if it returns an error.
func Before(s Step) error { return pass("before-" + string(s)) }

// After is the point after a step that has succeeded. If it returns an error, that is the step's answer.
func After(s Step) error { return pass("after-" + string(s)) }

// Wait is how long to wait in place of d.
func Wait(d time.Duration) time.Duration { return d / haste }

// pass does what the term of a point says. The errors are those of the network, which Redis, MySQL and the queue have
// in common: each of their packages judges them as it does the real ones.
func pass(name string) error {
	if time.Now().Before(since) {
		return nil
	}
	v, err := points[name].Acquire()
	if err != nil {
		return nil // the point is not set, or off for this pass
	}
	what, _ := v.(string)
	fmt.Fprintf(os.Stderr, "failpoint %s: %s\n", name, what)
	switch {
	case what == "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case what == "error" && strings.HasPrefix(name, "before-"):
		return &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("failpoint %s: %w", name, syscall.ECONNREFUSED)}
	case what == "lost":
		return &net.OpError{Op: "read", Net: "tcp", Err: fmt.Errorf("failpoint %s: %w", name, os.ErrDeadlineExceeded)}
	}
	if pause, ok := strings.CutPrefix(what, "delay "); ok {
		if d, err := time.ParseDuration(pause); err == nil {
			time.Sleep(d)
			return nil
		}
	}
	// A test that is not what it seems must not pass.
	panic(fmt.Sprintf("failpoint %s knows crash, error before a step, lost, and delay with a time, not %q", name, what))
}
