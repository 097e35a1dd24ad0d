package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
)

const (
	// runLimit bounds a run, whatever happens in it.
	runLimit = 6 * time.Minute
	// checkPause is the wait before the books are looked at again, if they were not in order.
	checkPause = 2 * time.Second
	// maxRSS bounds the memory of an edge or a worker, also while something that they need is away.
	maxRSS = 256 << 20
	// fewestOrders is how many a run has at least that has a part of what the others have.
	fewestOrders = 60
	// restockPause is the wait of an operator before a restock that failed is repeated.
	restockPause = time.Second
)

// run is one row of the matrix at work.
type run struct {
	row      row
	seed     uint64
	bin      programs
	dir      string
	products []product
	system   *system
	load     *load
	sampler  *sampler

	began, healed time.Duration // the fault, since the start of the load
	restocks      sync.WaitGroup
	restockErr    error

	over       time.Time       // when all time to pay was let pass; zero before
	paidByHand map[string]bool // refunds, by number
}

// result is what a run has shown.
type result struct {
	row                                 row
	orders, accepted, completed, failed int
	requests                            int64
	recovered                           bool
	recovery                            time.Duration // from the end of the fault until all was well
	broken                              []finding
	payments                            int   // that providers took
	err                                 error // the run itself has failed
	dir                                 string
	began, healed                       time.Duration
	samples                             []sample
	edgeRSS, workerRSS                  int64
}

func (r *result) ok() bool { return r.err == nil && r.recovered && len(r.broken) == 0 }

// do makes a run in a new directory, which is kept if it shows anything bad.
func do(ctx context.Context, r row, bin programs, root, id string, orders int, seed uint64) (res *result) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	if r.part > 0 {
		orders = max(fewestOrders, int(float64(orders)*r.part))
	}
	res = &result{row: r, orders: orders}
	if res.dir, res.err = os.MkdirTemp(root, id+"-"); res.err != nil {
		return res
	}
	run := &run{row: r, seed: seed, bin: bin, dir: res.dir, products: products(orders)}
	if r.pays {
		run.products = paidProducts(orders, time.Now())
	}
	if r.split {
		for i := range run.products[1:] { // the first stays whole
			run.products[i+1].buckets = buckets
		}
	}
	run.system, res.err = newSystem(ctx, run.dir, bin, r, run.products)
	if res.err == nil {
		res.err = run.sell(ctx, orders, res)
	}
	res.err = errors.Join(res.err, run.system.close())
	if res.ok() {
		res.err = os.RemoveAll(res.dir)
	}
	return res
}

// sell sends the buyers, does the damage meanwhile, waits until all is well, and writes down what it was.
func (r *run) sell(ctx context.Context, orders int, res *result) error {
	span := cmp.Or(r.row.span, usualSpan)
	within := cmp.Or(r.row.within, usualWithin)
	start := time.Now()
	r.load = &load{
		urls: r.system.urls(), secret: r.system.secret, orders: orders, duration: span,
		products: slices.Clone(r.products),
		keyless:  r.row.keyless, start: start,
	}
	r.load.plan(r.seed)
	if r.row.pays {
		close := r.startPayers(ctx)
		defer close()
	}
	r.sampler = &sampler{system: r.system, products: slices.Clone(r.products), start: start} // the restocks change them
	looking, endLooking := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() { r.sampler.run(looking) })
	defer func() {
		endLooking()
		others.Wait()
		res.samples = r.sampler.taken()
		for _, s := range res.samples {
			res.edgeRSS, res.workerRSS = max(res.edgeRSS, s.edgeRSS), max(res.workerRSS, s.workerRSS)
		}
	}()
	r.restocks.Go(func() { r.restockErr = r.restock(ctx, span) })
	faulty := make(chan error, 1)
	go func() {
		err := sleep(ctx, time.Duration(float64(span)*faultAt))
		r.began = time.Since(start)
		if err == nil {
			err = r.row.fault(ctx, r)
		}
		r.healed = time.Since(start)
		faulty <- err
	}()
	r.load.run(ctx)
	passErr := r.passTime(ctx)
	err := errors.Join(<-faulty, passErr)
	r.restocks.Wait()
	res.began, res.healed, res.requests = r.began, r.healed, r.load.requests.Load()
	if err := errors.Join(err, r.restockErr, ctx.Err()); err != nil {
		return err
	}

	books, err := r.becomeWell(ctx, start.Add(r.healed+within), span, res)
	if err != nil {
		return err
	}
	r.count(books, res)
	res.broken = append(res.broken, r.judgeProcesses()...)
	if r.row.also != nil {
		res.broken = append(res.broken, r.row.also(r)...)
	}
	return nil
}

