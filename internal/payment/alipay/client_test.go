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

var (
	midnight = time.Date(2026, 11, 28, 16, 0, 5, 0, time.UTC) // in Beijing, and five seconds
	attempt  = payment.Attempt{
		Number: "A1B2", Amount: 8888, Currency: "CNY", Item: "音箱 & 线=2", Expires: midnight.Add(15 * time.Minute),
		NoticeURL: "https://shop.example/webhooks/alipay", BackURL: "https://shop.example/orders/1",
	}
)

func TestStart(t *testing.T) {
	own := newProvider(t).key
	c := &Client{Account: newProvider(t).account(), Gateway: Sandbox, Own: own, now: func() time.Time {
		return midnight
	}}
	page, err := c.Start(t.Context(), attempt)
	u, bad := url.Parse(page.URL)
	if err != nil || bad != nil || !strings.HasPrefix(page.URL, Sandbox+"?") || page.Form != nil {
		t.Fatalf("%+v, errors %v, %v", page, err, bad)
	}
	form := u.Query()
	mustBeSigned(t, form, &own.PublicKey)
	for name, want := range map[string]string{
		"app_id": "2014072300007148", "method": "alipay.trade.page.pay", "timestamp": "2026-11-29 00:00:05",
		"notify_url": attempt.NoticeURL, "return_url": attempt.BackURL, "sign_type": "RSA2", "charset": "utf-8",
		"biz_content": `{"out_trade_no":"A1B2","product_code":"FAST_INSTANT_TRADE_PAY","subject":"音箱 ＆ 线＝2",` +
			`"time_expire":"2026-11-29 00:15:05","total_amount":"88.88"}`,
	} {
		if got := form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	for what, change := range map[string]func(*payment.Attempt){
		"no number":            func(a *payment.Attempt) { a.Number = "" },
		"a number with a dash": func(a *payment.Attempt) { a.Number = "A-1" },
		"nothing to pay":       func(a *payment.Attempt) { a.Amount = 0 },
		"dollars":              func(a *payment.Attempt) { a.Currency = "USD" },
		"a method":             func(a *payment.Attempt) { a.Method = "card" },
		"no time":              func(a *payment.Attempt) { a.Expires = midnight.Add(59 * time.Second) },
	} {
		changed := attempt
		change(&changed)
		if page, err := c.Start(t.Context(), changed); !errors.Is(err, payment.ErrRefused) || page.URL != "" {
			t.Errorf("%s: %+v, error %v", what, page, err)
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
		state, n, err := c.Query(t.Context(), attempt)
		if state != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, error %v", what, state, err)
		}
		told := n.Kind == payment.Paid && n.EventKey == "A1B2:TRADE_SUCCESS" && n.Amount == 8888 && n.Reference == "20"
		if told != (state == payment.Taken) {
			t.Errorf("%s: %+v", what, n)
		}
	}
}

// TestClose: a trade that nobody has made yet can be made until the time that was signed, and a little longer counts.
func TestClose(t *testing.T) {
	p := newProvider(t)
	const paid = `{"code":"10000","out_trade_no":"A1B2","trade_no":"20","trade_status":"TRADE_SUCCESS",` +
		`"total_amount":"88.88"}`
	const closed = `{"code":"10000","out_trade_no":"A1B2","trade_status":"TRADE_CLOSED"}`
	for what, test := range map[string]struct {
		answer, query string
		after         time.Duration // the expiry
		want          payment.State
		err           error
	}{
		"done":          {`{"code":"10000"}`, "", 0, payment.Lapsed, nil},
		"paid":          {`{"code":"40004","sub_code":"ACQ.TRADE_HAS_SUCCESS"}`, paid, 0, payment.Taken, nil},
		"closed before": {`{"code":"40004","sub_code":"ACQ.TRADE_STATUS_ERROR"}`, closed, 0, payment.Lapsed, nil},
		"not created":   {`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`, "", lapse, payment.NotFound, nil},
		"never created": {`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`, "", lapse + 1, payment.Lapsed, nil},
		"in trouble":    {`{"code":"40004","sub_code":"ACQ.SYSTEM_ERROR"}`, "", 0, "", payment.ErrUnknown},
		"away":          {`{"code":"20000","sub_code":"aop.unavailable"}`, "", 0, "", payment.ErrUnknown},
	} {
		c := newClient(t, p, func(method string, content map[string]string) string {
			if content["out_trade_no"] != "A1B2" {
				t.Errorf("%s: asked for %s %v", what, method, content)
			}
			if method == "alipay.trade.query" {
				return test.query
			}
			return test.answer
		})
		c.now = func() time.Time { return attempt.Expires.Add(test.after) }
		state, n, err := c.Close(t.Context(), attempt)
		if state != test.want || !errors.Is(err, test.err) || (n.Amount == 8888) != (state == payment.Taken) {
			t.Errorf("%s: closed %q %+v, error %v", what, state, n, err)
		}
	}
}

func TestRefund(t *testing.T) {
	p := newProvider(t)
	refund := payment.Refund{Number: "R1", Of: attempt, Amount: 880}
	const made = `{"code":"10000","out_request_no":"R1","refund_status":"REFUND_SUCCESS"}`
	for what, test := range map[string]struct {
		answer, query string
		want          error
		made          bool
		madeErr       error
	}{
		"done":        {`{"code":"10000","fund_change":"Y"}`, made, nil, true, nil},
		"done before": {`{"code":"10000","fund_change":"N"}`, made, nil, true, nil},
		"not done yet": {`{"code":"10000","fund_change":"N"}`, `{"code":"10000"}`, payment.ErrUnknown, false,
			nil},
		"another's": {`{"code":"10000"}`, strings.Replace(made, "R1", "R2", 1), payment.ErrUnknown, false, nil},
		"refused": {`{"code":"40004","sub_code":"ACQ.SELLER_BALANCE_NOT_ENOUGH"}`, `{"code":"10000"}`,
			payment.ErrRefused, false, nil},
		"no trade": {`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`,
			`{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}`, payment.ErrRefused, false, nil},
		"in trouble": {`{"code":"40004","sub_code":"ACQ.SYSTEM_ERROR"}`,
			`{"code":"40004","sub_code":"ACQ.SYSTEM_ERROR"}`, payment.ErrUnknown, false, payment.ErrUnknown},
		"away": {`{"code":"20000"}`, `{"code":"20000"}`, payment.ErrUnknown, false, payment.ErrUnknown},
	} {
		var asked []string
		c := newClient(t, p, func(method string, content map[string]string) string {
			asked = append(asked, fmt.Sprint(method, content))
			if method == "alipay.trade.refund" {
				return test.answer
			}
			return test.query
		})
		if err := c.Refund(t.Context(), refund); !errors.Is(err, test.want) {
			t.Errorf("%s: refund: error %v", what, err)
		}
		want := "alipay.trade.refundmap[out_request_no:R1 out_trade_no:A1B2 refund_amount:8.80]"
		if asked[0] != want {
			t.Errorf("%s: asked for %s, want %s", what, asked[0], want)
		}
		if got, err := c.Refunded(t.Context(), refund); got != test.made || !errors.Is(err, test.madeErr) {
			t.Errorf("%s: made: %t, error %v", what, got, err)
		}
	}

	c := newClient(t, p, func(string, map[string]string) string { return `{"code":"10000","fund_change":"Y"}` })
	for what, change := range map[string]func(*payment.Refund){
		"nothing":       func(r *payment.Refund) { r.Amount = 0 },
		"too much":      func(r *payment.Refund) { r.Amount = 8889 },
		"no number":     func(r *payment.Refund) { r.Number = "" },
		"no attempt":    func(r *payment.Refund) { r.Of.Number = "" },
		"an odd number": func(r *payment.Refund) { r.Number = "R-1" },
	} {
		changed := refund
		change(&changed)
		if err := c.Refund(t.Context(), changed); !errors.Is(err, payment.ErrRefused) {
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
		if state, _, err := c.Query(t.Context(), attempt); state != "" || !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("%s: %q, error %v", what, state, err)
		}
		server.Close()
		if state, _, err := c.Query(t.Context(), attempt); state != "" || !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("nobody there: %q, error %v", state, err)
		}
	}
}
