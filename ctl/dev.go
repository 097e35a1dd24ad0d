//go:build !release

package main

// workshop are the commands that start a stack of their own from the sources of the program. The images of a release
// have no use for them.
type workshop struct {
	Demo  demoCmd  `cmd:"" help:"Run a whole sale on a stack of its own, audit it, and show the result."`
	Bench benchCmd `cmd:"" help:"Measure how fast it is, against baselines."`
	Up    upCmd    `cmd:"" help:"Keep a local stack with a few products running until Ctrl-C."`
	Run   runCmd   `cmd:"" help:"Run a command on a local stack of its own, such as a load test, then audit."`
}
