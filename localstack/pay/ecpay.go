package pay

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ecpay is ECPay's all-in-one checkout (AIO). A trade is known once the buyer's browser has posted its form. Times are
// Taipei's, and amounts whole dollars.
type ecpay struct{ *Server }

const (
	macField  = "CheckMacValue"
	ecpayTime = "2006/01/02 15:04:05"
	dollar    = 100 // in minor units

	alphanumerics = "0123456789abcdefghijklmnopqrstuvwxyz"
	ecpayStamps   = 3 * time.Minute
	// ecpayPause is the time between two queries. ECPay locks out for half an hour who asks more often, from whatever
	// process; here it is counted only.
	ecpayPause = 200 * time.Millisecond
	// ecpayPageLife is how long a page waits for a card.
	ecpayPageLife = 30 * time.Minute
	// Where a form says nothing else, a number for the cash machine can be paid for 3 days, and one for stores for 7.
	ecpayATMLife, ecpayStoreLife = 3 * 24 * time.Hour, 7 * 24 * time.Hour
)

// How a payment by card stands, in the words of QueryTrade.
const (
	cardAuthorized = "已授權"
	cardToSettle   = "要關帳"
	cardSettled    = "已關帳"
	cardCalledOff  = "操作取消" // the settling was, so that it is authorized again
	cardGivenUp    = "已取消"
)

var taipei = time.FixedZone("Taipei", 8*60*60)

// ecpayTypes are the payment types by which numbers are issued, with the code of the notice.
var ecpayTypes = map[string]struct{ paymentType, code string }{
	"ATM":     {"ATM_TAISHIN", "2"},
	"CVS":     {"CVS_CVS", "10100073"},
	"BARCODE": {"BARCODE_BARCODE", "10100073"},
}

const ecpayCard = "Credit_CreditCard"

func (e ecpay) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /ecpay/Cashier/AioCheckOut/V5", e.api(ECPay, opCreate, e.checkout))
	mux.HandleFunc("POST /ecpay/Cashier/QueryTradeInfo/V5", e.api(ECPay, opQuery, e.signedOnly(e.query)))
	mux.HandleFunc("POST /ecpay/CreditDetail/DoAction", e.api(ECPay, opRefund, e.signedOnly(e.doAction)))
	mux.HandleFunc("POST /ecpay/CreditDetail/QueryTrade/V2", e.api(ECPay, opQueryRefund, e.signedOnly(e.queryCard)))
}

