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

	"stampede/internal/account"
	"stampede/internal/apitest"
	"stampede/internal/catalog"
	"stampede/internal/front"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/stock"
	"stampede/internal/token"
)

func TestCreateProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.Manage("POST", "/api/products", apitest.GoodProduct)
	want := `{"product_id":1,"name":"ticket","price":4990,"currency":"EUR","available":3,"state":"on_sale"}`
	if r.Status != 201 || r.Body != want || r.Header.Get("Location") != "/api/products/1" ||
		r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v %v, want %s", r, r.Header, want)
	}
	if r := w.Send("GET", r.Header.Get("Location"), ""); r.Body != want {
		t.Errorf("the public sees %v", r)
	}
	w.MustPost(1, 1, 3)
	apitest.WantProblem(t, w.Post(1, 1, 1), 409, problem.SoldOut)

	full := `{"state":"off_sale","limit_per_user":2,"ends_at":"2099-01-02T03:04:05.0069+02:00",` +
		`"starts_at":"2026-01-02T03:04:05Z","description":"Süß & <bitter>","stock":0,` +
		`"currency":"JPY","price":0,"points_price":7,"name":"x"}`
	r = w.Manage("POST", "/api/products", full)
	want = `{"product_id":2,"name":"x","description":"Süß \u0026 \u003cbitter\u003e","price":0,"currency":"JPY",` +
		`"points_price":7,"available":0,"starts_at":"2026-01-02T03:04:05Z","ends_at":"2099-01-02T01:04:05.006Z",` +
		`"limit_per_user":2,"state":"off_sale"}`
	if r.Status != 201 || r.Body != want {
		t.Errorf("got  %v\nwant %s", r, want)
	}
	// Null is as good as nothing where nothing is allowed.
	nulls := `{"description":null,"starts_at":null,"ends_at":null,"limit_per_user":null,"points_price":null,`
	p := w.Managed("POST", "/api/products", strings.Replace(apitest.GoodProduct, "{", nulls, 1), 201)
	if stored := w.Stored(p.ID.Stock()); stored.LimitPerUser != 0 || !stored.StartsAt.IsZero() ||
		!stored.EndsAt.IsZero() {
		t.Errorf("stored %+v", stored)
	}
}

func TestPatchProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := w.AddProduct(5, func(p *order.Product) {
		p.LimitPerUser, p.StartsAt, p.EndsAt = 2, start, start.AddDate(50, 0, 0)
	})
	w.MustPost(1, p.ID, 1)
	want := w.Stored(p.ID)
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
		{`{"points_price":5}`, func(p *order.Product) { p.PointsPrice = 5 }},
		{`{"points_price":null}`, func(p *order.Product) { p.PointsPrice = 0 }},
		{`{"limit_per_user":null,"ends_at":null,"starts_at":null}`, func(p *order.Product) {
			p.LimitPerUser, p.EndsAt, p.StartsAt = 0, time.Time{}, time.Time{}
		}},
		{`{"state":"off_sale"}`, func(p *order.Product) { p.State = order.OffSale }},
		{`{"state":"off_sale","price":5}`, nil},
		{` {} `, nil},
		{`{"state":"on_sale"}`, func(p *order.Product) { p.State = order.OnSale }},
	} {
		got := w.Managed("PATCH", apitest.PathOf(p), step.patch, 200)
		if step.change != nil {
			step.change(&want)
			want.Revision++
		}
		if stored := w.Stored(p.ID); stored != want {
			t.Errorf("%s: stored\n%+v, want\n%+v", step.patch, stored, want)
		}
		shown := catalog.Show(want)
		shown.Available = 4 // by Redis, where one is reserved
		if got != shown {
			t.Errorf("%s: got\n%+v, want\n%+v", step.patch, got, shown)
		}
	}
	r := w.Send("PATCH", apitest.PathOf(p), `{"price":6}`, "Authorization", w.BearerOf(99, token.Admin),
		"Content-Type", "application/Merge-Patch+json; charset=utf-8")
	if r.Status != 200 || w.Stored(p.ID).Price != 6 {
		t.Errorf("a merge patch by its own name: %v", r)
	}
	for _, id := range []string{"777", "0", "x"} {
		apitest.WantProblem(t, w.Manage("PATCH", "/api/products/"+id, `{"price":6}`), 404, problem.ProductNotFound)
		apitest.WantProblem(t, w.Manage("PUT", "/api/products/"+id+"/restocks/a", `{"units":6}`), 404,
			problem.ProductNotFound)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(5)
	calls := []struct{ method, path, body string }{
		{"POST", "/api/products", apitest.GoodProduct},
		{"PATCH", apitest.PathOf(p), `{"price":7}`},
		{"PUT", apitest.PathOf(p) + "/restocks/a", `{"units":1}`},
	}
	send := func(i int, authorization string) apitest.Reply {
		c := calls[i]
		return w.Send(c.method, c.path, c.body, "Content-Type", "application/json", "Authorization", authorization)
	}
	for i, c := range calls {
		for _, authorization := range []string{"", "Bearer x", w.BearerOf(1, token.Merchant) + "x"} {
			apitest.WantProblem(t, send(i, authorization), 401, problem.Unauthenticated)
		}
		for _, role := range []string{"", token.Buyer, "king", "Merchant", "merchant "} {
			apitest.WantProblem(t, send(i, w.BearerOf(1, role)), 403, problem.Forbidden)
		}
		if now := w.Stored(p.ID); now != p {
			t.Errorf("%s: somebody else has made it %+v", c.method, now)
		}
	}
	if all, err := w.Ledger.Products(t.Context(), 0, 10); err != nil || len(all) != 1 {
		t.Errorf("somebody else has made %d products, error %v", len(all)-1, err)
	}
	for i, c := range calls {
		for j, role := range []string{token.Merchant, token.Admin} {
			want := map[string]int{"POST": 201, "PATCH": 200, "PUT": 201 - j}[c.method]
			if r := send(i, w.BearerOf(1, role)); r.Status != want {
				t.Errorf("%s by %s: %v", c.method, role, r)
			}
		}
	}
	w.Managed("PATCH", apitest.PathOf(p), `{"state":"off_sale"}`, 200)
	w.Must(w.Accounts.Ban(t.Context(), account.Ban{UserID: 1, Reason: "fraud"}))
	merchant := w.BearerOf(1, token.Merchant)
	w.Eventually("the merchant is banned", func() bool { return send(1, merchant).Code() == "banned" })
	apitest.WantProblem(t, w.Send("GET", apitest.PathOf(p), "", "Authorization", merchant), 404,
		problem.ProductNotFound)
	// Who has logged out is nobody any longer.
	session := uuid.New()
	signed, err := w.Tokens.Sign(token.Claims{UserID: 2, SessionID: session, Role: "merchant"}, time.Hour)
	w.Must(err)
	if r := send(1, "Bearer "+signed); r.Status != 200 {
		t.Errorf("a merchant with a session: %v", r)
	}
	w.endSession(session)
	apitest.WantProblem(t, send(1, "Bearer "+signed), 401, problem.Unauthenticated)
}

