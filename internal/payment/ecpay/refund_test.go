package ecpay

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// A trade of 499 dollars, in ECPay's words.
const (
	isAuthorised = `"status":"已授權","clsamt":0,"close_data":[]`
	isSettling   = `"status":"要關帳","clsamt":"0","close_data":[{"status":"要關帳","amount":"499"}]`
	isSettled    = `"status":"已關帳","clsamt":"499","close_data":[{"status":"已關帳","amount":"499"}]`
	isCalledOff  = `"status":"操作取消","clsamt":"0","close_data":[{"status":"操作取消","amount":"499"}]`
	isCancelled  = `"status":"已取消","clsamt":"0","close_data":[]`
	isBack       = `"status":"已關帳","clsamt":"0","close_data":[{"status":"已關帳","amount":"499"},` +
		`{"status":"要關帳","amount":"-499"}]`
	isPartlyBack = `"status":"已關帳","clsamt":"399","close_data":[{"status":"已關帳","amount":"499"},` +
		`{"status":"已關帳","amount":"-100"}]`
)

// after is what each action makes of a trade; nothing else is done by ECPay.
var after = map[string]map[string]string{
	isAuthorised: {"N": isCancelled},
	isSettling:   {"E": isCalledOff},
	isCalledOff:  {"N": isCancelled},
	isSettled:    {"R": isBack},
}

// card is a trade at ECPay.
type card struct {
	state   string
	actions []string
	lose    bool // the answers to actions
	refuse  bool
}

func (k *card) client(t *testing.T, changes ...string) *Client {
	c := answering(t, func(w http.ResponseWriter, asked url.Values) {
		switch asked.Get("path") {
		case queryPath:
			_, _ = w.Write([]byte(answer(append([]string{"gwsr", "11304112"}, changes...)...)))
		case detailPath:
			if asked.Get("CreditRefundId") != "11304112" || asked.Get("CreditAmount") != "499" ||
				asked.Get("CreditCheckCode") != "91845555" {
				t.Errorf("asked for the detail of %v", asked)
			}
			_, _ = fmt.Fprintf(w, `{"RtnMsg":"","RtnValue":{"TradeID":11304112,"amount":499,%s}}`, k.state)
		case actionPath:
			k.act(t, w, asked)
		}
	})
	c.CheckCode, c.now = "91845555", func() time.Time { return noon }
	return c
}

