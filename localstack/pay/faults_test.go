package pay_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/localstack/pay"
)

// create makes an attempt known to a provider, as the shop or the buyer's browser does, and returns the provider's id
// of it, where the shop learns one.
func (l *lab) create(provider, number string) (id string) {
	l.Helper()
	switch provider {
	case pay.ECPay:
		l.ecpayCheckout(number)
	case pay.PayPal:
		return l.paypalCreate(number).ID
	case pay.Alipay:
		l.do("GET", l.alipayPage(number), nil, "")
	case pay.Stripe:
		return l.stripeCreate(number).ID
	}
	return ""
}

// genuine reports whether a notice is signed by its provider.
func (l *lab) genuine(n told) bool {
	l.Helper()
	form := n.form()
	switch n.path {
	case "/ecpay", "/ecpay-issued":
		return form.Get("CheckMacValue") == l.ecpayKeys().Sign(form)
	case "/alipay":
		return l.alipaySigned(alipayText(form, "sign", "sign_type"), form.Get("sign"))
	case "/paypal":
		return strings.Contains(l.postback(n, string(n.body)), "SUCCESS")
	}
	return strings.HasSuffix(n.header.Get("Stripe-Signature"), l.stripeSum(n))
}

var allProviders = []string{pay.ECPay, pay.PayPal, pay.Alipay, pay.Stripe}

// TestRepeats: a notice is repeated until it is acknowledged as its provider wants it, and given up after some tries.
func TestRepeats(t *testing.T) {
	t.Parallel()
	for _, provider := range allProviders {
		l := start(t)
		l.shop.refuse = 2
		l.create(provider, "A1")
		l.buyer("pay", provider, "A1")
		counts := l.quiet()
		all := l.shop.told()
		if len(all) != 3 || counts != (pay.Counts{Acknowledged: 1}) {
			t.Errorf("%s: told %d times: %+v", provider, len(all), counts)
		}
		for _, n := range all {
			if !l.genuine(n) || provider != pay.Stripe && string(n.body) != string(all[0].body) {
				t.Errorf("%s: told another thing: %s", provider, n.body)
			}
		}

		l.shop.refuse = 100
		l.create(provider, "A2")
		l.buyer("pay", provider, "A2")
		if counts := l.quiet(); counts.GivenUp != 1 || len(l.shop.told()) != 7 {
			t.Errorf("%s: told %d times: %+v", provider, len(l.shop.told()), counts)
		}
	}
}

// TestRedirectIsNoAcknowledgement, and leads nowhere.
func TestRedirectIsNoAcknowledgement(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.admin("webhooks", `{"stripe":"`+l.shop.URL+`/redirect"}`)
	l.shop.Config.Handler = http.RedirectHandler(l.shop.URL+"/stripe", http.StatusTemporaryRedirect)
	l.create(pay.Stripe, "A1")
	l.buyer("pay", pay.Stripe, "A1")
	if counts := l.quiet(); counts.GivenUp != 1 {
		t.Errorf("%+v", counts)
	}
}

func TestNoticeFaults(t *testing.T) {
	t.Parallel()
	for _, provider := range allProviders {
		l := start(t)
		for i, test := range []struct {
			fault string
			told  int
		}{{"notice_twice", 2}, {"notice_never", 0}, {"notice_late", 1}} {
			before := len(l.shop.told())
			number := fmt.Sprintf("A%d", i)
			l.create(provider, number)
			l.fault(`{"kind":"` + test.fault + `","delay_ms":30}`)
			begun := time.Now()
			l.buyer("pay", provider, number)
			l.quiet()
			if got := len(l.shop.told()) - before; got != test.told {
				t.Errorf("%s at %s: told %d times, want %d", test.fault, provider, got, test.told)
			}
			if took := time.Since(begun); test.fault == "notice_late" && took < 30*time.Millisecond {
				t.Errorf("%s at %s: after %s", test.fault, provider, took)
			}
			l.happened(provider+" "+test.fault, 1)
			l.fault("")
		}
	}
}

// TestTwin: PayPal and Stripe may tell of one change by two events.
func TestTwin(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{pay.PayPal, pay.Stripe} {
		l := start(t)
		l.create(provider, "A1")
		l.fault(`{"kind":"notice_twin"}`)
		l.buyer("pay", provider, "A1")
		l.quiet()
		all := l.shop.told()
		if len(all) != 2 || !l.genuine(all[0]) || !l.genuine(all[1]) || string(all[0].body) == string(all[1].body) ||
			all[0].event() != all[1].event() {
			t.Errorf("%s: told %v", provider, all)
		}
	}
}

