package pay_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
	"stampede/internal/payment/providers"
	"stampede/localstack/pay"
)

var currencies = map[string]string{pay.ECPay: "TWD", pay.Alipay: "CNY", pay.PayPal: "EUR", pay.Stripe: "USD"}

// clients are the shop's, set up by the variables of the server.
func (l *lab) clients() []payment.Provider {
	l.Helper()
	set, err := providers.FromEnv(func(name string) string { return l.env[name] })
	if err != nil || len(set.All) != 4 || !set.TestMode {
		l.Fatalf("%+v, error %v", set, err)
	}
	return set.All
}

// begin starts an attempt and opens its page, as the buyer's browser does.
func (l *lab) begin(p payment.Provider, number, method string) payment.Attempt {
	l.Helper()
	a := payment.Attempt{
		Number: number, Method: method, Amount: 123400, Currency: currencies[p.Name()], Item: "a & b 音",
		Expires: time.Now().Add(72 * time.Hour), NoticeURL: l.shop.URL + "/" + p.Name(), BackURL: l.shop.URL + "/back",
	}
	page, err := p.Start(l.Context(), a)
	if err != nil {
		l.Fatalf("%s: %v", p.Name(), err)
	}
	a.Reference = page.Reference
	var r reply
	if page.Form != nil {
		r = l.postForm(page.URL, page.Form)
	} else {
		r = l.do("GET", page.URL, nil, "")
	}
	if r.status != http.StatusOK {
		l.Fatalf("%s: status %d: %s", page.URL, r.status, r.body)
	}
	return a
}

// lastRead is the last notice, as a client reads it.
func (l *lab) lastRead(p payment.Provider) payment.Notice {
	l.Helper()
	l.quiet()
	all := l.shop.told()
	n, err := p.ReadNotice(l.Context(), all[len(all)-1].header, all[len(all)-1].body)
	if err != nil {
		l.Errorf("%s: %v", p.Name(), err)
	}
	return n
}

// TestClients: the shop's clients pay, are told, ask, close and refund, each at its stand-in.
func TestClients(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, p := range l.clients() {
		a := l.begin(p, "A1", "")
		if state, _, err := p.Query(t.Context(), a); state != payment.Open || err != nil {
			t.Errorf("%s: open: %s, error %v", p.Name(), state, err)
		}
		l.buyer("pay", p.Name(), "A1")
		state, asked, err := p.Capture(t.Context(), a)
		if state != payment.Taken || err != nil || asked.Amount != a.Amount || asked.Attempt != a.Number {
			t.Errorf("%s: paid: %s, %+v, error %v", p.Name(), state, asked, err)
		}
		if told := l.lastRead(p); told.EventKey != asked.EventKey || told.Kind != payment.Paid {
			t.Errorf("%s: told %+v, asked %+v", p.Name(), told, asked)
		}
		if state, _, err := p.Close(t.Context(), a); state != payment.Taken || err != nil {
			t.Errorf("%s: closed: %s, error %v", p.Name(), state, err)
		}

		a.Reference = asked.Reference
		r := payment.Refund{Number: "R1", Of: a, Amount: a.Amount}
		l.fault(`{"kind":"answer_lost","call":"refund","count":1}`)
		if err := p.Refund(t.Context(), r); !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("%s: refund, its answer lost: error %v", p.Name(), err)
		}
		for range 2 {
			if err := p.Refund(t.Context(), r); err != nil {
				t.Errorf("%s: refund: %v", p.Name(), err)
			}
		}
		if made, err := p.Refunded(t.Context(), r); !made || err != nil {
			t.Errorf("%s: refunded: %t, error %v", p.Name(), made, err)
		}
		if told := l.lastRead(p); p.Name() != pay.ECPay && told.Kind != payment.Refunded {
			t.Errorf("%s: told of the refund: %+v", p.Name(), told)
		}
		l.fault("")
	}
	l.wantBooks("ecpay paid A1 123400 TWD; paypal paid A1 123400 EUR; alipay paid A1 123400 CNY; " +
		"stripe paid A1 123400 USD; refund  of A1 123400 by api" + strings.Repeat("; refund R1 of A1 123400 by api", 3))
}

// TestClientsClose: what is not paid is closed, or is found paid if the buyer is quicker.
func TestClientsClose(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, p := range l.clients() {
		if p.Name() == pay.ECPay { // which has no close
			continue
		}
		a := l.begin(p, "A1", "")
		for range 2 {
			if state, _, err := p.Close(t.Context(), a); state != payment.Lapsed || err != nil {
				t.Errorf("%s: %s, error %v", p.Name(), state, err)
			}
		}
		if p.Name() == pay.PayPal { // which takes no money but by a capture
			continue
		}
		b := l.begin(p, "B1", "")
		l.fault(`{"kind":"paid_while_closing"}`)
		if state, n, err := p.Close(t.Context(), b); state != payment.Taken || n.Amount != b.Amount || err != nil {
			t.Errorf("%s: paid while closing: %s, %+v, error %v", p.Name(), state, n, err)
		}
		l.fault("")
	}
}

// TestClientsAtECPay: numbers are issued before they are paid, and what is not settled is given up.
func TestClientsAtECPay(t *testing.T) {
	t.Parallel()
	l := start(t)
	p := l.clients()[0]
	for _, method := range []string{"atm", "cvs", "barcode"} {
		a := l.begin(p, "A"+method, method)
		l.buyer("issue", pay.ECPay, a.Number)
		if n := l.lastRead(p); n.Kind != payment.Issued || n.Attempt != a.Number {
			t.Errorf("%s: told %+v", method, n)
		}
	}
	l.fault(`{"kind":"unsettled"}`)
	a := l.begin(p, "B1", "")
	l.buyer("pay", pay.ECPay, "B1")
	for range 2 {
		if err := p.Refund(t.Context(), payment.Refund{Number: "R1", Of: a, Amount: a.Amount}); err != nil {
			t.Errorf("refund: %v", err)
		}
	}
	l.wantBooks("ecpay paid B1 123400 TWD; refund  of B1 123400 by api")
}
