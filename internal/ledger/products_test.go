package ledger

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestAddProduct(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ctx := t.Context()
	start := time.Date(2026, 11, 27, 9, 0, 0, 123_999_999, time.FixedZone("", 2*3600))

	full := order.Product{
		ID: 77, Name: strings.Repeat("é", MaxNameChars), Description: strings.Repeat("🎟", MaxDescriptionChars),
		Price:    order.MaxUnitPrice,
		Currency: "JPY", Stock: MaxStock, StartsAt: start, EndsAt: start.Add(time.Hour), LimitPerUser: 4,
		Payment: order.PaymentRequired, PayWithin: time.Hour, PointsPrice: 200,
	}
	added, err := l.AddProduct(ctx, full)
	if err != nil {
		t.Fatal(err)
	}
	want := full
	want.Version, want.Revision, want.State = 1, 1, order.OnSale
	want.StartsAt = time.Date(2026, 11, 27, 7, 0, 0, 123_000_000, time.UTC)
	want.EndsAt = want.StartsAt.Add(time.Hour)
	want.CreatedAt = added.CreatedAt
	if added != want || time.Since(added.CreatedAt) > time.Minute {
		t.Errorf("added %+v", added)
	}
	if stored := mustProduct(t, l, 77); stored != added {
		t.Errorf("stored %+v\n added %+v", stored, added)
	}

	if _, err := l.AddProduct(ctx, full); !errors.Is(err, mysql.ErrExists) || mysql.Classify(err) != mysql.Own {
		t.Errorf("a taken id: error %v", err)
	}
	bare := order.Product{Name: "x", Currency: "EUR"}
	next, err := l.AddProduct(ctx, bare)
	if err != nil || next.ID <= 77 {
		t.Errorf("id %d, error %v", next.ID, err)
	}
	if next.Payment != order.PaymentNone || next.PayWithin != order.DefaultPayWithin {
		t.Errorf("added %+v", next)
	}
	if stored := mustProduct(t, l, next.ID); stored != next || !stored.StartsAt.IsZero() || !stored.EndsAt.IsZero() {
		t.Errorf("stored %+v", stored)
	}

	for name, spoil := range map[string]func(*order.Product){
		"odd payment":         func(p *order.Product) { p.Payment = "later" },
		"less than no points": func(p *order.Product) { p.PointsPrice = -1 },
		"too many points":     func(p *order.Product) { p.PointsPrice = order.MaxUnitPrice + 1 },
		"too short to pay":    func(p *order.Product) { p.PayWithin = 59 * time.Second },
		"too long to pay":     func(p *order.Product) { p.PayWithin = 7*24*time.Hour + time.Second },
		"negative id":         func(p *order.Product) { p.ID = -1 },
		"no name":             func(p *order.Product) { p.Name = "" },
		"long name":           func(p *order.Product) { p.Name = strings.Repeat("x", MaxNameChars+1) },
		"name not UTF-8":      func(p *order.Product) { p.Name = "\xff" },
		"long description":    func(p *order.Product) { p.Description = strings.Repeat("x", MaxDescriptionChars+1) },
		"negative price":      func(p *order.Product) { p.Price = -1 },
		"high price":          func(p *order.Product) { p.Price = order.MaxUnitPrice + 1 },
		"lower-case money":    func(p *order.Product) { p.Currency = "eur" },
		"short currency":      func(p *order.Product) { p.Currency = "EU" },
		"no currency":         func(p *order.Product) { p.Currency = "" },
		"invented currency":   func(p *order.Product) { p.Currency = "ABC" },
		"currency XXX":        func(p *order.Product) { p.Currency = noCurrency },
		"negative stock":      func(p *order.Product) { p.Stock = -1 },
		"huge stock":          func(p *order.Product) { p.Stock = MaxStock + 1 },
		"negative limit":      func(p *order.Product) { p.LimitPerUser = -1 },
		"huge limit":          func(p *order.Product) { p.LimitPerUser = MaxLimitPerUser + 1 },
		"blank name":          func(p *order.Product) { p.Name = " \t" },
		"unknown state":       func(p *order.Product) { p.State = "sold" },
		"starts in 1969":      func(p *order.Product) { p.StartsAt = time.Unix(-1, 0) },
		"ends at the epoch":   func(p *order.Product) { p.EndsAt = time.Unix(0, 0) },
		"ends in the same millisecond": func(p *order.Product) {
			p.StartsAt, p.EndsAt = start.Add(-time.Nanosecond), start
		},
		"ends before start": func(p *order.Product) { p.StartsAt, p.EndsAt = start, start.Add(-time.Second) },
		"ends at the start": func(p *order.Product) { p.StartsAt, p.EndsAt = start, start },
		"ends in year 30000": func(p *order.Product) {
			p.EndsAt = time.Date(30_000, 1, 1, 0, 0, 0, 0, time.UTC)
		},
	} {
		p := bare
		spoil(&p)
		_, err := l.AddProduct(ctx, p)
		invalid, ok := errors.AsType[*mysql.InvalidError](err)
		if !errors.Is(err, mysql.ErrInvalid) || !ok || !strings.Contains(err.Error(), invalid.Detail) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	off, err := l.AddProduct(ctx, order.Product{ID: 5, Name: "x", Currency: "EUR", State: order.OffSale})
	if stored := mustProduct(t, l, 5); err != nil || stored != off || stored.State != order.OffSale {
		t.Errorf("added off sale: %+v, error %v", stored, err)
	}
	audits := mustBeSound(t, l)
	if len(audits) != 3 || audits[77].Initial != MaxStock || audits[77].LedgerRows != 1 {
		t.Errorf("audit: %+v", audits)
	}
}

func TestProducts(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for id := range int64(7) {
		if _, err := l.AddProduct(t.Context(), order.Product{ID: order.StockID(10 * (id + 1)), Name: "x",
			Currency: "EUR"}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []order.StockID
	var pages []int
	for after := order.ProductID(0); ; after = (ids[len(ids)-1]).Product() {
		page, err := l.Products(t.Context(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, len(page))
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			ids = append(ids, p.ID)
		}
	}
	if !slices.Equal(ids, []order.StockID{10, 20, 30, 40, 50, 60, 70}) || !slices.Equal(pages, []int{3, 3, 1, 0}) {
		t.Errorf("ids %v in pages of %v", ids, pages)
	}
	if page, err := l.Products(t.Context(), 0, math.MaxInt); err != nil || len(page) != 7 {
		t.Errorf("%d products without a limit, error %v", len(page), err)
	}
	if _, err := l.UpdateProduct(t.Context(), 30, func(p *order.Product) { p.State = order.OffSale }); err != nil {
		t.Fatal(err)
	}
	ids = nil
	onSale, err := l.ProductsOnSale(t.Context(), 10, 3)
	for _, p := range onSale {
		ids = append(ids, p.ID)
	}
	if err != nil || !slices.Equal(ids, []order.StockID{20, 40, 50}) {
		t.Errorf("on sale after 10: %v, error %v", ids, err)
	}
	if page, err := l.Products(t.Context(), 0, -1); err != nil || len(page) != 0 {
		t.Errorf("%d products for a negative limit, error %v", len(page), err)
	}
	if _, err := l.Product(t.Context(), 5); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a product that is not there: error %v", err)
	}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 1000, 0)
	var want []order.Record
	for i := range 25 {
		// Of several years, so that a page goes over the bounds of partitions and of what is looked into at once.
		first, second := newOrder(product.ID, 1, 1, fmt.Sprint(i)), newOrder(product.ID, 2, 1, "")
		old := order.FirstID(time.Now().AddDate(0, 0, -60*(24-i)))
		copy(first.ID[:6], old[:])
		for _, d := range mustDecide(t, l, product.ID, first, second) {
			if d.UserID == 1 {
				d.IdempotencyKey = "" // which a page does not tell
				want = append(want, d.Record)
			}
		}
	}
	slices.Reverse(want)
	var got []order.Record
	before := uuid.Nil
	for {
		page, err := l.Orders(t.Context(), 1, order.OrderID(before), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		before = uuid.UUID(page[len(page)-1].ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d orders, want %d, newest first", len(got), len(want))
	}
	if page, err := l.Orders(t.Context(), 3, order.OrderID{}, 10); err != nil || len(page) != 0 {
		t.Errorf("a user without orders has %d, error %v", len(page), err)
	}
	if _, err := l.Order(t.Context(), order.NewID()); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("an order that is not there: error %v", err)
	}
}

func TestUndecided(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 1000, 0)
	var ids, want []order.OrderID
	var decided []order.Order
	for i := range 2*mysql.MaxInList + 3 {
		o := newOrder(product.ID, 1, 1, "")
		ids = append(ids, o.ID)
		if i%3 == 0 {
			decided = append(decided, o)
		} else {
			want = append(want, o.ID)
		}
	}
	for batch := range slices.Chunk(decided, MaxBatch) {
		mustDecide(t, l, product.ID, batch...)
	}
	got, err := l.Undecided(t.Context(), ids)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d undecided, want %d, error %v", len(got), len(want), err)
	}
	if got, err := l.Undecided(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("of none: %v, error %v", got, err)
	}
}