// TestCaptureRefused: the buyer's means are declined, and he may approve by others.
func TestCaptureRefused(t *testing.T) {
	t.Parallel()
	l := start(t)
	order := "/v2/checkout/orders/" + l.create(pay.PayPal, "A1")
	l.buyer("approve", pay.PayPal, "A1")
	l.fault(`{"kind":"refused","call":"capture","count":1}`)
	_, declined := l.paypal("POST", order+"/capture", "A1", "{}")
	if len(declined.Details) != 1 || declined.Details[0].Issue != "INSTRUMENT_DECLINED" {
		t.Errorf("declined: %+v", declined)
	}
	l.wantBooks("")
	if _, done := l.paypal("POST", order+"/capture", "A1", "{}"); done.Status != "COMPLETED" {
		t.Errorf("captured: %+v", done)
	}
}

// TestForged: what somebody else has signed comes beside the true notice, or without one.
func TestForged(t *testing.T) {
	t.Parallel()
	for _, provider := range allProviders {
		l := start(t)
		l.create(provider, "A1")
		l.buyer("forge", provider, "A1")
		l.quiet()
		if provider == pay.PayPal {
			l.admin("faults", `{"faults":[{"kind":"notice_forged","provider":"paypal"}]}`)
		} else {
			l.fault(`{"kind":"notice_forged"}`)
		}
		l.buyer("pay", provider, "A1")
		counts := l.quiet()
		genuine := 0
		for _, n := range l.shop.told() {
			if l.genuine(n) {
				genuine++
			}
		}
		// This shop takes everything, and that is seen.
		if want := (pay.Counts{Acknowledged: 1, Forged: 2, ForgedTaken: 2}); counts != want || genuine != 1 {
			t.Errorf("%s: %d genuine, %+v", provider, genuine, counts)
		}
	}
}

// TestOutOfOrder: the first notice comes after the second.
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.create(pay.ECPay, "A1")
	l.create(pay.ECPay, "A2")
	l.fault(`{"kind":"notice_out_of_order","count":1,"delay_ms":60000}`)
	l.buyer("pay", pay.ECPay, "A1")
	l.buyer("pay", pay.ECPay, "A2")
	l.quiet()
	all := l.shop.told()
	if len(all) != 2 || all[0].form().Get("MerchantTradeNo") != "A2" {
		t.Errorf("told %v", all)
	}
	// Without another one it comes after the delay.
	l.create(pay.ECPay, "A3")
	l.fault(`{"kind":"notice_out_of_order","count":1,"delay_ms":1}`)
	l.buyer("pay", pay.ECPay, "A3")
	l.wait(3)
}

// TestInOrder: of one attempt the notices come in their order.
func TestInOrder(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.fault(`{"kind":"issued_before_paid"}`)
	for i := range 20 {
		number := fmt.Sprintf("A%d", i)
		l.create(pay.ECPay, number)
		l.buyer("pay", pay.ECPay, number)
	}
	l.quiet()
	l.happened("ecpay issued_before_paid", 20)
	codes := map[string]string{}
	for _, n := range l.shop.told() {
		codes[n.form().Get("MerchantTradeNo")] += n.form().Get("RtnCode") + " "
	}
	for number, got := range codes {
		if got != "2 1 " {
			t.Errorf("%s: codes %s", number, got)
		}
	}
}

func TestSimulated(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.create(pay.ECPay, "A1")
	l.fault(`{"kind":"simulated","count":1}`)
	l.buyer("pay", pay.ECPay, "A1")
	if form := l.ecpayTold(l.wait(1)[0]); form.Get("SimulatePaid") != "1" || form.Get("RtnCode") != "1" {
		t.Errorf("told %v", form)
	}
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "0" {
		t.Errorf("simulated: status %s", got)
	}
	l.wantBooks("")
	l.buyer("pay", pay.ECPay, "A1")
	l.wantBooks("ecpay paid A1 49900 TWD")
}

// TestNoticeBeforeAnswer: the shop knows of a capture before its call is answered.
func TestNoticeBeforeAnswer(t *testing.T) {
	t.Parallel()
	l := start(t)
	id := l.create(pay.PayPal, "A1")
	l.buyer("pay", pay.PayPal, "A1")
	l.wait(1)
	l.fault(`{"kind":"notice_before_answer","provider":"paypal"}`)
	if _, done := l.paypal("POST", "/v2/checkout/orders/"+id+"/capture", "A1", "{}"); done.Status != "COMPLETED" {
		t.Errorf("captured: %+v", done)
	}
	if got := len(l.shop.told()); got != 2 {
		t.Errorf("told %d times when the call was answered", got)
	}
	l.happened("paypal notice_before_answer capture", 1)
}

// TestShopAsksBack: who is told may ask before he answers.
func TestShopAsksBack(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.create(pay.ECPay, "A1")
	status := make(chan string, 1)
	l.shop.before = func(told) { status <- l.ecpayQuery("A1").Get("TradeStatus") }
	l.buyer("pay", pay.ECPay, "A1")
	if got := <-status; got != "1" {
		t.Errorf("asked back: status %s", got)
	}
	l.quiet()
}

