package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/internal/lab"
	"stampede/localstack"
	"stampede/localstack/sqs"
)

const (
	// usualSpan is how long the buyers come, and usualWithin how soon after the last fault all must be well again.
	usualSpan   = 8 * time.Second
	usualWithin = 90 * time.Second
	// lossyWithin is for faults after which Redis does not know what it knew.
	lossyWithin = 120 * time.Second
	// faultAt is the part of the span after which the fault begins.
	faultAt = .25
	// outage is how long a server is gone that is started again, and badNetwork how long a network is bad.
	outage     = 3 * time.Second
	badNetwork = 6 * time.Second
	// longStop is longer than the visibility time-out of 60 s.
	longStop = 66 * time.Second
	// longOutage is for how long MySQL must be able to be away.
	longOutage = 60 * time.Second
	// midLoad is how long after the start of the programs the middle of the load begins.
	midLoad = 3 * time.Second
	// fireWait is how long a failpoint may take to be passed. The outbox is looked at after 40 s.
	fireWait = 75 * time.Second
)

// row is a fault, and how a run with it goes.
type row struct {
	name   string
	span   time.Duration // for which the buyers come; 0 is usualSpan
	within time.Duration // in which all must be well again; 0 is usualWithin
	rules  rules
	// fault does the damage and returns when it is healed.
	fault func(context.Context, *run) error
	// also checks what this row promises beyond the usual.
	also func(*run) []finding

	mariadbArgs []string
	keyless     bool              // buyers send no idempotency keys, and so repeat nothing
	redisKeeps  bool              // Redis keeps its data when it dies
	replica     bool              // Redis has a replica
	skew        time.Duration     // of the clock of the first edge
	points      map[string]string // terms of failpoints, by program ("edge-1") or kind of program ("edge")
	pointsFrom  time.Duration     // since the start of the programs, before which failpoints do nothing
	restockEnv  string            // terms of failpoints for the first restock
	split       bool              // the products but the first are in buckets
	masters     int               // of a Redis Cluster, or 0
	short       bool              // it is in the short selection of "make test"

	pays   bool    // the products must be paid
	wishes wishes  // of the buyers who must pay; nil are the usual ones
	part   float64 // of the orders of other runs; 0 is all
	// silent says that providers tell nothing of some payments. Who pays late where an attempt cannot be closed is then
	// found by nobody, so that the provider's own time passes as well, after which it takes no money.
	silent bool
	// decidedFirst says that no time passes before all orders are decided.
	decidedFirst bool
}

// env is what a member gets at its first start.
func (r row) env(m *member) []string {
	var terms []string
	for _, name := range []string{m.role, m.Name} {
		if t := r.points[name]; t != "" {
			terms = append(terms, t)
		}
	}
	if len(terms) == 0 {
		return nil
	}
	env := []string{"GOFAIL_FAILPOINTS=" + strings.Join(terms, ";")}
	if r.pointsFrom > 0 {
		env = append(env, "FAILPOINTS_AFTER="+r.pointsFrom.String())
	}
	return env
}

