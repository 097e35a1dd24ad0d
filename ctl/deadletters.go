package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/queue"
	"stampede/internal/stock"
)

const (
	// maxLetters bounds the dead letters of one command.
	maxLetters = 10_000
	// lettersHidden is how long a command may take before others see its dead letters again.
	lettersHidden = 2 * time.Minute
	// lettersWait is how long a command waits for dead letters that others look at at the moment.
	lettersWait = 5 * time.Second
	// pausedWait and pausedTries bound the wait for a sale that is paused.
	pausedWait  = 250 * time.Millisecond
	pausedTries = 60
	// redriveTimeout bounds the sending of one order.
	redriveTimeout = 10 * time.Second
)

// letter is a dead letter as the operator sees it.
type letter struct {
	ID     string `json:"message_id"`
	Reason string `json:"reason"`
	// Attempts is how often its order had failed when it was given up, 0 if the queue gave it up by itself.
	Attempts int           `json:"attempts"`
	SentAt   time.Time     `json:"sent_at,omitzero"`
	Age      string        `json:"age"`
	Orders   []letterOrder `json:"orders"`
	Body     string        `json:"body,omitempty"`
	// Result says what a command has done, or would do.
	Result string `json:"result,omitempty"`

	receipt string
	decoded []order.Order
}

// letterOrder is an order in a dead letter, and what MySQL says of it.
type letterOrder struct {
	ID        order.OrderID   `json:"order_id"`
	UserID    order.UserID    `json:"user_id"`
	ProductID order.ProductID `json:"product_id"`
	Quantity  int64           `json:"quantity"`
	State     string          `json:"state"`
	Result    string          `json:"result,omitempty"`
}

const undecided = "undecided"

// letters reads the dead-letter queue. The letters stay hidden from others until they are given back.
func (p parts) letters(ctx context.Context) (letters []*letter, giveBack func(), err error) {
	dead := p.queue.DeadLetters()
	var receipts []string
	giveBack = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redriveTimeout)
		defer cancel()
		// Those that are gone cannot be given back, and others come back by themselves.
		_ = dead.ChangeVisibility(ctx, receipts, 0)
	}

	depth, err := p.queue.Depth(ctx)
	if err != nil {
		return nil, giveBack, err
	}

	for deadline := time.Now().Add(lettersWait); int64(len(letters)) < min(depth.Dead, maxLetters); {
		messages, err := dead.Receive(ctx, time.Second, lettersHidden)
		if err != nil {
			return nil, giveBack, err
		}
		if len(messages) == 0 && time.Now().After(deadline) {
			break
		}

		for _, m := range messages {
			receipts = append(receipts, m.Receipt)
			l := &letter{ID: m.ID, Reason: m.Attributes[queue.ReasonAttribute], SentAt: m.SentAt, Body: m.Body,
				receipt: m.Receipt}
			l.Attempts, _ = strconv.Atoi(m.Attributes[queue.FailuresAttribute])
			l.Age = time.Since(m.SentAt).Round(time.Second).String()

			if l.decoded, err = order.Decode([]byte(m.Body)); err == nil {
				if l.Orders, err = p.states(ctx, l.decoded); err != nil {
					return nil, giveBack, err
				}
			}

			letters = append(letters, l)
		}
	}
	return letters, giveBack, nil
}

// states says what MySQL has decided of orders.
func (p parts) states(ctx context.Context, orders []order.Order) ([]letterOrder, error) {
	states := make([]letterOrder, len(orders))
	for i, o := range orders {
		states[i] = letterOrder{ID: o.ID, UserID: o.UserID, ProductID: o.StockID.Product(),
			Quantity: o.Quantity, State: undecided}
		record, err := p.ledger.Order(ctx, o.ID)
		switch {
		case errors.Is(err, mysql.ErrNotFound):
		case err != nil:
			return nil, err
		case record.Status == order.Failed:
			states[i].State = "failed: " + string(record.FailedReason)
		default:
			states[i].State = string(record.Status)
		}
	}
	return states, nil
}