// TestBadProducts sends what no merchant should. Each answer names what is wrong, and nothing changes. It looks at the
// log, so it is not parallel.
func TestBadProducts(t *testing.T) {
	w := newWorld(t)
	p := w.AddProduct(5, func(p *order.Product) {
		p.StartsAt, p.EndsAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	})
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	merchant := w.BearerOf(99, token.Merchant)
	stored, before := w.Stored(p.ID), w.Dump()
	logs.Take()

	const unprocessable = http.StatusUnprocessableEntity
	type bad struct {
		body   string
		status int
		code   problem.Code
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
		"points_price":   {"0", "-1", "1.5", "1000000000001", `"5"`, "true"},
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
			members = append(members, bad{of(member, value), unprocessable, problem.InvalidProduct, member})
		}
	}
	shapes := []bad{
		{" ", 400, problem.MalformedRequest, "JSON object"},
		{"hello", 400, problem.MalformedRequest, "JSON object"},
		{"null", 400, problem.MalformedRequest, "JSON object"},
		{"[]", 400, problem.MalformedRequest, "JSON object"},
		{"1", 400, problem.MalformedRequest, "JSON object"},
		{`"price"`, 400, problem.MalformedRequest, "JSON object"},
		{`{"price":5`, 400, problem.MalformedRequest, "JSON object"},
		{`{"price":5,}`, 400, problem.MalformedRequest, "JSON object"},
		{`{"price":5}x`, 400, problem.MalformedRequest, "JSON object"},
		{`{"price":5}{"price":5}`, 400, problem.MalformedRequest, "JSON object"},
		{`{"price":05}`, 400, problem.MalformedRequest, "JSON object"},
		{"\ufeff" + `{"price":5}`, 400, problem.MalformedRequest, "JSON object"},
		{"{\"name\":\"\xff\"}", 400, problem.MalformedRequest, "JSON object"},
		{`{"a":` + strings.Repeat("[", 16_000), 400, problem.MalformedRequest, "JSON object"},
		{`{"price":5,"name":"x","price":5}`, 400, problem.MalformedRequest, "price"},
		{`{"price":5,"pric\u0065":5}`, 400, problem.MalformedRequest, "price"},
		{`{"description":` + text(maxBodyBytes) + "}", 413, problem.BodyTooLarge, "bytes"},
	}
	check := func(what string, r apitest.Reply, b bad) {
		t.Helper()
		var document struct{ Detail string }
		_ = json.Unmarshal([]byte(r.Body), &document)
		apitest.WantProblem(t, r, b.status, b.code)
		if !strings.Contains(document.Detail, b.says) || len(document.Detail) > 200 {
			t.Errorf("%s %.100s: the detail is %q and should speak of %q", what, b.body, document.Detail, b.says)
		}
	}
	onlyPatch := []bad{
		{`{"stock":7}`, unprocessable, problem.InvalidProduct, "restock"},
		{`{"available":7}`, unprocessable, problem.InvalidProduct, "restock"},
		{`{"currency":"USD"}`, unprocessable, problem.InvalidProduct, "currency"},
		{`{"currency":"EUR"}`, unprocessable, problem.InvalidProduct, "currency"},
		{`{"product_id":7}`, unprocessable, problem.InvalidProduct, "product_id"},
		{`{"price":7,"stock":7}`, unprocessable, problem.InvalidProduct, "restock"},
		{`{"price":7,"ends_at":"2026-01-01T00:00:00Z"}`, unprocessable, problem.InvalidProduct, "ends_at"},
		// when it starts
		{`{"starts_at":"2099-01-01T00:00:00.001Z"}`, unprocessable, problem.InvalidProduct, "ends_at"},
		{`{"starts_at":"2030-01-01T00:00:00Z","ends_at":"2029-01-01T00:00:00Z"}`,
			unprocessable, problem.InvalidProduct, "ends_at"},
	}
	for _, b := range slices.Concat(members, shapes, onlyPatch) {
		check("PATCH", w.Manage("PATCH", apitest.PathOf(p), b.body), b)
	}
	for i, b := range members {
		// A repeated name would be the fault that is found.
		var whole map[string]json.RawMessage
		w.Must(json.Unmarshal([]byte(apitest.GoodProduct), &whole))
		var one map[string]json.RawMessage
		w.Must(json.Unmarshal([]byte(b.body), &one))
		maps.Copy(whole, one)
		body, err := json.Marshal(whole)
		w.Must(err)
		members[i].body = string(body)
	}
	with := func(members string) string { return strings.Replace(apitest.GoodProduct, "{", "{"+members+",", 1) }
	without := func(members string) string { return strings.Replace(apitest.GoodProduct, members, "", 1) }
	onlyPost := []bad{
		{`{}`, unprocessable, problem.InvalidProduct, "name is missing"},
		{without(`"price":4990,`), unprocessable, problem.InvalidProduct, "price is missing"},
		{without(`"currency":"EUR",`), unprocessable, problem.InvalidProduct, "currency is missing"},
		{without(`,"stock":3`), unprocessable, problem.InvalidProduct, "stock is missing"},
		{with(`"product_id":7`), unprocessable, problem.InvalidProduct, "product_id"},
		{with(`"ends_at":"2026-01-01T00:00:00Z","starts_at":"2026-01-01T00:00:00Z"`),
			unprocessable, problem.InvalidProduct, "ends_at"},
	}
	for member, values := range map[string][]string{
		"stock":    {"-1", "1.5", "1000000001", "9223372036854775808", `"3"`, "null"},
		"currency": {`"eur"`, `"EU"`, `"EURO"`, `"€UR"`, `"E R"`, `"XXX"`, `"ABC"`, `""`, "null", "978"},
	} {
		old := map[string]string{"stock": `"stock":3`, "currency": `"currency":"EUR"`}[member]
		for _, value := range values {
			body := strings.Replace(apitest.GoodProduct, old, fmt.Sprintf("%q:%s", member, value), 1)
			onlyPost = append(onlyPost, bad{body, unprocessable, problem.InvalidProduct, member})
		}
	}
	for _, b := range slices.Concat(members, shapes, onlyPost) {
		check("POST", w.Manage("POST", "/api/products", b.body), b)
	}
	restocks := []bad{
		{`{}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":0}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":-1000000001}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":-9223372036854775808}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":1.5}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":"1"}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":null}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":1000000001}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":1000000000}`, unprocessable, problem.InvalidRestock, "units"}, // beside those that are there
		{`{"units":9223372036854775808}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"units":1,"stock":1}`, unprocessable, problem.InvalidRestock, "units"},
		{`{"Units":1}`, 400, problem.MalformedRequest, "units"},
		{`{"units":1,"units":1}`, 400, problem.MalformedRequest, "units"},
	}
	for _, b := range slices.Concat(shapes, restocks) {
		check("PUT", w.Manage("PUT", apitest.PathOf(p)+"/restocks/a", b.body), b)
	}
	for _, id := range []string{"%20", "a%20b", "%C3%A9", "%00", strings.Repeat("x", 65)} {
		r := w.Exchange(fmt.Appendf(nil, "PUT %s/restocks/%s HTTP/1.1\r\nHost: edge\r\nAuthorization: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: 11\r\n\r\n%s", apitest.PathOf(p), id, merchant,
			`{"units":1}`))
		check("PUT "+id, r, bad{id, unprocessable, problem.InvalidRestock, "id"})
	}
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/", `{"units":1}`), 404, problem.NotFound)
	apitest.WantProblem(t, w.Manage("PUT", apitest.PathOf(p)+"/restocks/a/b", `{"units":1}`), 404, problem.NotFound)

	typed := func(method, path, contentType string) {
		t.Helper()
		r := w.Send(method, path, apitest.GoodProduct, "Authorization", merchant, "Content-Type", contentType)
		apitest.WantProblem(t, r, 415, problem.UnsupportedMediaType)
	}
	for _, contentType := range []string{
		"", "text/plain", "application/jsonp", "multipart/form-data; boundary=x", "application/json-patch+json",
	} {
		typed("POST", "/api/products", contentType)
		typed("PATCH", apitest.PathOf(p), contentType)
		typed("PUT", apitest.PathOf(p)+"/restocks/a", contentType)
	}
	typed("POST", "/api/products", "application/merge-patch+json")

	if now := w.Stored(p.ID); now != stored {
		t.Errorf("bad input has changed the product from\n%+v to\n%+v", stored, now)
	}
	if all, err := w.Ledger.Products(t.Context(), 0, 10); err != nil || len(all) != 1 {
		t.Errorf("bad input has made %d products, error %v", len(all)-1, err)
	}
	if after := w.Dump(); !maps.Equal(before, after) {
		t.Errorf("bad input has changed Redis from %q to %q", before, after)
	}
	if lines := logs.Take(); len(lines) > 0 {
		t.Errorf("bad input was logged as our failure: %q", lines)
	}
	// The largest that is good.
	w.Managed("PATCH", apitest.PathOf(p), `{"name":`+text(200)+`,"description":`+text(10_000)+`,"price":1000000000000,`+
		`"limit_per_user":1000000000,"starts_at":"1970-01-01T00:00:00.001Z","ends_at":"9999-12-31T23:59:59.999Z"}`, 200)
}

