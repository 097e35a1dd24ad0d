package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"stampede/internal/lab"
	"stampede/internal/mysql"
	"stampede/internal/payment/providers"
	"stampede/internal/till"
	"stampede/localstack"
	"stampede/localstack/pay"
)

const (
	// payWithin is how long orders wait for their payment, by clocks that nothing moves.
	payWithin = 15 * time.Minute
	// passed is how much time the clock of a run lets pass: more than any order waits, and any provider tells late.
	passed = 2 * time.Hour
	// haste shortens the leases and retries of payments, so that a run need not last for minutes. leased is a little
	// longer than such a lease then is.
	haste  = 20
	leased = 4 * time.Second
	// orderSpan is in what time the orders come that must be paid.
	orderSpan = 1500 * time.Millisecond
)

// cashier is what a run with payments has beside edges and workers: a shop, the front door to both, the providers,
// which are in this process, and what an operator makes refunds by hand with.
type cashier struct {
	pay  *pay.Server
	door *lab.Door
	till *till.Till
	db   *mysql.DB
	env  []string // of the providers
}

// openShop makes a shop and all that is around it, and tells edges and workers.
func (s *system) openShop(bin programs) error {
	shop, err := s.newMember("shop", 1, bin.shop)
	if err != nil {
		return err
	}
	s.shops = append(s.shops, shop)
	c := &cashier{}
	s.cashier = c
	var edges []string
	for _, m := range s.edges {
		edges = append(edges, m.Addr)
	}
	if c.door, err = lab.OpenDoor(edges, []string{shop.Addr}); err != nil {
		return err
	}
	c.pay, err = pay.Start(pay.Options{
		Webhooks: map[string]string{
			pay.PayPal: c.door.URL + "/webhooks/paypal", pay.Stripe: c.door.URL + "/webhooks/stripe",
		},
		Pauses: []time.Duration{
			200 * time.Millisecond, 500 * time.Millisecond, time.Second, time.Second, time.Second, 2 * time.Second,
			2 * time.Second, 2 * time.Second,
		},
	})
	if err != nil {
		return err
	}
	c.env = append(c.pay.Env(), "FRONT="+c.door.URL)
	for _, m := range s.members() {
		m.Env = append(m.Env, append(c.env, fmt.Sprintf("FAILPOINTS_HASTE=%d", haste))...)
	}
	if c.db, err = mysql.Open(s.stack.MariaDB.DSN(localstack.DatabaseName)); err != nil {
		return err
	}
	set, err := providers.FromEnv(func(name string) string {
		for _, variable := range c.env {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				return value
			}
		}
		return ""
	})
	c.till = &till.Till{DB: c.db, Providers: set.All, Front: c.door.URL, TestMode: set.TestMode}
	return err
}

func (c *cashier) close() error {
	var errs []error
	if c.door != nil {
		errs = append(errs, c.door.Close())
	}
	if c.pay != nil {
		errs = append(errs, c.pay.Close())
	}
	if c.db != nil {
		c.db.Close()
	}
	return errors.Join(errs...)
}

// secrets are what no program may log.
func (c *cashier) secrets() (secrets []string) {
	if c == nil {
		return nil
	}
	for _, variable := range c.env {
		name, value, _ := strings.Cut(variable, "=")
		if strings.Contains(name, "SECRET") || strings.Contains(name, "HASH") || strings.Contains(name, "PRIVATE") {
			secrets = append(secrets, value)
		}
	}
	return secrets
}