// matrix is all rows.
func matrix() []row {
	lossy := rules{forgetful: true}
	rows := []row{
		{name: "no fault", fault: func(context.Context, *run) error { return nil }},

		{name: "edge SIGKILL", fault: kill("edge-1")},
		{name: "edge SIGTERM", fault: terminate("edge-1"), short: true},
		{name: "worker SIGKILL", fault: kill("worker-1")},
		{name: "worker SIGTERM", fault: terminate("worker-1"), short: true},
		{name: "edges and workers SIGKILL", fault: kill("edge-1", "edge-2", "worker-1", "worker-2")},

		{name: "redis SIGKILL, data kept", redisKeeps: true, fault: restartRedis(syscall.SIGKILL)},
		{name: "redis SIGTERM, data kept", redisKeeps: true, fault: restartRedis(syscall.SIGTERM)},
		{name: "redis SIGKILL, data lost", within: lossyWithin, rules: lossy, fault: restartRedis(syscall.SIGKILL)},
		{name: "redis SIGTERM, data lost", within: lossyWithin, rules: lossy, fault: restartRedis(syscall.SIGTERM)},
		{name: "redis FLUSHALL", within: lossyWithin, rules: lossy, fault: flushRedis},
		{name: "redis fail-over, replica lags", within: lossyWithin, rules: lossy, replica: true, fault: failOver},

		{name: "mariadb SIGKILL", fault: restartMariaDB(syscall.SIGKILL), short: true},
		{name: "mariadb SIGTERM", fault: restartMariaDB(syscall.SIGTERM)},
		{name: "mariadb down for 60 s", span: 20 * time.Second, fault: mysqlDown, also: noAttemptUsed},
		{name: "sqs SIGKILL", fault: sqsDown},
		{name: "sqs SIGTERM", fault: sqsFaults(outage, sqs.Faults{Unavailable: true})},

		{name: "edge SIGSTOP 66 s", span: 30 * time.Second, fault: pause("edge-1", longStop)},
		{name: "worker SIGSTOP 66 s", span: 30 * time.Second, fault: pause("worker-1", longStop)},
		{name: "redis SIGSTOP 6 s", span: 12 * time.Second, fault: func(ctx context.Context, r *run) error {
			return stopFor(ctx, r.system.stack.Redis.Signal, 6*time.Second)
		}},
		{name: "mariadb SIGSTOP 10 s", span: 16 * time.Second, fault: func(ctx context.Context, r *run) error {
			return stopFor(ctx, r.system.stack.MariaDB.Signal, 10*time.Second)
		}},

		{name: "sqs duplicates 20 %", fault: sqsFaults(badNetwork, sqs.Faults{Duplicate: .2})},
		{name: "sqs reorders", fault: sqsFaults(badNetwork, sqs.Faults{Reorder: 1})},
		{name: "sqs delays 1 s", fault: sqsFaults(badNetwork, sqs.Faults{Delay: time.Second})},
		{name: "sqs delays 4 s", span: 12 * time.Second,
			fault: sqsFaults(badNetwork, sqs.Faults{Delay: 4 * time.Second})},
		{name: "sqs loses 20 % of the answers", fault: sqsFaults(badNetwork, sqs.Faults{Lose: .2})},
		{name: "sqs refuses 50 %", fault: sqsFaults(badNetwork, sqs.Faults{Refuse: .5})},
		{name: "sqs is over its limit", fault: sqsFaults(outage, sqs.Faults{Refuse: 1, RefuseWith: "OverLimit"})},
		{name: "sqs fails 20 % of the entries", fault: sqsFaults(badNetwork, sqs.Faults{FailEntry: .2})},
		{name: "sqs all at once", fault: sqsFaults(badNetwork, sqs.Faults{
			Duplicate: .2, Reorder: .5, FailEntry: .1, Refuse: .1, Lose: .05, Delay: 50 * time.Millisecond,
		})},

		{name: "edge's clock is 10 min fast", skew: 10 * time.Minute, fault: wait(badNetwork)},
		{name: "edge's clock is 10 min slow", skew: -10 * time.Minute, fault: wait(badNetwork)},
	}
	for _, pair := range pairs {
		rows = append(rows,
			row{name: pair + " cut", fault: flap(pair)},
			row{name: pair + " half-open", span: 10 * time.Second, fault: toxic(pair, "timeout", `"timeout":0`)},
			row{name: pair + " slow", span: 10 * time.Second,
				fault: toxic(pair, "latency", `"latency":400,"jitter":200`)},
		)
	}
	rows = append(rows, diskRows()...)
	rows = append(rows, bucketRows()...)
	rows = append(rows, paymentRows()...)
	return append(rows, failpointRows()...)
}

