package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
	"stampede/internal/token"
)

// bearerOf makes a token of a user with a role.
func (w *world) bearerOf(user int64, role account.Role) string {
	signed, err := w.tokens.Sign(token.Claims{UserID: user, Role: string(role)}, time.Hour)
	w.must(err)
	return "Bearer " + signed
}

// manage sends a JSON body, which may be empty, as a merchant.
func (w *world) manage(method, path, body string) reply {
	fields := []string{"Authorization", w.bearerOf(99, account.Merchant)}
	if body != "" {
		fields = append(fields, "Content-Type", "application/json")
	}
	return w.send(method, path, body, fields...)
}

// managed sends a body as a merchant, wants a status, and returns the product of the answer.
func (w *world) managed(method, path, body string, status int) productBody {
	w.Helper()
	r := w.manage(method, path, body)
	if r.status != status {
		w.Fatalf("%s %s %s: got %v, want %d", method, path, body, r, status)
	}
	var p productBody
	r.read(w, &p)
	return p
}

func pathOf(p order.Product) string { return fmt.Sprintf("/api/products/%d", p.ID) }

func (w *world) stored(id int64) order.Product {
	w.Helper()
	p, err := w.ledger.Product(context.Background(), id)
	w.must(err)
	return p
}

const goodProduct = `{"name":"ticket","price":4990,"currency":"EUR","stock":3}`

func TestCreateProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.manage("POST", "/api/products", goodProduct)
	want := `{"product_id":1,"name":"ticket","price":4990,"currency":"EUR","available":3,"state":"on_sale"}`
	if r.status != 201 || r.body != want || r.header.Get("Location") != "/api/products/1" ||
		r.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v %v, want %s", r, r.header, want)
	}
	if r := w.send("GET", r.header.Get("Location"), ""); r.body != want {
		t.Errorf("the public sees %v", r)
	}
	w.mustPost(1, 1, 3)
	wantProblem(t, w.post(1, 1, 1), 409, soldOut)

	full := `{"state":"off_sale","limit_per_user":2,"ends_at":"2099-01-02T03:04:05.0069+02:00",` +
		`"starts_at":"2026-01-02T03:04:05Z","description":"Süß & <bitter>","stock":0,` +
		`"currency":"JPY","price":0,"name":"x"}`
	r = w.manage("POST", "/api/products", full)
	want = `{"product_id":2,"name":"x","description":"Süß \u0026 \u003cbitter\u003e","price":0,"currency":"JPY",` +
		`"available":0,"starts_at":"2026-01-02T03:04:05Z","ends_at":"2099-01-02T01:04:05.006Z",` +
		`"limit_per_user":2,"state":"off_sale"}`
	if r.status != 201 || r.body != want {
		t.Errorf("got  %v\nwant %s", r, want)
	}
	// Null is as good as nothing where nothing is allowed.
	nulls := `{"description":null,"starts_at":null,"ends_at":null,"limit_per_user":null,`
	p := w.managed("POST", "/api/products", strings.Replace(goodProduct, "{", nulls, 1), 201)
	if stored := w.stored(p.ID); stored.LimitPerUser != 0 || !stored.StartsAt.IsZero() || !stored.EndsAt.IsZero() {
		t.Errorf("stored %+v", stored)
	}
}

func TestPatchProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := w.addProduct(5, func(p *order.Product) {
		p.LimitPerUser, p.StartsAt, p.EndsAt = 2, start, start.AddDate(50, 0, 0)
	})
	w.mustPost(1, p.ID, 1)
	want := w.stored(p.ID)
	for _, step := range []struct {
		patch  string
		change func(*order.Product)
	}{
		{`{"price":5}`, func(p *order.Product) { p.Price = 5 }},
		{`{"name":"other","description":"words"}`, func(p *order.Product) { p.Name, p.Description = "other", "words" }},
		{`{"description":null}`, func(p *order.Product) { p.Description = "" }},
		{`{"limit_per_user":3,"ends_at":"2099-01-01T00:00:00Z"}`, func(p *order.Product) {
			p.LimitPerUser, p.EndsAt = 3, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		}},
		{`{"limit_per_user":null,"ends_at":null,"starts_at":null}`, func(p *order.Product) {
			p.LimitPerUser, p.EndsAt, p.StartsAt = 0, time.Time{}, time.Time{}
		}},
		{`{"state":"off_sale"}`, func(p *order.Product) { p.State = order.OffSale }},
		{`{"state":"off_sale","price":5}`, nil},
		{` {} `, nil},
		{`{"state":"on_sale"}`, func(p *order.Product) { p.State = order.OnSale }},
	} {
		got := w.managed("PATCH", pathOf(p), step.patch, 200)
		if step.change != nil {
			step.change(&want)
			want.Revision++
		}
		if stored := w.stored(p.ID); stored != want {
			t.Errorf("%s: stored\n%+v, want\n%+v", step.patch, stored, want)
		}
		shown := newProductBody(want)
		shown.Available = 4 // by Redis, where one is reserved
		if got != shown {
			t.Errorf("%s: got\n%+v, want\n%+v", step.patch, got, shown)
		}
	}
	r := w.send("PATCH", pathOf(p), `{"price":6}`, "Authorization", w.bearerOf(99, account.Admin),
		"Content-Type", "application/Merge-Patch+json; charset=utf-8")
	if r.status != 200 || w.stored(p.ID).Price != 6 {
		t.Errorf("a merge patch by its own name: %v", r)
	}
	for _, id := range []string{"777", "0", "x"} {
		wantProblem(t, w.manage("PATCH", "/api/products/"+id, `{"price":6}`), 404, productNotFound)
		wantProblem(t, w.manage("PUT", "/api/products/"+id+"/restocks/a", `{"units":6}`), 404, productNotFound)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(5)
	calls := []struct{ method, path, body string }{
		{"POST", "/api/products", goodProduct},
		{"PATCH", pathOf(p), `{"price":7}`},
		{"PUT", pathOf(p) + "/restocks/a", `{"units":1}`},
	}
	send := func(i int, authorization string) reply {
		c := calls[i]
		return w.send(c.method, c.path, c.body, "Content-Type", "application/json", "Authorization", authorization)
	}
	for i, c := range calls {
		for _, authorization := range []string{"", "Bearer x", w.bearerOf(1, account.Merchant) + "x"} {
			wantProblem(t, send(i, authorization), 401, unauthenticated)
		}
		for _, role := range []account.Role{"", account.Buyer, "king", "Merchant", "merchant "} {
			wantProblem(t, send(i, w.bearerOf(1, role)), 403, forbidden)
		}
		if now := w.stored(p.ID); now != p {
			t.Errorf("%s: somebody else has made it %+v", c.method, now)
		}
	}
	if all, err := w.ledger.Products(t.Context(), 0, 10); err != nil || len(all) != 1 {
		t.Errorf("somebody else has made %d products, error %v", len(all)-1, err)
	}
	for i, c := range calls {
		for j, role := range []account.Role{account.Merchant, account.Admin} {
			want := map[string]int{"POST": 201, "PATCH": 200, "PUT": 201 - j}[c.method]
			if r := send(i, w.bearerOf(1, role)); r.status != want {
				t.Errorf("%s by %s: %v", c.method, role, r)
			}
		}
	}
	w.managed("PATCH", pathOf(p), `{"state":"off_sale"}`, 200)
	w.must(w.accounts.Ban(t.Context(), account.Ban{UserID: 1, Reason: "fraud"}))
	merchant := w.bearerOf(1, account.Merchant)
	w.eventually("the merchant is banned", func() bool { return send(1, merchant).code() == "banned" })
	wantProblem(t, w.send("GET", pathOf(p), "", "Authorization", merchant), 404, productNotFound)
	// Who has logged out is nobody any longer.
	session := uuid.New()
	signed, err := w.tokens.Sign(token.Claims{UserID: 2, SessionID: session, Role: "merchant"}, time.Hour)
	w.must(err)
	if r := send(1, "Bearer "+signed); r.status != 200 {
		t.Errorf("a merchant with a session: %v", r)
	}
	w.edge.sessions.end(session)
	wantProblem(t, send(1, "Bearer "+signed), 401, unauthenticated)
}

