package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/reconcile"
	"stampede/internal/till"
)

// needsProviders is part of the commands that ask providers of payments.
type needsProviders struct{ settings *till.Settings }

func (n *needsProviders) declare(vars *config.Set) { n.settings = till.Declare(vars) }

// needsTill is part of the commands that change payments in MySQL and ask their providers.
type needsTill struct {
	needsMySQL
	needsProviders
}

func (n *needsTill) declare(vars *config.Set) {
	n.needsMySQL.declare(vars)
	n.needsProviders.declare(vars)
}

// open returns the till, whose database the caller closes.
func (n *needsTill) open() (*till.Till, error) {
	db, err := n.needsMySQL.open()
	if err != nil {
		return nil, err
	}
	asks, err := n.settings.Till(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return asks, nil
}

// paymentReport is an attempt to pay, with what its provider has told of it.
type paymentReport struct {
	Number           string         `json:"number"`
	Provider         string         `json:"provider"`
	Method           string         `json:"method,omitempty"`
	State            till.State     `json:"state"`
	UserID           order.UserID   `json:"user_id"`
	OrderID          *order.OrderID `json:"order_id,omitempty"`
	Points           int64          `json:"points,omitempty"`
	Amount           int64          `json:"amount"` // in minor units
	Fee              int64          `json:"fee,omitempty"`
	Currency         string         `json:"currency"`
	Item             string         `json:"item"`
	Reference        string         `json:"reference,omitempty"`
	PaymentReference string         `json:"payment_reference,omitempty"`
	CreatedAt        time.Time      `json:"created_at"`
	ExpiresAt        time.Time      `json:"expires_at"`
	CapturedAt       time.Time      `json:"captured_at,omitzero"`
	PaidAt           time.Time      `json:"paid_at,omitzero"`
	Tries            int64          `json:"tries"`
	Events           []paymentEvent `json:"events"` // oldest first
	Refunds          []refundReport `json:"refunds"`
}

// paymentEvent is something that a provider has told.
type paymentEvent struct {
	At     time.Time   `json:"at"`
	Kind   string      `json:"kind"`
	Source till.Source `json:"source"`
	Key    string      `json:"event_key,omitempty"`
	Body   string      `json:"body,omitempty"` // only if it is asked for
}

type paymentShowCmd struct {
	ID  string `arg:"" help:"Number of an attempt to pay, or id of an order."`
	Raw bool   `help:"Show also what providers have sent, as it came. There may be personal data in it."`
	jsonFlag
	needsMySQL
}

func (c *paymentShowCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	return showPayments(ctx, os.Stdout, &till.Till{DB: db}, c.ID, c.Raw, c.JSON)
}

// showPayments prints an attempt, or those of an order.
func showPayments(ctx context.Context, w io.Writer, from *till.Till, id string, raw, asJSON bool) error {
	var attempts []till.Payment
	var orderID order.OrderID
	if err := orderID.UnmarshalText([]byte(id)); err == nil {
		if attempts, err = from.OfOrder(ctx, orderID); err != nil {
			return err
		}
		if len(attempts) == 0 {
			return fmt.Errorf("nobody has begun to pay order %s", orderID)
		}
	} else {
		attempt, err := from.Payment(ctx, id)
		if errors.Is(err, mysql.ErrNotFound) {
			return fmt.Errorf("there is no payment %q, and it is no id of an order", id)
		}
		if err != nil {
			return err
		}
		attempts = append(attempts, attempt)
	}

	reports := []paymentReport{}
	for i := range attempts {
		report, err := reportPayment(ctx, from, &attempts[i], raw)
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}
	if asJSON {
		return writeJSON(w, reports)
	}
	for i := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := reports[i].print(w); err != nil {
			return err
		}
	}
	return nil
}

