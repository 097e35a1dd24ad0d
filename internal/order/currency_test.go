package order

import (
	"math"
	"testing"
)

func TestMoney(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		amount   int64
		currency string
		want     string
	}{
		{49900, "EUR", "499.00 EUR"},
		{500, "JPY", "500 JPY"},
		{0, "JPY", "0 JPY"},
		{12345, "KWD", "12.345 KWD"},
		{7, "KWD", "0.007 KWD"},
		{0, "EUR", "0.00 EUR"},
		{5, "USD", "0.05 USD"},
		{-5, "USD", "-0.05 USD"},
		{12345, "CLF", "1.2345 CLF"},
		{MaxUnitPrice, "EUR", "10000000000.00 EUR"},
		{1999, "XXX", "1999 minor units of XXX"},
	} {
		if got := Money(test.amount, test.currency); got != test.want {
			t.Errorf("%d %s is written as %q, want %q", test.amount, test.currency, got, test.want)
		}
	}
}

func TestParseMoney(t *testing.T) {
	for _, test := range []struct {
		text, currency string
		want           int64
	}{
		{"499", "EUR", 49900},
		{"499.5", "EUR", 49950},
		{"499.05", "EUR", 49905},
		{"0.00", "CNY", 0},
		{"007", "JPY", 7},
		{"1.234", "KWD", 1234},
		{"92233720368547758.07", "EUR", math.MaxInt64},
	} {
		if got, err := ParseMoney(test.text, test.currency); err != nil || got != test.want {
			t.Errorf("%s %s: %d, error %v, want %d", test.text, test.currency, got, err, test.want)
		}
	}
	for _, test := range [][2]string{
		{"", "EUR"}, {".", "EUR"}, {".5", "EUR"}, {"5.", "EUR"}, {"4.999", "EUR"}, {"5.0", "JPY"}, {"-1", "EUR"},
		{"+1", "EUR"}, {"1e3", "EUR"}, {" 1", "EUR"}, {"1,5", "EUR"}, {"1.2.3", "EUR"}, {"٣", "EUR"}, {"0x1", "EUR"},
		{"92233720368547758.08", "EUR"}, {"1", "XXX"}, {"1", "eur"}, {"NaN", "EUR"},
	} {
		if got, err := ParseMoney(test[0], test[1]); err == nil || got != 0 {
			t.Errorf("%q %s: %d", test[0], test[1], got)
		}
	}
}

func TestIsCurrency(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"EUR", "USD", "JPY", "KWD", "XOF", "CLF"} {
		if !IsCurrency(code) {
			t.Errorf("%s is refused", code)
		}
	}

	// No currency, a test, gold, special drawing rights, invented, withdrawn, and not in the form of a code.
	for _, code := range []string{"XXX", "XTS", "XAU", "XDR", "ABC", "ZZZ", "DEM", "HRK", "eur", "EU", "EURO", "",
		"978"} {
		if IsCurrency(code) {
			t.Errorf("%q is taken", code)
		}
	}
}