// TestBadProducts sends what no merchant should. Each answer names what is wrong, and nothing changes. It looks at the
// log, so it is not parallel.
func TestBadProducts(t *testing.T) {
	w := newWorld(t)
	p := w.addProduct(5, func(p *order.Product) {
		p.StartsAt, p.EndsAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	})
	w.mustPost(1, p.ID, 1)
	w.wantSettledOutbox(p.ID)
	merchant := w.bearerOf(99, account.Merchant)
	stored, before := w.stored(p.ID), w.dump()
	logs.take()

	const unprocessable = http.StatusUnprocessableEntity
	type bad struct {
		body   string
		status int
		code   code
		says   string
	}
	of := func(member, value string) string { return fmt.Sprintf(`{%q:%s}`, member, value) }
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	// What is wrong with a member is wrong in both; a whole product is made around it for a POST.
	var members []bad
	for member, values := range map[string][]string{
		"name":        {`""`, `" "`, text(201), "null", "1", "[]", "{}", "true"},
		"description": {text(10_001), "1", `["x"]`, "false"},
		"price": {"-1", "1.5", "1.0", "1e3", "1000000000001", "9223372036854775808", "-9223372036854775809", "1e400",
			`"5"`, "null", "{}"},
		"limit_per_user": {"0", "-1", "-0", "1.5", "1000000001", "9223372036854775808", `"1"`, "true"},
		"starts_at": {`"tomorrow"`, `""`, `"2026-01-02"`, `"2026-01-02 03:04:05Z"`, `"2026-01-02T03:04:05"`,
			`"2026-13-02T03:04:05Z"`, `"2026-01-02T24:00:00Z"`, `"0001-01-01T00:00:00Z"`, `"1969-12-31T23:59:59Z"`,
			`"1970-01-01T00:00:00Z"`, "1767225600", "{}", `"2026-01-02T3:04:05Z"`, `"2026-01-02T03:04:05,5Z"`,
			`"2026-01-02T03:04:05+24:00"`, `"2026-01-02T03:04:05+01:60"`, `"2026-01-02T03:04:60Z"`},
		"ends_at": {`"later"`, `"10000-01-01T00:00:00Z"`, `"9999-12-31T23:59:59-01:00"`, `"1970-01-01T00:00:00Z"`,
			"false"},
		"state": {`"sold"`, `""`, "null", "1", `"ON_SALE"`},
		"color": {`"red"`, "null"}, "": {"1"}, "state ": {`"on_sale"`},
		"version": {"1"}, "revision": {"1"},
	} {
		for _, value := range values {
			members = append(members, bad{of(member, value), unprocessable, invalidProduct, member})
		}
	}
	shapes := []bad{
		{" ", 400, malformedRequest, "JSON object"},
		{"hello", 400, malformedRequest, "JSON object"},
		{"null", 400, malformedRequest, "JSON object"},
		{"[]", 400, malformedRequest, "JSON object"},
		{"1", 400, malformedRequest, "JSON object"},
		{`"price"`, 400, malformedRequest, "JSON object"},
		{`{"price":5`, 400, malformedRequest, "JSON object"},
		{`{"price":5,}`, 400, malformedRequest, "JSON object"},
		{`{"price":5}x`, 400, malformedRequest, "JSON object"},
		{`{"price":5}{"price":5}`, 400, malformedRequest, "JSON object"},
		{`{"price":05}`, 400, malformedRequest, "JSON object"},
		{"\ufeff" + `{"price":5}`, 400, malformedRequest, "JSON object"},
		{"{\"name\":\"\xff\"}", 400, malformedRequest, "JSON object"},
		{`{"a":` + strings.Repeat("[", 16_000), 400, malformedRequest, "JSON object"},
		{`{"price":5,"name":"x","price":5}`, 400, malformedRequest, "price"},
		{`{"price":5,"pric\u0065":5}`, 400, malformedRequest, "price"},
		{`{"description":` + text(maxBodyBytes) + "}", 413, bodyTooLarge, "bytes"},
	}
	check := func(what string, r reply, b bad) {
		t.Helper()
		var document struct{ Detail string }
		_ = json.Unmarshal([]byte(r.body), &document)
		wantProblem(t, r, b.status, b.code)
		if !strings.Contains(document.Detail, b.says) || len(document.Detail) > 200 {
			t.Errorf("%s %.100s: the detail is %q and should speak of %q", what, b.body, document.Detail, b.says)
		}
	}
	onlyPatch := []bad{
		{`{"stock":7}`, unprocessable, invalidProduct, "restock"},
		{`{"available":7}`, unprocessable, invalidProduct, "restock"},
		{`{"currency":"USD"}`, unprocessable, invalidProduct, "currency"},
		{`{"currency":"EUR"}`, unprocessable, invalidProduct, "currency"},
		{`{"product_id":7}`, unprocessable, invalidProduct, "product_id"},
		{`{"price":7,"stock":7}`, unprocessable, invalidProduct, "restock"},
		{`{"price":7,"ends_at":"2026-01-01T00:00:00Z"}`, unprocessable, invalidProduct, "ends_at"}, // when it starts
		{`{"starts_at":"2099-01-01T00:00:00.001Z"}`, unprocessable, invalidProduct, "ends_at"},
		{`{"starts_at":"2030-01-01T00:00:00Z","ends_at":"2029-01-01T00:00:00Z"}`,
			unprocessable, invalidProduct, "ends_at"},
	}
	for _, b := range slices.Concat(members, shapes, onlyPatch) {
		check("PATCH", w.manage("PATCH", pathOf(p), b.body), b)
	}
	for i, b := range members {
		// A repeated name would be the fault that is found.
		var whole map[string]json.RawMessage
		w.must(json.Unmarshal([]byte(goodProduct), &whole))
		var one map[string]json.RawMessage
		w.must(json.Unmarshal([]byte(b.body), &one))
		maps.Copy(whole, one)
		body, err := json.Marshal(whole)
		w.must(err)
		members[i].body = string(body)
	}
	with := func(members string) string { return strings.Replace(goodProduct, "{", "{"+members+",", 1) }
	without := func(members string) string { return strings.Replace(goodProduct, members, "", 1) }
	onlyPost := []bad{
		{`{}`, unprocessable, invalidProduct, "name is missing"},
		{without(`"price":4990,`), unprocessable, invalidProduct, "price is missing"},
		{without(`"currency":"EUR",`), unprocessable, invalidProduct, "currency is missing"},
		{without(`,"stock":3`), unprocessable, invalidProduct, "stock is missing"},
		{with(`"product_id":7`), unprocessable, invalidProduct, "product_id"},
		{with(`"ends_at":"2026-01-01T00:00:00Z","starts_at":"2026-01-01T00:00:00Z"`),
			unprocessable, invalidProduct, "ends_at"},
	}
	for member, values := range map[string][]string{
		"stock":    {"-1", "1.5", "1000000001", "9223372036854775808", `"3"`, "null"},
		"currency": {`"eur"`, `"EU"`, `"EURO"`, `"€UR"`, `"E R"`, `"XXX"`, `"ABC"`, `""`, "null", "978"},
	} {
		old := map[string]string{"stock": `"stock":3`, "currency": `"currency":"EUR"`}[member]
		for _, value := range values {
			body := strings.Replace(goodProduct, old, fmt.Sprintf("%q:%s", member, value), 1)
			onlyPost = append(onlyPost, bad{body, unprocessable, invalidProduct, member})
		}
	}
	for _, b := range slices.Concat(members, shapes, onlyPost) {
		check("POST", w.manage("POST", "/api/products", b.body), b)
	}
	restocks := []bad{
		{`{}`, unprocessable, invalidRestock, "units"},
		{`{"units":0}`, unprocessable, invalidRestock, "units"},
		{`{"units":-1000000001}`, unprocessable, invalidRestock, "units"},
		{`{"units":-9223372036854775808}`, unprocessable, invalidRestock, "units"},
		{`{"units":1.5}`, unprocessable, invalidRestock, "units"},
		{`{"units":"1"}`, unprocessable, invalidRestock, "units"},
		{`{"units":null}`, unprocessable, invalidRestock, "units"},
		{`{"units":1000000001}`, unprocessable, invalidRestock, "units"},
		{`{"units":1000000000}`, unprocessable, invalidRestock, "units"}, // beside those that are there
		{`{"units":9223372036854775808}`, unprocessable, invalidRestock, "units"},
		{`{"units":1,"stock":1}`, unprocessable, invalidRestock, "units"},
		{`{"Units":1}`, 400, malformedRequest, "units"},
		{`{"units":1,"units":1}`, 400, malformedRequest, "units"},
	}
	for _, b := range slices.Concat(shapes, restocks) {
		check("PUT", w.manage("PUT", pathOf(p)+"/restocks/a", b.body), b)
	}
	for _, id := range []string{"%20", "a%20b", "%C3%A9", "%00", "%", "%zz", strings.Repeat("x", 65)} {
		r := w.exchange(fmt.Appendf(nil, "PUT %s/restocks/%s HTTP/1.1\r\nHost: edge\r\nAuthorization: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: 11\r\n\r\n%s", pathOf(p), id, merchant, `{"units":1}`))
		check("PUT "+id, r, bad{id, unprocessable, invalidRestock, "id"})
	}
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/", `{"units":1}`), 404, notFound)
	wantProblem(t, w.manage("PUT", pathOf(p)+"/restocks/a/b", `{"units":1}`), 404, notFound)

	typed := func(method, path, contentType string) {
		t.Helper()
		r := w.send(method, path, goodProduct, "Authorization", merchant, "Content-Type", contentType)
		wantProblem(t, r, 415, unsupportedMediaType)
	}
	for _, contentType := range []string{
		"", "text/plain", "application/jsonp", "multipart/form-data; boundary=x", "application/json-patch+json",
	} {
		typed("POST", "/api/products", contentType)
		typed("PATCH", pathOf(p), contentType)
		typed("PUT", pathOf(p)+"/restocks/a", contentType)
	}
	typed("POST", "/api/products", "application/merge-patch+json")

	if now := w.stored(p.ID); now != stored {
		t.Errorf("bad input has changed the product from\n%+v to\n%+v", stored, now)
	}
	if all, err := w.ledger.Products(t.Context(), 0, 10); err != nil || len(all) != 1 {
		t.Errorf("bad input has made %d products, error %v", len(all)-1, err)
	}
	if after := w.dump(); !maps.Equal(before, after) {
		t.Errorf("bad input has changed Redis from %q to %q", before, after)
	}
	if lines := logs.take(); len(lines) > 0 {
		t.Errorf("bad input was logged as our failure: %q", lines)
	}
	// The largest that is good.
	w.managed("PATCH", pathOf(p), `{"name":`+text(200)+`,"description":`+text(10_000)+`,"price":1000000000000,`+
		`"limit_per_user":1000000000,"starts_at":"1970-01-01T00:00:00.001Z","ends_at":"9999-12-31T23:59:59.999Z"}`, 200)
}

