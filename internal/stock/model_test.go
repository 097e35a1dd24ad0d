package stock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// settings are what a merchant can change. The window is on a clock of the test's own, see model.clock.
type settings struct {
	revision, price, points, limit int64 // points is the price in them, 0 for none
	offSale                        bool
	starts, ends                   int64 // hours, 0 for no bound
}

// model is what Redis should hold of one product, by the rules of docs and scripts but without their code.
type model struct {
	loaded               bool
	stock, version, seen int64
	born                 int64 // the version of the load
	settings                   // only the revision, if the product is not loaded
	// clock is the time in hours. Bounds of the sale are half an hour later than their number says, so that
	// what a play takes does not matter.
	clock    int64
	price    map[order.OrderID]price // as promised
	reserved map[order.OrderID]int64
	bought   map[order.UserID]int64
	outbox   map[order.OrderID]*unsent
	keys     map[string]Request
	marks    map[string]bool
}

// price is what a unit costs, in points or in money.
type price struct {
	amount int64
	points bool
}

func (p price) String() string {
	if p.points {
		return fmt.Sprint(p.amount, "p")
	}
	return fmt.Sprint(p.amount)
}

// unsent is a batch in the outbox.
type unsent struct{ claimed bool }

func newModel() *model {
	return &model{
		clock: noon, price: map[order.OrderID]price{},
		reserved: map[order.OrderID]int64{}, bought: map[order.UserID]int64{}, outbox: map[order.OrderID]*unsent{},
		keys: map[string]Request{}, marks: map[string]bool{},
	}
}

func keyOf(r Request) string { return fmt.Sprint(r.UserID, ":", r.IdempotencyKey) }

func (m *model) reserve(points bool, requests []Request) (results []Reservation) {
	here := map[order.OrderID]bool{}
	batch := new(unsent)
	for _, r := range requests {
		first, known := m.keys[keyOf(r)]
		mismatch := known && (first.Quantity != r.Quantity || m.price[first.OrderID].points != points)
		if !known {
			first = r
			first.Quantity, known = m.reserved[r.OrderID]
		}
		result := Reservation{Outcome: Reserved}
		switch {
		case mismatch:
			result.Outcome = IdempotencyMismatch
		case known:
			result.Outcome = Replayed
			result.Order.ID, result.Order.Quantity = first.OrderID, first.Quantity
			result.Order.UnitPrice, result.Order.Points = m.price[first.OrderID].amount, m.price[first.OrderID].points
			b := m.outbox[first.OrderID]
			if result.Unsent = b != nil; result.Unsent && !here[first.OrderID] {
				b.claimed = true
			}
		case m.offSale:
			result.Outcome = NotOnSale
		case points && m.points == 0:
			result.Outcome = NoPointsPrice
		case m.starts > 0 && m.clock <= m.starts:
			result.Outcome = NotStarted
		case m.ends > 0 && m.clock > m.ends:
			result.Outcome = Ended
		case m.limit > 0 && m.bought[r.UserID]+r.Quantity > m.limit:
			result.Outcome = LimitExceeded
		case m.stock < r.Quantity:
			result.Outcome = SoldOut
		default:
			promised := price{m.settings.price, points}
			if points {
				promised.amount = m.points
			}
			result.Order.ID, result.Order.Quantity = r.OrderID, r.Quantity
			result.Order.UnitPrice, result.Order.Points = promised.amount, points
			m.price[r.OrderID] = promised
			m.stock -= r.Quantity
			m.reserved[r.OrderID] = r.Quantity
			m.count(r.UserID, r.Quantity)
			m.outbox[r.OrderID] = batch
			here[r.OrderID] = true
			if r.IdempotencyKey != "" {
				m.keys[keyOf(r)] = r
			}
		}
		results = append(results, result)
	}
	return results
}

// count counts units for a buyer, who may have less than none for a moment.
func (m *model) count(userID order.UserID, units int64) {
	if m.bought[userID] += units; m.bought[userID] == 0 {
		delete(m.bought, userID)
	}
}

