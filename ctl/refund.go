package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/till"
)

// refundReport is money that goes back.
type refundReport struct {
	Number    string           `json:"number"`
	Payment   string           `json:"payment,omitempty"` // whose money it is; not of points
	OrderID   *order.OrderID   `json:"order_id,omitempty"`
	Provider  string           `json:"provider,omitempty"`
	Amount    int64            `json:"amount"` // in minor units, or points
	Currency  string           `json:"currency"`
	State     till.RefundState `json:"state"`
	Reason    till.Reason      `json:"reason"`
	Note      string           `json:"note,omitempty"`
	Actor     string           `json:"actor,omitempty"`
	DoneBy    string           `json:"done_by,omitempty"`
	CreatedAt time.Time        `json:"created_at"`
	DoneAt    time.Time        `json:"done_at,omitzero"`
}

func newRefundReport(r *till.RefundRecord) refundReport {
	report := refundReport{
		Number: r.Number, Payment: r.Attempt, Provider: r.Provider, Amount: r.Amount, Currency: r.Currency,
		State: r.State, Reason: r.Reason, Note: r.Note, Actor: r.Actor, DoneBy: r.DoneBy, CreatedAt: r.CreatedAt,
		DoneAt: r.DoneAt,
	}
	if r.OrderID != (order.OrderID{}) {
		report.OrderID = &r.OrderID
	}
	return report
}

// refundListCmd lists the refunds that an operator must make by hand.
type refundListCmd struct {
	jsonFlag
	needsMySQL
}

func (c *refundListCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	return listRefunds(ctx, os.Stdout, &till.Till{DB: db}, c.JSON)
}

func listRefunds(ctx context.Context, w io.Writer, from *till.Till, asJSON bool) error {
	byHand, err := from.RefundsByHand(ctx)
	if err != nil {
		return err
	}
	refunds := make([]refundReport, len(byHand))
	for i := range byHand {
		refunds[i] = newRefundReport(&byHand[i])
	}
	if asJSON {
		return writeJSON(w, refunds)
	}
	if len(refunds) == 0 {
		fmt.Fprintln(w, "no refund is to be made by hand")
		return nil
	}

	widest := 0 // amounts end in one column
	for i := range refunds {
		widest = max(widest, utf8.RuneCountInString(sumText(refunds[i].Amount, refunds[i].Currency)))
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "refund\torder\tprovider\t%*s\treason\tage\tnote\n", widest, "amount")
	for i := range refunds {
		r := &refunds[i]
		fmt.Fprintf(tab, "%s\t%s\t%s\t%*s\t%s\t%s\t%s\n", r.Number, orDash(r.OrderID != nil, r.OrderID), r.Provider,
			widest, sumText(r.Amount, r.Currency), r.Reason, time.Since(r.CreatedAt).Round(time.Second),
			plaintext.Escape(r.Note))
	}
	return tab.Flush()
}

// refundCheckCmd asks a provider, before somebody pays by hand.
type refundCheckCmd struct {
	Number string `arg:"" help:"Number of the refund."`

	needsTill
}

func (c *refundCheckCmd) Run(ctx context.Context) error {
	asks, err := c.open()
	if err != nil {
		return err
	}
	defer asks.DB.Close()
	return checkRefund(ctx, os.Stdout, asks, c.Number)
}

// checkRefund says whether a provider has made a refund.
func checkRefund(ctx context.Context, w io.Writer, asks *till.Till, number string) error {
	made, err := asks.MadeByProvider(ctx, number)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return fmt.Errorf("there is no refund %q", number)
	case err != nil:
		return err
	case made:
		fmt.Fprintf(w, "DO NOT PAY: the provider has made refund %s; then: ctl refund done %s --note TEXT\n", number,
			number)
	default:
		fmt.Fprintf(w, "the provider has not made refund %s\n", number)
	}
	return nil
}

type refundDoneCmd struct {
	Number string `arg:"" help:"Number of the refund."`
	Note   string `required:"" placeholder:"TEXT" help:"How it was made, such as the number of the transfer."`

	needsTill
}

func (c *refundDoneCmd) Run(ctx context.Context) error {
	if n := utf8.RuneCountInString(c.Note); n == 0 || n > till.MaxNoteChars || plaintext.Fault(c.Note) != "" {
		return usagef("refund done: --note must be 1 to %d characters, without control characters", till.MaxNoteChars)
	}
	asks, err := c.open()
	if err != nil {
		return err
	}
	defer asks.DB.Close()
	return doneByHand(ctx, os.Stdout, asks, c.Number, c.Note)
}

// doneByHand notes that a refund was made by hand, unless its provider had made it.
func doneByHand(ctx context.Context, w io.Writer, asks *till.Till, number, note string) error {
	byHand, err := asks.DoneByHand(ctx, number, note)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return fmt.Errorf("there is no refund %q", number)
	case err != nil:
		return fmt.Errorf("nothing is noted: %w", err)
	}
	refund, err := asks.Refund(ctx, number)
	if err != nil {
		return err
	}
	sum := sumText(refund.Amount, refund.Currency)
	if byHand {
		fmt.Fprintf(w, "refund %s of %s is noted as made by hand\n", number, sum)
		return nil
	}
	fmt.Fprintf(w, "DO NOT PAY: %s had made refund %s of %s already, and it is noted as done. If it was paid by hand "+
		"as well, the buyer has it twice.\n", refund.Provider, number, sum)
	return nil
}
