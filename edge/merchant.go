package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/account"
	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/token"
)

// manageTimeout bounds the work of a request that changes a product.
const manageTimeout = 5 * time.Second

// forMerchant lets only merchants and admins through. Stampede is one shop: any merchant may change any product.
func (e *Edge) forMerchant(next func(*fasthttp.RequestCtx, *token.Claims)) fasthttp.RequestHandler {
	return e.forUser(func(ctx *fasthttp.RequestCtx, who *token.Claims) {
		if !mayManage(who) {
			sendProblem(ctx, forbidden, "It takes the role of a merchant or an admin.")
			return
		}
		next(ctx, who)
	})
}

// actedBy is a context whose changes the staff log has as a user's.
func actedBy(who *token.Claims) context.Context {
	return mysql.WithActor(context.Background(), fmt.Sprintf("user:%d", who.UserID))
}

func mayManage(who *token.Claims) bool {
	return slices.Contains([]account.Role{account.Merchant, account.Admin}, account.Role(who.Role))
}

// seesAll tells whether the client may see products that are off sale. Who bears no valid token is the public.
func (e *Edge) seesAll(ctx *fasthttp.RequestCtx) bool {
	who, ok := e.identify(ctx)
	return ok && mayManage(who) && !e.bans.user(who.UserID)
}

// postProduct puts a product into the catalogue. Repeating it makes another one, unless it has an idempotency key.
func (e *Edge) postProduct(ctx *fasthttp.RequestCtx, who *token.Claims) {
	key, detail := idempotencyKey(ctx)
	if detail != "" {
		sendProblem(ctx, malformedRequest, detail)
		return
	}
	const example = `{"name":"Concert ticket","price":4990,"currency":"EUR","stock":500}`
	members, ok := readObject(ctx, example, "application/json")
	if !ok {
		return
	}
	for _, name := range []string{"name", "price", "currency", "stock"} {
		if !slices.ContainsFunc(members, func(m member) bool { return m.name == name }) {
			sendProblem(ctx, invalidProduct, name+" is missing.")
			return
		}
	}
	change, detail := readChange(members)
	if detail != "" {
		sendProblem(ctx, invalidProduct, detail)
		return
	}
	work, cancel := context.WithTimeout(actedBy(who), manageTimeout)
	defer cancel()
	var p order.Product
	change(&p)
	p, err := e.addProduct(work, p, ledger.ProductKey{
		UserID: who.UserID, Key: key, BodyHash: sha256.Sum256(ctx.PostBody()),
	})
	switch {
	case errors.Is(err, ledger.ErrMismatch):
		sendProblem(ctx, idempotencyMismatch, "Use a new key for a new product.")
		return
	case err != nil:
		productFails(ctx, err, invalidProduct)
		return
	}
	sendJSON(ctx, fasthttp.StatusCreated, newProductBody(p))
	ctx.Response.Header.Set(fasthttp.HeaderLocation, fmt.Sprintf("/api/products/%d", p.ID))
}

// addProduct adds a product, once if there is a key.
func (e *Edge) addProduct(ctx context.Context, p order.Product, key ledger.ProductKey) (order.Product, error) {
	if key.Key == "" {
		return e.ledger.AddProduct(ctx, p)
	}
	return e.ledger.AddProductOnce(ctx, p, key)
}

// unpatchable says of members that a patch cannot change what to do instead.
var unpatchable = map[string]string{
	"stock":      "stock is changed by a restock: PUT /api/products/{id}/restocks/{restock_id}.",
	"available":  "available is counted; units are added by a restock: PUT /api/products/{id}/restocks/{restock_id}.",
	"currency":   "currency cannot be changed; take the product off sale and create another.",
	"product_id": "product_id cannot be changed.",
}

