package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"stampede/internal/lab"
	"stampede/localstack/pay"
)

const (
	// payPart is the part of the orders of other runs that one with payments has, and manyPart one with a great expiry.
	payPart, manyPart = .1, 5
	// paySpan is about how long their buyers are at it.
	paySpan = 4 * time.Second
	// payTrouble is for how long providers misbehave at least, and happenWait how long that may take to happen.
	payTrouble, happenWait = 4 * time.Second, 20 * time.Second
	// decideWait is how long orders may take to be decided, before workers are killed.
	decideWait = 20 * time.Second
	// decidedLooks is how often in a row the queue is empty then.
	decidedLooks = 25
	// forgePause is the time between two rounds of forged notices.
	forgePause = 300 * time.Millisecond
)

// paymentRows are faults while orders are paid.
func paymentRows() (rows []row) {
	for _, some := range [][]row{payProcessRows(), payServerRows(), providerRows(), payPointRows(), payMomentRows()} {
		for _, r := range some {
			r.name, r.pays = "pay: "+r.name, true
			if r.part == 0 {
				r.part = payPart
			}
			if r.span == 0 {
				r.span = paySpan
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// payProcessRows end and stop programs.
func payProcessRows() []row {
	everyone := []string{"edge-1", "edge-2", "shop-1", "worker-1", "worker-2"}
	return []row{
		{name: "no fault", fault: func(context.Context, *run) error { return nil }},
		{name: "shop SIGKILL", fault: payKill("shop-1"), short: true},
		{name: "shop SIGTERM", fault: payTerminate("shop-1")},
		{name: "worker SIGKILL", fault: payKill("worker-1")},
		{name: "workers SIGKILL", fault: payKill("worker-1", "worker-2")},
		{name: "worker SIGTERM", fault: payTerminate("worker-1")},
		{name: "all programs SIGKILL", fault: payKill(everyone...)},
		// A lease is three seconds long in these runs.
		{name: "worker SIGSTOP 5 s", fault: payStop("worker-1", 5*time.Second)},
		{name: "shop SIGSTOP 5 s", fault: payStop("shop-1", 5*time.Second)},
	}
}

// payServerRows are those in which MySQL, Redis or a connection to them is away.
func payServerRows() []row {
	lossy := rules{forgetful: true}
	rows := []row{
		{name: "redis SIGKILL, data lost", within: lossyWithin, rules: lossy, fault: restartRedis(syscall.SIGKILL)},
		{name: "redis SIGKILL, data kept", redisKeeps: true, fault: restartRedis(syscall.SIGKILL)},
		{name: "redis FLUSHALL", within: lossyWithin, rules: lossy, fault: flushRedis},
		{name: "mariadb SIGKILL", fault: restartMariaDB(syscall.SIGKILL)},
		{name: "mariadb SIGTERM", fault: restartMariaDB(syscall.SIGTERM)},
		{name: "mariadb SIGSTOP 5 s", fault: func(ctx context.Context, r *run) error {
			return stopFor(ctx, r.system.stack.MariaDB.Signal, 5*time.Second)
		}},
		{name: "worker-mysql half-open", fault: toxic("worker-mysql", "timeout", `"timeout":0`)},
		{name: "worker-redis half-open", fault: toxic("worker-redis", "timeout", `"timeout":0`)},
		{name: "shop-mysql half-open", fault: toxic("shop-mysql", "timeout", `"timeout":0`)},
		{name: "shop-mysql slow", fault: toxic("shop-mysql", "latency", `"latency":100,"jitter":50`)},
	}
	for _, pair := range shopPairs {
		rows = append(rows, row{name: pair + " cut", fault: flap(pair)})
	}
	return rows
}

// providerRows are those in which providers are away, slow, or misbehave.
func providerRows() []row {
	fault := func(name string, faults ...pay.Fault) row {
		return row{name: name, fault: misbehave(payTrouble, faults...)}
	}
	one := func(kind, call string, probability float64) pay.Fault {
		return pay.Fault{Kind: kind, Call: call, Probability: probability}
	}
	late := pay.Fault{Kind: pay.NoticeLate, Probability: .5, DelayMS: 3000}
	behind := pay.Fault{Kind: pay.NoticeOutOfOrder, Probability: .5, DelayMS: 2000}
	// The programs give up a little before the end of their lease, and what they have asked for is done then.
	slow := pay.Fault{Kind: pay.Slow, Call: "refund", Count: 6, DelayMS: 4000}
	return []row{
		{name: "provider killed", fault: killProvider},
		fault("provider down", pay.Fault{Kind: pay.Down, DelayMS: 3000}),
		fault("one provider down", pay.Fault{Provider: pay.Stripe, Kind: pay.Down, DelayMS: 3000}),
		fault("provider slow", pay.Fault{Kind: pay.Slow, Probability: .3, DelayMS: 1000}),
		fault("refund outlasts its lease", slow),
		fault("notices twice", one(pay.NoticeTwice, "", .5)),
		fault("notices with a twin", one(pay.NoticeTwin, "", .5)),
		fault("notices late", late),
		fault("notices out of order", behind),
		fault("notices before the answer", one(pay.NoticeFirst, "", 0)),
		asSilent(fault("no notices", one(pay.NoticeNever, "", 0))),
		fault("notices forged", one(pay.NoticeForged, "", .5)),
		{name: "payments forged", fault: forge},
		fault("create: answers lost", one(pay.AnswerLost, "create", .5)),
		fault("create: requests lost", one(pay.RequestLost, "create", .5)),
		fault("create: refused", one(pay.Refused, "create", .3)),
		fault("capture: answers lost", one(pay.AnswerLost, "capture", .5)),
		fault("capture: refused", one(pay.Refused, "capture", .3)),
		fault("close: answers lost", one(pay.AnswerLost, "close", .5)),
		fault("close: trouble", one(pay.Trouble, "close", .5)),
		fault("paid while closing", one(pay.PaidWhileClosing, "", .7)),
		fault("refund: answers lost", one(pay.AnswerLost, "refund", .7)),
		fault("refund: requests lost", one(pay.RequestLost, "refund", .7)),
		fault("refund: refused", one(pay.Refused, "refund", .5)),
		fault("refund: trouble", one(pay.Trouble, "refund", .7)),
		fault("query: trouble", one(pay.Trouble, "query", .5)),
		fault("notices cannot be verified", pay.Fault{Provider: pay.PayPal, Kind: pay.Trouble, Call: "verify"}),
		fault("number issued before paid", pay.Fault{Provider: pay.ECPay, Kind: pay.IssuedFirst}),
		asSilent(fault("everything at once", one(pay.NoticeTwice, "", .2), one(pay.NoticeForged, "", .2), late, behind,
			one(pay.AnswerLost, "", .1), one(pay.RequestLost, "", .1), one(pay.Trouble, "", .1),
			one(pay.PaidWhileClosing, "", .3), one(pay.NoticeNever, "", .1), one(pay.Refused, "refund", .2))),
	}
}

// asSilent is a row whose providers tell nothing of some payments.
func asSilent(r row) row {
	r.silent = true
	return r
}

// payPointRows make programs die at each step of a payment, and let the step fail or lose its answer.
func payPointRows() (rows []row) {
	for _, step := range []struct {
		role, name    string
		before, after []string // what is done at the points before and after the step
	}{
		{"shop", "provider", []string{"crash", "error"}, []string{"crash", "lost"}},
		{"shop", "record", []string{"error"}, nil},
		{"shop", "record-commit", []string{"crash", "lost"}, []string{"crash", "lost"}},
		{"shop", "expire-commit", []string{"crash"}, []string{"crash", "lost"}},
		{"shop", "return", []string{"crash"}, []string{"crash"}},
		{"worker", "provider", []string{"crash", "error"}, []string{"crash", "lost"}},
		{"worker", "record-commit", []string{"crash", "error"}, []string{"crash", "lost"}},
		{"worker", "close-commit", []string{"crash", "error"}, []string{"crash", "lost"}},
		{"worker", "refund-commit", []string{"crash", "error"}, []string{"crash", "lost"}},
		{"worker", "expire", []string{"error"}, nil},
		{"worker", "expire-commit", []string{"crash", "error", "lost"}, []string{"crash", "lost"}},
		{"worker", "return", []string{"crash", "error", "lost"}, []string{"crash", "lost"}},
	} {
		for _, place := range []string{"before-", "after-"} {
			whats := step.before
			if place == "after-" {
				whats = step.after
			}
			for _, what := range whats {
				point := place + step.name
				chain := "1*off->4*return" // by each program of the kind
				if what == "crash" {
					chain = "1*off->1*return"
				}
				r := row{name: fmt.Sprintf("%s %s: %s", step.role, point, what),
					points: map[string]string{step.role: fmt.Sprintf("stampede/%s=%s(%q)", point, chain, what)},
					fault: func(ctx context.Context, r *run) error {
						return r.waitFired(ctx, step.role, point+": "+what)
					}}
				if step.role == "worker" { // not while orders are decided
					r.pointsFrom = midLoad
				}
				if step.role == "worker" && step.name == "record-commit" {
					r.fault, r.silent = untold(r.fault), true
				}
				r.short = point == "after-record-commit" && what == "lost" && step.role == "shop"
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// untold keeps the providers from telling the shop of payments meanwhile, so that workers have to find them.
func untold(fault func(context.Context, *run) error) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		p := r.system.cashier.pay
		if err := p.SetFaults(pay.Faults{Faults: []pay.Fault{{Kind: pay.NoticeNever}}}); err != nil {
			return err
		}
		return errors.Join(fault(ctx, r), p.SetFaults(pay.Faults{}))
	}
}

// payMomentRows have something happen at the very moment at which a program is in the middle of a step.
func payMomentRows() []row {
	lossy := rules{forgetful: true}
	at := func(role, point, delay string, then func(context.Context, *run) error) row {
		what := "delay " + delay
		return row{
			points:     map[string]string{role: fmt.Sprintf("stampede/%s=1*off->3*return(%q)", point, what)},
			pointsFrom: midLoad / 2,
			fault: func(ctx context.Context, r *run) error {
				kind, _, _ := strings.Cut(role, "-")
				if err := r.await(ctx, fireWait, "a "+kind+" passes "+point, func() bool {
					n := 0
					for _, m := range r.system.members() {
						if m.role == kind {
							n += m.fired(point + ": " + what)
						}
					}
					return n > 0
				}); err != nil {
					return err
				}
				return then(ctx, r)
			},
		}
	}
	named := func(name string, r row) row {
		r.name = name
		return r
	}
	flush := named("redis FLUSHALL after a return", at("worker", "after-return", "2s", flushRedis))
	flush.rules, flush.within = lossy, lossyWithin
	return []row{
		flush,
		named("mariadb SIGKILL in a record", at("shop", "before-record-commit", "1s", restartMariaDB(syscall.SIGKILL))),
		named("mariadb SIGKILL in an expiry",
			at("worker", "before-expire-commit", "1s", restartMariaDB(syscall.SIGKILL))),
		named("worker SIGKILL with a lease", at("worker-1", "after-provider", "2500ms", payKill("worker-1"))),
		named("a call outlasts its lease", at("worker-1", "after-provider", "4s", wait(time.Second))),
		{name: "worker SIGKILL in a great expiry", part: manyPart, span: manySpan, wishes: wishes{{forgets, 100}},
			decidedFirst: true, fault: killInExpiry},
	}
}

// await waits until something is true.
func (r *run) await(ctx context.Context, most time.Duration, what string, isTrue func() bool) error {
	late, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for !isTrue() {
		if sleep(late, 10*time.Millisecond) != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("in %s it did not come that %s", most, what))
		}
	}
	return nil
}

// payStrike signals programs when no order is under way: what a worker dies with is hidden for a minute, which other
// rows are about.
func (r *run) payStrike(ctx context.Context, sig os.Signal, names ...string) error {
	if err := r.awaitDecided(ctx); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, r.system.member(name).signal(sig))
	}
	return errors.Join(errs...)
}

// awaitDecided waits until all orders that were placed are decided.
func (r *run) awaitDecided(ctx context.Context) error {
	looks := 0 // in a row at which the queue was empty
	return r.await(ctx, decideWait, "all orders are decided", func() bool {
		looks++
		if time.Since(r.load.start) < r.load.duration || r.system.queued(ctx) > 0 {
			looks = 0
		}
		return looks > decidedLooks
	})
}

func payKill(names ...string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.payStrike(ctx, syscall.SIGKILL, names...); err != nil {
			return err
		}
		if err := sleep(ctx, 2*restartPause); err != nil {
			return err
		}
		return r.waitReady(ctx)
	}
}

func payTerminate(name string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		p := r.system.member(name).current()
		if err := r.payStrike(ctx, syscall.SIGTERM, name); err != nil {
			return err
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lab.StopWait):
		}
		if p.ExitCode() != 0 {
			return fmt.Errorf("%s ended with code %d in %s after SIGTERM", name, p.ExitCode(), lab.StopWait)
		}
		return r.waitReady(ctx)
	}
}