// TestVisibility: what is off sale is there for those who manage products, and for nobody else.
func TestVisibility(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shown, hidden := w.addProduct(5), w.addProduct(5, func(p *order.Product) { p.State = order.OffSale })
	for range pageSize {
		w.addProduct(1, func(p *order.Product) { p.State = order.OffSale })
	}
	last := w.addProduct(5)
	list := func(authorization string) (ids []int64, states []order.SaleState, pages int) {
		for cursor := ""; ; {
			var page struct {
				Products   []productBody
				NextCursor string `json:"next_cursor"`
			}
			r := w.send("GET", "/api/products?cursor="+cursor, "", "Authorization", authorization)
			if r.status != 200 {
				t.Fatal(r)
			}
			r.read(t, &page)
			for _, p := range page.Products {
				ids, states = append(ids, p.ID), append(states, p.State)
			}
			pages++
			if cursor = page.NextCursor; cursor == "" {
				return ids, states, pages
			}
		}
	}
	session := uuid.New()
	w.edge.sessions.end(session)
	ended, err := w.tokens.Sign(token.Claims{UserID: 1, SessionID: session, Role: "merchant"}, time.Hour)
	w.must(err)
	expired, err := w.tokens.Sign(token.Claims{UserID: 1, Role: "merchant"}, -time.Hour)
	w.must(err)
	for what, authorization := range map[string]string{
		"nobody": "", "a buyer": w.bearer(1), "garbage": "Bearer x.y.z", "no scheme": "x",
		"a token that has expired": "Bearer " + expired, "a forged token": w.bearerOf(1, account.Admin) + "x",
		"a token of a session that has ended": "Bearer " + ended,
	} {
		ids, states, pages := list(authorization)
		if !slices.Equal(ids, []int64{shown.ID, last.ID}) || pages != 1 || states[0] != order.OnSale {
			t.Errorf("%s sees %v on %d pages", what, ids, pages)
		}
		wantProblem(t, w.send("GET", pathOf(hidden), "", "Authorization", authorization), 404, productNotFound)
		if r := w.send("GET", pathOf(shown), "", "Authorization", authorization); r.status != 200 {
			t.Errorf("%s: %v", what, r)
		}
	}
	for _, role := range []account.Role{account.Merchant, account.Admin} {
		ids, states, pages := list(w.bearerOf(1, role))
		if len(ids) != pageSize+3 || pages != 2 || states[0] != order.OnSale || states[1] != order.OffSale {
			t.Errorf("a %s sees %d products on %d pages, %v", role, len(ids), pages, states)
		}
		var p productBody
		w.send("GET", pathOf(hidden), "", "Authorization", w.bearerOf(1, role)).read(t, &p)
		if p.ID != hidden.ID || p.State != order.OffSale {
			t.Errorf("a %s sees %+v", role, p)
		}
	}

	// A merchant sees a change at once, the public when the cache is old.
	w.managed("PATCH", pathOf(shown), `{"state":"off_sale"}`, 200)
	if p := w.managed("GET", pathOf(shown), "", 200); p.State != order.OffSale {
		t.Errorf("the merchant sees %+v", p)
	}
	w.eventually("it is gone", func() bool { return w.send("GET", pathOf(shown), "").status == 404 })
	w.managed("PATCH", pathOf(hidden), `{"state":"on_sale"}`, 200)
	w.eventually("it is there", func() bool { return w.send("GET", pathOf(hidden), "").status == 200 })
	w.eventually("it is listed", func() bool {
		ids, _, _ := list("")
		return slices.Equal(ids, []int64{hidden.ID, last.ID})
	})
	wantProblem(t, w.manage("GET", "/api/products/777", ""), 404, productNotFound)
	wantProblem(t, w.manage("GET", "/api/products?cursor=x", ""), 400, malformedRequest)
	if r := w.manage("HEAD", pathOf(shown), ""); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: %v", r)
	}
}

