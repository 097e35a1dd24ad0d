package pager

import (
	"testing"

	"stampede/internal/order"
	"stampede/internal/token"
)

var testCursors = Cursors{token.NewKeeper("a secret of at least 32 characters")}

func FuzzOrderCursor(f *testing.F) {
	for _, text := range []string{
		"", "!", "AAAA", "AaH42HWLc7qdGZkwkpSgPQ", "AaH42HWLc7qdGZkwkpSgPR", "AaH42HWLc7qdGZkw\nkpSgPQ",
		"AaH42HWLc7qdGZkwkpSgPQ==",
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte(testCursors.Order(order.NewID())))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := testCursors.ReadOrder(text)
		if ok && len(text) > 0 && testCursors.Order(id) != string(text) || ok && len(text) == 0 &&
			id != (order.OrderID{}) {
			t.Errorf("%q is read as %v", text, id)
		}
	})
}

func FuzzProductCursor(f *testing.F) {
	for _, text := range []string{
		"", "!", "AAAA", "AAAAAAAAADI", "AAAAAAAAADJ", "AAAAAAAAAAA", "__________8", "AAAA\nAAAAADI",
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte(testCursors.Product(7)))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := testCursors.ReadProduct(text)
		if ok && len(text) > 0 && (id <= 0 || testCursors.Product(id) != string(text)) || ok && len(text) == 0 &&
			id != 0 {
			t.Errorf("%q is read as %d", text, id)
		}
	})
}
