package problem

import (
	"bytes"
	"strings"
	"testing"

	"stampede/internal/order"
)

func FuzzIdempotencyKey(f *testing.F) {
	f.Add([]byte("5e0a9d0c-0f5e-4a55-8c0f-2f0a8f9c1d11"), []byte(nil), 1)
	f.Add([]byte(""), []byte(nil), 1)
	f.Add([]byte("a"), []byte("a"), 2)
	f.Add(bytes.Repeat([]byte("k"), 255), []byte(nil), 1)
	f.Add(bytes.Repeat([]byte("k"), 256), []byte(nil), 1)
	f.Add([]byte("a b"), []byte("\x7f"), 1)
	f.Add([]byte("schlüssel"), []byte("\r\n"), 0)
	f.Fuzz(func(t *testing.T, first, second []byte, times int) {
		key, detail := IdempotencyKey([][]byte{first, second}[:min(max(times, 0), 2)])
		switch {
		case detail != "" && key != "":
			t.Errorf("%q is refused and read", key)
		case detail == "" && key == "" && times > 0:
			t.Error("a header was overlooked")
		case len(key) > order.MaxIdempotencyKeyBytes,
			strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
			t.Errorf("read as %q", key)
		case key != "" && (times != 1 || key != string(first)):
			t.Errorf("%q is read as %q", first, key)
		}
	})
}