// patchProduct changes the settings of a product by a JSON merge patch (RFC 7396). MySQL comes first. If Redis then
// cannot be told, the same patch again, or an empty one, does the rest.
func (e *Edge) patchProduct(ctx *fasthttp.RequestCtx, who *token.Claims) {
	id, ok := productID(ctx)
	if !ok {
		return
	}
	members, ok := readObject(ctx, `{"price":3990,"ends_at":null}`, "application/json", "application/merge-patch+json")
	if !ok {
		return
	}
	for _, m := range members {
		if detail := unpatchable[m.name]; detail != "" {
			sendProblem(ctx, invalidProduct, detail)
			return
		}
	}
	change, detail := readChange(members)
	if detail != "" {
		sendProblem(ctx, invalidProduct, detail)
		return
	}
	work, cancel := context.WithTimeout(actedBy(who), manageTimeout)
	defer cancel()
	p, err := e.ledger.UpdateProduct(work, id, change)
	if err != nil {
		productFails(ctx, err, invalidProduct)
		return
	}
	if _, err := e.stock.Configure(work, p); err != nil {
		slog.Error("a change is in MySQL only until it is repeated", logID(ctx), "product", id, "revision", p.Revision,
			"error", err)
		sendProblem(ctx, stockUnavailable, "The change is stored but does not hold for orders yet. Repeat the request.")
		return
	}
	e.closed.reopen(id) // the notice takes a moment
	shown := []order.Product{p}
	e.catalog.showAvailable(work, shown)
	sendJSON(ctx, fasthttp.StatusOK, newProductBody(shown[0]))
}

// restockBody is a restock as clients see it; Stock is what MySQL had after it. It is the same for every retry.
type restockBody struct {
	ProductID int64  `json:"product_id"`
	RestockID string `json:"restock_id"`
	Units     int64  `json:"units"`
	Stock     int64  `json:"stock"`
}

// putRestock adds units to a product, or takes some out if they are negative, once for each id. MySQL comes first. If
// Redis then cannot be told, the same request again does the rest.
func (e *Edge) putRestock(ctx *fasthttp.RequestCtx, who *token.Claims) {
	id, ok := productID(ctx)
	if !ok {
		return
	}
	text, _ := ctx.UserValue("restock_id").(string)
	restockID, err := url.PathUnescape(text)
	if err != nil {
		sendProblem(ctx, invalidRestock, "The restock's id is not percent-encoded correctly.")
		return
	}
	const example = `{"units":100}`
	members, ok := readObject(ctx, example, "application/json")
	if !ok {
		return
	}
	if len(members) != 1 || members[0].name != "units" {
		sendProblem(ctx, invalidRestock, "A restock has units and nothing else, such as "+example+".")
		return
	}
	units, ok := wholeNumber(members[0].value)
	if !ok {
		sendProblem(ctx, invalidRestock, "units must be a whole number.")
		return
	}
	work, cancel := context.WithTimeout(actedBy(who), manageTimeout)
	defer cancel()
	if units < 0 {
		e.correct(work, ctx, id, units, restockID)
		return
	}
	done, err := e.ledger.Restock(work, id, units, restockID)
	if err != nil {
		productFails(ctx, err, invalidRestock)
		return
	}
	if _, err := buckets.Restock(work, e.stock, done); err != nil {
		slog.Error("a restock is in MySQL only until it is repeated", logID(ctx), "product", id, "id", restockID,
			"error", err)
		sendProblem(ctx, stockUnavailable, "The restock is stored but not for sale yet. Repeat the request.")
		return
	}
	e.closed.reopen(id) // the notice takes a moment
	sendRestock(ctx, done)
}

// correct takes units out of a product's stock.
func (e *Edge) correct(work context.Context, ctx *fasthttp.RequestCtx, id, units int64, restockID string) {
	mover := buckets.Mover{Redis: e.stock, MySQL: e.ledger}
	done, err := mover.Correct(work, id, -units, restockID)
	switch {
	case errors.Is(err, ledger.ErrTooFew):
		sendProblem(ctx, tooFewUnits, "Fewer than "+strconv.FormatInt(-units, 10)+
			" units are for sale. Nothing was changed.")
	case err != nil:
		productFails(ctx, err, invalidRestock)
	default:
		sendRestock(ctx, done)
	}
}

func sendRestock(ctx *fasthttp.RequestCtx, done ledger.Restock) {
	status := fasthttp.StatusOK
	if done.Applied {
		status = fasthttp.StatusCreated
	}
	sendJSON(ctx, status, restockBody{done.ProductID, done.ID, done.Units, done.Balance})
}

// productFails answers a request that MySQL did not carry out; refused is the code of a request that is not valid.
func productFails(ctx *fasthttp.RequestCtx, err error, refused code) {
	invalid, isInvalid := errors.AsType[*mysql.InvalidError](err)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		sendProblem(ctx, productNotFound, "")
	case errors.Is(err, ledger.ErrMismatch) && isInvalid:
		sendProblem(ctx, restockMismatch, invalid.Detail+".")
	case isInvalid:
		sendProblem(ctx, refused, invalid.Detail+".")
	default:
		slog.Error("a product could not be changed", logID(ctx), "error", err)
		sendProblem(ctx, productsUnavailable, "It is not known whether the change was made. Look, then repeat it.")
	}
}

