package ecpay

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"stampede/internal/payment"
)

// The hosts of ECPay's payments.
const (
	Live  = "https://payment.ecpay.com.tw"
	Stage = "https://payment-stage.ecpay.com.tw"
)

const (
	checkoutPath = "/Cashier/AioCheckOut/V5"
	queryPath    = "/Cashier/QueryTradeInfo/V5"

	// maxNumber is how long a merchant's number may be, of letters and digits. It is used once for all time.
	maxNumber = 20
	// maxItemBytes bounds the name of what is bought. A cut inside of a character would spoil the signature.
	maxItemBytes = 200
	// queryTimeout bounds a query.
	queryTimeout = 10 * time.Second
	// queryPause is the time between two queries: ECPay locks out for half an hour who asks more often.
	queryPause = 200 * time.Millisecond
)

// Client speaks with ECPay for one merchant. Set the fields before the first use.
type Client struct {
	Keys
	// Host is Live, Stage, or a server that speaks like them.
	Host string
	// HTTP makes the requests; nil is http.DefaultClient.
	HTTP *http.Client

	now func() time.Time // time.Now, but for tests

	mu   sync.Mutex
	next time.Time // before which no query is made
}

// Attempt is an attempt to pay.
type Attempt struct {
	// Number is ours: 1 to 20 letters and digits, used once for all time.
	Number string
	// Amount is in hundredths of a dollar, as ISO 4217 has it, and must be whole dollars.
	Amount int64
	// Item is what is bought, in words.
	Item string
	// NoticeURL is where ECPay posts what has become of it, and BackURL where it sends the buyer back to.
	NoticeURL, BackURL string
}

// Checkout returns the address and the fields of the form that the buyer's browser posts to pay, in a full page.
// Payments that are made days later, at a cash machine or in a store, are not offered.
func (c *Client) Checkout(a Attempt) (address string, form url.Values, err error) {
	notAlphanumeric := func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	switch {
	case a.Number == "" || len(a.Number) > maxNumber || strings.ContainsFunc(a.Number, notAlphanumeric):
		return "", nil, fmt.Errorf("ecpay: the number of an attempt is 1 to %d letters and digits", maxNumber)
	case a.Amount <= 0 || a.Amount%minorUnits != 0:
		return "", nil, fmt.Errorf("ecpay: an amount is whole dollars, and not %d hundredths", a.Amount)
	}

	item := plainItem(a.Item)
	form = url.Values{
		"MerchantID": {c.Merchant}, "MerchantTradeNo": {a.Number},
		"MerchantTradeDate": {c.time().In(taipei).Format("2006/01/02 15:04:05")},
		"PaymentType":       {"aio"}, "TotalAmount": {strconv.FormatInt(a.Amount/minorUnits, 10)},
		"TradeDesc": {item}, "ItemName": {item}, "ReturnURL": {a.NoticeURL}, "ClientBackURL": {a.BackURL},
		"ChoosePayment": {"ALL"}, "IgnorePayment": {"ATM#CVS#BARCODE"}, "EncryptType": {"1"},
	}
	form.Set(macField, c.Sign(form))
	return c.Host + checkoutPath, form, nil
}

// plainItem is the name of something as a form of ECPay may have it: valid, short enough, and without what begins a
// field in the text that is signed.
func plainItem(name string) string {
	name = strings.ReplaceAll(strings.ToValidUTF8(name, ""), "&", "＆")
	if len(name) <= maxItemBytes {
		return name
	}
	cut := maxItemBytes
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut]
}

// Query asks ECPay how an attempt stands. If it is paid, the notice says by what. The error is payment.ErrUnknown if
// that cannot be found out now.
func (c *Client) Query(ctx context.Context, number string) (payment.State, payment.Notice, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := c.turn(ctx); err != nil {
		return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
	}
	form := url.Values{
		"MerchantID": {c.Merchant}, "MerchantTradeNo": {number},
		"TimeStamp": {strconv.FormatInt(c.time().Unix(), 10)},
	}
	form.Set(macField, c.Sign(form))

	answer, err := payment.PostForm(ctx, c.HTTP, c.Host+queryPath, form)
	if err != nil {
		return "", payment.Notice{}, fmt.Errorf("%w: %w", payment.ErrUnknown, err)
	}
	state, n, err := c.readAnswer(answer, number)
	if err != nil {
		return "", payment.Notice{}, fmt.Errorf("%w: its answer: %w", payment.ErrUnknown, err)
	}
	return state, n, nil
}

// readAnswer reads the answer to a query of an attempt.
func (c *Client) readAnswer(body []byte, number string) (payment.State, payment.Notice, error) {
	form, err := payment.ReadForm(body)
	if err != nil {
		return "", payment.Notice{}, err
	}
	if !verifies(form, c.Sign(form)) {
		return "", payment.Notice{}, payment.Forged("its %s does not fit", macField)
	}
	if got := form.Get("MerchantTradeNo"); got != number || form.Get("MerchantID") != c.Merchant {
		return "", payment.Notice{}, payment.Forged("it is about another attempt")
	}
	switch status := form.Get("TradeStatus"); status {
	case "10200095":
		return payment.NotFound, payment.Notice{}, nil
	case "0":
		return payment.Open, payment.Notice{}, nil
	case "1":
		form.Set("RtnCode", codePaid) // which a notice has in place of the status
		n, err := notice(form)
		return payment.Taken, n, err
	default:
		return "", payment.Notice{}, fmt.Errorf("it has the status %.20q", status)
	}
}

// turn waits until another query may be made.
func (c *Client) turn(ctx context.Context) error {
	c.mu.Lock()
	now := time.Now()
	at := c.next
	if at.Before(now) {
		at = now
	}
	c.next = at.Add(queryPause)
	c.mu.Unlock()

	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
}
