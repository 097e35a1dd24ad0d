package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/reconcile"
)

// productLostOrdersCmd prints the orders of a product that their buyers are shown as completed, and that MySQL does not
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

	// What Redis shows as completed and MySQL has no row of is lost.
	var mu sync.Mutex // the servers of a Cluster are visited at the same time
	lost := map[order.OrderID]order.Record{}
	err := p.stock.States(ctx, order.Completed, func(completed []order.Record) error {
		completed = slices.DeleteFunc(completed, func(r order.Record) bool {
			return r.StockID.Product() != productID
		})
		ids := make([]order.OrderID, len(completed))
		for i := range completed {
			ids[i] = completed[i].ID
		}

		decided, err := p.ledger.Decided(ctx, ids)
		if err != nil {
			return err
		}

		mu.Lock()
		defer mu.Unlock()
		for _, r := range completed {
			if _, ok := decided[r.ID]; !ok {
				lost[r.ID] = r
			}
		}
		return nil
	})
	if err != nil {
		return err
	}

	lines := json.NewEncoder(w)
	orders := make([]order.Order, 0, len(lost))
	for _, r := range lost {
		if err := lines.Encode(r); err != nil {
			return err
		}
		orders = append(orders, r.Order)
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

	ids := product.StockIDs()
	if !slices.Contains(ids, productID.Stock()) {
		ids = append(ids, productID.Stock())
	}

	r := reconcile.Reconciler{Redis: p.stock, MySQL: p.ledger, Apply: true, Pause: true, AcceptMySQL: true}
	var reports []reconcile.Report
	for _, id := range ids {
		report, err := r.Product(ctx, id)
		if err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
	return reports, nil
}
