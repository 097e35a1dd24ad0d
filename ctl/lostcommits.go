package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/reconcile"
)

// productLostOrdersCmd prints the orders of a product that were completed in the last minutes, and that MySQL does not
// have: a fail-over has lost them.
type productLostOrdersCmd struct {
	ID     order.ProductID `required:"" placeholder:"N" help:"Id of the product."`
	Resend bool            `help:"Put them on the queue again, with the same ids and prices, to be decided once more."`
	needsAll
}

func (c *productLostOrdersCmd) Run(ctx context.Context) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	return p.lostOrders(ctx, os.Stdout, c.ID, c.Resend)
}

// lostOrders writes a line of JSON for each order that is lost, and puts them on the queue again if it is told to.
func (p parts) lostOrders(ctx context.Context, w io.Writer, productID order.ProductID, resend bool) error {
	product, err := p.ledger.Product(ctx, productID.Stock())
	if err != nil {
		return err
	}

	// What Redis has seen completed and MySQL has no row of is lost.
	lost := map[order.OrderID]order.Order{}
	for _, stockID := range wholeStock(product) {
		err := p.stock.Completed(ctx, stockID, func(completed []order.Order) error {
			ids := make([]order.OrderID, len(completed))
			for i := range completed {
				ids[i] = completed[i].ID
			}
			decided, err := p.ledger.Decided(ctx, ids)
			if err != nil {
				return err
			}
			for _, o := range completed {
				if _, ok := decided[o.ID]; !ok {
					lost[o.ID] = o
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}

	lines := json.NewEncoder(w)
	orders := make([]order.Order, 0, len(lost))
	for _, o := range lost {
		if err := lines.Encode(o); err != nil {
			return err
		}
		orders = append(orders, o)
	}

	if resend && len(orders) > 0 {
		if err := p.queue.SendOrders(ctx, orders); err != nil {
			return fmt.Errorf("not all are on the queue; repeat the command: %w", err)
		}
	}

	verb := map[bool]string{true: "are put on the queue again", false: "are lost"}[resend]
	fmt.Fprintf(os.Stderr, "%d orders %s\n", len(orders), verb)
	return nil
}

// wholeStock are the ids under which a product has stock, or had it before it was split: its buckets, and its own.
func wholeStock(product order.Product) []order.StockID {
	ids := product.StockIDs()
	if own := product.ID.Product().Stock(); !slices.Contains(ids, own) {
		ids = append(ids, own)
	}
	return ids
}

// productAcceptMySQLCmd ends what reconcile does with a product of which MySQL has lost commits, which is nothing.
type productAcceptMySQLCmd struct {
	ID order.ProductID `required:"" placeholder:"N" help:"Id of the product."`
	needsStores
}

func (c *productAcceptMySQLCmd) Run(ctx context.Context) error {
	p, err := c.open()
	if err != nil {
		return err
	}
	defer p.close()
	reports, err := p.acceptMySQL(ctx, c.ID)
	if err != nil {
		return err
	}
	printReports(reports)
	return nil
}

// acceptMySQL has Redis go by what MySQL says of a product and its buckets, and compares them under a pause.
func (p parts) acceptMySQL(ctx context.Context, productID order.ProductID) ([]reconcile.Report, error) {
	product, err := p.ledger.Product(ctx, productID.Stock())
	if err != nil {
		return nil, err
	}
	if err := p.db.LogAction(ctx, mysql.ActAcceptMySQL, fmt.Sprintf("product %d", productID), nil); err != nil {
		return nil, err
	}

	r := reconcile.Reconciler{Redis: p.stock, MySQL: p.ledger, Apply: true, Pause: true, AcceptMySQL: true}
	var reports []reconcile.Report
	for _, id := range wholeStock(product) {
		report, err := r.Product(ctx, id)
		if err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
	return reports, nil
}
