package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Calls with one key that meet add one product, and after its lifetime the key is free.
func TestAddProductOnce(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ctx := t.Context()
	p := order.Product{Name: "x", Currency: "EUR", Stock: 3}
	key := ProductKey{UserID: 7, Key: "k", BodyHash: sha256.Sum256([]byte("body"))}

	const callers = 8
	var added [callers]order.Product
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() {
			var err error
			if added[i], err = l.AddProductOnce(ctx, p, key); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, other := range added {
		if other.ID == 0 || other.ID != added[0].ID {
			t.Errorf("one call added product %d, another %d", added[0].ID, other.ID)
		}
	}
	if products, err := l.Products(ctx, 0, mysql.MaxPage); err != nil || len(products) != 1 {
		t.Errorf("there are %d products, error %v", len(products), err)
	}

	changed := key
	changed.BodyHash[0]++
	if _, err := l.AddProductOnce(ctx, p, changed); !errors.Is(err, ErrMismatch) || mysql.Classify(err) != mysql.Own {
		t.Errorf("with another body: error %v", err)
	}

	if _, err := l.db.ExecContext(ctx, `UPDATE product_keys SET created_at = ?`,
		mysql.Now().Add(-order.IdempotencyLifetime-1e9)); err != nil {
		t.Fatal(err)
	}
	next, err := l.AddProductOnce(ctx, p, changed)
	if err != nil || next.ID == added[0].ID {
		t.Errorf("after the key's lifetime: product %d, error %v", next.ID, err)
	}
}

// TestPurgeProductKeys: keys whose lifetime is over go, as many as are asked for, and no others.
func TestPurgeProductKeys(t *testing.T) {
	t.Parallel()
	s, ctx := newLedger(t), t.Context()
	for i := range 5 {
		key := ProductKey{UserID: 7, Key: fmt.Sprint(i)}
		if _, err := s.AddProductOnce(ctx, order.Product{Name: "p", Price: 1, Currency: "EUR", Stock: 1},
			key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.db.ExecContext(ctx, `UPDATE product_keys SET created_at = ? WHERE idempotency_key < '3'`,
		mysql.Now().Add(-order.IdempotencyLifetime-1e9)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1, 0} {
		if n, err := s.PurgeProductKeys(ctx, 2); n != want || err != nil {
			t.Errorf("%d keys went, want %d (%v)", n, want, err)
		}
	}
	var left int
	if err := s.db.GetContext(ctx, &left, `SELECT COUNT(*) FROM product_keys`); err != nil || left != 2 {
		t.Errorf("%d keys are left, want 2 (%v)", left, err)
	}
}
