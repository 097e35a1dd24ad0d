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

// noon is in Taipei.
var noon = time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC)

var attempt = payment.Attempt{
	Number: "A1B2", Amount: 49900, Currency: "TWD", Item: "音箱 & 線", Expires: noon.Add(15 * time.Minute),
	NoticeURL: "https://shop.example/webhooks/ecpay", BackURL: "https://shop.example/orders/1",
}

func TestStart(t *testing.T) {
	c := &Client{Keys: stage, Host: Stage, now: func() time.Time { return noon }}
	page, err := c.Start(t.Context(), attempt)
	if err != nil || page.URL != "https://payment-stage.ecpay.com.tw/Cashier/AioCheckOut/V5" || page.Reference != "" {
		t.Fatalf("%+v, error %v", page, err)
	}
	for name, want := range map[string]string{
		"MerchantID": "3002607", "MerchantTradeNo": "A1B2", "MerchantTradeDate": "2026/11/29 12:00:00",
		"PaymentType": "aio", "TotalAmount": "499", "ItemName": "音箱 ＆ 線", "TradeDesc": "音箱 ＆ 線",
		"ReturnURL": attempt.NoticeURL, "ClientBackURL": attempt.BackURL, "ChoosePayment": "Credit",
		"NeedExtraPaidInfo": "Y", "EncryptType": "1", macField: stage.Sign(page.Form),
	} {
		if got := page.Form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	long := attempt
	long.Item = strings.Repeat("線", 100) + "\xff"
	page, err = c.Start(t.Context(), long)
	if got := page.Form.Get("ItemName"); err != nil || len(got) != 198 || !utf8.ValidString(got) {
		t.Errorf("a long name is cut to %d bytes, error %v: %q", len(got), err, got)
	}

	for what, bad := range map[string]func(*payment.Attempt){
		"no number":            func(a *payment.Attempt) { a.Number = "" },
		"a long number":        func(a *payment.Attempt) { a.Number = strings.Repeat("A", 21) },
		"a number with a dash": func(a *payment.Attempt) { a.Number = "A-1" },
		"a number of Chinese":  func(a *payment.Attempt) { a.Number = "線" },
		"cents":                func(a *payment.Attempt) { a.Amount = 49950 },
		"nothing to pay":       func(a *payment.Attempt) { a.Amount = 0 },
		"less than nothing":    func(a *payment.Attempt) { a.Amount = -100 },
		"another currency":     func(a *payment.Attempt) { a.Currency = "EUR" },
		"another method":       func(a *payment.Attempt) { a.Method = "cash" },
		"no time":              func(a *payment.Attempt) { a.Expires = noon },
	} {
		changed := attempt
		bad(&changed)
		page, err := c.Start(t.Context(), changed)
		if !errors.Is(err, payment.ErrRefused) || page.Form != nil {
			t.Errorf("%s: %v, error %v", what, page, err)
		}
	}
}

// TestExpiry: what ECPay gives out is never good for longer than the attempt.
func TestExpiry(t *testing.T) {
	c := &Client{Keys: stage, Host: Stage, now: func() time.Time { return noon }}
	for _, test := range []struct {
		method      string
		left        time.Duration
		field, want string // empty: refused
	}{
		{ATM, 2 * day, "ExpireDate", "1"},               // to the midnight after tomorrow's
		{ATM, 36 * time.Hour, "ExpireDate", "1"},        // which is then
		{ATM, 36*time.Hour - time.Second, "", ""},       // and not a second before
		{ATM, 7 * day, "ExpireDate", "6"},               //
		{CVS, 90 * time.Second, "StoreExpireDate", "1"}, // in minutes
		{CVS, 59 * time.Second, "", ""},
		{CVS, 2 * day, "StoreExpireDate", "2880"},
		{Barcode, 3*day - time.Second, "StoreExpireDate", "2"}, // in days
		{Barcode, day - time.Second, "", ""},
	} {
		a := attempt
		a.Method, a.Expires = test.method, noon.Add(test.left)
		page, err := c.Start(t.Context(), a)
		if refused := test.field == ""; errors.Is(err, payment.ErrRefused) != refused {
			t.Errorf("%s in %s: error %v", test.method, test.left, err)
		} else if !refused && (page.Form.Get(test.field) != test.want ||
			page.Form.Get("ChoosePayment") != strings.ToUpper(test.method) ||
			page.Form.Get("PaymentInfoURL") != a.NoticeURL) {
			t.Errorf("%s in %s: %v", test.method, test.left, page.Form)
		}
	}
	for method := range methods {
		offer, _ := c.Offers(method, "TWD")
		a := attempt
		a.Method, a.Expires = method, noon.Add(max(offer.Least, time.Minute))
		if _, err := c.Start(t.Context(), a); err != nil {
			t.Errorf("%s with the least time: error %v", method, err)
		}
	}
}

// answering is a client of a server that answers queries with a status and a form, signed after changes.
func answering(t *testing.T, answer func(w http.ResponseWriter, asked url.Values)) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Method != http.MethodPost ||
			r.URL.Path != queryPath && r.URL.Path != detailPath && r.URL.Path != actionPath {
			t.Errorf("asked by %s %s, error %v", r.Method, r.URL, err)
		}
		if got := r.PostForm.Get(macField); got != stage.Sign(r.PostForm) {
			t.Errorf("asked with the signature %s", got)
		}
		r.PostForm.Set("path", r.URL.Path)
		answer(w, r.PostForm)
	}))
	t.Cleanup(server.Close)
	return &Client{Keys: stage, Host: server.URL, HTTP: server.Client(), pause: 1}
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
		state, n, err := c.Query(t.Context(), attempt)
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
		state, n, err := answering(t, f).Query(t.Context(), attempt)
		if !errors.Is(err, payment.ErrUnknown) || state != "" || n != (payment.Notice{}) {
			t.Errorf("%s: %s %+v, error %v", what, state, n, err)
		}
	}

	closed := answering(t, text(""))
	closed.Host = "http://127.0.0.1:1"
	if _, _, err := closed.Query(t.Context(), attempt); !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("nobody there: error %v", err)
	}
}

