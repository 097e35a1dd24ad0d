package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	l := newLedger(t)

	// An ask is an order by a name that stands for its id.
	type ask struct {
		name     string
		user     order.UserID
		quantity int64
		key      string
	}
	type call struct {
		asks []ask
		want []string
		left int64
	}
	for _, test := range []struct {
		name         string
		stock, limit int64
		calls        []call
	}{
		{"stock", 10, 0, []call{
			{[]ask{{"a", 1, 4, ""}, {"b", 2, 6, ""}}, []string{"completed", "completed"}, 0},
			{[]ask{{"c", 3, 1, ""}}, []string{"sold_out"}, 0},
		}},
		{"a smaller order fits where a larger one did not", 5, 0, []call{
			{[]ask{{"a", 1, 3, ""}, {"b", 2, 3, ""}, {"c", 3, 2, ""}, {"d", 4, 1, ""}},
				[]string{"completed", "sold_out", "completed", "sold_out"}, 0},
		}},
		{"no stock at all", 0, 0, []call{{[]ask{{"a", 1, 1, ""}}, []string{"sold_out"}, 0}}},
		{"decided once", 10, 0, []call{
			{[]ask{{"a", 1, 4, ""}, {"b", 2, 7, ""}}, []string{"completed", "sold_out"}, 6},
			{[]ask{{"b", 2, 1, ""}, {"c", 3, 6, ""}, {"a", 1, 4, ""}},
				[]string{"sold_out again", "completed", "completed again"}, 0},
			{[]ask{{"a", 1, 4, ""}, {"b", 2, 7, ""}}, []string{"completed again", "sold_out again"}, 0},
		}},
		{"the same id twice in a call", 10, 2, []call{
			{[]ask{{"a", 1, 2, "k"}, {"a", 1, 2, "k"}, {"b", 2, 9, ""}, {"b", 2, 9, ""}},
				[]string{"completed", "completed again", "limit_exceeded", "limit_exceeded again"}, 8},
		}},
		{"limit within a call and across calls", 100, 3, []call{
			{[]ask{{"a", 1, 2, ""}, {"b", 1, 2, ""}, {"c", 1, 1, ""}, {"d", 2, 3, ""}},
				[]string{"completed", "limit_exceeded", "completed", "completed"}, 94},
			{[]ask{{"e", 1, 1, ""}, {"f", 2, 1, ""}, {"g", 3, 4, ""}, {"h", 3, 3, ""}},
				[]string{"limit_exceeded", "limit_exceeded", "limit_exceeded", "completed"}, 91},
		}},
		{"failed orders do not count for the limit", 2, 3, []call{
			{[]ask{{"a", 1, 3, ""}}, []string{"sold_out"}, 2},
			{[]ask{{"b", 1, 2, ""}}, []string{"completed"}, 0},
		}},
		{"the limit is judged before the stock", 1, 2, []call{{[]ask{{"a", 1, 3, ""}}, []string{"limit_exceeded"}, 1}}},
		{"a key is a user's own", 10, 0, []call{
			{[]ask{{"a", 1, 1, "k"}, {"b", 2, 1, "k"}, {"c", 1, 1, "k"}, {"d", 1, 1, "l"}, {"e", 1, 1, ""},
				{"f", 1, 1, ""}},
				[]string{"completed", "completed", "idempotency_conflict", "completed", "completed", "completed"}, 5},
			{[]ask{{"g", 2, 1, "k"}, {"h", 3, 1, "k"}, {"c", 1, 1, "k"}},
				[]string{"idempotency_conflict", "completed", "idempotency_conflict again"}, 4},
		}},
		{"a failed order keeps its key", 1, 0, []call{
			{[]ask{{"a", 1, 2, "k"}, {"b", 1, 1, "k"}}, []string{"sold_out", "idempotency_conflict"}, 1},
			{[]ask{{"c", 1, 1, "k"}}, []string{"idempotency_conflict"}, 1},
		}},
		{"keys are bytes", 10, 0, []call{
			{[]ask{{"a", 1, 1, "k"}, {"b", 1, 1, "K"}, {"c", 1, 1, "k "}, {"d", 1, 1, "é"}, {"e", 1, 1, "e"},
				{"f", 1, 1, `'\"` + "\x00"}},
				[]string{"completed", "completed", "completed", "completed", "completed", "completed"}, 4},
			{[]ask{{"g", 1, 1, "k "}, {"h", 1, 1, "é"}, {"i", 1, 1, `'\"` + "\x00"},
				{"j", 1, 1, strings.Repeat("k", 255)}},
				[]string{"idempotency_conflict", "idempotency_conflict", "idempotency_conflict", "completed"}, 3},
		}},
		{"a stored order later in the call holds its key", 10, 0, []call{
			{[]ask{{"a", 1, 1, "k"}}, []string{"completed"}, 9},
			{[]ask{{"b", 1, 1, "k"}, {"a", 1, 1, "k"}}, []string{"idempotency_conflict", "completed again"}, 9},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			product := addProduct(t, l, test.stock, test.limit)
			ids := map[string]order.OrderID{}
			version := int64(1)
			for i, call := range test.calls {
				var orders []order.Order
				for _, a := range call.asks {
					// The product's id keeps the users of one case apart from those of another.
					o := newOrder(product.ID, order.UserID(product.ID)*1000+a.user, a.quantity, a.key)
					if id, ok := ids[a.name]; ok {
						o.ID = id
					}
					ids[a.name] = o.ID
					orders = append(orders, o)
				}
				decisions := mustDecide(t, l, product.ID, orders...)
				var got []string
				for _, d := range decisions {
					got = append(got, short(d))
					if d.Fresh && d.Status == order.Completed {
						version++
					}
				}
				if !slices.Equal(got, call.want) {
					t.Fatalf("call %d:\n got %q\nwant %q", i, got, call.want)
				}
				p := mustProduct(t, l, product.ID)
				if p.Stock != call.left || p.Version != version {
					t.Errorf("call %d left stock %d and version %d, want %d and %d", i, p.Stock, p.Version, call.left,
						version)
				}
				for j, d := range decisions {
					if want := map[bool]int64{true: version}[d.Fresh]; d.Version != want {
						t.Errorf("call %d, order %d has version %d, want %d", i, j, d.Version, want)
					}
					stored, err := l.Order(t.Context(), orders[j].ID)
					if err != nil || !reflect.DeepEqual(stored, d.Record) {
						t.Errorf("call %d, order %d:\n stored %+v, error %v\ndecided %+v", i, j, stored, err, d.Record)
					}
				}
			}
		})
	}
	mustBeSound(t, l)
}

