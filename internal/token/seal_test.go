package token

import (
	"bytes"
	"strings"
	"testing"
)

func TestSeal(t *testing.T) {
	t.Parallel()
	first, second := strings.Repeat("0123456789abcdef", 2), strings.Repeat("fedcba9876543210", 2)
	old, rotated, other := NewKeeper(first), NewKeeper(second+","+first), NewKeeper(second)
	value := []byte("place")
	sealed := []byte(old.Seal("orders", value))
	if got, ok := rotated.Open("orders", sealed); !ok || !bytes.Equal(got, value) {
		t.Errorf("a value sealed with the secret before is read as %q, %v", got, ok)
	}
	if _, ok := other.Open("orders", sealed); ok {
		t.Error("a value sealed with another secret is read")
	}
	if _, ok := old.Open("products", sealed); ok {
		t.Error("a value of another kind is read")
	}
	for i := range sealed {
		for _, b := range []byte("Aa-\n=") {
			forged := bytes.Clone(sealed)
			if forged[i] = b; bytes.Equal(forged, sealed) {
				continue
			}
			if _, ok := old.Open("orders", forged); ok {
				t.Errorf("a value with another character %d is read", i)
			}
		}
		if _, ok := old.Open("orders", sealed[:i]); ok {
			t.Errorf("the first %d characters of a value are read", i)
		}
	}
	for _, tail := range []string{"\n", "=", "A", " "} {
		if _, ok := old.Open("orders", append(bytes.Clone(sealed), tail...)); ok {
			t.Errorf("a value with %q behind it is read", tail)
		}
	}
}