func payStop(name string, d time.Duration) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.payStrike(ctx, syscall.SIGSTOP, name); err != nil {
			return err
		}
		err := sleep(ctx, d)
		return errors.Join(err, r.system.member(name).signal(syscall.SIGCONT))
	}
}

// killProvider ends the providers as a crash would, and starts them again.
func killProvider(ctx context.Context, r *run) error {
	p := r.system.cashier.pay
	p.Kill()
	err := sleep(ctx, outage)
	return errors.Join(err, p.Start())
}

// misbehave has the providers misbehave for a time, and until each of the faults has happened.
func misbehave(d time.Duration, faults ...pay.Fault) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		p := r.system.cashier.pay
		if faults[0].Provider == pay.ECPay && !slices.Contains(r.products[0].providers, pay.ECPay) {
			return nil // nobody pays there now
		}
		if err := p.SetFaults(pay.Faults{Seed: r.seed, Faults: faults}); err != nil {
			return err
		}
		err := sleep(ctx, d)
		for _, f := range faults {
			err = errors.Join(err, r.await(ctx, happenWait, "it happens: "+strings.TrimSpace(f.Kind+" "+f.Call),
				func() bool { return happened(p, f) }))
		}
		return errors.Join(err, p.SetFaults(pay.Faults{}))
	}
}