// areThose reports whether these are the ids of the products, in their order.
func areThose(ids []order.ProductID, products ...order.Product) bool {
	return slices.EqualFunc(ids, products, func(id order.ProductID, p order.Product) bool { return id.Stock() == p.ID })
}

// TestVisibility: what is off sale is there for those who manage products, and for nobody else.
func TestVisibility(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shown, hidden := w.AddProduct(5), w.AddProduct(5, func(p *order.Product) { p.State = order.OffSale })
	for range catalog.PageSize {
		w.AddProduct(1, func(p *order.Product) { p.State = order.OffSale })
	}
	last := w.AddProduct(5)
	list := func(authorization string) (ids []order.ProductID, states []order.SaleState, pages int) {
		for cursor := ""; ; {
			var page struct {
				Products   []catalog.Product
				NextCursor string `json:"next_cursor"`
			}
			r := w.Send("GET", "/api/products?cursor="+cursor, "", "Authorization", authorization)
			if r.Status != 200 {
				t.Fatal(r)
			}
			r.Read(t, &page)
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
	w.endSession(session)
	ended, err := w.Tokens.Sign(token.Claims{UserID: 1, SessionID: session, Role: "merchant"}, time.Hour)
	w.Must(err)
	expired, err := w.Tokens.Sign(token.Claims{UserID: 1, Role: "merchant"}, -time.Hour)
	w.Must(err)
	for what, authorization := range map[string]string{
		"nobody": "", "a buyer": w.Bearer(1), "garbage": "Bearer x.y.z", "no scheme": "x",
		"a token that has expired": "Bearer " + expired, "a forged token": w.BearerOf(1, token.Admin) + "x",
		"a token of a session that has ended": "Bearer " + ended,
	} {
		ids, states, pages := list(authorization)
		if !areThose(ids, shown, last) || pages != 1 || states[0] != order.OnSale {
			t.Errorf("%s sees %v on %d pages", what, ids, pages)
		}
		apitest.WantProblem(t, w.Send("GET", apitest.PathOf(hidden), "", "Authorization", authorization), 404,
			problem.ProductNotFound)
		if r := w.Send("GET", apitest.PathOf(shown), "", "Authorization", authorization); r.Status != 200 {
			t.Errorf("%s: %v", what, r)
		}
	}
	for _, role := range []string{token.Merchant, token.Admin} {
		ids, states, pages := list(w.BearerOf(1, role))
		if len(ids) != catalog.PageSize+3 || pages != 2 || states[0] != order.OnSale || states[1] != order.OffSale {
			t.Errorf("a %s sees %d products on %d pages, %v", role, len(ids), pages, states)
		}
		var p catalog.Product
		w.Send("GET", apitest.PathOf(hidden), "", "Authorization", w.BearerOf(1, role)).Read(t, &p)
		if p.ID != hidden.ID.Product() || p.State != order.OffSale {
			t.Errorf("a %s sees %+v", role, p)
		}
	}

	// A merchant sees a change at once, the public when the cache is old.
	w.Managed("PATCH", apitest.PathOf(shown), `{"state":"off_sale"}`, 200)
	if p := w.Managed("GET", apitest.PathOf(shown), "", 200); p.State != order.OffSale {
		t.Errorf("the merchant sees %+v", p)
	}
	w.Eventually("it is gone", func() bool { return w.Send("GET", apitest.PathOf(shown), "").Status == 404 })
	w.Managed("PATCH", apitest.PathOf(hidden), `{"state":"on_sale"}`, 200)
	w.Eventually("it is there", func() bool { return w.Send("GET", apitest.PathOf(hidden), "").Status == 200 })
	w.Eventually("it is listed", func() bool {
		ids, _, _ := list("")
		return areThose(ids, hidden, last)
	})
	apitest.WantProblem(t, w.Manage("GET", "/api/products/777", ""), 404, problem.ProductNotFound)
	apitest.WantProblem(t, w.Manage("GET", "/api/products?cursor=x", ""), 400, problem.MalformedRequest)
	if r := w.Manage("HEAD", apitest.PathOf(shown), ""); r.Status != 200 || r.Body != "" {
		t.Errorf("HEAD: %v", r)
	}
}

// TestPriceChange changes price, window and state between a 202 and its decision.
func TestPriceChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	first := w.Post(1, p.ID, 2, "Idempotency-Key", "k")
	var promised accepted
	if first.Read(t, &promised); first.Status != 202 || promised.UnitPrice != 1999 {
		t.Fatalf("got %v", first)
	}
	w.Managed("PATCH", apitest.PathOf(p), `{"price":5}`, 200)
	var cheaper accepted
	w.Post(2, p.ID, 1).Read(t, &cheaper)
	if cheaper.UnitPrice != 5 || cheaper.TotalPrice != 5 {
		t.Errorf("after the change got %+v", cheaper)
	}
	again := func(when string) {
		t.Helper()
		if r := w.Post(1, p.ID, 2, "Idempotency-Key", "k"); r.Status != 202 || r.Body != first.Body {
			t.Errorf("%s a retry got %v, want %v", when, r, first)
		}
	}
	again("after a change of price")
	w.Managed("PATCH", apitest.PathOf(p), `{"price":7,"state":"off_sale","ends_at":"2020-01-01T00:00:00Z"}`, 200)
	again("after it went off sale")
	apitest.WantProblem(t, w.Post(3, p.ID, 1), 409, problem.NotOnSale)
	w.Managed("PATCH", apitest.PathOf(p), `{"state":"on_sale"}`, 200)
	// The edge may refuse from memory until it has heard of the change.
	w.Eventually("the sale has ended", func() bool {
		return strings.Contains(w.Post(3, p.ID, 1).Body, string(problem.SaleEnded))
	})

	decisions := w.Decided(p.ID)
	for id, price := range map[string]int64{promised.OrderID: 1999, cheaper.OrderID: 5} {
		if d := decisions[id]; d.Status != order.Completed || d.UnitPrice != price {
			t.Errorf("order %s, promised at %d, is %+v", id, price, d)
		}
	}
	again("after its decision")
	r := w.Get(1, "/api/orders/"+promised.OrderID)
	if !strings.Contains(r.Body, `"unit_price":1999,"total_price":3998`) {
		t.Errorf("the order is %v", r)
	}
	w.WantLevel(p.ID, 7, 0, 0)
}

// TestLimitChange: what was bought under another limit, or under none, counts.
func TestLimitChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(100)
	w.MustPost(1, p.ID, 3)
	w.Decided(p.ID)
	w.Managed("PATCH", apitest.PathOf(p), `{"limit_per_user":2}`, 200)
	apitest.WantProblem(t, w.Post(1, p.ID, 1), 409, problem.LimitExceeded)
	w.MustPost(2, p.ID, 2)
	w.Managed("PATCH", apitest.PathOf(p), `{"limit_per_user":4}`, 200)
	w.MustPost(1, p.ID, 1)
	apitest.WantProblem(t, w.Post(1, p.ID, 1), 409, problem.LimitExceeded)
	w.Managed("PATCH", apitest.PathOf(p), `{"limit_per_user":null}`, 200)
	w.MustPost(1, p.ID, 50)
	for id, d := range w.Decided(p.ID) {
		if d.Status != order.Completed {
			t.Errorf("order %s: %+v", id, d)
		}
	}
	audits, err := w.Ledger.Audit(t.Context())
	if err != nil || len(audits[0].Problems) > 0 {
		t.Errorf("the audit finds %v, %v", audits[0].Problems, err)
	}
}

func TestRestockByHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1)
	w.MustPost(1, p.ID, 1)
	apitest.WantProblem(t, w.Post(2, p.ID, 1), 409, problem.SoldOut)
	path := apitest.PathOf(p) + "/restocks/delivery-1"
	want := fmt.Sprintf(`{"product_id":%d,"restock_id":"delivery-1","units":2,"stock":3}`, p.ID)
	if r := w.Manage("PUT", path, `{"units":2}`); r.Status != 201 || r.Body != want {
		t.Errorf("got %v, want %s", r, want)
	}
	w.Eventually("the edge hears of it", func() bool { return w.Post(2, p.ID, 1).Status == 202 })
	w.Eventually("the public sees it", func() bool {
		return strings.Contains(w.Send("GET", apitest.PathOf(p), "").Body, `"available":1,`)
	})
	for range 3 {
		if r := w.Manage("PUT", path, ` {"units" : 2} `); r.Status != 200 || r.Body != want {
			t.Errorf("again got %v, want %s", r, want)
		}
	}
	apitest.WantProblem(t, w.Manage("PUT", path, `{"units":3}`), 409, problem.RestockMismatch)
	w.WantLevel(p.ID, 1, 2, 0)
	replies := apitest.Crowd(20, func(int) apitest.Reply {
		return w.Manage("PUT", apitest.PathOf(p)+"/restocks/once",
			`{"units":10}`)
	})
	if got := apitest.Count(replies); got["201"] != 1 || got["200"] != 19 {
		t.Errorf("a crowd got %v", got)
	}
	w.WantLevel(p.ID, 11, 2, 0)
	// An id is what it says when it is not encoded any more.
	for _, encoded := range []string{"a%2Fb%23%3f", "a%2fb%23%3F"} {
		r := w.Manage("PUT", apitest.PathOf(p)+"/restocks/"+encoded, `{"units":1}`)
		var body restockBody
		if r.Read(t, &body); body.RestockID != "a/b#?" || body.Stock != 14 {
			t.Errorf("got %v", r)
		}
	}
	// What nobody has ordered yet is not in Redis.
	other := w.AddProduct(1, func(p *order.Product) { p.State = order.OffSale })
	if r := w.Manage("PUT", apitest.PathOf(other)+"/restocks/delivery-1", `{"units":5}`); r.Status != 201 {
		t.Errorf("got %v", r)
	}
	w.Managed("PATCH", apitest.PathOf(other), `{"state":"on_sale"}`, 200)
	w.MustPost(1, other.ID, 6)
	apitest.WantProblem(t, w.Post(1, other.ID, 1), 409, problem.SoldOut)
	w.Decided(p.ID)
	w.WantLevel(p.ID, 12, 0, 0)
}