func (m *model) giveBack(id order.OrderID, userID order.UserID) {
	m.stock += m.reserved[id]
	m.count(userID, -m.reserved[id])
	delete(m.reserved, id)
}

func (m *model) cancel(r Request) bool {
	b := m.outbox[r.OrderID]
	if _, reserved := m.reserved[r.OrderID]; !reserved || b == nil || b.claimed {
		return false
	}
	m.giveBack(r.OrderID, r.UserID)
	delete(m.outbox, r.OrderID)
	if m.keys[keyOf(r)].OrderID == r.OrderID {
		delete(m.keys, keyOf(r))
	}
	return true
}

func (m *model) settle(decisions []order.Decision) (s Settled) {
	for _, d := range decisions {
		units, reserved := m.reserved[d.ID]
		switch {
		case reserved && d.Status == order.Failed:
			m.giveBack(d.ID, d.UserID)
			s.GivenBack += units
		case reserved && !d.Fresh:
			m.marks[d.ID.String()] = true
		case !reserved && d.Fresh && d.Status == order.Completed && m.loaded && d.Version > m.born &&
			!m.marks[d.ID.String()]:
			if d.Version > m.version {
				m.stock -= d.Quantity
				s.TakenOut += d.Quantity
			}
			m.count(d.UserID, d.Quantity)
		}
		delete(m.reserved, d.ID)
		delete(m.outbox, d.ID)
		m.seen = max(m.seen, d.Version)
	}
	return s
}

// noon is when a play begins, and as late as a bound may be without being none.
const noon = 12

// ms is when the sale has a bound, in the milliseconds of Redis. What base is, in the same, is noon.
func (m *model) ms(base, bound int64) int64 {
	if bound == 0 {
		return 0
	}
	return base + (time.Duration(bound-m.clock)*time.Hour + time.Hour/2).Milliseconds()
}

// product is a row of MySQL as it would be read now.
func (m *model) product(base int64, p order.Product, s settings) order.Product {
	p.Revision, p.Price, p.LimitPerUser, p.State = s.revision, s.price, s.limit, order.OnSale
	p.PointsPrice = s.points
	if s.offSale {
		p.State = order.OffSale
	}
	p.StartsAt, p.EndsAt = fromMillis(m.ms(base, s.starts)), fromMillis(m.ms(base, s.ends))
	return p
}

// sale is the hash of that name.
func (m *model) sale(base int64) map[string]string {
	sale := map[string]string{}
	if m.seen > 0 {
		sale["seen"] = strconv.FormatInt(m.seen, 10)
	}
	if m.revision > 0 {
		sale["revision"] = strconv.FormatInt(m.revision, 10)
	}
	if m.loaded {
		sale["born"] = strconv.FormatInt(m.born, 10)
		sale["version"], sale["currency"] = strconv.FormatInt(m.version, 10), "EUR"
		sale["buckets"], sale["points_price"] = "0", strconv.FormatInt(m.points, 10)
		sale["price"], sale["limit"] = strconv.FormatInt(m.settings.price, 10), strconv.FormatInt(m.limit, 10)
		sale["starts_at"] = strconv.FormatInt(m.ms(base, m.starts), 10)
		sale["ends_at"] = strconv.FormatInt(m.ms(base, m.ends), 10)
		sale["state"] = map[bool]string{false: "on_sale", true: "off_sale"}[m.offSale]
	}
	return sale
}

// contents is the model as Redis should hold it. An outbox entry is its price and whether it is claimed, an
// idempotency record is its order and its price.
func (m *model) contents(base int64) contents {
	c := contents{
		sale: m.sale(base), reserved: map[string]string{}, bought: map[string]string{}, outbox: map[string]string{},
		idem: map[string]string{},
	}
	if m.loaded {
		c.stock = strconv.FormatInt(m.stock, 10)
	}
	for id, n := range m.reserved {
		c.reserved[id.String()] = strconv.FormatInt(n, 10)
	}
	for user, n := range m.bought {
		c.bought[strconv.FormatInt(int64(user), 10)] = strconv.FormatInt(n, 10)
	}
	for id, b := range m.outbox {
		c.outbox[id.String()] = fmt.Sprint(m.price[id], " ", b.claimed)
	}
	for key, r := range m.keys {
		c.idem[key] = fmt.Sprint(r.OrderID, " ", m.price[r.OrderID])
	}
	c.settled = slices.Sorted(maps.Keys(m.marks))
	return c
}