// reportPayment reads what belongs to an attempt.
func reportPayment(ctx context.Context, from *till.Till, p *till.Payment, raw bool) (paymentReport, error) {
	r := paymentReport{
		Number: p.Number, Provider: p.Provider, Method: p.Method, State: p.State, UserID: p.UserID, Points: p.Points,
		Amount: p.Amount, Fee: p.Fee, Currency: p.Currency, Item: p.Item, Reference: p.Reference,
		PaymentReference: p.PaymentReference, CreatedAt: p.CreatedAt, ExpiresAt: p.ExpiresAt,
		CapturedAt: p.CapturedAt, PaidAt: p.PaidAt, Tries: p.Tries,
		Events: []paymentEvent{}, Refunds: []refundReport{},
	}
	if p.OrderID != (order.OrderID{}) {
		r.OrderID = &p.OrderID
	}
	events, err := from.Events(ctx, p.Provider, p.Number)
	if err != nil {
		return r, err
	}
	for _, e := range events {
		event := paymentEvent{At: e.ReceivedAt, Kind: e.Kind, Source: e.Source, Key: e.Key}
		if raw {
			event.Body = string(e.Body)
		}
		r.Events = append(r.Events, event)
	}
	refunds, err := from.RefundsOfAttempt(ctx, p.Number)
	for i := range refunds {
		r.Refunds = append(r.Refunds, newRefundReport(&refunds[i]))
	}
	return r, err
}

// print writes an attempt for people.
func (r *paymentReport) print(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(tab, name+"\t"+format+"\n", args...) }
	line("payment", "%s: %s", r.Number, r.State)
	line("of", "%s", sumText(r.Amount, r.Currency))
	if r.OrderID != nil {
		line("for", "order %s of user %d", r.OrderID, r.UserID)
	} else {
		line("for", "%d points of user %d", r.Points, r.UserID)
	}
	line("by", "%s", strings.TrimSpace(r.Provider+" "+r.Method))
	line("item", "%q", r.Item)
	line("reference", "%s", orDash(r.Reference != "", plaintext.Escape(r.Reference)))
	line("begun", "%s", r.CreatedAt.Format(storyTime))
	line("expires", "%s", r.ExpiresAt.Format(storyTime))
	if !r.CapturedAt.IsZero() {
		line("being taken", "since %s", r.CapturedAt.Format(storyTime))
	}
	if !r.PaidAt.IsZero() {
		line("paid", "%s, reference %s, fee %s", r.PaidAt.Format(storyTime), plaintext.Escape(r.PaymentReference),
			sumText(r.Fee, r.Currency))
	}
	line("asked", "%d times", r.Tries)
	if err := tab.Flush(); err != nil {
		return err
	}

	if len(r.Events) > 0 {
		fmt.Fprintln(tab, "\nreceived\tkind\tsource\tevent key")
		for _, e := range r.Events {
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", e.At.Format(storyTime), plaintext.Escape(e.Kind), e.Source,
				orDash(e.Key != "", plaintext.Escape(e.Key)))
			if e.Body != "" {
				fmt.Fprintf(tab, "  %s\n", plaintext.Escape(e.Body))
			}
		}
	}
	if len(r.Refunds) > 0 {
		fmt.Fprintln(tab, "\nrefund\tstate\tamount\treason\tsince\tnote")
		for _, f := range r.Refunds {
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Number, f.State, sumText(f.Amount, f.Currency), f.Reason,
				f.CreatedAt.Format(storyTime), plaintext.Escape(f.Note))
		}
	}
	return tab.Flush()
}

// sumText writes an amount of money or points for people.
func sumText(amount int64, currency string) string {
	if currency == order.PointsCurrency {
		return fmt.Sprintf("%d points", amount)
	}
	return order.Money(amount, currency)
}

type paymentSyncCmd struct {
	Number string `arg:"" help:"Number of the attempt to pay."`
	needsTill
}

func (c *paymentSyncCmd) Run(ctx context.Context) error {
	asks, err := c.open()
	if err != nil {
		return err
	}
	defer asks.DB.Close()
	return syncPayment(ctx, os.Stdout, asks, c.Number)
}

// syncPayment asks a provider how an attempt stands, and says what has changed by it.
func syncPayment(ctx context.Context, w io.Writer, asks *till.Till, number string) error {
	before, err := asks.Payment(ctx, number)
	if err != nil {
		return err
	}
	if before.State == till.Paid || before.State == till.Closed {
		fmt.Fprintf(w, "payment %s: %s, which is final; nobody was asked\n", number, before.State)
		return nil
	}
	after, err := asks.Sync(ctx, number)
	switch {
	case err != nil:
		return err
	case after.State == before.State:
		fmt.Fprintf(w, "payment %s: %s still has not been paid; it may be until %s\n", number, after.Provider,
			after.ExpiresAt.Format(time.RFC3339))
		return nil
	}
	fmt.Fprintf(w, "payment %s: it was %s, and is %s\n", number, before.State, after.State)
	if after.OrderID == (order.OrderID{}) {
		return nil
	}
	record, err := ledger.New(asks.DB).Order(ctx, after.OrderID)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "order %s: %s\n", after.OrderID, outcome(&record))
	return nil
}

