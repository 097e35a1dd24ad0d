// Ctl is the operator's command of Stampede: it runs a demo sale, keeps a local stack up, migrates the
// database, manages products, and audits the promises.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strings"
	"syscall"
	"text/tabwriter"

	"stampede/internal/config"
	"stampede/internal/plaintext"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/internal/store"
)

// command is one thing that ctl does.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, args []string) error
}

// commands are all of them, in the order in which a newcomer meets them.
func commands() []command {
	return []command{
		{"demo", "[flags]", "run a whole sale on a stack of its own, audit it, and show the result", runDemo},
		{"bench", "[flags]", "measure how fast it is, against baselines", runBench},
		{"up", "[flags]", "keep a local stack with a few products running until Ctrl-C", runUp},
		{"run", "[flags] -- COMMAND …", "run a command on a local stack of its own, such as a load test, then audit", runRun},
		{"token", "--user N | --users N-M [--role merchant] [--ttl 1h]", "print access tokens for users, one a line", runToken},
		{"migrate", "[--app-user U]", "bring the database schema up to date", runMigrate},
		{"queues", "", "create the queue, its dead-letter queue and the redrive policy", runQueues},
		{"product add", "--name … --price … --stock …", "put a product on sale", runProductAdd},
		{"product set", "--id N [--price …] …", "change a product, but no order that was accepted", runProductSet},
		{"product list", "[--json]", "list the products", runProductList},
		{"product lost-orders", "--id N [--resend]", "list the completed orders that MySQL has lost, or have them decided again", runProductLostOrders},
		{"product accept-mysql", "--id N", "after MySQL has lost commits: correct Redis by what MySQL has", runProductAcceptMySQL},
		{"restock", "--product N --units N --id …", "add units to a product, or take unsold ones out (negative), once per id", runRestock},
		{"order show", "ID [--json]", "tell an order's whole story, from Redis, the queue and MySQL", runOrderShow},
		{"user show", "ADDRESS | ID [--json]", "show an account, its bans, its sessions and its latest orders", runUserShow},
		{"user role", "--email … --role …", "make a user a buyer, merchant or admin", runUserRole},
		{"user logout", "--email …", "end all sessions of a user, on every edge", runUserLogout},
		{"user disable", "--email …", "end all sessions of a user, and let nobody log in to the account", runUserDisable},
		{"user enable", "--email …", "let the user log in again", runUserEnable},
		{"ban add", "--user N | --address A --reason …", "keep a user or a range of addresses out", runBanAdd},
		{"ban list", "", "list the bans", runBanList},
		{"ban lift", "--user N | --address A", "let a user or a range of addresses in again", runBanLift},
		{"reconcile", "[--product N] [--apply [--fence]] [--json]", "show where Redis differs from MySQL and why, and repair it", runReconcile},
		{"dlq list", "[--json]", "list the dead letters, with reason, attempts and age", runDLQList},
		{"dlq show", "--id …", "show a dead letter with its body", runDLQShow},
		{"dlq redrive", "--id … | --all [--dry-run]", "reserve the orders of dead letters anew and have them decided", runDLQRedrive},
		{"dlq discard", "--id … | --all [--dry-run]", "delete dead letters", runDLQDiscard},
		{"log", "[--subject …] [--since …] [--limit N] [--json]", "show who of the staff changed what, the newest first", runLog},
		{"audit books", "", "check the books in MySQL alone, as of a restored backup; exit 1 if they do not add up", runAuditBooks},
		{"audit", "[--wait 30s] [--json]", "check the promises in MySQL, Redis and the queue; exit 1 if one is broken", runAudit},
	}
}

func main() {
	// The first signal stops the command in order, the second ends it at once.
	ctx, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, unregister)
	err := dispatch(store.WithActor(ctx, operator()), os.Args[1:])
	var bad *usageError
	var command *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		complain(err)
		os.Exit(2)
	case errors.Is(err, errBroken), errors.Is(err, errMissed): // the report has said everything
		os.Exit(1)
	case errors.As(err, &command): // of run
		complain(err)
		os.Exit(max(command.ExitCode(), 1))
	default:
		complain(err)
		os.Exit(1)
	}
}

// operator is who runs the command, as the staff log has it.
func operator() string {
	if u, err := user.Current(); err == nil {
		return "ctl:" + u.Username
	}
	return fmt.Sprintf("ctl:%d", os.Getuid())
}

// complain tells an error, whose parts have a line each. What it quotes cannot do anything to the terminal.
func complain(err error) {
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = plaintext.Escape(lines[i])
	}
	fmt.Fprintln(os.Stderr, "ctl:", strings.Join(lines, "\n"))
}

// errBroken ends a command whose output shows that a promise is broken.
var errBroken = errors.New("a promise is broken")

// usageError says that a command was called wrongly.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// dispatch finds the command that the arguments name and runs it with the rest.
func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		printHelp(os.Stderr)
		return usagef("name a command")
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printHelp(os.Stdout)
		return nil
	}
	for _, c := range commands() {
		words := 1
		name := args[0]
		if len(args) > 1 && name+" "+args[1] == c.name {
			name, words = c.name, 2
		}
		if name == c.name {
			return c.run(ctx, args[words:])
		}
	}
	return usagef("there is no command %q; see: ctl help", args[0])
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "ctl operates Stampede.\n\nCommands:\n\n")
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(tab, "  %s %s\t%s\n", c.name, c.args, c.summary)
	}
	tab.Flush()
	fmt.Fprint(w, "\nctl COMMAND -h lists the flags of a command and the variables that it reads.\n")
}

// input is what a command reads: flags, and variables of the environment.
type input struct {
	*flag.FlagSet
	vars *config.Set
	// hasCommand says that a command follows the flags.
	hasCommand bool
}

func newInput(name string) *input {
	in := &input{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), vars: config.New("ctl " + name)}
	in.SetOutput(io.Discard)
	return in
}

// parse reads the arguments and the environment. After -h it returns errHelp.
func (in *input) parse(args []string) error {
	err := in.FlagSet.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf("Flags of ctl %s:\n\n", in.Name())
		in.SetOutput(os.Stdout)
		in.PrintDefaults()
		fmt.Println()
		in.vars.Usage(os.Stdout, "reads the environment as well.")
		os.Exit(0)
	}
	if err != nil {
		return usagef("%s: %w; see: ctl %s -h", in.Name(), err, in.Name())
	}
	if in.NArg() > 0 && !in.hasCommand {
		return usagef("%s: %q is one argument too many; see: ctl %s -h", in.Name(), in.Arg(0), in.Name())
	}
	if err := in.vars.Parse(); err != nil {
		return usagef("configuration:\n%w", err)
	}
	return nil
}

// parseAndOpenStore parses the arguments of a command that needs MySQL and nothing else.
func (in *input) parseAndOpenStore(args []string) (*store.Store, error) {
	dsn := in.vars.MySQLDSN()
	if err := in.parse(args); err != nil {
		return nil, err
	}
	return openStore(*dsn)
}

func openStore(dsn string) (*store.Store, error) {
	db, err := store.Open(dsn)
	if err != nil {
		return nil, fmt.Errorf("MYSQL_DSN: %w", err)
	}
	return db, nil
}

func openStock(url string) (*stock.Stock, error) {
	st, err := stock.Open(url)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return st, nil
}

func openQueue(ctx context.Context, name, dlq string) (*queue.Queue, error) {
	q, err := queue.Open(ctx, name, dlq)
	if err != nil {
		return nil, fmt.Errorf("ORDERS_QUEUE, ORDERS_DLQ, AWS_…: %w", err)
	}
	return q, nil
}
