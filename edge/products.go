package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// productBody is a product as clients see it.
type productBody struct {
	ID          int64  `json:"product_id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Price       int64  `json:"price"`
	Currency    string `json:"currency"`
	// Available is up to a second old, and 0 when the product is sold out.
	Available    int64     `json:"available"`
	StartsAt     time.Time `json:"starts_at,omitzero"`
	EndsAt       time.Time `json:"ends_at,omitzero"`
	LimitPerUser int64     `json:"limit_per_user,omitempty"`
	// State is always on_sale in what the public sees.
	State order.SaleState `json:"state"`
}

func newProductBody(p order.Product) productBody {
	return productBody{
		ID: p.ID, Name: p.Name, Description: p.Description, Price: p.Price, Currency: p.Currency,
		Available: max(p.Stock, 0), StartsAt: p.StartsAt, EndsAt: p.EndsAt, LimitPerUser: p.LimitPerUser,
		State: p.State,
	}
}

// catalog loads products for the caches, with the stock that is available rather than MySQL's, which
// does not know what is reserved.
type catalog struct {
	stock  *stock.Stock
	ledger *ledger.Ledger
}

func (c catalog) product(ctx context.Context, id int64) (order.Product, error) {
	p, err := c.ledger.Product(ctx, id)
	if err != nil {
		return order.Product{}, err
	}
	products := []order.Product{p}
	c.showAvailable(ctx, products)
	return products[0], nil
}

// page loads the products on sale that follow an id.
func (c catalog) page(ctx context.Context, after int64) ([]order.Product, error) {
	products, err := c.ledger.ProductsOnSale(ctx, after, pageSize+1)
	if err != nil {
		return nil, err
	}
	c.showAvailable(ctx, products)
	return products, nil
}

// fullPage loads all products that follow an id, those that are off sale included.
func (c catalog) fullPage(ctx context.Context, after int64) ([]order.Product, error) {
	products, err := c.ledger.Products(ctx, after, pageSize+1)
	if err != nil {
		return nil, err
	}
	c.showAvailable(ctx, products)
	return products, nil
}

func (c catalog) showAvailable(ctx context.Context, products []order.Product) {
	var ids []int64
	for i := range products {
		ids = append(ids, products[i].StockIDs()...)
	}
	available, err := c.stock.Available(ctx, ids)
	if err != nil {
		slog.Warn("products are shown with the stock of MySQL", "error", err)
	}
	var missing []int64 // buckets that Redis does not have
	for _, id := range ids {
		if _, ok := available[id]; !ok && order.BucketOf(id) > 0 {
			missing = append(missing, id)
		}
	}
	units, err := c.ledger.Stocks(ctx, missing)
	if err != nil {
		slog.Warn("products are shown without some of their buckets", "error", err)
	}
	for i := range products {
		p := &products[i]
		if p.Buckets > 0 {
			p.Stock = 0
		}
		for _, id := range p.StockIDs() {
			if n, ok := available[id]; ok && p.Buckets == 0 {
				p.Stock = n
			} else {
				p.Stock += max(n, 0) + units[id] // only one of them has it
			}
		}
	}
}

// productBytes is about how much memory a product takes.
func productBytes(p order.Product) int {
	const fields = 256
	return fields + len(p.Name) + len(p.Description) + len(p.Currency)
}

func pageBytes(products []order.Product) (n int) {
	for _, p := range products {
		n += productBytes(p)
	}
	return n
}

// productID reads the product's id in the path. If it is none, it answers the request and returns false.
func productID(ctx *fasthttp.RequestCtx) (id int64, ok bool) {
	text, _ := ctx.UserValue("id").(string)
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 || id > order.MaxProductID {
		sendProblem(ctx, productNotFound, "A product's id is a positive whole number.")
		return 0, false
	}
	return id, true
}

// getProduct shows a product. The public sees it from the cache, and only on sale; who manages products sees what is
// stored at this moment.
func (e *Edge) getProduct(ctx *fasthttp.RequestCtx) {
	id, ok := productID(ctx)
	if !ok {
		return
	}
	product, err := order.Product{}, error(nil)
	if e.seesAll(ctx) {
		lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		defer cancel()
		product, err = e.catalog.product(lookup, id)
	} else if product, err = e.products.get(id); err == nil && product.State == order.OffSale {
		err = mysql.ErrNotFound
	}
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		sendProblem(ctx, productNotFound, "")
	case err != nil:
		slog.Error("a product could not be read", logID(ctx), "product", id, "error", err)
		sendProblem(ctx, productsUnavailable, "")
	default:
		sendJSON(ctx, fasthttp.StatusOK, newProductBody(product))
	}
}

// listProducts shows products page by page, to the public and to others as getProduct does.
func (e *Edge) listProducts(ctx *fasthttp.RequestCtx) {
	after, ok := e.cursors().readProduct(ctx.QueryArgs().Peek("cursor"))
	if !ok {
		sendProblem(ctx, malformedRequest, "cursor must be the next_cursor of an earlier page.")
		return
	}
	products, err := []order.Product(nil), error(nil)
	if e.seesAll(ctx) {
		lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		defer cancel()
		products, err = e.catalog.fullPage(lookup, after)
	} else {
		products, err = e.productPages.get(after)
	}
	if err != nil {
		slog.Error("products could not be listed", logID(ctx), "error", err)
		sendProblem(ctx, productsUnavailable, "")
		return
	}
	page := struct {
		Products   []productBody `json:"products"`
		NextCursor string        `json:"next_cursor,omitempty"`
	}{Products: []productBody{}}
	if len(products) > pageSize {
		products = products[:pageSize]
		page.NextCursor = e.cursors().product(products[pageSize-1].ID)
	}
	for _, p := range products {
		page.Products = append(page.Products, newProductBody(p))
	}
	sendJSON(ctx, fasthttp.StatusOK, page)
}