// member is a member of a JSON object, with its value as it was sent.
type member struct {
	name  string
	value json.RawMessage
}

// readObject reads a body of one of the media types that is a JSON object, and that checkBody lets pass. If it
// cannot, it answers the request and returns false.
func readObject(ctx *fasthttp.RequestCtx, example string, mediaTypes ...string) ([]member, bool) {
	contentType := ctx.Request.Header.ContentType()
	if !slices.ContainsFunc(mediaTypes, func(want string) bool { return isMediaType(contentType, want) }) {
		sendProblem(ctx, unsupportedMediaType, "Send the body with Content-Type: "+mediaTypes[0]+".")
		return nil, false
	}
	body := ctx.PostBody()
	if detail := checkBody(body, example); detail != "" {
		sendProblem(ctx, malformedRequest, detail)
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(body)) // of what is valid it fails to read nothing
	if begin, _ := decoder.Token(); begin != json.Delim('{') {
		sendProblem(ctx, malformedRequest, notAnObject(example))
		return nil, false
	}
	var members []member
	for decoder.More() {
		token, _ := decoder.Token()
		m := member{}
		m.name, _ = token.(string)
		_ = decoder.Decode(&m.value)
		members = append(members, m)
	}
	return members, true
}

// readChange makes the members of a product into a change of one. It judges types; the ledger judges bounds. If
// something is wrong with a member, detail says what.
func readChange(members []member) (change func(*order.Product), detail string) {
	var changes []func(*order.Product)
	for _, m := range members {
		c, detail := m.change()
		if detail != "" {
			return nil, detail
		}
		changes = append(changes, c)
	}
	return func(p *order.Product) {
		for _, c := range changes {
			c(p)
		}
	}, ""
}

// change is what a member changes of a product. Null takes away what a product need not have. If something is wrong
// with the member, detail says what.
func (m member) change() (change func(*order.Product), detail string) {
	null := string(m.value) == "null"
	text, isText := plainText(m.value)
	number, isWhole := wholeNumber(m.value)
	at, isTime := timeOf(text)
	var ok bool
	var kind string
	switch m.name {
	case "name":
		ok, kind = isText, "text"
		change = func(p *order.Product) { p.Name = text }
	case "description":
		ok, kind = isText || null, "text"
		change = func(p *order.Product) { p.Description = text }
	case "price":
		ok, kind = isWhole, "a whole number of minor units, such as cents"
		change = func(p *order.Product) { p.Price = number }
	case "currency":
		ok, kind = isText, "a code of ISO 4217, such as EUR"
		change = func(p *order.Product) { p.Currency = text }
	case "stock":
		ok, kind = isWhole, "a whole number of units"
		change = func(p *order.Product) { p.Stock = number }
	case "starts_at":
		ok, kind = isTime || null, "a time such as 2026-11-27T08:00:00Z (RFC 3339), or null for none"
		change = func(p *order.Product) { p.StartsAt = at }
	case "ends_at":
		ok, kind = isTime || null, "a time such as 2026-11-27T08:00:00Z (RFC 3339), or null for none"
		change = func(p *order.Product) { p.EndsAt = at }
	case "limit_per_user":
		ok = isWhole && number > 0 || null
		kind = fmt.Sprintf("1 to %d units, or null for no limit", ledger.MaxLimitPerUser)
		change = func(p *order.Product) { p.LimitPerUser = number }
	case "state":
		state := order.SaleState(text)
		ok, kind = state == order.OnSale || state == order.OffSale, fmt.Sprintf("%q or %q", order.OnSale, order.OffSale)
		change = func(p *order.Product) { p.State = state }
	default:
		return nil, fmt.Sprintf("%.50q is nothing that can be set of a product.", m.name)
	}
	if !ok {
		return nil, m.name + " must be " + kind + "."
	}
	return change, ""
}

func plainText(value json.RawMessage) (text string, ok bool) {
	if value[0] != '"' {
		return "", false
	}
	return text, json.Unmarshal(value, &text) == nil
}

func wholeNumber(value json.RawMessage) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	return n, err == nil
}

// timeOf reads a time of RFC 3339. The first second of the year 1, which for Go is no time at all, is none.
func timeOf(text string) (t time.Time, ok bool) {
	t, err := order.ParseTime(text)
	return t, err == nil && !t.IsZero()
}