// decided decides a product's orders that are on the queue, as a worker does, and returns the decisions by order id.
func (w *world) decided(product int64) map[string]order.Decision {
	w.Helper()
	orders := slices.DeleteFunc(slices.Clone(w.orders()), func(o order.Order) bool { return o.ProductID != product })
	decisions, err := w.ledger.Decide(w.Context(), product, orders)
	w.must(err)
	_, err = w.stock.Settle(w.Context(), product, decisions)
	w.must(err)
	byID := map[string]order.Decision{}
	for _, d := range decisions {
		byID[d.ID.String()] = d
		w.must(w.stock.WriteDecided(w.Context(), []order.Record{d.Record}))
	}
	return byID
}

// TestPriceChange changes price, window and state between a 202 and its decision.
func TestPriceChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	first := w.post(1, p.ID, 2, "Idempotency-Key", "k")
	var accepted acceptedBody
	if first.read(t, &accepted); first.status != 202 || accepted.UnitPrice != 1999 {
		t.Fatalf("got %v", first)
	}
	w.managed("PATCH", pathOf(p), `{"price":5}`, 200)
	var cheaper acceptedBody
	w.post(2, p.ID, 1).read(t, &cheaper)
	if cheaper.UnitPrice != 5 || cheaper.TotalPrice != 5 {
		t.Errorf("after the change got %+v", cheaper)
	}
	again := func(when string) {
		t.Helper()
		if r := w.post(1, p.ID, 2, "Idempotency-Key", "k"); r.status != 202 || r.body != first.body {
			t.Errorf("%s a retry got %v, want %v", when, r, first)
		}
	}
	again("after a change of price")
	w.managed("PATCH", pathOf(p), `{"price":7,"state":"off_sale","ends_at":"2020-01-01T00:00:00Z"}`, 200)
	again("after it went off sale")
	wantProblem(t, w.post(3, p.ID, 1), 409, notOnSale)
	w.managed("PATCH", pathOf(p), `{"state":"on_sale"}`, 200)
	wantProblem(t, w.post(3, p.ID, 1), 409, saleEnded)

	decisions := w.decided(p.ID)
	for id, price := range map[string]int64{accepted.OrderID: 1999, cheaper.OrderID: 5} {
		if d := decisions[id]; d.Status != order.Completed || d.UnitPrice != price {
			t.Errorf("order %s, promised at %d, is %+v", id, price, d)
		}
	}
	again("after its decision")
	r := w.get(1, "/api/orders/"+accepted.OrderID)
	if !strings.Contains(r.body, `"unit_price":1999,"total_price":3998`) {
		t.Errorf("the order is %v", r)
	}
	w.wantLevel(p.ID, 7, 0, 0)
}

