package pay

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"stampede/internal/order"
)

// alipay is Alipay's gateway, as far as a shop with web pages needs it (page pay). A trade is known once the buyer's
// browser has opened its page. Times are Beijing's, and amounts yuan.
type alipay struct{ *Server }

const (
	alipayPageLife = 24 * time.Hour // where a request names no time
	alipayVersion  = "1.0"
)

var beijing = time.FixedZone("Beijing", 8*60*60)

// alipayOperations are the methods that are answered by JSON.
var alipayOperations = map[string]string{
	"alipay.trade.query":                opQuery,
	"alipay.trade.close":                opClose,
	"alipay.trade.refund":               opRefund,
	"alipay.trade.fastpay.refund.query": opQueryRefund,
}

// alipayContent is the biz_content of any method.
type alipayContent struct {
	Number        string `json:"out_trade_no"`
	TradeNo       string `json:"trade_no"`
	Amount        string `json:"total_amount"`
	Subject       string `json:"subject"`
	Product       string `json:"product_code"`
	Expires       string `json:"time_expire"`
	RefundAmount  string `json:"refund_amount"`
	RequestNumber string `json:"out_request_no"`
}

func (p alipay) routes(mux *http.ServeMux) {
	mux.HandleFunc("/alipay/gateway.do", func(w http.ResponseWriter, r *http.Request) {
		c := p.read(w, r, Alipay)
		if c == nil {
			return
		}
		switch method := c.form.Get("method"); {
		case method == "alipay.trade.page.pay":
			p.run(w, c, Alipay, opCreate, p.pagePay)
		case alipayOperations[method] != "":
			p.run(w, c, Alipay, alipayOperations[method], p.call)
		default:
			p.problem(method, "40002", "isv.invalid-method").write(w)
		}
	})
}

// joined is the text that a signature is of: the fields of a form but for some, sorted, as they are and not encoded.
func joined(form url.Values, without ...string) []byte {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !slices.Contains(without, name) && form.Get(name) != "" {
			pairs = append(pairs, name+"="+form.Get(name))
		}
	}
	return []byte(strings.Join(pairs, "&"))
}

// refusal is what is wrong with a request, in Alipay's words, or empty.
func (p alipay) refusal(c *call) string {
	f := c.form
	at, err := time.ParseInLocation(time.DateTime, f.Get("timestamp"), beijing)
	switch {
	case f.Get("app_id") != alipayAppID:
		return "isv.invalid-app-id"
	case f.Get("sign_type") != "RSA2":
		return "isv.invalid-signature-type"
	case !verifyRSA(&p.keys.merchant.PublicKey, joined(f, "sign"), f.Get("sign")):
		return "isv.invalid-signature"
	case f.Get("version") != alipayVersion || !strings.EqualFold(f.Get("charset"), "utf-8"):
		return "isv.invalid-parameter"
	case err != nil || time.Since(at).Abs() > 24*time.Hour:
		return "isv.invalid-timestamp"
	}
	return ""
}

// reply is a signed answer. Signed are the bytes of the object in it.
func (p alipay) reply(method string, body object) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("pay: an answer that is no JSON: %v", err))
	}
	name := strings.ReplaceAll(method, ".", "_") + "_response"
	whole := fmt.Sprintf(`{%q:%s,"sign":%q}`, name, text, signRSA(p.keys.alipay, text))
	return answer{status: http.StatusOK, contentType: "text/html;charset=utf-8", body: whole}
}

func (p alipay) problem(method, code, sub string) answer {
	messages := map[string]string{
		"20000": "Service Currently Unavailable", "40002": "Invalid Arguments", "40004": "Business Failed",
	}
	return p.reply(method, object{"code": code, "msg": messages[code], "sub_code": sub, "sub_msg": sub})
}

func (p alipay) trouble(operation string) answer {
	for method, itsOperation := range alipayOperations {
		if operation == itsOperation {
			return p.problem(method, "20000", "aop.ACQ.SYSTEM_ERROR")
		}
	}
	return p.problemPage(http.StatusInternalServerError, "SYSTEM_ERROR")
}

