package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/problem"
	"stampede/internal/reconcile"
	"stampede/internal/till"
	"stampede/internal/token"
)

// paymentSettings are what the shop is told of payments beside its providers.
type paymentSettings struct {
	// pointPrice is what a point costs, in minor units of pointCurrency.
	pointPrice    int64
	pointCurrency string
}

// takePayments has the shop take payments by the providers of a till. It is called before Serve.
func (s *Shop) takePayments(by *till.Till, settings paymentSettings) {
	by.Counted = s.notices.count
	s.notices.declare(by.Providers)
	s.till, s.payments = by, settings
}

// paymentBody is an attempt to pay as clients see it.
type paymentBody struct {
	Payment   string     `json:"payment"`
	Provider  string     `json:"provider"`
	Method    string     `json:"method,omitempty"`
	State     till.State `json:"state"`
	OrderID   string     `json:"order_id,omitempty"`
	Points    int64      `json:"points,omitempty"`
	Amount    int64      `json:"amount"`
	Currency  string     `json:"currency"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt time.Time  `json:"expires_at"`
	PaidAt    time.Time  `json:"paid_at,omitzero"`
	Page      *pageBody  `json:"page,omitempty"`
}

// pageBody is where the buyer goes to pay: a browser goes to the URL, or posts the form there.
type pageBody struct {
	URL  string            `json:"url"`
	Form map[string]string `json:"form,omitempty"`
}

func newPaymentBody(p *till.Payment, page *payment.Page) paymentBody {
	body := paymentBody{
		Payment: p.Number, Provider: p.Provider, Method: p.Method, State: p.State, Points: p.Points, Amount: p.Amount,
		Currency: p.Currency, CreatedAt: p.CreatedAt, ExpiresAt: p.ExpiresAt, PaidAt: p.PaidAt,
	}
	if p.Points == 0 {
		body.OrderID = p.OrderID.String()
	}
	if page != nil {
		body.Page = &pageBody{URL: page.URL}
		for name := range page.Form {
			if body.Page.Form == nil {
				body.Page.Form = map[string]string{}
			}
			body.Page.Form[name] = page.Form.Get(name)
		}
	}
	return body
}

// refundBody is a refund as clients see it.
type refundBody struct {
	Refund    string           `json:"refund"`
	Payment   string           `json:"payment,omitempty"`
	OrderID   string           `json:"order_id"`
	Amount    int64            `json:"amount"`
	Currency  string           `json:"currency"`
	State     till.RefundState `json:"state"`
	Reason    till.Reason      `json:"reason"`
	CreatedAt time.Time        `json:"created_at"`
	DoneAt    time.Time        `json:"done_at,omitzero"`
}

func newRefundBody(r *till.RefundRecord) refundBody {
	return refundBody{
		Refund: r.Number, Payment: r.Attempt, OrderID: r.OrderID.String(), Amount: r.Amount, Currency: r.Currency,
		State: r.State, Reason: r.Reason, CreatedAt: r.CreatedAt, DoneAt: r.DoneAt,
	}
}

// orderOf reads the order's id in a path.
func orderOf(r *http.Request) (order.OrderID, error) {
	text := r.PathValue("id")
	id, err := order.ParseID(text)
	if err != nil || len(text) != len(uuid.Nil.String()) {
		return order.OrderID{}, problem.New(problem.MalformedRequest, "An order's id is a UUID.")
	}
	return id, nil
}

// refusedPayment makes an error of the till into a problem, if it is the client's or the provider's.
func refusedPayment(err error) error {
	why, isInvalid := errors.AsType[*mysql.InvalidError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mysql.ErrNotFound):
		return problem.New(problem.OrderNotFound, "")
	case errors.Is(err, ledger.ErrNotPayable):
		return problem.New(problem.NotPayable,
			"Look at the order: it may be paid, or not be decided yet, or be too late.")
	case errors.Is(err, till.ErrNotOffered):
		return problem.New(problem.PaymentNotOffered,
			"Take another provider or method: this one is not offered, or not for this currency, amount or time.")
	case errors.Is(err, till.ErrTooMany):
		return problem.New(problem.TooManyPayments, "Go on with one of those that are open.")
	case errors.Is(err, till.ErrProvider):
		return &unavailable{
			problem.New(problem.ProviderUnavailable, "Repeat the request: it goes on with this payment."), err,
		}
	case isInvalid:
		return problem.New(problem.InvalidTopUp, why.Detail+".")
	}
	return err
}

// postPayment begins an attempt to pay an order, or goes on with one.
func (s *Shop) postPayment(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, err := orderOf(r)
	if err != nil {
		return err
	}
	var body struct{ Provider, Method string }
	if err := readFields(r, &body, `{"provider":"ecpay"}`); err != nil {
		return err
	}

	ctx, cancel := s.work(r)
	defer cancel()
	p, page, err := s.till.Pay(ctx, who.UserID, id, body.Provider, body.Method)
	if err != nil {
		return refusedPayment(err)
	}
	return sendJSON(w, http.StatusCreated, newPaymentBody(&p, &page))
}

// getPayments answers with the attempts to pay an order, and what went back.
func (s *Shop) getPayments(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, err := orderOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	if err := s.mustOwn(ctx, who, id); err != nil {
		return err
	}
	payments, err := s.till.OfOrder(ctx, id)
	if err != nil {
		return err
	}
	refunds, err := s.till.RefundsOf(ctx, id)
	if err != nil {
		return err
	}

	answer := struct {
		Payments []paymentBody `json:"payments"`
		Refunds  []refundBody  `json:"refunds"`
	}{[]paymentBody{}, []refundBody{}}
	for i := range payments {
		answer.Payments = append(answer.Payments, newPaymentBody(&payments[i], nil))
	}
	for i := range refunds {
		answer.Refunds = append(answer.Refunds, newRefundBody(&refunds[i]))
	}
	return sendJSON(w, http.StatusOK, answer)
}

// mustOwn refuses what is not about an order of the user.
func (s *Shop) mustOwn(ctx context.Context, who *token.Claims, id order.OrderID) error {
	record, err := s.ledger.Order(ctx, id)
	if errors.Is(err, mysql.ErrNotFound) || err == nil && record.UserID != who.UserID {
		return problem.New(problem.OrderNotFound, "")
	}
	return err
}

// postCancel cancels an order that was not paid. While it may yet have been paid it is closing.
func (s *Shop) postCancel(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, err := orderOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	if err := s.mustOwn(ctx, who, id); err != nil {
		return err
	}
	returned, hold, err := s.ledger.CancelOrder(ctx, id, ledger.ByBuyer)
	switch {
	case errors.Is(err, mysql.ErrNotFound), errors.Is(err, ledger.ErrNotCancellable):
		return problem.New(problem.NotCancellable, "Only an order that awaits its payment can be cancelled.")
	case err != nil:
		return err
	}
	s.putOnSale(ctx, hold.StockID, returned)
	return sendJSON(w, http.StatusOK, struct {
		OrderID string       `json:"order_id"`
		Status  order.Status `json:"status"`
	}{id.String(), hold.State})
}

// putOnSale puts units on sale again that came back. If that fails a worker does it, who finds a reminder.
func (s *Shop) putOnSale(ctx context.Context, stockID order.StockID, returned []order.Returned) {
	if _, err := reconcile.Return(ctx, s.stock, s.ledger, stockID, returned); err != nil {
		slog.Warn("serve: units that came back are left for a worker to put on sale", "product", stockID, "error", err)
	}
}

// putRefund gives back what an order has cost, or a part of it, once for each id of a refund.
func (s *Shop) putRefund(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	id, err := orderOf(r)
	if err != nil {
		return err
	}
	request, err := readRefund(r)
	if err != nil {
		return err
	}
	request.OrderID, request.Number = id, r.PathValue("refund_id")

	ctx, cancel := s.workAs(r, who)
	defer cancel()
	refund, returned, err := s.till.RefundOrder(ctx, request)
	why, isInvalid := errors.AsType[*mysql.InvalidError](err)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return problem.New(problem.OrderNotFound, "There is no such order that was paid.")
	case errors.Is(err, till.ErrMismatch):
		return problem.New(problem.RefundMismatch, "Use a new refund_id for another refund.")
	case errors.Is(err, till.ErrTooMuch):
		return problem.New(problem.InvalidRefund, "It is more than is left of what was paid.")
	case isInvalid:
		return problem.New(problem.InvalidRefund, why.Detail+".")
	case err != nil:
		return err
	}
	if len(returned) > 0 {
		s.putOnSale(ctx, returned[0].StockID, returned)
	}
	return sendJSON(w, http.StatusOK, newRefundBody(&refund))
}

// readRefund reads what is to be given back.
func readRefund(r *http.Request) (request till.RefundRequest, err error) {
	const example = `{"amount":500,"return_units":true,"note":"Broken on arrival"}`
	members, _, err := readObject(r, example, "application/json")
	if err != nil {
		return request, err
	}
	for _, m := range members {
		var ok bool
		switch m.Name {
		case "amount":
			request.Amount, ok = wholeNumber(m.Value)
			ok = ok && request.Amount > 0
		case "return_units":
			request.ReturnUnits = string(m.Value) == "true"
			ok = request.ReturnUnits || string(m.Value) == "false"
		case "note":
			request.Note, ok = plainText(m.Value)
		}
		if !ok {
			return request, problem.New(problem.InvalidRefund,
				"A refund has a note, an amount if it is not all that is left, and return_units, such as "+example+".")
		}
	}
	return request, nil
}

// getReturn answers the browser of a buyer who comes back from a provider, whoever he is by now: it asks the provider
// how the attempt stands. What it says is no secret, and only who has the number can ask.
func (s *Shop) getReturn(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := s.work(r)
	defer cancel()
	p, err := s.till.Sync(ctx, r.PathValue("number"))
	if errors.Is(err, mysql.ErrNotFound) {
		return problem.New(problem.PaymentNotFound, "")
	}
	if err != nil && !errors.Is(err, till.ErrProvider) {
		return &unavailable{problem.New(problem.PaymentsUnavailable, ""), err}
	}

	said := map[till.State]string{
		till.Paid:   "Your payment has arrived. Thank you.",
		till.Closed: "This payment was not made, and cannot be made any more.",
	}[p.State]
	if said == "" {
		said = "Your payment has not arrived yet. If you have paid, it will soon; this page can be loaded again."
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = fmt.Fprintf(w, returnPage, html.EscapeString(said), html.EscapeString(s.till.Front+"/"))
	return nil
}

const returnPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Payment</title>
<h1>Payment</h1>
<p>%s</p>
<p><a href="%s">Back to the shop</a></p>
</html>
`

// postTopUp begins a purchase of points.
func (s *Shop) postTopUp(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	const example = `{"points":500,"provider":"ecpay"}`
	members, _, err := readObject(r, example, "application/json")
	if err != nil {
		return err
	}
	var points int64
	var provider, method string
	for _, m := range members {
		var ok bool
		switch m.Name {
		case "points":
			points, ok = wholeNumber(m.Value)
		case "provider":
			provider, ok = plainText(m.Value)
		case "method":
			method, ok = plainText(m.Value)
		}
		if !ok {
			return problem.New(problem.InvalidTopUp, "Points are bought by a request such as "+example+".")
		}
	}
	if points < 0 || points > till.MaxTopUpPoints { // before it is multiplied
		points = 0
	}

	ctx, cancel := s.work(r)
	defer cancel()
	p, page, err := s.till.BuyPoints(ctx, who.UserID, points, points*s.payments.pointPrice, s.payments.pointCurrency,
		provider, method)
	if errors.Is(err, mysql.ErrNotFound) {
		return problem.New(problem.UserNotFound, "")
	}
	if err != nil {
		return refusedPayment(err)
	}
	return sendJSON(w, http.StatusCreated, newPaymentBody(&p, &page))
}

// getWallet answers with what the user has of points.
func (s *Shop) getWallet(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	ctx, cancel := s.work(r)
	defer cancel()
	wallet, err := s.wallets.Get(ctx, who.UserID)
	if err != nil {
		return err
	}
	return sendJSON(w, http.StatusOK, struct {
		Balance int64 `json:"balance"`
		Earned  int64 `json:"earned"`
		Spent   int64 `json:"spent"`
	}{wallet.Balance, wallet.Earned, wallet.Spent})
}

// walletPage is how many changes a page of a wallet's ledger holds.
const walletPage = 50

// getWalletLedger answers with the changes of the user's wallet, the newest first.
func (s *Shop) getWalletLedger(w http.ResponseWriter, r *http.Request, who *token.Claims) error {
	before, ok := s.cursors.ReadEntry([]byte(r.URL.Query().Get("cursor")))
	if !ok {
		return problem.New(problem.MalformedRequest, "cursor must be the next_cursor of an earlier page.")
	}
	ctx, cancel := s.work(r)
	defer cancel()
	entries, err := s.wallets.Ledger(ctx, who.UserID, before, walletPage+1)
	if err != nil {
		return err
	}

	type entry struct {
		Type      string    `json:"type"`
		Points    int64     `json:"points"`
		Balance   int64     `json:"balance"`
		Note      string    `json:"note,omitempty"`
		CreatedAt time.Time `json:"created_at"`
	}
	page := struct {
		Entries    []entry `json:"entries"`
		NextCursor string  `json:"next_cursor,omitempty"`
	}{Entries: []entry{}}
	if len(entries) > walletPage {
		entries = entries[:walletPage]
		page.NextCursor = s.cursors.Entry(entries[walletPage-1].Version)
	}
	for _, e := range entries {
		page.Entries = append(page.Entries, entry{string(e.Type), e.Delta, e.Balance, e.Note, e.CreatedAt})
	}
	return sendJSON(w, http.StatusOK, page)
}
