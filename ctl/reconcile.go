package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"stampede/internal/order"
	"stampede/internal/reconcile"
)

type reconcileCmd struct {
	Product order.ProductID `placeholder:"N" help:"Id of one product; all products in Redis if not given."`
	Apply   bool            `help:"Repair the differences; the sale goes on meanwhile."`
	Fence   bool            `help:"With --apply: also repair busy products, pausing the sale of each for a moment."`
	jsonFlag
	needsAll
}

func (c *reconcileCmd) Validate() error {
	if c.Fence && !c.Apply {
		return errors.New("--fence changes what it finds, so give --apply as well")
	}
	return nil
}

func (c *reconcileCmd) Run(ctx context.Context) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()

	// A Redis that has failed over may have lost the list of what it holds.
	if c.Fence && c.Product == 0 {
		if err := p.stock.FindProducts(ctx); err != nil {
			return err
		}
	}

	products, err := p.stock.Products(ctx)
	if err != nil {
		return err
	}

	if c.Product != 0 {
		products = slices.DeleteFunc(products, func(id order.StockID) bool { return id.Product() != c.Product })
		if !slices.Contains(products, c.Product.Stock()) {
			products = append(products, c.Product.Stock())
		}
	}

	slices.SortFunc(products, func(a, b order.StockID) int { // each product before its buckets
		return cmp.Or(cmp.Compare(a.Product(), b.Product()), cmp.Compare(a, b))
	})

	r := reconcile.Reconciler{
		Redis: p.stock, MySQL: p.ledger, Send: p.queue.SendOrders, Locks: p.redis, Apply: c.Apply, Pause: c.Fence,
	}
	reports := []reconcile.Report{}
	for _, id := range products {
		report, err := r.Product(ctx, id)
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}

	if c.JSON {
		err = printJSON(reports)
	} else {
		printReports(reports)
	}

	for _, report := range reports {
		for _, f := range report.Findings {
			if !f.Repaired {
				return errors.Join(err, errBroken)
			}
		}
	}
	return err
}

// printReports writes a line for each product, and one for each of its findings.
func printReports(reports []reconcile.Report) {
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "product\tbucket\tmysql stock\tredis available\treserved\tlent\tdrift\tcount\tunits\trepaired\t")
	for _, r := range reports {
		verdict := "none"
		switch {
		case !r.Loaded:
			verdict = "not loaded"
		case r.Busy:
			verdict = "busy"
		case len(r.Findings) > 0:
			verdict = ""
		}

		line := fmt.Sprintf("%d\t%s\t%d\t%s\t%d\t%d\t", r.ProductID, orDash(r.Bucket > 0, r.Bucket), r.Stock,
			orDash(r.Loaded, r.Available), r.Reserved, r.InTransfer)

		if verdict != "" {
			fmt.Fprintf(tab, "%s%s\t\t\t\t\n", line, verdict)
			line = "\t\t\t\t\t\t"
		}

		for _, f := range r.Findings {
			fmt.Fprintf(tab, "%s%s\t%d\t%+d\t%t\t\n", line, strings.ReplaceAll(string(f.Cause), "_", " "), f.Orders,
				f.Units, f.Repaired)
			line = "\t\t\t\t\t\t"
		}
	}
	tab.Flush()

	for _, r := range reports {
		if r.Busy {
			fmt.Println("\nOf a busy product the units available cannot be compared; --apply --fence pauses its sale " +
				"for a moment.")
			return
		}
	}
}
