package pay

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"stampede/internal/order"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// providerNames are for people.
var providerNames = map[string]string{ECPay: "ECPay 綠界科技", PayPal: "PayPal", Alipay: "Alipay 支付宝", Stripe: "Stripe"}

// What a buyer may do.
const (
	actPay     = "pay"
	actApprove = "approve" // at PayPal, where the merchant takes the money
	actCancel  = "cancel"
	actLapse   = "lapse"   // to let the time pass
	actIssue   = "issue"   // to ask for a number to pay with
	actDecline = "decline" // to try a card that is declined
)

// view is what a page shows.
type view struct {
	Provider, Merchant, Item, Amount, Number string
	Code                                     string // the number to pay with
	Status                                   Status
	Action                                   string // where the buttons post
	Pay                                      string
	Methods                                  []string
	Declines                                 bool // the provider tells of cards that are declined
	Back                                     string
	Problem                                  string
}

// page is the provider's page of an attempt, which a buyer sees. It needs no JavaScript.
func (s *Server) page(a *attempt) answer {
	v := view{
		Provider: providerNames[a.Provider], Merchant: s.merchant, Item: a.Item, Number: a.Number, Status: a.Status,
		Code:   a.code,
		Amount: order.Money(a.Amount, a.Currency), Back: webAddress(s.protocols[a.Provider].back(a, a.Status != Paid)),
	}
	if a.payable() && a.Status != Approved {
		v.Action = "/buyer/" + a.Provider + "/" + url.PathEscape(a.Reference) + "/"
		v.Pay, v.Declines = actPay, a.Provider == ECPay
		if a.Status == Open {
			v.Methods = a.methods
		}
	}
	return s.render(http.StatusOK, v)
}

// problemPage says that there is nothing to pay.
func (s *Server) problemPage(status int, problem string) answer {
	return s.render(status, view{Provider: "Payment", Merchant: s.merchant, Problem: problem})
}

func (s *Server) render(status int, v view) answer {
	var text strings.Builder
	if err := pageTemplate.Execute(&text, v); err != nil {
		panic(fmt.Sprintf("pay: the page: %v", err)) // a strings.Builder takes everything
	}
	return answer{
		status: status, contentType: "text/html; charset=utf-8", body: text.String(),
		header: map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
			"Referrer-Policy":         "same-origin",
		},
	}
}

// webAddress is an address that a browser may be sent to, or empty.
func webAddress(address string) string {
	if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return ""
	}
	return address
}

func (s *Server) buyerRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /buyer/{provider}/{reference}/{act}", func(w http.ResponseWriter, r *http.Request) {
		provider := r.PathValue("provider")
		if s.protocols[provider] == nil {
			http.NotFound(w, r)
			return
		}
		s.api(provider, opPage, func(c *call) answer { return s.button(c, provider) })(w, r)
	})
}

// button does what the buyer has chosen on a page, and sends the browser back to the merchant.
func (s *Server) button(c *call, provider string) answer {
	a := s.books.referred(provider, c.request.PathValue("reference"))
	if a == nil {
		return s.problemPage(http.StatusNotFound, "There is no such payment.")
	}
	act := c.request.PathValue("act")
	notices, err := s.act(a, act, c.form.Get("method"))
	if err != nil {
		return s.page(a) // which says how it stands
	}
	given := s.page(a)
	// A buyer with a number stays to write it down, and one without a card to try another.
	back := webAddress(s.protocols[provider].back(a, act == actCancel))
	if back != "" && act != actIssue && act != actDecline {
		given.status, given.header["Location"] = http.StatusSeeOther, back
	}
	given.notices = notices
	return given
}

// act does what a buyer does with an attempt, with the books locked.
func (s *Server) act(a *attempt, act, method string) ([]*notice, error) {
	if !a.payable() {
		return nil, fmt.Errorf("it is %s", a.Status)
	}
	switch act {
	case actApprove:
		if a.Provider != PayPal {
			return nil, fmt.Errorf("buyers do not approve at %s, but pay", a.Provider)
		}
		fallthrough
	case actPay:
		if a.Status == Approved {
			return nil, fmt.Errorf("it is %s", a.Status)
		}
		return s.protocols[a.Provider].pay(a), nil
	case actCancel: // leaves the page; the payment can be made until it lapses
		return nil, nil
	case actLapse:
		a.Status = Closed
		return s.protocols[a.Provider].lapse(a), nil
	case actDecline:
		if a.Provider != ECPay {
			return nil, fmt.Errorf("%s tells nothing of a card that is declined", a.Provider)
		}
		return []*notice{ecpay{s}.declined(a)}, nil
	case actIssue:
		if a.Status != Open || method == "" && len(a.methods) == 0 {
			return nil, fmt.Errorf("no number is issued for it")
		}
		if method == "" {
			method = a.methods[0]
		}
		if !slices.Contains(a.methods, method) {
			return nil, fmt.Errorf("it is not offered by %.20q, but by %v", method, a.methods)
		}
		return ecpay{s}.issue(a, method), nil
	}
	return nil, fmt.Errorf("a buyer does not %.20q", act)
}
