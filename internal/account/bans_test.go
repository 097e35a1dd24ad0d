package account

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func activeBans(t testing.TB, a *Accounts, at time.Time) []Ban {
	t.Helper()
	bans, err := a.Bans(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range bans {
		if b.CreatedAt.IsZero() || b.CreatedAt.Location() != time.UTC {
			t.Errorf("%+v", b)
		}
		bans[i].CreatedAt = time.Time{}
	}
	return bans
}

func TestBan(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	end := time.Now().Add(time.Hour)
	stored := end.UTC().Truncate(time.Millisecond)
	given := []Ban{
		{UserID: 7, Reason: "resale"},
		{UserID: 8, Reason: strings.Repeat("é", MaxBanReasonChars), ExpiresAt: end},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Reason: "a bot", ExpiresAt: end},
		{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Reason: "a part of another is another"},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Reason: "one address"},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Reason: "IPv6"},
		{Prefix: netip.MustParsePrefix("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128"), Reason: "the longest text"},
		{Prefix: netip.MustParsePrefix("::ffff:198.51.100.0/120"), Reason: "mapped"},
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Reason: "the widest"},
		{Prefix: netip.MustParsePrefix("2001::/16"), Reason: "the widest"},
	}
	for _, b := range given {
		if err := a.Ban(ctx, b); err != nil {
			t.Fatalf("%+v: %v", b, err)
		}
	}
	want := slices.Clone(given)
	want[1].ExpiresAt, want[2].ExpiresAt = stored, stored
	want[7].Prefix = netip.MustParsePrefix("198.51.100.0/24")
	slices.Reverse(want)
	if got := activeBans(t, a, time.Now()); !slices.Equal(got, want) {
		t.Errorf("bans\n%+v, want\n%+v", got, want)
	}
	// At its end a ban is over.
	if got := activeBans(t, a, stored); len(got) != len(given)-2 {
		t.Errorf("%d bans at the end of two", len(got))
	}
	if got := activeBans(t, a, stored.Add(-time.Millisecond)); len(got) != len(given) {
		t.Errorf("%d bans just before the end of two", len(got))
	}

	// A later ban takes the place of an earlier one, and is the newest.
	for _, b := range []Ban{
		{UserID: 7, Reason: "until then", ExpiresAt: end},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Reason: "for good"},
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Reason: "no longer mapped"},
	} {
		if err := a.Ban(ctx, b); err != nil {
			t.Fatal(err)
		}
		if !b.ExpiresAt.IsZero() {
			b.ExpiresAt = stored
		}
		if got := activeBans(t, a, time.Now()); len(got) != len(given) || got[0].Reason != b.Reason ||
			got[0].Prefix != b.Prefix || got[0].ExpiresAt != b.ExpiresAt {
			t.Errorf("%+v: %d bans, the newest is %+v", b, len(got), got[0])
		}
	}

	for _, b := range []Ban{{UserID: 7}, {Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		{Prefix: netip.MustParsePrefix("::ffff:198.51.100.0/120")}} {
		for i, want := range []bool{true, false} {
			if lifted, err := a.Unban(ctx, b); err != nil || lifted != want {
				t.Errorf("unban %+v, call %d: %t, error %v", b, i, lifted, err)
			}
		}
	}
	if got := activeBans(t, a, time.Now()); len(got) != len(given)-3 {
		t.Errorf("%d bans are left: %+v", len(got), got)
	}
}

