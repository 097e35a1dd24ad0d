package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"stampede/internal/order"
	"stampede/internal/plaintext"
)

// logLimit is how many rows of the staff log are shown unless more are asked for.
const logLimit = 50

// logRow is a row of the staff log as JSON.
type logRow struct {
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

func runLog(ctx context.Context, args []string) error {
	in := newInput("log")
	subject := in.String("subject", "", "only what was done to it, such as \"product 7\", \"user 3\" or \"order ID\"")
	since := in.String("since", "", "only what was done since, as RFC 3339 has times")
	limit := in.Int("limit", logLimit, "most rows, up to 1000")
	asJSON := in.Bool("json", false, "print JSON")
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	var from time.Time
	if *since != "" {
		if from, err = order.ParseTime(*since); err != nil {
			return usagef("log: --since: %w", err)
		}
	}

	entries, err := db.StaffLog(ctx, *subject, from, *limit)
	if err != nil {
		return err
	}
	rows := make([]logRow, len(entries))
	for i, e := range entries {
		rows[i] = logRow{e.At, e.Actor, e.Action, e.Subject, e.Before, e.After}
	}
	if *asJSON {
		return printJSON(rows)
	}
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "at\tactor\taction\tsubject\tbefore\tafter")
	for _, r := range rows {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\n", r.At.Format(time.RFC3339), plaintext.Escape(r.Actor), plaintext.Escape(r.Action),
			plaintext.Escape(r.Subject), plaintext.Escape(string(r.Before)), plaintext.Escape(string(r.After)))
	}
	return tab.Flush()
}