// world is the model with what surrounds Redis: MySQL, whose stock is the truth, the orders, and the
// decisions, restocks and changes that have not reached Redis yet.
type world struct {
	*model
	shop      *shop
	base      int64 // when it is noon, in ms by the clock of Redis
	truth     row
	changes   []settings // all that MySQL ever had
	rows      map[order.OrderID]order.Status
	orders    []Request
	sent      map[order.OrderID]bool // by their edge, which then cancels no more
	pending   [][]order.Decision
	restocks  []restock
	sold      []order.Returned // completed orders, which may be cancelled later
	returns   []order.Returned // those that were
	restocked int64            // restocks so far
}

// row is what MySQL holds of the product.
type row struct {
	stock, version int64
	settings       settings
}

type restock struct {
	units, version int64
	id             string
}

// decide decides orders in one transaction. What has a row is not fresh.
func (w *world) decide(t *rapid.T, requests []Request) {
	var decisions []order.Decision
	changed := false
	for _, r := range requests {
		d := order.Decision{Record: order.Record{Order: order.Order{ID: r.OrderID, UserID: r.UserID,
			Quantity: r.Quantity}}}
		status, decided := w.rows[r.OrderID]
		if !decided {
			d.Fresh, status = true, order.Failed
			if w.truth.stock >= r.Quantity && rapid.IntRange(0, 3).Draw(t, "fails") > 0 {
				status, changed = order.Completed, true
				w.truth.stock -= r.Quantity
				w.sold = append(w.sold, order.Returned{
					OrderID: r.OrderID, UserID: r.UserID, Quantity: r.Quantity, TakenAt: w.truth.version + 1,
				})
			}
			w.rows[r.OrderID] = status
		}
		d.Status = status
		decisions = append(decisions, d)
	}
	if changed {
		w.truth.version++
	}
	for i := range decisions {
		if decisions[i].Fresh {
			decisions[i].Version = w.truth.version
		}
	}
	w.pending = append(w.pending, decisions)
}

func (w *world) settle(t *rapid.T, decisions []order.Decision) {
	got, err := w.shop.Settle(background, w.shop.product.ID, decisions)
	if want := w.model.settle(decisions); err != nil || got != want {
		t.Fatalf("Settle(%+v) = %+v, %v, want %+v", decisions, got, err, want)
	}
}

func (w *world) restock(t *rapid.T, r restock) {
	want := w.loaded && !w.marks["restock:"+r.id] && r.version > w.version
	if want {
		w.stock += r.units
		w.marks["restock:"+r.id] = true
	}
	w.seen = max(w.seen, r.version)
	if got, err := w.shop.Restock(background, w.shop.product.ID, r.units, r.version, r.id); err != nil || got != want {
		t.Fatalf("Restock(%+v) = %v, %v, want %v", r, got, err, want)
	}
}

// takeBack takes the units of an order back that was completed, in MySQL.
func (w *world) takeBack(t *rapid.T) {
	if len(w.sold) == 0 {
		t.Skip("none")
	}
	i := rapid.IntRange(0, len(w.sold)-1).Draw(t, "sold")
	r := w.sold[i]
	w.sold = slices.Delete(w.sold, i, i+1)
	w.truth.stock, w.truth.version = w.truth.stock+r.Quantity, w.truth.version+1
	r.ReturnedAt = w.truth.version
	w.returns = append(w.returns, r)
}

