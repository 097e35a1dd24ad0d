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
	// maxSubjectChars bounds the name of what is bought.
	maxSubjectChars = 256
	// least is the shortest time that Alipay takes for an attempt.
	least = time.Minute
	// lapse is how long after its expiry a trade that was not found counts as one that may yet be there: the clocks
	// differ, and a buyer may be logging in. It is no rule of Alipay's.
	lapse = 5 * time.Minute

	codeDone     = "10000"
	codeBusiness = "40004" // a rule of business was broken
	notThere     = "ACQ.TRADE_NOT_EXIST"
)

// Client speaks with Alipay for one application.
type Client struct {
	Account
	// Gateway is Live, Sandbox, or a server that speaks like them.
	Gateway string
	// Own is the application's key, by which it signs what it asks for.
	Own *rsa.PrivateKey
	// HTTP makes the requests; nil is payment.Plain.
	HTTP *http.Client

	now func() time.Time // time.Now, but for tests
}

var _ payment.Provider = (*Client)(nil)

// Name is alipay.
func (c *Client) Name() string { return "alipay" }

// Offers is payment.Provider's: Alipay takes yuan, by one method.
func (c *Client) Offers(method, code string) (payment.Offer, bool) {
	return payment.Offer{Refunds: true, Least: least, Lapse: lapse, Multiple: 1}, method == "" && code == currency
}

// Start returns the address at which the buyer's browser pays. Alipay learns of the attempt there, when the buyer logs
// in, and not after its expiry, which is a time and no duration.
func (c *Client) Start(_ context.Context, a payment.Attempt) (payment.Page, error) {
	if _, err := a.Check(c); err != nil {
		return payment.Page{}, err
	}
	if a.Expires.Sub(c.time()) < least {
		return payment.Page{}, fmt.Errorf("%w: too little time is left to pay", payment.ErrRefused)
	}
	form, err := c.request("alipay.trade.page.pay", map[string]string{
		"out_trade_no": a.Number, "product_code": "FAST_INSTANT_TRADE_PAY", "total_amount": yuan(a.Amount),
		"subject": plainSubject(a.Item), "time_expire": a.Expires.In(beijing).Format(time.DateTime),
	}, map[string]string{"notify_url": a.NoticeURL, "return_url": a.BackURL})
	if err != nil {
		return payment.Page{}, err
	}
	return payment.Page{URL: c.Gateway + "?" + form.Encode()}, nil
}

// yuan is an amount as Alipay writes it.
func yuan(fen int64) string {
	text, _ := order.Decimal(fen, currency)
	return text
}

func (c *Client) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
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
	form := url.Values{
		"app_id": {c.AppID}, "method": {method}, "format": {"JSON"}, "charset": {"utf-8"},
		"sign_type": {signatureType}, "timestamp": {c.time().In(beijing).Format(time.DateTime)}, "version": {"1.0"},
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
		return nil, fmt.Errorf("%w: sign a request: %w", payment.ErrUnknown, err)
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

	// Moved is Y if a refund has moved money by this very call, and RefundStatus how one stands that is asked for.
	Moved        string `json:"fund_change"`
	RefundNumber string `json:"out_request_no"`
	RefundStatus string `json:"refund_status"`
}

// Query is payment.Provider's.
func (c *Client) Query(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	r, err := c.call(ctx, "alipay.trade.query", map[string]string{"out_trade_no": a.Number})
	switch {
	case err != nil:
		return "", payment.Notice{}, err
	case r.SubCode == notThere:
		return payment.NotFound, payment.Notice{}, nil
	case r.Code != codeDone:
		return "", payment.Notice{}, unknown(r)
	case r.Number != a.Number:
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

// Capture is Query: Alipay takes the money by itself.
func (c *Client) Capture(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	return c.Query(ctx, a)
}

// Close has the trade closed. One that is not there cannot be closed, nor be made by us: the buyer makes it by logging
// in at the page that he has open. The expiry that Start has signed bounds this, so that it is Lapsed a while after.
func (c *Client) Close(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	asked := c.time()
	r, err := c.call(ctx, "alipay.trade.close", map[string]string{"out_trade_no": a.Number})
	switch {
	case err != nil:
		return "", payment.Notice{}, err
	case r.Code == codeDone:
		return payment.Lapsed, payment.Notice{}, nil
	case r.SubCode == notThere && asked.After(a.Expires.Add(lapse)):
		return payment.Lapsed, payment.Notice{}, nil
	case r.SubCode == notThere:
		return payment.NotFound, payment.Notice{}, nil
	case r.SubCode == "ACQ.TRADE_HAS_SUCCESS" || r.SubCode == "ACQ.TRADE_STATUS_ERROR": // paid, or closed before
		return c.Query(ctx, a)
	}
	return "", payment.Notice{}, unknown(r)
}

// Refund is payment.Provider's. Alipay's documentation of alipay.trade.refund has it made once for each out_request_no,
// and says that it is made for sure if the answer says that money has moved; else it is to be asked for.
func (c *Client) Refund(ctx context.Context, refund payment.Refund) error {
	if err := refund.Check(c); err != nil {
		return err
	}
	r, err := c.call(ctx, "alipay.trade.refund", map[string]string{
		"out_trade_no": refund.Of.Number, "out_request_no": refund.Number, "refund_amount": yuan(refund.Amount),
	})
	switch {
	case err != nil:
		return err
	case r.Code == codeBusiness && r.SubCode != "ACQ.SYSTEM_ERROR":
		return fmt.Errorf("%w: %s", payment.ErrRefused, r.SubCode)
	case r.Code != codeDone:
		return unknown(r)
	case r.Moved == "Y":
		return nil
	}
	made, err := c.Refunded(ctx, refund)
	if err == nil && !made {
		err = fmt.Errorf("%w: no money has moved yet", payment.ErrUnknown)
	}
	return err
}

// Refunded is payment.Provider's. A refund that is not there, or not made, has no status.
func (c *Client) Refunded(ctx context.Context, refund payment.Refund) (bool, error) {
	r, err := c.call(ctx, "alipay.trade.fastpay.refund.query", map[string]string{
		"out_trade_no": refund.Of.Number, "out_request_no": refund.Number,
	})
	switch {
	case err != nil:
		return false, err
	case r.SubCode == notThere:
		return false, nil
	case r.Code != codeDone:
		return false, unknown(r)
	}
	return r.RefundStatus == "REFUND_SUCCESS" && r.RefundNumber == refund.Number, nil
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
