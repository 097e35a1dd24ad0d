package pay_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/localstack/pay"
)

var beijing = time.FixedZone("Beijing", 8*60*60)

// alipayText is the text that is signed.
func alipayText(form url.Values, without ...string) [32]byte {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !slices.Contains(without, name) {
			pairs = append(pairs, name+"="+form.Get(name))
		}
	}
	return sha256.Sum256([]byte(strings.Join(pairs, "&")))
}

// alipayRequest is a request that the merchant has signed. Pairs of fields are added to it.
func (l *lab) alipayRequest(method, content string, pairs ...string) url.Values {
	l.Helper()
	der, err := base64.StdEncoding.DecodeString(l.env["ALIPAY_PRIVATE_KEY"])
	if err != nil {
		l.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		l.Fatal(err)
	}
	form := url.Values{
		"app_id": {l.env["ALIPAY_APP_ID"]}, "method": {method}, "format": {"JSON"}, "charset": {"utf-8"},
		"sign_type": {"RSA2"}, "timestamp": {time.Now().In(beijing).Format(time.DateTime)}, "version": {"1.0"},
		"biz_content": {content},
	}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	sum := alipayText(form)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
	if err != nil {
		l.Fatal(err)
	}
	form.Set("sign", base64.StdEncoding.EncodeToString(signature))
	return form
}

// alipaySigned reports whether Alipay has signed something.
func (l *lab) alipaySigned(sum [32]byte, signature string) bool {
	l.Helper()
	der, err := base64.StdEncoding.DecodeString(l.env["ALIPAY_PUBLIC_KEY"])
	if err != nil {
		l.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		l.Fatal(err)
	}
	plain, err := base64.StdEncoding.DecodeString(signature)
	return err == nil && rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), crypto.SHA256, sum[:], plain) == nil
}

// alipay makes a call, whose answer must be signed.
func (l *lab) alipay(method, content string) map[string]string {
	l.Helper()
	r := l.postForm(l.env["ALIPAY_GATEWAY"], l.alipayRequest(method, content))
	var parts map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.body), &parts); err != nil {
		l.Fatalf("%s: %v: %s", method, err, r.body)
	}
	object := parts[strings.ReplaceAll(method, ".", "_")+"_response"]
	var signature string
	_ = json.Unmarshal(parts["sign"], &signature)
	if !l.alipaySigned(sha256.Sum256(object), signature) {
		l.Errorf("%s: the answer is not signed: %s", method, r.body)
	}
	var shown map[string]string
	if err := json.Unmarshal(object, &shown); err != nil {
		l.Fatalf("%s: %v: %s", method, err, object)
	}
	return shown
}

// alipayPage is where the buyer's browser goes, for 88.88 yuan.
func (l *lab) alipayPage(number string) string {
	l.Helper()
	content := `{"out_trade_no":"` + number + `","product_code":"FAST_INSTANT_TRADE_PAY","total_amount":"88.88",` +
		`"subject":"音箱 & 线","time_expire":"` + time.Now().Add(time.Hour).In(beijing).Format(time.DateTime) + `"}`
	form := l.alipayRequest("alipay.trade.page.pay", content, "notify_url", l.shop.URL+"/alipay", "return_url",
		l.shop.URL+"/back")
	return l.env["ALIPAY_GATEWAY"] + "?" + form.Encode()
}

func (l *lab) alipayStatus(number string) string {
	l.Helper()
	shown := l.alipay("alipay.trade.query", `{"out_trade_no":"`+number+`"}`)
	return shown["trade_status"] + shown["sub_code"]
}

// alipayTold are the fields of a notice, which must be signed.
func (l *lab) alipayTold(n told) url.Values {
	l.Helper()
	form := n.form()
	if !l.alipaySigned(alipayText(form, "sign", "sign_type"), form.Get("sign")) {
		l.Errorf("a notice is not signed: %v", form)
	}
	return form
}

