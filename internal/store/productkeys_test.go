package store

import (
	"crypto/sha256"
	"errors"
	"sync"
	"testing"

	"stampede/internal/order"
)

// Calls with one key that meet add one product, and after its lifetime the key is free.
func TestAddProductOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	p := order.Product{Name: "x", Currency: "EUR", Stock: 3}
	key := ProductKey{UserID: 7, Key: "k", BodyHash: sha256.Sum256([]byte("body"))}

	const callers = 8
	var added [callers]order.Product
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() {
			var err error
			if added[i], err = s.AddProductOnce(ctx, p, key); err != nil {
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
	if products, err := s.Products(ctx, 0, MaxPage); err != nil || len(products) != 1 {
		t.Errorf("there are %d products, error %v", len(products), err)
	}

	changed := key
	changed.BodyHash[0]++
	if _, err := s.AddProductOnce(ctx, p, changed); !errors.Is(err, ErrMismatch) || Classify(err) != Own {
		t.Errorf("with another body: error %v", err)
	}

	if _, err := s.db.ExecContext(ctx, `UPDATE product_keys SET created_at = ?`,
		now().Add(-order.IdempotencyLifetime-1e9)); err != nil {
		t.Fatal(err)
	}
	next, err := s.AddProductOnce(ctx, p, changed)
	if err != nil || next.ID == added[0].ID {
		t.Errorf("after the key's lifetime: product %d, error %v", next.ID, err)
	}
}
