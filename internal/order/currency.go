package order

import (
	"fmt"
	"strconv"
	"strings"
)

// exponents says how many digits of a currency's amounts stand after the point. It holds the active codes of ISO 4217
// (of 2026), those of funds included. Codes that have no minor unit, such as XAU and XXX, are no currencies to sell in.
var exponents = makeExponents(map[int]string{
	0: `BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF`,
	2: `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY
		COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR
		IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD
		NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
		SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VES VED WST XAD XCD XCG YER ZAR ZMW ZWG`,
	3: `BHD IQD JOD KWD LYD OMR TND`,
	4: `CLF UYW`,
})

func makeExponents(codes map[int]string) map[string]int {
	m := make(map[string]int)
	for exponent, list := range codes {
		for code := range strings.FieldsSeq(list) {
			m[code] = exponent
		}
	}
	return m
}

// PointsCurrency is the code of points, in which no product is sold. ISO 4217 has none of this name.
const PointsCurrency = "PTS"

// IsCurrency reports whether a code is a currency of ISO 4217 in which something can be sold.
func IsCurrency(code string) bool {
	_, ok := exponents[code]
	return ok
}

// Money writes an amount of minor units for people: 49900 with EUR is 499.00 EUR. Of points it says so. If the currency
// is unknown, so is where the point belongs, and the text says that it counts minor units.
func Money(minorUnits int64, currency string) string {
	if currency == PointsCurrency {
		return fmt.Sprintf("%d points", minorUnits)
	}
	text, ok := Decimal(minorUnits, currency)
	if !ok {
		return fmt.Sprintf("%d minor units of %s", minorUnits, currency)
	}
	return text + " " + currency
}

// Decimal writes an amount of minor units with a point where the currency has one, as other systems want it and as
// ParseMoney reads it: 49900 with EUR is 499.00. It reports false if the currency is unknown.
func Decimal(minorUnits int64, currency string) (text string, ok bool) {
	exponent, ok := exponents[currency]
	if !ok {
		return "", false
	}

	sign := ""
	if minorUnits < 0 {
		sign = "-"
	}
	digits := fmt.Sprintf("%0*d", exponent+1, max(minorUnits, -minorUnits))
	point := len(digits) - exponent
	if exponent == 0 {
		return sign + digits, true
	}
	return sign + digits[:point] + "." + digits[point:], true
}

// ParseMoney reads an amount with a point where the currency has one, as in 499 or 499.00 for EUR, and returns it in
// minor units. It takes digits alone: no sign, no exponent, and no more digits after the point than the currency has.
func ParseMoney(text, currency string) (minorUnits int64, err error) {
	exponent, ok := exponents[currency]
	whole, fraction, point := strings.Cut(text, ".")
	digits := whole + fraction
	isDigit := func(r rune) bool { return '0' <= r && r <= '9' }
	switch {
	case !ok:
		return 0, fmt.Errorf("%q is no currency", currency)
	case whole == "" || point && fraction == "" || len(fraction) > exponent ||
		strings.ContainsFunc(digits, func(r rune) bool { return !isDigit(r) }):
		return 0, fmt.Errorf("%q is no amount of %s", text, currency)
	}
	minorUnits, err = strconv.ParseInt(digits+strings.Repeat("0", exponent-len(fraction)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no amount of %s: it is too large", text, currency)
	}
	return minorUnits, nil
}