// TestPatchesInACrowd: patches of different members do not undo each other, and Redis ends up with the last of all.
func TestPatchesInACrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(1000)
	w.MustPost(1, p.ID, 1)
	_, other := w.start()
	beside := *w.World
	beside.URL = "http://" + other
	const n = 60
	got := apitest.Count(apitest.Crowd(n, func(i int) apitest.Reply {
		patch := []string{`{"price":%d}`, `{"limit_per_user":%d}`, `{"name":"n%d"}`}[i%3]
		edge := []*apitest.World{w.World, &beside}[i%2]
		return edge.Manage("PATCH", apitest.PathOf(p), fmt.Sprintf(patch, i+1))
	}))
	if got["200"] != n {
		t.Fatalf("got %v", got)
	}
	stored := w.Stored(p.ID)
	if stored.Revision != n+1 || stored.Price == 1999 || stored.LimitPerUser == 0 || stored.Name == "thing" {
		t.Errorf("stored %+v", stored)
	}
	sale, err := w.RDB.HGetAll(t.Context(), fmt.Sprintf("sale:{%d}", p.ID)).Result()
	w.Must(err)
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
	p := w.AddProduct(10)
	w.Managed("PATCH", apitest.PathOf(p), `{"price":5}`, 200)
	old := func(context.Context) (order.Product, error) { return p, nil }
	if loaded, err := w.Stock.Load(t.Context(), p.ID, old); loaded || !errors.Is(err, stock.ErrStale) {
		t.Errorf("the old row is loaded: %v, %v", loaded, err)
	}
	var promised accepted
	w.Post(1, p.ID, 1).Read(t, &promised)
	if promised.UnitPrice != 5 {
		t.Errorf("got %+v", promised)
	}
}

