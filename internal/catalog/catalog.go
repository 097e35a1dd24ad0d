// Package catalog is products as clients see them, with the units that are available at this moment.
package catalog

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
)

// Product is a product as clients see it.
type Product struct {
	ID          order.ProductID `json:"product_id"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Price       int64           `json:"price"`
	Currency    string          `json:"currency"`
	// PointsPrice is there if who buys can pay with points.
	PointsPrice int64 `json:"points_price,omitempty"`
	// Available is up to a second old, and 0 when the product is sold out.
	Available    int64     `json:"available"`
	StartsAt     time.Time `json:"starts_at,omitzero"`
	EndsAt       time.Time `json:"ends_at,omitzero"`
	LimitPerUser int64     `json:"limit_per_user,omitempty"`
	// Payment and PayWithin, in seconds, are there if orders must be paid.
	Payment   order.PaymentRule `json:"payment,omitempty"`
	PayWithin int64             `json:"pay_within_s,omitempty"`
	// State is always on_sale in what the public sees.
	State order.SaleState `json:"state"`
}

// Show is what clients see of a product.
func Show(p order.Product) Product {
	shown := Product{
		ID: p.ID.Product(), Name: p.Name, Description: p.Description, Price: p.Price, Currency: p.Currency,
		Available: max(p.Stock, 0), StartsAt: p.StartsAt, EndsAt: p.EndsAt, LimitPerUser: p.LimitPerUser,
		State: p.State, PointsPrice: p.PointsPrice,
	}
	if p.Payment == order.PaymentRequired {
		shown.Payment, shown.PayWithin = p.Payment, int64(p.PayWithin/time.Second)
	}
	return shown
}

// PageSize is how many products a page of a list holds.
const PageSize = 50

// Catalog reads products with the stock that is available rather than MySQL's, which does not know what is reserved.
type Catalog struct {
	Stock  *stock.Stock
	Ledger *ledger.Ledger
}

// Product reads a product. ErrNotFound: there is none.
func (c Catalog) Product(ctx context.Context, id order.ProductID) (order.Product, error) {
	p, err := c.Ledger.Product(ctx, id.Stock())
	if err != nil {
		return order.Product{}, err
	}
	products := []order.Product{p}
	c.SetAvailable(ctx, products)
	return products[0], nil
}

// OnSale reads the products on sale that follow an id: those of a page, and one more if there are more.
func (c Catalog) OnSale(ctx context.Context, after order.ProductID) ([]order.Product, error) {
	products, err := c.Ledger.ProductsOnSale(ctx, after, PageSize+1)
	if err != nil {
		return nil, err
	}
	c.SetAvailable(ctx, products)
	return products, nil
}

// All is OnSale of all products, those that are off sale included.
func (c Catalog) All(ctx context.Context, after order.ProductID) ([]order.Product, error) {
	products, err := c.Ledger.Products(ctx, after, PageSize+1)
	if err != nil {
		return nil, err
	}
	c.SetAvailable(ctx, products)
	return products, nil
}

// SetAvailable gives products the stock that is available.
func (c Catalog) SetAvailable(ctx context.Context, products []order.Product) {
	var ids []order.StockID
	for i := range products {
		ids = append(ids, products[i].StockIDs()...)
	}
	counts, err := c.Stock.Counts(ctx, ids)
	if err != nil {
		slog.Warn("read available units: products are shown with the stock of MySQL", "error", err)
	}

	var missing []order.StockID // buckets that Redis does not have
	for _, id := range ids {
		if !counts[id].Loaded && id.Bucket() > 0 {
			missing = append(missing, id)
		}
	}
	units, err := c.Ledger.Stocks(ctx, missing)
	if err != nil {
		slog.Warn("read units of buckets: products are shown without some of theirs", "error", err)
	}

	for i := range products {
		p := &products[i]
		if p.Buckets > 0 {
			p.Stock = 0
		}
		for _, id := range p.StockIDs() {
			if n := counts[id]; n.Loaded && p.Buckets == 0 {
				p.Stock = n.Available
			} else {
				p.Stock += max(n.Available, 0) + units[id] // only one of them has it
			}
		}
	}
}

// ParseID reads a product's id, as it is in a path.
func ParseID(text string) (order.ProductID, *problem.Error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 || id > order.MaxProductID {
		return 0, problem.New(problem.ProductNotFound, "A product's id is a positive whole number.")
	}
	return order.ProductID(id), nil
}
