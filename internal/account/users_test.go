package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

const testHash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObGRdescudvJCs"

// addUser adds a buyer whose address holds the name.
func addUser(t testing.TB, a *Accounts, name string) User {
	t.Helper()
	u, err := a.AddUser(t.Context(), User{Email: name + "@example.com", Name: name, PasswordHash: testHash,
		Role: Buyer})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	longest := strings.Repeat("l", 64) + "@" + label63 + "." + label63 + "." + strings.Repeat("b", 61)
	for email, want := range map[string]string{
		"ann@example.com":           "ann@example.com",
		"Ann.O'Hara@Example.COM":    "ann.o'hara@example.com",
		"a.n.n+tag@gmail.com":       "a.n.n+tag@gmail.com", // neither dots nor tags are dropped
		"!#$%&'*+-/=?^_`{|}~@a.b":   "!#$%&'*+-/=?^_`{|}~@a.b",
		"1@1.1a":                    "1@1.1a",
		"a@xn--bcher-kva.example":   "a@xn--bcher-kva.example",
		"a@b-c.d--e.museum":         "a@b-c.d--e.museum",
		longest:                     longest,
		strings.ToUpper(longest):    longest,
		"a@" + label63 + ".example": "a@" + label63 + ".example",
	} {
		if got, err := NormalizeEmail(email); err != nil || got != want {
			t.Errorf("%q: %q, error %v", email, got, err)
		}
	}
	for _, email := range []string{
		"", "@", "ann", "ann@", "@example.com", "ann@example", "ann@@example.com", "ann@ex@mple.com", "a@b@c.d",
		" ann@example.com", "ann@example.com ", "ann@example.com\n", "ann @example.com", "ann@ example.com",
		"ann@exam ple.com", "\tann@example.com",
		"Ann <ann@example.com>", "<ann@example.com>", "ann@example.com (Ann)", "(c)ann@example.com",
		"ann@example.com,bob@example.com",
		`"ann"@example.com`, `"a b"@example.com`, `a\@b@example.com`, "mailto:ann@example.com",
		".ann@example.com", "ann.@example.com", "a..b@example.com",
		"ann@.example.com", "ann@example.com.", "ann@example..com", "ann@-example.com", "ann@example-.com",
		"ann@exa_mple.com",
		"ann@[192.0.2.1]", "ann@[IPv6:2001:db8::1]", "ann@192.0.2.1", "ann@example.123",
		"änn@example.com", "ann@exämple.com", "аnn@example.com", "ann@example.com\x00", "ann\x00@example.com",
		"ann\r\nBcc: x@example.com", "\xff@example.com",
		// full-width stop and at, the Kelvin sign, whose lower case is k
		"ann@example。com", "ann＠example.com", "\u212a@example.com",
		strings.Repeat("l", 65) + "@example.com", "a@" + label63 + "a.example", longest + "b",
		strings.Repeat("a", 1<<20) + "@example.com",
	} {
		if key, err := NormalizeEmail(email); !errors.Is(err, mysql.ErrInvalid) || key != "" {
			t.Errorf("%.60q: %q, error %v", email, key, err)
		}
	}
}

