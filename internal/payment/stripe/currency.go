package stripe

import "strings"

// unit is what Stripe counts a currency in: factor of it are per minor units of ISO 4217. Amounts must be a multiple of
// so many minor units.
type unit struct {
	factor, per int64
	multiple    int64
}

// units are the currencies that Stripe takes, by "supported currencies" of its documentation. It counts in the minor
// units of ISO 4217, but for its special cases there: ISK and UGX have cents that are always 00, and MGA has none. It
// takes cents of HUF and TWD, and pays none out, so that whole ones are taken here. Of a currency with three digits the
// last one must be 0.
var units = func() map[string]unit {
	m := map[string]unit{}
	for _, group := range []struct {
		unit
		codes string
	}{
		{unit{1, 1, 1}, `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF
			CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG IDR ILS
			INR JMD JPY KES KGS KHR KMF KRW KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN
			NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD
			SZL THB TJS TOP TRY TTD TZS UAH USD UYU UZS VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW`},
		{unit{1, 1, 10}, `BHD JOD KWD OMR TND`},
		{unit{1, 1, 100}, `HUF TWD`},
		{unit{100, 1, 1}, `ISK UGX`},
		{unit{1, 100, 100}, `MGA`},
	} {
		for code := range strings.FieldsSeq(group.codes) {
			m[code] = group.unit
		}
	}
	return m
}()

// toStripe is an amount of minor units as Stripe counts it, and fromStripe the way back, which reports false for an
// amount that there is not.
func toStripe(amount int64, currency string) int64 {
	u := units[currency]
	return amount / u.per * u.factor
}

func fromStripe(amount int64, currency string) (int64, bool) {
	u, ok := units[currency]
	if !ok || amount < 0 || amount%u.factor != 0 {
		return 0, false
	}
	return amount / u.factor * u.per, true
}
