package alipay

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// provider signs as Alipay does.
type provider struct{ key *rsa.PrivateKey }

func newProvider(t *testing.T) provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return provider{key}
}

// tell is a notice of a payment of 88.88 yuan, with changes, signed.
func (p provider) tell(t *testing.T, changes ...string) url.Values {
	t.Helper()
	f := url.Values{}
	for name, value := range map[string]string{
		"notify_time": "2026-11-28 18:00:06", "notify_type": "trade_status_sync",
		"notify_id": "ac05099524730693a8b330c",
		"app_id":    "2014072300007148", "charset": "utf-8", "version": "1.0", "sign_type": "RSA2",
		"trade_no": "2026112821001004", "out_trade_no": "A1B2", "seller_id": "2088102146225135", "subject": "音箱 & 线",
		"buyer_id": "2088102122524333", "trade_status": "TRADE_SUCCESS", "total_amount": "88.88", "body": "",
		"gmt_create": "2026-11-28 17:59:00", "gmt_payment": "2026-11-28 18:00:05",
	} {
		f.Set(name, value)
	}
	for i := 0; i < len(changes); i += 2 {
		f.Set(changes[i], changes[i+1])
	}
	return p.sign(t, f)
}

// sign signs by the rule as it is documented, without the code under test.
func (p provider) sign(t *testing.T, f url.Values) url.Values {
	t.Helper()
	var pairs []string
	for _, pair := range strings.Split(f.Encode(), "&") { // sorted
		name, value, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(value)
		if err != nil {
			t.Fatal(err)
		}
		if name != "sign" && name != "sign_type" {
			pairs = append(pairs, name+"="+plain)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(pairs, "&")))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	f.Set("sign", base64.StdEncoding.EncodeToString(signature))
	return f
}

func (p provider) account() Account {
	return Account{AppID: "2014072300007148", SellerID: "2088102146225135", Key: &p.key.PublicKey}
}

func TestReadNotice(t *testing.T) {
	p := newProvider(t)
	paid := payment.Notice{
		Kind: payment.Paid, Attempt: "A1B2", Reference: "2026112821001004", EventKey: "A1B2:TRADE_SUCCESS",
		Merchant: "2088102146225135", Amount: 8888, Currency: "CNY",
		At: time.Date(2026, 11, 28, 10, 0, 5, 0, time.UTC),
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
		{"paid", p.tell(t), paid},
		{"a field of tomorrow", p.tell(t, "new_field", "x=y&z"), paid},
		{"finished", p.tell(t, "trade_status", "TRADE_FINISHED"), with(func(n *payment.Notice) {
			n.EventKey = "A1B2:TRADE_FINISHED"
		})},
		{"waiting", p.tell(t, "trade_status", "WAIT_BUYER_PAY"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Issued, "A1B2:WAIT_BUYER_PAY"
		})},
		{"closed", p.tell(t, "trade_status", "TRADE_CLOSED"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Closed, "A1B2:TRADE_CLOSED"
		})},
		{"a refund, which is no second payment", p.tell(t, "refund_fee", "8.80", "out_biz_no", "R1", "gmt_refund",
			"2026-11-28 18:30:05.123"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey, n.Amount = payment.Refunded, "A1B2:TRADE_SUCCESS:refund:R1:8.80", 880
			n.At = n.At.Add(30 * time.Minute)
		})},
		{"a status of tomorrow", p.tell(t, "trade_status", "X"), with(func(n *payment.Notice) {
			n.Kind, n.EventKey = payment.Failed, "A1B2:X"
		})},
	} {
		got, err := p.account().ReadNotice(t.Context(), nil, []byte(test.form.Encode()))
		if err != nil || !got.At.Equal(test.want.At) {
			t.Errorf("%s: at %s, error %v, want at %s", test.what, got.At, err, test.want.At)
		}
		if got.At = test.want.At; got != test.want {
			t.Errorf("%s: got\n\t%+v, want\n\t%+v", test.what, got, test.want)
		}
	}
}

func TestReadNoticeRefuses(t *testing.T) {
	p, other := newProvider(t), newProvider(t)
	changed := func(name, value string) string {
		f := p.tell(t)
		f.Set(name, value)
		return f.Encode()
	}
	for what, body := range map[string]string{
		"nothing":               "",
		"no form":               "%zz=1",
		"another amount":        changed("total_amount", "0.01"),
		"another attempt":       changed("out_trade_no", "A1B3"),
		"a field more":          changed("extra", "1"),
		"no signature":          changed("sign", ""),
		"no base64":             changed("sign", "?"),
		"the older method":      changed("sign_type", "RSA"),
		"somebody else's key":   other.tell(t).Encode(),
		"another application":   p.tell(t, "app_id", "2014072300007149").Encode(),
		"another merchant":      p.tell(t, "seller_id", "2088102146225136").Encode(),
		"a field twice":         p.tell(t).Encode() + "&total_amount=88.88",
		"an amount of no money": p.tell(t, "total_amount", "88.888").Encode(),
		"a field in another":    splitAnew(t, p),
		"no attempt":            p.tell(t, "out_trade_no", "").Encode(),
	} {
		n, err := p.account().ReadNotice(t.Context(), nil, []byte(body))
		if !errors.Is(err, payment.ErrForged) || n != (payment.Notice{}) {
			t.Errorf("%s: %+v, error %v", what, n, err)
		}
	}
}

// splitAnew is a notice of a product whose name has fields in it, taken apart so that they are fields: the text that
// was signed is the same.
func splitAnew(t *testing.T, p provider) string {
	t.Helper()
	f := p.tell(t, "subject", "x&total_amount=9999.00&total_amounts=")
	f.Set("subject", "x")
	f.Set("total_amounts", "&total_amount="+f.Get("total_amount"))
	f.Set("total_amount", "9999.00")
	return f.Encode()
}

func TestParseKey(t *testing.T) {
	p := newProvider(t)
	der, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(der)
	if key, err := ParseKey(text + "\n"); err != nil || !key.Equal(&p.key.PublicKey) {
		t.Errorf("%v, error %v", key, err)
	}
	for _, bad := range []string{"", "?", text[:20], base64.StdEncoding.EncodeToString([]byte("key"))} {
		if key, err := ParseKey(bad); err == nil || key != nil {
			t.Errorf("%q: %v", bad, key)
		}
	}
}

func TestParseOwnKey(t *testing.T) {
	key := newProvider(t).key
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range [][]byte{pkcs8, x509.MarshalPKCS1PrivateKey(key)} {
		if got, err := ParseOwnKey(base64.StdEncoding.EncodeToString(der) + "\n"); err != nil || !got.Equal(key) {
			t.Errorf("error %v", err)
		}
	}
	for _, bad := range []string{"", "?", base64.StdEncoding.EncodeToString([]byte("key"))} {
		if got, err := ParseOwnKey(bad); err == nil || got != nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	taken, not := Account{}.Answer(true), Account{}.Answer(false)
	if taken.Body != "success" || taken.Status != 200 || not.Body != "failure" {
		t.Errorf("%+v, %+v", taken, not)
	}
}