func (k *card) act(t *testing.T, w http.ResponseWriter, asked url.Values) {
	t.Helper()
	if asked.Get("MerchantTradeNo") != "A1B2" || asked.Get("TradeNo") != "2411280001" ||
		asked.Get("TotalAmount") != "499" {
		t.Errorf("an action on %v", asked)
	}
	k.actions = append(k.actions, asked.Get("Action"))
	next, can := after[k.state][asked.Get("Action")]
	code := "0"
	if can && !k.refuse {
		k.state, code = next, "1"
	}
	if k.lose {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	_, _ = w.Write([]byte("MerchantID=3002607&MerchantTradeNo=A1B2&TradeNo=2411280001&RtnMsg=&RtnCode=" + code))
}

// TestRefund: what is done depends on how the trade stands, and a call that is repeated does nothing more.
func TestRefund(t *testing.T) {
	refund := payment.Refund{Number: "R1", Of: attempt, Amount: attempt.Amount}
	for _, test := range []struct{ state, actions, ends string }{
		{isAuthorised, "N", isCancelled},
		{isSettling, "EN", isCancelled},
		{isCalledOff, "N", isCancelled},
		{isSettled, "R", isBack},
		{isCancelled, "", isCancelled},
		{isBack, "", isBack},
	} {
		for _, lose := range []bool{false, true} {
			k := &card{state: test.state, lose: lose}
			c := k.client(t)
			var err error
			for range 3 {
				if err = c.Refund(t.Context(), refund); !errors.Is(err, payment.ErrUnknown) {
					break
				}
			}
			if got := strings.Join(k.actions, ""); err != nil || got != test.actions || k.state != test.ends {
				t.Errorf("%s, answers lost: %t: did %s, now %s, error %v", test.state, lose, got, k.state, err)
			}
			if err := c.Refund(t.Context(), refund); err != nil || len(k.actions) != len(test.actions) {
				t.Errorf("%s: once more: did %s, error %v", test.state, k.actions, err)
			}
			if back, err := c.Refunded(t.Context(), refund); !back || err != nil {
				t.Errorf("%s: back: %t, error %v", test.state, back, err)
			}
		}
	}
}

func TestRefundIsRefused(t *testing.T) {
	refund := payment.Refund{Number: "R1", Of: attempt, Amount: attempt.Amount}
	with := func(change func(*payment.Refund)) payment.Refund {
		r := refund
		change(&r)
		return r
	}
	for what, test := range map[string]struct {
		k       card
		r       payment.Refund
		want    error
		changes []string
	}{
		"refused":    {card{state: isSettled, refuse: true}, refund, payment.ErrRefused, nil},
		"in doubt":   {card{state: isPartlyBack}, refund, payment.ErrUnknown, nil},
		"unreadable": {card{state: `"amount":"x"`}, refund, payment.ErrUnknown, nil},
		"a part": {card{state: isSettled}, with(func(r *payment.Refund) { r.Amount = 100 }), payment.ErrRefused,
			nil},
		"too much": {card{state: isSettled}, with(func(r *payment.Refund) { r.Amount *= 2 }), payment.ErrRefused,
			nil},
		"no number": {card{state: isSettled}, with(func(r *payment.Refund) { r.Number = "" }), payment.ErrRefused, nil},
		"of a machine": {card{state: isSettled}, with(func(r *payment.Refund) { r.Of.Method = ATM }),
			payment.ErrRefused, nil},
		"unpaid":         {card{state: isSettled}, refund, payment.ErrRefused, []string{"TradeStatus", "0"}},
		"another amount": {card{state: isSettled}, refund, payment.ErrRefused, []string{"TradeAmt", "500"}},
		"not by card": {card{state: isSettled}, refund, payment.ErrRefused,
			[]string{"PaymentType", "WebATM_TAISHIN"}},
	} {
		err := test.k.client(t, test.changes...).Refund(t.Context(), test.r)
		if !errors.Is(err, test.want) || len(test.k.actions) > 0 && !test.k.refuse {
			t.Errorf("%s: did %s, error %v", what, test.k.actions, err)
		}
	}

	noCode, onStage := (&card{}).client(t), (&card{}).client(t)
	noCode.CheckCode, onStage.Host = "", Stage
	for _, c := range []*Client{noCode, onStage} {
		offer, _ := c.Offers("", "TWD")
		if err := c.Refund(t.Context(), refund); !errors.Is(err, payment.ErrRefused) || offer.Refunds {
			t.Errorf("without what it needs: %+v, error %v", offer, err)
		}
	}
}

// TestRefundWaits while ECPay settles.
func TestRefundWaits(t *testing.T) {
	refund := payment.Refund{Number: "R1", Of: attempt, Amount: attempt.Amount}
	for _, test := range []struct {
		minute int // after 20:00 in Taipei
		waits  bool
	}{{14, false}, {15, true}, {29, true}, {30, false}} {
		k := &card{state: isAuthorised}
		c := k.client(t)
		c.now = func() time.Time { return noon.Add(8*time.Hour + time.Duration(test.minute)*time.Minute) }
		err := c.Refund(t.Context(), refund)
		if errors.Is(err, payment.ErrUnknown) != test.waits || (len(k.actions) == 0) != test.waits {
			t.Errorf("at 20:%d: did %s, error %v", test.minute, k.actions, err)
		}
	}
}

// TestNotByCard: nothing of what was paid in another way has gone back by a call, so that an operator can give it back
// by hand and be done with it.
func TestNotByCard(t *testing.T) {
	refund := payment.Refund{Number: "R1", Of: attempt, Amount: attempt.Amount}
	c := (&card{state: isSettled}).client(t, "PaymentType", "ATM_TAISHIN")
	if err := c.Refund(t.Context(), refund); !errors.Is(err, payment.ErrRefused) {
		t.Errorf("give back: %v", err)
	}
	if back, err := c.Refunded(t.Context(), refund); back || err != nil {
		t.Errorf("back: %t, error %v", back, err)
	}
}