// TestMerchantFaults lets Redis fail after MySQL has the change, and MySQL fail. It is not parallel, so that what it
// logs is not looked at by others.
func TestMerchantFaults(t *testing.T) {
	w := newWorld(t)
	p := w.AddProduct(10)
	w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	price := func() int64 {
		t.Helper()
		sale, err := w.RDB.HGet(t.Context(), fmt.Sprintf("sale:{%d}", p.ID), "price").Int64()
		w.Must(err)
		return sale
	}
	repeat := func(r apitest.Reply) {
		t.Helper()
		apitest.WantProblem(t, r, 503, problem.StockUnavailable)
		if !strings.Contains(r.Body, "is stored") || !strings.Contains(r.Body, "Repeat") {
			t.Errorf("got %v", r)
		}
	}
	restock := apitest.PathOf(p) + "/restocks/a"
	w.Redis.Cut()
	repeat(w.Manage("PATCH", apitest.PathOf(p), `{"price":5}`))
	repeat(w.Manage("PUT", restock, `{"units":7}`))
	repeat(w.Manage("PUT", restock, `{"units":7}`))
	if stored := w.Stored(p.ID); stored.Price != 5 || stored.Stock != 17 || price() != 1999 {
		t.Errorf("stored %+v, in Redis %d", stored, price())
	}
	if r := w.Manage("POST", "/api/products", apitest.GoodProduct); r.Status != 201 {
		t.Errorf("a new product, which Redis need not know: %v", r)
	}
	if r := w.Manage("GET", apitest.PathOf(p), ""); r.Status != 200 || !strings.Contains(r.Body, `"price":5,`) {
		t.Errorf("a merchant sees %v", r)
	}
	w.Redis.Heal()
	w.Eventually("Redis is back", func() bool { return w.Send("GET", "/readyz", "").Status == 200 })
	w.Managed("PATCH", apitest.PathOf(p), `{}`, 200)
	if price() != 5 || w.Stored(p.ID).Revision != 2 {
		t.Errorf("repeated: %d in Redis, revision %d", price(), w.Stored(p.ID).Revision)
	}
	if r := w.Manage("PUT", restock, `{"units":7}`); r.Status != 200 {
		t.Errorf("repeated: %v", r)
	}
	w.WantLevel(p.ID, 16, 1, 0)

	w.MySQL.Cut()
	for path, method := range map[string]string{"/api/products": "GET", apitest.PathOf(p): "GET"} {
		apitest.WantProblem(t, w.Manage(method, path, ""), 503, problem.ProductsUnavailable)
	}
	apitest.WantProblem(t, w.Manage("POST", "/api/products", apitest.GoodProduct), 503, problem.ProductsUnavailable)
	apitest.WantProblem(t, w.Manage("PATCH", apitest.PathOf(p), `{}`), 503, problem.ProductsUnavailable)
	apitest.WantProblem(t, w.Manage("PUT", restock, `{"units":7}`), 503, problem.ProductsUnavailable)
	w.MustPost(2, p.ID, 1)
	w.MySQL.Heal()
	w.Eventually("MySQL is back", func() bool { return w.Manage("PATCH", apitest.PathOf(p), `{}`).Status == 200 })
	w.WantSettledOutbox(p.ID)
	w.WantLevel(p.ID, 15, 2, 0)
	logs.Take()
}