// bring brings returns to Redis, be they new or there already.
func (w *world) bring(t *rapid.T, returns []order.Returned) {
	var want int64
	for _, r := range returns {
		if mark := "return:" + r.OrderID.String(); w.loaded && !w.marks[mark] {
			w.marks[mark] = true
			if r.ReturnedAt > w.version {
				w.stock += r.Quantity
				want += r.Quantity
			}
			if r.TakenAt > w.born {
				w.count(r.UserID, -r.Quantity)
			}
		}
		w.seen = max(w.seen, r.ReturnedAt)
	}
	if got, err := w.shop.Return(background, w.shop.product.ID, returns); err != nil || got != want {
		t.Fatalf("Return(%+v) = %v, %v, want %v", returns, got, err, want)
	}
}

func (w *world) load(t *rapid.T, r row) {
	epoch, err := w.shop.epoch(background, w.shop.product.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.loadLate(t, r, epoch, true)
}

// loadLate loads a row that was read some time after the epoch, which may not be the present one any more.
func (w *world) loadLate(t *rapid.T, r row, epoch string, present bool) {
	p := w.product(w.base, w.shop.product, r.settings)
	p.Stock, p.Version = r.stock, r.version
	want := !w.loaded && p.Version >= w.seen && p.Revision >= w.revision && present
	got, err := w.shop.loadRow(background, p, epoch)
	if stale := !w.loaded && !want; got != want || errors.Is(err, ErrStale) != stale || err != nil && !stale {
		t.Fatalf("Load(%+v) = %v, %v, want %v", p, got, err, want)
	}
	if want {
		w.loaded, w.stock, w.settings = true, p.Stock, r.settings
		w.version, w.born, w.seen = p.Version, p.Version, p.Version
	}
}

// configure brings a change to Redis, be it new, old or there already.
func (w *world) configure(t *rapid.T, s settings) {
	want := w.loaded && s.revision >= w.revision
	switch {
	case want:
		w.settings = s
	case !w.loaded:
		w.revision = max(w.revision, s.revision)
	}
	if got, err := w.shop.Configure(background, w.product(w.base, w.shop.product, s)); err != nil || got != want {
		t.Fatalf("Configure(%+v) = %v, %v, want %v", s, got, err, want)
	}
}

// arrive loads the product, and brings everything that is on its way, with orders that are not decided yet.
func (w *world) arrive(t *rapid.T, orders []Request) {
	if !w.loaded {
		w.load(t, w.truth)
	}
	if len(orders) > 0 {
		w.decide(t, orders)
	}
	for _, decisions := range w.pending {
		w.settle(t, decisions)
	}
	for _, r := range w.restocks {
		w.restock(t, r)
	}
	for _, r := range w.returns {
		w.bring(t, []order.Returned{r})
	}
	for _, s := range w.changes {
		w.configure(t, s)
	}
}

// buyersHave wants Redis to count for each buyer what he holds of what was decided since the load, when all is quiet.
func (w *world) buyersHave(t *rapid.T) {
	holds := map[order.UserID]int64{}
	for _, r := range w.sold {
		if r.TakenAt > w.born {
			holds[r.UserID] += r.Quantity
		}
	}
	if !maps.Equal(holds, w.bought) {
		t.Fatalf("when all is quiet buyers hold %v, and Redis counts %v", holds, w.bought)
	}
}

// stepClock makes it another hour, which for Redis, whose own clock goes on as ever, means another window.
func (w *world) stepClock(t *rapid.T, hour int64) {
	w.clock = hour
	if !w.loaded {
		return
	}
	err := w.shop.rdb.HSet(background, w.shop.keys.sale,
		"starts_at", w.ms(w.base, w.starts), "ends_at", w.ms(w.base, w.ends)).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// drawSettings draws settings of the next revision.
func (w *world) drawSettings(t *rapid.T) {
	s := settings{
		revision: w.truth.settings.revision + 1, price: rapid.Int64Range(0, 3).Draw(t, "price"),
		points: rapid.Int64Range(0, 3).Draw(t, "points"),
		limit:  rapid.Int64Range(0, 5).Draw(t, "limit"), offSale: rapid.IntRange(0, 3).Draw(t, "off sale") == 0,
		// Most windows are open at noon.
		starts: rapid.SampledFrom([]int64{0, 0, noon - 2, noon + 1}).Draw(t, "starts"),
		ends:   rapid.SampledFrom([]int64{0, 0, noon - 1, noon + 2}).Draw(t, "ends"),
	}
	w.truth.settings, w.changes = s, append(w.changes, s)
}

// compare compares Redis with the model, without the times of orders.
func (w *world) compare(t *rapid.T, tb testing.TB) {
	got := w.shop.contents(tb)
	for id, entry := range got.outbox {
		var at, claimed, user, quantity int64
		var price string
		if _, err := fmt.Sscan(entry, &at, &claimed, &user, &quantity, &price); err != nil {
			t.Fatalf("outbox entry %q: %v", entry, err)
		}
		got.outbox[id] = fmt.Sprint(price, " ", claimed > 0)
	}
	for key, record := range got.idem {
		var id string
		var quantity int64
		var price string
		if _, err := fmt.Sscan(record, &id, &quantity, &price); err != nil {
			t.Fatalf("idempotency record %q: %v", record, err)
		}
		got.idem[key] = fmt.Sprint(id, " ", price)
	}
	if g, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", w.contents(w.base)); g != want {
		t.Fatalf("Redis holds\n\t%s, want\n\t%s", g, want)
	}
}

// TestScriptsDoAsTheModel plays edges, relay, workers, restocks, returns and changes of the settings on a few orders,
// in any order and with repetitions, before, within and after the sale. After each step Redis holds what the
// model says. In the end, when everything has been delivered, it holds what MySQL has. In one play Redis loses
// its data, in another workers die between commit and settle, in a third both, which reconcile then has to mend.
// Reconcile takes part in every play, and may be slow.
func TestScriptsDoAsTheModel(t *testing.T) {
	t.Parallel()
	s := openShop(t, stacktest.RedisURL(t))
	tb := testing.TB(t) // within actions, t is rapid's
	rapid.Check(t, func(rt *rapid.T) {
		s.flush(t)
		w := &world{
			model: newModel(), shop: s, base: s.now(t).UnixMilli(), truth: row{version: 5},
			rows: map[order.OrderID]order.Status{}, sent: map[order.OrderID]bool{},
		}
		w.truth.stock = rapid.Int64Range(0, 12).Draw(rt, "stock")
		w.drawSettings(rt)
		faults := rapid.SampledFrom([]string{"crashes", "losses", "both"}).Draw(rt, "faults")
		snapshot, epoch, present := w.truth, must(s.epoch(background, s.product.ID))(tb), true
		var seen Look
		var target int64 // of the units available, by the truth after the look
		var seenTruth row
		looked := false

		some := func(all []Request) []Request {
			if len(all) == 0 {
				rt.Skip("none")
			}
			return rapid.SliceOfN(rapid.SampledFrom(all), 1, 3).Draw(rt, "orders")
		}
		where := func(keep func(Request) bool) []Request {
			return slices.DeleteFunc(slices.Clone(w.orders), func(r Request) bool { return !keep(r) })
		}
		// Whatever was ever reserved may reach a worker, unless its edge has cancelled it.
		onTheWay := func(r Request) bool { _, inOutbox := w.outbox[r.OrderID]; return inOutbox || w.sent[r.OrderID] }
		undecided := func(r Request) bool { return w.rows[r.OrderID] == "" && !w.sent[r.OrderID] }

		rt.Repeat(map[string]func(*rapid.T){
			"":     func(t *rapid.T) { w.compare(t, tb) },
			"load": func(t *rapid.T) { w.load(t, w.truth) },
			"look": func(t *rapid.T) {
				epoch, present = must(s.epoch(background, s.product.ID))(tb), true
				snapshot = w.truth
			},
			"load late": func(t *rapid.T) { w.loadLate(t, snapshot, epoch, present) },
			"reconcile looks": func(t *rapid.T) {
				l, err := s.Look(background, s.product.ID)
				if err != nil || l.Loaded != w.loaded || len(l.Reserved) != len(w.reserved) ||
					len(l.Outbox) != len(w.outbox) {
					t.Fatalf("Look = %+v, %v", l, err)
				}
				want := w.truth.stock
				for id, units := range l.Reserved {
					if w.rows[id] != "" {
						t.Skip("there is something to settle first")
					}
					want -= units
				}
				seen, seenTruth, target, looked = l, w.truth, want, l.Loaded
			},
			"reconcile corrects": func(t *rapid.T) {
				if !looked {
					t.Skip("it has not looked")
				}
				set, err := s.Correct(background, s.product.ID, seen, target, seenTruth.version)
				if err != nil {
					t.Fatal(err)
				}
				if set {
					w.stock, w.version, w.seen = target, seenTruth.version, max(w.seen, seenTruth.version)
				}
			},
			"reserve": func(t *rapid.T) {
				if !w.loaded {
					t.Skip("not loaded")
				}
				requests := make([]Request, rapid.IntRange(1, 5).Draw(t, "requests"))
				for i := range requests {
					requests[i] = ask(order.UserID(rapid.Int64Range(1, 3).Draw(t, "user")),
						rapid.Int64Range(1, 4).Draw(t, "quantity"),
						rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "key"))
					if old := append(where(undecided), requests[:i]...); len(old) > 0 &&
						rapid.IntRange(0, 3).Draw(t, "again") == 0 {
						requests[i] = rapid.SampledFrom(old).Draw(t, "request")
					}
					keyed := where(func(r Request) bool { return r.IdempotencyKey != "" })
					if len(keyed) > 0 && rapid.IntRange(0, 3).Draw(t, "retry") == 0 {
						requests[i] = rapid.SampledFrom(keyed).Draw(t, "retried")
						requests[i].OrderID = order.NewID()
					}
				}
				points := rapid.Bool().Draw(t, "by points")
				_, got, err := s.Stock.reserve(background, s.product.ID, 0, points, requests)
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range w.reserve(points, requests) {
					g := Reservation{Outcome: got[i].Outcome, Unsent: got[i].Unsent}
					g.Order.ID, g.Order.Quantity = got[i].Order.ID, got[i].Order.Quantity
					g.Order.UnitPrice, g.Order.Points = got[i].Order.UnitPrice, got[i].Order.Points
					if g != want {
						t.Fatalf("request %d of %+v: got %+v, want %+v", i, requests, got[i], want)
					}
					if want.Outcome == Reserved && !slices.ContainsFunc(w.orders, func(r Request) bool {
						return r.OrderID == want.Order.ID
					}) {
						w.orders = append(w.orders, requests[i])
					}
				}
			},
			"cancel": func(t *rapid.T) {
				requests := some(where(func(r Request) bool { return !w.sent[r.OrderID] }))
				orders := make([]order.Order, len(requests))
				var want []bool
				for i, r := range requests {
					orders[i] = order.Order{ID: r.OrderID, UserID: r.UserID, IdempotencyKey: r.IdempotencyKey}
					want = append(want, w.cancel(r))
				}
				if got, err := s.Cancel(background, s.product.ID, orders); err != nil || !slices.Equal(got, want) {
					t.Fatalf("Cancel(%+v) = %v, %v, want %v", requests, got, err, want)
				}
			},
			"send": func(*rapid.T) {
				for _, r := range some(where(undecided)) {
					if onTheWay(r) {
						w.sent[r.OrderID] = true
					}
				}
			},
			"acknowledge": func(t *rapid.T) {
				// A batch of which all orders are sent.
				b := w.outbox[some(where(func(r Request) bool { return w.outbox[r.OrderID] != nil }))[0].OrderID]
				var name string
				for id, of := range w.outbox {
					if of == b && !w.sent[id] {
						t.Skip("some are left")
					}
					if of == b {
						name = s.batchOf(tb, id)
					}
				}
				maps.DeleteFunc(w.outbox, func(_ order.OrderID, of *unsent) bool { return of == b })
				if err := s.Acknowledge(background, s.product.ID, []string{name}); err != nil {
					t.Fatal(err)
				}
			},
			"relay": func(t *rapid.T) {
				batches, _, err := s.Claim(background, s.product.ID, 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				claimed := 0
				for _, b := range batches {
					for _, o := range b.Orders {
						claimed++
						if w.outbox[o.ID] == nil || (price{o.UnitPrice, o.Points}) != w.price[o.ID] {
							t.Fatalf("the relay would send %+v, which was promised at %s", o, w.price[o.ID])
						}
						w.outbox[o.ID].claimed = true
					}
				}
				if claimed != len(w.outbox) {
					t.Fatalf("Claim = %+v, %v, want %v", batches, err, w.outbox)
				}
			},
			"decide": func(t *rapid.T) {
				w.decide(t, some(where(func(r Request) bool {
					b := w.outbox[r.OrderID]
					return b != nil && b.claimed || w.sent[r.OrderID]
				})))
			},
			"settle": func(t *rapid.T) {
				if len(w.pending) == 0 {
					t.Skip("none")
				}
				i := rapid.IntRange(0, len(w.pending)-1).Draw(t, "decisions")
				w.settle(t, w.pending[i])
				for j := range w.pending[i] {
					w.pending[i][j].Fresh, w.pending[i][j].Version = false, 0
				}
				if rapid.Bool().Draw(t, "once") {
					w.pending = slices.Delete(w.pending, i, i+1)
				}
			},
			"worker dies before it settles": func(t *rapid.T) {
				if len(w.pending) == 0 || faults == "losses" {
					t.Skip("none")
				}
				for i := range w.pending[0] {
					w.pending[0][i].Fresh, w.pending[0][i].Version = false, 0
				}
			},
			"restock": func(t *rapid.T) {
				r := restock{
					units:   rapid.Int64Range(1, 5).Draw(t, "units"),
					version: w.truth.version + 1, id: fmt.Sprint(w.restocked),
				}
				w.truth.stock, w.truth.version, w.restocked = w.truth.stock+r.units, r.version, w.restocked+1
				w.restocks = append(w.restocks, r)
			},
			"restock arrives": func(t *rapid.T) {
				if len(w.restocks) == 0 {
					t.Skip("none")
				}
				w.restock(t, rapid.SampledFrom(w.restocks).Draw(t, "restock"))
			},
			"order is cancelled": w.takeBack,
			"returns arrive": func(t *rapid.T) {
				if len(w.returns) == 0 {
					t.Skip("none")
				}
				w.bring(t, rapid.SliceOfN(rapid.SampledFrom(w.returns), 1, 3).Draw(t, "returns"))
			},
			"settings change": w.drawSettings,
			"change arrives":  func(t *rapid.T) { w.configure(t, rapid.SampledFrom(w.changes).Draw(t, "change")) },
			"clock steps": func(t *rapid.T) {
				w.stepClock(t, rapid.SampledFrom([]int64{noon - 3, noon, noon, noon + 3}).Draw(t, "hour"))
			},
			"loss": func(t *rapid.T) {
				if faults == "crashes" || rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
					t.Skip("no loss")
				}
				s.flush(tb)
				clock := w.clock
				w.model = newModel()
				w.clock = clock
				present = false
			},
		})

		// The faults end: everything on its way arrives.
		w.arrive(rt, where(onTheWay))
		w.compare(rt, t)
		if faults != "both" {
			w.buyersHave(rt)
		}
		if faults == "both" {
			l := must(s.Look(background, s.product.ID))(tb)
			if set, err := s.Correct(background, s.product.ID, l, w.truth.stock, w.truth.version); err != nil || !set {
				rt.Fatalf("Correct = %v, %v", set, err)
			}
			w.stock, w.version, w.seen = w.truth.stock, w.truth.version, w.truth.version
			w.compare(rt, t)
		}
		if w.settings != w.truth.settings {
			rt.Fatalf("when all is quiet Redis sells by %+v, and MySQL by %+v", w.settings, w.truth.settings)
		}
		if w.stock != w.truth.stock || len(w.reserved) > 0 || len(w.outbox) > 0 {
			rt.Fatalf("when all is quiet Redis has %d units, %v reserved and %v in the outbox, and MySQL %d units",
				w.stock, w.reserved, w.outbox, w.truth.stock)
		}
	})
}
