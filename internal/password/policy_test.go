package password

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, password := range []string{
		"0123456788", "correct horse", "aaaaaaaaab", "ßßßßßßßßßs", "          x", "пароль пароль", "密码密码密码密码密碼",
		"a\x00bcdefghi", strings.Repeat("🔑", MaxChars-1) + "🔒", strings.Repeat("ab", MaxChars/2), "password123 ",
	} {
		if err := Check(password); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
	for password, want := range map[string]error{
		"":                             errTooShort,
		"x3$kQ!9zp":                    errTooShort,
		"🔑🔒🔑🔒🔑🔒🔑🔒🔑":                    errTooShort, // nine characters, though 36 bytes
		strings.Repeat("ab", 64) + "a": errTooLong,
		strings.Repeat("ab", 5_000):    errTooLong,
		strings.Repeat("\xff", 10_000): errTooLong, // the length comes first
		"correct\xffhorse":             errNotText,
		strings.Repeat("\xff", 20):     errNotText,
		strings.Repeat("a", MinChars):  errRepeated,
		strings.Repeat("aA", MinChars): errRepeated,
		strings.Repeat(" ", MaxChars):  errRepeated,
		strings.Repeat("🔑", MaxChars):  errRepeated,
		"1234567890":                   errCommon,
		"password123":                  errCommon,
		"PassWord123":                  errCommon,
		"QWERTYUIOP":                   errCommon,
		"zxcvbnmasdfghjkl":             errCommon, // the last line of the list
		"Correct Horse Battery Staple": errCommon,
	} {
		err := Check(password)
		if !errors.Is(err, want) || !errors.Is(err, ErrRefused) {
			t.Errorf("%.40q: %v, want %v", password, err, want)
		}
		if err != nil && len(password) > 5 && strings.Contains(err.Error(), password) {
			t.Errorf("the refusal shows the password: %v", err)
		}
	}
}

// TestCommon looks for lines that could refuse nothing.
func TestCommon(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(commonFile, "\n"), "\n")
	if len(lines) < 100 || len(lines) != len(common) {
		t.Errorf("%d lines, %d passwords", len(lines), len(common))
	}
	for _, line := range lines {
		if err := Check(line); !errors.Is(err, errCommon) {
			t.Errorf("%q is refused for another reason: %v", line, err)
		}
		if line != strings.ToLower(strings.TrimSpace(line)) {
			t.Errorf("%q is not in the form in which passwords are compared", line)
		}
	}
	if !slices.Contains(lines, "1234567890") {
		t.Error("the list is not what it says")
	}
}

func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"", "password123", "correct horse", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("İ", 128)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		err := Check(password)
		if err != nil && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		chars := utf8.RuneCountInString(password)
		if err == nil && (chars < MinChars || chars > MaxChars || !utf8.ValidString(password)) {
			t.Errorf("%q is let through", password)
		}
	})
}
