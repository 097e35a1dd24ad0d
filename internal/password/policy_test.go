package password

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, password := range []string{
		"correct horse", "ßßßßßßßßs密", "пароль пароль", "密码密码密码密码密碼", "a\x00q7!zw\x01pk",
		strings.Repeat("🔑", MaxChars-1) + "🔒", "seven quiet otters knit",
	} {
		if err := Check(password, "ada.lovelace@example.org", "Ada Lovelace"); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
	for password, want := range map[string]error{
		"":                               errTooShort,
		"x3$kQ!9zp":                      errTooShort,
		"🔑🔒🔑🔒🔑🔒🔑🔒🔑":                      errTooShort, // nine characters, though 36 bytes
		strings.Repeat("ab", 64) + "a":   errTooLong,
		strings.Repeat("ab", 5_000):      errTooLong,
		strings.Repeat("\xff", 10_000):   errTooLong, // the length comes first
		"correct\xffhorse":               errNotText,
		strings.Repeat("\xff", 20):       errNotText,
		strings.Repeat("a", MinChars):    errRepeated,
		strings.Repeat("aA", MinChars):   errRepeated,
		strings.Repeat(" ", MaxChars):    errRepeated,
		strings.Repeat("🔑", MaxChars):    errRepeated,
		"0123456788":                     errGuessable,
		"aaaaaaaaab":                     errGuessable,
		"          x":                    errGuessable,
		"password123 ":                   errGuessable,
		"Ada Lovelace1":                  errGuessable,
		"ada.lovelace1":                  errGuessable,
		"ADA.lovelace@example.org":       errAddress,
		strings.Repeat("ab", MaxChars/2): errGuessable,
		"1234567890":                     errGuessable,
		"password123":                    errGuessable,
		"PassWord123":                    errGuessable,
		"QWERTYUIOP":                     errGuessable,
		"zxcvbnmasdfghjkl":               errGuessable,
		"Correct Horse Battery Staple":   errGuessable,
	} {
		err := Check(password, "ada.lovelace@example.org", "Ada Lovelace")
		if !errors.Is(err, want) || !errors.Is(err, ErrRefused) {
			t.Errorf("%.40q: %v, want %v", password, err, want)
		}
		if err != nil && len(password) > 5 && strings.Contains(err.Error(), password) {
			t.Errorf("the refusal shows the password: %v", err)
		}
	}
}

// TestNormalized takes a password in either composition, and a hash of before in the one that was typed.
func TestNormalized(t *testing.T) {
	t.Parallel()
	h := newHasher(t, DefaultParams())
	const composed, decomposed = "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e",
		"cafe\u0301\u00a0cre\u0300me bru\u0302le\u0301e"
	old, err := h.create(decomposed, &h.params)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := h.Hash(t.Context(), decomposed)
	if err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct{ password, hash string }{{composed, hash}, {decomposed, hash}, {decomposed, old}} {
		if match, err := h.Verify(t.Context(), try.password, try.hash); !match || err != nil {
			t.Errorf("%+q: match %t, error %v", try.password, match, err)
		}
	}
}

// BenchmarkCheck is the longest password, of what takes longest to estimate.
func BenchmarkCheck(b *testing.B) {
	for _, seed := range []string{"4@8({[</369&#!1/|0$5+7%2", "ab1987", "qwerty", "🔑ß密e\u0301"} {
		password := []rune(strings.Repeat(seed, MaxChars))[:MaxChars]
		b.Run(seed, func(b *testing.B) {
			for b.Loop() {
				_ = Check(string(password), "ada@example.org", "Ada")
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"", "password123", "correct horse", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		strings.Repeat("İ", 128)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		err := Check(password, "ada.lovelace@example.org", "Ada Lovelace")
		if err != nil && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		chars := utf8.RuneCountInString(password)
		if err == nil && (chars < MinChars || chars > MaxChars || !utf8.ValidString(password)) {
			t.Errorf("%q is let through", password)
		}
	})
}
