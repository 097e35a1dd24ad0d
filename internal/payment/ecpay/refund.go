package ecpay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"stampede/internal/payment"
)

const (
	detailPath = "/CreditDetail/QueryTrade/V2"
	actionPath = "/CreditDetail/DoAction"
)

// The words in which ECPay says how a card's trade stands.
const (
	authorised    = "已授權"
	settling      = "要關帳"
	settled       = "已關帳"
	notSettling   = "操作取消" // settling was called off, so that it is authorised again
	cancelledCard = "已取消"
)

// What can be done to a trade.
const (
	giveBack    = "R" // of a settled one
	callOff     = "E" // its settling, which leaves it authorised
	abandonCard = "N" // an authorised one
)

// cardTrade is what ECPay tells of a card's trade. Its numbers come with and without quotation marks.
type cardTrade struct {
	Amount  json.Number `json:"amount"`
	Settled json.Number `json:"clsamt"`
	Status  string      `json:"status"`
	Closing []struct {
		Status string      `json:"status"`
		Amount json.Number `json:"amount"`
	} `json:"close_data"`
}

// errNotByCard refuses to give back what the buyer has paid in another way than he was to.
var errNotByCard = fmt.Errorf("%w: it was not paid by card; give it back in ECPay's console", payment.ErrRefused)

// Refund gives back what was paid by card, as a whole: ECPay knows refunds by no number, so that of two parts it could
// not be told whether one was made. It asks how the trade stands, and does what leads on from there, so that a call
// that is repeated does nothing twice.
//
// Documented in ECPay's "credit card refund" (p=9242 and 45919: an authorised trade is abandoned, the settling of one
// that is settling is called off before, a settled one is given back), "credit card detail" (p=2894) and "extra
// information" (p=5675). What the detail shows of a trade that was given back is not documented: it counts as that if
// nothing of it is settled any more, and in doubt the outcome stays unknown.
func (c *Client) Refund(ctx context.Context, r payment.Refund) error {
	if why := c.byHand(r); why != "" {
		return fmt.Errorf("%w: %s; give it back in ECPay's console", payment.ErrRefused, why)
	}
	if err := r.Check(c); err != nil {
		return err
	}
	if c.isSettling() {
		return fmt.Errorf("%w: ECPay settles the day's cards now", payment.ErrUnknown)
	}
	for range 2 { // what is settling is called off first
		tradeNo, state, err := c.card(ctx, r.Of)
		if err != nil {
			return err
		}
		action := state.next()
		switch {
		case state.isBack():
			return nil
		case action == "":
			return fmt.Errorf("%w: the trade is %.20q", payment.ErrUnknown, state.Status)
		}
		if err := c.act(ctx, r.Of, tradeNo, action); err != nil || action != callOff {
			return err
		}
	}
	return fmt.Errorf("%w: the trade is settling still", payment.ErrUnknown)
}

// isSettling reports whether it is the quarter of an hour, from 20:15 in Taipei, in which ECPay settles by itself and
// wants no refunds to be asked for.
func (c *Client) isSettling() bool {
	now := c.time().In(taipei)
	minute := now.Hour()*60 + now.Minute()
	return minute >= 20*60+15 && minute < 20*60+30
}

// Refunded is payment.Provider's. Parts are given back in ECPay's console alone, and by nothing that is known here.
func (c *Client) Refunded(ctx context.Context, r payment.Refund) (bool, error) {
	if c.byHand(r) != "" || r.Check(c) != nil {
		return false, nil
	}
	_, state, err := c.card(ctx, r.Of)
	switch {
	case errors.Is(err, errNotByCard): // for certain, and always
		return false, nil
	case err != nil:
		return false, unknown(err)
	}
	return state.isBack(), nil
}

// byHand says why a refund cannot be made by a call, for those who make it then, or nothing.
func (c *Client) byHand(r payment.Refund) string {
	switch {
	case r.Of.Method != "" && r.Of.Method != Card:
		return fmt.Sprintf("what was paid by %.20q goes back by hand only", r.Of.Method)
	case c.Host == Stage:
		return "ECPay's stage gives nothing back"
	case c.CheckCode == "":
		return "the check code of cards (ECPAY_CREDIT_CHECK_CODE) is not set"
	case r.Amount != r.Of.Amount:
		return "a part goes back by hand only"
	}
	return ""
}

// card asks for the trade that has paid an attempt: its number, and how it stands.
func (c *Client) card(ctx context.Context, a payment.Attempt) (tradeNo string, t cardTrade, err error) {
	form, err := c.trade(ctx, a.Number)
	switch {
	case err != nil:
		return "", cardTrade{}, err
	case form.Get("TradeStatus") != "1" || form.Get("TradeAmt") != dollars(a.Amount):
		return "", cardTrade{}, fmt.Errorf("%w: this amount was not paid", payment.ErrRefused)
	case !strings.HasPrefix(form.Get("PaymentType"), "Credit_"):
		return "", cardTrade{}, errNotByCard
	}
	answer, err := c.call(ctx, detailPath, url.Values{
		"CreditRefundId": {form.Get("gwsr")}, "CreditAmount": {dollars(a.Amount)}, "CreditCheckCode": {c.CheckCode},
	})
	if err != nil {
		return "", cardTrade{}, err
	}
	var told struct {
		Message string          `json:"RtnMsg"`
		Trade   json.RawMessage `json:"RtnValue"`
	}
	if err := json.Unmarshal(answer, &told); err != nil || told.Message != "" {
		return "", cardTrade{}, fmt.Errorf("%w: no detail of the card: %.40q", payment.ErrUnknown, told.Message)
	}
	if err := json.Unmarshal(told.Trade, &t); err != nil || t.Amount.String() != dollars(a.Amount) {
		return "", cardTrade{}, fmt.Errorf("%w: a detail that cannot be read", payment.ErrUnknown)
	}
	return form.Get("TradeNo"), t, nil
}

// isBack reports whether the buyer has his money.
func (t cardTrade) isBack() bool {
	return t.Status == cancelledCard || t.Status == settled && t.Settled == "0"
}

// next is what leads from here to the money being back; empty if that is not sure.
func (t cardTrade) next() string {
	whole := len(t.Closing) == 1 && t.Closing[0].Amount == t.Amount
	switch {
	case t.Status == authorised && len(t.Closing) == 0, t.Status == notSettling:
		return abandonCard
	case whole && t.Closing[0].Status == settling:
		return callOff
	case whole && t.Status == settled && t.Closing[0].Status == settled && t.Settled == t.Amount:
		return giveBack
	}
	return ""
}

// act does something to the whole of a trade. A refusal is not signed: it is looked at before money goes back by hand.
func (c *Client) act(ctx context.Context, a payment.Attempt, tradeNo, action string) error {
	answer, err := c.call(ctx, actionPath, url.Values{
		"MerchantTradeNo": {a.Number}, "TradeNo": {tradeNo}, "Action": {action}, "TotalAmount": {dollars(a.Amount)},
	})
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(answer))
	switch code := form.Get("RtnCode"); {
	case err != nil || code == "" || form.Get("MerchantTradeNo") != a.Number:
		return fmt.Errorf("%w: action %s: an answer that cannot be read", payment.ErrUnknown, action)
	case code != "1":
		return fmt.Errorf("%w: action %s: %.20q %.60q", payment.ErrRefused, action, code, form.Get("RtnMsg"))
	}
	return nil
}

// dollars is an amount as ECPay writes it.
func dollars(amount int64) string { return strconv.FormatInt(amount/minorUnits, 10) }
