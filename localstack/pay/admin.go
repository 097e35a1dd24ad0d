package pay

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
)

// adminRequest is a request of a program: as the buyer, or as an operator.
type adminRequest struct {
	Provider string `json:"provider"`
	Number   string `json:"number"` // the merchant's, of the attempt
	Method   string `json:"method"` // by which a number is issued: ATM, CVS or BARCODE
	Refund   string `json:"refund"` // the merchant's number of the refund, if it has one
	Amount   int64  `json:"amount"` // of the refund, in minor units; 0 is the whole
}

// State is what /admin/state shows.
type State struct {
	Webhooks   map[string]string `json:"webhooks"`
	Faults     Faults            `json:"faults"`
	Happened   map[string]int    `json:"happened"` // by "provider kind call"
	Notices    Counts            `json:"notices"`
	Hurried    int               `json:"ecpay_queries_too_soon"` // for which ECPay would lock the merchant out
	Deliveries []Delivery        `json:"deliveries"`             // the last tries
}

// adminRoutes are for programs:
//
//	GET  /admin/books           attempts, payments and refunds: see Books
//	GET  /admin/state           faults, how often each has happened, the last tries of notices: see State
//	GET  /admin/faults          the faults that are set
//	POST /admin/faults          replaces them: see Faults
//	POST /admin/webhooks        {"paypal":"http://…","stripe":"http://…"}
//	POST /admin/pay             {"provider","number"}: as the buyer, like the next; at PayPal the same as approve
//	POST /admin/approve, /admin/cancel, /admin/lapse, /admin/decline
//	POST /admin/issue           {"provider","number","method"}: ATM, CVS or BARCODE, or the first that is offered
//	POST /admin/forge           {"provider","number"}: a notice of a payment that somebody else has signed
//	POST /admin/settle          {"number"}: what the fault "unsettled" has left so at ECPay; empty is all
//	POST /admin/refund-by-hand  {"provider","number","refund","amount"}: noted as made by an operator; 0 is the whole
//
// What cannot be done is answered by 409 and {"error"}, and what cannot be read by 400.
func (s *Server) adminRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /admin/books", func(w http.ResponseWriter, _ *http.Request) {
		asJSON(http.StatusOK, s.Books()).write(w)
	})
	mux.HandleFunc("GET /admin/state", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		webhooks := map[string]string{PayPal: s.webhooks[PayPal], Stripe: s.webhooks[Stripe]}
		s.mu.Unlock()
		s.books.mu.Lock()
		hurried := s.books.hurried
		s.books.mu.Unlock()
		asJSON(http.StatusOK, State{
			Webhooks: webhooks, Faults: s.faults.get(), Happened: s.Happened(), Notices: s.Counts(), Hurried: hurried,
			Deliveries: s.Deliveries(),
		}).write(w)
	})
	mux.HandleFunc("GET /admin/faults", func(w http.ResponseWriter, _ *http.Request) {
		asJSON(http.StatusOK, s.faults.get()).write(w)
	})
	mux.HandleFunc("POST /admin/faults", admin(func(f Faults) (any, error) { return f, s.SetFaults(f) }))
	mux.HandleFunc("POST /admin/webhooks", admin(func(addresses map[string]string) (any, error) {
		for provider, address := range addresses {
			if err := s.SetWebhook(provider, address); err != nil {
				return nil, err
			}
		}
		return addresses, nil
	}))
	for _, act := range []string{actPay, actApprove, actCancel, actLapse, actIssue, actDecline} {
		mux.HandleFunc("POST /admin/"+act, admin(func(q adminRequest) (any, error) {
			return s.Act(act, q.Provider, q.Number, q.Method)
		}))
	}
	mux.HandleFunc("POST /admin/forge", admin(func(q adminRequest) (any, error) {
		return q, s.Forge(q.Provider, q.Number)
	}))
	mux.HandleFunc("POST /admin/settle", admin(func(q adminRequest) (any, error) { return s.Settle(q.Number), nil }))
	mux.HandleFunc("POST /admin/refund-by-hand", admin(func(q adminRequest) (any, error) {
		return q, s.RefundByHand(q.Provider, q.Number, cmp.Or(q.Refund, "hand-"+rand.Text()), q.Amount)
	}))
}

// admin answers a request whose body is JSON.
func admin[T any](do func(T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var asked T
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&asked); err != nil {
			asJSON(http.StatusBadRequest, object{"error": err.Error()}).write(w)
			return
		}
		given, err := do(asked)
		if err != nil {
			asJSON(http.StatusConflict, object{"error": err.Error()}).write(w)
			return
		}
		asJSON(http.StatusOK, given).write(w)
	}
}

// Act does what a buyer does with an attempt: pay, approve, cancel, lapse, decline or issue, the last by a method that
// it offers, or by the first of them. The attempt must be known to the provider: at ECPay and Alipay the buyer's
// browser makes it so. Nothing happens if the error is not nil.
func (s *Server) Act(act, provider, number, method string) (Attempt, error) {
	s.books.mu.Lock()
	a := s.books.numbered(provider, number)
	if a == nil {
		s.books.mu.Unlock()
		return Attempt{}, fmt.Errorf("pay: %.20q has no attempt %.64q", provider, number)
	}
	notices, err := s.act(a, act, method)
	now := a.Attempt
	s.books.mu.Unlock()
	if err != nil {
		return Attempt{}, fmt.Errorf("pay: %s: %s: %w", act, number, err)
	}
	s.notices.send(notices)
	return now, nil
}

// Forge posts a notice that an attempt was paid, which is not signed by the provider, whether it was paid or not.
func (s *Server) Forge(provider, number string) error {
	s.books.mu.Lock()
	a := s.books.numbered(provider, number)
	if a == nil {
		s.books.mu.Unlock()
		return fmt.Errorf("pay: %.20q has no attempt %.64q", provider, number)
	}
	n := s.protocols[provider].forged(a)
	s.books.mu.Unlock()
	if n.url == "" {
		return fmt.Errorf("pay: %s has no address for notices", provider)
	}
	s.notices.launch(n)
	return nil
}

// Settle settles the payments by card at ECPay that are not settled yet, or the one of an attempt, and returns how
// many.
func (s *Server) Settle(number string) (settled int) {
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	for _, a := range s.books.attempts {
		if a.card == cardToSettle && (number == "" || a.Number == number) {
			a.card = cardSettled
			settled++
		}
	}
	return settled
}
