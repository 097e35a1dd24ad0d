package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

// addSplit adds a product that is split.
func addSplit(t testing.TB, l *Ledger, stock, buckets, limit int64) order.Product {
	t.Helper()
	p, err := l.AddProduct(t.Context(), order.Product{
		Name: "thing", Price: 1999, Currency: "EUR", Stock: stock, LimitPerUser: limit, Buckets: buckets,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stocks are the units of a product and of its first n buckets.
func stocks(t testing.TB, l *Ledger, id order.StockID, n int64) []int64 {
	t.Helper()
	ids := append([]order.StockID{id}, id.Product().Buckets(n)...)
	byID, err := l.Stocks(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	units := make([]int64, len(ids))
	for i, id := range ids {
		units[i] = byID[id]
	}
	return units
}

func wantStocks(t testing.TB, l *Ledger, id order.StockID, want ...int64) {
	t.Helper()
	if got := stocks(t, l, id, int64(len(want)-1)); !slices.Equal(got, want) {
		t.Errorf("the units of product %d and its buckets are %v, want %v", id, got, want)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p, err := l.AddProduct(t.Context(), order.Product{Name: "thing", Price: 7, Currency: "EUR", Stock: 10,
		State: order.OffSale, LimitPerUser: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		buckets int64
		want    []int64
	}{
		{4, []int64{0, 3, 3, 2, 2}}, {4, []int64{0, 3, 3, 2, 2}}, {3, []int64{0, 4, 3, 3, 0}},
		{0, []int64{10, 0, 0, 0, 0}},
		{2, []int64{0, 5, 5, 0, 0}}, {0, []int64{10, 0, 0, 0, 0}}, {4, []int64{0, 3, 3, 2, 2}},
	} {
		before := mustProduct(t, l, p.ID)
		after, err := l.Split(t.Context(), p.ID.Product(), step.buckets)
		if err != nil || after.Buckets != step.buckets {
			t.Fatalf("%d buckets: %+v, %v", step.buckets, after, err)
		}
		if changed := before.Buckets != step.buckets; (after.Revision == before.Revision+1) != changed {
			t.Errorf("%d buckets after %d: revision %d after %d", step.buckets, before.Buckets, after.Revision,
				before.Revision)
		}
		wantStocks(t, l, p.ID, step.want...)
		for _, id := range p.ID.Product().Buckets(4) {
			b, err := l.Product(t.Context(), id)
			if errors.Is(err, mysql.ErrNotFound) {
				t.Fatal(err)
			}
			want := after
			want.ID, want.Stock, want.Version, want.CreatedAt = b.ID, b.Stock, b.Version, b.CreatedAt
			if id.Bucket() > int(step.buckets) {
				want.Buckets = 0
			}
			if b.Buckets > 0 && b != want {
				t.Errorf("bucket %d is %+v, want %+v", id.Bucket(), b, want)
			}
			if b.Buckets != want.Buckets {
				t.Errorf("bucket %d has %d buckets of %d", id.Bucket(), b.Buckets, step.buckets)
			}
		}
	}
	mustBeSound(t, l)

	// Its settings are those of its buckets.
	changed, err := l.UpdateProduct(t.Context(), p.ID.Product(), func(p *order.Product) {
		p.Price, p.LimitPerUser, p.State = 9, 0, order.OnSale
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range p.ID.Product().Buckets(4) {
		if b := mustProduct(t, l, id); b.Price != 9 || b.LimitPerUser != 0 || b.State != order.OnSale ||
			b.Revision != changed.Revision {
			t.Errorf("bucket %d is %+v after a change of the product", id.Bucket(), b)
		}
	}

	// Products are listed without their buckets, and the next one has the next id.
	next := addProduct(t, l, 1, 0)
	all, err := l.Products(t.Context(), 0, 10)
	if err != nil || len(all) != 2 || all[1].ID != next.ID || next.ID != p.ID+1 {
		t.Errorf("%v, %v", all, err)
	}
	if all, err = l.ProductsOnSale(t.Context(), 0, 10); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestSplitRefuses(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	on := addProduct(t, l, 10, 0)
	soon, err := l.AddProduct(t.Context(), order.Product{Name: "soon", Currency: "EUR", Stock: 1,
		StartsAt: time.Now().Add(splitMargin / 2)})
	if err != nil {
		t.Fatal(err)
	}
	late, err := l.AddProduct(t.Context(), order.Product{Name: "late", Currency: "EUR", Stock: 1,
		StartsAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Split(t.Context(), late.ID.Product(), 2); err != nil {
		t.Errorf("a sale that starts in an hour: %v", err)
	}
	bought := addSplit(t, l, 10, 2, 0)
	mustDecide(t, l, bought.ID.Product().Bucket(2), newOrder(bought.ID.Product().Bucket(2), 7, 1, ""))
	if _, err := l.UpdateProduct(t.Context(), bought.ID.Product(), func(p *order.Product) {
		p.State = order.OffSale
	}); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		id      order.ProductID
		buckets int64
		want    error
	}{
		"on sale":                    {on.ID.Product(), 2, ErrOnSale},
		"starts soon":                {soon.ID.Product(), 2, ErrOnSale},
		"a bucket has orders":        {bought.ID.Product(), 0, ErrOnSale},
		"one bucket":                 {late.ID.Product(), 1, mysql.ErrInvalid},
		"too many":                   {late.ID.Product(), order.MaxBuckets + 1, mysql.ErrInvalid},
		"fewer than none":            {late.ID.Product(), -1, mysql.ErrInvalid},
		"no product":                 {404, 2, mysql.ErrNotFound},
		"a bucket":                   {order.ProductID(bought.ID.Product().Bucket(1)), 2, mysql.ErrNotFound},
		"a bucket of an unsplit one": {order.ProductID(on.ID.Product().Bucket(1)), 2, mysql.ErrNotFound},
	} {
		if _, err := l.Split(t.Context(), test.id, test.buckets); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
	bucket := order.ProductID(bought.ID.Product().Bucket(1))
	_, err = l.UpdateProduct(t.Context(), bucket, func(*order.Product) {})
	if !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("the settings of a bucket: %v", err)
	}
	if _, err := l.Restock(t.Context(), bucket, 1, "x"); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a restock of a bucket: %v", err)
	}
	_, err = l.AddProduct(t.Context(), order.Product{ID: bucket.Stock(), Name: "x", Currency: "EUR"})
	if !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("a product with the id of a bucket: %v", err)
	}
	wantStocks(t, l, bought.ID, 0, 5, 4)
	mustBeSound(t, l)
}

// Products that somebody has put there without this package are in nobody's way.
func TestIDsTakenByHand(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	first := addProduct(t, l, 1, 0)
	exec(t, l,
		`INSERT INTO products (name, description, price, currency, stock, limit_per_user, limit_ceiling, state, revision, version, created_at)
		VALUES ('by hand', '', 1, 'EUR', 0, 0, 0, 'on_sale', 1, 1, '2026-01-01')`)
	exec(t, l, `INSERT INTO stock_ledger VALUES (?, 1, 0, 0, 'initial', 'initial', '2026-01-01')`, first.ID+1)
	if p := addProduct(t, l, 1, 0); p.ID != first.ID+2 {
		t.Errorf("the next product has id %d", p.ID)
	}
	if _, err := l.AddProduct(t.Context(), order.Product{ID: 70, Name: "chosen", Currency: "EUR"}); err != nil {
		t.Fatal(err)
	}
	if p := addSplit(t, l, 1, 2, 0); p.ID != 71 {
		t.Errorf("after product 70 comes %d", p.ID)
	}
	if p := addProduct(t, l, 1, 0); p.ID != 72 {
		t.Errorf("after a split product comes %d", p.ID)
	}
	mustBeSound(t, l)
}

func TestRestockOfBuckets(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addSplit(t, l, 10, 4, 0)
	first, err := l.Restock(t.Context(), p.ID.Product(), 5, "monday")
	if err != nil || !first.Applied || first.Units != 5 || first.Balance != 15 || len(first.Parts) != 4 {
		t.Fatalf("%+v, %v", first, err)
	}
	wantStocks(t, l, p.ID, 0, 5, 4, 3, 3)
	one, err := l.Restock(t.Context(), p.ID.Product(), 1, "tuesday")
	if err != nil || one.Balance != 16 || len(one.Parts) != 1 {
		t.Fatalf("%+v, %v", one, err)
	}
	again, err := l.Restock(t.Context(), p.ID.Product(), 5, "monday")
	first.Applied = false
	if err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("again: %+v, %v, want %+v", again, err, first)
	}
	if _, err := l.Restock(t.Context(), p.ID.Product(), 6, "monday"); !errors.Is(err, ErrMismatch) {
		t.Errorf("with other units: %v", err)
	}
	if _, err := l.Restock(t.Context(), p.ID.Product(), MaxStock-15, "too much"); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("over the bound: %v", err)
	}
	// A restock is known by its id also when the product has been split since, or put together.
	takeOff := func(p *order.Product) { p.State = order.OffSale }
	if _, err := l.UpdateProduct(t.Context(), p.ID.Product(), takeOff); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Split(t.Context(), p.ID.Product(), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Restock(t.Context(), p.ID.Product(), 5, "monday"); err != nil || r.Applied {
		t.Errorf("after the buckets are gone: %+v, %v", r, err)
	}
	wantStocks(t, l, p.ID, 16, 0, 0, 0, 0)
	missed, err := l.Restocks(t.Context(), p.ID.Product().Bucket(1), 2)
	if err != nil || len(missed) != 2 || missed[0].ID != "monday" || missed[1].Units != 1 {
		t.Errorf("Redis may have missed %+v, %v", missed, err)
	}
	mustBeSound(t, l)
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p, other := addSplit(t, l, 10, 2, 0), addSplit(t, l, 10, 2, 0)
	from, to := p.ID.Product().Bucket(2), p.ID.Product().Bucket(1)
	m := Transfer{ID: uuid.Must(uuid.NewV7()), Donor: from, Receiver: to, Units: 3}
	moved, err := l.Transfer(t.Context(), m)
	if err != nil || !moved.Made() || !moved.Fresh || moved.DonorVersion != 3 || moved.ReceiverVersion != 3 {
		t.Fatalf("%+v, %v", moved, err)
	}
	wantStocks(t, l, p.ID, 0, 8, 2)
	for _, again := range []func() (Transfer, error){
		func() (Transfer, error) { return l.Transfer(t.Context(), m) },
		func() (Transfer, error) { return l.CancelTransfer(t.Context(), m) },
	} {
		moved.Fresh = false
		if got, err := again(); err != nil || got != moved {
			t.Errorf("again: %+v, %v, want %+v", got, err, moved)
		}
	}
	// The receiver's part is what a restock would be to it, should Redis miss it.
	missed, err := l.Restocks(t.Context(), to, moved.ReceiverVersion-1)
	if err != nil || len(missed) != 1 || missed[0].ID != m.ID.String() || missed[0].Units != 3 ||
		missed[0].Version != moved.ReceiverVersion {
		t.Errorf("the receiver's part is %+v, %v", missed, err)
	}
	if missed, err := l.Restocks(t.Context(), from, 0); err != nil || len(missed) != 0 {
		t.Errorf("the donor's part is a restock: %+v, %v", missed, err)
	}
	for what, m := range map[string]Transfer{
		"more than there is":  {Donor: from, Receiver: to, Units: 3},
		"nothing":             {Donor: from, Receiver: to},
		"fewer than none":     {Donor: from, Receiver: to, Units: -1},
		"to itself":           {Donor: from, Receiver: from, Units: 1},
		"to another product":  {Donor: from, Receiver: other.ID.Product().Bucket(1), Units: 1},
		"to no bucket":        {Donor: from, Receiver: p.ID, Units: 1},
		"from no bucket":      {Donor: p.ID, Receiver: to, Units: 1},
		"to one that is none": {Donor: from, Receiver: p.ID.Product().Bucket(3), Units: 1},
	} {
		m.ID = uuid.Must(uuid.NewV7())
		if got, err := l.Transfer(t.Context(), m); err != nil || got.Made() || !got.Fresh {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	// Who comes late finds that it was cancelled.
	late := Transfer{ID: uuid.Must(uuid.NewV7()), Donor: from, Receiver: to, Units: 1}
	if got, err := l.CancelTransfer(t.Context(), late); err != nil || got.Made() {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := l.Transfer(t.Context(), late); err != nil || got.Made() || got.Fresh {
		t.Errorf("late: %+v, %v", got, err)
	}
	wantStocks(t, l, p.ID, 0, 8, 2)
	mustBeSound(t, l)
}

// TestTransferConcurrently has several move, and cancel, the same moves in both directions while orders are decided.
// Each move is made once or not at all.
func TestTransferConcurrently(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addSplit(t, l, 400, 2, 0)
	one, two := p.ID.Product().Bucket(1), p.ID.Product().Bucket(2)
	moves := make([]Transfer, 20)
	for i := range moves {
		moves[i] = Transfer{ID: uuid.Must(uuid.NewV7()), Donor: one, Receiver: two, Units: 3}
		if i%2 == 1 {
			moves[i].Donor, moves[i].Receiver = two, one
		}
	}
	decided := make([]atomic.Pointer[Transfer], len(moves))
	var functions []func() error
	for n := range 4 {
		functions = append(functions, func() error {
			for i, m := range moves {
				decide := l.Transfer
				if n == 3 && i%3 == 0 {
					decide = l.CancelTransfer
				}
				got, err := decide(t.Context(), m)
				if err != nil {
					return err
				}
				got.Fresh = false
				if !decided[i].CompareAndSwap(nil, &got) && *decided[i].Load() != got {
					return fmt.Errorf("move %d is %+v, and %+v", i, got, *decided[i].Load())
				}
			}
			return nil
		}, func() error {
			for i := range 10 {
				id := []order.StockID{one, two}[i%2]
				if _, err := l.Decide(t.Context(), id, []order.Order{newOrder(id, order.UserID(100*n+i+1), 1,
					"")}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stacktest.Together(t, functions...)
	want := []int64{0, 180, 180}
	for i := range decided {
		if m := decided[i].Load(); m.Made() {
			want[m.Donor.Bucket()] -= 3
			want[m.Receiver.Bucket()] += 3
		}
	}
	wantStocks(t, l, p.ID, want...)
	mustBeSound(t, l)
}

// The audit sees what is wrong with a product as a whole, though each of its buckets is sound.
func TestAuditOfBuckets(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := addSplit(t, l, 10, 2, 2)
	one, two := p.ID.Product().Bucket(1), p.ID.Product().Bucket(2)
	mustDecide(t, l, one, newOrder(one, 7, 2, ""))
	moved := Transfer{ID: uuid.Must(uuid.NewV7()), Donor: two, Receiver: one, Units: 1}
	if _, err := l.Transfer(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	if a := mustBeSound(t, l)[one]; a.Moved != 6 || a.Stock != 4 {
		t.Errorf("bucket 1: %+v", a)
	}
	mustDecide(t, l, two, newOrder(two, 7, 1, "")) // of the same buyer, as only a fault could do
	exec(t, l, `UPDATE stock_ledger SET delta = 2, balance = balance + 1 WHERE product_id = ? AND reason = 'move'`, one)
	exec(t, l, `UPDATE products SET stock = stock + 1 WHERE id = ?`, one)
	audits, err := l.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, a := range audits {
		if a.ID == p.ID {
			found = append(found, a.Problems...)
		}
	}
	text := strings.Join(found, "; ")
	if !strings.Contains(text, "have made 1 units") || !strings.Contains(text,
		"users over the limit of 2 by all buckets together: 1") {
		t.Errorf("the audit found %q", text)
	}
}
