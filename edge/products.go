package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/valyala/fasthttp"

	"stampede/internal/access"
	"stampede/internal/catalog"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
)

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

// seesAll reports whether the client may see products that are off sale. Who bears no valid token is the public.
func (e *Edge) seesAll(ctx *fasthttp.RequestCtx) bool {
	who, ok := e.guard.Identify(ctx.Request.Header.Peek(fasthttp.HeaderAuthorization))
	return ok && access.MayManage(who) && !e.guard.Bans.User(who.UserID)
}

// getProduct shows a product. The public sees it from the cache, and only on sale; who manages products sees what is
// stored at this moment.
func (e *Edge) getProduct(ctx *fasthttp.RequestCtx) {
	text, _ := ctx.UserValue("id").(string)
	id, bad := catalog.ParseID(text)
	if bad != nil {
		sendError(ctx, bad)
		return
	}

	product, err := order.Product{}, error(nil)
	if e.seesAll(ctx) {
		lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		defer cancel()
		product, err = e.catalog.Product(lookup, id)
	} else if product, err = e.products.get(id); err == nil && product.State == order.OffSale {
		err = mysql.ErrNotFound
	}

	switch {
	case errors.Is(err, mysql.ErrNotFound):
		sendProblem(ctx, problem.ProductNotFound, "")
	case err != nil:
		slog.Error("show a product: it cannot be read", logID(ctx), "product", id, "error", err)
		sendProblem(ctx, problem.ProductsUnavailable, "")
	default:
		sendJSON(ctx, fasthttp.StatusOK, catalog.Show(product))
	}
}

// listProducts shows products page by page, to the public and to others as getProduct does.
func (e *Edge) listProducts(ctx *fasthttp.RequestCtx) {
	after, ok := e.cursors.ReadProduct(ctx.QueryArgs().Peek("cursor"))
	if !ok {
		sendProblem(ctx, problem.MalformedRequest, "cursor must be the next_cursor of an earlier page.")
		return
	}

	products, err := []order.Product(nil), error(nil)
	if e.seesAll(ctx) {
		lookup, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		defer cancel()
		products, err = e.catalog.All(lookup, after)
	} else {
		products, err = e.productPages.get(after)
	}
	if err != nil {
		slog.Error("list products: they cannot be read", logID(ctx), "error", err)
		sendProblem(ctx, problem.ProductsUnavailable, "")
		return
	}

	page := struct {
		Products   []catalog.Product `json:"products"`
		NextCursor string            `json:"next_cursor,omitempty"`
	}{Products: []catalog.Product{}}
	if len(products) > catalog.PageSize {
		products = products[:catalog.PageSize]
		page.NextCursor = e.cursors.Product(products[catalog.PageSize-1].ID.Product())
	}
	for _, p := range products {
		page.Products = append(page.Products, catalog.Show(p))
	}
	sendJSON(ctx, fasthttp.StatusOK, page)
}
