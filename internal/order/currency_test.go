package order

import "testing"

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
