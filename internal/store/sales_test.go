package store

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"stampede/internal/order"
)

// TestSales holds what was sold, by sums, against what the audit counts.
func TestSales(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	whole, split, untouched := addProduct(t, s, 10, 0), addSplit(t, s, 20, 3, 0), addProduct(t, s, 5, 0)
	mustDecide(t, s, whole.ID, newOrder(whole.ID, 1, 4, ""), newOrder(whole.ID, 2, 7, "")) // the second fails
	if _, err := s.Restock(ctx, whole.ID, 5, "monday"); err != nil {
		t.Fatal(err)
	}
	one, two := order.BucketID(split.ID, 1), order.BucketID(split.ID, 2)
	mustDecide(t, s, one, newOrder(one, 1, 2, ""))
	mustDecide(t, s, two, newOrder(two, 2, 3, ""))
	if m, err := s.Move(ctx, Move{ID: order.NewID(), Donor: one, Receiver: two, Units: 4}); err != nil || !m.Moved() {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := s.Restock(ctx, split.ID, 6, "monday"); err != nil {
		t.Fatal(err)
	}

	sales, err := s.Sales(ctx, []int64{untouched.ID, split.ID, 404, whole.ID})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, sale := range sales {
		got = append(got, fmt.Sprintf("%d: stock %d, sold %d", sale.ID, sale.Stock, sale.Sold))
	}
	want := []string{
		fmt.Sprintf("%d: stock 11, sold 4", whole.ID), fmt.Sprintf("%d: stock 21, sold 5", split.ID),
		fmt.Sprintf("%d: stock 5, sold 0", untouched.ID),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	stocks, err := s.Stocks(ctx, slices.Concat([]int64{whole.ID}, split.StockIDs()))
	if err != nil {
		t.Fatal(err)
	}
	parts := maps.Clone(sales[0].Parts)
	maps.Copy(parts, sales[1].Parts)
	if !maps.Equal(parts, stocks) {
		t.Errorf("the parts are %v, want %v", parts, stocks)
	}
	product := mustProduct(t, s, whole.ID)
	product.Description = ""
	if !reflect.DeepEqual(sales[0].Product, product) {
		t.Errorf("the product is %+v, want %+v", sales[0].Product, product)
	}
	audits := mustBeSound(t, s)
	if audits[whole.ID].CompletedUnits != 4 || audits[one].CompletedUnits+audits[two].CompletedUnits != 5 {
		t.Errorf("the audit counts otherwise: %+v", audits)
	}

	newest, err := s.Newest(ctx, 2)
	if err != nil || !slices.Equal(newest, []int64{untouched.ID, split.ID}) {
		t.Errorf("newest: %v, %v", newest, err)
	}
	if sales, err := s.Sales(ctx, nil); err != nil || len(sales) != 0 {
		t.Errorf("of no products: %v, %v", sales, err)
	}
}