// letterFlags are part of all commands about dead letters.
type letterFlags struct {
	jsonFlag
	needsAll
}

// chosenLetters are part of those that change something.
type chosenLetters struct {
	ID     string `required:"" xor:"letters" placeholder:"ID" help:"Id of the message."`
	All    bool   `required:"" xor:"letters" help:"Take all dead letters."`
	DryRun bool   `help:"Only say what would be done."`
}

// each reads the dead letters, calls f for the one with the id, or for all without one, and prints them.
func (c *letterFlags) each(ctx context.Context, id string, f func(context.Context, parts, *letter) error) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()

	letters, giveBack, err := p.letters(ctx)
	defer giveBack()
	if err != nil {
		return err
	}

	meant := []*letter{}
	var errs []error
	for _, l := range letters {
		if id != "" && l.ID != id {
			continue
		}
		meant = append(meant, l)
		if err := f(ctx, p, l); err != nil {
			l.Result = "error: " + err.Error()
			errs = append(errs, fmt.Errorf("dead letter %s: %w", l.ID, err))
		}
	}

	if id != "" && len(meant) == 0 {
		return fmt.Errorf("there is no dead letter %s; another command may be looking at it", id)
	}

	if c.JSON {
		errs = append(errs, printJSON(meant))
	} else {
		printLetters(meant)
	}
	return errors.Join(errs...)
}

func printLetters(letters []*letter) {
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "message\tage\tattempts\torder\tproduct\tunits\tstate\tresult\treason")
	for _, l := range letters {
		reason := plaintext.Escape(l.Reason)
		if reason == "" {
			reason = "(no worker has looked at it yet)"
		}
		line := fmt.Sprintf("%s\t%s\t%d", plaintext.Escape(l.ID), l.Age, l.Attempts)
		if len(l.Orders) == 0 {
			fmt.Fprintf(tab, "%s\t-\t-\t-\tcannot be decoded\t%s\t%s\n", line, plaintext.Escape(l.Result), reason)
		}
		for _, o := range l.Orders {
			fmt.Fprintf(tab, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", line, o.ID, o.ProductID, o.Quantity, o.State,
				plaintext.Escape(o.Result), reason)
			line, reason = "\t\t", ""
		}
	}
	tab.Flush()
	fmt.Printf("\n%d dead letters\n", len(letters))
}

type dlqListCmd struct{ letterFlags }

func (c *dlqListCmd) Run(ctx context.Context) error {
	return c.each(ctx, "", func(_ context.Context, _ parts, l *letter) error {
		l.Body = ""
		return nil
	})
}

type dlqShowCmd struct {
	ID string `required:"" placeholder:"ID" help:"Id of the message."`
	letterFlags
}

func (c *dlqShowCmd) Run(ctx context.Context) error {
	var body string
	err := c.each(ctx, c.ID, func(_ context.Context, _ parts, l *letter) error {
		body = l.Body
		return nil
	})
	if err == nil && !c.JSON {
		fmt.Println("\n" + plaintext.Escape(body))
	}
	return err
}

type dlqDiscardCmd struct {
	chosenLetters
	letterFlags
}

func (c *dlqDiscardCmd) Run(ctx context.Context) error {
	return c.each(ctx, c.ID, func(ctx context.Context, p parts, l *letter) error {
		l.Body = ""
		for _, o := range l.Orders {
			if o.State == undecided {
				l.Result = "kept: an order is undecided; a worker fails it within a minute"
				return nil
			}
		}
		if c.DryRun {
			l.Result = "would be discarded"
			return nil
		}
		what := map[string]any{"reason": l.Reason, "orders": len(l.Orders)}
		if err := p.db.LogAction(ctx, mysql.ActDiscard, "message "+l.ID, what); err != nil {
			return err
		}
		l.Result = "discarded"
		return p.queue.DeadLetters().Delete(ctx, []string{l.receipt})
	})
}