// buckets is how many a product has that is split: so many that they run out one after the other.
const buckets = 8

// bucketRows are faults while units go from one bucket of a product to another, which they do when a product sells out
// and after each restock.
func bucketRows() (rows []row) {
	add := func(r row) {
		r.name, r.split = "buckets: "+r.name, true
		rows = append(rows, r)
	}
	lossy := rules{forgetful: true}
	add(row{name: "no fault", fault: func(context.Context, *run) error { return nil }})
	add(row{name: "edge SIGKILL", fault: kill("edge-1")})
	add(row{name: "redis SIGKILL, data lost", within: lossyWithin, rules: lossy, fault: restartRedis(syscall.SIGKILL)})
	add(row{name: "mariadb SIGKILL", fault: restartMariaDB(syscall.SIGKILL)})
	add(row{name: "edge-mysql half-open", span: 10 * time.Second, fault: toxic("edge-mysql", "timeout", `"timeout":0`)})
	add(row{name: "one of 3 redis SIGKILL, data lost", masters: 3, within: lossyWithin, rules: lossy,
		fault: restartMaster})
	for _, c := range []struct{ point, what string }{
		{"before-lend", "error"}, {"before-lend", "lost"}, {"after-lend", "crash"}, {"after-lend", "lost"},
		{"after-lend", "delay 50s"}, {"before-move", "crash"}, {"before-move", "error"},
		{"before-move-commit", "crash"},
		{"before-move-commit", "error"}, {"after-move-commit", "crash"}, {"after-move-commit", "lost"},
		{"after-move-commit", "delay 50s"}, {"before-restock", "lost"}, {"before-lent", "crash"},
		{"before-lent", "error"},
		{"after-lent", "crash"}, {"after-lent", "lost"},
	} {
		r := row{name: c.point + ": " + c.what, short: c.point == "after-move-commit" && c.what == "lost"}
		r.points = map[string]string{"edge": fmt.Sprintf("stampede/%s=3*return(%q)", c.point, c.what)}
		if c.what != "error" && c.what != "lost" {
			r.points = map[string]string{"edge-1": fmt.Sprintf("stampede/%s=1*return(%q)", c.point, c.what)}
		}
		r.fault = func(ctx context.Context, r *run) error { return r.waitFired(ctx, "edge", c.point+": "+c.what) }
		add(r)
	}
	return rows
}

// restartMaster kills one of the masters of a Cluster, which comes back empty.
func restartMaster(ctx context.Context, r *run) error {
	c := r.system.stack.Cluster
	if err := c.Masters[1].Kill(); err != nil {
		return err
	}
	if err := sleep(ctx, outage); err != nil {
		return err
	}
	if err := c.Masters[1].Start(ctx); err != nil {
		return err
	}
	return c.Wait(ctx)
}

