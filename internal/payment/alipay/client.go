package alipay

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"stampede/internal/order"
	"stampede/internal/payment"
)

// The gateways of Alipay.
const (
	Live    = "https://openapi.alipay.com/gateway.do"
	Sandbox = "https://openapi-sandbox.dl.alipaydev.com/gateway.do"
)

const (
	// callTimeout bounds a call.
	callTimeout = 10 * time.Second
	// maxNumber is how long a number of an attempt, or of a refund, may be.
	maxNumber = 64
	// maxSubjectChars bounds the name of what is bought.
	maxSubjectChars = 256

	codeDone = "10000"
)

// Client speaks with Alipay for one application.
type Client struct {
	Account
	// Gateway is Live, Sandbox, or a server that speaks like them.
	Gateway string
	// Own is the application's key, by which it signs what it asks for.
	Own *rsa.PrivateKey
	// HTTP makes the requests; nil is http.DefaultClient.
	HTTP *http.Client

	now func() time.Time // time.Now, but for tests
}

// Attempt is an attempt to pay.
type Attempt struct {
	// Number is ours: 1 to 64 letters, digits and underscores, used once for all time.
	Number string
	// Amount is in fen, hundredths of a yuan.
	Amount int64
	// Item is what is bought, in words.
	Item string
	// NoticeURL is where Alipay posts what has become of it, and BackURL where it sends the buyer back to.
	NoticeURL, BackURL string
	// ExpiresAt is until when it can be paid.
	ExpiresAt time.Time
}

// Checkout returns the address at which the buyer's browser pays.
func (c *Client) Checkout(a Attempt) (address string, err error) {
	if err := checkNumber(a.Number); err != nil {
		return "", err
	}
	if a.Amount <= 0 {
		return "", errors.New("alipay: there is nothing to pay")
	}
	amount, _ := order.Decimal(a.Amount, currency)
	form, err := c.request("alipay.trade.page.pay", map[string]string{
		"out_trade_no": a.Number, "product_code": "FAST_INSTANT_TRADE_PAY", "total_amount": amount,
		"subject": plainSubject(a.Item), "time_expire": a.ExpiresAt.In(beijing).Format(time.DateTime),
	}, map[string]string{"notify_url": a.NoticeURL, "return_url": a.BackURL})
	if err != nil {
		return "", err
	}
	return c.Gateway + "?" + form.Encode(), nil
}

func checkNumber(number string) error {
	odd := func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_')
	}
	if number == "" || len(number) > maxNumber || strings.ContainsFunc(number, odd) {
		return fmt.Errorf("alipay: a number is 1 to %d letters, digits and underscores", maxNumber)
	}
	return nil
}

// plainSubject is the name of something as Alipay may have it: valid, short enough, and without what begins a field in
// the text that is signed.
func plainSubject(name string) string {
	runes := []rune(strings.ToValidUTF8(strings.NewReplacer("&", "＆", "=", "＝", "/", "／").Replace(name), ""))
	return string(runes[:min(len(runes), maxSubjectChars)])
}

// request is a signed call.
func (c *Client) request(method string, content map[string]string, more map[string]string) (url.Values, error) {
	body, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	now := time.Now
	if c.now != nil {
		now = c.now
	}
	form := url.Values{
		"app_id": {c.AppID}, "method": {method}, "format": {"JSON"}, "charset": {"utf-8"},
		"sign_type": {signatureType}, "timestamp": {now().In(beijing).Format(time.DateTime)}, "version": {"1.0"},
		"biz_content": {string(body)},
	}
	for name, value := range more {
		if value != "" {
			form.Set(name, value)
		}
	}

	// Unlike a notice, a request is signed with the method of its signature.
	sum := sha256.Sum256(joined(form))
	signature, err := rsa.SignPKCS1v15(rand.Reader, c.Own, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("alipay: sign a request: %w", err)
	}
	form.Set("sign", base64.StdEncoding.EncodeToString(signature))
	return form, nil
}

// reply is what Alipay answers, as far as it is needed. All is text.
type reply struct {
	Code    string `json:"code"`
	SubCode string `json:"sub_code"`

	Number  string `json:"out_trade_no"`
	TradeNo string `json:"trade_no"`
	Status  string `json:"trade_status"`
	Total   string `json:"total_amount"`
	PaidAt  string `json:"send_pay_date"`
}