// TestLimitChange: what was bought under another limit, or under none, counts.
func TestLimitChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(100)
	w.mustPost(1, p.ID, 3)
	w.decided(p.ID)
	w.managed("PATCH", pathOf(p), `{"limit_per_user":2}`, 200)
	wantProblem(t, w.post(1, p.ID, 1), 409, limitExceeded)
	w.mustPost(2, p.ID, 2)
	w.managed("PATCH", pathOf(p), `{"limit_per_user":4}`, 200)
	w.mustPost(1, p.ID, 1)
	wantProblem(t, w.post(1, p.ID, 1), 409, limitExceeded)
	w.managed("PATCH", pathOf(p), `{"limit_per_user":null}`, 200)
	w.mustPost(1, p.ID, 50)
	for id, d := range w.decided(p.ID) {
		if d.Status != order.Completed {
			t.Errorf("order %s: %+v", id, d)
		}
	}
	audits, err := w.ledger.Audit(t.Context())
	if err != nil || len(audits[0].Problems) > 0 {
		t.Errorf("the audit finds %v, %v", audits[0].Problems, err)
	}
}

func TestRestockByHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(1)
	w.mustPost(1, p.ID, 1)
	wantProblem(t, w.post(2, p.ID, 1), 409, soldOut)
	path := pathOf(p) + "/restocks/delivery-1"
	want := fmt.Sprintf(`{"product_id":%d,"restock_id":"delivery-1","units":2,"stock":3}`, p.ID)
	if r := w.manage("PUT", path, `{"units":2}`); r.status != 201 || r.body != want {
		t.Errorf("got %v, want %s", r, want)
	}
	w.mustPost(2, p.ID, 1) // at once
	w.eventually("the public sees it", func() bool {
		return strings.Contains(w.send("GET", pathOf(p), "").body, `"available":1,`)
	})
	for range 3 {
		if r := w.manage("PUT", path, ` {"units" : 2} `); r.status != 200 || r.body != want {
			t.Errorf("again got %v, want %s", r, want)
		}
	}
	wantProblem(t, w.manage("PUT", path, `{"units":3}`), 409, restockMismatch)
	w.wantLevel(p.ID, 1, 2, 0)
	replies := crowd(20, func(int) reply { return w.manage("PUT", pathOf(p)+"/restocks/once", `{"units":10}`) })
	if got := count(replies); got["201"] != 1 || got["200"] != 19 {
		t.Errorf("a crowd got %v", got)
	}
	w.wantLevel(p.ID, 11, 2, 0)
	// An id is what it says when it is not encoded any more.
	for _, encoded := range []string{"a%2Fb%23%3f", "a%2fb%23%3F"} {
		r := w.manage("PUT", pathOf(p)+"/restocks/"+encoded, `{"units":1}`)
		var body restockBody
		if r.read(t, &body); body.RestockID != "a/b#?" || body.Stock != 14 {
			t.Errorf("got %v", r)
		}
	}
	// What nobody has ordered yet is not in Redis.
	other := w.addProduct(1, func(p *order.Product) { p.State = order.OffSale })
	if r := w.manage("PUT", pathOf(other)+"/restocks/delivery-1", `{"units":5}`); r.status != 201 {
		t.Errorf("got %v", r)
	}
	w.managed("PATCH", pathOf(other), `{"state":"on_sale"}`, 200)
	w.mustPost(1, other.ID, 6)
	wantProblem(t, w.post(1, other.ID, 1), 409, soldOut)
	w.decided(p.ID)
	w.wantLevel(p.ID, 12, 0, 0)
}