// failpointRows make a process die at each step, and let the step fail or lose its answer.
func failpointRows() (rows []row) {
	const (
		once = "2*off->1*return"  // at the third pass in the middle of the load
		some = "2*off->10*return" // likewise, several times
	)
	add := func(r row, role, point, what string, fault func(context.Context, *run) error) {
		r.name = "failpoint " + point + ": " + what
		before := fault
		r.fault = func(ctx context.Context, run *run) error {
			if before != nil {
				if err := before(ctx, run); err != nil {
					return err
				}
			}
			return run.waitFired(ctx, role, point+": "+what)
		}
		rows = append(rows, r)
	}
	term := func(point, chain, what string) string { return fmt.Sprintf("stampede/%s=%s(%q)", point, chain, what) }

	for _, step := range []struct {
		role, name string
		before     []string // what is done at the point before the step
	}{
		{"edge", "reserve", []string{"crash", "error", "lost"}},
		{"edge", "send", []string{"crash", "error", "lost"}},
		{"edge", "acknowledge", []string{"error"}},
		{"worker", "receive", nil},
		{"worker", "decide", []string{"crash", "error"}},
		{"worker", "commit", []string{"crash", "error", "lost"}},
		{"worker", "settle", []string{"error", "lost"}},
		{"worker", "delete", []string{"crash", "error"}},
	} {
		points := map[string][]string{"before-" + step.name: step.before, "after-" + step.name: {"crash", "lost"}}
		if step.name == "decide" {
			delete(points, "after-decide") // that is after-commit
		}
		for _, point := range []string{"before-" + step.name, "after-" + step.name} {
			for _, what := range points[point] {
				r := row{points: map[string]string{step.role: term(point, some, what)}, pointsFrom: midLoad}
				if what == "crash" {
					r.points = map[string]string{step.role + "-1": term(point, once, what)}
				}
				r.short = point == "after-commit" && what == "lost" || point == "after-send" && what == "crash"
				add(r, step.role, point, what, nil)
			}
		}
	}
	// A worker that stands still for longer than the visibility time-out between commit and settle, while others get
	// its messages, and an edge that stands still with orders which the relay then sends.
	add(row{span: 12 * time.Second, pointsFrom: midLoad,
		points: map[string]string{"worker-1": term("before-settle", once, "delay 66s")}},
		"worker", "before-settle", "delay 66s", wait(longStop))
	add(row{span: 12 * time.Second, pointsFrom: midLoad,
		points: map[string]string{"edge-1": term("before-send", once, "delay 45s")}},
		"edge", "before-send", "delay 45s", wait(45*time.Second))

	// Units are given back only when the queue refuses orders.
	refusal := sqsFaults(outage, sqs.Faults{Actions: []string{"SendMessageBatch"}, Refuse: 1, RefuseWith: "OverLimit"})
	for _, c := range []struct{ point, what string }{
		{"before-cancel", "crash"}, {"before-cancel", "error"}, {"before-cancel", "lost"}, {"after-cancel",
			"crash"}, {"after-cancel", "lost"},
	} {
		r := row{points: map[string]string{"edge": term(c.point, "5*return", c.what)}}
		if c.what == "crash" {
			r.points = map[string]string{"edge-1": term(c.point, "1*return", c.what)}
		}
		add(r, "edge", c.point, c.what, refusal)
	}

	// A product is put on sale once, when the first order for it comes.
	for _, c := range []struct{ point, what string }{
		{"before-load", "crash"}, {"before-load", "error"}, {"after-load", "crash"}, {"after-load", "lost"},
	} {
		r := row{points: map[string]string{"edge": term(c.point, "2*return", c.what)}}
		if c.what == "crash" {
			r.points = map[string]string{"edge-1": term(c.point, "1*return", c.what)}
		}
		add(r, "edge", c.point, c.what, nil)
	}

	// The relay finds orders that edges could not send, and whose buyers do not repeat them since they have no key.
	for _, c := range []struct {
		point, what string
		times       int // which are over within 40 s
	}{
		{"before-claim", "error", 16}, {"after-claim", "crash", 1}, {"after-claim", "lost", 4},
		{"before-send", "error", 6}, {"before-send", "lost", 40}, {"after-send", "crash", 1}, {"after-send", "lost",
			40},
		{"after-acknowledge", "crash", 1}, {"after-acknowledge", "lost", 4},
	} {
		r := row{keyless: true, points: map[string]string{
			"edge":     term("before-send", "20*off->200*return", "lost"),
			"worker-1": term(c.point, fmt.Sprintf("%d*return", c.times), c.what),
			"worker-2": term("before-claim", "20*return", "error"), // leaves it to the other for a while
		}}
		add(r, "worker", c.point, c.what, nil)
		rows[len(rows)-1].name = "relay: " + rows[len(rows)-1].name
	}

	// An operator repeats a restock that has failed.
	for _, c := range []struct{ point, what string }{
		{"before-restock", "crash"}, {"before-restock", "error"}, {"after-restock", "crash"}, {"after-restock", "lost"},
	} {
		rows = append(rows, row{
			name: "failpoint " + c.point + ": " + c.what, restockEnv: term(c.point, "1*return", c.what),
			fault: func(ctx context.Context, r *run) error { return r.waitRestock(ctx) },
		})
	}
	return rows
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func wait(d time.Duration) func(context.Context, *run) error {
	return func(ctx context.Context, _ *run) error { return sleep(ctx, d) }
}

// strike signals programs at a moment when edges and workers have orders in their hands.
func (r *run) strike(ctx context.Context, sig syscall.Signal, names ...string) error {
	slow := []string{"edge-sqs", "worker-mysql"}
	for _, link := range slow {
		if err := r.system.poison(link, "latency", `"latency":200`); err != nil {
			return err
		}
	}
	err := sleep(ctx, time.Second)
	for _, name := range names {
		err = errors.Join(err, r.system.member(name).signal(sig))
	}
	for _, link := range slow {
		r.system.cure(link)
	}
	return err
}

// kill ends programs with SIGKILL, and waits until they run again.
func kill(names ...string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.strike(ctx, syscall.SIGKILL, names...); err != nil {
			return err
		}
		return r.waitReady(ctx)
	}
}