// pagePay is the page to which the buyer's browser goes. Opened again it shows the same trade.
func (p alipay) pagePay(c *call) answer {
	var asked alipayContent
	err := json.Unmarshal([]byte(c.form.Get("biz_content")), &asked)
	amount, amountErr := order.ParseMoney(asked.Amount, "CNY")
	expires := time.Now().Add(alipayPageLife)
	var timeErr error
	if asked.Expires != "" {
		expires, timeErr = time.ParseInLocation(time.DateTime, asked.Expires, beijing)
	}
	problem := p.refusal(c)
	switch {
	case problem != "":
	case c.refuse:
		problem = "ACQ.SELLER_BEEN_BLOCKED"
	case err != nil || timeErr != nil || amountErr != nil || amount <= 0 || asked.Number == "" ||
		len(asked.Number) > 64 || asked.Subject == "" || len([]rune(asked.Subject)) > 256 ||
		asked.Product != "FAST_INSTANT_TRADE_PAY":
		problem = "ACQ.INVALID_PARAMETER"
	case c.form.Has("notify_url") && checkNoticeURL(c.form.Get("notify_url")) != nil:
		problem = "isv.invalid-notify-url"
	}
	if problem != "" {
		return p.problemPage(http.StatusBadRequest, problem)
	}

	a := p.books.numbered(Alipay, asked.Number)
	switch {
	case a != nil && (a.Amount != amount || a.Item != asked.Subject):
		return p.problemPage(http.StatusConflict, "ACQ.CONTEXT_INCONSISTENT")
	case a != nil:
		return p.page(a)
	case time.Now().After(expires):
		return p.problemPage(http.StatusGone, "ACQ.TRADE_HAS_CLOSE: its time has passed")
	}
	a = &attempt{
		Attempt: Attempt{
			Provider: Alipay, Number: asked.Number, Reference: time.Now().In(beijing).Format("20060102") + digits(20),
			Item: asked.Subject, Amount: amount, Currency: "CNY", ExpiresAt: expires,
		},
		noticeURL: c.form.Get("notify_url"), backURL: c.form.Get("return_url"),
	}
	if err := p.books.add(a); err != nil {
		return p.problemPage(http.StatusServiceUnavailable, err.Error())
	}
	return p.page(a)
}

// call answers what the merchant asks about a trade.
func (p alipay) call(c *call) answer {
	method := c.form.Get("method")
	if problem := p.refusal(c); problem != "" {
		return p.problem(method, "40002", problem)
	}
	var asked alipayContent
	if err := json.Unmarshal([]byte(c.form.Get("biz_content")), &asked); err != nil {
		return p.problem(method, "40002", "isv.invalid-parameter")
	}
	a := p.books.numbered(Alipay, asked.Number)
	if asked.TradeNo != "" {
		a = p.books.referred(Alipay, asked.TradeNo)
	}
	if a == nil {
		return p.problem(method, "40004", "ACQ.TRADE_NOT_EXIST")
	}
	switch alipayOperations[method] {
	case opClose:
		return p.close(c, a)
	case opRefund:
		return p.refund(c, a, asked)
	case opQueryRefund:
		return p.queryRefund(a, asked)
	}
	shown := p.shown(a)
	shown["trade_status"], shown["total_amount"] = p.status(a), yuan(a.Amount)
	if a.payment != nil {
		shown["send_pay_date"] = a.payment.PaidAt.In(beijing).Format(time.DateTime)
	}
	return p.reply(method, shown)
}

func (p alipay) shown(a *attempt) object {
	return object{
		"code": "10000", "msg": "Success", "out_trade_no": a.Number, "trade_no": a.Reference,
		"buyer_logon_id": "159****5620", "buyer_user_id": "2088102122524333",
	}
}

func yuan(amount int64) string {
	text, _ := order.Decimal(amount, "CNY")
	return text
}

// status is that of a trade. One that was refunded as a whole is closed.
func (p alipay) status(a *attempt) string {
	switch {
	case a.Status == Closed, a.payment != nil && a.Refunded == a.Amount:
		return "TRADE_CLOSED"
	case a.Status == Paid:
		return "TRADE_SUCCESS"
	}
	return "WAIT_BUYER_PAY"
}

// close closes a trade that was not paid.
func (p alipay) close(c *call, a *attempt) answer {
	var notices []*notice
	if c.racing && a.payable() {
		notices = p.pay(a)
	}
	var given answer
	switch method := c.form.Get("method"); {
	case a.Status == Paid:
		given = p.problem(method, "40004", "ACQ.TRADE_HAS_SUCCESS")
	case a.Status == Closed: // it is not waiting for its buyer
		given = p.problem(method, "40004", "ACQ.TRADE_STATUS_ERROR")
	default:
		a.Status = Closed
		notices = p.lapse(a)
		given = p.reply(method, object{
			"code": "10000", "msg": "Success", "out_trade_no": a.Number, "trade_no": a.Reference,
		})
	}
	given.notices = notices
	return given
}