// TestQueriesKeepApart: ECPay shuts out who asks more often than five times a second.
func TestQueriesKeepApart(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, _ url.Values) { _, _ = w.Write([]byte(answer())) })
	c.pause = 0
	start := time.Now()
	for range 3 {
		if _, _, err := c.Query(t.Context(), attempt); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 2*callPause {
		t.Errorf("three queries took %s", took)
	}
}

// TestClose: ECPay has no call for it, so that only time closes an attempt, and what was paid in time is paid.
func TestClose(t *testing.T) {
	for _, test := range []struct {
		method, status string
		after          time.Duration // the expiry
		want           payment.State
	}{
		{"", "1", 30 * day, payment.Taken},
		{"", "0", 0, payment.Open},
		{"", "0", 45 * time.Minute, payment.Open},
		{"", "0", 45*time.Minute + 1, payment.Lapsed},
		{"", "10200095", 45 * time.Minute, payment.NotFound},
		{"", "10200095", 45*time.Minute + 1, payment.Lapsed},
		{ATM, "0", day, payment.Open},
		{ATM, "0", day + 1, payment.Lapsed},
		{CVS, "0", day + 1, payment.Lapsed},
		{Barcode, "0", 3 * day, payment.Open},
		{Barcode, "0", 3*day + 1, payment.Lapsed},
	} {
		c := answering(t, func(w http.ResponseWriter, _ url.Values) {
			_, _ = w.Write([]byte(answer("TradeStatus", test.status)))
		})
		a := attempt
		a.Method = test.method
		c.now = func() time.Time { return a.Expires.Add(test.after) }
		state, n, err := c.Close(t.Context(), a)
		if err != nil || state != test.want || (n.Kind == payment.Paid) != (state == payment.Taken) {
			t.Errorf("%+v: %s %+v, error %v", test, state, n, err)
		}
	}
	c := answering(t, func(w http.ResponseWriter, _ url.Values) { w.WriteHeader(http.StatusForbidden) })
	c.now = func() time.Time { return attempt.Expires.Add(day) }
	if state, _, err := c.Close(t.Context(), attempt); state != "" || !errors.Is(err, payment.ErrUnknown) {
		t.Errorf("no answer: %s, error %v", state, err)
	}
}