// TestPatchesInACrowd: patches of different members do not undo each other, and Redis ends up with the last of all.
func TestPatchesInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(1000)
	w.mustPost(1, p.ID, 1)
	_, _, other := w.start()
	beside := *w
	beside.url = "http://" + other
	const n = 60
	got := count(crowd(n, func(i int) reply {
		patch := []string{`{"price":%d}`, `{"limit_per_user":%d}`, `{"name":"n%d"}`}[i%3]
		edge := []*world{w, &beside}[i%2]
		return edge.manage("PATCH", pathOf(p), fmt.Sprintf(patch, i+1))
	}))
	if got["200"] != n {
		t.Fatalf("got %v", got)
	}
	stored := w.stored(p.ID)
	if stored.Revision != n+1 || stored.Price == 1999 || stored.LimitPerUser == 0 || stored.Name == "thing" {
		t.Errorf("stored %+v", stored)
	}
	sale, err := w.rdb.HGetAll(t.Context(), fmt.Sprintf("sale:{%d}", p.ID)).Result()
	w.must(err)
	if sale["price"] != fmt.Sprint(stored.Price) || sale["limit"] != fmt.Sprint(stored.LimitPerUser) ||
		sale["revision"] != fmt.Sprint(stored.Revision) {
		t.Errorf("Redis sells by %v, and MySQL by %+v", sale, stored)
	}
}

// TestLoadMeetsChange: an edge that read the product before a change, and loads it after, does not sell by the old
// price.
func TestLoadMeetsChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(10)
	w.managed("PATCH", pathOf(p), `{"price":5}`, 200)
	old := func(context.Context) (order.Product, error) { return p, nil }
	if loaded, err := w.stock.Load(t.Context(), p.ID, old); loaded || !errors.Is(err, stock.ErrStale) {
		t.Errorf("the old row is loaded: %v, %v", loaded, err)
	}
	var accepted acceptedBody
	w.post(1, p.ID, 1).read(t, &accepted)
	if accepted.UnitPrice != 5 {
		t.Errorf("got %+v", accepted)
	}
}