// Query asks how an attempt stands. If it is paid, the notice says by what. The error is payment.ErrUnknown if that
// cannot be found out now.
func (c *Client) Query(ctx context.Context, number string) (payment.State, payment.Notice, error) {
	r, err := c.call(ctx, "alipay.trade.query", map[string]string{"out_trade_no": number})
	switch {
	case err != nil:
		return "", payment.Notice{}, err
	case r.SubCode == "ACQ.TRADE_NOT_EXIST":
		return payment.NotFound, payment.Notice{}, nil
	case r.Code != codeDone:
		return "", payment.Notice{}, unknown(r)
	case r.Number != number:
		return "", payment.Notice{}, fmt.Errorf("%w: it has answered about another attempt", payment.ErrUnknown)
	}

	switch r.Status {
	case "WAIT_BUYER_PAY":
		return payment.Open, payment.Notice{}, nil
	case "TRADE_CLOSED": // or paid and refunded in full, which we would know
		return payment.Lapsed, payment.Notice{}, nil
	case "TRADE_SUCCESS", "TRADE_FINISHED":
		// The same as a notice of it, under the same key.
		n, err := notice(url.Values{
			"out_trade_no": {r.Number}, "trade_no": {r.TradeNo}, "trade_status": {r.Status}, "total_amount": {r.Total},
			"seller_id": {c.SellerID}, "gmt_payment": {r.PaidAt},
		})
		if err != nil {
			return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
		}
		return payment.Taken, n, nil
	}
	return "", payment.Notice{}, fmt.Errorf("%w: it has the status %.30q", payment.ErrUnknown, r.Status)
}

// Close has an attempt closed, so that it cannot be paid any more, and returns how it stands then: Lapsed, or Taken if
// it was paid before, or NotFound. The error is payment.ErrUnknown if that is not known.
func (c *Client) Close(ctx context.Context, number string) (payment.State, error) {
	r, err := c.call(ctx, "alipay.trade.close", map[string]string{"out_trade_no": number})
	switch {
	case err != nil:
		return "", err
	case r.Code == codeDone:
		return payment.Lapsed, nil
	case r.SubCode == "ACQ.TRADE_HAS_SUCCESS":
		return payment.Taken, nil
	case r.SubCode == "ACQ.TRADE_NOT_EXIST":
		return payment.NotFound, nil
	}
	return "", unknown(r)
}

// Refund gives back a part of what was paid, or all of it, once for each number of a refund: with the same number it
// may be called until the outcome is known. The error is payment.ErrRefused if nothing is given back, and
// payment.ErrUnknown if that is not known.
func (c *Client) Refund(ctx context.Context, attempt, refund string, amount int64) error {
	if err := errors.Join(checkNumber(attempt), checkNumber(refund)); err != nil {
		return err
	}
	if amount <= 0 {
		return errors.New("alipay: there is nothing to refund")
	}
	text, _ := order.Decimal(amount, currency)
	r, err := c.call(ctx, "alipay.trade.refund", map[string]string{
		"out_trade_no": attempt, "out_request_no": refund, "refund_amount": text,
	})
	switch {
	case err != nil:
		return err
	case r.Code == codeDone:
		return nil
	case r.Code == "40004" && r.SubCode != "ACQ.SYSTEM_ERROR": // a rule of business
		return fmt.Errorf("%w: %s", payment.ErrRefused, r.SubCode)
	}
	return unknown(r)
}

func unknown(r reply) error {
	return fmt.Errorf("%w: it has answered %.10q %.60q", payment.ErrUnknown, r.Code, r.SubCode)
}

// call makes a call and verifies the answer's signature.
func (c *Client) call(ctx context.Context, method string, content map[string]string) (reply, error) {
	form, err := c.request(method, content, nil)
	if err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := payment.PostForm(ctx, c.HTTP, c.Gateway, form)
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
	}
	r, err := c.readAnswer(body, method)
	if err != nil {
		return reply{}, fmt.Errorf("%w: its answer: %w", payment.ErrUnknown, err)
	}
	return r, nil
}

// readAnswer reads an answer. Signed are the bytes of the object in it, as they are.
func (c *Client) readAnswer(body []byte, method string) (r reply, err error) {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(body, &parts); err != nil {
		return reply{}, errors.New("it is no JSON")
	}
	object := parts[strings.ReplaceAll(method, ".", "_")+"_response"]
	var text string
	if err := json.Unmarshal(parts["sign"], &text); err != nil || object == nil {
		return reply{}, errors.New("it is not signed")
	}
	if err := c.verify(object, text); err != nil {
		return reply{}, err
	}
	if err := json.Unmarshal(object, &r); err != nil {
		return reply{}, errors.New("it cannot be read")
	}
	return r, nil
}
