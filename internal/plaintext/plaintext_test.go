package plaintext

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestFault(t *testing.T) {
	for _, good := range []string{
		"", "Ada Lovelace", "Żółć", "عبد الله", "می\u200cخواهم", "क्\u200dष", "ශ්\u200dරී", "山田太郎", "葛\U000e0100城",
		"한국", "ไทย", "Tiếng Việt",
		"e\u0301", "a\u00a0b\u3000c", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "👩🏽\u200d🚀", "❤\ufe0f", "1\ufe0f\u20e3",
		"🇩🇪", "↔\ufe0f", "‼\ufe0f",
		"🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "499,00 €", "<b>&amp;", "🎟 Ticket",
	} {
		if fault := Fault(good); fault != "" {
			t.Errorf("%q is refused: %s", good, fault)
		}
	}
	for _, bad := range []rune{
		0, '\t', '\n', 0x1b, 0x7f, 0x85, 0x9b, 0xad, 0x34f, 0x61c, 0x115f, 0x1160, 0x17b4, 0x180e, 0x200b, 0x200c,
		0x200d, 0x200e, 0x202a, 0x202e,
		0x2028, 0x2029, 0x2060, 0x2066, 0x2069, 0x206a, 0x2800, 0x3164, 0xe000, 0xfe00, 0xfe0f, 0xfeff, 0xffa0, 0xfff9,
		0xffff, 0x1d173, 0x378,
		0xe0001, 0xe0061, 0xe007f, 0xe0100, 0xf0000, 0x10ffff,
	} {
		for _, text := range []string{string(bad), "a " + string(bad), string(bad) + "a", " " + string(bad) + " "} {
			if fault, want := Fault(text), fmt.Sprintf("%U,", bad); !strings.Contains(fault, want) {
				t.Errorf("%q: %q does not name %s", text, fault, want)
			}
		}
	}
	for _, bad := range []string{"\xff", "a\xffb", "🏴\U000e0067", "🏴\U000e007f", "a\u200d🌈", "👩\u200d",
		"👩\u200d\u200d👧", "a\u200c\u200cb"} {
		if Fault(bad) == "" {
			t.Errorf("%q is taken", bad)
		}
	}
	if LinesFault("a\r\nb\n\tc") != "" || LinesFault("a\rb") == "" || LinesFault("a\u2028b") == "" {
		t.Error("lines")
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"Ada": "Ada", "a\tb\nc": `a\tb\nc`, "\x1b[31mred": `\x1b[31mred`, "a\u202eb": `a\u202eb`, "\xffé": `\xffé`,
		"\u009b1m":     `\u009b1m`,
		"👩\u200d👧\x07": "👩\u200d👧\\a", "\U000e0001": `\U000e0001`,
	} {
		if got := Escape(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// FuzzEscape: what a terminal gets has no control character and nothing that Fault finds.
func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"a", "\x1b", "\xff", "\u200d\u200d", "🏴\U000e0067", "❤\ufe0f\ufe0f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Escape(text)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
