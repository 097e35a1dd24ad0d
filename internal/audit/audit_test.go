package audit

import (
	"testing"

	"stampede/internal/stock"
)

func TestCompare(t *testing.T) {
	for _, test := range []struct {
		stock int64
		level stock.Level
		want  int // problems
	}{
		{5, stock.Level{Loaded: true, Available: 5}, 0},
		{5, stock.Level{}, 0}, // not loaded: nothing to compare
		{5, stock.Level{Loaded: true, Available: 4}, 1},
		{5, stock.Level{Loaded: true, Available: 4, Reserved: 1, Reservations: 1}, 1},
		{5, stock.Level{Loaded: true, Available: 5, Outbox: 1}, 1},
		{0, stock.Level{Loaded: true, Available: -1}, 1},
	} {
		if got := (standing{test.level, test.stock}).differences(); len(got) != test.want {
			t.Errorf("%d in MySQL and %+v: %q", test.stock, test.level, got)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -999: "-999", -1000: "-1,000",
	} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written as %s, want %s", n, got, want)
		}
	}
}