func TestDecideRecord(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 10, 0)
	before := time.Now().Add(-time.Millisecond)

	completed := newOrder(product.ID, 7, 2, "key")
	conflict := newOrder(product.ID, 7, 3, "key")
	decisions := mustDecide(t, l, product.ID, completed, conflict)

	want := completed
	want.ReservedAt = time.Date(2026, 5, 4, 2, 2, 1, 987_000_000, time.UTC)
	record := decisions[0].Record
	if record.DecidedAt.Before(before) || record.DecidedAt.After(time.Now()) ||
		record.DecidedAt.Location() != time.UTC {
		t.Errorf("decided at %v", record.DecidedAt)
	}
	if got, want := record, (order.Record{Order: want, Currency: "EUR", Status: order.Completed,
		DecidedAt: record.DecidedAt}); got != want {
		t.Errorf("completed:\n got %+v\nwant %+v", got, want)
	}

	want.ID, want.Quantity, want.IdempotencyKey = conflict.ID, 3, ""
	record = decisions[1].Record
	if got, want := record, (order.Record{Order: want, Currency: "EUR", Status: order.Failed,
		FailedReason: order.IdempotencyConflict, DecidedAt: record.DecidedAt}); got != want {
		t.Errorf("failed:\n got %+v\nwant %+v", got, want)
	}
}

func TestDecideUnknownProduct(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const unknown = 404
	first, second := newOrder(unknown, 1, 1, "k"), newOrder(unknown, 1, 1, "k")
	for i, want := range [][]string{{"unknown_product", "idempotency_conflict"},
		{"unknown_product again", "idempotency_conflict again"}} {
		decisions := mustDecide(t, l, unknown, first, second)
		for j, d := range decisions {
			if short(d) != want[j] || d.Currency != "XXX" || d.Version != 0 {
				t.Errorf("call %d, order %d: %s in %s, version %d", i, j, short(d), d.Currency, d.Version)
			}
		}
	}
	audit := mustBeSound(t, l)[unknown]
	if audit.FailedOrders != 2 || audit.Known {
		t.Errorf("audit: %+v", audit)
	}
}

