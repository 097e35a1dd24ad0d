package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

// listedProduct is a product as JSON. Its names are those of the edge's API.
type listedProduct struct {
	ID           order.ProductID `json:"product_id"`
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	State        order.SaleState `json:"state"`
	Stock        int64           `json:"stock"` // units that MySQL has not sold
	Buckets      int64           `json:"buckets,omitempty"`
	Price        int64           `json:"price"` // of one unit, in minor units
	Currency     string          `json:"currency"`
	PointsPrice  int64           `json:"points_price,omitempty"` // of one unit, in points
	LimitPerUser int64           `json:"limit_per_user,omitempty"`
	StartsAt     time.Time       `json:"starts_at,omitzero"`
	EndsAt       time.Time       `json:"ends_at,omitzero"`
	CreatedAt    time.Time       `json:"created_at"`
}

// productListCmd lists all products.
type productListCmd struct {
	jsonFlag
	needsMySQL
}

func (c *productListCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	products, err := allProducts(ctx, ledger.New(db))
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(listed(products))
	}
	return printProducts(products)
}

// allProducts reads every product, a split one with the units of all its buckets.
func allProducts(ctx context.Context, books *ledger.Ledger) ([]order.Product, error) {
	products := []order.Product{}
	for after := order.ProductID(0); ; {
		page, err := books.Products(ctx, after, mysql.MaxPage)
		if err != nil {
			return nil, err
		}
		products = append(products, page...)
		if len(page) < mysql.MaxPage {
			break
		}
		after = page[len(page)-1].ID.Product()
	}

	for i := range products {
		if p := &products[i]; p.Buckets > 0 {
			units, err := books.Stocks(ctx, p.StockIDs())
			if err != nil {
				return nil, err
			}
			for _, n := range units {
				p.Stock += n
			}
		}
	}
	return products, nil
}

func listed(products []order.Product) []listedProduct {
	all := make([]listedProduct, len(products))
	for i, p := range products {
		all[i] = listedProduct{
			ID: p.ID.Product(), Name: p.Name, Description: p.Description, State: p.State,
			Stock: p.Stock, Buckets: p.Buckets, Price: p.Price, Currency: p.Currency, LimitPerUser: p.LimitPerUser,
			StartsAt: p.StartsAt, EndsAt: p.EndsAt, CreatedAt: p.CreatedAt, PointsPrice: p.PointsPrice,
		}
	}
	return all
}

func printProducts(products []order.Product) error {
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "id\tstate\tstock\tbuckets\tprice\tlimit\tstarts\tends\tname\t")
	for _, p := range products {
		fmt.Fprintf(tab, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.ID, p.State, p.Stock,
			orDash(p.Buckets > 0, p.Buckets), order.Money(p.Price, p.Currency),
			orDash(p.LimitPerUser != 0, p.LimitPerUser), orDash(!p.StartsAt.IsZero(), p.StartsAt.Format(time.RFC3339)),
			orDash(!p.EndsAt.IsZero(), p.EndsAt.Format(time.RFC3339)), plaintext.Escape(p.Name))
	}
	return tab.Flush()
}