// terminate asks a program to stop, which it must do in order and in time, and waits until it runs again.
func terminate(name string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		m := r.system.member(name)
		p := m.current()
		if err := r.strike(ctx, syscall.SIGTERM, name); err != nil {
			return err
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lab.StopWait):
			return fmt.Errorf("%s has not stopped %s after SIGTERM", name, lab.StopWait)
		}
		if p.ExitCode() != 0 {
			return fmt.Errorf("%s ended with code %d after SIGTERM", name, p.ExitCode())
		}
		return r.waitReady(ctx)
	}
}

// stopFor stops a process with SIGSTOP for a time.
func stopFor(ctx context.Context, signal func(os.Signal) error, d time.Duration) error {
	if err := signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := sleep(ctx, d)
	return errors.Join(err, signal(syscall.SIGCONT))
}

func pause(name string, d time.Duration) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.strike(ctx, syscall.SIGSTOP, name); err != nil {
			return err
		}
		err := sleep(ctx, d)
		return errors.Join(err, r.system.member(name).signal(syscall.SIGCONT))
	}
}

// restart ends a server, and starts it again after a time. Its proxies refuse connections meanwhile, as its port does.
func (r *run) restart(ctx context.Context, link string, signal func() error, kill func() error,
	start func(context.Context) error, gone time.Duration) error {
	if err := signal(); err != nil {
		return err
	}
	r.system.cut(link)
	if err := sleep(ctx, gone); err != nil {
		return err
	}
	if err := errors.Join(kill(), start(ctx)); err != nil {
		return err
	}
	return r.system.mend(link)
}

func restartRedis(sig syscall.Signal) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		s := r.system.stack.Redis
		return r.restart(ctx, "redis", func() error { return s.Signal(sig) }, s.Kill, s.Start, outage)
	}
}

func restartMariaDB(sig syscall.Signal) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		s := r.system.stack.MariaDB
		return r.restart(ctx, "mysql", func() error { return s.Signal(sig) }, s.Kill, s.Start, outage)
	}
}

func mysqlDown(ctx context.Context, r *run) error {
	s := r.system.stack.MariaDB
	return r.restart(ctx, "mysql", s.Kill, s.Kill, s.Start, longOutage)
}

func flushRedis(ctx context.Context, r *run) error {
	rdb := newRedis(r.system.redisAddr())
	defer rdb.Close()
	return rdb.FlushAll(ctx).Err()
}

// replicationLag is what a fail-over loses.
const replicationLag = time.Second