func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 10, 0)
	good := newOrder(product.ID, 1, 1, "")
	negative := newOrder(product.ID, 1, -1, "")
	other := newOrder(product.ID+1, 1, 1, "")
	for name, orders := range map[string][]order.Order{
		"another product": {good, other},
		"not valid":       {good, negative},
		"too many":        make([]order.Order, MaxBatch+1),
	} {
		if _, err := l.Decide(t.Context(), product.ID, orders); !errors.Is(err, mysql.ErrInvalid) ||
			mysql.Classify(err) != mysql.Own {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := l.Fail(t.Context(), good, ""); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("fail without a reason: error %v", err)
	}
	if decisions, err := l.Decide(t.Context(), product.ID, nil); err != nil || len(decisions) != 0 {
		t.Errorf("no orders: %v, error %v", decisions, err)
	}
	if left, err := l.Undecided(t.Context(), []order.OrderID{good.ID}); err != nil || len(left) != 1 {
		t.Errorf("an order of a refused call was decided: error %v", err)
	}
}

// TestDecideLargest fills a batch to its bounds, which are more than one IN list.
func TestDecideLargest(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, MaxBatch-1, 2)
	orders := make([]order.Order, MaxBatch)
	for i := range orders {
		orders[i] = newOrder(product.ID, order.UserID(i/2+1), 1, fmt.Sprintf("%0255d", i))
	}
	check := func(suffix string) {
		t.Helper()
		for i, d := range mustDecide(t, l, product.ID, orders...) {
			want := "completed" + suffix
			if i == MaxBatch-1 {
				want = "sold_out" + suffix
			}
			if short(d) != want {
				t.Fatalf("order %d: %s, want %s", i, short(d), want)
			}
		}
	}
	check("")
	check(" again")

	if _, err := l.Restock(t.Context(), product.ID.Product(), 2*MaxBatch, "more"); err != nil {
		t.Fatal(err)
	}
	fresh := slices.Clone(orders)
	for i := range fresh {
		fresh[i].ID = order.NewID()
	}
	for i, d := range mustDecide(t, l, product.ID, fresh...) {
		if short(d) != "idempotency_conflict" {
			t.Fatalf("order %d with a used key: %s", i, short(d))
		}
		fresh[i].ID, fresh[i].IdempotencyKey = order.NewID(), ""
	}
	for i, d := range mustDecide(t, l, product.ID, fresh...) {
		want := "limit_exceeded"
		if i == MaxBatch-2 { // the last user has one unit, because the other order was sold out
			want = "completed"
		}
		if short(d) != want {
			t.Fatalf("order %d over the limit: %s, want %s", i, short(d), want)
		}
	}
	mustBeSound(t, l)
}

func TestFail(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 10, 0)
	sold := newOrder(product.ID, 1, 1, "k")
	mustDecide(t, l, product.ID, sold)

	if d, err := l.Fail(t.Context(), sold, order.DeadLetter); err != nil || short(d) != "completed again" {
		t.Errorf("a completed order: %s, error %v", short(d), err)
	}
	dead := newOrder(product.ID, 1, 1, "k") // its key is taken, which must not keep it from failing
	if d, err := l.Fail(t.Context(), dead, order.DeadLetter); err != nil || short(d) != "dead_letter" ||
		d.Version != 2 || d.IdempotencyKey != "" {
		t.Errorf("an order without a row: %+v, error %v", d, err)
	}
	if d, err := l.Fail(t.Context(), dead, order.SoldOut); err != nil || short(d) != "dead_letter again" {
		t.Errorf("a failed order: %s, error %v", short(d), err)
	}
	if d := mustDecide(t, l, product.ID, dead)[0]; short(d) != "dead_letter again" {
		t.Errorf("decided after: %s", short(d))
	}
	if d, err := l.Fail(t.Context(), newOrder(404, 1, 1, ""), order.DeadLetter); err != nil ||
		short(d) != "dead_letter" {
		t.Errorf("an order of an unknown product: %s, error %v", short(d), err)
	}
	if p := mustProduct(t, l, product.ID); p.Stock != 9 || p.Version != 2 {
		t.Errorf("stock %d, version %d", p.Stock, p.Version)
	}
	mustBeSound(t, l)
}

