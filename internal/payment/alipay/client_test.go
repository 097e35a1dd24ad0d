package alipay

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// gateway answers calls as Alipay does, each with an object, and holds the calls to their signature.
func (p provider) gateway(t *testing.T, own *rsa.PublicKey,
	answer func(method string, content map[string]string) string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		mustBeSigned(t, r.PostForm, own)
		var content map[string]string
		if err := json.Unmarshal([]byte(r.PostForm.Get("biz_content")), &content); err != nil {
			t.Error(err)
		}
		method := r.PostForm.Get("method")
		object := answer(method, content)
		_, _ = fmt.Fprintf(w, `{"%s_response":%s,"sign":"%s"}`, strings.ReplaceAll(method, ".", "_"), object,
			p.signText(t, object))
	}))
	t.Cleanup(server.Close)
	return server
}

func (p provider) signText(t *testing.T, text string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	return base64.StdEncoding.EncodeToString(signature)
}

// mustBeSigned holds a request to its signature, by the rule as it is documented.
func mustBeSigned(t *testing.T, form url.Values, own *rsa.PublicKey) {
	t.Helper()
	signature, err := base64.StdEncoding.DecodeString(form.Get("sign"))
	if err != nil {
		t.Error(err)
	}
	form = url.Values(http.Header(form).Clone())
	form.Del("sign")
	var pairs []string
	for _, pair := range strings.Split(form.Encode(), "&") {
		plain, err := url.QueryUnescape(pair)
		if err != nil {
			t.Error(err)
		}
		pairs = append(pairs, plain)
	}
	sum := sha256.Sum256([]byte(strings.Join(pairs, "&")))
	if err := rsa.VerifyPKCS1v15(own, crypto.SHA256, sum[:], signature); err != nil {
		t.Errorf("the request %v is not signed: %v", form, err)
	}
}

func newClient(t *testing.T, p provider, answer func(method string, content map[string]string) string) *Client {
	t.Helper()
	own := newProvider(t).key
	server := p.gateway(t, &own.PublicKey, answer)
	return &Client{Account: p.account(), Gateway: server.URL, Own: own, HTTP: server.Client()}
}

func TestCheckout(t *testing.T) {
	own := newProvider(t).key
	c := &Client{Account: newProvider(t).account(), Gateway: Sandbox, Own: own, now: func() time.Time {
		return time.Date(2026, 11, 28, 16, 0, 5, 0, time.UTC)
	}}
	a := Attempt{
		Number: "A_1", Amount: 8888, Item: "音箱 & 线=2", NoticeURL: "https://shop.example/webhooks/alipay",
		BackURL: "https://shop.example/orders/1", ExpiresAt: time.Date(2026, 11, 28, 16, 15, 0, 0, time.UTC),
	}
	address, err := c.Checkout(a)
	u, bad := url.Parse(address)
	if err != nil || bad != nil || !strings.HasPrefix(address, Sandbox+"?") {
		t.Fatalf("%s, errors %v, %v", address, err, bad)
	}
	form := u.Query()
	mustBeSigned(t, form, &own.PublicKey)
	for name, want := range map[string]string{
		"app_id": "2014072300007148", "method": "alipay.trade.page.pay", "timestamp": "2026-11-29 00:00:05",
		"notify_url": a.NoticeURL, "return_url": a.BackURL, "sign_type": "RSA2", "charset": "utf-8",
		"biz_content": `{"out_trade_no":"A_1","product_code":"FAST_INSTANT_TRADE_PAY","subject":"音箱 ＆ 线＝2",` +
			`"time_expire":"2026-11-29 00:15:00","total_amount":"88.88"}`,
	} {
		if got := form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	for what, change := range map[string]func(*Attempt){
		"no number":            func(a *Attempt) { a.Number = "" },
		"a long number":        func(a *Attempt) { a.Number = strings.Repeat("A", 65) },
		"a number with a dash": func(a *Attempt) { a.Number = "A-1" },
		"nothing to pay":       func(a *Attempt) { a.Amount = 0 },
	} {
		changed := a
		change(&changed)
		if address, err := c.Checkout(changed); err == nil || address != "" {
			t.Errorf("%s: %s", what, address)
		}
	}
}

func TestQuery(t *testing.T) {
	p := newProvider(t)
	for what, test := range map[string]struct {
		answer string
		want   payment.State
		err    error
	}{
		"paid": {`{"code":"10000","msg":"Success","out_trade_no":"A1B2","trade_no":"20",` +
			`"trade_status":"TRADE_SUCCESS","total_amount":"88.88","send_pay_date":"2026-11-28 18:00:05"}`,
			payment.Taken, nil},
		"not paid yet": {`{"code":"10000","out_trade_no":"A1B2","trade_status":"WAIT_BUYER_PAY"}`, payment.Open, nil},
		"closed":       {`{"code":"10000","out_trade_no":"A1B2","trade_status":"TRADE_CLOSED"}`, payment.Lapsed, nil},
		"not created":  {`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`, payment.NotFound, nil},
		"another's": {`{"code":"10000","out_trade_no":"A1B3","trade_status":"TRADE_CLOSED"}`, "",
			payment.ErrUnknown},
		"out of order":       {`{"code":"20000","sub_code":"isp.unknow-error"}`, "", payment.ErrUnknown},
		"a status of nobody": {`{"code":"10000","out_trade_no":"A1B2","trade_status":"X"}`, "", payment.ErrUnknown},
		"paid with nothing": {`{"code":"10000","out_trade_no":"A1B2","trade_status":"TRADE_SUCCESS"}`, "",
			payment.ErrUnknown},
	} {
		c := newClient(t, p, func(method string, content map[string]string) string {
			if method != "alipay.trade.query" || content["out_trade_no"] != "A1B2" {
				t.Errorf("asked for %s %v", method, content)
			}
			return test.answer
		})
		state, n, err := c.Query(t.Context(), "A1B2")
		if state != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, error %v", what, state, err)
		}
		told := n.Kind == payment.Paid && n.EventKey == "A1B2:TRADE_SUCCESS" && n.Amount == 8888 && n.Reference == "20"
		if told != (state == payment.Taken) {
			t.Errorf("%s: %+v", what, n)
		}
	}
}

