package ecpay

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"stampede/internal/payment"
)

const (
	currency = "TWD"
	// minorUnits of a dollar: ECPay counts whole ones.
	minorUnits = 100
	// maxAmount bounds what is read as an amount, in dollars.
	maxAmount = 1_000_000_000_000
)

// The values of RtnCode. Others are failures; what RtnMsg says varies.
const (
	codePaid        = "1"
	codeATMIssued   = "2"
	codeStoreIssued = "10100073" // of convenience stores, with a code or a barcode
)

// taipei is the time zone of all times that ECPay writes. It has no daylight saving time.
var taipei = time.FixedZone("Taipei", 8*60*60)

// ReadNotice reads the body of a notice, a form, and verifies its signature over all fields that came, known or not.
// The error is payment.ErrForged if it is not ECPay's, or not for this merchant.
func (k Keys) ReadNotice(_ context.Context, _ http.Header, body []byte) (payment.Notice, error) {
	form, err := k.read(body)
	if err != nil {
		return payment.Notice{}, err
	}
	return notice(form)
}

// read reads a form that ECPay has signed for this merchant. The error is payment.ErrForged.
func (k Keys) read(body []byte) (url.Values, error) {
	form, err := payment.ReadForm(body)
	switch {
	case err != nil:
		return nil, err
	case !verifies(form, k.Sign(form)):
		return nil, payment.Forged("its %s does not fit", macField)
	case form.Get("MerchantID") != k.Merchant:
		return nil, payment.Forged("it is for another merchant")
	}
	return form, nil
}

// Answer is what ECPay must be answered within ten seconds: nothing else, without a newline. Not acknowledged, a
// notice comes again up to four times a day.
func (Keys) Answer(taken bool) payment.Answer {
	if taken {
		return payment.Answer{Status: http.StatusOK, ContentType: "text/plain", Body: "1|OK"}
	}
	return payment.Answer{Status: http.StatusOK, ContentType: "text/plain", Body: "0|not taken"}
}

// notice reads a form that ECPay has signed.
func notice(form url.Values) (payment.Notice, error) {
	dollars, err := strconv.ParseInt(form.Get("TradeAmt"), 10, 64)
	if err != nil || dollars < 0 || dollars > maxAmount {
		return payment.Notice{}, payment.Forged("it has no TradeAmt")
	}
	fee, _ := strconv.ParseFloat(form.Get("PaymentTypeChargeFee"), 64) // told of what is paid only; may have a fraction
	if !(fee >= 0 && fee <= maxAmount) {
		fee = 0
	}

	n := payment.Notice{
		Attempt: form.Get("MerchantTradeNo"), Reference: form.Get("TradeNo"), Merchant: form.Get("MerchantID"),
		Amount: dollars * minorUnits, Currency: currency, Fee: int64(fee*minorUnits + .5),
		Simulated: form.Get("SimulatePaid") == "1",
	}
	if n.Attempt == "" {
		return payment.Notice{}, payment.Forged("it has no MerchantTradeNo")
	}
	n.At, _ = time.ParseInLocation("2006/01/02 15:04:05", form.Get("PaymentDate"), taipei)

	code := form.Get("RtnCode")
	switch code {
	case codePaid:
		n.Kind = payment.Paid
	case codeATMIssued, codeStoreIssued:
		n.Kind = payment.Issued
	default:
		n.Kind = payment.Failed
	}
	// With the code: keyed by the number alone, "issued" would swallow "paid".
	n.EventKey = n.Attempt + ":" + code
	return n, nil
}
