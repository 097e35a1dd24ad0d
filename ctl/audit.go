package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"stampede/internal/audit"
	"stampede/internal/ledger"
)

// auditCmd checks the promises in all three places that hold a sale.
type auditCmd struct {
	Wait time.Duration `placeholder:"DURATION" help:"How long to wait for orders that are on their way, such as 30s."`
	jsonFlag
	needsAll
}

func (c *auditCmd) Run(ctx context.Context) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()

	sale := p.sale()
	if err := sale.WaitQuiet(ctx, c.Wait, func(audit.Look) {}); err != nil {
		return err
	}
	report, err := sale.Audit(ctx)
	if err != nil {
		return err
	}

	if c.JSON {
		if err := printJSON(report); err != nil {
			return err
		}
	} else {
		report.Print(os.Stdout)
	}

	if !report.OK {
		return errBroken
	}
	return nil
}

// auditBooksCmd checks what MySQL alone can prove, wherever its rows are: a restored backup has no Redis and no queue.
type auditBooksCmd struct {
	All bool `help:"Look at every row, and not only at what is new since the last audit that found nothing."`
	needsMySQL
}

func (c *auditBooksCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	report, err := audit.Books(ctx, db, ledger.AuditOptions{All: c.All, Progress: auditProgress()})
	if err != nil {
		return err
	}
	report.PrintBooks(os.Stdout)
	if !report.OK {
		return errBroken
	}
	return nil
}

// auditProgress shows how far an audit is, if somebody is looking.
func auditProgress() func(table string, rows int64) {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	start := time.Now()
	read := map[string]int64{}
	return func(table string, rows int64) {
		read[table] = rows
		took := time.Since(start)
		fmt.Fprintf(os.Stderr, "\r%s: %d rows; in all %.0f rows/s in %s   ", table, rows,
			float64(read["orders"]+read["stock_ledger"])/took.Seconds(), took.Round(time.Second))
	}
}