func TestRestock(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ctx := t.Context()
	product := addProduct(t, l, 10, 0)
	mustDecide(t, l, product.ID, newOrder(product.ID, 1, 4, ""))

	first, err := l.Restock(ctx, product.ID.Product(), 5, "monday")
	part := Restock{product.ID, "monday", 5, 3, 11, false, nil}
	if want := (Restock{product.ID, "monday", 5, 3, 11, true, []Restock{part}}); err != nil ||
		!reflect.DeepEqual(first, want) {
		t.Fatalf("first: %+v, error %v", first, err)
	}
	if second, err := l.Restock(ctx, product.ID.Product(), 5, "tuesday"); err != nil || second.Version != 4 ||
		second.Balance != 16 {
		t.Fatalf("second: %+v, error %v", second, err)
	}
	again, err := l.Restock(ctx, product.ID.Product(), 5, "monday")
	if want := (Restock{product.ID, "monday", 5, 3, 11, false, []Restock{part}}); err != nil ||
		!reflect.DeepEqual(again, want) {
		t.Errorf("again: %+v, error %v", again, err)
	}
	other := addProduct(t, l, 0, 0)
	if r, err := l.Restock(ctx, other.ID.Product(), 7, "monday"); err != nil || !r.Applied || r.Balance != 7 {
		t.Errorf("another product: %+v, error %v", r, err)
	}
	if _, err := l.Restock(ctx, product.ID.Product(), 5, "MONDAY"); err != nil {
		t.Errorf("ids in another case are other ids: error %v", err)
	}

	for name, try := range map[string]func() (Restock, error){
		"other units":    func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), 6, "monday") },
		"no units":       func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), 0, "x") },
		"negative units": func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), -1, "x") },
		"huge units":     func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), math.MaxInt64, "x") },
		"huge stock":     func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), MaxStock, "x") },
		"no id":          func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), 1, "") },
		"long id": func() (Restock, error) {
			return l.Restock(ctx, product.ID.Product(), 1, strings.Repeat("x",
				65))
		},
		"blank in id":  func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), 1, "a b") },
		"id not ASCII": func() (Restock, error) { return l.Restock(ctx, product.ID.Product(), 1, "é") },
	} {
		_, err := try()
		if !errors.Is(err, mysql.ErrInvalid) || errors.Is(err, ErrMismatch) != (name == "other units") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := l.Restock(ctx, 404, 1, strings.Repeat("x", 64)); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("an unknown product: error %v", err)
	}
	if a := mustBeSound(t, l)[product.ID]; a.Restocked != 15 || a.Initial != 10 || a.Stock != 21 {
		t.Errorf("audit: %+v", a)
	}
}

func TestRestockConcurrently(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 0, 0)
	results := make([]Restock, 16)
	var functions []func() error
	for i := range results {
		functions = append(functions, func() (err error) {
			results[i], err = l.Restock(t.Context(), product.ID.Product(), 5, "once")
			return err
		})
	}
	stacktest.Together(t, functions...)
	applied := 0
	for _, r := range results {
		if r.Applied {
			applied++
		}
		if r.Version != 2 || r.Balance != 5 {
			t.Errorf("%+v", r)
		}
	}
	if p := mustProduct(t, l, product.ID); applied != 1 || p.Stock != 5 || p.Version != 2 {
		t.Errorf("applied %d times, stock %d, version %d", applied, p.Stock, p.Version)
	}
}