func TestAlipay(t *testing.T) {
	t.Parallel()
	l := start(t)
	if got := l.alipayStatus("A1"); got != "ACQ.TRADE_NOT_EXIST" {
		t.Errorf("before the page was opened: %s", got)
	}
	page := l.do("GET", l.alipayPage("A1"), nil, "")
	if page.status != http.StatusOK || !strings.Contains(page.body, "88.88 CNY") ||
		!strings.Contains(page.body, "音箱 &amp; 线") {
		t.Errorf("the page: status %d: %s", page.status, page.body)
	}
	if got := l.alipayStatus("A1"); got != "WAIT_BUYER_PAY" {
		t.Errorf("open: %s", got)
	}
	_, action, _ := strings.Cut(page.body, `action="`)
	action, _, _ = strings.Cut(action, `"`)
	r := l.do("POST", l.server.URL()+action, nil, "")
	back, err := url.Parse(r.header.Get("Location"))
	query := back.Query()
	if err != nil || !strings.HasPrefix(back.String(), l.shop.URL+"/back?") || query.Get("out_trade_no") != "A1" ||
		!l.alipaySigned(alipayText(query, "sign", "sign_type"), query.Get("sign")) {
		t.Errorf("paid: sent back to %s, error %v", back, err)
	}
	form := l.alipayTold(l.wait(1)[0])
	for name, want := range map[string]string{
		"trade_status": "TRADE_SUCCESS", "out_trade_no": "A1", "total_amount": "88.88",
		"app_id": l.env["ALIPAY_APP_ID"], "seller_id": l.env["ALIPAY_SELLER_ID"], "refund_fee": "",
	} {
		if form.Get(name) != want {
			t.Errorf("told %s=%s, want %s", name, form.Get(name), want)
		}
	}
	if got := l.alipayStatus("A1"); got != "TRADE_SUCCESS" {
		t.Errorf("paid: %s", got)
	}
	if got := l.alipay("alipay.trade.close", `{"out_trade_no":"A1"}`)["sub_code"]; got != "ACQ.TRADE_HAS_SUCCESS" {
		t.Errorf("closed: %s", got)
	}
	for _, test := range []struct{ number, amount, want string }{
		{"R1", "8.88", "Y"}, {"R1", "8.88", "N"}, {"R1", "8.87", "ACQ.DISCORDANT_REPEAT_REQUEST"},
		{"R2", "80.01", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"}, {"R2", "80.00", "Y"},
	} {
		got := l.alipay("alipay.trade.refund", `{"out_trade_no":"A1","out_request_no":"`+test.number+
			`","refund_amount":"`+test.amount+`"}`)
		if got["fund_change"]+got["sub_code"] != test.want {
			t.Errorf("refund %s of %s: %v", test.number, test.amount, got)
		}
	}
	for number, want := range map[string]string{"R1": "8.88", "R3": ""} {
		got := l.alipay("alipay.trade.fastpay.refund.query", `{"out_trade_no":"A1","out_request_no":"`+number+`"}`)
		if got["refund_amount"] != want || got["code"] != "10000" {
			t.Errorf("refund %s: %v", number, got)
		}
	}
	refunds := ""
	for _, n := range l.wait(3)[1:] {
		form := l.alipayTold(n)
		refunds += form.Get("trade_status") + " " + form.Get("refund_fee") + " " + form.Get("out_biz_no") + ";"
	}
	if refunds != "TRADE_SUCCESS 8.88 R1;TRADE_CLOSED 88.88 R2;" {
		t.Errorf("told of refunds %s", refunds)
	}
	l.wantBooks("alipay paid A1 8888 CNY; refund R1 of A1 888 by api; refund R2 of A1 8000 by api")
}

func TestAlipayCloses(t *testing.T) {
	t.Parallel()
	l := start(t)
	if got := l.alipay("alipay.trade.close", `{"out_trade_no":"A1"}`)["sub_code"]; got != "ACQ.TRADE_NOT_EXIST" {
		t.Errorf("before the page was opened: %s", got)
	}
	l.do("GET", l.alipayPage("A1"), nil, "")
	if got := l.alipay("alipay.trade.close", `{"out_trade_no":"A1"}`)["code"]; got != "10000" {
		t.Errorf("closed: %s", got)
	}
	if got := l.alipayTold(l.wait(1)[0]).Get("trade_status"); got != "TRADE_CLOSED" {
		t.Errorf("told %s", got)
	}
	if got := l.alipayStatus("A1"); got != "TRADE_CLOSED" {
		t.Errorf("closed: %s", got)
	}
	if page := l.do("GET", l.alipayPage("A1"), nil, ""); strings.Contains(page.body, "/pay\"") {
		t.Errorf("closed, and can be paid: %s", page.body)
	}
	if _, err := l.server.Act("pay", pay.Alipay, "A1", ""); err == nil {
		t.Error("closed, and was paid")
	}
	forged := l.alipayRequest("alipay.trade.query", `{"out_trade_no":"A1"}`)
	forged.Set("biz_content", `{"out_trade_no":"A2"}`)
	if r := l.postForm(l.env["ALIPAY_GATEWAY"], forged); !strings.Contains(r.body, "isv.invalid-signature") {
		t.Errorf("not signed: %s", r.body)
	}
	l.wantBooks("")
}
