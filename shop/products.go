package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"stampede/internal/access"
	"stampede/internal/buckets"
	"stampede/internal/catalog"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/token"
)

// merchantHandler answers a request of somebody who may change products.
type merchantHandler func(w http.ResponseWriter, r *http.Request, who *token.Claims) error

// forMerchant lets only merchants and admins through. Stampede is one shop: any merchant may change any product.
func (s *Shop) forMerchant(next merchantHandler) handler {
	return s.forUser(func(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
		if !access.MayManage(who) {
			return problem.New(problem.Forbidden, "It takes the role of a merchant or an admin.")
		}
		return next(w, r, who)
	})
}

// workAs is the context of what a request changes, which the staff log has as the user's.
func (s *Shop) workAs(r *http.Request, who *token.Claims) (context.Context, context.CancelFunc) {
	ctx, cancel := s.work(r)
	return mysql.WithActor(ctx, fmt.Sprintf("user:%d", who.UserID)), cancel
}

// readObject reads a body that is a JSON object of one of the media types.
func readObject(r *http.Request, example string, mediaTypes ...string) (members []problem.Member, body []byte,
	err error) {
	body, _ = io.ReadAll(r.Body) // which has arrived
	members, bad := problem.ReadObject(r.Header.Get("Content-Type"), body, example, mediaTypes...)
	if bad != nil {
		return nil, nil, bad
	}
	return members, body, nil
}

// postProduct puts a product into the catalogue. Repeating it makes another one, unless it has an idempotency key.
func (s *Shop) postProduct(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	key, detail := problem.IdempotencyKey(r.Header.Values(problem.IdempotencyHeader))
	if detail != "" {
		return problem.New(problem.MalformedRequest, detail)
	}
	const example = `{"name":"Concert ticket","price":4990,"currency":"EUR","stock":500}`
	members, body, err := readObject(r, example, "application/json")
	if err != nil {
		return err
	}
	for _, name := range []string{"name", "price", "currency", "stock"} {
		if !slices.ContainsFunc(members, func(m problem.Member) bool { return m.Name == name }) {
			return problem.New(problem.InvalidProduct, name+" is missing.")
		}
	}
	change, detail := readChange(members)
	if detail != "" {
		return problem.New(problem.InvalidProduct, detail)
	}

	ctx, cancel := s.workAs(r, who)
	defer cancel()
	var p order.Product
	change(&p)
	p, err = s.addProduct(ctx, p, ledger.ProductKey{UserID: who.UserID, Key: key, BodyHash: sha256.Sum256(body)})
	if errors.Is(err, ledger.ErrMismatch) {
		return problem.New(problem.IdempotencyMismatch, "Use a new key for a new product.")
	}
	if err != nil {
		return refused(err, problem.InvalidProduct)
	}
	w.Header().Set("Location", fmt.Sprintf("/api/products/%d", p.ID))
	return sendJSON(w, http.StatusCreated, catalog.Show(p))
}