// FuzzNormalizeEmail holds what is accepted against net/mail, which accepts more.
func FuzzNormalizeEmail(f *testing.F) {
	for _, seed := range []string{"Ann.O'Hara+x@Example.com", "a@b.c", `"a"@b.c`, "a@[1.2.3.4]", "@", "a@b..c",
		"ſ@k.com", "a@xn--.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, email string) {
		key, err := NormalizeEmail(email)
		if err != nil {
			if !errors.Is(err, mysql.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(email) > MaxEmailBytes || strings.ContainsFunc(email, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is accepted", email)
		}
		address, err := mail.ParseAddress(email)
		if err != nil || address.Address != email || address.Name != "" {
			t.Errorf("%q is accepted, but is %+v to net/mail, error %v", email, address, err)
		}
		for _, same := range []string{key, strings.ToUpper(email), strings.ToLower(email)} {
			if again, err := NormalizeEmail(same); again != key || err != nil {
				t.Errorf("%q has the key %q, but %q has %q, error %v", email, key, same, again, err)
			}
		}
	})
}

func TestNormalizeName(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("𝒜", MaxUserNameChars)
	for name, want := range map[string]string{
		"Ann": "Ann", "  Ann O'Hara\t\n": "Ann O'Hara", "山田　太郎": "山田　太郎", "Zoë": "Zoë", "x": "x", "🎟": "🎟",
		longest: longest, strings.Repeat(" ", 1000) + longest + "\u3000": longest, `<b>'";--`: `<b>'";--`,
	} {
		if got, err := NormalizeName(name); err != nil || got != want {
			t.Errorf("%q: %q, error %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", " ", "\u3000\u00a0\n", longest + "x", "a\x00b", "a\nb", "a\tb", "a\x7f", "\u202eevil", "a\u200bb",
		"\ufeffa", "a\xffb", "\xff", "\U000e0001",
		strings.Repeat("x", 1<<20),
	} {
		if got, err := NormalizeName(name); !errors.Is(err, mysql.ErrInvalid) || got != "" {
			t.Errorf("%.60q: %q, error %v", name, got, err)
		}
	}
}

func FuzzNormalizeName(f *testing.F) {
	for _, seed := range []string{"Ann", " Ann ", "\u202e", "\xff", "a\u3000b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := NormalizeName(name)
		if err != nil {
			if !errors.Is(err, mysql.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := NormalizeName(got)
		if got == "" || again != got || err != nil || !utf8.ValidString(got) ||
			strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q became %q and then %q, error %v", name, got, again, err)
		}
	})
}

func TestAddUser(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ctx := t.Context()
	given := User{ID: 99, Email: "Ann.O'Hara@Example.com", Name: " Ann 🎟 ", PasswordHash: testHash, Role: Merchant,
		CreatedAt: time.Unix(1, 0)}
	added, err := a.AddUser(ctx, given)
	if err != nil {
		t.Fatal(err)
	}
	want := given
	want.ID, want.Name, want.CreatedAt = added.ID, "Ann 🎟", added.CreatedAt
	if added != want || added.ID <= 0 || added.ID == 99 || time.Since(added.CreatedAt) > time.Minute {
		t.Errorf("added %+v", added)
	}
	if stored, err := a.User(ctx, added.ID); err != nil || stored != added {
		t.Errorf("stored %+v, error %v\n added %+v", stored, err, added)
	}
	for _, email := range []string{"Ann.O'Hara@Example.com", "ann.o'hara@example.com", "ANN.O'HARA@EXAMPLE.COM"} {
		if stored, err := a.UserByEmail(ctx, email); err != nil || stored != added {
			t.Errorf("%s: %+v, error %v", email, stored, err)
		}
		taken := given
		taken.Email = email
		if _, err := a.AddUser(ctx, taken); !errors.Is(err, mysql.ErrExists) || mysql.Classify(err) != mysql.Own ||
			strings.Contains(strings.ToLower(err.Error()), "hara") {
			t.Errorf("%s again: error %v", email, err)
		}
	}
	for _, email := range []string{"nn.o'hara@example.com", "ann.o'hara+1@example.com", "ann.o'hara@example.com ", "",
		"%", "' OR 1=1 --"} {
		if _, err := a.UserByEmail(ctx, email); !errors.Is(err, mysql.ErrNotFound) {
			t.Errorf("%q: error %v", email, err)
		}
	}
	if _, err := a.User(ctx, added.ID+1000); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a user who is not there: error %v", err)
	}

	text, err := json.Marshal(added)
	if err != nil || strings.Contains(string(text), "argon2") {
		t.Errorf("as JSON: %s, error %v", text, err)
	}

	for name, spoil := range map[string]func(*User){
		"bad address":        func(u *User) { u.Email = "Bob <bob@example.com>" },
		"no name":            func(u *User) { u.Name = " " },
		"long name":          func(u *User) { u.Name = strings.Repeat("x", MaxUserNameChars+1) },
		"no role":            func(u *User) { u.Role = "" },
		"another role":       func(u *User) { u.Role = "Admin" },
		"no hash":            func(u *User) { u.PasswordHash = "" },
		"a password":         func(u *User) { u.PasswordHash = "correct horse" },
		"long hash":          func(u *User) { u.PasswordHash = "$" + strings.Repeat("x", maxPasswordHashBytes) },
		"hash is not ASCII":  func(u *User) { u.PasswordHash = "$argon2id$é" },
		"blank in the hash":  func(u *User) { u.PasswordHash = "$argon2id$ " },
		"long and bad hash":  func(u *User) { u.PasswordHash = strings.Repeat("\xff", 1000) },
		"everything at once": func(u *User) { *u = User{} },
	} {
		u := User{Email: "bob@example.com", Name: "Bob", PasswordHash: testHash, Role: Buyer}
		spoil(&u)
		if _, err := a.AddUser(ctx, u); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}

	// The longest of everything fits.
	label := strings.Repeat("a", 63)
	long := User{
		Email:        strings.Repeat("l", 64) + "@" + label + "." + label + "." + label[:61],
		Name:         strings.Repeat("𝒜", MaxUserNameChars),
		PasswordHash: "$" + strings.Repeat("x", maxPasswordHashBytes-1), Role: Merchant,
	}
	added, err = a.AddUser(ctx, long)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := a.User(ctx, added.ID); err != nil || stored != added || stored.Email != long.Email ||
		stored.Name != long.Name {
		t.Errorf("the longest: %+v, error %v", stored, err)
	}
}

func TestAddUserConcurrently(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	const addresses, callers = 5, 8
	users := make([]User, addresses*callers)
	errs := make([]error, len(users))
	var functions []func() error
	for i := range users {
		functions = append(functions, func() error {
			email := fmt.Sprintf("user%d@Example.com", i%addresses)
			if i >= len(users)/2 {
				email = strings.ToUpper(email)
			}
			users[i], errs[i] = a.AddUser(t.Context(), User{Email: email, Name: fmt.Sprint(i), PasswordHash: testHash,
				Role: Buyer})
			return nil
		})
	}
	stacktest.Together(t, functions...)
	winners := map[string]User{}
	for i, err := range errs {
		switch {
		case err == nil:
			key := strings.ToLower(users[i].Email)
			if other, taken := winners[key]; taken {
				t.Errorf("%s was added as %d and as %d", key, other.ID, users[i].ID)
			}
			winners[key] = users[i]
		case !errors.Is(err, mysql.ErrExists):
			t.Errorf("call %d: %v", i, err)
		}
	}
	if len(winners) != addresses {
		t.Errorf("%d addresses were added, want %d", len(winners), addresses)
	}
	for key, winner := range winners {
		if stored, err := a.UserByEmail(t.Context(), key); err != nil || stored != winner {
			t.Errorf("%s: stored %+v, error %v, returned %+v", key, stored, err, winner)
		}
	}
}

func TestSetRole(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann, bob := addUser(t, a, "ann"), addUser(t, a, "bob")
	for _, role := range []Role{Admin, Admin, Merchant, Buyer} {
		if err := a.SetRole(t.Context(), ann.ID, role); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		ann.Role = role
		if stored, err := a.User(t.Context(), ann.ID); err != nil || stored != ann {
			t.Errorf("%s: stored %+v, error %v", role, stored, err)
		}
	}
	if stored, err := a.User(t.Context(), bob.ID); err != nil || stored != bob {
		t.Errorf("another user: stored %+v, error %v", stored, err)
	}
	if err := a.SetRole(t.Context(), ann.ID+1000, Admin); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("a user who is not there: error %v", err)
	}
	for _, role := range []Role{"", "root", "ADMIN", "admin "} {
		if err := a.SetRole(t.Context(), ann.ID, role); !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%q: error %v", role, err)
		}
	}
}

func TestReplacePasswordHash(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	ann := addUser(t, a, "ann")
	const newer, newest = testHash + "AAAA", testHash + "BBBB"
	for _, step := range []struct {
		id        order.UserID
		old, hash string
		want      bool
		stored    string
	}{
		{ann.ID, testHash, newer, true, newer},
		{ann.ID, testHash, newest, false, newer}, // it was changed meanwhile
		{ann.ID + 1000, newer, newest, false, newer},
		{ann.ID, newer, newest, true, newest},
	} {
		replaced, err := a.ReplacePasswordHash(t.Context(), step.id, step.old, step.hash)
		if err != nil || replaced != step.want {
			t.Errorf("%+v: %t, error %v", step, replaced, err)
		}
		if stored, err := a.User(t.Context(), ann.ID); err != nil || stored.PasswordHash != step.stored {
			t.Errorf("%+v: stored %s, error %v", step, stored.PasswordHash, err)
		}
	}
	_, err := a.ReplacePasswordHash(t.Context(), ann.ID, newest, "a new password")
	if !errors.Is(err, mysql.ErrInvalid) {
		t.Errorf("a password in place of a hash: error %v", err)
	}
}