// witness collects decisions from concurrent calls and complains if two calls say different things of an order.
type witness struct {
	mu      sync.Mutex
	records map[order.OrderID]order.Record
	fresh   map[order.OrderID]int
}

func newWitness() *witness {
	return &witness{records: map[order.OrderID]order.Record{}, fresh: map[order.OrderID]int{}}
}

func (w *witness) note(decisions []order.Decision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range decisions {
		if known, ok := w.records[d.ID]; ok && known != d.Record {
			return fmt.Errorf("order %s was told as %+v and as %+v", d.ID, known, d.Record)
		}
		w.records[d.ID] = d.Record
		if d.Fresh {
			w.fresh[d.ID]++
		}
	}
	return nil
}

// TestDecideConcurrently has the same orders for a hot product delivered by sixteen workers at once, in different
// batches, while restocks come in.
func TestDecideConcurrently(t *testing.T) {
	t.Parallel()
	for _, parameters := range []string{"", "innodb_snapshot_isolation=ON"} {
		t.Run(parameters, func(t *testing.T) {
			dsn := stacktest.AnyDSN(t)
			if parameters != "" {
				// The default from MariaDB 11.6 on, where reading what changed after the snapshot is an error.
				var found []struct {
					Name  string `db:"Variable_name"`
					Value string `db:"Value"`
				}
				if err := open(t, dsn).db.Select(&found,
					"SHOW VARIABLES LIKE 'innodb_snapshot_isolation'"); err != nil || len(found) == 0 {
					t.Skipf("the server does not have it (error %v)", err)
				}
				separator := "?"
				if strings.Contains(dsn, "?") {
					separator = "&"
				}
				dsn += separator + parameters
			}
			l := open(t, dsn)
			if _, err := l.db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}

			const workers, users, limit, initial, restocks = 16, 60, 7, 150, 10
			product := addProduct(t, l, initial, limit)
			random := rand.New(rand.NewPCG(1, 2))
			orders := make([]order.Order, 600)
			for i := range orders {
				key := ""
				if random.IntN(3) == 0 {
					key = fmt.Sprint(random.IntN(5))
				}
				orders[i] = newOrder(product.ID, order.UserID(1+random.Int64N(users)), 1+random.Int64N(3), key)
			}

			w := newWitness()
			var functions []func() error
			for range workers {
				mine := slices.Clone(orders)
				random.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
				size := 1 + random.IntN(80)
				functions = append(functions, func() error {
					for batch := range slices.Chunk(mine, size) {
						decisions, err := l.Decide(t.Context(), product.ID, batch)
						if err != nil {
							return err
						}
						if err := w.note(decisions); err != nil {
							return err
						}
					}
					return nil
				})
			}
			functions = append(functions, func() error {
				for i := range restocks {
					if _, err := l.Restock(t.Context(), product.ID.Product(), 5, fmt.Sprint(i)); err != nil {
						return err
					}
				}
				return nil
			})
			stacktest.Together(t, functions...)

			var sold int64
			byUser, keys := map[order.UserID]int64{}, map[keyScope]order.OrderID{}
			for _, o := range orders {
				record := w.records[o.ID]
				if w.fresh[o.ID] != 1 {
					t.Errorf("order %s was decided %d times", o.ID, w.fresh[o.ID])
				}
				if record.Status == order.Completed {
					sold += record.Quantity
					byUser[record.UserID] += record.Quantity
				}
				if key := (keyScope{o.UserID, o.StockID, record.IdempotencyKey}); key.key != "" {
					if other, ok := keys[key]; ok {
						t.Errorf("orders %s and %s hold the same key", other, o.ID)
					}
					keys[key] = o.ID
				}
			}
			for user, units := range byUser {
				if units > limit {
					t.Errorf("user %d has %d units", user, units)
				}
			}
			const supply = initial + 5*restocks
			if p := mustProduct(t, l, product.ID); p.Stock != supply-sold || p.Stock < 0 {
				t.Errorf("%d of %d units are sold, %d are left", sold, supply, p.Stock)
			}
			if sold < initial {
				t.Errorf("only %d units are sold; the test is not about scarcity", sold)
			}
			if a := mustBeSound(t, l)[product.ID]; a.CompletedUnits != sold || a.CompletedOrders+
				a.FailedOrders != int64(len(orders)) {
				t.Errorf("audit: %+v", a)
			}
			if left, err := l.Undecided(t.Context(), idsOf(orders)); err != nil || len(left) != 0 {
				t.Errorf("undecided: %v, error %v", left, err)
			}
		})
	}
}