// addProduct adds a product, once if there is a key.
func (s *Shop) addProduct(ctx context.Context, p order.Product, key ledger.ProductKey) (order.Product, error) {
	if key.Key == "" {
		return s.ledger.AddProduct(ctx, p)
	}
	return s.ledger.AddProductOnce(ctx, p, key)
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
func (s *Shop) patchProduct(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, bad := catalog.ParseID(r.PathValue("id"))
	if bad != nil {
		return bad
	}
	members, _, err := readObject(r, `{"price":3990,"ends_at":null}`, "application/json",
		"application/merge-patch+json")
	if err != nil {
		return err
	}
	for _, m := range members {
		if detail := unpatchable[m.Name]; detail != "" {
			return problem.New(problem.InvalidProduct, detail)
		}
	}
	change, detail := readChange(members)
	if detail != "" {
		return problem.New(problem.InvalidProduct, detail)
	}

	ctx, cancel := s.workAs(r, who)
	defer cancel()
	p, err := s.ledger.UpdateProduct(ctx, id, change)
	if err != nil {
		return refused(err, problem.InvalidProduct)
	}
	if _, err := s.stock.Configure(ctx, p); err != nil {
		return &unavailable{
			problem.New(problem.StockUnavailable,
				"The change is stored but does not hold for orders yet. Repeat the request."),
			fmt.Errorf("a change is in MySQL only until it is repeated: product %d, revision %d: %w", id, p.Revision,
				err),
		}
	}
	shown := []order.Product{p}
	s.catalog.SetAvailable(ctx, shown)
	return sendJSON(w, http.StatusOK, catalog.Show(shown[0]))
}

// restockBody is a restock as clients see it; Stock is what MySQL had after it. It is the same for every retry.
type restockBody struct {
	ProductID order.ProductID `json:"product_id"`
	RestockID string          `json:"restock_id"`
	Units     int64           `json:"units"`
	Stock     int64           `json:"stock"`
}

// readUnits reads the units of a restock.
func readUnits(r *http.Request) (int64, error) {
	const example = `{"units":100}`
	members, _, err := readObject(r, example, "application/json")
	if err != nil {
		return 0, err
	}
	if len(members) != 1 || members[0].Name != "units" {
		return 0, problem.New(problem.InvalidRestock, "A restock has units and nothing else, such as "+example+".")
	}
	units, ok := wholeNumber(members[0].Value)
	if !ok {
		return 0, problem.New(problem.InvalidRestock, "units must be a whole number.")
	}
	return units, nil
}

// putRestock adds units to a product, or takes some out if they are negative, once for each id. MySQL comes first. If
// Redis then cannot be told, the same request again does the rest.
func (s *Shop) putRestock(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, bad := catalog.ParseID(r.PathValue("id"))
	if bad != nil {
		return bad
	}
	restockID := r.PathValue("restock_id")
	units, err := readUnits(r)
	if err != nil {
		return err
	}

	ctx, cancel := s.workAs(r, who)
	defer cancel()
	if units < 0 {
		return s.correct(ctx, w, id, units, restockID)
	}
	done, err := s.ledger.Restock(ctx, id, units, restockID)
	if err != nil {
		return refused(err, problem.InvalidRestock)
	}
	if _, err := buckets.Restock(ctx, s.stock, done); err != nil {
		return &unavailable{
			problem.New(problem.StockUnavailable, "The restock is stored but not for sale yet. Repeat the request."),
			fmt.Errorf("a restock is in MySQL only until it is repeated: product %d, id %q: %w", id, restockID, err),
		}
	}
	return sendRestock(w, done)
}

// correct takes units out of a product's stock.
func (s *Shop) correct(ctx context.Context, w http.ResponseWriter, id order.ProductID, units int64,
	restockID string) error {
	mover := buckets.Stores{Redis: s.stock, MySQL: s.ledger}
	done, err := mover.Correct(ctx, id, -units, restockID)
	if errors.Is(err, ledger.ErrTooFew) {
		return problem.New(problem.TooFewUnits, fmt.Sprintf("Fewer than %d units are for sale. Nothing was changed.",
			-units))
	}
	if err != nil {
		return refused(err, problem.InvalidRestock)
	}
	return sendRestock(w, done)
}

func sendRestock(w http.ResponseWriter, done ledger.Restock) error {
	status := http.StatusOK
	if done.Applied {
		status = http.StatusCreated
	}
	return sendJSON(w, status, restockBody{done.StockID.Product(), done.ID, done.Units, done.Balance})
}

// refused makes an error of MySQL into a problem, if it is the client's; invalid is the code of a request that is not
// valid.
func refused(err error, invalid problem.Code) error {
	why, isInvalid := errors.AsType[*mysql.InvalidError](err)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return problem.New(problem.ProductNotFound, "")
	case errors.Is(err, ledger.ErrMismatch) && isInvalid:
		return problem.New(problem.RestockMismatch, why.Detail+".")
	case isInvalid:
		return problem.New(invalid, why.Detail+".")
	}
	return err
}

// readChange makes the members of a product into a change of one. It judges types; the ledger judges bounds. If
// something is wrong with a member, detail says what.
func readChange(members []problem.Member) (change func(*order.Product), detail string) {
	var changes []func(*order.Product)
	for _, m := range members {
		c, detail := changeOf(m)
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

// changeOf is what a member changes of a product. Null takes away what a product need not have. If something is wrong
// with the member, detail says what.
func changeOf(m problem.Member) (change func(*order.Product), detail string) {
	null := string(m.Value) == "null"
	text, isText := plainText(m.Value)
	number, isWhole := wholeNumber(m.Value)
	at, isTime := timeOf(text)
	var ok bool
	var kind string
	switch m.Name {
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
	case "payment":
		rule := order.PaymentRule(text)
		ok = rule == order.PaymentNone || rule == order.PaymentRequired
		kind = fmt.Sprintf("%q or %q", order.PaymentNone, order.PaymentRequired)
		change = func(p *order.Product) { p.Payment = rule }
	case "points_price":
		ok = isWhole && number > 0 || null
		kind = fmt.Sprintf("1 to %d points, or null if nobody can pay with them", int64(order.MaxUnitPrice))
		change = func(p *order.Product) { p.PointsPrice = number }
	case "pay_within_s":
		// Bounded here as well, since a time cannot be as long as a number.
		ok = isWhole && number >= 0 && number <= int64(order.MaxPayWithin/time.Second) || null
		kind = fmt.Sprintf("%d to %d seconds, or null for %d", int64(order.MinPayWithin/time.Second),
			int64(order.MaxPayWithin/time.Second), int64(order.DefaultPayWithin/time.Second))
		change = func(p *order.Product) {
			p.PayWithin = cmp.Or(time.Duration(number)*time.Second, order.DefaultPayWithin)
		}
	default:
		return nil, fmt.Sprintf("%.50q is nothing that can be set of a product.", m.Name)
	}
	if !ok {
		return nil, m.Name + " must be " + kind + "."
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