// A merchant who got no answer repeats the request with its key and gets the product of the first.
func TestCreateProductOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	post := func(user order.UserID, key, body string) apitest.Reply {
		return w.Send("POST", "/api/products", body, "Authorization", w.BearerOf(user, token.Merchant),
			"Content-Type", "application/json", "Idempotency-Key", key)
	}

	first := post(99, "k", apitest.GoodProduct)
	if first.Status != 201 {
		t.Fatalf("got %v", first)
	}
	w.Managed("PATCH", first.Header.Get("Location"), `{"price":5}`, 200)
	again := post(99, "k", apitest.GoodProduct)
	if again.Status != 201 || again.Body != first.Body || again.Header.Get("Location") != first.Header.Get("Location") {
		t.Errorf("the repetition got %v, the first %v", again, first)
	}
	apitest.WantProblem(t, post(99, "k", strings.Replace(apitest.GoodProduct, "4990", "4991", 1)), 422,
		problem.IdempotencyMismatch)
	apitest.WantProblem(t, post(99, "", apitest.GoodProduct), 400, problem.MalformedRequest)
	apitest.WantProblem(t, post(99, "two words", apitest.GoodProduct), 400, problem.MalformedRequest)

	// Another key makes another product, and so does the same key of another merchant.
	for _, r := range []apitest.Reply{post(99, "other", apitest.GoodProduct), post(98, "k", apitest.GoodProduct)} {
		if r.Status != 201 || r.Header.Get("Location") == first.Header.Get("Location") {
			t.Errorf("got %v of %v", r, r.Header.Get("Location"))
		}
	}
	products, err := w.Ledger.Products(t.Context(), 0, mysql.MaxPage)
	w.Must(err)
	if len(products) != 3 {
		t.Errorf("there are %d products, want 3", len(products))
	}
}

// What cannot keep the promise of an idempotency key refuses it.
func TestNoKeyIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var posts int
	for _, r := range front.Routes {
		// Notices are a provider's own, whatever headers it sends.
		if r.Method != "POST" || r.Pattern == "/api/orders" || r.Pattern == "/api/products" ||
			strings.HasPrefix(r.Pattern, "/webhooks/") {
			continue
		}
		posts++
		r := w.Send(r.Method, r.Pattern, `{}`, "Authorization", w.BearerOf(1, token.Buyer),
			"Content-Type", "application/json", "Idempotency-Key", "k")
		if r.Status != 400 || !strings.Contains(r.Body, "Idempotency-Key") {
			t.Errorf("got %v", r)
		}
	}
	if posts == 0 {
		t.Error("no route was tried")
	}
}
