//go:build !release

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"stampede/internal/lab"
	"stampede/internal/order"
)

// workshop are the commands that start a stack of their own from the sources of the program. The images of a release
// have no use for them.
type workshop struct {
	Demo  demoCmd  `cmd:"" help:"Run a whole sale on a stack of its own, audit it, and show the result."`
	Bench benchCmd `cmd:"" help:"Measure the speed, each thing against a baseline."`
	Up    upCmd    `cmd:"" help:"Keep a local stack with a few products running until Ctrl-C."`
	Run   runCmd   `cmd:"" help:"Run a command on a local stack of its own, such as a load test, then audit."`
}

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

func (f *stackFlags) size() lab.Size { return lab.Size{Edges: f.Edges, Workers: f.Workers, Dir: f.Dir} }

// demoCmd says what sale to run.
type demoCmd struct {
	Units    int64   `default:"500" help:"Units on sale."`
	Buyers   int     `default:"2000" help:"Number of buyers."`
	Rate     float64 `default:"1000" help:"Buyers per second, in an open model."`
	Quantity int64   `default:"1" help:"Units that each buyer orders."`
	stackFlags
	Timeline bool `help:"Print also what each tenth of a second of the sale was like."`
	Hold     bool `help:"Keep the stack and its board running after the sale until Ctrl-C."`
	JSON     bool `help:"Print the result as one JSON object on stdout."`
	Pay      bool `help:"Run another sale, one that is paid, in three currencies."`
}

func (c *demoCmd) Validate() error {
	switch {
	case c.Units < 0 || c.Buyers < 1 || c.Buyers > 10_000_000:
		return errors.New("--units must be at least 0, --buyers 1 to 10000000")
	case !(c.Rate > 0 && c.Rate <= 1_000_000):
		return errors.New("--rate must be above 0 and at most 1000000")
	case c.Quantity < 1 || c.Quantity > order.MaxQuantity:
		return fmt.Errorf("--quantity must be 1 to %d", order.MaxQuantity)
	}
	return c.stackFlags.Validate()
}

func (c *demoCmd) Run(ctx context.Context) error {
	if c.Pay {
		demo := lab.PayDemo{Size: c.size(), JSON: c.JSON}
		return verdict(demo.Run(ctx))
	}
	demo := lab.Demo{
		Size: c.size(), Units: c.Units, Buyers: c.Buyers, Rate: c.Rate, Quantity: c.Quantity,
		Timeline: c.Timeline, Hold: c.Hold, JSON: c.JSON,
	}
	return verdict(demo.Run(ctx))
}

// verdict ends a command that has printed whether all is well.
func verdict(isWell bool, err error) error {
	if err == nil && !isWell {
		return errBroken
	}
	return err
}

type upCmd struct{ stackFlags }

func (c *upCmd) Run(ctx context.Context) error { return lab.Up(ctx, c.size()) }

// runCmd runs a command on a stack.
type runCmd struct {
	stackFlags
	Users   int64    `default:"20000" help:"Number of buyers to make tokens for."`
	Command []string `arg:"" optional:"" passthrough:"" help:"The command to run, after --."`
}

func (c *runCmd) Validate() error {
	// With its flags before it and none of them unknown, what follows is the command's own.
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if len(c.Command) == 0 {
		return errors.New("name a command after --, such as: ctl run -- sh -c 'curl $EDGE/api/products'")
	}
	if c.Users < 1 || c.Users > lab.MaxUsers {
		return fmt.Errorf("--users must be 1 to %d", lab.MaxUsers)
	}
	return c.stackFlags.Validate()
}

func (c *runCmd) Run(ctx context.Context) error {
	run := lab.Run{Size: c.size(), Users: c.Users, Command: c.Command}
	return verdict(run.Run(ctx))
}

type benchCmd struct {
	Only     string        `placeholder:"REGEXP" help:"Measure only what matches by its name or its baseline."`
	Duration time.Duration `default:"2s" help:"Duration of each measurement."`
	Rounds   int           `default:"5" help:"How often everything is measured."`
	Against  string        `type:"existingdir" placeholder:"DIR" help:"Compare with the programs of another build."`
	History  int64         `default:"10000000" help:"Orders decided before, for --only history."`
	Dir      string        `default:"${dir}" help:"Where the report goes, and programs, data and logs while it runs."`
	JSON     bool          `help:"Print the result as one JSON object on stdout."`

	only *regexp.Regexp
}

func (c *benchCmd) Validate() (err error) {
	if c.Rounds < 1 || c.Rounds > lab.MaxRounds ||
		c.Duration < 50*time.Millisecond || c.Duration > lab.MaxBenchDuration {
		return fmt.Errorf("--rounds must be 1 to %d, --duration 50ms to %s", lab.MaxRounds, lab.MaxBenchDuration)
	}
	if c.only, err = regexp.Compile(c.Only); err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	if err := lab.CheckAgainst(c.Against); err != nil {
		return fmt.Errorf("--against: %w", err)
	}
	bench, history := c.bench(), c.history()
	if !bench.Measures() && !history.Measures() {
		return errors.New("--only: nothing that is measured has such a name")
	}
	return nil
}

func (c *benchCmd) bench() lab.Bench {
	return lab.Bench{Only: c.only, Duration: c.Duration, Rounds: c.Rounds, Dir: c.Dir, JSON: c.JSON, Against: c.Against}
}

func (c *benchCmd) Run(ctx context.Context) error {
	met := true
	if bench := c.bench(); bench.Measures() {
		var err error
		if met, err = bench.Run(ctx); err != nil {
			return err
		}
	}

	// The tables with a history take some minutes to make, once: only who asks for them waits for that.
	history := c.history()
	switch {
	case c.JSON || !history.Measures():
		return verdict(met, nil)
	case c.Only == "" && !history.Prepared():
		fmt.Fprintln(os.Stderr, "what history costs is not measured: `ctl bench --only history` makes its tables first")
		return verdict(met, nil)
	}
	well, err := history.Run(ctx)
	return verdict(met && well, err)
}

func (c *benchCmd) history() lab.History {
	return lab.History{Only: c.only, Orders: c.History, Duration: c.Duration, Rounds: c.Rounds, Dir: c.Dir}
}
