package ecpay

import (
	"cmp"
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

	// maxItemBytes bounds the name of what is bought. A cut inside of a character would spoil the signature.
	maxItemBytes = 200
	// callTimeout bounds a call.
	callTimeout = 10 * time.Second
	// callPause is the time between two calls: ECPay locks out for half an hour who asks more often.
	callPause = 200 * time.Millisecond
)

// The methods to pay by. An empty one is a card.
const (
	Card    = "card"
	ATM     = "atm"     // a transfer to an account number that is given out
	CVS     = "cvs"     // in a convenience store, by a code
	Barcode = "barcode" // in a convenience store, by a barcode
)

const day = 24 * time.Hour

// methods are what each method is in ECPay's words, and how attempts are paid by it.
//
// ECPay cannot close an attempt. Its documentation ("query order", p=2890) has a card's payment known 40 minutes after
// it, and stores tell of a barcode some two days later; the others have no time documented, and a day is ours.
//
// An account number ends with a day of the calendar, so that two days always have the end of the next one in them.
var methods = map[string]struct {
	name string
	payment.Offer
}{
	Card:    {"Credit", payment.Offer{Lapse: 45 * time.Minute, Multiple: minorUnits}},
	ATM:     {"ATM", payment.Offer{Least: 2 * day, Lapse: day, Multiple: minorUnits}},
	CVS:     {"CVS", payment.Offer{Least: 30 * time.Minute, Lapse: day, Multiple: minorUnits}},
	Barcode: {"BARCODE", payment.Offer{Least: 2 * day, Lapse: 3 * day, Multiple: minorUnits}},
}

// Client speaks with ECPay for one merchant. Set the fields before the first use.
type Client struct {
	Keys
	// CheckCode is the merchant's for questions about cards, as ECPay's console shows it. Without it nothing is given
	// back but by hand.
	CheckCode string
	// Host is Live, Stage, or a server that speaks like them.
	Host string
	// HTTP makes the requests; nil is payment.Plain.
	HTTP *http.Client

	now   func() time.Time // time.Now, but for tests
	pause time.Duration    // callPause, but for tests

	mu   sync.Mutex
	next time.Time // before which no call is made
}

var _ payment.Provider = (*Client)(nil)

// Name is ecpay.
func (c *Client) Name() string { return "ecpay" }

// Offers is payment.Provider's: ECPay takes New Taiwan dollars, in whole ones, and gives back what was paid by card.
func (c *Client) Offers(method, code string) (payment.Offer, bool) {
	if method == "" {
		method = Card
	}
	m, ok := methods[method]
	m.Refunds = method == Card && c.CheckCode != "" && c.Host != Stage
	return m.Offer, ok && code == currency
}

// Start returns the form that the buyer's browser posts to pay, in a full page. ECPay learns of the attempt by that
// form alone, whenever it is posted, and counts a number's time from then on: a page posts it at once.
func (c *Client) Start(_ context.Context, a payment.Attempt) (payment.Page, error) {
	if _, err := a.Check(c); err != nil {
		return payment.Page{}, err
	}
	method := methods[Card]
	if a.Method != "" {
		method = methods[a.Method]
	}
	item := plainItem(a.Item)
	form := url.Values{
		"MerchantID": {c.Merchant}, "MerchantTradeNo": {a.Number},
		"MerchantTradeDate": {c.time().In(taipei).Format("2006/01/02 15:04:05")},
		"PaymentType":       {"aio"}, "TotalAmount": {dollars(a.Amount)},
		"TradeDesc": {item}, "ItemName": {item}, "ReturnURL": {a.NoticeURL}, "ClientBackURL": {a.BackURL},
		"ChoosePayment": {method.name}, "NeedExtraPaidInfo": {"Y"}, "EncryptType": {"1"},
	}
	if a.Method != "" && a.Method != Card {
		form.Set("PaymentInfoURL", a.NoticeURL)
	}
	if !c.setExpiry(form, a) {
		return payment.Page{}, fmt.Errorf("%w: too little time is left to pay", payment.ErrRefused)
	}
	form.Set(macField, c.Sign(form))
	return payment.Page{URL: c.Host + checkoutPath, Form: form}, nil
}

