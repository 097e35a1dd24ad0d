//go:build !failpoints

package failpoint

import "time"

// Around makes a step between its two points.
func Around(_ Step, f func() error) error { return f() }

// Before is the point before a step. The step is not to be made if it returns an error.
func Before(Step) error { return nil }

// After is the point after a step that has succeeded. If it returns an error, that is the step's answer.
func After(Step) error { return nil }

// Wait is how long to wait in place of d.
func Wait(d time.Duration) time.Duration { return d }