// TestLimitConcurrently has eight workers wait for a product with orders of the same users: whoever gets it must see
// what those before it have sold, and not what was so when it began to wait.
func TestLimitConcurrently(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const workers, users, limit = 8, 5, 3
	product := addProduct(t, l, 1000, limit)
	holder, err := l.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }()
	if _, err := lockProduct(t.Context(), holder, product.ID); err != nil {
		t.Fatal(err)
	}
	w := newWitness()
	functions := []func() error{func() error {
		defer func() { _ = holder.Rollback() }()
		deadline := time.Now().Add(mysql.MaxLockWait - time.Second)
		for ; time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			var waiting int
			err := l.db.GetContext(t.Context(), &waiting, `SELECT COUNT(*) FROM information_schema.processlist
				WHERE db = DATABASE() AND info LIKE '%FROM products%FOR UPDATE'`)
			if err != nil || waiting == workers {
				return err
			}
		}
		return errors.New("the workers do not wait for the product")
	}}
	for range workers {
		orders := make([]order.Order, users)
		for i := range orders {
			orders[i] = newOrder(product.ID, order.UserID(i+1), 1, "")
		}
		functions = append(functions, func() error {
			decisions, err := l.Decide(t.Context(), product.ID, orders)
			return errors.Join(err, w.note(decisions))
		})
	}
	stacktest.Together(t, functions...)
	units := map[order.UserID]int64{}
	for _, record := range w.records {
		if record.Status == order.Completed {
			units[record.UserID] += record.Quantity
		}
	}
	for user := order.UserID(1); user <= users; user++ {
		if units[user] != limit {
			t.Errorf("user %d has %d units, the limit is %d", user, units[user], limit)
		}
	}
	mustBeSound(t, l)
}

// TestIdempotencyRace has different orders with the same key decided at once. Their product is unknown, so that no lock
// stands before their rows.
func TestIdempotencyRace(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const unknown, deciders, rounds, keysPerRound = 404, 4, 20, 5
	for round := range rounds {
		w := newWitness()
		var functions []func() error
		for range deciders {
			var orders []order.Order
			for key := range keysPerRound {
				orders = append(orders, newOrder(unknown, order.UserID(round+1), 1, fmt.Sprint(key)))
			}
			rand.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
			functions = append(functions, func() error {
				decisions, err := l.Decide(t.Context(), unknown, orders)
				if err != nil {
					return err
				}
				return w.note(decisions)
			})
		}
		stacktest.Together(t, functions...)

		holders, conflicts := map[string]int{}, 0
		for _, record := range w.records {
			if record.FailedReason == order.IdempotencyConflict {
				conflicts++
			} else {
				holders[record.IdempotencyKey]++
			}
		}
		for key, n := range holders {
			if n != 1 {
				t.Errorf("round %d: %d orders hold key %q", round, n, key)
			}
		}
		if len(holders) != keysPerRound || conflicts != keysPerRound*(deciders-1) {
			t.Errorf("round %d: %d keys are held, %d orders conflict", round, len(holders), conflicts)
		}
	}
	mustBeSound(t, l)
}

// TestKeysOfTwoProducts has a user's key used for each thing in a basket.
func TestKeysOfTwoProducts(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for range 2 {
		product := addProduct(t, l, 10, 0)
		first, retry := newOrder(product.ID, 7, 1, "basket"), newOrder(product.ID, 7, 1, "basket")
		if d := mustDecide(t, l, product.ID, first)[0]; short(d) != "completed" || d.IdempotencyKey != "basket" {
			t.Errorf("product %d: %s with key %q", product.ID, short(d), d.IdempotencyKey)
		}
		if d := mustDecide(t, l, product.ID, retry)[0]; short(d) != "idempotency_conflict" {
			t.Errorf("product %d, again: %s", product.ID, short(d))
		}
	}
	mustBeSound(t, l)
}

