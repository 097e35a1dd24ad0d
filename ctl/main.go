// Ctl is the operator's command of Stampede: it runs a demo sale, keeps a local stack up, migrates the
// database, manages products, and audits the promises.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"stampede/internal/account"
	"stampede/internal/audit"
	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/plaintext"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/version"
)

// cli is the grammar of ctl: its commands, in the order in which a newcomer meets them.
type cli struct {
	Version kong.VersionFlag `help:"Show the version and the revision."`

	workshop

	Token   tokenCmd   `cmd:"" help:"Print access tokens for users, one per line."`
	Migrate migrateCmd `cmd:"" help:"Bring the database schema up to date."`
	Queues  queuesCmd  `cmd:"" help:"Create the queue, its dead-letter queue and the redrive policy."`
	Product struct {
		Add         productAddCmd         `cmd:"" help:"Put a product on sale."`
		Set         productSetCmd         `cmd:"" help:"Change a product; orders that were accepted stay as they are."`
		List        productListCmd        `cmd:"" help:"List the products."`
		LostOrders  productLostOrdersCmd  `cmd:"" help:"List the completed orders that MySQL has lost, or have them decided again."`
		AcceptMySQL productAcceptMySQLCmd `cmd:"" name:"accept-mysql" help:"After MySQL has lost commits, correct Redis to match MySQL."`
	} `cmd:"" help:"Add, change and list products."`
	Restock restockCmd `cmd:"" help:"Add units to a product, or take unsold ones out, once per id."`
	Order   struct {
		Show orderShowCmd `cmd:"" help:"Show an order's whole story, from Redis, the queue and MySQL."`
	} `cmd:"" help:"Show orders."`
	Payment struct {
		Show   paymentShowCmd   `cmd:"" help:"Show an attempt to pay, or all of an order."`
		Sync   paymentSyncCmd   `cmd:"" help:"Ask the provider now how an attempt stands."`
		Refund paymentRefundCmd `cmd:"" help:"Give back what an order has cost, or a part of it."`
		Export paymentExportCmd `cmd:"" help:"Write payments and refunds as CSV, for accounting."`
	} `cmd:"" help:"Show, refund and export payments."`
	Refund struct {
		List  refundListCmd  `cmd:"" help:"List the refunds that are to be made by hand."`
		Check refundCheckCmd `cmd:"" help:"Ask the provider whether it has made a refund, before it is made by hand."`
		Done  refundDoneCmd  `cmd:"" help:"Note that a refund was made by hand, unless the provider had made it."`
	} `cmd:"" help:"Refunds that are to be made by hand."`
	User struct {
		Show    userShowCmd    `cmd:"" help:"Show an account, its bans, its sessions and its latest orders."`
		Role    userRoleCmd    `cmd:"" help:"Make a user a buyer, merchant or admin."`
		Logout  userLogoutCmd  `cmd:"" help:"End all sessions of a user, on every edge."`
		Disable userDisableCmd `cmd:"" help:"End all sessions of a user, and refuse further logins."`
		Enable  userEnableCmd  `cmd:"" help:"Allow the user to log in again."`
	} `cmd:"" help:"Show and change accounts."`
	Ban struct {
		Add  banAddCmd  `cmd:"" help:"Ban a user or a range of addresses."`
		List banListCmd `cmd:"" help:"List the bans."`
		Lift banLiftCmd `cmd:"" help:"Lift the ban of a user or of a range of addresses."`
	} `cmd:"" help:"Ban users and addresses."`
	Reconcile reconcileCmd `cmd:"" help:"Show where Redis differs from MySQL and why, and repair it."`
	DLQ       struct {
		List    dlqListCmd    `cmd:"" help:"List the dead letters, with reason, attempts and age."`
		Show    dlqShowCmd    `cmd:"" help:"Show a dead letter with its body."`
		Redrive dlqRedriveCmd `cmd:"" help:"Reserve the orders of dead letters again, and have them decided."`
		Discard dlqDiscardCmd `cmd:"" help:"Delete dead letters."`
	} `cmd:"" help:"Show dead letters, and redrive or discard them."`
	Log   logCmd `cmd:"" help:"Show what members of staff have changed, newest first."`
	Audit struct {
		Promises auditCmd      `cmd:"" default:"withargs" help:"Check the promises in MySQL, Redis and the queue; exit 1 if one is broken."`
		Books    auditBooksCmd `cmd:"" help:"Check the books in MySQL alone, such as those of a restored backup; exit 1 if they do not add up."`
	} `cmd:"" help:"Check the promises (the default), or the books alone."`
	Archive    archiveCmd    `cmd:"" help:"Delete old orders, with the books still provable."`
	Completion completionCmd `cmd:"" help:"Print the script with which a shell completes commands and flags."`
}

func main() {
	// The first signal stops the command in order, the second ends it at once.
	ctx, unregister := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, unregister)

	err := dispatch(mysql.WithActor(ctx, operator()), os.Args[1:])

	var bad *usageError
	var command *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		complain(err)
		os.Exit(2)
	case errors.Is(err, errBroken): // the report has said everything
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

// errBroken ends a command whose output shows that a promise is broken, or that a bar of the bench is missed.
var errBroken = errors.New("a promise is broken")

// localDir is where everything that ctl starts keeps its files, unless --dir names another place.
const localDir = ".local"

