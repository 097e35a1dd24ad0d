package main

import (
	"context"
	"errors"
	"fmt"

	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// restockCmd adds units to a product, or takes some out.
type restockCmd struct {
	Product order.ProductID `required:"" placeholder:"N" help:"Id of the product."`
	Units   int64           `required:"" placeholder:"N" help:"Units to add; if negative, units for sale to take out."`
	ID      string          `required:"" placeholder:"TEXT" help:"Id of the restock, such as the number of the delivery: the same id is applied once."`

	needsStores
}

// Run changes MySQL first. If it dies before Redis knows, the same command again does the rest.
func (c *restockCmd) Run(ctx context.Context) error {
	data, err := c.open()
	if err != nil {
		return err
	}
	defer data.close()
	if c.Units < 0 {
		return c.correct(ctx, data)
	}

	done, err := data.ledger.Restock(ctx, c.Product, c.Units, c.ID)
	if errors.Is(err, mysql.ErrNotFound) {
		return fmt.Errorf("there is no product %d", c.Product)
	}
	if err != nil {
		return err
	}

	added, err := buckets.Restock(ctx, data.stock, done)
	if err != nil {
		return fmt.Errorf("MySQL has the units; repeat the command for Redis to have them too: %w", err)
	}

	switch {
	case done.Applied:
		fmt.Printf("product %d: %d units added, %d in stock\n", c.Product, c.Units, done.Balance)
	case added:
		fmt.Printf("product %d: restock %s was in MySQL already and is in Redis now\n", c.Product, c.ID)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", c.Product, c.ID)
	}
	return nil
}

// correct takes units out of a product, of those for sale.
func (c *restockCmd) correct(ctx context.Context, data parts) error {
	done, err := buckets.Stores{Redis: data.stock, MySQL: data.ledger}.Correct(ctx, c.Product, -c.Units, c.ID)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return fmt.Errorf("there is no product %d", c.Product)
	case errors.Is(err, ledger.ErrTooFew):
		return fmt.Errorf("product %d: fewer than %d units are for sale; nothing changed", c.Product, -c.Units)
	case err != nil:
		return err
	case done.Applied:
		fmt.Printf("product %d: %d units taken out, %d in stock\n", c.Product, -c.Units, done.Balance)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", c.Product, c.ID)
	}
	return nil
}