// refund gives money back, once for each out_request_no, which is the trade's number where there is none.
func (p alipay) refund(c *call, a *attempt, asked alipayContent) answer {
	method := c.form.Get("method")
	number := asked.RequestNumber
	if number == "" {
		number = asked.Number
	}
	amount, err := order.ParseMoney(asked.RefundAmount, "CNY")
	changed := "N"
	refusedKey := key("alipay refund "+a.Number, number)
	was, refused, _ := p.books.recall(refusedKey, "")
	switch r := a.refund(number); {
	case err != nil || len(number) > 64:
		return p.problem(method, "40004", "ACQ.INVALID_PARAMETER")
	case refused:
		return was
	case r != nil && r.Amount != amount:
		return p.problem(method, "40004", "ACQ.DISCORDANT_REPEAT_REQUEST")
	case a.payment == nil:
		return p.problem(method, "40004", "ACQ.TRADE_STATUS_ERROR")
	case r == nil && c.refuse:
		was = p.problem(method, "40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH")
		p.books.remember(refusedKey, "", was)
		return was
	case r == nil:
		if _, err := p.books.give(a, number, digits(20), amount, ByAPI); err != nil {
			return p.problem(method, "40004", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
		}
		changed = "Y"
	}
	shown := p.shown(a)
	shown["fund_change"], shown["refund_fee"] = changed, yuan(a.Refunded)
	given := p.reply(method, shown)
	if changed == "Y" {
		form := p.told(a)
		form.Set("refund_fee", yuan(a.Refunded))
		form.Set("out_biz_no", number)
		form.Set("gmt_refund", time.Now().In(beijing).Format("2006-01-02 15:04:05.000"))
		given.notices = []*notice{p.tell(a, "refunded", form)}
	}
	return given
}

// queryRefund says nothing of a refund that was not made.
func (p alipay) queryRefund(a *attempt, asked alipayContent) answer {
	shown := object{"code": "10000", "msg": "Success"}
	if r := a.refund(asked.RequestNumber); r != nil {
		shown = p.shown(a)
		shown["out_request_no"], shown["refund_amount"] = r.Number, yuan(r.Amount)
		shown["total_amount"], shown["refund_status"] = yuan(a.Amount), "REFUND_SUCCESS"
	}
	return p.reply("alipay.trade.fastpay.refund.query", shown)
}

// told are the fields of a notice.
func (p alipay) told(a *attempt) url.Values {
	now := time.Now().In(beijing).Format(time.DateTime)
	form := url.Values{}
	for name, value := range map[string]string{
		"notify_time": now, "notify_type": "trade_status_sync", "notify_id": strings.ToLower(rand.Text()),
		"app_id": alipayAppID, "charset": "utf-8", "version": alipayVersion, "sign_type": "RSA2",
		"trade_no": a.Reference, "out_trade_no": a.Number, "seller_id": alipaySeller, "subject": a.Item,
		"buyer_id": "2088102122524333", "trade_status": p.status(a), "total_amount": yuan(a.Amount),
		"gmt_create": a.CreatedAt.In(beijing).Format(time.DateTime),
	} {
		form.Set(name, value)
	}
	if a.payment != nil {
		form.Set("gmt_payment", a.payment.PaidAt.In(beijing).Format(time.DateTime))
		form.Set("receipt_amount", yuan(a.Amount))
	}
	return form
}

func (p alipay) tell(a *attempt, kind string, form url.Values) *notice {
	return &notice{
		provider: Alipay, number: a.Number, kind: kind, url: a.noticeURL,
		sign: func(forged bool) (http.Header, string) {
			signer := p.keys.alipay
			if forged {
				signer = p.keys.nobody
			}
			return formHeader(), p.signed(signer, form).Encode()
		},
	}
}

func (p alipay) signed(signer *rsa.PrivateKey, form url.Values) url.Values {
	signed := maps.Clone(form)
	signed.Set("sign", signRSA(signer, joined(form, "sign", "sign_type")))
	return signed
}

func (p alipay) pay(a *attempt) []*notice {
	p.books.take(a, a.Reference, "alipay")
	return []*notice{p.tell(a, "paid", p.told(a))}
}

func (p alipay) lapse(a *attempt) []*notice { return []*notice{p.tell(a, "closed", p.told(a))} }

func (p alipay) forged(a *attempt) *notice {
	form := p.told(a)
	form.Set("trade_status", "TRADE_SUCCESS")
	form.Set("gmt_payment", form.Get("notify_time"))
	n := p.tell(a, "paid", form)
	n.forged = true
	return n
}

// back has what Alipay adds, signed. It says nothing of the payment.
func (p alipay) back(a *attempt, cancelled bool) string {
	if cancelled {
		return a.backURL
	}
	form := url.Values{
		"charset": {"utf-8"}, "out_trade_no": {a.Number}, "method": {"alipay.trade.page.pay.return"},
		"total_amount": {yuan(a.Amount)}, "trade_no": {a.Reference}, "auth_app_id": {alipayAppID},
		"version": {alipayVersion}, "app_id": {alipayAppID}, "sign_type": {"RSA2"}, "seller_id": {alipaySeller},
		"timestamp": {time.Now().In(beijing).Format(time.DateTime)},
	}
	return withQuery(a.backURL, p.signed(p.keys.alipay, form).Encode())
}

func (p alipay) acknowledged(status int, body string) bool {
	return status == http.StatusOK && body == "success"
}
