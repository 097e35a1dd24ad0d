package access

import (
	"net/netip"
	"testing"
	"time"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/token"
)

// TestBansAreRead: who is banned by account is kept out here, for as long as that says.
func TestBansAreRead(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	accounts, bans := account.New(db), newBans(db)
	soon := mysql.Now().Add(time.Hour)
	for _, ban := range []account.Ban{
		{UserID: 7, Reason: "bot"}, {UserID: 8, Reason: "bot", ExpiresAt: soon},
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Reason: "bots", ExpiresAt: soon},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Reason: "bots"},
		{Prefix: netip.MustParsePrefix("::ffff:192.0.2.0/120"), Reason: "bots"},
	} {
		if err := accounts.Ban(t.Context(), ban); err != nil {
			t.Fatal(err)
		}
	}
	if err := bans.poll(t.Context()); err != nil {
		t.Fatal(err)
	}

	for id, want := range map[order.UserID]bool{6: false, 7: true, 8: true} {
		if bans.User(id) != want {
			t.Errorf("user %d is kept out: %t", id, !want)
		}
	}
	for addr, want := range map[string]bool{
		"198.51.100.77": true, "198.51.101.1": false, "2001:db8:1::1": true, "2001:db9::1": false, "192.0.2.9": true,
	} {
		if bans.Address(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s is kept out: %t", addr, !want)
		}
	}

	// A ban ends by itself.
	list := *bans.current.Load()
	for prefix := range list.prefixes {
		list.prefixes[prefix] = time.Now().Add(-time.Second)
	}
	list.users[7] = time.Now().Add(-time.Second)
	if bans.User(7) || bans.Address(netip.MustParseAddr("198.51.100.77")) {
		t.Error("a ban holds after its end")
	}
}

// TestABanOfNobodyIsAnError: to pass over it would let somebody in. What was known before holds.
func TestABanOfNobodyIsAnError(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	bans := newBans(db)
	if err := account.New(db).Ban(t.Context(), account.Ban{UserID: 7, Reason: "bot"}); err != nil {
		t.Fatal(err)
	}
	if err := bans.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO bans (kind, user_id, cidr, reason, created_at)
		VALUES ('address', NULL, 'nonsense', 'x', NOW(3))`); err != nil {
		t.Fatal(err)
	}
	if err := bans.poll(t.Context()); err == nil || !bans.User(7) {
		t.Errorf("error %v, and user 7 is kept out: %t", err, bans.User(7))
	}
}

// TestWhatAccountSays: the constants of this package that repeat those of account are equal to them.
func TestWhatAccountSays(t *testing.T) {
	t.Parallel()
	if maxBans != 2*account.MaxBans {
		t.Errorf("%d bans are read, and there may be %d", maxBans, account.MaxBans)
	}
	for role, want := range map[string]account.Role{
		token.Buyer: account.Buyer, token.Merchant: account.Merchant, token.Admin: account.Admin,
	} {
		if role != string(want) {
			t.Errorf("the role %q is %q in a token", want, role)
		}
	}
}
