package ecpay

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"stampede/internal/payment"
)

func TestCheckout(t *testing.T) {
	c := &Client{Keys: stage, Host: Stage, now: func() time.Time {
		return time.Date(2026, 11, 28, 16, 0, 5, 0, time.UTC)
	}}
	a := Attempt{
		Number: "A1B2", Amount: 49900, Item: "音箱 & 線", NoticeURL: "https://shop.example/webhooks/ecpay",
		BackURL: "https://shop.example/orders/1",
	}
	address, form, err := c.Checkout(a)
	if err != nil || address != "https://payment-stage.ecpay.com.tw/Cashier/AioCheckOut/V5" {
		t.Fatalf("%s, error %v", address, err)
	}
	for name, want := range map[string]string{
		"MerchantID": "3002607", "MerchantTradeNo": "A1B2", "MerchantTradeDate": "2026/11/29 00:00:05",
		"PaymentType": "aio", "TotalAmount": "499", "ItemName": "音箱 ＆ 線", "TradeDesc": "音箱 ＆ 線",
		"ReturnURL": a.NoticeURL, "ClientBackURL": a.BackURL, "ChoosePayment": "ALL",
		"IgnorePayment": "ATM#CVS#BARCODE", "EncryptType": "1", macField: stage.Sign(form),
	} {
		if got := form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	a.Item = strings.Repeat("線", 100) + "\xff"
	_, form, err = c.Checkout(a)
	if got := form.Get("ItemName"); err != nil || len(got) != 198 || !utf8.ValidString(got) {
		t.Errorf("a long name is cut to %d bytes, error %v: %q", len(got), err, got)
	}

	for what, bad := range map[string]func(*Attempt){
		"no number":            func(a *Attempt) { a.Number = "" },
		"a long number":        func(a *Attempt) { a.Number = strings.Repeat("A", 21) },
		"a number with a dash": func(a *Attempt) { a.Number = "A-1" },
		"a number of Chinese":  func(a *Attempt) { a.Number = "線" },
		"cents":                func(a *Attempt) { a.Amount = 49950 },
		"nothing to pay":       func(a *Attempt) { a.Amount = 0 },
		"less than nothing":    func(a *Attempt) { a.Amount = -100 },
	} {
		changed := a
		bad(&changed)
		if _, form, err := c.Checkout(changed); err == nil || form != nil {
			t.Errorf("%s: %v, error %v", what, form, err)
		}
	}
}

// answering is a client of a server that answers queries with a status and a form, signed after changes.
func answering(t *testing.T, answer func(w http.ResponseWriter, asked url.Values)) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Method != http.MethodPost || r.URL.Path != queryPath {
			t.Errorf("asked by %s %s, error %v", r.Method, r.URL, err)
		}
		if got := r.PostForm.Get(macField); got != stage.Sign(r.PostForm) {
			t.Errorf("asked with the signature %s", got)
		}
		answer(w, r.PostForm)
	}))
	t.Cleanup(server.Close)
	return &Client{Keys: stage, Host: server.URL, HTTP: server.Client()}
}

func answer(changes ...string) string {
	f := told("TradeStatus", "1")
	f.Del("RtnCode")
	f.Del("RtnMsg")
	for i := 0; i < len(changes); i += 2 {
		f.Set(changes[i], changes[i+1])
	}
	f.Set(macField, stage.Sign(f))
	return f.Encode()
}

func TestQuery(t *testing.T) {
	for _, test := range []struct {
		what, status string
		want         payment.State
	}{
		{"paid", "1", payment.Taken},
		{"not paid yet", "0", payment.Open},
		{"not created", "10200095", payment.NotFound},
	} {
		c := answering(t, func(w http.ResponseWriter, asked url.Values) {
			if asked.Get("MerchantTradeNo") != "A1B2" || asked.Get("TimeStamp") == "" {
				t.Errorf("asked for %v", asked)
			}
			_, _ = w.Write([]byte(answer("TradeStatus", test.status)))
		})
		state, n, err := c.Query(t.Context(), "A1B2")
		if err != nil || state != test.want {
			t.Errorf("%s: %s, error %v", test.what, state, err)
		}
		// Who asks learns the same as who is told, and notes it under the same key.
		told := n.Kind == payment.Paid && n.EventKey == "A1B2:1" && n.Amount == 49900
		if told != (state == payment.Taken) {
			t.Errorf("%s: %+v", test.what, n)
		}
	}
}

func TestQueryIsUnknown(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, url.Values) {
		return func(w http.ResponseWriter, _ url.Values) { w.WriteHeader(code) }
	}
	text := func(body string) func(http.ResponseWriter, url.Values) {
		return func(w http.ResponseWriter, _ url.Values) { _, _ = w.Write([]byte(body)) }
	}
	for what, f := range map[string]func(http.ResponseWriter, url.Values){
		"too many queries":    status(http.StatusForbidden),
		"an error":            status(http.StatusInternalServerError),
		"no form":             text("<html>"),
		"not signed":          text(strings.Replace(answer(), macField, "Mac", 1)),
		"another's attempt":   text(answer("MerchantTradeNo", "A1B3")),
		"another merchant's":  text(answer("MerchantID", "3002599")),
		"a status of nobody":  text(answer("TradeStatus", "7")),
		"more than is read":   text(answer("X", strings.Repeat("x", 64<<10))),
		"no amount that is 1": text(answer("TradeAmt", "x")),
	} {
		state, n, err := answering(t, f).Query(t.Context(), "A1B2")
		if !errors.Is(err, payment.ErrUnknown) || state != "" || n != (payment.Notice{}) {
			t.Errorf("%s: %s %+v, error %v", what, state, n, err)
		}
	}

	closed := answering(t, text(""))
	closed.Host = "http://127.0.0.1:1"
	if _, _, err := closed.Query(t.Context(), "A1B2"); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("nobody there: error %v", err)
	}
}

// TestQueriesKeepApart: ECPay shuts out who asks more often than five times a second.
func TestQueriesKeepApart(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, _ url.Values) { _, _ = w.Write([]byte(answer())) })
	start := time.Now()
	for range 3 {
		if _, _, err := c.Query(t.Context(), "A1B2"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 2*queryPause {
		t.Errorf("three queries took %s", took)
	}
}
