package ledger

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/order"
)

// TestSales holds what was sold, by sums, against what the audit counts.
func TestSales(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ctx := t.Context()
	whole, split, untouched := addProduct(t, l, 10, 0), addSplit(t, l, 20, 3, 0), addProduct(t, l, 5, 0)
	mustDecide(t, l, whole.ID, newOrder(whole.ID, 1, 4, ""), newOrder(whole.ID, 2, 7, "")) // the second fails
	if _, err := l.Restock(ctx, whole.ID.Product(), 5, "monday"); err != nil {
		t.Fatal(err)
	}
	one, two := split.ID.Product().Bucket(1), split.ID.Product().Bucket(2)
	mustDecide(t, l, one, newOrder(one, 1, 2, ""))
	mustDecide(t, l, two, newOrder(two, 2, 3, ""))
	m, err := l.Transfer(ctx, Transfer{ID: uuid.Must(uuid.NewV7()), Donor: one, Receiver: two, Units: 4})
	if err != nil || !m.Made() {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := l.Restock(ctx, split.ID.Product(), 6, "monday"); err != nil {
		t.Fatal(err)
	}

	sales, err := l.Sales(ctx, []order.ProductID{untouched.ID.Product(), split.ID.Product(), 404, whole.ID.Product()})
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
	// Each bucket by itself, so that a move between two reads changes nothing.
	rows, err := readSales(ctx, l.db, []order.StockID{one, two})
	if err != nil || len(rows) != 2 || rows[0].Supplied-rows[0].Stock != 2 || rows[1].Supplied-rows[1].Stock != 3 {
		t.Errorf("the buckets: %+v, %v", rows, err)
	}
	stocks, err := l.Stocks(ctx, slices.Concat([]order.StockID{whole.ID}, split.StockIDs()))
	if err != nil {
		t.Fatal(err)
	}
	parts := maps.Clone(sales[0].Parts)
	maps.Copy(parts, sales[1].Parts)
	if !maps.Equal(parts, stocks) {
		t.Errorf("the parts are %v, want %v", parts, stocks)
	}
	product := mustProduct(t, l, whole.ID)
	product.Description = ""
	if !reflect.DeepEqual(sales[0].Product, product) {
		t.Errorf("the product is %+v, want %+v", sales[0].Product, product)
	}
	audits := mustBeSound(t, l)
	if audits[whole.ID].CompletedUnits != 4 || audits[one].CompletedUnits+audits[two].CompletedUnits != 5 {
		t.Errorf("the audit counts otherwise: %+v", audits)
	}

	newest, err := l.Newest(ctx, 2)
	if err != nil || !slices.Equal(newest, []order.ProductID{untouched.ID.Product(), split.ID.Product()}) {
		t.Errorf("newest: %v, %v", newest, err)
	}
	if sales, err := l.Sales(ctx, nil); err != nil || len(sales) != 0 {
		t.Errorf("of no products: %v, %v", sales, err)
	}
}

// TestSalesCost counts the rows that are read of a product with many orders and of one with many buckets.
func TestSalesCost(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ctx := t.Context()
	p := addProduct(t, l, 1<<20, 0)
	conn, err := l.db.Connx(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const orders = 1 << 13
	for n := 1; n < orders; n *= 2 { // rows 2 to orders, each an order
		_, err := conn.ExecContext(ctx, `INSERT INTO stock_ledger SELECT product_id, version + ?, -1, balance, 'order',
			UNHEX(LPAD(HEX(version + ?), 32, '0')), created_at FROM stock_ledger WHERE product_id = ?`, n, n, p.ID)
		if err != nil {
			t.Fatal(err)
		}
	}
	q := addSplit(t, l, 64, 64, 0)
	read := func() (n int) {
		t.Helper()
		var rows []struct {
			Name  string `db:"Variable_name"`
			Value int    `db:"Value"`
		}
		if err := conn.SelectContext(ctx, &rows, `SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%'
			OR Variable_name = 'Handler_icp_attempts'`); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			n += row.Value
		}
		return n
	}
	for _, ids := range [][]order.StockID{{p.ID}, append([]order.StockID{p.ID}, q.StockIDs()...)} {
		query, args, err := sqlx.In(salesQuery, ids)
		if err != nil {
			t.Fatal(err)
		}
		before := read()
		var rows []saleRow
		if err := conn.SelectContext(ctx, &rows, query, args...); err != nil || len(rows) != len(ids) {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if n := read() - before; n > orders/4 {
			t.Errorf("%d rows were read for %d products, beside %d orders", n, len(ids), orders)
		} else {
			t.Logf("%d rows were read for %d products", n, len(ids))
		}
	}
}