// setExpiry sets when a number to pay by ends, rounded down to what the method counts in, and reports whether that is
// at all. A card's page has no time of its own. The bounds are those of ECPay's pages on each method (p=2872 to 2877).
func (c *Client) setExpiry(form url.Values, a payment.Attempt) bool {
	left, field, count := a.Expires.Sub(c.time()), "StoreExpireDate", int64(0)
	switch a.Method {
	case ATM: // to the end of the day in so many days
		today := c.time().In(taipei)
		midnight := time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, taipei)
		field, count = "ExpireDate", min(int64(a.Expires.Sub(midnight)/day)-1, 60)
	case CVS: // in minutes
		count = min(int64(left/time.Minute), 86400)
	case Barcode: // in days
		count = min(int64(left/day), 30)
	default:
		return left > 0
	}
	form.Set(field, strconv.FormatInt(count, 10))
	return count > 0
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

// Query is payment.Provider's.
func (c *Client) Query(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	form, err := c.trade(ctx, a.Number)
	if err != nil {
		return "", payment.Notice{}, err
	}
	switch status := form.Get("TradeStatus"); status {
	case "10200095":
		return payment.NotFound, payment.Notice{}, nil
	case "0":
		return payment.Open, payment.Notice{}, nil
	case "1":
		form.Set("RtnCode", codePaid) // which a notice has in place of the status
		n, err := notice(form)
		if err != nil {
			return "", payment.Notice{}, unknown(err)
		}
		return payment.Taken, n, nil
	default:
		return "", payment.Notice{}, fmt.Errorf("%w: it has the status %.20q", payment.ErrUnknown, status)
	}
}

// Capture is Query: ECPay takes the money by itself.
func (c *Client) Capture(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	return c.Query(ctx, a)
}

// Close is Query, which turns to Lapsed when the attempt has expired and the time is over in which ECPay may yet tell
// of a payment. A form that a buyer posts later still makes a trade: such money comes late, and goes back.
func (c *Client) Close(ctx context.Context, a payment.Attempt) (payment.State, payment.Notice, error) {
	offer, ok := c.Offers(a.Method, a.Currency)
	if !ok {
		return "", payment.Notice{}, fmt.Errorf("%w: by %.20q", payment.ErrUnknown, a.Method)
	}
	asked := c.time()
	state, n, err := c.Query(ctx, a)
	if err == nil && state != payment.Taken && asked.After(a.Expires.Add(offer.Lapse)) {
		state = payment.Lapsed
	}
	return state, n, err
}

func unknown(err error) error { return fmt.Errorf("%w: %w", payment.ErrUnknown, err) }

// trade asks for what ECPay knows of an attempt. The error is payment.ErrUnknown.
func (c *Client) trade(ctx context.Context, number string) (url.Values, error) {
	answer, err := c.call(ctx, queryPath, url.Values{
		"MerchantTradeNo": {number}, "TimeStamp": {strconv.FormatInt(c.time().Unix(), 10)},
	})
	if err != nil {
		return nil, err
	}
	form, err := c.read(answer)
	switch {
	case err != nil:
		return nil, unknown(err)
	case form.Get("MerchantTradeNo") != number:
		return nil, fmt.Errorf("%w: it has answered about another attempt", payment.ErrUnknown)
	}
	return form, nil
}

// call posts a form, which it signs. The error is payment.ErrUnknown.
func (c *Client) call(ctx context.Context, path string, form url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.turn(ctx); err != nil {
		return nil, unknown(err)
	}
	form.Set("MerchantID", c.Merchant)
	form.Set(macField, c.Sign(form))
	answer, err := payment.PostForm(ctx, c.HTTP, c.Host+path, form)
	if err != nil {
		return nil, unknown(err)
	}
	return answer, nil
}

// turn waits until another call may be made.
func (c *Client) turn(ctx context.Context) error {
	c.mu.Lock()
	now := time.Now()
	at := c.next
	if at.Before(now) {
		at = now
	}
	c.next = at.Add(cmp.Or(c.pause, callPause))
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