// TestKeysOfAnotherDay has a key used again when Redis has forgotten it: in MySQL it is then free as well.
func TestKeysOfAnotherDay(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for _, test := range []struct {
		name   string
		after  time.Duration
		late   bool // the earlier order is decided last
		want   []string
		holder int
	}{
		{"within the lifetime", order.IdempotencyLifetime - keyMargin, false,
			[]string{"completed", "idempotency_conflict"}, 0},
		{"when Redis forgets it", order.IdempotencyLifetime, false, []string{"completed", "completed"}, 1},
		{"the earlier one was on its way for a day", order.IdempotencyLifetime, true,
			[]string{"completed", "completed"}, 1},
	} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, together %t", test.name, together), func(t *testing.T) {
				product := addProduct(t, l, 10, 0)
				orders := []order.Order{newOrder(product.ID, 7, 1, "k"), newOrder(product.ID, 7, 1, "k")}
				orders[1].ReservedAt = orders[0].ReservedAt.Add(test.after)
				sent := slices.Clone(orders)
				if test.late {
					slices.Reverse(sent)
				}
				if together {
					mustDecide(t, l, product.ID, sent...)
				} else {
					mustDecide(t, l, product.ID, sent[0])
					mustDecide(t, l, product.ID, sent[1])
				}

				for i, d := range mustDecide(t, l, product.ID, orders...) {
					key := map[bool]string{true: "k"}[i == test.holder]
					if short(d) != test.want[i]+" again" || d.IdempotencyKey != key {
						t.Errorf("order %d is %s with key %q, want %s with %q", i, short(d), d.IdempotencyKey,
							test.want[i], key)
					}
				}
			})
		}
	}
	mustBeSound(t, l)
}

// TestKeyOfARedrivenOrder has an order reserved anew a day after it was placed. Its key is as old as its id.
func TestKeyOfARedrivenOrder(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 10, 0)
	redriven, next := newOrder(product.ID, 7, 1, "k"), newOrder(product.ID, 7, 1, "k")
	redriven.ReservedAt = time.Now().Add(order.IdempotencyLifetime - time.Hour)
	next.ReservedAt = time.Now().Add(order.IdempotencyLifetime)
	copy(next.ID[:6], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // no older than its reservation
	for _, o := range []order.Order{redriven, next} {
		if d := mustDecide(t, l, product.ID, o)[0]; short(d) != "completed" {
			t.Errorf("an order of %s: %s", o.ReservedAt, short(d))
		}
	}
}

// TestAWorkerOfBeforeThePartitions runs what programs of before the partitions say to the orders. In a rolling upgrade
// their edges must go on reading, and their workers must not be able to decide anything, not even an order without a
// key in a rehearsal: for them that is an outage, which they wait for.
func TestAWorkerOfBeforeThePartitions(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 1000, 0)
	o := newOrder(product.ID, 7, 1, "k")
	mustDecide(t, l, product.ID, o)

	const columns = `id, user_id, product_id, quantity, unit_price, currency, status, failed_reason, idempotency_key,
		reserved_at, decided_at`
	var row orderRow
	err := l.db.GetContext(t.Context(), &row, `SELECT `+columns+` FROM orders WHERE id = ?`, mysql.UUID(o.ID))
	if err != nil || row.UserID != 7 || row.Quantity != 1 {
		t.Errorf("read %+v, error %v", row, err)
	}
	for _, key := range []string{"NULL", "'k'"} {
		_, err := l.db.ExecContext(t.Context(), `INSERT INTO orders (`+columns+`)
			VALUES (?, 8, ?, 1, 1500, 'EUR', 'failed', 'sold_out', `+key+`, NOW(), NOW())`,
			mysql.UUID(order.NewID()), product.ID)
		if mysql.Classify(err) != mysql.Systemic || !mysql.Answered(err) {
			t.Errorf("inserted with key %s: error %v", key, err)
		}
	}
}

