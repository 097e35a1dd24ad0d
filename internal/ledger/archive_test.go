package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// oldOrder is an order whose id was made some time ago.
func oldOrder(age time.Duration, stockID order.StockID, userID order.UserID, quantity int64) order.Order {
	o := newOrder(stockID, userID, quantity, "")
	at := order.FirstID(time.Now().Add(-age))
	copy(o.ID[:6], at[:6])
	return o
}

// soldForMonths is a ledger with orders of several months, of which some were decided after those of later months.
func soldForMonths(t *testing.T) (l *Ledger, products []order.Product, old, young []order.Order) {
	l = newLedger(t)
	// Partitions as if it were as old as its orders.
	this, months := mysql.Month(time.Now()), ""
	for month := this.AddDate(0, -16, 0); month.Before(this); month = month.AddDate(0, 1, 0) {
		end := order.FirstID(month.AddDate(0, 1, 0))
		months += fmt.Sprintf("PARTITION p%s VALUES LESS THAN (x'%x'), ", month.Format("200601"), end[:])
	}
	end := order.FirstID(this.AddDate(0, 1, 0))
	exec(t, l, fmt.Sprintf(`ALTER TABLE orders REORGANIZE PARTITION p%[1]s
		INTO (%[2]s PARTITION p%[1]s VALUES LESS THAN (x'%[3]x'))`, this.Format("200601"), months, end[:]))
	products = []order.Product{addProduct(t, l, 1000, 0), addProduct(t, l, 1000, 9)}
	for _, p := range products {
		for i, months := range []int{14, 12, 6, 12, 0, 5, 0} {
			// In the middle of a month, so that none is near its bounds.
			age := time.Since(mysql.Month(time.Now()).AddDate(0, -months, 14))
			if months == 0 {
				age = 0
			}
			orders := []order.Order{oldOrder(age, p.ID, 1, 1), oldOrder(age, p.ID, 2, 1), oldOrder(age, p.ID, 3, 1)}
			mustDecide(t, l, p.ID, orders[:2]...)
			if _, err := l.Fail(t.Context(), orders[2], order.DeadLetter); err != nil {
				t.Fatal(err)
			}
			if months > 5 {
				old = append(old, orders...)
			} else {
				young = append(young, orders...)
			}
			if _, err := l.Restock(t.Context(), p.ID.Product(), 3, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustDecide(t, l, 404, oldOrder(400*24*time.Hour, 404, 1, 1))
	return l, products, old, young
}

func TestArchive(t *testing.T) {
	t.Parallel()
	l, products, old, young := soldForMonths(t)
	before := mysql.Month(time.Now()).AddDate(0, -5, 0)
	want := mustBeSound(t, l)

	// As if it were interrupted after the opening balances: what is not deleted yet does not count twice.
	done := Archived{Before: before}
	if err := l.openBooks(t.Context(), AuditOptions{}, &done); err != nil {
		t.Fatal(err)
	}
	if done.Orders != int64(len(old))+1 || done.Units != 16 || done.LedgerRows == 0 {
		t.Errorf("archived %+v", done)
	}
	sameBooks(t, l, want)

	deleted := int64(0)
	for i := range 2 {
		done, err := l.Archive(t.Context(), before.AddDate(0, 0, 9), AuditOptions{})
		if err != nil || done.Orders != 0 || !done.Before.Equal(before) || (len(done.Partitions) > 0) != (i == 0) {
			t.Errorf("again: %+v, error %v", done, err)
		}
		deleted += done.Deleted
	}
	sameBooks(t, l, want)
	if deleted == 0 {
		t.Error("no row of the ledger was deleted")
	}

	t.Run("what is gone", func(t *testing.T) { goneAndKept(t, l, products[0], old, young) })
	t.Run("limits", func(t *testing.T) { limitsOfArchived(t, l, products) })
	archiveAgain(t, l, products[1], before.AddDate(0, 1, 0))
}

// goneAndKept wants the archived orders to be gone, and nothing else.
func goneAndKept(t *testing.T, l *Ledger, product order.Product, old, young []order.Order) {
	for _, o := range old {
		if _, err := l.Order(t.Context(), o.ID); !errors.Is(err, mysql.ErrNotFound) {
			t.Errorf("an archived order: error %v", err)
		}
	}
	if left, err := l.Undecided(t.Context(), idsOf(young)); err != nil || len(left) > 0 {
		t.Errorf("young orders are gone: %v, error %v", left, err)
	}
	if r, err := l.Restock(t.Context(), product.ID.Product(), 3, "0"); err != nil || r.Applied {
		t.Errorf("a restock of before is repeated as %+v, error %v", r, err)
	}
	sales, err := l.Sales(t.Context(), []order.ProductID{product.ID.Product()})
	if err != nil || sales[0].Sold != 14 {
		t.Errorf("sold %+v, error %v", sales, err)
	}
}

// limitsOfArchived wants limits to count what was archived, also one that is set afterwards.
func limitsOfArchived(t *testing.T, l *Ledger, products []order.Product) {
	if _, err := l.UpdateProduct(t.Context(), products[0].ID.Product(), func(p *order.Product) {
		p.LimitPerUser = 8
	}); err != nil {
		t.Fatal(err)
	}
	for i, p := range products {
		decided := mustDecide(t, l, p.ID, newOrder(p.ID, 1, int64(2+i), ""), newOrder(p.ID, 1, 1, ""))
		if got := []string{short(decided[0]), short(decided[1])}; !slices.Equal(got,
			[]string{"limit_exceeded", "completed"}) {
			t.Errorf("product %d: %q", p.ID, got)
		}
	}
	mustBeSound(t, l)
}

// archiveAgain wants the books to go on, and corruption of what is left to be found.
func archiveAgain(t *testing.T, l *Ledger, product order.Product, before time.Time) {
	if done, err := l.Archive(t.Context(), before, AuditOptions{}); err != nil || done.Orders != 6 {
		t.Errorf("the next month: %+v, error %v", done, err)
	}
	mustBeSound(t, l)
	exec(t, l, "UPDATE orders SET quantity = 2 WHERE product_id = ? AND status = 'completed' LIMIT 1", product.ID)
	audits, err := l.Audit(t.Context())
	if err != nil || !slices.ContainsFunc(audits, func(a ProductAudit) bool {
		return a.ID == product.ID && slices.ContainsFunc(a.Problems, func(p string) bool {
			return p == "completed orders whose ledger row has other units: 1"
		})
	}) {
		t.Errorf("corruption after the archive: %+v, error %v", audits, err)
	}
	var logged int
	err = l.db.Get(&logged, "SELECT COUNT(*) FROM staff_log WHERE action = 'orders.archive'")
	if err != nil || logged != 2 {
		t.Errorf("%d rows in the staff log, error %v", logged, err)
	}
}

// sameBooks wants the audits of everything, and of what is new, to say what was said before.
func sameBooks(t *testing.T, l *Ledger, want map[order.StockID]ProductAudit) {
	t.Helper()
	if got := mustBeSound(t, l); !reflect.DeepEqual(got, want) {
		t.Errorf("the books are\n%+v, and were\n%+v", got, want)
	}
	audits, err := l.AuditBooks(t.Context(), AuditOptions{})
	for _, a := range audits {
		if !reflect.DeepEqual(a, want[a.ID]) {
			t.Errorf("from the checkpoint:\n%+v, want\n%+v", a, want[a.ID])
		}
	}
	if err != nil || len(audits) != len(want) {
		t.Errorf("%d products, error %v", len(audits), err)
	}
}

func TestArchiveRefuses(t *testing.T) {
	t.Parallel()
	l, _, old, _ := soldForMonths(t)
	if _, err := l.Archive(t.Context(), time.Now(), AuditOptions{}); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("of this month: error %v", err)
	}
	exec(t, l, "UPDATE products SET stock = stock + 1 WHERE id = 1")
	_, err := l.Archive(t.Context(), time.Now().AddDate(0, -5, 0), AuditOptions{})
	if !errors.Is(err, ErrUnsound) {
		t.Errorf("of books that do not add up: error %v", err)
	}
	if left, err := l.Undecided(t.Context(), idsOf(old)); err != nil || len(left) > 0 {
		t.Errorf("orders are gone: %v, error %v", left, err)
	}
}

// TestArchiveOfHeld: an order of which it is open whether it is paid is not archived, whatever its time to pay; one
// that is over is, and its units may come back afterwards.
func TestArchiveOfHeld(t *testing.T) {
	t.Parallel()
	l, _, _, _ := soldForMonths(t)
	product := addHeldProduct(t, l, 10, 0)
	age := time.Since(mysql.Month(time.Now()).AddDate(0, -12, 14))
	waits, paid := oldOrder(age, product.ID, 1, 1), oldOrder(age, product.ID, 2, 3)
	mustDecide(t, l, product.ID, waits, paid)
	if err := attempt(t, l, paid.ID); err != nil {
		t.Fatal(err)
	}
	endAttempt(t, l, paid.ID, true)
	before := time.Now().AddDate(0, -5, 0)
	refused := func(step string) {
		t.Helper()
		if _, err := l.Archive(t.Context(), before, AuditOptions{}); !errors.Is(err, ErrHeld) {
			t.Errorf("%s: error %v", step, err)
		}
		if left, err := l.Undecided(t.Context(), idsOf([]order.Order{waits, paid})); err != nil || len(left) > 0 {
			t.Errorf("%s: orders are gone: %v, error %v", step, left, err)
		}
	}
	refused("in time")
	if err := attempt(t, l, waits.ID); err != nil {
		t.Fatal(err)
	}
	overdue(t, l, waits.ID)
	expireAll(t, l)
	refused("closing")

	endAttempt(t, l, waits.ID, false)
	expireAll(t, l)
	done, err := l.Archive(t.Context(), before, AuditOptions{})
	if err != nil || done.Orders == 0 {
		t.Fatalf("when all are over: %+v, error %v", done, err)
	}
	if _, err := l.Order(t.Context(), paid.ID); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("an archived order: error %v", err)
	}
	mustBeSound(t, l)

	// A refund of an archived order.
	err = l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		locked, err := LockToRefund(t.Context(), tx, product.ID, paid.ID, true)
		if err != nil {
			return err
		}
		returned, err := locked.TakeBack(t.Context(), tx)
		if len(returned) != 1 || returned[0].Quantity != 3 {
			t.Errorf("returned %+v", returned)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mustBeSound(t, l)
	if got, err := l.Product(t.Context(), product.ID); err != nil || got.Stock != 10 {
		t.Errorf("the product has %d units, error %v", got.Stock, err)
	}
}
