package sqs

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// decoder reads one JSON document in place. It exists because decoding is most of what a request costs here: it
// allocates nothing but the arena for strings with escapes, which is used again by the next request, and it hands out
// a string's text as it was sent as well as its meaning, so that a message body is escaped once, by its sender.
// Every slice it returns is valid until the next reset.
type decoder struct {
	in    []byte
	pos   int
	arena []byte
}

// maxDepth bounds the nesting of values that are skipped; no action's input is deeper than five.
const maxDepth = 16

func (d *decoder) reset(in []byte) {
	d.in, d.pos, d.arena = in, 0, d.arena[:0]
}

// document reads an object that is all there is. A field function returns false if the value is not what it expects;
// fields whose value is null count as absent.
func (d *decoder) document(field func(key []byte) bool) bool {
	if !d.object(field) {
		return false
	}
	d.space()
	return d.pos == len(d.in)
}

func (d *decoder) object(field func(key []byte) bool) bool {
	if d.next() != '{' {
		return false
	}
	if d.peek() == '}' {
		d.pos++
		return true
	}
	for {
		_, key, ok := d.str()
		if !ok || d.next() != ':' || !d.null() && !field(key) {
			return false
		}
		switch d.next() {
		case ',':
		case '}':
			return true
		default:
			return false
		}
	}
}

func (d *decoder) array(element func() bool) bool {
	if d.next() != '[' {
		return false
	}
	if d.peek() == ']' {
		d.pos++
		return true
	}
	for {
		if !d.null() && !element() {
			return false
		}
		switch d.next() {
		case ',':
		case ']':
			return true
		default:
			return false
		}
	}
}

func (d *decoder) space() {
	for d.pos < len(d.in) {
		switch d.in[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek returns the next byte after white space, or 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.pos == len(d.in) {
		return 0
	}
	return d.in[d.pos]
}

func (d *decoder) next() byte {
	c := d.peek()
	if d.pos < len(d.in) {
		d.pos++
	}
	return c
}

func (d *decoder) literal(word string) bool {
	d.space()
	if len(d.in)-d.pos < len(word) || string(d.in[d.pos:d.pos+len(word)]) != word {
		return false
	}
	d.pos += len(word)
	return true
}

func (d *decoder) null() bool { return d.peek() == 'n' && d.literal("null") }

// plain marks the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str returns a string as it was sent, without its quotes, and what it means. Neither is nil.
func (d *decoder) str() (raw, text []byte, ok bool) {
	if d.next() != '"' {
		return nil, nil, false
	}
	start, run, from := d.pos, d.pos, len(d.arena)
	for {
		n := plainPrefix(d.in[run:])
		d.pos = run + n + 1
		if d.pos > len(d.in) {
			return nil, nil, false
		}
		switch c := d.in[run+n]; {
		case c == '"' && run == start: // nothing is escaped
			raw = d.in[start : d.pos-1]
			return raw, raw, true
		case c == '"':
			d.arena = append(d.arena, d.in[run:run+n]...)
			return d.in[start : d.pos-1], d.arena[from:len(d.arena):len(d.arena)], true
		case c != '\\':
			return nil, nil, false
		}
		d.arena = append(d.arena, d.in[run:run+n]...)
		if !d.escape() {
			return nil, nil, false
		}
		run = d.pos
	}
}

// plainPrefix is how many bytes at the front of b stand for themselves.
func plainPrefix(b []byte) int {
	for i, c := range b {
		if !plain[c] {
			return i
		}
	}
	return len(b)
}

// escape reads what follows a backslash. Half of a surrogate pair becomes three bytes that are not valid UTF-8, so
// that a message body with one is refused for its contents.
func (d *decoder) escape() bool {
	if d.pos == len(d.in) {
		return false
	}
	c := d.in[d.pos]
	d.pos++
	switch c {
	case '"', '\\', '/':
		d.arena = append(d.arena, c)
	case 'b':
		d.arena = append(d.arena, '\b')
	case 'f':
		d.arena = append(d.arena, '\f')
	case 'n':
		d.arena = append(d.arena, '\n')
	case 'r':
		d.arena = append(d.arena, '\r')
	case 't':
		d.arena = append(d.arena, '\t')
	case 'u':
		r, ok := d.hex4()
		if !ok {
			return false
		}
		if utf16.IsSurrogate(r) {
			back := d.pos
			if d.literalHere(`\u`) {
				if low, ok := d.hex4(); ok {
					if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
						d.arena = utf8.AppendRune(d.arena, pair)
						return true
					}
				}
			}
			d.pos = back
			d.arena = append(d.arena, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
			return true
		}
		d.arena = utf8.AppendRune(d.arena, r)
	default:
		return false
	}
	return true
}

func (d *decoder) literalHere(word string) bool {
	return d.pos < len(d.in) && d.in[d.pos] == word[0] && d.literal(word)
}

func (d *decoder) hex4() (r rune, ok bool) {
	if len(d.in)-d.pos < 4 {
		return 0, false
	}
	for _, c := range d.in[d.pos : d.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	d.pos += 4
	return r, true
}

// number returns a number as it was sent, checked against the grammar of RFC 8259 section 6.
func (d *decoder) number() ([]byte, bool) {
	d.space()
	start := d.pos
	digits := func() bool {
		from := d.pos
		for d.pos < len(d.in) && '0' <= d.in[d.pos] && d.in[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > from
	}
	here := func(set string) bool {
		for i := 0; i < len(set) && d.pos < len(d.in); i++ {
			if d.in[d.pos] == set[i] {
				d.pos++
				return true
			}
		}
		return false
	}
	here("-")
	if !here("0") && !digits() {
		return nil, false
	}
	if here(".") && !digits() {
		return nil, false
	}
	if here("eE") {
		here("+-")
		if !digits() {
			return nil, false
		}
	}
	return d.in[start:d.pos], true
}

// integer reads a number that has neither fraction nor exponent and fits 64 bits.
func (d *decoder) integer() (int64, bool) {
	token, ok := d.number()
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(token), 10, 64)
	return n, err == nil
}

// skip reads a value of any type and forgets it.
func (d *decoder) skip(depth int) bool {
	if depth == maxDepth {
		return false
	}
	switch d.peek() {
	case '"':
		_, _, ok := d.str()
		return ok
	case '{':
		return d.object(func([]byte) bool { return d.skip(depth + 1) })
	case '[':
		return d.array(func() bool { return d.skip(depth + 1) })
	case 't':
		return d.literal("true")
	case 'f':
		return d.literal("false")
	case 'n':
		return d.literal("null")
	default:
		_, ok := d.number()
		return ok
	}
}

// appendQuoted appends s as a JSON string. Bytes that are not valid UTF-8 become U+FFFD, since the answer has to be
// valid JSON whatever a request held.
func appendQuoted[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case plain[c] && c < utf8.RuneSelf:
			b = append(b, c)
			i++
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}
