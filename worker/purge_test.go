package main

import (
	"testing"
	"time"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/order"
)

func TestOldSessionsAreDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	w := r.worker()
	user, err := w.accounts.AddUser(t.Context(), account.User{Email: "ada@example.org", Name: "Ada",
		PasswordHash: "$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g", Role: account.Buyer})
	if err != nil {
		t.Fatal(err)
	}
	for i, age := range []time.Duration{0, purgeAge - time.Hour, purgeAge + time.Hour} {
		session, err := w.accounts.StartSession(t.Context(), user, [32]byte{byte(i)}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.mysql.ExecContext(t.Context(), "UPDATE sessions SET expires_at = ? WHERE id = ?",
			time.Now().UTC().Add(-age), session.ID[:]); err != nil {
			t.Fatal(err)
		}
	}
	key := ledger.ProductKey{UserID: user.ID, Key: "k"}
	if _, err := w.ledger.AddProductOnce(t.Context(), order.Product{Name: "p", Currency: "EUR"}, key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mysql.ExecContext(t.Context(), "UPDATE product_keys SET created_at = ?",
		time.Now().UTC().Add(-2*order.IdempotencyLifetime)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mysql.ExecContext(t.Context(), `INSERT INTO order_keys VALUES (1, 1, 'old', 'an order id 1234', ?),
		(1, 1, 'young', 'an order id 1234', ?)`, time.Now().UTC().AddDate(0, 0, -16),
		time.Now().UTC().AddDate(0, 0, -14)); err != nil {
		t.Fatal(err)
	}

	w.purge(t.Context())
	var left int
	if err := r.mysql.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sessions").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 2 {
		t.Errorf("%d sessions are left, want the live one and the one that ended lately", left)
	}
	if err := r.mysql.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM product_keys").Scan(&left); err != nil ||
		left != 0 {
		t.Errorf("%d old keys are left (%v)", left, err)
	}
	var keys string
	if err := r.mysql.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(idempotency_key) FROM order_keys").
		Scan(&keys); err != nil || keys != "young" {
		t.Errorf("the keys of orders that are left are %q (%v)", keys, err)
	}
}