func TestBanRefuses(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	addr := netip.MustParsePrefix("192.0.2.0/24")
	for name, b := range map[string]Ban{
		"nobody":              {Reason: "x"},
		"both":                {UserID: 1, Prefix: addr, Reason: "x"},
		"negative user":       {UserID: -1, Reason: "x"},
		"bits beyond":         {Prefix: netip.MustParsePrefix("192.0.2.1/24"), Reason: "x"},
		"bits beyond in IPv6": {Prefix: netip.MustParsePrefix("2001:db8::1/64"), Reason: "x"},
		"all of IPv4":         {Prefix: netip.MustParsePrefix("0.0.0.0/0"), Reason: "x"},
		"all of IPv6":         {Prefix: netip.MustParsePrefix("::/0"), Reason: "x"},
		"wide":                {Prefix: netip.MustParsePrefix("10.0.0.0/7"), Reason: "x"},
		"wide in IPv6":        {Prefix: netip.MustParsePrefix("2000::/15"), Reason: "x"},
		"all of IPv4, mapped": {Prefix: netip.MustParsePrefix("::ffff:0.0.0.0/96"), Reason: "x"},
		"mapped and wider":    {Prefix: netip.MustParsePrefix("::ffff:0:0/95"), Reason: "x"},
		"wide and mapped":     {Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/103"), Reason: "x"},
		"invalid prefix":      {Prefix: netip.PrefixFrom(netip.MustParseAddr("192.0.2.0"), 33), Reason: "x"},
		"no reason":           {UserID: 1},
		"blank reason":        {UserID: 1, Reason: " \u3000"},
		"long reason":         {UserID: 1, Reason: strings.Repeat("x", MaxBanReasonChars+1)},
		"reason not UTF-8":    {UserID: 1, Reason: "\xff"},
		"control in reason":   {UserID: 1, Reason: "a\nb"},
		"over already":        {UserID: 1, Reason: "x", ExpiresAt: time.Now().Add(-time.Second)},
		"year 30000":          {UserID: 1, Reason: "x", ExpiresAt: time.Date(30_000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if err := a.Ban(t.Context(), b); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, b := range map[string]Ban{"nobody": {}, "both": {UserID: 1, Prefix: addr},
		"bits beyond": {Prefix: netip.MustParsePrefix("192.0.2.1/24")}} {
		if lifted, err := a.Unban(t.Context(), b); !errors.Is(err, mysql.ErrInvalid) || lifted {
			t.Errorf("unban %s: %t, error %v", name, lifted, err)
		}
	}
	if n := count(t, a, "bans"); n != 0 {
		t.Errorf("%d bans are stored", n)
	}
}

// TestBansAreBounded fills the table.
func TestBansAreBounded(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	fill := func(from, to int, expires string) {
		t.Helper()
		for ; from < to; from += 1_000 {
			var rows []string
			for user := from; user < min(from+1_000, to); user++ {
				rows = append(rows, fmt.Sprintf("('user', %d, 'x', '2026-01-01', %s)", user, expires))
			}
			exec(t, a, "INSERT INTO bans (kind, user_id, reason, created_at, expires_at) VALUES "+
				strings.Join(rows, ", "))
		}
	}
	fill(1, MaxBans, "NULL")
	fill(1_000_000, 1_000_000+maxBansSwept+1, "'2026-01-02'")
	if err := a.Ban(t.Context(), Ban{UserID: MaxBans, Reason: "the last"}); err != nil {
		t.Fatal(err)
	}
	// Each ban takes expired ones with it.
	if n := count(t, a, "bans WHERE expires_at IS NOT NULL"); n != 1 {
		t.Errorf("%d expired bans are left", n)
	}
	if err := a.Ban(t.Context(), Ban{UserID: MaxBans + 1, Reason: "one too many"}); !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("one too many: error %v", err)
	}
	if err := a.Ban(t.Context(), Ban{UserID: 1, Reason: "again"}); err != nil {
		t.Errorf("one that is there: error %v", err)
	}
	if got := activeBans(t, a, time.Now()); len(got) != MaxBans || got[0].Reason != "again" ||
		got[1].Reason != "the last" {
		t.Errorf("%d bans", len(got))
	}
}

func TestBanConcurrently(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	var functions []func() error
	for i := range 24 {
		b := Ban{UserID: order.UserID(int64(i%3) + 1), Reason: fmt.Sprint(i)}
		if i%2 == 1 {
			b = Ban{Prefix: netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", i%3)), Reason: fmt.Sprint(i)}
		}
		functions = append(functions, func() error { return a.Ban(t.Context(), b) })
	}
	stacktest.Together(t, functions...)
	if got := activeBans(t, a, time.Now()); len(got) != 6 {
		t.Errorf("%d bans of six subjects: %+v", len(got), got)
	}
}

// TestBansRefusesOddRows has rows that somebody wrote by hand.
func TestBansRefusesOddRows(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	for _, row := range []string{
		"('address', NULL, '192.0.2.300/24')", "('address', NULL, '192.0.2.1/24')", "('address', NULL, '0.0.0.0/0')",
		"('address', 7, NULL)", "('user', NULL, '192.0.2.0/24')", "('user', NULL, NULL)", "('user', 7, '192.0.2.0/24')",
	} {
		exec(t, a, "INSERT INTO bans (kind, user_id, cidr, reason, created_at) VALUES "+strings.TrimSuffix(row, ")")+
			", 'x', '2026-01-01')")
		if bans, err := a.Bans(t.Context(), time.Now()); err == nil {
			t.Errorf("%s: %+v", row, bans)
		}
		exec(t, a, "DELETE FROM bans")
	}
}
