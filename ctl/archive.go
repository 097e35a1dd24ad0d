package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"stampede/internal/ledger"
)

// archiveCmd deletes old orders, of which only opening balances remain.
type archiveCmd struct {
	Before string `required:"" placeholder:"DATE" help:"Delete the orders of months before this day."`
	needsMySQL
}

func (c *archiveCmd) Run(ctx context.Context) error {
	before, err := time.Parse(time.DateOnly, c.Before)
	if err != nil {
		return usagef("archive: --before must be a day, such as 2026-01-01")
	}
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	done, err := ledger.New(db).Archive(ctx, before, ledger.AuditOptions{Progress: auditProgress()})
	switch {
	case errors.Is(err, ledger.ErrUnsound):
		return fmt.Errorf("nothing was archived: %w; `ctl audit books --all` says why", err)
	case errors.Is(err, ledger.ErrHeld):
		return fmt.Errorf("nothing was archived: %w; a worker cancels those that are not paid, once their providers "+
			"have said so", err)
	case done.Before.IsZero():
		return err
	}
	fmt.Printf("before %s: %d orders of %d units, and %d rows of the ledger, are in the opening balances now\n",
		done.Before.Format(time.DateOnly), done.Orders, done.Units, done.LedgerRows)
	if len(done.Partitions) > 0 || done.Deleted > 0 {
		fmt.Printf("deleted partitions %s and %d rows of the ledger\n", strings.Join(done.Partitions, ", "),
			done.Deleted)
	}
	return err
}