// TestMerchantFaults lets Redis fail after MySQL has the change, and MySQL fail. It is not parallel, so that what it
// logs is not looked at by others.
func TestMerchantFaults(t *testing.T) {
	w := newWorld(t)
	p := w.addProduct(10)
	w.mustPost(1, p.ID, 1)
	w.wantSettledOutbox(p.ID)
	price := func() int64 {
		t.Helper()
		sale, err := w.rdb.HGet(t.Context(), fmt.Sprintf("sale:{%d}", p.ID), "price").Int64()
		w.must(err)
		return sale
	}
	repeat := func(r reply) {
		t.Helper()
		wantProblem(t, r, 503, stockUnavailable)
		if !strings.Contains(r.body, "is stored") || !strings.Contains(r.body, "Repeat") {
			t.Errorf("got %v", r)
		}
	}
	restock := pathOf(p) + "/restocks/a"
	w.redis.cut()
	repeat(w.manage("PATCH", pathOf(p), `{"price":5}`))
	repeat(w.manage("PUT", restock, `{"units":7}`))
	repeat(w.manage("PUT", restock, `{"units":7}`))
	if stored := w.stored(p.ID); stored.Price != 5 || stored.Stock != 17 || price() != 1999 {
		t.Errorf("stored %+v, in Redis %d", stored, price())
	}
	if r := w.manage("POST", "/api/products", goodProduct); r.status != 201 {
		t.Errorf("a new product, which Redis need not know: %v", r)
	}
	if r := w.manage("GET", pathOf(p), ""); r.status != 200 || !strings.Contains(r.body, `"price":5,`) {
		t.Errorf("a merchant sees %v", r)
	}
	w.redis.heal()
	w.eventually("Redis is back", func() bool { return w.send("GET", "/readyz", "").status == 200 })
	w.managed("PATCH", pathOf(p), `{}`, 200)
	if price() != 5 || w.stored(p.ID).Revision != 2 {
		t.Errorf("repeated: %d in Redis, revision %d", price(), w.stored(p.ID).Revision)
	}
	if r := w.manage("PUT", restock, `{"units":7}`); r.status != 200 {
		t.Errorf("repeated: %v", r)
	}
	w.wantLevel(p.ID, 16, 1, 0)

	w.mysql.cut()
	for path, method := range map[string]string{"/api/products": "GET", pathOf(p): "GET"} {
		wantProblem(t, w.manage(method, path, ""), 503, productsUnavailable)
	}
	wantProblem(t, w.manage("POST", "/api/products", goodProduct), 503, productsUnavailable)
	wantProblem(t, w.manage("PATCH", pathOf(p), `{}`), 503, productsUnavailable)
	wantProblem(t, w.manage("PUT", restock, `{"units":7}`), 503, productsUnavailable)
	w.mustPost(2, p.ID, 1)
	w.mysql.heal()
	w.eventually("MySQL is back", func() bool { return w.manage("PATCH", pathOf(p), `{}`).status == 200 })
	w.wantSettledOutbox(p.ID)
	w.wantLevel(p.ID, 15, 2, 0)
	logs.take()
}

// A merchant who got no answer repeats the request with its key and gets the product of the first.
func TestCreateProductOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	post := func(user int64, key, body string) reply {
		return w.send("POST", "/api/products", body, "Authorization", w.bearerOf(user, account.Merchant),
			"Content-Type", "application/json", "Idempotency-Key", key)
	}

	first := post(99, "k", goodProduct)
	if first.status != 201 {
		t.Fatalf("got %v", first)
	}
	w.managed("PATCH", first.header.Get("Location"), `{"price":5}`, 200)
	again := post(99, "k", goodProduct)
	if again.status != 201 || again.body != first.body || again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("the repetition got %v, the first %v", again, first)
	}
	wantProblem(t, post(99, "k", strings.Replace(goodProduct, "4990", "4991", 1)), 422, idempotencyMismatch)
	wantProblem(t, post(99, "", goodProduct), 400, malformedRequest)
	wantProblem(t, post(99, "two words", goodProduct), 400, malformedRequest)

	// Another key makes another product, and so does the same key of another merchant.
	for _, r := range []reply{post(99, "other", goodProduct), post(98, "k", goodProduct)} {
		if r.status != 201 || r.header.Get("Location") == first.header.Get("Location") {
			t.Errorf("got %v of %v", r, r.header.Get("Location"))
		}
	}
	products, err := w.ledger.Products(t.Context(), 0, mysql.MaxPage)
	w.must(err)
	if len(products) != 3 {
		t.Errorf("there are %d products, want 3", len(products))
	}
}

// What cannot keep the promise of an idempotency key refuses it.
func TestNoKeyIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var posts int
	for method, paths := range (&Edge{}).routes(newMetrics(prometheus.NewRegistry())).List() {
		for _, path := range paths {
			if method != "POST" || path == "/api/orders" || path == "/api/products" {
				continue
			}
			posts++
			r := w.send(method, path, `{}`, "Authorization", w.bearerOf(1, account.Buyer),
				"Content-Type", "application/json", "Idempotency-Key", "k")
			if r.status != 400 || !strings.Contains(r.body, "Idempotency-Key") {
				t.Errorf("%s %s: got %v", method, path, r)
			}
		}
	}
	if posts == 0 {
		t.Error("no route was tried")
	}
}