type dlqRedriveCmd struct {
	chosenLetters
	letterFlags
}

func (c *dlqRedriveCmd) Run(ctx context.Context) error {
	return c.each(ctx, c.ID, func(ctx context.Context, p parts, l *letter) error {
		l.Body = ""
		switch {
		case len(l.Orders) == 0:
			l.Result = "kept: it cannot be decoded"
			return nil
		case l.Reason == "":
			l.Result = "kept: no worker has looked at it yet"
			return nil
		}

		keep := false
		for i := range l.Orders {
			o := &l.Orders[i]
			again := o.State == undecided || o.State == "failed: "+string(order.DeadLetter)
			switch {
			case !again:
				o.Result = "stays " + o.State
			case c.DryRun:
				o.Result = "would be decided anew"
			default:
				result, redriven, err := p.redrive(ctx, l.decoded[i])
				if err != nil {
					return err
				}
				o.Result = result
				keep = keep || !redriven
			}
		}

		if c.DryRun || keep {
			return nil
		}
		l.Result = "redriven"
		return p.queue.DeadLetters().Delete(ctx, []string{l.receipt})
	})
}

// redrive has an order decided anew: its units are reserved, its failure is taken back, and it is sent. If that is
// interrupted, it can be repeated, and what is in the outbox is sent by the relay. An order for which nothing is
// left stays failed.
func (p parts) redrive(ctx context.Context, o order.Order) (result string, redriven bool, err error) {
	_, err = p.ledger.Product(ctx, o.StockID)
	if errors.Is(err, mysql.ErrNotFound) {
		return "stays failed: there is no such product", false, nil
	}
	if err != nil {
		return "", false, err
	}

	// Redis: its units are reserved again.
	outcome, err := p.readmit(ctx, o)
	switch {
	case err != nil:
		return "", false, err
	case outcome == stock.SoldOut:
		return "stays failed: sold out", false, nil
	case outcome == stock.LimitExceeded:
		return "stays failed: its buyer has the limit", false, nil
	case outcome != stock.Reserved && outcome != stock.Replayed:
		return "stays failed: its sale is paused; try again", false, nil
	}

	// MySQL: its failure is taken back, unless it has been decided otherwise meanwhile.
	err = p.ledger.Redrive(ctx, o.ID)
	if errors.Is(err, mysql.ErrInvalid) {
		if outcome == stock.Reserved { // by this call, so that its units have been taken twice
			failed := []order.Decision{{Record: order.Record{Order: o, Status: order.Failed}}}
			_, err = p.stock.Settle(ctx, o.StockID, failed)
		} else { // the reservation is the order's own, and is settled by whoever has decided it
			err = nil
		}
		return "was decided meanwhile", err == nil, err
	}
	if err != nil && !errors.Is(err, mysql.ErrNotFound) {
		return "", false, err
	}

	// The queue has it again. It stays in the outbox until it is decided, so that nobody settles it by its old
	// decision.
	send, cancel := context.WithTimeout(ctx, redriveTimeout)
	defer cancel()
	if err := p.queue.SendOrders(send, []order.Order{o}); err != nil {
		return "reserved; the relay sends it: " + strings.ReplaceAll(err.Error(), "\n", " "), true, nil
	}
	return "sent", true, nil
}

// readmit reserves the units of an order, loads its product if need be, and waits while its sale is paused.
func (p parts) readmit(ctx context.Context, o order.Order) (outcome stock.Outcome, err error) {
	for range pausedTries {
		outcome, err = p.stock.Readmit(ctx, o)
		switch {
		case errors.Is(err, stock.ErrNotLoaded):
			_, err = p.stock.Load(ctx, o.StockID, func(ctx context.Context) (order.Product, error) {
				return p.ledger.Product(ctx, o.StockID)
			})
			if err != nil {
				return 0, err
			}
			continue
		case err != nil || outcome != stock.Paused:
			return outcome, err
		}

		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(pausedWait):
		}
	}
	return outcome, err
}
