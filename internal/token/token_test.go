package token

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"stampede/internal/order"
)

const secret = "0123456789abcdef0123456789abcdef"

func sign(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	raw, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	k := NewKeeper(secret)
	for _, userID := range []order.UserID{1, 7, math.MaxInt64} {
		raw, err := k.Sign(Claims{UserID: userID}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Verify([]byte(raw), time.Now()); err != nil || got.UserID != userID {
			t.Errorf("Verify = %v, %v, want %v", got, err, userID)
		}
		if len(raw) > 230 {
			t.Errorf("a token has %d bytes", len(raw))
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Now()
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	claims := func(change ...any) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "7", "iat": in(0), "exp": in(time.Minute)}
		for i := 0; i < len(change); i += 2 {
			if name := change[i].(string); change[i+1] == nil {
				delete(c, name)
			} else {
				c[name] = change[i+1]
			}
		}
		return c
	}
	hs256 := func(change ...any) string {
		return sign(t, jwt.SigningMethodHS256, []byte(secret), claims(change...))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	valid := hs256()
	parts := strings.Split(valid, ".")
	encode := base64.RawURLEncoding.EncodeToString
	for what, raw := range map[string]string{
		"a valid token":               valid,
		"one without a time of issue": hs256("iat", nil),
		"one that expired just now":   hs256("exp", in(-2*time.Second)),
		"one of a clock just ahead":   hs256("iat", in(2*time.Second), "nbf", in(2*time.Second)),
		"one for somebody as well":    hs256("aud", "x", "iss", "y", "role", "z"),
	} {
		if got, err := NewKeeper(secret).Verify([]byte(raw), time.Now()); err != nil || got.UserID != 7 {
			t.Errorf("%s: Verify = %v, %v", what, got, err)
		}
	}
	for what, raw := range map[string]string{
		"nothing":               "",
		"garbage":               "garbage",
		"dots":                  "..",
		"many dots":             strings.Repeat(".", 4000),
		"no signature":          parts[0] + "." + parts[1] + ".",
		"two parts":             parts[0] + "." + parts[1],
		"four parts":            valid + ".x",
		"a prefix":              "Bearer " + valid,
		"padding":               valid + "=",
		"alg none":              sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()),
		"alg none, in capitals": encode([]byte(`{"alg":"NONE"}`)) + "." + parts[1] + ".",
		"alg none, signed":      encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"no alg":                encode([]byte(`{}`)) + "." + parts[1] + "." + parts[2],
		"HS384":                 sign(t, jwt.SigningMethodHS384, []byte(secret), claims()),
		"HS512":                 sign(t, jwt.SigningMethodHS512, []byte(secret), claims()),
		"RS256":                 sign(t, jwt.SigningMethodRS256, rsaKey, claims()),
		"RS256 over HMAC":       encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + parts[1] + "." + parts[2],
		"another secret":        sign(t, jwt.SigningMethodHS256, []byte("1"+secret[1:]), claims()),
		"other claims":          parts[0] + "." + encode([]byte(`{"sub":"8","exp":99999999999}`)) + "." + parts[2],
		"claims that are null":  sign(t, jwt.SigningMethodHS256, []byte(secret), nil),
		"expired":               hs256("exp", in(-time.Minute)),
		"no expiry":             hs256("exp", nil),
		"expiry as text":        hs256("exp", "never"),
		"expiry zero":           hs256("exp", 0),
		"issued later":          hs256("iat", in(time.Minute)),
		"not valid yet":         hs256("nbf", in(time.Minute)),
		"no subject":            hs256("sub", nil),
		"an empty subject":      hs256("sub", ""),
		"a subject of zero":     hs256("sub", "0"),
		"a negative subject":    hs256("sub", "-7"),
		"a name":                hs256("sub", "alice"),
		"a fraction":            hs256("sub", "7.0"),
		"a number, not text":    hs256("sub", 7),
		"spaces":                hs256("sub", " 7"),
		"too large a number":    hs256("sub", "9223372036854775808"),
		"a list":                hs256("sub", []string{"7"}),
		"too many bytes":        hs256("x", strings.Repeat("x", maxTokenBytes)),
	} {
		if got, err := NewKeeper(secret).Verify([]byte(raw), time.Now()); got != nil || !errors.Is(err, ErrInvalid) ||
			err.Error() != ErrInvalid.Error() {
			t.Errorf("%s: Verify = %v, %v", what, got, err)
		}
	}
	// Nobody can make a second token out of one: each character counts, even the unused bits of the last.
	for i := range valid {
		alphabet := "Ab0_"
		if i == len(valid)-1 {
			alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		}
		for _, c := range alphabet {
			if other := valid[:i] + string(c) + valid[i+1:]; other != valid {
				if got, err := NewKeeper(secret).Verify([]byte(other), time.Now()); err == nil {
					t.Errorf("%q instead of %q at %v: user %v", c, valid[i], i, got)
				}
			}
		}
	}
}

func TestCheckSecret(t *testing.T) {
	t.Parallel()
	if err := CheckSecret(secret); err != nil {
		t.Error(err)
	}
	for _, poor := range []string{strings.Repeat("k", 32), strings.Repeat("changeme", 8), secret + "," +
		strings.Repeat("ab", 32), "a" + strings.Repeat("b", 40)} {
		if err := CheckSecret(poor); err == nil || strings.Contains(err.Error(), poor) {
			t.Errorf("CheckSecret(%q) = %v", poor, err)
		}
	}
	for range 1000 {
		random := make([]byte, 16)
		_, _ = rand.Read(random)
		if err := CheckSecret(hex.EncodeToString(random)); err != nil {
			t.Errorf("CheckSecret(%x) = %v", random, err)
		}
	}
	for _, short := range []string{"", "x", secret[1:]} {
		if err := CheckSecret(short); err == nil || len(short) > 1 && strings.Contains(err.Error(), short) {
			t.Errorf("CheckSecret(%q) = %v", short, err)
		}
	}
}

// FuzzVerify: whatever is signed with the secret, only a token of this algorithm with a subject and an
// expiry to come names a user; and what is not signed with it names nobody.
func FuzzVerify(f *testing.F) {
	k := NewKeeper(secret)
	raw, err := k.Sign(Claims{UserID: 7}, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(raw, ".")
	for _, part := range parts[:2] {
		if _, err := base64.RawURLEncoding.DecodeString(part); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(`{"alg":"HS256","typ":"JWT"}`, `{"sub":"7","exp":99999999999}`)
	f.Add(`{"alg":"none"}`, `{"sub":"7","exp":99999999999}`)
	f.Add(`{"alg":"HS256"}`, `{"sub":7,"exp":1e300,"iat":-1e300}`)
	f.Add(``, `.`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		encode := base64.RawURLEncoding.EncodeToString
		text := encode([]byte(header)) + "." + encode([]byte(claims))
		signature, err := jwt.SigningMethodHS256.Sign(text, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Verify([]byte(text+"."+encode(signature)), time.Now())
		if err == nil {
			var h struct{ Alg string }
			var c struct {
				Sub string
				Exp float64
			}
			if json.Unmarshal([]byte(header), &h) != nil || json.Unmarshal([]byte(claims), &c) != nil ||
				h.Alg != "HS256" || got.UserID <= 0 || c.Sub == "" ||
				c.Exp < float64(time.Now().Add(-clockSkew).Unix()-1) {
				t.Fatalf("header %q and claims %q name %v", header, claims, got)
			}
		} else if got != nil || !errors.Is(err, ErrInvalid) {
			t.Fatalf("Verify = %v, %v", got, err)
		}
		signature[0] ^= 1
		for _, forged := range []string{header, text, text + ".", text + "." + encode(signature)} {
			if got, err := k.Verify([]byte(forged), time.Now()); err == nil {
				t.Fatalf("%q names %v", forged, got)
			}
		}
	})
}

func TestClaims(t *testing.T) {
	t.Parallel()
	k := NewKeeper(secret)
	want := Claims{UserID: 7, SessionID: uuid.New(), Role: "admin"}
	raw, err := k.Sign(want, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Verify([]byte(raw), time.Now()); err != nil || *got != want {
		t.Errorf("Verify = %v, %v, want %v", got, err, want)
	}
	for _, sid := range []any{"x", 7, []string{}} {
		raw := sign(t, jwt.SigningMethodHS256, []byte(secret),
			jwt.MapClaims{"sub": "7", "exp": time.Now().Add(time.Minute).Unix(), "sid": sid})
		if got, err := k.Verify([]byte(raw), time.Now()); !errors.Is(err, ErrInvalid) {
			t.Errorf("with the session %v: %v, %v", sid, got, err)
		}
	}
}

// TestRotation goes through the life of a key: it is new, it is old, it is gone.
func TestRotation(t *testing.T) {
	t.Parallel()
	const next = "fedcba9876543210fedcba9876543210"
	before, during, after := NewKeeper(secret), NewKeeper(next+","+secret), NewKeeper(next)
	signed := func(k *Keeper) string {
		t.Helper()
		raw, err := k.Sign(Claims{UserID: 7}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	// A token that names no key is tried with all.
	nameless := sign(t, jwt.SigningMethodHS256, []byte(secret),
		jwt.MapClaims{"sub": "7", "exp": time.Now().Add(time.Minute).Unix()})
	for _, test := range []struct {
		what  string
		k     *Keeper
		raw   string
		valid bool
	}{
		{"an old token while both are valid", during, signed(before), true},
		{"a nameless old token while both are valid", during, nameless, true},
		{"an old token when its key is gone", after, signed(before), false},
		{"a nameless old token when its key is gone", after, nameless, false},
		{"a new token while both are valid", during, signed(during), true},
		{"a new token when the old key is gone", after, signed(during), true},
		{"a new token before its key is known", before, signed(during), false},
	} {
		if got, err := test.k.Verify([]byte(test.raw), time.Now()); (err == nil) != test.valid {
			t.Errorf("%s: %v, %v", test.what, got, err)
		}
	}
	// The name of one key and the signature of another.
	crossed := jwt.NewWithClaims(jwt.SigningMethodHS256,
		jwt.MapClaims{"sub": "7", "exp": time.Now().Add(time.Minute).Unix()})
	crossed.Header["kid"] = during.keys[0].id
	raw, err := crossed.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := during.Verify([]byte(raw), time.Now()); err == nil {
		t.Errorf("the name of another key: %v", got)
	}
	for _, bad := range []string{"", "short", secret + ",short", secret + ",", strings.Repeat(secret+",", maxSecrets) +
		secret} {
		if CheckSecret(bad) == nil {
			t.Errorf("CheckSecret takes %q", bad)
		}
	}
	if err := CheckSecret(next + "," + secret); err != nil {
		t.Error(err)
	}
}

// TestKnownTokenExpires: a token that was valid before is known, and only for as long as it is valid.
func TestKnownTokenExpires(t *testing.T) {
	t.Parallel()
	k := NewKeeper(secret)
	now := time.Now().Truncate(time.Second)
	exp := now.Add(time.Minute)
	raw := []byte(sign(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "7", "exp": exp.Unix()}))
	for range 2 {
		if got, err := k.Verify(raw, now); err != nil || got.UserID != 7 {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if k.known.find(raw, exp.Add(clockSkew-1)) == nil {
		t.Error("it is not known until its end")
	}
	if got := k.known.find(raw, exp.Add(clockSkew)); got != nil {
		t.Errorf("it is known as %v after its end", got)
	}
	for i := range raw { // nothing that looks alike is known
		other := slices.Clone(raw)
		other[i] ^= 1
		if got, err := k.Verify(other, now); err == nil {
			t.Errorf("byte %d changed: %v", i, got)
		}
	}
	raw[0] ^= 1
	if len(k.known.young) != 1 {
		t.Errorf("%d tokens are known", len(k.known.young))
	}
}

// TestMemoryIsBounded: tokens that come again stay, and others go.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	now := time.Now()
	often := []byte("often")
	m.add(often, &Claims{UserID: 1}, now.Add(time.Hour))
	for i := range int64(2 * maxKnown) {
		m.add(strconv.AppendInt(nil, i, 10), &Claims{UserID: order.UserID(i)}, now.Add(time.Hour))
		if got := m.find(often, now); got == nil || got.UserID != 1 {
			t.Fatalf("after %d others it is known as %v", i, got)
		}
	}
	if n := len(m.young) + len(m.old); n > maxKnown {
		t.Errorf("%d tokens are known", n)
	}
	if m.find([]byte("0"), now) != nil {
		t.Error("a token that did not come again is still known")
	}
	if got := m.find([]byte(strconv.Itoa(2*maxKnown-1)), now); got == nil || got.UserID != 2*maxKnown-1 {
		t.Errorf("the last token is known as %v", got)
	}
}

func BenchmarkVerify(b *testing.B) {
	raw, err := NewKeeper(secret).Sign(Claims{UserID: 7, SessionID: uuid.New()}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for _, known := range []bool{false, true} {
		b.Run(map[bool]string{false: "new", true: "known"}[known], func(b *testing.B) {
			k := NewKeeper(secret)
			b.ReportAllocs()
			for b.Loop() {
				if !known {
					k.known = newMemory()
				}
				if _, err := k.Verify([]byte(raw), time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
