// Package plaintext judges text that one person writes and others see: names, descriptions, reasons. It keeps the
// letters of every script and emoji whole, and finds the characters that show nothing, or that change how what is
// around them is shown (Unicode Technical Report 36).
package plaintext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fault says which character of a text may not be in it, such as "it has U+202E, which cannot be seen", or nothing if
// the text is good.
func Fault(text string) string {
	if !utf8.ValidString(text) {
		return "it is not valid UTF-8"
	}
	runes := []rune(text)
	for i := 0; i < len(runes); i++ {
		if n := flagTags(runes[i:]); n > 0 {
			i += n
			continue
		}
		if !seen(runes, i) {
			return fmt.Sprintf("it has %U, which cannot be seen", runes[i])
		}
	}
	return ""
}

// LinesFault is Fault for text that may have several lines, and tabs.
func LinesFault(text string) string {
	return Fault(strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(text))
}

// Escape writes text for a terminal: whatever Fault finds becomes an escape sequence as in Go, tabs and line ends
// included, so that nobody's name can move the cursor, colour a line or look like another line.
func Escape(text string) string {
	if Fault(text) == "" {
		return text
	}
	var b strings.Builder
	runes := []rune(text)
	for i, at := 0, 0; i < len(runes); i++ {
		_, size := utf8.DecodeRuneInString(text[at:])
		switch {
		case runes[i] == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[at])
		case seen(runes, i):
			b.WriteRune(runes[i])
		default:
			quoted := fmt.Sprintf("%+q", runes[i])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		at += size
	}
	return b.String()
}

const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
	textStyle          = '\ufe0e'
	emojiStyle         = '\ufe0f'
	blankBraille       = '\u2800' // a symbol by its category, and shown as nothing
	blackFlag          = '\U0001f3f4'
	cancelTag          = '\U000e007f'
)

// seen reports whether a character shows something at its place, or joins what is around it as its script needs.
func seen(runes []rune, i int) bool {
	r := runes[i]
	before, after := rune(0), rune(0)
	if i > 0 {
		before = runes[i-1]
	}
	if i+1 < len(runes) {
		after = runes[i+1]
	}
	switch {
	case r == zeroWidthNonJoiner:
		return isWord(before) && isWord(after)
	case r == zeroWidthJoiner:
		return isWord(before) && isWord(after) || isEmoji(before) && isEmoji(after)
	case r == textStyle || r == emojiStyle:
		return before == '#' || before == '*' || unicode.IsDigit(before) || before > unicode.MaxLatin1 &&
			unicode.IsPunct(before) ||
			isEmoji(before) && before != emojiStyle && before != textStyle || unicode.Is(unicode.Sm, before)
	case unicode.Is(unicode.Variation_Selector, r):
		return unicode.Is(unicode.Han, before) || unicode.Is(unicode.Mongolian, before) // forms of a character in names
	case unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Cf), r == blankBraille:
		return false
	}
	return unicode.IsGraphic(r)
}

// isWord reports whether a character is a letter, or a mark on one.
func isWord(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsMark(r)) && !unicode.Is(unicode.Variation_Selector, r)
}

// isEmoji reports whether a character may stand beside a joiner in an emoji sequence: a symbol, a skin tone or the
// style.
func isEmoji(r rune) bool {
	return unicode.Is(unicode.So, r) || r >= '\U0001f3fb' && r <= '\U0001f3ff' || r == emojiStyle
}

// flagTags is how many tags follow the flag that runes begin with, such as those of Scotland's, the last one included.
func flagTags(runes []rune) int {
	if runes[0] != blackFlag {
		return 0
	}
	const longest = 7 // two letters of a country, up to three of a part of it, and the end; some spare
	for i := 1; i < len(runes) && i <= longest; i++ {
		r := runes[i]
		switch {
		case r == cancelTag && i > 3:
			return i
		case r >= '\U000e0030' && r <= '\U000e0039', r >= '\U000e0061' && r <= '\U000e007a':
		default:
			return 0
		}
	}
	return 0
}