// startPayers has the buyers of the load pay. What it returns ends their connections.
func (r *run) startPayers(ctx context.Context) (end func()) {
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	p := &payers{
		front: r.system.cashier.door.URL, provider: r.system.cashier.pay.URL(), secret: r.system.secret,
		pass: r.passTimeOf, client: &http.Client{Timeout: patience, Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	wishes := r.row.wishes
	if wishes == nil {
		wishes = usualWishes
	}
	p.plan(r.load.intents, r.products, wishes, r.seed)
	r.load.payers = p
	if r.row.part == payPart { // before most are paid
		r.load.duration = orderSpan
	}
	return transport.CloseIdleConnections
}

// passTimeOf lets time pass for one order, so that it must not be paid any more. It does to the order's rows what time
// does: they are older then. The next look of a worker finds it.
func (r *run) passTimeOf(ctx context.Context, orderID string) error {
	id, err := uuid.Parse(orderID)
	if err != nil {
		return err
	}
	if r.row.silent {
		if err := r.lapse(ctx, id); err != nil {
			return err
		}
	}
	return r.older(ctx, ` WHERE order_id = ?`, ` WHERE order_id = ?`, id[:])
}

// lapse lets time pass at the provider that cannot close an attempt. One of which it does not know stays unknown.
func (r *run) lapse(ctx context.Context, id uuid.UUID) error {
	var numbers []string
	err := r.system.cashier.db.SelectContext(ctx, &numbers,
		`SELECT number FROM payments WHERE order_id = ? AND provider = ?`, id[:], pay.ECPay)
	for _, number := range numbers {
		_, _ = r.system.cashier.pay.Act("lapse", pay.ECPay, number, "") // it may be paid, or unknown
	}
	return err
}

// older makes orders and attempts older.
func (r *run) older(ctx context.Context, holds, attempts string, args ...any) error {
	db := r.system.cashier.db
	seconds := int(passed.Seconds())
	_, err := db.ExecContext(ctx, fmt.Sprintf(`UPDATE holds SET pay_by = pay_by - INTERVAL %d SECOND,
		due_at = due_at - INTERVAL %d SECOND`, seconds, seconds)+holds, args...)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx,
		fmt.Sprintf(`UPDATE payments SET expires_at = expires_at - INTERVAL %d SECOND`, seconds)+attempts, args...)
	return err
}

// passTime lets the time pass of all orders and attempts of which it has not: the buyers have gone. It is repeated
// until it succeeds, since MySQL may be down.
func (r *run) passTime(ctx context.Context) error {
	if !r.row.pays {
		return nil
	}
	if r.row.decidedFirst {
		if err := r.awaitDecided(ctx); err != nil {
			return err
		}
	}
	r.over = time.Now()
	var err error
	repeat(ctx, func() (int, []byte, error) {
		err = r.passAll(ctx)
		return http.StatusOK, nil, err
	}, func(status int, _ []byte) bool { return status != 0 })
	return err
}

func (r *run) passAll(ctx context.Context) error {
	if err := r.older(ctx, ` WHERE state = 'awaiting_payment' AND pay_by > UTC_TIMESTAMP(3)`,
		` WHERE state IN ('created', 'open') AND expires_at > UTC_TIMESTAMP(3)`); err != nil {
		return err
	}
	// What is put off for longer than a lease is nobody's, and its time has passed as well.
	for _, table := range []string{"payments", "refunds"} {
		_, err := r.system.cashier.db.ExecContext(ctx, `UPDATE `+table+` SET next_at = UTC_TIMESTAMP(3)
			WHERE next_at > UTC_TIMESTAMP(3) + INTERVAL ? SECOND`, int(leased.Seconds()))
		if err != nil {
			return err
		}
	}
	return nil
}

// settle lets time pass after the fault, makes the refunds that are for an operator to make, and reports whether
// nothing of any payment is under way, and since when. What goes wrong in it is done again at the next look.
func (r *run) settle(ctx context.Context) (since time.Duration, settled bool) {
	if !r.row.pays {
		return 0, true
	}
	err := errors.Join(r.passAll(ctx), r.refundByHand(ctx))
	var open sql.NullString
	if err == nil {
		err = r.system.cashier.db.GetContext(ctx, &open, openQuery)
	}
	switch {
	case err != nil:
		r.note("payments: " + err.Error())
	case !open.Valid && r.system.cashier.pay.Counts().Pending == 0:
		return time.Since(r.load.start), true
	}
	return 0, false
}

// openQuery names something that is under way, or nothing.
const openQuery = `SELECT MIN(what) FROM (
	SELECT 'order' AS what FROM holds WHERE state IN ('awaiting_payment', 'closing')
	UNION ALL SELECT 'payment' FROM payments WHERE state IN ('created', 'open')
	UNION ALL SELECT 'refund' FROM refunds WHERE state <> 'done'
	UNION ALL SELECT 'units' FROM returned_units) AS open`

// refundByHand makes the refunds that no provider makes, as the operator's guide says: the provider is asked whether it
// has made one after all, then the money goes back, and then that is noted.
func (r *run) refundByHand(ctx context.Context) error {
	c := r.system.cashier
	ctx = mysql.WithActor(ctx, "faults:operator")
	refunds, err := c.till.RefundsByHand(ctx)
	if err != nil {
		return err
	}
	for _, refund := range refunds {
		if !r.paidByHand[refund.Number] {
			made, err := c.till.MadeByProvider(ctx, refund.Number)
			if err == nil && !made {
				err = c.pay.RefundByHand(refund.Provider, refund.Attempt, refund.Number, refund.Amount)
			}
			if err != nil {
				return err
			}
			if r.paidByHand == nil {
				r.paidByHand = map[string]bool{}
			}
			r.paidByHand[refund.Number] = true
		}
		if _, err := c.till.DoneByHand(ctx, refund.Number, "by bank transfer"); err != nil {
			return err
		}
	}
	return nil
}