type paymentRefundCmd struct {
	ID          order.OrderID `arg:"" help:"Id of the order."`
	Amount      int64         `placeholder:"N" help:"Minor units or points; all that is left if not given."`
	ReturnUnits bool          `help:"Put all units of the order on sale again."`
	Note        string        `required:"" placeholder:"TEXT" help:"Why, for the log and the books."`
	Refund      string        `name:"id" placeholder:"ID" help:"Number of the refund: the same one is made once."`

	needsStores
	needsProviders
}

func (c *paymentRefundCmd) declare(vars *config.Set) {
	c.needsStores.declare(vars)
	c.needsProviders.declare(vars)
}

func (c *paymentRefundCmd) Run(ctx context.Context) error {
	if c.Amount < 0 {
		return usagef("payment refund: --amount must be positive, or absent for all that is left")
	}
	p, err := c.open()
	if err != nil {
		return err
	}
	defer p.close()
	asks, err := c.settings.Till(p.db)
	if err != nil {
		return err
	}
	if c.Refund == "" {
		c.Refund = till.NewNumber()
	}
	return p.refund(ctx, os.Stdout, asks, till.RefundRequest{
		OrderID: c.ID, Number: c.Refund, Amount: c.Amount, ReturnUnits: c.ReturnUnits, Note: c.Note,
	})
}

// refund gives back what an order has cost, and says how that stands. It may be repeated with the same number.
func (p parts) refund(ctx context.Context, w io.Writer, asks *till.Till, r till.RefundRequest) error {
	refund, returned, err := asks.RefundOrder(ctx, r)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return fmt.Errorf("there is no order %s that was paid", r.OrderID)
	case err != nil:
		return err
	}
	again := fmt.Sprintf("repeat the command with --id %s", r.Number)

	if r.ReturnUnits {
		if err := p.putOnSale(ctx, w, r.OrderID, returned); err != nil {
			return fmt.Errorf("refund %s is noted: %w", r.Number, err)
		}
	}
	if refund.State == till.RefundDue {
		if _, ok := asks.Provider(refund.Provider); !ok {
			return fmt.Errorf("refund %s is noted, and a worker makes it: here there is no provider %q: set its "+
				"variables", refund.Number, refund.Provider)
		}
		if err := asks.MakeRefund(ctx, refund.Number); err != nil {
			return fmt.Errorf("refund %s is noted, and a worker makes it; or %s: %w", refund.Number, again, err)
		}
		if refund, err = asks.Refund(ctx, refund.Number); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "refund %s of %s for order %s: %s\n", refund.Number, sumText(refund.Amount, refund.Currency),
		r.OrderID, standsAs(&refund))
	return nil
}

// putOnSale puts the units of an order that MySQL has taken back on sale.
func (p parts) putOnSale(ctx context.Context, w io.Writer, id order.OrderID, returned []order.Returned) error {
	if len(returned) == 0 {
		hold, err := p.ledger.Hold(ctx, id)
		switch {
		case err != nil:
			return err
		case hold.ReturnedVersion == 0:
			return errors.New("it was there before, and has returned no units: give another --id to return them")
		}
		fmt.Fprintf(w, "order %s: its units were taken back before\n", id)
		return nil
	}
	units, err := reconcile.Return(ctx, p.stock, p.ledger, returned[0].StockID, returned)
	if err != nil {
		return fmt.Errorf("workers put its units on sale: %w", err)
	}
	if units < returned[0].Quantity {
		fmt.Fprintf(w, "order %s: MySQL has its %d units back; Redis has them when it loads the product\n", id,
			returned[0].Quantity)
		return nil
	}
	fmt.Fprintf(w, "order %s: its %d units are on sale again\n", id, units)
	return nil
}

// standsAs says what has become of a refund, and what is to be done.
func standsAs(r *till.RefundRecord) string {
	switch r.State {
	case till.RefundDone:
		return "done"
	case till.RefundManual:
		return fmt.Sprintf("it is to be made by hand (%s); then: ctl refund done %s --note TEXT",
			plaintext.Escape(r.Note), r.Number)
	}
	return fmt.Sprintf("%s has not said yet whether it is made; workers go on asking", r.Provider)
}
