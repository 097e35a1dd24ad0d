package ledger

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// update changes settings and returns the product, which must be what is stored.
func update(t testing.TB, l *Ledger, id order.ProductID, change func(*order.Product)) order.Product {
	t.Helper()
	p, err := l.UpdateProduct(t.Context(), id, change)
	if err != nil {
		t.Fatal(err)
	}
	if stored := mustProduct(t, l, id.Stock()); stored != p {
		t.Errorf("stored %+v\nupdated %+v", stored, p)
	}
	return p
}

func TestUpdateProduct(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 10, 4)
	start := time.Date(2026, 11, 27, 9, 0, 0, 123_999_999, time.FixedZone("", 2*3600))

	want := product
	for _, step := range []struct {
		name    string
		change  func(*order.Product)
		changes bool
	}{
		{"nothing", func(*order.Product) {}, false},
		{"everything", func(p *order.Product) {
			p.Name, p.Description, p.Price, p.State, p.LimitPerUser = "other", "", 0, order.OffSale, 0
			p.StartsAt, p.EndsAt = start, start.Add(time.Hour)
		}, true},
		{"what is so already", func(p *order.Product) {
			p.Name, p.StartsAt, p.EndsAt = "other", start.Add(-1000), start.Add(time.Hour)
		}, false},
		{"what is no setting", func(p *order.Product) {
			p.ID, p.Stock, p.Version, p.Revision, p.Currency, p.CreatedAt = 99, 99, 99, 99, "USD", start
		}, false},
		{"one setting", func(p *order.Product) { p.Price = 5 }, true},
		{"no bounds", func(p *order.Product) { p.StartsAt, p.EndsAt = time.Time{}, time.Time{} }, true},
	} {
		got := update(t, l, product.ID.Product(), step.change)
		if step.changes {
			step.change(&want)
			want.StartsAt, want.EndsAt = mysql.NullMillis(want.StartsAt).Time, mysql.NullMillis(want.EndsAt).Time
			want.Revision++
		}
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", step.name, got, want)
		}
	}

	update(t, l, product.ID.Product(), func(p *order.Product) { p.StartsAt, p.EndsAt = start, start.Add(time.Hour) })
	before := mustProduct(t, l, product.ID)
	for detail, change := range map[string]func(*order.Product){
		"ends_at must be after starts_at":                         func(p *order.Product) { p.EndsAt = start },
		"name must have 1 to 200 characters, and not only blanks": func(p *order.Product) { p.Name, p.Price = "", 7 },
		"state must be on_sale or off_sale":                       func(p *order.Product) { p.State = "" },
		"limit_per_user must be 1 to 1000000000 units, or absent": func(p *order.Product) { p.LimitPerUser = -1 },
	} {
		_, err := l.UpdateProduct(t.Context(), product.ID.Product(), change)
		if invalid, ok := errors.AsType[*mysql.InvalidError](err); !ok || invalid.Detail != detail {
			t.Errorf("%s: error %v", detail, err)
		}
	}
	// One bound alone can be wrong beside the other that is stored.
	late := func(p *order.Product) { p.StartsAt = start.Add(2 * time.Hour) }
	if _, err := l.UpdateProduct(t.Context(), product.ID.Product(), late); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("a start after the end that is stored: error %v", err)
	}
	if after := mustProduct(t, l, product.ID); after != before {
		t.Errorf("what was refused has changed %+v to %+v", before, after)
	}
	if _, err := l.UpdateProduct(t.Context(), 404, func(*order.Product) {}); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("an unknown product: error %v", err)
	}
	mustBeSound(t, l)
}

// TestUpdateProductConcurrently changes a product from many sides while it is sold and restocked: no change is lost,
// and none gets in the way of stock and ledger.
func TestUpdateProductConcurrently(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 100, 0)
	const rounds = 20
	var functions []func() error
	for _, change := range []func(*order.Product){
		func(p *order.Product) { p.Price++ },
		func(p *order.Product) { p.Price++ },
		func(p *order.Product) { p.Description += "x" },
	} {
		functions = append(functions, func() error {
			for range rounds {
				if _, err := l.UpdateProduct(t.Context(), product.ID.Product(), change); err != nil {
					return err
				}
			}
			return nil
		})
	}
	functions = append(functions, func() error {
		for i := range rounds {
			if _, err := l.Decide(t.Context(), product.ID, []order.Order{newOrder(product.ID, 1, 1, "")}); err != nil {
				return err
			}
			if _, err := l.Restock(t.Context(), product.ID.Product(), 2, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	stacktest.Together(t, functions...)
	p := mustProduct(t, l, product.ID)
	if p.Price != product.Price+2*rounds || len(p.Description) != len(product.Description)+rounds ||
		p.Revision != 1+3*rounds || p.Stock != 100+rounds || p.Version != 1+2*rounds {
		t.Errorf("got %+v", p)
	}
	mustBeSound(t, l)
}

// TestLimitCeiling: lowering or setting a limit makes nobody a cheat who has bought before.
func TestLimitCeiling(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		limits []int64
		want   int64
	}{
		{"never changed", []int64{5}, 5},
		{"never any", []int64{0}, 0},
		{"lowered", []int64{5, 3}, 5},
		{"lowered and raised", []int64{5, 3, 4}, 5},
		{"raised", []int64{5, 7, 6}, 7},
		{"set later", []int64{0, 3}, 0},
		{"removed", []int64{5, 0}, 0},
		{"removed and set again", []int64{5, 0, 3, 8}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(t)
			product := addProduct(t, l, 100, test.limits[0])
			// Each limit is used up while it is in force; of none, 50 units are bought.
			bought := int64(0)
			for i, limit := range test.limits {
				if i > 0 {
					update(t, l, product.ID.Product(), func(p *order.Product) { p.LimitPerUser = limit })
				}
				if limit == 0 {
					limit = 50
				}
				if more := limit - bought; more > 0 {
					d := mustDecide(t, l, product.ID, newOrder(product.ID, 1, more, ""))[0]
					if d.Status != order.Completed {
						t.Fatalf("%d more units under a limit of %d: %s", more, limit, short(d))
					}
					bought += more
				}
				// Units that were bought under another limit, or none, count.
				d := mustDecide(t, l, product.ID, newOrder(product.ID, 1, 1, ""))[0]
				switch {
				case test.limits[i] == 0:
					bought++
				case d.FailedReason != order.LimitExceeded:
					t.Errorf("a unit over the limit of %d: %s", test.limits[i], short(d))
				}
			}
			var ceiling int64
			err := l.db.Get(&ceiling, "SELECT limit_ceiling FROM products")
			if err != nil || ceiling != test.want {
				t.Errorf("the ceiling is %d, want %d, error %v", ceiling, test.want, err)
			}
			mustBeSound(t, l)
			if test.want == 0 {
				return
			}
			// One unit over the highest limit is one too many.
			exec(t, l, "UPDATE orders SET quantity = quantity + 1 WHERE status = 'completed' LIMIT 1")
			audits, err := l.Audit(t.Context())
			if err != nil || audits[0].UsersOverLimit != 1 {
				t.Errorf("%d users over the limit, error %v", audits[0].UsersOverLimit, err)
			}
		})
	}
}