// mac is the CheckMacValue of a form by SHA-256, with a key that may be somebody else's.
func mac(form url.Values, hashKey, hashIV string) string {
	var names []string
	for name := range form {
		if name != macField {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	text := "HashKey=" + hashKey
	for _, name := range names {
		text += "&" + name + "=" + form.Get(name)
	}
	text = strings.ToLower(url.QueryEscape(text + "&HashIV=" + hashIV))
	for _, plain := range []string{"-", "_", ".", "!", "*", "(", ")"} { // which .NET does not encode
		text = strings.ReplaceAll(text, fmt.Sprintf("%%%02x", plain[0]), plain)
	}
	sum := sha256.Sum256([]byte(strings.ReplaceAll(text, "~", "%7e")))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func ecpaySigned(form url.Values) answer {
	form.Set(macField, mac(form, ecpayHashKey, ecpayHashIV))
	return plain(http.StatusOK, form.Encode())
}

func plain(status int, text string) answer {
	return answer{status: status, contentType: "text/plain; charset=utf-8", body: text}
}

// signedOnly refuses what the merchant has not signed.
func (e ecpay) signedOnly(do func(*call) answer) func(*call) answer {
	return func(c *call) answer {
		if problem := e.refusal(c); problem != "" {
			return plain(http.StatusOK, "0|"+problem)
		}
		return do(c)
	}
}

// refusal is what is wrong with the signature of a form, or empty.
func (e ecpay) refusal(c *call) string {
	switch {
	case c.form.Get(macField) != mac(c.form, ecpayHashKey, ecpayHashIV):
		return "CheckMacValue Error"
	case c.form.Get("MerchantID") != ecpayMerchant:
		return "MerchantID Error"
	}
	return ""
}

// checkout is what the buyer's browser posts. Posted again it shows the same trade, and with
// another amount, item or address it is refused.
func (e ecpay) checkout(c *call) answer {
	f := c.form
	dollars, err := strconv.ParseInt(f.Get("TotalAmount"), 10, 64)
	_, dateErr := time.ParseInLocation(ecpayTime, f.Get("MerchantTradeDate"), taipei)
	number := f.Get("MerchantTradeNo")
	problem := e.refusal(c)
	switch {
	case problem != "":
	case c.refuse:
		problem = "10100058 Pay Fail"
	case number == "" || len(number) > 20 || strings.Trim(strings.ToLower(number), alphanumerics) != "":
		problem = "10200052 MerchantTradeNo Error"
	case err != nil || dollars <= 0 || dollars > 99_999_999:
		problem = "TotalAmount Error"
	case dateErr != nil:
		problem = "MerchantTradeDate Error"
	case f.Get("PaymentType") != "aio" || f.Get("EncryptType") != "1":
		problem = "PaymentType or EncryptType Error"
	case f.Get("ItemName") == "" || len(f.Get("ItemName")) > 400 || f.Get("TradeDesc") == "" ||
		f.Get("ChoosePayment") == "":
		problem = "ItemName, TradeDesc or ChoosePayment Error"
	case checkNoticeURL(f.Get("ReturnURL")) != nil,
		f.Has("PaymentInfoURL") && checkNoticeURL(f.Get("PaymentInfoURL")) != nil:
		problem = "ReturnURL or PaymentInfoURL Error"
	}
	if problem != "" {
		return e.problemPage(http.StatusBadRequest, problem)
	}

	if a := e.books.numbered(ECPay, number); a != nil {
		if a.Amount != dollars*dollar || a.noticeURL != f.Get("ReturnURL") || a.Item != f.Get("ItemName") {
			return e.problemPage(http.StatusConflict, "MerchantTradeNo is used already")
		}
		return e.page(a)
	}
	a := &attempt{
		Attempt: Attempt{
			Provider: ECPay, Number: number, Reference: time.Now().In(taipei).Format("060102150405") + digits(8),
			Item: f.Get("ItemName"), Amount: dollars * dollar, Currency: "TWD",
			ExpiresAt: time.Now().Add(ecpayPageLife),
		},
		noticeURL: f.Get("ReturnURL"), issuedURL: f.Get("PaymentInfoURL"), backURL: f.Get("ClientBackURL"),
		cancelURL: f.Get("ClientBackURL"), fields: f, methods: ecpayMethods(f),
	}
	if err := e.books.add(a); err != nil {
		return e.problemPage(http.StatusServiceUnavailable, err.Error())
	}
	return e.page(a)
}

// ecpayMethods are the methods by which a trade may be given a number.
func ecpayMethods(form url.Values) (methods []string) {
	chosen := form.Get("ChoosePayment")
	ignored := strings.Split(form.Get("IgnorePayment"), "#")
	for _, method := range []string{"ATM", "CVS", "BARCODE"} {
		if chosen == method || chosen == "ALL" && !slices.Contains(ignored, method) {
			methods = append(methods, method)
		}
	}
	return methods
}

// takesCards reports whether a trade may be paid by card. Without one a number is given out before.
func takesCards(form url.Values) bool {
	chosen := form.Get("ChoosePayment")
	ignored := strings.Split(form.Get("IgnorePayment"), "#")
	return chosen == "Credit" || chosen == "ALL" && !slices.Contains(ignored, "Credit")
}

func (e ecpay) query(c *call) answer {
	if time.Since(e.books.queried) < ecpayPause {
		e.books.hurried++
	}
	e.books.queried = time.Now()
	stamp, err := strconv.ParseInt(c.form.Get("TimeStamp"), 10, 64)
	if err != nil || time.Since(time.Unix(stamp, 0)).Abs() > ecpayStamps {
		return plain(http.StatusOK, "0|TimeStamp Error")
	}
	number := c.form.Get("MerchantTradeNo")
	a := e.books.numbered(ECPay, number)
	if a == nil {
		// ECPay says the same of a trade that is not there and of one that was not paid in its time.
		return ecpaySigned(url.Values{
			"MerchantID": {ecpayMerchant}, "MerchantTradeNo": {number}, "TradeStatus": {"10200095"}, "TradeNo": {""},
			"TradeAmt": {"0"}, "PaymentDate": {""}, "PaymentType": {""}, "TradeDate": {""}, "ItemName": {""},
			"HandlingCharge": {"0"}, "PaymentTypeChargeFee": {"0"}, "StoreID": {""},
		})
	}
	var notices []*notice
	if c.racing && a.payable() {
		notices = e.pay(a)
	}
	form := e.told(a)
	form.Set("ItemName", a.Item)
	form.Set("HandlingCharge", form.Get("PaymentTypeChargeFee"))
	switch a.Status {
	case Paid:
		form.Set("TradeStatus", "1")
	case Closed:
		form.Set("TradeStatus", "10200095")
	default:
		form.Set("TradeStatus", "0")
	}
	given := ecpaySigned(form)
	given.notices = notices
	return given
}

// told are the fields that notices and answers to queries have in common.
func (e ecpay) told(a *attempt) url.Values {
	dollars := a.Amount / dollar
	form := url.Values{
		"MerchantID": {ecpayMerchant}, "MerchantTradeNo": {a.Number}, "StoreID": {""}, "TradeNo": {a.Reference},
		"TradeAmt": {strconv.FormatInt(dollars, 10)}, "TradeDate": {a.CreatedAt.In(taipei).Format(ecpayTime)},
		"PaymentType": {a.Method}, "PaymentDate": {""}, "PaymentTypeChargeFee": {"0"},
	}
	if a.payment != nil {
		form.Set("PaymentDate", a.payment.PaidAt.In(taipei).Format(ecpayTime))
		form.Set("PaymentTypeChargeFee", fmt.Sprintf("%d.%02d", dollars*2/100, dollars*2%100))
		if a.Method == ecpayCard && a.fields.Get("NeedExtraPaidInfo") == "Y" {
			form.Set("gwsr", a.gwsr())
		}
	}
	for i := range 4 {
		name := fmt.Sprintf("CustomField%d", i+1)
		form.Set(name, a.fields.Get(name))
	}
	return form
}

// gwsr is ECPay's number of an authorization of a card.
func (a *attempt) gwsr() string { return a.Reference[len(a.Reference)-8:] }

func (e ecpay) tell(a *attempt, kind, address string, form url.Values) *notice {
	return &notice{
		provider: ECPay, number: a.Number, kind: kind, url: address,
		sign: func(forged bool) (http.Header, string) {
			signed := url.Values{}
			for name, values := range form {
				signed[name] = values
			}
			hashKey := ecpayHashKey
			if forged {
				hashKey = "somebody-else-16"
			}
			signed.Set(macField, mac(form, hashKey, ecpayHashIV))
			return formHeader(), signed.Encode()
		},
	}
}

// paid is a notice of a payment, which may be simulated.
func (e ecpay) paid(a *attempt, simulated bool) *notice {
	form := e.told(a)
	form.Set("RtnCode", "1")
	form.Set("RtnMsg", "交易成功")
	form.Set("SimulatePaid", "0")
	if simulated {
		form.Set("RtnMsg", "付款成功")
		form.Set("SimulatePaid", "1")
	}
	if a.payment == nil {
		form.Set("PaymentType", ecpayCard)
		form.Set("PaymentDate", time.Now().In(taipei).Format(ecpayTime))
	}
	return e.tell(a, "paid", a.noticeURL, form)
}

func (e ecpay) pay(a *attempt) (notices []*notice) {
	if _, simulated := e.faults.roll(Simulated, ECPay, ""); simulated {
		return []*notice{e.paid(a, true)} // and the trade can still be paid
	}
	if a.Status == Open {
		_, issued := e.faults.roll(IssuedFirst, ECPay, "")
		switch {
		case len(a.methods) > 0 && (issued || !takesCards(a.fields)):
			notices = e.issue(a, a.methods[0])
		case issued:
			notices = e.issue(a, "ATM")
		}
	}
	e.books.take(a, a.Reference, ecpayCard)
	if a.Method == ecpayCard {
		a.card = cardSettled
		if _, unsettled := e.faults.roll(Unsettled, ECPay, ""); unsettled {
			a.card = cardToSettle
		}
	}
	return append(notices, e.paid(a, false))
}

// declined is a notice that a card was declined. The buyer may go on to try another.
func (e ecpay) declined(a *attempt) *notice {
	form := e.told(a)
	form.Set("RtnCode", "10100058")
	form.Set("RtnMsg", "付款失敗")
	form.Set("SimulatePaid", "0")
	form.Set("PaymentType", ecpayCard)
	return e.tell(a, "declined", a.noticeURL, form)
}

func (e ecpay) forged(a *attempt) *notice {
	n := e.paid(a, false)
	n.forged = true
	return n
}

// issue gives out a number to pay with, at a cash machine or in a store.
func (e ecpay) issue(a *attempt, method string) []*notice {
	kind := ecpayTypes[method]
	a.Status, a.Method = Issued, kind.paymentType
	life := ecpayStoreLife
	form := e.told(a)
	form.Set("RtnCode", kind.code)
	form.Set("RtnMsg", "Get VirtualAccount Succeeded")
	switch asked, err := strconv.Atoi(a.fields.Get("StoreExpireDate")); {
	case method == "ATM":
		life = ecpayATMLife
		if days, err := strconv.Atoi(a.fields.Get("ExpireDate")); err == nil && 1 <= days && days <= 60 {
			life = time.Duration(days) * 24 * time.Hour
		}
		a.code = digits(14)
		form.Set("BankCode", "812")
		form.Set("vAccount", a.code)
	case err == nil && method == "CVS" && 1 <= asked && asked <= 86_400:
		life = time.Duration(asked) * time.Minute
	case err == nil && method == "BARCODE" && 1 <= asked && asked <= 30:
		life = time.Duration(asked) * 24 * time.Hour
	}
	if method != "ATM" {
		a.code = "LLL" + digits(11)
		form.Set("PaymentNo", a.code)
		form.Set("Barcode1", digits(9))
		form.Set("Barcode2", digits(16))
		form.Set("Barcode3", digits(15))
	}
	a.ExpiresAt = time.Now().Add(life)
	if method == "ATM" { // to the end of the day
		year, month, day := a.ExpiresAt.In(taipei).Date()
		a.ExpiresAt = time.Date(year, month, day+1, 0, 0, 0, 0, taipei)
	}
	form.Set("ExpireDate", a.ExpiresAt.Add(-time.Second).In(taipei).Format("2006/01/02"))
	return []*notice{e.tell(a, "issued", a.issuedURL, form)}
}

func (e ecpay) lapse(*attempt) []*notice { return nil } // ECPay tells nobody

func (e ecpay) back(a *attempt, cancelled bool) string { return a.backURL }

func (e ecpay) trouble(string) answer {
	return plain(http.StatusInternalServerError, "Internal Server Error")
}

func (e ecpay) acknowledged(status int, body string) bool {
	return status == http.StatusOK && body == "1|OK"
}

// doAction changes a payment by card: R refunds a part or all of what is settled, E takes back the settling, and N
// gives up what is not settled. It knows no repetition.
func (e ecpay) doAction(c *call) answer {
	f := c.form
	a := e.books.numbered(ECPay, f.Get("MerchantTradeNo"))
	dollars, err := strconv.ParseInt(f.Get("TotalAmount"), 10, 64)
	problem := ""
	whole := a != nil && dollars*dollar == a.Amount
	authorized := a != nil && (a.card == cardAuthorized || a.card == cardCalledOff)
	switch {
	case a == nil || a.Reference != f.Get("TradeNo"):
		problem = "TradeNo Error"
	case a.card == "":
		problem = "it was not paid by card"
	case err != nil || dollars <= 0:
		problem = "TotalAmount Error"
	case c.refuse || a.refuses:
		a.refuses, problem = true, "error_Stop"
	case f.Get("Action") == "R" && a.card == cardSettled:
		if _, err := e.books.give(a, "", "R"+digits(12), dollars*dollar, ByAPI); err != nil {
			problem = err.Error()
		}
	case f.Get("Action") == "E" && a.card == cardToSettle && whole:
		a.card = cardCalledOff
	case f.Get("Action") == "C" && authorized && whole:
		a.card = cardToSettle
	case f.Get("Action") == "N" && authorized && whole:
		if _, err := e.books.give(a, "", "N"+digits(12), a.Amount, ByAPI); err != nil {
			problem = err.Error()
		} else {
			a.card = cardGivenUp
		}
	default:
		problem = "error_Action"
	}
	code, message := "1", "OK"
	if problem != "" {
		code, message = "10200047", problem
	}
	// Unlike all else that ECPay says, this is not signed.
	return plain(http.StatusOK, url.Values{
		"MerchantID": {ecpayMerchant}, "MerchantTradeNo": {f.Get("MerchantTradeNo")}, "TradeNo": {f.Get("TradeNo")},
		"RtnCode": {code}, "RtnMsg": {message},
	}.Encode())
}

// queryCard shows a payment by card, and what was given back of it.
func (e ecpay) queryCard(c *call) answer {
	i := slices.IndexFunc(e.books.attempts, func(a *attempt) bool {
		return a.card != "" && a.gwsr() == c.form.Get("CreditRefundId")
	})
	if i < 0 || c.form.Get("CreditCheckCode") != ecpayCreditCheck ||
		c.form.Get("CreditAmount") != strconv.FormatInt(e.books.attempts[i].Amount/dollar, 10) {
		return asJSON(http.StatusOK, object{"RtnMsg": "error_nopay", "RtnValue": nil})
	}
	a := e.books.attempts[i]
	at := func(t time.Time) string { return t.In(taipei).Format(ecpayTime) }
	closings := []object{}
	if a.card == cardSettled || a.card == cardToSettle {
		closings = append(closings, object{
			"status": a.card, "sno": a.gwsr(), "amount": a.Amount / dollar, "datetime": at(a.payment.PaidAt),
		})
	}
	for _, r := range a.refunds {
		if r.By == ByAPI {
			closings = append(closings, object{
				"status": cardSettled, "sno": r.Reference, "amount": -r.Amount / dollar, "datetime": at(r.At),
			})
		}
	}
	return asJSON(http.StatusOK, object{"RtnMsg": "", "RtnValue": object{
		"TradeID": a.gwsr(), "amount": a.Amount / dollar, "clsamt": (a.Amount - a.Refunded) / dollar,
		"authtime": at(a.payment.PaidAt), "status": a.card, "close_data": closings,
	}})
}