// startReplica gives Redis a replica, behind a proxy of its own, and waits until it has everything.
func (s *system) startReplica(ctx context.Context) error {
	host, port, _ := strings.Cut(s.links["replication"].Listen, ":")
	var err error
	if s.replica, err = localstack.StartRedis(ctx,
		localstack.RedisOptions{Dir: s.dir + "/replica", Args: []string{"--replicaof", host, port}}); err != nil {
		return err
	}
	rdb := newRedis(s.replica.Addr())
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, lab.StartWait)
	defer cancel()
	for {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && strings.Contains(info, "master_link_status:up") {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("the replica does not follow: %w: %s", err, info)
		}
	}
}

// failOver kills a Redis whose replica has heard nothing for a moment, and makes that replica the master.
func failOver(ctx context.Context, r *run) error {
	s := r.system
	s.cut("replication")
	if err := sleep(ctx, replicationLag); err != nil {
		return err
	}
	if err := s.stack.Redis.Kill(); err != nil {
		return err
	}
	s.cut("redis")
	if err := sleep(ctx, outage); err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: s.replica.Addr()})
	defer rdb.Close()
	if err := rdb.Do(ctx, "replicaof", "no", "one").Err(); err != nil {
		return err
	}
	s.current.Store(s.replica)
	for _, p := range s.link("redis") {
		p.Upstream = s.replica.Addr()
	}
	return s.mend("redis")
}

// sqsDown is a queue whose server dies. SQS keeps what it has acknowledged, so that nothing of its data is lost; what
// its clients see is that connections break in the middle of requests and that new ones are refused.
func sqsDown(ctx context.Context, r *run) error {
	r.system.cut("sqs")
	if err := sleep(ctx, outage); err != nil {
		return err
	}
	return r.system.mend("sqs")
}

// sqsFaults makes the queue misbehave towards edges and workers for a time.
func sqsFaults(d time.Duration, f sqs.Faults) func(context.Context, *run) error {
	if f.Actions == nil {
		f.Actions = []string{"SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"}
	}
	return func(ctx context.Context, r *run) error {
		f.Seed = r.seed
		r.system.stack.SQS.SetFaults(f)
		err := sleep(ctx, d)
		r.system.stack.SQS.SetFaults(sqs.Faults{})
		return err
	}
}

// flap cuts a link again and again.
func flap(link string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		for range 6 {
			r.system.cut(link)
			if err := sleep(ctx, 400*time.Millisecond); err != nil {
				return err
			}
			if err := r.system.mend(link); err != nil {
				return err
			}
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
}

// toxic puts a toxic on a link for a time.
func toxic(link, kind, attributes string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.system.poison(link, kind, attributes); err != nil {
			return err
		}
		err := sleep(ctx, badNetwork)
		r.system.cure(link)
		return err
	}
}

// noAttemptUsed checks that an outage of MySQL has cost no order an attempt, and that the edges went on accepting
// during it for as long as there was stock.
func noAttemptUsed(r *run) (broken []finding) {
	if n := r.system.stack.SQS.MostReceived(localstack.QueueName); n != 1 {
		broken = append(broken, finding{"P2", 1, fmt.Sprintf("a message was received %d times", n)})
	}
	for _, m := range r.system.workers {
		if content, err := os.ReadFile(m.LogFile); err != nil || strings.Contains(string(content), `"attempt":`) {
			broken = append(broken, finding{"P2", 1,
				fmt.Sprintf("%s has counted an attempt against an order (%v)", m.Name, err)})
		}
	}
	during := 0
	for _, in := range r.load.intents {
		for _, a := range in.answers {
			late := a.sent > r.began+2*time.Second && a.got < r.healed
			if late && a.status == 202 {
				during++
			}
			if late && a.status >= 500 {
				broken = append(broken, finding{"P2", 1,
					fmt.Sprintf("while MySQL was down an edge answered %d: %s", a.status, a.body)})
			}
		}
	}
	if during == 0 {
		broken = append(broken, finding{"P2", 1, "no order was accepted while MySQL was down"})
	}
	return broken
}
