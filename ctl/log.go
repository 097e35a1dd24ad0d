package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"stampede/internal/plaintext"
)

// logRow is a row of the staff log as JSON.
type logRow struct {
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

type logCmd struct {
	Subject string  `placeholder:"TEXT" help:"Only what was done to it, such as \"product 7\", \"user 3\" or \"order ID\"."`
	Since   instant `placeholder:"TIME" help:"Only changes since this time, in RFC 3339."`
	Limit   int     `default:"50" help:"Number of rows at most, up to 1000."`
	jsonFlag
	needsMySQL
}

func (c *logCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	entries, err := db.StaffLog(ctx, c.Subject, c.Since.Time, c.Limit)
	if err != nil {
		return err
	}

	rows := make([]logRow, len(entries))
	for i, e := range entries {
		rows[i] = logRow{e.At, e.Actor, e.Action, e.Subject, e.Before, e.After}
	}
	if c.JSON {
		return printJSON(rows)
	}

	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "at\tactor\taction\tsubject\tbefore\tafter")
	for _, r := range rows {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\n", r.At.Format(time.RFC3339), plaintext.Escape(r.Actor),
			plaintext.Escape(r.Action),
			plaintext.Escape(r.Subject), plaintext.Escape(string(r.Before)), plaintext.Escape(string(r.After)))
	}
	return tab.Flush()
}