// TestSameOrderUnderTwoProducts has one id delivered for two products at once, so that no common lock stands before the
// order's row.
func TestSameOrderUnderTwoProducts(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	a, b := addProduct(t, l, 1000, 0), addProduct(t, l, 1000, 0)
	for round := range 30 {
		w := newWitness()
		first := newOrder(a.ID, 1, 1, "")
		second := first
		second.StockID = b.ID
		var functions []func() error
		for _, o := range []order.Order{first, second, first, second} {
			functions = append(functions, func() error {
				decisions, err := l.Decide(t.Context(), o.StockID, []order.Order{o})
				if err != nil {
					return err
				}
				return w.note(decisions)
			})
		}
		stacktest.Together(t, functions...)
		if w.fresh[first.ID] != 1 {
			t.Errorf("round %d: decided %d times", round, w.fresh[first.ID])
		}
	}
	mustBeSound(t, l)
}

func TestFailRacesDecide(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 1000, 0)
	reasons := map[order.Reason]int{}
	for round := range 40 {
		w := newWitness()
		o := newOrder(product.ID, 1, 1, "")
		functions := []func() error{
			func() error {
				d, err := l.Fail(t.Context(), o, order.DeadLetter)
				return errors.Join(err, w.note([]order.Decision{d}))
			},
			func() error {
				decisions, err := l.Decide(t.Context(), product.ID, []order.Order{o})
				return errors.Join(err, w.note(decisions))
			},
		}
		if round%2 == 0 {
			slices.Reverse(functions)
		}
		stacktest.Together(t, functions...)
		if w.fresh[o.ID] != 1 {
			t.Errorf("round %d: decided %d times", round, w.fresh[o.ID])
		}
		reasons[w.records[o.ID].FailedReason]++
	}
	if p := mustProduct(t, l, product.ID); p.Stock != 1000-int64(reasons[""]) {
		t.Errorf("stock %d after %d completed orders", p.Stock, reasons[""])
	}
	mustBeSound(t, l)
}

// TestDecideReadsLittle has a user with a long history, among many who have none, buy something else: what a decision
// reads under its lock must not grow with what was bought before.
func TestDecideReadsLittle(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.db.SetMaxOpenConns(1) // the server counts reads by session
	// The optimizer goes on believing that the table is as small as it is now.
	exec(t, l, "ALTER TABLE orders STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")
	if rows, err := l.db.Queryx("ANALYZE TABLE orders"); err != nil || rows.Close() != nil {
		t.Fatal(err)
	}
	old := addProduct(t, l, MaxStock, 0)
	const history, others, batch = 8000, 2000, 300
	orders := make([]order.Order, history+others)
	for i := range orders {
		orders[i] = newOrder(old.ID, order.UserID(max(1, int64(i-history+2))), 1, fmt.Sprint(i))
	}
	for chunk := range slices.Chunk(orders, MaxBatch) {
		mustDecide(t, l, old.ID, chunk...)
	}
	product := addProduct(t, l, 1000, 100)
	orders = nil
	for i := range batch {
		orders = append(orders, newOrder(product.ID, order.UserID(i+1), 1, fmt.Sprint("new ", i)))
	}
	reads := func() (n int64) {
		var counters []struct {
			Name  string `db:"Variable_name"`
			Value int64  `db:"Value"`
		}
		if err := l.db.Select(&counters, "SHOW SESSION STATUS LIKE 'Handler_read%'"); err != nil {
			t.Fatal(err)
		}
		for _, c := range counters {
			n += c.Value
		}
		return n
	}
	for _, test := range []struct {
		what string
		most int64 // reads per order
	}{
		{"new orders", 10},
		{"the same again, whose rows are looked for", 20},
	} {
		before := reads()
		mustDecide(t, l, product.ID, orders...)
		if n := reads() - before; n > test.most*batch {
			t.Errorf("%s: deciding %d orders took %d reads", test.what, batch, n)
		}
	}
	for i := range orders {
		orders[i] = newOrder(old.ID, order.UserID(i+2), 1, "")
	}
	before := reads()
	mustDecide(t, l, old.ID, orders...)
	if n := reads() - before; n > batch/10 {
		t.Errorf("without a limit, deciding %d new orders took %d reads", batch, n)
	}
}