// lost makes a request whose answer must be cut.
func (l *lab) lost(what, method, address string, header http.Header, body string) {
	l.Helper()
	if r, err := do(method, address, header, body); !errors.Is(err, io.ErrUnexpectedEOF) {
		l.Errorf("%s: status %d, error %v", what, r.status, err)
	}
}

// TestUnknownCreate: the answer is lost, and the attempt is there or not.
func TestUnknownCreate(t *testing.T) {
	t.Parallel()
	for fault, there := range map[string]int{"answer_lost": 1, "request_lost": 0} {
		l := start(t)
		l.fault(`{"kind":"` + fault + `","call":"create"}`)
		paypalCall, token := l.env["PAYPAL_HOST"]+"/v2/checkout/orders", l.paypalToken()
		l.lost(fault, "POST", paypalCall, paypalHeader(token, "A1"), l.paypalOrder("A1"))
		l.lost(fault, "GET", l.alipayPage("A2"), nil, "")
		l.lost(fault, "POST", l.env["STRIPE_HOST"]+"/v1/checkout/sessions", http.Header{
			"Authorization": {"Bearer " + l.env["STRIPE_SECRET_KEY"]}, "Idempotency-Key": {"A3"},
		}, l.stripeSession("A3").Encode())
		if got := len(l.server.Books().Attempts); got != 3*there {
			t.Errorf("%s: %d attempts", fault, got)
		}
		l.fault("")
		l.paypal("POST", "/v2/checkout/orders", "A1", l.paypalOrder("A1"))
		l.do("GET", l.alipayPage("A2"), nil, "")
		l.stripe("POST", "/v1/checkout/sessions", "A3", l.stripeSession("A3"))
		if got := len(l.server.Books().Attempts); got != 3 {
			t.Errorf("%s, and again: %d attempts", fault, got)
		}
	}
}

// refundCall refunds a whole payment as R1, and returns the request.
func (l *lab) refundCall(provider, id string) (address string, header http.Header, body string) {
	l.Helper()
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	switch provider {
	case pay.PayPal:
		_, paid := l.paypal("GET", "/v2/checkout/orders/"+id, "", "")
		path := "/v2/payments/captures/" + paid.Units[0].Payments.Captures[0].ID + "/refund"
		return l.env["PAYPAL_HOST"] + path, paypalHeader(l.paypalToken(), "R1"), "{}"
	case pay.Alipay:
		return l.env["ALIPAY_GATEWAY"], form, l.alipayRequest("alipay.trade.refund",
			`{"out_trade_no":"A1","out_request_no":"R1","refund_amount":"88.88"}`).Encode()
	case pay.Stripe:
		_, paid := l.stripe("GET", "/v1/checkout/sessions/"+id, "", nil)
		form.Set("Authorization", "Bearer "+l.env["STRIPE_SECRET_KEY"])
		form.Set("Idempotency-Key", "R1")
		return l.env["STRIPE_HOST"] + "/v1/refunds", form, url.Values{"payment_intent": {paid.Intent}}.Encode()
	}
	fields := url.Values{
		"MerchantID": {"3002607"}, "MerchantTradeNo": {"A1"}, "TradeNo": {l.ecpayQuery("A1").Get("TradeNo")},
		"Action": {"R"}, "TotalAmount": {"499"},
	}
	fields.Set("CheckMacValue", l.ecpayKeys().Sign(fields))
	return l.env["ECPAY_HOST"] + "/CreditDetail/DoAction", form, fields.Encode()
}

// paid is an attempt A1 that was paid.
func (l *lab) paid(provider string) (id string) {
	l.Helper()
	id = l.create(provider, "A1")
	l.buyer("pay", provider, "A1")
	if provider == pay.PayPal {
		l.paypal("POST", "/v2/checkout/orders/"+id+"/capture", "A1", "{}")
	}
	return id
}

// TestUnknownRefund: the answer is lost, and the money went back or not. Asked again with the same number it is there
// once, but at ECPay, which has no numbers, it is refused.
func TestUnknownRefund(t *testing.T) {
	t.Parallel()
	for _, provider := range allProviders {
		for fault, there := range map[string]int{"answer_lost": 1, "request_lost": 0} {
			l := start(t)
			address, header, body := l.refundCall(provider, l.paid(provider))
			l.fault(`{"kind":"` + fault + `","call":"refund"}`)
			l.lost(fault+" at "+provider, "POST", address, header, body)
			if got := len(l.server.Books().Refunds); got != there {
				t.Errorf("%s at %s: %d refunds", fault, provider, got)
			}
			l.fault("")
			l.do("POST", address, header, body)
			if got := len(l.server.Books().Refunds); got != 1 {
				t.Errorf("%s at %s, and again: %d refunds", fault, provider, got)
			}
		}
	}
}

