package pay_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment/ecpay"
	"stampede/localstack/pay"
)

func (l *lab) ecpayKeys() ecpay.Keys {
	return ecpay.Keys{
		Merchant: l.env["ECPAY_MERCHANT_ID"], HashKey: l.env["ECPAY_HASH_KEY"], HashIV: l.env["ECPAY_HASH_IV"],
	}
}

// ecpay posts a signed form. Pairs of fields are added to it.
func (l *lab) ecpay(path string, pairs ...string) reply {
	l.Helper()
	form := url.Values{"MerchantID": {l.env["ECPAY_MERCHANT_ID"]}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	form.Set("CheckMacValue", l.ecpayKeys().Sign(form))
	return l.postForm(l.env["ECPAY_HOST"]+path, form)
}

// ecpayCheckout is what the buyer's browser posts, for 499 dollars.
func (l *lab) ecpayCheckout(number string, more ...string) reply {
	l.Helper()
	return l.ecpay("/Cashier/AioCheckOut/V5", append([]string{
		"MerchantTradeNo", number, "MerchantTradeDate", time.Now().UTC().Format("2006/01/02 15:04:05"),
		"PaymentType", "aio", "TotalAmount", "499", "TradeDesc", "促銷方案", "ItemName", "Tom's <Shop> 音箱",
		"ReturnURL", l.shop.URL + "/ecpay", "PaymentInfoURL", l.shop.URL + "/ecpay-issued",
		"ClientBackURL", l.shop.URL + "/back?a=1", "ChoosePayment", "ALL", "EncryptType", "1",
		"NeedExtraPaidInfo", "Y",
	}, more...)...)
}

func (l *lab) ecpayQuery(number string) url.Values {
	l.Helper()
	r := l.ecpay("/Cashier/QueryTradeInfo/V5", "MerchantTradeNo", number,
		"TimeStamp", strconv.FormatInt(time.Now().Unix(), 10))
	form, err := url.ParseQuery(r.body)
	if err != nil || form.Get("CheckMacValue") != l.ecpayKeys().Sign(form) {
		l.Fatalf("the answer to a query is not signed: %s, error %v", r.body, err)
	}
	return form
}

// ecpayAction asks for an action and returns the code of its answer.
func (l *lab) ecpayAction(action, number, dollars string) string {
	l.Helper()
	r := l.ecpay("/CreditDetail/DoAction", "MerchantTradeNo", number, "TradeNo", l.ecpayQuery(number).Get("TradeNo"),
		"Action", action, "TotalAmount", dollars)
	form, _ := url.ParseQuery(r.body)
	return form.Get("RtnCode")
}

// ecpayTold are the fields of a notice, which must be signed.
func (l *lab) ecpayTold(n told) url.Values {
	l.Helper()
	form := n.form()
	if form.Get("CheckMacValue") != l.ecpayKeys().Sign(form) {
		l.Errorf("a notice is not signed: %v", form)
	}
	return form
}

func TestECPay(t *testing.T) {
	t.Parallel()
	l := start(t)
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "10200095" {
		t.Errorf("before the form was posted: status %s", got)
	}
	page := l.ecpayCheckout("A1")
	for _, want := range []string{"499.00 TWD", "Tom&#39;s &lt;Shop&gt; 音箱", "Stampede", "width=device-width", "/pay\"",
		"/cancel\"", "/lapse\"", `value="ATM"`, `value="CVS"`} {
		if page.status != http.StatusOK || !strings.Contains(page.body, want) {
			t.Errorf("status %d, the page lacks %s:\n%s", page.status, want, page.body)
		}
	}
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "0" {
		t.Errorf("before it is paid: status %s", got)
	}
	if r := l.ecpayCheckout("A1"); r.status != http.StatusOK {
		t.Errorf("the same form again: status %d", r.status)
	}
	if r := l.ecpayCheckout("A1", "TotalAmount", "1"); r.status != http.StatusConflict {
		t.Errorf("the same number for less: status %d", r.status)
	}

	_, action, _ := strings.Cut(page.body, `action="`)
	action, _, _ = strings.Cut(action, `"`)
	if r := l.do("POST", l.server.URL()+action, nil, ""); r.status != http.StatusSeeOther ||
		r.header.Get("Location") != l.shop.URL+"/back?a=1" {
		t.Errorf("paid: status %d to %s", r.status, r.header.Get("Location"))
	}
	form := l.ecpayTold(l.wait(1)[0])
	for name, want := range map[string]string{
		"RtnCode": "1", "MerchantTradeNo": "A1", "TradeAmt": "499", "SimulatePaid": "0", "MerchantID": "3002607",
		"PaymentType": "Credit_CreditCard", "PaymentTypeChargeFee": "9.98",
	} {
		if form.Get(name) != want {
			t.Errorf("told %s=%s, want %s", name, form.Get(name), want)
		}
	}
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "1" {
		t.Errorf("paid: status %s", got)
	}
	for _, step := range []struct{ action, dollars, code string }{
		{"R", "100", "1"}, {"R", "400", "10200047"}, {"R", "399", "1"}, {"E", "499", "10200047"},
	} {
		if got := l.ecpayAction(step.action, "A1", step.dollars); got != step.code {
			t.Errorf("%s of %s: code %s, want %s", step.action, step.dollars, got, step.code)
		}
	}
	card := l.ecpay("/CreditDetail/QueryTrade/V2", "CreditRefundId", form.Get("gwsr"), "CreditAmount", "499",
		"CreditCheckCode", l.env["ECPAY_CREDIT_CHECK_CODE"])
	if !strings.Contains(card.body, `"clsamt":0`) {
		t.Errorf("the card: %s", card.body)
	}
	l.wantBooks("ecpay paid A1 49900 TWD; refund  of A1 10000 by api; refund  of A1 39900 by api")
}

func TestECPayIssues(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.ecpayCheckout("A1")
	l.ecpayCheckout("A2", "IgnorePayment", "ATM#BARCODE")
	l.buyer("issue", pay.ECPay, "A1")
	l.buyer("issue", pay.ECPay, "A2")
	l.quiet()
	codes := map[string]string{}
	for _, n := range l.shop.told() {
		form := l.ecpayTold(n)
		codes[form.Get("MerchantTradeNo")] = n.path + " " + form.Get("RtnCode")
	}
	if codes["A1"] != "/ecpay-issued 2" || codes["A2"] != "/ecpay-issued 10100073" {
		t.Errorf("told %v", codes)
	}
	l.buyer("pay", pay.ECPay, "A1")
	if form := l.ecpayTold(l.wait(3)[2]); form.Get("RtnCode") != "1" || form.Get("PaymentType") != "ATM_TAISHIN" {
		t.Errorf("told %v", form)
	}
	// What was paid at a cash machine goes back by hand.
	if got := l.ecpayAction("R", "A1", "499"); got == "1" {
		t.Error("the API has refunded it")
	}
	l.admin("refund-by-hand", `{"provider":"ecpay","number":"A1","refund":"R1"}`)
	l.wantBooks("ecpay paid A1 49900 TWD; refund R1 of A1 49900 by hand")
}

// TestECPayUnsettled: before it is settled, a payment is given up as a whole.
func TestECPayUnsettled(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.ecpayCheckout("A1")
	l.ecpayCheckout("A2")
	l.fault(`{"kind":"unsettled"}`)
	l.buyer("pay", pay.ECPay, "A1")
	l.buyer("pay", pay.ECPay, "A2")
	codes := l.ecpayAction("R", "A1", "499") + " " + l.ecpayAction("N", "A1", "499") + " " +
		l.ecpayAction("E", "A1", "499") + " " + l.ecpayAction("N", "A1", "499")
	if codes != "10200047 10200047 1 1" {
		t.Errorf("codes %s", codes)
	}
	if got := l.admin("settle", `{"number":"A2"}`); got != "1" {
		t.Errorf("settled %s", got)
	}
	if got := l.ecpayAction("R", "A2", "1"); got != "1" {
		t.Errorf("settled: code %s", got)
	}
	l.wantBooks("ecpay paid A1 49900 TWD; ecpay paid A2 49900 TWD; " +
		"refund  of A1 49900 by api; refund  of A2 100 by api")
}

func TestECPayRefuses(t *testing.T) {
	t.Parallel()
	l := start(t)
	for what, pair := range map[string][2]string{
		"another merchant":       {"MerchantID", "3002599"},
		"a number that is long":  {"MerchantTradeNo", strings.Repeat("A", 21)},
		"a number with a dash":   {"MerchantTradeNo", "A-1"},
		"cents":                  {"TotalAmount", "1.5"},
		"nothing":                {"TotalAmount", "0"},
		"MD5":                    {"EncryptType", "0"},
		"no date":                {"MerchantTradeDate", "2026-01-01"},
		"somebody else's server": {"ReturnURL", "http://192.0.2.1/x"},
		"a name":                 {"ReturnURL", "http://example.com/x"},
		"a file":                 {"PaymentInfoURL", "file:///etc/passwd"},
	} {
		if r := l.ecpayCheckout("A1", pair[0], pair[1]); r.status != http.StatusBadRequest {
			t.Errorf("%s: status %d", what, r.status)
		}
	}
	r := l.postForm(l.env["ECPAY_HOST"]+"/Cashier/QueryTradeInfo/V5", url.Values{
		"MerchantID": {"3002607"}, "MerchantTradeNo": {"A1"}, "CheckMacValue": {strings.Repeat("0", 64)},
	})
	if r.body != "0|CheckMacValue Error" {
		t.Errorf("not signed: %s", r.body)
	}
	old := strconv.FormatInt(time.Now().Add(-4*time.Minute).Unix(), 10)
	r = l.ecpay("/Cashier/QueryTradeInfo/V5", "MerchantTradeNo", "A1", "TimeStamp", old)
	if r.body != "0|TimeStamp Error" {
		t.Errorf("an old query: %s", r.body)
	}
	if books := l.server.Books(); len(books.Attempts) != 0 {
		t.Errorf("the books have %v", books.Attempts)
	}
}

// TestECPayDeclined: a card is declined, and the next is not.
func TestECPayDeclined(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.ecpayCheckout("A1", "ChoosePayment", "Credit")
	l.buyer("decline", pay.ECPay, "A1")
	l.buyer("pay", pay.ECPay, "A1")
	l.quiet()
	codes := ""
	for _, n := range l.shop.told() {
		codes += l.ecpayTold(n).Get("RtnCode") + " "
	}
	if codes != "10100058 1 " {
		t.Errorf("codes %s", codes)
	}
	l.wantBooks("ecpay paid A1 49900 TWD")
}

// TestECPayNumberFirst: who cannot pay by card gets a number before, and the page shows it.
func TestECPayNumberFirst(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.ecpayCheckout("A1", "ChoosePayment", "CVS")
	l.buyer("pay", pay.ECPay, "A1")
	all := l.wait(2)
	if got := all[0].form().Get("RtnCode") + " " + all[1].form().Get("RtnCode"); got != "10100073 1" {
		t.Errorf("codes %s", got)
	}
	if code := all[0].form().Get("PaymentNo"); code == "" ||
		!strings.Contains(l.ecpayCheckout("A1", "ChoosePayment", "CVS").body, code) {
		t.Errorf("the page does not show the code %s", code)
	}
}