// usageError says that a command was called wrongly.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// dispatch runs the command that the arguments name.
func dispatch(ctx context.Context, args []string) error {
	answered := false // by --help or --version
	parser, err := newParser(kong.Exit(func(int) { answered = true }))
	if err != nil {
		return err
	}

	chosen, err := parser.Parse(args)
	if answered {
		return nil
	}

	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		if len(args) == 0 {
			_ = wrong.Context.PrintUsage(false) // to a terminal that is gone, it matters to nobody
		}
		return usagef("%w; see: %s --help", err, pathOf(wrong.Context))
	}
	if err != nil {
		return err
	}

	if err := variablesOf(chosen).Parse(); err != nil {
		return usagef("configuration:\n%w", err)
	}

	chosen.BindTo(ctx, (*context.Context)(nil))
	return chosen.Run()
}

func newParser(options ...kong.Option) (*kong.Kong, error) {
	name, revision := version.Get()
	return kong.New(&cli{}, append(options,
		kong.Name("ctl"),
		kong.Description("Ctl operates Stampede."),
		kong.Vars{
			"version": fmt.Sprintf("stampede %s, revision %s", name, revision), "dir": localDir,
		},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		kong.Help(printHelp),
		kong.WithHyphenPrefixedParameters(true), // restock takes negative units
	)...)
}

// pathOf names the command that was chosen, as far as one was.
func pathOf(chosen *kong.Context) string {
	if node := chosen.Selected(); node != nil {
		return node.FullPath()
	}
	return chosen.Model.Name
}

// needsVariables is a command that reads variables of the environment. They are no flags: what a process is called with
// is shown to everybody on the machine, and passwords are among them.
type needsVariables interface {
	declare(vars *config.Set)
}

// variablesOf are what the chosen command reads from the environment.
func variablesOf(chosen *kong.Context) *config.Set {
	vars := config.New(pathOf(chosen))
	if node := chosen.Selected(); node != nil {
		if command, ok := node.Target.Addr().Interface().(needsVariables); ok {
			command.declare(vars)
		}
	}
	return vars
}

// printHelp shows the commands, or one command with its flags and variables. Of a group it shows also what the group is
// by itself, if it is a command.
func printHelp(options kong.HelpOptions, chosen *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, chosen); err != nil {
		return err
	}
	node := chosen.Selected()
	if node == nil || !node.Leaf() && node.DefaultCmd == nil {
		return nil
	}
	fmt.Fprintln(chosen.Stdout)
	if node.Leaf() {
		variablesOf(chosen).Usage(chosen.Stdout, "reads the environment as well.")
		return nil
	}
	itself, err := kong.Trace(chosen.Kong, strings.Fields(node.DefaultCmd.Path()))
	if err != nil {
		return err
	}
	return printHelp(options, itself)
}

// jsonFlag is part of the commands that print JSON if they are asked to.
type jsonFlag struct {
	JSON bool `help:"Print JSON."`
}

// needsMySQL is part of the commands that need MySQL and nothing else.
type needsMySQL struct{ dsn *string }

func (n *needsMySQL) declare(vars *config.Set) { n.dsn = vars.MySQLDSN() }

func (n *needsMySQL) open() (*mysql.DB, error) {
	db, err := mysql.Open(*n.dsn)
	if err != nil {
		return nil, fmt.Errorf("MYSQL_DSN: %w", err)
	}
	return db, nil
}

// parts are the three places that hold a sale, and the accounts.
type parts struct {
	db       *mysql.DB
	ledger   *ledger.Ledger
	accounts *account.Accounts
	redis    *redis.Client
	stock    *stock.Stock
	queue    *queue.Queue
}

// newParts are the parts that are made of MySQL and Redis; needsAll adds the queue.
func newParts(db *mysql.DB, rdb *redis.Client) parts {
	return parts{
		db: db, ledger: ledger.New(db), accounts: account.New(db), redis: rdb, stock: stock.New(rdb),
	}
}

// sale are the parts that an audit compares.
func (p parts) sale() audit.Sale {
	return audit.Sale{DB: p.db, Ledger: p.ledger, Stock: p.stock, Queue: p.queue}
}

func (p parts) close() {
	p.redis.Close()
	p.db.Close()
}

// needsStores is part of the commands that need MySQL and Redis.
type needsStores struct {
	needsMySQL
	redisURL *string
}

func (n *needsStores) declare(vars *config.Set) {
	n.needsMySQL.declare(vars)
	n.redisURL = vars.RedisURL()
}

func (n *needsStores) open() (parts, error) {
	db, err := n.needsMySQL.open()
	if err != nil {
		return parts{}, err
	}
	rdb, err := redis.Open(*n.redisURL)
	if err != nil {
		db.Close()
		return parts{}, fmt.Errorf("REDIS_URL: %w", err)
	}
	return newParts(db, rdb), nil
}

// needsAll is part of the commands that need MySQL, Redis and the queue.
type needsAll struct {
	needsStores
	queue, dlq *string
}

func (n *needsAll) declare(vars *config.Set) {
	n.needsStores.declare(vars)
	n.queue, n.dlq = vars.Queues()
}

func (n *needsAll) open(ctx context.Context) (parts, error) {
	p, err := n.needsStores.open()
	if err != nil {
		return parts{}, err
	}
	if p.queue, err = queue.Open(ctx, *n.queue, *n.dlq); err != nil {
		p.close()
		return parts{}, fmt.Errorf("ORDERS_QUEUE, ORDERS_DLQ, AWS_…: %w", err)
	}
	return p, nil
}
