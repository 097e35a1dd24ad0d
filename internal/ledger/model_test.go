package ledger

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/internal/order"
)

// model is what the ledger should do, kept in memory, one order at a time.
type model struct {
	stock, limit, version map[order.StockID]int64 // by product; products that are missing here are unknown
	outcome               map[order.OrderID]string
	holder                map[string]time.Time // when the holder of a key was reserved, by product, user and key
	bought                map[string]int64     // by product and user
	restocks              map[string]int64
}

func (m *model) decide(o order.Order, verdict string) (outcome string) {
	if outcome, ok := m.outcome[o.ID]; ok {
		return outcome + " again"
	}
	stock, known := m.stock[o.StockID]
	buyer := fmt.Sprint(o.StockID, " ", o.UserID)
	key := fmt.Sprint(buyer, " ", o.IdempotencyKey)
	held, taken := m.holder[key]
	later := o.ReservedAt.Sub(held)
	switch {
	case verdict != "":
		outcome = verdict
	case o.IdempotencyKey != "" && taken && later.Abs() < order.IdempotencyLifetime:
		outcome = "idempotency_conflict"
	case !known:
		outcome = "unknown_product"
	case m.limit[o.StockID] > 0 && m.bought[buyer]+o.Quantity > m.limit[o.StockID]:
		outcome = "limit_exceeded"
	case stock < o.Quantity:
		outcome = "sold_out"
	default:
		outcome = "completed"
		m.stock[o.StockID] -= o.Quantity
		m.version[o.StockID]++
		m.bought[buyer] += o.Quantity
	}
	if !taken || later > order.IdempotencyLifetime {
		m.holder[key] = o.ReservedAt
	}
	m.outcome[o.ID] = outcome
	return outcome
}

func (m *model) restock(product order.StockID, units int64, id string) (outcome string) {
	name := fmt.Sprint(product, " ", id)
	before, repeated := m.restocks[name]
	switch {
	case repeated && before != units:
		return "refused"
	case repeated:
		return "again"
	}
	m.restocks[name] = units
	m.stock[product] += units
	m.version[product]++
	return "applied"
}

// TestLedgerDoesAsTheModel draws calls with few products, users, keys and ids, so that they meet often.
func TestLedgerDoesAsTheModel(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	round := int64(0)
	rapid.Check(t, func(t *rapid.T) {
		round++ // sets the users of this round apart from others', and so their keys
		m := &model{
			stock: map[order.StockID]int64{}, limit: map[order.StockID]int64{}, version: map[order.StockID]int64{},
			outcome: map[order.OrderID]string{}, holder: map[string]time.Time{}, bought: map[string]int64{},
			restocks: map[string]int64{},
		}
		unknown := 1_000_000_000 + round
		var products []order.StockID
		for i := range 2 {
			p, err := l.AddProduct(t.Context(), order.Product{
				Name: "x", Currency: "EUR", Stock: rapid.Int64Range(0, 20).Draw(t, "stock"),
				LimitPerUser: int64(i) * rapid.Int64Range(1, 8).Draw(t, "limit"),
			})
			if err != nil {
				t.Fatal(err)
			}
			products = append(products, p.ID)
			m.stock[p.ID], m.limit[p.ID], m.version[p.ID] = p.Stock, p.LimitPerUser, 1
		}
		var known []order.Order
		draw := func(product order.StockID) order.Order {
			if len(known) > 0 && rapid.IntRange(0, 3).Draw(t, "old") == 0 {
				if o := rapid.SampledFrom(known).Draw(t, "order"); o.StockID == product {
					return o
				}
			}
			o := newOrder(product, order.UserID(10*round+rapid.Int64Range(1, 3).Draw(t, "user")),
				rapid.Int64Range(1, 5).Draw(t, "quantity"),
				rapid.SampledFrom([]string{"", "", "a", "b", "a "}).Draw(t, "key"))
			o.ReservedAt = o.ReservedAt.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 23, 25, 50}).Draw(t,
				"hours")) * time.Hour)
			known = append(known, o)
			return o
		}
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				product := rapid.SampledFrom(append(products, order.StockID(unknown))).Draw(t, "product")
				var orders []order.Order
				for range rapid.IntRange(1, 12).Draw(t, "size") {
					orders = append(orders, draw(product))
				}
				decisions, err := l.Decide(t.Context(), product, orders)
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, o := range orders {
					want = append(want, m.decide(o, ""))
				}
				for i, d := range decisions {
					if short(d) != want[i] || d.ID != orders[i].ID || d.Quantity != orders[i].Quantity {
						t.Errorf("order %d of %+v: %+v, want %s", i, orders, d, want[i])
					}
					if d.Fresh && d.Version != m.version[product] {
						t.Errorf("order %d has version %d, want %d", i, d.Version, m.version[product])
					}
				}
			},
			"fail": func(t *rapid.T) {
				o := draw(rapid.SampledFrom(append(products, order.StockID(unknown))).Draw(t, "product"))
				d, err := l.Fail(t.Context(), o, order.DeadLetter)
				if want := m.decide(o, "dead_letter"); err != nil || short(d) != want {
					t.Errorf("%s, want %s, error %v", short(d), want, err)
				}
			},
			"restock": func(t *rapid.T) {
				product := rapid.SampledFrom(products).Draw(t, "product")
				units, id := rapid.Int64Range(1, 3).Draw(t, "units"),
					rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
				r, err := l.Restock(t.Context(), product.Product(), units, id)
				got := map[bool]string{true: "applied", false: "again"}[r.Applied]
				if err != nil {
					got = "refused"
				}
				if want := m.restock(product, units, id); got != want {
					t.Errorf("%s, want %s, error %v", got, want, err)
				}
			},
			"update": func(t *rapid.T) {
				id, limit := rapid.SampledFrom(products).Draw(t, "product"), rapid.Int64Range(0, 8).Draw(t, "limit")
				state := rapid.SampledFrom([]order.SaleState{order.OnSale, order.OffSale}).Draw(t, "state")
				p, err := l.UpdateProduct(t.Context(), id.Product(), func(p *order.Product) {
					p.LimitPerUser, p.State, p.Price = limit, state, limit
				})
				if m.limit[id] = limit; err != nil || p.LimitPerUser != limit || p.State != state {
					t.Errorf("%+v, want limit %d and %s, error %v", p, limit, state, err)
				}
			},
			"": func(t *rapid.T) {
				for _, id := range products {
					p, err := l.Product(t.Context(), id)
					if err != nil || p.Stock != m.stock[id] || p.Version != m.version[id] {
						t.Fatalf("stock %d version %d, want %d and %d, error %v", p.Stock, p.Version, m.stock[id],
							m.version[id], err)
					}
				}
			},
		})
	})
	mustBeSound(t, l)
}
