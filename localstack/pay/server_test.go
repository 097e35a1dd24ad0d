package pay_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"stampede/localstack/pay"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0", "127.0.0.1", "x"} {
		if s, err := pay.Start(pay.Options{Addr: addr}); err == nil {
			_ = s.Close()
			t.Errorf("%q was accepted", addr)
		}
	}
	for _, webhook := range []string{"http://example.com/", "http://192.0.2.1/", "ftp://127.0.0.1/", "x"} {
		if s, err := pay.Start(pay.Options{Webhooks: map[string]string{pay.Stripe: webhook}}); err == nil {
			_ = s.Close()
			t.Errorf("the webhook %q was accepted", webhook)
		}
	}
}

// TestRestart: a provider that was down for real has its books, its address and its keys, and tells what it has not
// told before.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := start(t)
	url := l.server.URL()
	l.create(pay.ECPay, "A1")
	l.create(pay.ECPay, "A2")
	token := l.paypalToken()
	l.fault(`{"kind":"notice_late","delay_ms":300000},{"kind":"notice_twice"}`)
	l.buyer("pay", pay.ECPay, "A1")
	l.fault("")
	stopped := make(chan struct{})
	l.shop.before = func(told) { <-stopped } // the shop is slow to answer when the provider is killed
	l.buyer("pay", pay.ECPay, "A2")
	l.wait(1)
	l.server.Kill()
	l.server.Kill()
	close(stopped)
	if r, err := do("GET", url+"/admin/books", nil, ""); err == nil {
		t.Errorf("killed: status %d", r.status)
	}

	for range 2 {
		if err := l.server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if l.server.URL() != url {
		t.Errorf("started at %s, was at %s", l.server.URL(), url)
	}
	l.wantBooks("ecpay paid A1 49900 TWD; ecpay paid A2 49900 TWD")
	if form := l.ecpayTold(l.wait(2)[1]); form.Get("MerchantTradeNo") != "A2" {
		t.Errorf("told %v", form)
	}
	l.eventually("the late notices alone are pending", func() bool { return l.server.Counts().Pending == 2 })
	r := l.do("GET", l.env["PAYPAL_HOST"]+"/v2/checkout/orders/X", paypalHeader(token, ""), "")
	if r.status != http.StatusNotFound {
		t.Errorf("the token of before: status %d", r.status)
	}

	if err := l.server.Close(); err != nil {
		t.Error(err)
	}
	if err := l.server.Start(); err == nil {
		t.Error("started after it was closed")
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.create(pay.ECPay, "A1")
	header := http.Header{"Content-Type": {"application/json"}}
	for path, body := range map[string]string{
		"pay":            `{"provider":"ecpay","number":"A2"}`,
		"approve":        `{"provider":"ecpay","number":"A1"}`,
		"issue":          `{"provider":"ecpay","number":"A1","method":"CHEQUE"}`,
		"forge":          `{"provider":"nobody","number":"A1"}`,
		"refund-by-hand": `{"provider":"ecpay","number":"A1"}`,
		"webhooks":       `{"stripe":"http://192.0.2.1/"}`,
		"faults":         `{"faults":[{"kind":"x"}]}`,
	} {
		r := l.do("POST", l.server.URL()+"/admin/"+path, header, body)
		if r.status != http.StatusConflict || !strings.Contains(r.body, `"error"`) {
			t.Errorf("%s %s: status %d: %s", path, body, r.status, r.body)
		}
	}
	for _, fault := range []string{`"call":"x"`, `"provider":"x"`, `"probability":2`, `"count":-1`, `"delay_ms":-1`} {
		r := l.do("POST", l.server.URL()+"/admin/faults", header, `{"faults":[{"kind":"slow",`+fault+`}]}`)
		if r.status != http.StatusConflict {
			t.Errorf("a fault with %s: status %d", fault, r.status)
		}
	}
	if r := l.do("POST", l.server.URL()+"/admin/pay", header, `{"numbr":"A1"}`); r.status != http.StatusBadRequest {
		t.Errorf("an unknown field: status %d", r.status)
	}
	large := `{"number":"` + strings.Repeat("x", 300<<10) + `"}`
	if r := l.do("POST", l.server.URL()+"/admin/pay", header, large); r.status != http.StatusBadRequest {
		t.Errorf("a large body: status %d", r.status)
	}
	if r := l.do("POST", l.env["ECPAY_HOST"]+"/CreditDetail/DoAction", header, large); r.status !=
		http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: status %d", r.status)
	}
	foreign := http.Header{"Origin": {"http://shop.example"}, "Sec-Fetch-Site": {"cross-site"}}
	r := l.do("POST", l.server.URL()+"/admin/pay", foreign, `{"provider":"ecpay","number":"A1"}`)
	if r.status != http.StatusForbidden {
		t.Errorf("from a page of somebody else: status %d", r.status)
	}
	state := l.do("GET", l.server.URL()+"/admin/state", nil, "")
	for _, want := range []string{`"ecpay_queries_too_soon":0`, l.shop.URL + "/stripe"} {
		if !strings.Contains(state.body, want) {
			t.Errorf("state: %s, without %s", state.body, want)
		}
	}
	l.wantBooks("")
}

// TestOperatorPaysTwice: the books show what the operator does, also if it is too much.
func TestOperatorPaysTwice(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.paid(pay.ECPay)
	for range 2 {
		l.admin("refund-by-hand", `{"provider":"ecpay","number":"A1","refund":"R1","amount":49900}`)
	}
	l.wantBooks("ecpay paid A1 49900 TWD; refund R1 of A1 49900 by hand; refund R1 of A1 49900 by hand")
}

// TestAtOnce: of buyers who pay at once one does, and of refunds with one number one is made.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	l := start(t)
	session := l.create(pay.Stripe, "A1")
	l.create(pay.Alipay, "A1")
	var wg sync.WaitGroup
	for range 20 {
		for _, provider := range []string{pay.Stripe, pay.Alipay} {
			wg.Go(func() { _, _ = l.server.Act("pay", provider, "A1", "") })
		}
	}
	wg.Wait()
	address, header, body := l.refundCall(pay.Stripe, session)
	other, otherHeader, otherBody := l.refundCall(pay.Alipay, "")
	for range 10 {
		wg.Go(func() { _, _ = do("POST", address, header.Clone(), body) })
		wg.Go(func() { _, _ = do("POST", other, otherHeader.Clone(), otherBody) })
	}
	wg.Wait()
	if books := l.server.Books(); len(books.Payments) != 2 || len(books.Refunds) != 2 {
		t.Errorf("the books say %+v", books)
	}
	if counts := l.quiet(); counts != (pay.Counts{Acknowledged: 4}) {
		t.Errorf("%+v", counts)
	}
}