func TestCloseAndRefund(t *testing.T) {
	p := newProvider(t)
	for what, test := range map[string]struct {
		answer string
		state  payment.State
		close  error
		refund error
	}{
		"done":        {`{"code":"10000"}`, payment.Lapsed, nil, nil},
		"paid":        {`{"code":"40004","sub_code":"ACQ.TRADE_HAS_SUCCESS"}`, payment.Taken, nil, payment.ErrRefused},
		"not created": {`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`, payment.NotFound, nil, payment.ErrRefused},
		"in trouble": {`{"code":"40004","sub_code":"ACQ.SYSTEM_ERROR"}`, "", payment.ErrUnknown,
			payment.ErrUnknown},
		"away": {`{"code":"20000","sub_code":"aop.unavailable"}`, "", payment.ErrUnknown, payment.ErrUnknown},
	} {
		var asked []string
		c := newClient(t, p, func(method string, content map[string]string) string {
			asked = append(asked, fmt.Sprint(method, content))
			return test.answer
		})
		if state, err := c.Close(t.Context(), "A1B2"); state != test.state || !errors.Is(err, test.close) {
			t.Errorf("%s: closed %q, error %v", what, state, err)
		}
		if err := c.Refund(t.Context(), "A1B2", "R1", 880); !errors.Is(err, test.refund) {
			t.Errorf("%s: refund: error %v", what, err)
		}
		want := []string{"alipay.trade.closemap[out_trade_no:A1B2]",
			"alipay.trade.refundmap[out_request_no:R1 out_trade_no:A1B2 refund_amount:8.80]"}
		if got := fmt.Sprint(asked); got != fmt.Sprint(want) {
			t.Errorf("%s: asked for %s, want %s", what, got, want)
		}
	}

	c := newClient(t, p, func(string, map[string]string) string { return `{"code":"10000"}` })
	for what, err := range map[string]error{
		"nothing":       c.Refund(t.Context(), "A1B2", "R1", 0),
		"no number":     c.Refund(t.Context(), "A1B2", "", 1),
		"no attempt":    c.Refund(t.Context(), "", "R1", 1),
		"an odd number": c.Refund(t.Context(), "A1B2", "R-1", 1),
	} {
		if err == nil || errors.Is(err, payment.ErrUnknown) {
			t.Errorf("a refund of %s: error %v", what, err)
		}
	}
}

// TestAnswersThatAreNotSigned are no answers.
func TestAnswersThatAreNotSigned(t *testing.T) {
	p, other := newProvider(t), newProvider(t)
	const object = `{"code":"10000","out_trade_no":"A1B2","trade_status":"TRADE_CLOSED"}`
	const name = `"alipay_trade_query_response"`
	for what, body := range map[string]string{
		"nothing":            "",
		"no JSON":            "<html>",
		"no signature":       `{` + name + `:` + object + `}`,
		"no base64":          `{` + name + `:` + object + `,"sign":"?"}`,
		"somebody else's":    `{` + name + `:` + object + `,"sign":"` + other.signText(t, object) + `"}`,
		"of another call":    `{"alipay_trade_close_response":` + object + `,"sign":"` + p.signText(t, object) + `"}`,
		"changed by a space": `{` + name + `:{ ` + object[1:] + `,"sign":"` + p.signText(t, object) + `"}`,
		"too long":           strings.Repeat(" ", 65<<10),
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(body))
		}))
		c := &Client{Account: p.account(), Gateway: server.URL, Own: other.key, HTTP: server.Client()}
		if state, _, err := c.Query(t.Context(), "A1B2"); state != "" || !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("%s: %q, error %v", what, state, err)
		}
		server.Close()
		if state, _, err := c.Query(t.Context(), "A1B2"); state != "" || !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("nobody there: %q, error %v", state, err)
		}
	}
}
