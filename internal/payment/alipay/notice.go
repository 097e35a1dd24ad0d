// Package alipay speaks with Alipay (mainland China), as a web page of a shop does (page pay).
//
// Source of its rules: Alipay's open platform documentation, "asynchronous notification" and "signatures (RSA2)".
package alipay

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"stampede/internal/order"
	"stampede/internal/payment"
)

const (
	currency      = "CNY"
	signatureType = "RSA2"
)

// Account is a merchant's application at Alipay.
type Account struct {
	// AppID is the application's, and SellerID the merchant's.
	AppID, SellerID string
	// Key is Alipay's own, by which it signs what it tells this application.
	Key *rsa.PublicKey
}

// ParseKey reads a public key as Alipay's console shows it: base64 of its DER form, in one line.
func ParseKey(text string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("the key of Alipay is not in base64")
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the key of Alipay is no public key")
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the key of Alipay is not one for RSA")
	}
	return key, nil
}

// ParseOwnKey reads a private key as Alipay's tools make it: base64 of its DER form (PKCS #8 or #1), in one line. The
// error repeats nothing of it.
func ParseOwnKey(text string) (*rsa.PrivateKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("the application's key is not in base64")
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the application's key is no private key")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the application's key is not one for RSA")
	}
	return key, nil
}

// joined is the text that a signature is of: the fields of a form but for some, sorted, as they are and not encoded.
func joined(form url.Values, without ...string) []byte {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !slices.Contains(without, name) {
			pairs = append(pairs, name+"="+form.Get(name))
		}
	}
	return []byte(strings.Join(pairs, "&"))
}

// verify reports what is wrong with Alipay's signature of a text, in base64. The error is payment.ErrForged.
func (a Account) verify(text []byte, signature string) error {
	plain, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return payment.Forged("its signature is not in base64")
	}
	sum := sha256.Sum256(text)
	if err := rsa.VerifyPKCS1v15(a.Key, crypto.SHA256, sum[:], plain); err != nil {
		return payment.Forged("its signature does not fit")
	}
	return nil
}

// ReadNotice reads the body of a notice, a form, and verifies its signature. The error is payment.ErrForged if it is
// not Alipay's, or not for this application and merchant.
func (a Account) ReadNotice(_ context.Context, _ http.Header, body []byte) (payment.Notice, error) {
	form, err := payment.ReadForm(body)
	if err != nil {
		return payment.Notice{}, err
	}

	if got := form.Get("sign_type"); got != signatureType {
		return payment.Notice{}, payment.Forged("it is signed by another method than %s", signatureType)
	}
	if err := a.verify(joined(form, "sign", "sign_type", "alipay_cert_sn"), form.Get("sign")); err != nil {
		return payment.Notice{}, err
	}
	if form.Get("app_id") != a.AppID || form.Get("seller_id") != a.SellerID {
		return payment.Notice{}, payment.Forged("it is for another application or merchant")
	}
	return notice(form)
}

// Answer is what Alipay must be answered, and nothing else. Not acknowledged, a notice comes again eight times in 25
// hours.
func (Account) Answer(taken bool) payment.Answer {
	if taken {
		return payment.Answer{Status: http.StatusOK, ContentType: "text/plain", Body: "success"}
	}
	return payment.Answer{Status: http.StatusOK, ContentType: "text/plain", Body: "failure"}
}

// beijing is the time zone of all times that Alipay writes.
var beijing = time.FixedZone("Beijing", 8*60*60)

// notice reads a form that Alipay has signed.
func notice(form url.Values) (payment.Notice, error) {
	n := payment.Notice{
		Attempt: form.Get("out_trade_no"), Reference: form.Get("trade_no"), Merchant: form.Get("seller_id"),
		Currency: currency,
	}
	amount, status := form.Get("total_amount"), form.Get("trade_status")
	paidAt := form.Get("gmt_payment")
	n.EventKey = n.Attempt + ":" + status

	// A notice of a refund has the status of the trade, which stays a success until all is refunded.
	refunded := form.Get("refund_fee") != ""
	switch {
	case refunded:
		n.Kind, amount, paidAt = payment.Refunded, form.Get("refund_fee"), form.Get("gmt_refund")
		n.EventKey += ":refund:" + form.Get("out_biz_no") + ":" + amount
	case status == "TRADE_SUCCESS" || status == "TRADE_FINISHED":
		n.Kind = payment.Paid
	case status == "TRADE_CLOSED":
		n.Kind = payment.Closed
	case status == "WAIT_BUYER_PAY":
		n.Kind = payment.Issued
	default:
		n.Kind = payment.Failed
	}

	var err error
	if n.Amount, err = order.ParseMoney(amount, currency); err != nil {
		return payment.Notice{}, payment.Forged("it has no amount")
	}
	if n.Attempt == "" {
		return payment.Notice{}, payment.Forged("it has no out_trade_no")
	}
	seconds, _, _ := strings.Cut(paidAt, ".") // of a refund it has a fraction
	n.At, _ = time.ParseInLocation(time.DateTime, seconds, beijing)
	return n, nil
}
