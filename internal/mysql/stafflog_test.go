package mysql_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// logOf is the staff log, a line for each row.
func logOf(t *testing.T, db *mysql.DB) (lines []string) {
	t.Helper()
	entries, err := db.StaffLog(t.Context(), "", time.Time{}, mysql.MaxPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(entries) {
		lines = append(lines, fmt.Sprintf("%s %s %s %s -> %s", e.Actor, e.Action, e.Subject, e.Before, e.After))
	}
	return lines
}

// TestStaffLog: each change by staff leaves its row, one that changes nothing or fails leaves none, and no row is ever
// changed.
func TestStaffLog(t *testing.T) {
	t.Parallel()
	db := mysql.NewForTest(t)
	books, accounts := ledger.New(db), account.New(db)
	ctx := mysql.WithActor(t.Context(), "user:7")
	product := order.Product{Name: "ticket", Price: 1999, Currency: "EUR", Stock: 10}
	p, err := books.AddProduct(ctx, product)
	if err != nil {
		t.Fatal(err)
	}
	user, err := accounts.AddUser(t.Context(), account.User{
		Email: "ada@example.org", Name: "Ada", PasswordHash: "$x", Role: account.Buyer,
	})
	must(t, err)
	ada := user.ID
	bad := order.Product{Name: "", Price: 1, Currency: "EUR"}
	ban := account.Ban{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Reason: "bots"}
	for i := range 2 { // the second time nothing changes
		_, err := books.UpdateProduct(ctx, p.ID.Product(), func(p *order.Product) { p.Price = 5 })
		must(t, err)
		_, err = books.Restock(ctx, p.ID.Product(), 3, "r")
		must(t, err)
		if _, err := books.AddProduct(ctx, bad); err == nil {
			t.Error("a product without a name was added")
		}
		must(t, accounts.SetRole(ctx, ada, account.Merchant))
		_, err = accounts.Disable(ctx, ada)
		must(t, err)
		if i == 1 {
			must(t, accounts.Enable(ctx, ada))
			must(t, accounts.Enable(ctx, ada))
		}
	}
	must(t, accounts.Ban(ctx, ban))
	for range 2 {
		_, err := accounts.Unban(ctx, ban)
		must(t, err)
	}
	must(t, db.LogAction(t.Context(), mysql.ActDiscard, "message m", map[string]any{"orders": 1}))

	want := []string{
		`user:7 product.add product 1  -> {"currency":"EUR","description":"","ends_at":null,"limit_per_user":0,"name":"ticket","pay_within_s":900,"payment":"none","points_price":0,"price":1999,"starts_at":null,"state":"on_sale","stock":10}`,
		`user:7 product.change product 1 {"price":1999} -> {"price":5}`,
		`user:7 product.restock product 1 {"stock":10} -> {"restock_id":"r","stock":13}`,
		`user:7 user.role user 1 {"role":"buyer"} -> {"role":"merchant"}`,
		`user:7 user.disable user 1 {"disabled":false} -> {"disabled":true,"sessions_ended":0}`,
		`user:7 user.enable user 1 {"disabled":true} -> {"disabled":false}`,
		`user:7 ban.add address 203.0.113.0/24  -> {"expires_at":null,"reason":"bots"}`,
		`user:7 ban.lift address 203.0.113.0/24  -> `,
		`unknown dlq.discard message m {"orders":1} -> `,
	}
	got := logOf(t, db)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("row %d:\ngot  %q\nwant %q", i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}

	of, err := db.StaffLog(t.Context(), "user 1", time.Now().Add(-time.Hour), 2)
	if err != nil || len(of) != 2 || of[0].Action != "user.enable" {
		t.Errorf("the latest of user 1: %+v, %v", of, err)
	}
	if of, err := db.StaffLog(t.Context(), "", time.Now().Add(time.Hour), 2); err != nil || len(of) != 0 {
		t.Errorf("of the future: %+v, %v", of, err)
	}
	for _, change := range []string{"UPDATE staff_log SET actor = 'user:8'", "DELETE FROM staff_log"} {
		if _, err := db.ExecContext(t.Context(), change); err == nil {
			t.Errorf("%s: it was done", change)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
