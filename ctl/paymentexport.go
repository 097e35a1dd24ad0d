package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"stampede/internal/order"
	"stampede/internal/till"
)

// exportHeader and totalsHeader are the columns of the exports, which docs/operate.md describes. Programs read them: a
// new column comes last.
var (
	exportHeader = []string{
		"day", "kind", "number", "order_id", "provider", "method", "amount", "fee", "currency", "reference",
	}
	totalsHeader = []string{"day", "currency", "provider", "payments", "refunds", "fees", "count"}
)

type paymentExportCmd struct {
	From   string `required:"" placeholder:"DAY" help:"First day, in UTC, such as 2026-01-01."`
	To     string `required:"" placeholder:"DAY" help:"Last day. One that is not over is not complete."`
	Totals bool   `help:"Totals per day, currency and provider instead of every payment and refund."`
	needsMySQL
}

func (c *paymentExportCmd) Run(ctx context.Context) error {
	from, err := time.Parse(time.DateOnly, c.From)
	if err != nil {
		return usagef("payment export: --from must be a day, such as 2026-01-01")
	}
	to, err := time.Parse(time.DateOnly, c.To)
	if err != nil || to.Before(from) {
		return usagef("payment export: --to must be a day, such as 2026-01-31, and not before --from")
	}
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	return exportPayments(ctx, os.Stdout, &till.Till{DB: db}, from, to.AddDate(0, 0, 1), c.Totals)
}

// exportPayments writes the moves of money from a time until another one, or their totals, as CSV (RFC 4180).
func exportPayments(ctx context.Context, w io.Writer, from *till.Till, since, until time.Time, totals bool) error {
	buffered := bufio.NewWriter(w)
	out := csv.NewWriter(buffered)
	header := exportHeader
	if totals {
		header = totalsHeader
	}
	if err := out.Write(header); err != nil {
		return err
	}

	var err error
	if totals {
		err = from.Totals(ctx, since, until, func(d till.DayTotal) error { return writeTotal(out, d) })
	} else {
		err = from.Export(ctx, since, until, func(m till.Move) error { return writeMove(out, m) })
	}
	if err != nil {
		return err
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return err
	}
	return buffered.Flush()
}

func writeMove(out *csv.Writer, m till.Move) error {
	amount, err := decimals(m.Currency, m.Amount, m.Fee)
	if err != nil {
		return err
	}
	id := ""
	if m.OrderID != (order.OrderID{}) {
		id = m.OrderID.String()
	}
	row := []string{
		m.At.UTC().Format(time.DateOnly), string(m.Kind), m.Number, id, m.Provider, m.Method, amount[0], amount[1],
		m.Currency, m.Reference,
	}
	for i := range row {
		row[i] = disarmed(row[i])
	}
	return out.Write(row)
}

func writeTotal(out *csv.Writer, d till.DayTotal) error {
	sums, err := decimals(d.Currency, d.Payments, d.Refunds, d.Fees)
	if err != nil {
		return err
	}
	return out.Write([]string{
		d.Day, d.Currency, disarmed(d.Provider), sums[0], sums[1], sums[2], strconv.FormatInt(d.Count, 10),
	})
}

// decimals are amounts with a point where their currency has one.
func decimals(currency string, amounts ...int64) ([]string, error) {
	texts := make([]string, len(amounts))
	for i, amount := range amounts {
		text, ok := order.Decimal(amount, currency)
		if !ok {
			return nil, fmt.Errorf("%q is no currency", currency)
		}
		texts[i] = text
	}
	return texts, nil
}

// disarmed is a cell that no spreadsheet takes for a formula, whoever has chosen its text: one that begins like one
// gets an apostrophe before it (OWASP, CSV injection).
func disarmed(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
