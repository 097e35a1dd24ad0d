package token

import (
	"bytes"
	"strings"
	"testing"
)

func TestCursor(t *testing.T) {
	t.Parallel()
	first, second := strings.Repeat("0123456789abcdef", 2), strings.Repeat("fedcba9876543210", 2)
	old, rotated, other := NewKeeper(first), NewKeeper(second+","+first), NewKeeper(second)
	place := []byte("place")
	cursor := old.SignCursor("orders", place)
	if got, ok := rotated.OpenCursor("orders", cursor); !ok || !bytes.Equal(got, place) {
		t.Errorf("a cursor of the secret before is read as %q, %v", got, ok)
	}
	if _, ok := other.OpenCursor("orders", cursor); ok {
		t.Error("a cursor of another secret is read")
	}
	if _, ok := old.OpenCursor("products", cursor); ok {
		t.Error("a cursor of another list is read")
	}
	for i := range cursor {
		forged := bytes.Clone(cursor)
		forged[i] ^= 1
		if _, ok := old.OpenCursor("orders", forged); ok {
			t.Errorf("a cursor with another byte %d is read", i)
		}
		if _, ok := old.OpenCursor("orders", cursor[:i]); ok {
			t.Errorf("the first %d bytes of a cursor are read", i)
		}
	}
}