// TestRefundRefused: nothing goes back, also when it is asked for again.
func TestRefundRefused(t *testing.T) {
	t.Parallel()
	for _, provider := range allProviders {
		l := start(t)
		address, header, body := l.refundCall(provider, l.paid(provider))
		l.fault(`{"kind":"refused","call":"refund","count":1}`)
		first, second := l.do("POST", address, header, body), l.do("POST", address, header, body)
		if first.body != second.body && provider != pay.PayPal || first.status != second.status {
			t.Errorf("%s: %v, then %v", provider, first, second)
		}
		if got := len(l.server.Books().Refunds); got != 0 {
			t.Errorf("%s: %d refunds", provider, got)
		}
		l.happened(provider+" refused refund", 1)
	}
}

// TestPaidWhileClosing: the close finds it paid.
func TestPaidWhileClosing(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, provider := range []string{pay.ECPay, pay.Alipay} {
		l.create(provider, "A1")
	}
	session := l.create(pay.Stripe, "A1")
	l.fault(`{"kind":"paid_while_closing"}`)
	if got := l.alipay("alipay.trade.close", `{"out_trade_no":"A1"}`)["sub_code"]; got != "ACQ.TRADE_HAS_SUCCESS" {
		t.Errorf("alipay: %s", got)
	}
	if _, got := l.stripe("POST", "/v1/checkout/sessions/"+session+"/expire", "", nil); got.Error.Type == "" {
		t.Errorf("stripe: %+v", got)
	}
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "1" {
		t.Errorf("ecpay: %s", got)
	}
	l.wantBooks("alipay paid A1 8888 CNY; stripe paid A1 1500 USD; ecpay paid A1 49900 TWD")
	l.wait(3)
}

// TestTrouble: a provider that does not know says so, and nothing else.
func TestTrouble(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.paid(pay.ECPay)
	l.paid(pay.Alipay)
	order, session := l.paid(pay.PayPal), l.paid(pay.Stripe)
	l.fault(`{"kind":"trouble","call":"query"}`)
	if got := l.alipayStatus("A1"); got != "aop.ACQ.SYSTEM_ERROR" {
		t.Errorf("alipay: %s", got)
	}
	if status, _ := l.paypal("GET", "/v2/checkout/orders/"+order, "", ""); status != http.StatusInternalServerError {
		t.Errorf("paypal: status %d", status)
	}
	status, _ := l.stripe("GET", "/v1/checkout/sessions/"+session, "", nil)
	if status != http.StatusInternalServerError {
		t.Errorf("stripe: status %d", status)
	}
	if r := l.ecpay("/Cashier/QueryTradeInfo/V5", "MerchantTradeNo", "A1"); r.status != http.StatusInternalServerError {
		t.Errorf("ecpay: status %d", r.status)
	}
}

// TestDownAndSlow: a provider that is down cuts connections and tells nothing, and the others are not.
func TestDownAndSlow(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.create(pay.ECPay, "A1")
	l.fault(`{"kind":"down","provider":"ecpay"}`)
	if r, err := do("POST", l.env["ECPAY_HOST"]+"/Cashier/QueryTradeInfo/V5", nil, ""); err == nil {
		t.Errorf("down: status %d", r.status)
	}
	if got := l.alipayStatus("A1"); got != "ACQ.TRADE_NOT_EXIST" {
		t.Errorf("the others: %s", got)
	}
	l.buyer("pay", pay.ECPay, "A1")
	if counts := l.server.Counts(); counts.Pending != 1 || len(l.shop.told()) != 0 {
		t.Errorf("down, and told: %+v", counts)
	}
	l.fault(`{"kind":"slow","provider":"ecpay","delay_ms":30}`)
	l.wait(1)
	begun := time.Now()
	if got := l.ecpayQuery("A1").Get("TradeStatus"); got != "1" || time.Since(begun) < 30*time.Millisecond {
		t.Errorf("slow: status %s after %s", got, time.Since(begun))
	}
}

// TestSeed: the same seed makes the same faults happen.
func TestSeed(t *testing.T) {
	t.Parallel()
	var runs []string
	for range 2 {
		l := start(t)
		l.fault(`{"kind":"trouble","call":"query","probability":0.5}`)
		run := ""
		for range 30 {
			run += fmt.Sprint(l.alipay("alipay.trade.query", `{"out_trade_no":"A1"}`)["code"], " ")
		}
		runs = append(runs, run)
	}
	if runs[0] != runs[1] || !strings.Contains(runs[0], "20000") || !strings.Contains(runs[0], "40004") {
		t.Errorf("runs differ, or are without or full of faults:\n%s\n%s", runs[0], runs[1])
	}
}
