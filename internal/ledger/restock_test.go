package ledger

import (
	"fmt"
	"testing"
)

func TestRestocks(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	product := addProduct(t, l, 5, 0)
	mustDecide(t, l, product.ID, newOrder(product.ID, 1, 1, ""))
	for i := range 3 {
		if _, err := l.Restock(t.Context(), product.ID.Product(), int64(i+1), fmt.Sprint("r", i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Restocks(t.Context(), product.ID, 3)
	if want := []Restock{{product.ID, "r1", 2, 4, 7, false, nil},
		{product.ID, "r2", 3, 5, 10, false, nil}}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v, error %v", got, want, err)
	}
	if got, err := l.Restocks(t.Context(), product.ID, 5); err != nil || len(got) != 0 {
		t.Errorf("after the last version: %+v, %v", got, err)
	}
}