// happened reports whether a fault has.
func happened(p *pay.Server, f pay.Fault) bool {
	for what := range p.Happened() {
		fields := strings.Fields(what) // provider, kind, and the call if there is one
		if fields[1] == f.Kind && (f.Call == "" || fields[len(fields)-1] == f.Call) {
			return true
		}
	}
	return false
}

// forge has somebody tell again and again that what nobody has paid is paid.
func forge(ctx context.Context, r *run) error {
	p := r.system.cashier.pay
	for since := time.Now(); time.Since(since) < payTrouble; {
		for _, a := range p.Books().Attempts {
			if a.Status == pay.Open {
				if err := p.Forge(a.Provider, a.Number); err != nil {
					return err
				}
			}
		}
		if err := sleep(ctx, forgePause); err != nil {
			return err
		}
	}
	return r.await(ctx, happenWait, "forged notices arrive", func() bool { return p.Counts().Forged > 0 })
}

// manySpan is in what time the orders of a great expiry come.
const manySpan = 8 * time.Second

// killInExpiry kills both workers when some of very many orders are cancelled, and others are not yet.
func killInExpiry(ctx context.Context, r *run) error {
	left := 0
	if err := r.await(ctx, fireWait, "some orders are cancelled, and others not yet", func() bool {
		var count struct {
			Cancelled int `db:"cancelled"`
			Left      int `db:"left"`
		}
		err := r.system.cashier.db.GetContext(ctx, &count, `SELECT COALESCE(SUM(state = 'cancelled'), 0) AS cancelled,
			COALESCE(SUM(state <> 'cancelled'), 0) AS `+"`left`"+` FROM holds`)
		left = count.Left
		return err == nil && count.Cancelled > 0
	}); err != nil {
		return err
	}
	if left == 0 {
		return errors.New("all orders were cancelled before the workers were killed")
	}
	for _, m := range r.system.workers {
		if err := m.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := sleep(ctx, 2*restartPause); err != nil {
		return err
	}
	return r.waitReady(ctx)
}
