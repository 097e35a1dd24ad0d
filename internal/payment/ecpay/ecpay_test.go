package ecpay

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// The keys of ECPay's stage, which it publishes.
var (
	stage          = Keys{Merchant: "3002607", HashKey: "pwFHCqoQZGmho4w6", HashIV: "EkRm7iFT261dpevs"}
	stageLogistics = Keys{Merchant: "2000132", HashKey: "5294y06JbISpM5x9", HashIV: "v77hoKGq4kWxNNIS"}
)

func form(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

// TestSign: ECPay's own examples, and one with what Go and .NET encode differently.
func TestSign(t *testing.T) {
	for _, test := range []struct {
		what string
		got  string
		want string
	}{
		{"the documentation's order", stage.Sign(form("TradeDesc", "促銷方案", "PaymentType", "aio",
			"MerchantTradeDate", "2023/03/12 15:30:23", "MerchantTradeNo", "ecpay20230312153023",
			"MerchantID", "3002607", "ReturnURL", "https://www.ecpay.com.tw/receive.php",
			"ItemName", "Apple iphone 15", "TotalAmount", "30000", "ChoosePayment", "ALL", "EncryptType", "1")),
			"6C51C9E6888DE861FD62FB1DD17029FC742634498FD813DC43D4243B5685B840"},
		{"an apostrophe", stage.Sign(form("MerchantID", "3002607", "ItemName", "Tom's Shop", "TotalAmount", "100")),
			"CF0A3D4901D99459D8641516EC57210700E8A5C9AB26B1D021301E9CB93EF78D"},
		{"logistics", stageLogistics.SignLogistics(form("MerchantID", "2000132", "LogisticsType", "CVS",
			"LogisticsSubType", "UNIMART", "MerchantTradeDate", "2025/01/01 12:00:00")),
			"545E6146FD45BDA683C88454DB34CE8D"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", test.what, test.got, test.want)
		}
	}

	text := stage.signed(form("b", "~-_.!*() '", "A", "", macField, "X"))
	const want = "hashkey%3dpwfhcqoqzgmho4w6%26a%3d%26b%3d%7e-_.!*()+%27%26hashiv%3dekrm7ift261dpevs"
	if text != want {
		t.Errorf("signed %s, want %s", text, want)
	}
}

// told is a notice as ECPay sends it, with changes.
func told(changes ...string) url.Values {
	f := form("MerchantID", "3002607", "MerchantTradeNo", "A1B2", "StoreID", "", "RtnCode", "1", "RtnMsg", "交易成功",
		"TradeNo", "2411280001", "TradeAmt", "499", "PaymentDate", "2026/11/28 18:00:05",
		"PaymentType", "Credit_CreditCard", "PaymentTypeChargeFee", "13.5", "TradeDate", "2026/11/28 17:59:00",
		"SimulatePaid", "0", "CustomField1", "")
	for i := 0; i < len(changes); i += 2 {
		f.Set(changes[i], changes[i+1])
	}
	f.Set(macField, stage.Sign(f))
	return f
}

func TestReadNotice(t *testing.T) {
	paid := payment.Notice{
		Kind: payment.Paid, Attempt: "A1B2", Reference: "2411280001", EventKey: "A1B2:1", Merchant: "3002607",
		Amount: 49900, Currency: "TWD", Fee: 1350, At: time.Date(2026, 11, 28, 10, 0, 5, 0, time.UTC),
	}
	with := func(change func(*payment.Notice)) payment.Notice {
		n := paid
		change(&n)
		return n
	}
	for _, test := range []struct {
		what string
		form url.Values
		want payment.Notice
	}{
		{"paid", told(), paid},
		{"simulated", told("SimulatePaid", "1"), with(func(n *payment.Notice) { n.Simulated = true })},
		{"a field of tomorrow", told("NewField", "x y&z"), paid},
		{"a number for the cash machine", told("RtnCode", "2"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Issued, "A1B2:2"
		})},
		{"a code for the store", told("RtnCode", "10100073"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Issued, "A1B2:10100073"
		})},
		{"declined", told("RtnCode", "10100058"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Failed, "A1B2:10100058"
		})},
		{"no fee, no date", told("PaymentTypeChargeFee", "", "PaymentDate", ""), with(func(n *payment.Notice) {
			n.Fee, n.At = 0, time.Time{}
		})},
		{"a fee that is none", told("PaymentTypeChargeFee", "NaN"), with(func(n *payment.Notice) { n.Fee = 0 })},
	} {
		got, err := stage.ReadNotice(t.Context(), nil, []byte(test.form.Encode()))
		if same := got.At.Equal(test.want.At); err != nil || !same {
			t.Errorf("%s: at %s, error %v, want at %s", test.what, got.At, err, test.want.At)
		}
		got.At = test.want.At
		if got != test.want {
			t.Errorf("%s: got\n\t%+v, want\n\t%+v", test.what, got, test.want)
		}
	}
}

func TestReadNoticeRefuses(t *testing.T) {
	other := stage
	other.HashKey = "pwFHCqoQZGmho4w7"
	many := told()
	for i := range 100 {
		many.Set("f"+strings.Repeat("x", i), "")
	}
	many.Set(macField, stage.Sign(many))
	changed := func(name, value string) string {
		f := told()
		f.Set(name, value)
		return f.Encode()
	}
	signedBy := func(k Keys, f url.Values) string {
		f.Set(macField, k.Sign(f))
		return f.Encode()
	}
	for what, body := range map[string]string{
		"nothing":                    "",
		"no form":                    "%zz=1",
		"no UTF-8":                   told().Encode() + "&x=\xff",
		"another amount":             changed("TradeAmt", "4"),
		"a failure made a success":   strings.Replace(told("RtnCode", "0").Encode(), "RtnCode=0", "RtnCode=1", 1),
		"another's attempt":          changed("MerchantTradeNo", "A1B3"),
		"a field more":               changed("CustomField2", "x"),
		"no signature":               changed(macField, ""),
		"a signature in lower case":  changed(macField, strings.ToLower(told().Get(macField))),
		"the signature of another":   signedBy(other, told()),
		"a truncated signature":      changed(macField, told().Get(macField)[:63]),
		"a field twice":              told().Encode() + "&TradeAmt=499",
		"an amount that is none":     told("TradeAmt", "4.99").Encode(),
		"an amount below zero":       told("TradeAmt", "-499").Encode(),
		"an amount beyond all":       told("TradeAmt", "92233720368547758").Encode(),
		"another merchant":           told("MerchantID", "3002599").Encode(),
		"no attempt":                 told("MerchantTradeNo", "").Encode(),
		"more fields than there are": many.Encode(),
	} {
		n, err := stage.ReadNotice(t.Context(), nil, []byte(body))
		if !errors.Is(err, payment.ErrForged) || n != (payment.Notice{}) {
			t.Errorf("%s: %+v, error %v", what, n, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	if got := stage.Answer(true); got != (payment.Answer{Status: 200, ContentType: "text/plain", Body: "1|OK"}) {
		t.Errorf("taken: %+v", got)
	}
	if got := stage.Answer(false); !strings.HasPrefix(got.Body, "0|") {
		t.Errorf("not taken: %+v", got)
	}
}
