package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stampede/internal/account"
	"stampede/internal/audit"
	"stampede/internal/token"
)

const (
	// MaxUsers bounds the buyers for whom there is a token in the file of a run, of some 200 bytes each.
	MaxUsers = 1_000_000
	// merchantID is the user whose token a run gives to its command for putting products on sale. No buyer has it.
	merchantID = MaxUsers + 1
)

// Run is a command that is run on a stack of its own.
type Run struct {
	Size
	Users   int64 // buyers for whom there is a token
	Command []string
}

// Run starts a stack, runs the command on it, waits until all orders are decided, audits, and stops everything. It
// reports whether the audit found all promises kept.
func (c *Run) Run(ctx context.Context) (kept bool, err error) {
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
		return false, err
	}

	if err := f.runAll(ctx, c.Size); err != nil {
		return false, err
	}
	variables, err := f.forCommand(c.Users)
	if err != nil {
		return false, err
	}

	ended := f.ended()
	tell("running " + strings.Join(c.Command, " "))
	failed := runCommand(ctx, c.Command, append(f.env[:len(f.env):len(f.env)], variables...))
	if ctx.Err() != nil {
		return false, errors.Join(ctx.Err(), failed)
	}

	tell("waiting until all orders are decided")
	if err := f.sale.WaitQuiet(ctx, drainWait, func(audit.Look) {}); err != nil {
		return false, errors.Join(err, failed)
	}

	report, err := f.sale.Audit(ctx)
	if err != nil {
		return false, errors.Join(err, failed)
	}
	for range len(ended) {
		report.OK, report.Problems = false, append(report.Problems, <-ended)
	}

	fmt.Println()
	report.Print(os.Stdout)

	keep = failed != nil || !report.OK
	return report.OK, failed
}

// forCommand makes what a command needs to know of the stack: where the whole is and where the edges are, a file with a
// token of each buyer, one a line, and the token of a merchant.
func (f *fleet) forCommand(users int64) (env []string, err error) {
	path, err := filepath.Abs(filepath.Join(f.dir, "tokens.txt"))
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.tokens.WriteTokens(file, 1, users, string(account.Buyer), demoTokenTTL)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	merchant, err := f.tokens.Sign(token.Claims{UserID: merchantID, Role: string(account.Merchant)}, demoTokenTTL)
	return []string{
		"FRONT=" + f.door.URL, "EDGE=" + strings.Join(f.urls(), ","), "TOKENS=" + path, "MERCHANT=" + merchant,
	}, err
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
	cmd.WaitDelay = StopWait

	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the command: %w", err)
	}
	err := cmd.Wait()

	// A script that was asked to end may be gone before what it has started. The signal 0 fails when nobody is left.
	group := -cmd.Process.Pid
	for deadline := time.Now().Add(StopWait); ctx.Err() != nil && syscall.Kill(group, 0) == nil &&
		time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // fails if nobody is left, which is the rule
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}
