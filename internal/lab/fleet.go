// Package lab starts Stampede from its sources on servers of its own, for the commands of ctl that try it out (demo,
// up, run and bench) and for tests: it builds the programs, launches and awaits them, loads them, and judges what
// became of the sale.
package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"stampede/internal/audit"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/token"
	"stampede/localstack"
	"stampede/localstack/pay"
)

// Size says how large a stack is, and where it keeps programs, data and logs while it runs.
type Size struct {
	Edges, Workers int
	Dir            string
}

// fleet is a stack of servers with programs of its own, each a process.
type fleet struct {
	dir     string // of this fleet's data and logs
	bin     string // of the programs
	stack   *localstack.Stack
	db      *mysql.DB     // nil if it was not opened
	redis   *redis.Client // nil if it was not opened
	sale    audit.Sale
	tokens  *token.Keeper
	env     []string
	running map[string][]*Process // by role
	door    *Door                 // nil if it was not opened
	pay     *pay.Server           // nil if no payments are taken
}

// startFleet builds the programs of all roles and what others are named, and starts the servers in a new directory
// below dir, with an empty database that is migrated. Whatever it returns, close it.
func startFleet(ctx context.Context, dir, name string, tell func(string), programs ...string) (*fleet, error) {
	f := &fleet{bin: filepath.Join(dir, "bin"), running: map[string][]*Process{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	tell("building the programs")
	for _, r := range roles {
		programs = append(programs, "./"+r.name)
	}
	if err := Build(ctx, "", append([]string{"-o", f.bin + string(filepath.Separator)}, programs...)...); err != nil {
		return f, err
	}

	var err error
	if f.dir, err = os.MkdirTemp(dir, name+"-"); err != nil {
		return f, err
	}
	tell("starting Redis, MariaDB and the queue")
	if f.stack, err = localstack.Start(ctx, localstack.Options{Dir: f.dir}); err != nil {
		return f, err
	}
	// The AWS SDK reads the environment, and so do the commands that are run on the stack.
	for _, variable := range f.stack.Env() {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return f, err
		}
	}

	raw := make([]byte, token.MinSecretBytes)
	rand.Read(raw)
	secret := hex.EncodeToString(raw)
	f.tokens = token.NewKeeper(secret)
	f.env = append(os.Environ(), "JWT_SECRET="+secret, "SHUTDOWN_NOTICE=0s", "LOG_LEVEL=info")

	if err := f.open(ctx); err != nil {
		return f, err
	}
	tell("migrating the database")
	_, err = f.db.Migrate(ctx)
	return f, err
}

// open connects this process to the servers.
func (f *fleet) open(ctx context.Context) (err error) {
	if f.db, err = mysql.Open(f.stack.MariaDB.DSN(localstack.DatabaseName)); err != nil {
		return err
	}
	f.sale.DB, f.sale.Ledger = f.db, ledger.New(f.db)
	if f.redis, err = redis.Open(f.stack.Redis.URL()); err != nil {
		return err
	}
	f.sale.Stock = stock.New(f.redis)
	f.sale.Queue, err = queue.Open(ctx, localstack.QueueName, localstack.DLQName)
	return err
}

// runAll starts all that people use: programs, with one shop, the front door to edges and shop, and providers of
// payments.
func (f *fleet) runAll(ctx context.Context, size Size) error {
	// The programs are told where the front door is, so that it has its address before they start.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	front := "http://" + ln.Addr().String()
	f.pay, err = pay.Start(pay.Options{Merchant: "Stampede", Webhooks: map[string]string{
		pay.PayPal: front + "/webhooks/paypal", pay.Stripe: front + "/webhooks/stripe",
	}})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	f.env = append(f.env, append(f.pay.Env(), "FRONT="+front)...)

	if err := f.run(ctx, map[string]int{"edge": size.Edges, "shop": 1, "worker": size.Workers}); err != nil {
		return errors.Join(err, ln.Close())
	}
	f.door = openDoor(ln, f.addrs("edge"), f.addrs("shop"))
	return nil
}

// run starts so many programs of each role and waits until they are ready.
func (f *fleet) run(ctx context.Context, count map[string]int) error {
	for _, r := range roles {
		for n := range count[r.name] {
			p, err := f.launch(ctx, r.name, r.name, fmt.Sprintf("%s-%d", r.name, n+1))
			if p != nil {
				f.running[r.name] = append(f.running[r.name], p)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// all are the programs that run starts, in the order in which it does.
func (f *fleet) all() (all []*Process) {
	for _, r := range roles {
		all = append(all, f.running[r.name]...)
	}
	return all
}

// addrs are the public addresses of the programs of a role.
func (f *fleet) addrs(roleName string) (addrs []string) {
	for _, p := range f.running[roleName] {
		addrs = append(addrs, p.Addr)
	}
	return addrs
}

// urls are where the edges take requests.
func (f *fleet) urls() (urls []string) {
	for _, addr := range f.addrs("edge") {
		urls = append(urls, "http://"+addr)
	}
	return urls
}

// board is the address of the board, which shows all processes, on the first edge.
func (f *fleet) board() string { return "http://" + f.running["edge"][0].Admin + "/board" }

// launch starts a program of a role under a name of its own and waits until it is ready. If the process is not nil it
// runs, and the caller stops it, also after an error.
func (f *fleet) launch(ctx context.Context, roleName, binary, name string) (*Process, error) {
	p, err := NewProgram(roleName, Program{
		Name: name, Path: filepath.Join(f.bin, binary), LogFile: filepath.Join(f.dir, name+".log"), Env: f.env,
	})
	if err != nil {
		return nil, err
	}
	return p.Launch(ctx)
}

// close stops everything in order: the front door, the programs of one role after those of another, then the servers.
// It keeps the directory if keep is true.
func (f *fleet) close(keep bool) error {
	var errs []error
	if f.door != nil {
		errs = append(errs, f.door.Close())
	}
	for _, r := range roles {
		list := f.running[r.name]
		killed := make([]bool, len(list))
		var stops sync.WaitGroup
		for i, p := range list {
			stops.Go(func() { killed[i] = p.Stop(StopWait) })
		}
		stops.Wait()
		for i, p := range list {
			if killed[i] {
				errs = append(errs, fmt.Errorf("process %d did not stop in time and was killed", p.Pid()))
			}
		}
	}

	if f.pay != nil {
		errs = append(errs, f.pay.Close())
	}
	if f.redis != nil {
		f.redis.Close()
	}
	if f.db != nil {
		f.db.Close()
	}
	if f.stack != nil {
		errs = append(errs, f.stack.Close())
	}
	if f.dir != "" && !keep {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}

// ended gives a line for each program that ends, also when all are stopped.
func (f *fleet) ended() <-chan string {
	all := f.all()
	ended := make(chan string, len(all))
	for _, p := range all {
		go func() {
			<-p.Done()
			ended <- fmt.Sprintf("%s ended by itself; the end of its log: %s", p.Name, p.LogTail())
		}()
	}
	return ended
}