// becomeWell waits until all is well, which it must be in time: first quiet, then in order. What a background repair
// still corrects may take several looks.
func (r *run) becomeWell(ctx context.Context, deadline time.Time, span time.Duration, res *result) (*books, error) {
	for repaired := false; ; repaired = repaired || len(res.broken) > 0 {
		quietAt, quiet := r.sampler.quietSince()
		settledAt, settled := r.settle(ctx)
		quiet = quiet && settled
		late := time.Now().After(deadline)
		if quiet || late {
			books, err := r.read(ctx)
			if err != nil {
				return nil, err
			}
			res.broken = r.judge(books)
			if quiet && len(res.broken) == 0 {
				quietAt = max(quietAt, settledAt)
				if repaired {
					quietAt = time.Since(r.load.start)
				}
				res.recovered, res.recovery = true, max(0, quietAt-max(r.healed, span))
				return books, nil
			}
			if late {
				res.recovery = time.Since(r.load.start) - r.healed
				return books, nil
			}
		}
		pause := sampleInterval
		if quiet {
			pause = checkPause
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// read reads the books from the servers themselves.
func (r *run) read(ctx context.Context) (*books, error) {
	db, err := sql.Open("mysql", "root@tcp("+r.system.stack.MariaDB.Addr()+")/stampede")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rdb := newRedis(r.system.redisAddr())
	defer rdb.Close()
	p := places{db: db, rdb: rdb, sqs: r.system.queue, edge: r.system.urls()[0], secret: r.system.secret}
	if r.system.cashier != nil {
		p.provider = r.system.cashier.pay.URL()
	}
	return p.read(ctx, r.products, r.load.intents)
}

// judge says which promises the books break.
func (r *run) judge(b *books) []finding {
	broken := judge(r.load.intents, r.products, b, r.row.rules)
	if b.money != nil {
		judgeMoney(r.load.payers.purchases, b, r.over, func(promise string, n int64, format string, args ...any) {
			broken = append(broken, finding{promise, n, fmt.Sprintf(format, args...)})
		})
	}
	return broken
}

func (r *run) count(b *books, res *result) {
	if b.money != nil {
		res.payments = len(b.money.Payments)
	}
	ids := map[string]bool{}
	for _, in := range r.load.intents {
		for _, a := range in.answers {
			if a.status == 202 {
				ids[a.orderID] = true
			}
		}
	}
	res.accepted = len(ids)
	for _, rows := range b.orders {
		if rows[0].status == "completed" {
			res.completed++
		} else {
			res.failed++
		}
	}
}

// judgeProcesses looks at what the programs have logged and used.
func (r *run) judgeProcesses() (broken []finding) {
	for _, m := range r.system.members() {
		for _, e := range m.ended() {
			// 1 is a start while something is down, and SIGKILL is ours.
			if e.code > 1 || e.signal != 0 && e.signal != syscall.SIGKILL {
				broken = append(broken, finding{"process", 1,
					fmt.Sprintf("%s ended with code %d, signal %d", m.Name, e.code, e.signal)})
			}
		}
		content, err := os.ReadFile(m.LogFile)
		if err != nil {
			broken = append(broken, finding{"process", 1, err.Error()})
			continue
		}
		if i := strings.Index(string(content), "panic:"); i >= 0 {
			broken = append(broken, finding{"process", 1,
				m.Name + " panicked: " + string(content[i:min(len(content), i+200)])})
		}
		if slices.ContainsFunc(append(r.system.cashier.secrets(), r.system.secret, "eyJhbGciOi"), func(s string) bool {
			return strings.Contains(string(content), s)
		}) {
			broken = append(broken, finding{"process", 1, m.Name + " has logged a token or a secret"})
		}
	}
	for _, s := range r.sampler.taken() {
		if s.edgeRSS > maxRSS || s.workerRSS > maxRSS {
			broken = append(broken, finding{"process", 1,
				fmt.Sprintf("an edge had %d MiB, a worker %d MiB of memory", s.edgeRSS>>20, s.workerRSS>>20)})
			break
		}
	}
	return broken
}

// restock adds units to the last product twice during the load, and repeats one of the two to no effect. A restock that
// fails is repeated until it succeeds, as its message tells the operator to do.
func (r *run) restock(ctx context.Context, span time.Duration) error {
	p := &r.products[len(r.products)-1]
	env := []string{"GOFAIL_FAILPOINTS=" + r.row.restockEnv}
	units := p.stock // what is restocked is as much as there was
	for i, id := range []string{"delivery-1", "delivery-1", "delivery-2"} {
		if err := sleep(ctx, time.Until(r.load.start.Add(span*time.Duration(4+2*i)/10))); err != nil {
			return err
		}
		for {
			out, err := r.system.ctl(ctx, r.bin, env, "restock", "--product", fmt.Sprint(p.id), "--units",
				fmt.Sprint(units), "--id", id)
			r.note("restock " + id + ": " + out)
			env = nil
			if err == nil {
				break
			}
			if err := sleep(ctx, restockPause); err != nil {
				return fmt.Errorf("restock: %w: %s", err, out)
			}
		}
		if i != 1 {
			p.restocked += units
		}
	}
	return nil
}

// note keeps what ctl has said beside the logs of the programs.
func (r *run) note(text string) {
	f, err := os.OpenFile(filepath.Join(r.dir, "ctl.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		fmt.Fprintln(f, strings.TrimSpace(text))
		f.Close()
	}
}

// waitRestock waits until all restocks have succeeded, the first of which has failed.
func (r *run) waitRestock(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.restocks.Wait()
		close(done)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
	}
	said, err := os.ReadFile(filepath.Join(r.dir, "ctl.log"))
	if err == nil && !strings.Contains(string(said), "failpoint ") {
		err = errors.New("the failpoint was not passed")
	}
	return err
}

// waitReady waits until all programs answer that they are ready, also those that are being started again.
func (r *run) waitReady(ctx context.Context) error {
	for _, m := range r.system.members() {
		if err := m.Await(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// waitFired waits until a failpoint of an edge or a worker has done what it was to do and, if that was to kill its
// process, until that runs again. A fault that did not happen proves nothing.
func (r *run) waitFired(ctx context.Context, role, what string) error {
	late, cancel := context.WithTimeout(ctx, fireWait)
	defer cancel()
	for {
		fired := 0
		for _, m := range r.system.members() {
			if m.role == role {
				fired += m.fired(what)
			}
		}
		if fired > 0 {
			break
		}
		if sleep(late, 50*time.Millisecond) != nil {
			return errors.New("no " + role + " passed failpoint " + what)
		}
	}
	if err := sleep(ctx, 2*restartPause); err != nil {
		return err
	}
	return r.waitReady(ctx)
}
