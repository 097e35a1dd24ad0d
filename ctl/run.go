package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"stampede/internal/account"
	"stampede/internal/token"
	"stampede/localstack"
	"strings"
	"syscall"
	"time"
)

// merchantID is the user whose token run gives to its command for putting products on sale. No buyer has it.
const merchantID = maxTokens + 1

// stackFlags are part of the commands that start a stack.
type stackFlags struct {
	Edges   int    `default:"1" help:"Edge processes, 1 to 32."`
	Workers int    `default:"2" help:"Worker processes, 1 to 32."`
	Dir     string `default:"${dir}" help:"Where to keep programs, data and logs while it runs."`
}

func (f *stackFlags) Validate() error {
	if f.Edges < 1 || f.Edges > 32 || f.Workers < 1 || f.Workers > 32 {
		return errors.New("--edges and --workers must be 1 to 32")
	}
	return nil
}

// runCmd starts a stack, runs a command on it, waits until all orders are decided, audits, and stops everything.
type runCmd struct {
	stackFlags
	Users   int64    `default:"20000" help:"Buyers for whom there is a token."`
	Command []string `arg:"" optional:"" passthrough:"" help:"What to run, after --."`
}

func (c *runCmd) Validate() error {
	// With its flags before it and none of them unknown, what follows is the command's own.
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if len(c.Command) == 0 {
		return errors.New("name a command after --, such as: ctl run -- sh -c 'curl $EDGE/api/products'")
	}
	if c.Users < 1 || c.Users > maxTokens {
		return fmt.Errorf("--users must be 1 to %d", maxTokens)
	}
	return c.stackFlags.Validate()
}

func (c *runCmd) Run(ctx context.Context) (err error) {
	tell := func(text string) { fmt.Fprintln(os.Stderr, text) }
	f, err := startFleet(ctx, c.Dir, "run", tell)
	keep := true // the logs of a run that went wrong
	defer func() {
		tell("stopping")
		err = errors.Join(err, f.close(keep))
		if keep && f.dir != "" {
			tell("logs and data are kept in " + f.dir)
		}
	}()
	if err != nil {
		return err
	}
	if err := f.run(ctx, c.Edges, c.Workers); err != nil {
		return err
	}
	variables, err := f.forCommand(c.Users)
	if err != nil {
		return err
	}
	ended := f.ended()
	tell("running " + strings.Join(c.Command, " "))
	failed := runCommand(ctx, c.Command, append(f.env[:len(f.env):len(f.env)], variables...))
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), failed)
	}
	tell("waiting until all orders are decided")
	if err := f.parts.waitQuiet(ctx, drainWait, func(look) {}); err != nil {
		return errors.Join(err, failed)
	}
	report, err := f.parts.audit(ctx)
	if err != nil {
		return errors.Join(err, failed)
	}
	for range len(ended) {
		report.OK, report.Problems = false, append(report.Problems, <-ended)
	}
	fmt.Println()
	report.print()
	switch {
	case failed != nil:
		return failed
	case !report.OK:
		return errBroken
	}
	keep = false
	return nil
}

// forCommand makes what a command needs to know of the stack: where the edges are, a file with a token of each buyer,
// one a line, and the token of a merchant.
func (f *fleet) forCommand(users int64) (env []string, err error) {
	path, err := filepath.Abs(filepath.Join(f.dir, "tokens.txt"))
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	err = writeTokens(file, f.tokens, userRange{1, users}, string(account.Buyer), demoTokenTTL)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	merchant, err := f.tokens.Sign(token.Claims{UserID: merchantID, Role: string(account.Merchant)}, demoTokenTTL)
	return []string{"EDGE=" + strings.Join(f.urls, ","), "TOKENS=" + path, "MERCHANT=" + merchant}, err
}

// runCommand runs a command with this process's outputs. When the context ends, the command and whatever it has started
// are asked to end, once, and killed a little later. Nothing of it is left when this returns.
func runCommand(ctx context.Context, command, env []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, env
	// In a process group of its own, Ctrl-C on a terminal does not reach it a second time, beside what is sent here. It
	// has no input: from a terminal it may not read there.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopWait
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the command: %w", err)
	}
	err := cmd.Wait()
	// A script that was asked to end may be gone before what it has started. The signal 0 fails when nobody is left.
	group := -cmd.Process.Pid
	for deadline := time.Now().Add(stopWait); ctx.Err() != nil && syscall.Kill(group, 0) == nil &&
		time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // fails if nobody is left, which is the rule
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}

// ended gives a line for each edge and worker that ends, also when all are stopped.
func (f *fleet) ended() <-chan string {
	ended := make(chan string, len(f.edges)+len(f.workers))
	for program, list := range map[string][]*localstack.Process{"edge": f.edges, "worker": f.workers} {
		for i, p := range list {
			go func() {
				<-p.Done()
				ended <- fmt.Sprintf("%s-%d ended by itself; the end of its log: %s", program, i+1, p.LogTail())
			}()
		}
	}
	return ended
}
