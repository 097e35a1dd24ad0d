package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/payment/providers"
	"stampede/internal/problem"
	"stampede/internal/till"
	"stampede/internal/wallet"
	"stampede/localstack/pay"
)

// payWorld is a shop that takes payments by the stand-ins of all providers.
type payWorld struct {
	*world
	pay *pay.Server
	env map[string]string
}

func newPayWorld(t *testing.T) *payWorld {
	t.Helper()
	// The shop is told its address before it has one.
	var target *url.URL
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	t.Cleanup(front.Close)
	server, err := pay.Start(pay.Options{Webhooks: map[string]string{
		pay.PayPal: front.URL + "/webhooks/paypal", pay.Stripe: front.URL + "/webhooks/stripe",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })

	w := &payWorld{pay: server, env: map[string]string{}}
	for _, variable := range server.Env() {
		name, value, _ := strings.Cut(variable, "=")
		w.env[name] = value
	}
	w.world = newWorld(t, func(s *Shop) {
		set, err := providers.FromEnv(func(name string) string { return w.env[name] })
		if err != nil {
			t.Fatal(err)
		}
		s.takePayments(&till.Till{DB: s.db, Providers: set.All, Front: front.URL, TestMode: set.TestMode},
			paymentSettings{pointPrice: 2, pointCurrency: "EUR"})
	})
	target, err = url.Parse(w.URL)
	w.Must(err)
	return w
}

// held has a user order a product in a currency, and decides the order.
func (w *payWorld) held(user order.UserID, currency string) (order.Product, string) {
	w.Helper()
	p := w.AddProduct(10, func(p *order.Product) {
		p.Payment, p.Currency, p.Price = order.PaymentRequired, currency, 2500
	})
	id := w.MustPost(user, p.ID, 2)
	w.Eventually("the order is on the queue", func() bool { return len(w.Decided(p.ID)) == 1 })
	return p, id
}

// status is what has become of an order. A client may not ask as often as a test does.
func (w *payWorld) status(id string) order.Status {
	w.Helper()
	parsed, err := order.ParseID(id)
	w.Must(err)
	record, err := w.Ledger.Order(w.Context(), parsed)
	w.Must(err)
	return record.Status
}

// completed waits until an order is completed.
func (w *payWorld) completed(id string) {
	w.Helper()
	w.Eventually("the order is completed", func() bool { return w.status(id) == order.Completed })
}

// shown is what the edge says of it.
func (w *payWorld) shown(user order.UserID, id string) order.Status {
	w.Helper()
	var body struct{ Status order.Status }
	w.Get(user, "/api/orders/"+id).Read(w, &body)
	return body.Status
}

// begin begins an attempt, and opens its page, as a buyer's browser does.
func (w *payWorld) begin(user order.UserID, id, provider string) paymentBody {
	w.Helper()
	r := w.Send("POST", "/api/orders/"+id+"/payments", `{"provider":"`+provider+`"}`, "Authorization",
		w.Bearer(user), "Content-Type", "application/json")
	if r.Status != http.StatusCreated {
		w.Fatalf("%s: %v", provider, r)
	}
	var body paymentBody
	r.Read(w, &body)
	w.open(body)
	return body
}

func (w *payWorld) open(body paymentBody) {
	w.Helper()
	form := url.Values{}
	for name, value := range body.Page.Form {
		form.Set(name, value)
	}
	var response *http.Response
	var err error
	if len(form) > 0 {
		response, err = http.PostForm(body.Page.URL, form)
	} else {
		response, err = http.Get(body.Page.URL)
	}
	w.Must(err)
	w.Must(response.Body.Close())
	if response.StatusCode != http.StatusOK {
		w.Fatalf("%s: status %d", body.Page.URL, response.StatusCode)
	}
}

func (w *payWorld) act(what string, p paymentBody) {
	w.Helper()
	if _, err := w.pay.Act(what, p.Provider, p.Payment, ""); err != nil {
		w.Fatalf("%s at %s: %v", what, p.Provider, err)
	}
}

// mustAddUp holds all that was paid to what became of it.
func (w *payWorld) mustAddUp() {
	w.Helper()
	audit, err := w.shop.till.Audit(w.Context())
	w.Must(err)
	for _, problem := range audit.Problems {
		w.Error(problem)
	}
	w.Audit()
}

// TestPayAtEachProvider: a buyer pays, the provider tells, and the order is completed; what is given back is.
func TestPayAtEachProvider(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	for user, test := range []struct{ provider, currency string }{
		{pay.ECPay, "TWD"}, {pay.PayPal, "EUR"}, {pay.Alipay, "CNY"}, {pay.Stripe, "USD"},
	} {
		user := order.UserID(user + 1)
		p, id := w.held(user, test.currency)
		if got := w.shown(user, id); got != order.AwaitingPayment {
			t.Fatalf("%s: the order is %s", test.provider, got)
		}
		attempt := w.begin(user, id, test.provider)
		if attempt.Amount != 5000 || attempt.Currency != test.currency || attempt.OrderID != id {
			t.Errorf("%s: %+v", test.provider, attempt)
		}
		if again := w.begin(user, id, test.provider); again.Payment != attempt.Payment {
			t.Errorf("%s: a second request makes another attempt", test.provider)
		}
		if test.provider == pay.PayPal { // which has the buyer approve, and takes the money when we ask for it
			w.act("approve", attempt)
		} else {
			w.act("pay", attempt)
		}
		w.completed(id)

		page := w.Send("GET", "/api/payments/"+attempt.Payment+"/return", "")
		if page.Status != 200 || !strings.Contains(page.Body, "has arrived") {
			t.Errorf("%s: the page of the return: %v", test.provider, page)
		}
		path := fmt.Sprintf("/api/orders/%s/refunds/R%d", id, user)
		if r := w.Manage("PUT", path, `{"note":"broken","return_units":true}`); r.Status != 200 {
			t.Errorf("%s: refund: %v", test.provider, r)
		}
		w.Must(w.shop.till.MakeRefund(t.Context(), fmt.Sprintf("R%d", user)))
		if got := w.shown(user, id); got != order.Refunded {
			t.Errorf("%s: after the refund the order is %s", test.provider, got)
		}
		w.WantLevel(p.ID, 10, 0, 0)

		var listed struct {
			Payments []paymentBody
			Refunds  []refundBody
		}
		w.Get(user, "/api/orders/"+id+"/payments").Read(w, &listed)
		if len(listed.Payments) != 1 || listed.Payments[0].State != till.Paid || len(listed.Refunds) != 1 ||
			listed.Refunds[0].State != till.RefundDone {
			t.Errorf("%s: listed %+v", test.provider, listed)
		}
		apitest.WantProblem(t, w.Get(user+100, "/api/orders/"+id+"/payments"), 404, problem.OrderNotFound)
	}
	books := w.pay.Books()
	if len(books.Payments) != 4 || len(books.Refunds) != 4 {
		t.Errorf("the providers took %d payments and gave back %d", len(books.Payments), len(books.Refunds))
	}
	w.mustAddUp()
}

// TestBackFromProvider: the buyer is back before the provider has told, and the shop asks.
func TestBackFromProvider(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	_, id := w.held(1, "EUR")
	attempt := w.begin(1, id, pay.PayPal)
	page := w.Send("GET", "/api/payments/"+attempt.Payment+"/return", "")
	if page.Status != 200 || !strings.Contains(page.Body, "has not arrived yet") {
		t.Errorf("before: %v", page)
	}
	w.Must(w.pay.SetFaults(pay.Faults{Faults: []pay.Fault{{Kind: pay.NoticeNever}}}))
	w.act("approve", attempt)
	page = w.Send("GET", "/api/payments/"+attempt.Payment+"/return", "")
	if page.Status != 200 || !strings.Contains(page.Body, "has arrived") {
		t.Errorf("after: %v", page)
	}
	if got := w.status(id); got != order.Completed {
		t.Errorf("the order is %s", got)
	}
	apitest.WantProblem(t, w.Send("GET", "/api/payments/NOBODYS/return", ""), 404, problem.PaymentNotFound)
	w.mustAddUp()
}

func TestPayRefused(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	_, id := w.held(1, "EUR")
	free := w.AddProduct(10)
	unpaid := w.MustPost(1, free.ID, 1)
	w.Eventually("the order is on the queue", func() bool { return len(w.Decided(free.ID)) == 1 })

	const stripe = `{"provider":"stripe"}`
	refund := "/api/orders/" + id + "/refunds/R1"
	fields := func(user order.UserID, more ...string) []string {
		return append([]string{"Authorization", w.Bearer(user), "Content-Type", "application/json"}, more...)
	}
	post := func(user order.UserID, id, body string, more ...string) apitest.Reply {
		t.Helper()
		return w.Send("POST", "/api/orders/"+id+"/payments", body, fields(user, more...)...)
	}
	cancel := func(user order.UserID, id string) apitest.Reply {
		t.Helper()
		return w.Send("POST", "/api/orders/"+id+"/cancel", "", fields(user)...)
	}
	for what, test := range map[string]struct {
		reply  apitest.Reply
		status int
		code   problem.Code
	}{
		"nobody":            {w.Send("POST", "/api/orders/"+id+"/payments", `{}`), 401, problem.Unauthenticated},
		"another":           {post(2, id, stripe), 404, problem.OrderNotFound},
		"no order":          {post(1, order.NewID().String(), stripe), 404, problem.OrderNotFound},
		"no id":             {post(1, "7", stripe), 400, problem.MalformedRequest},
		"no JSON":           {post(1, id, `stripe`), 400, problem.MalformedRequest},
		"unknown provider":  {post(1, id, `{"provider":"bank"}`), 422, problem.PaymentNotOffered},
		"no provider":       {post(1, id, `{}`), 422, problem.PaymentNotOffered},
		"wrong currency":    {post(1, id, `{"provider":"ecpay"}`), 422, problem.PaymentNotOffered},
		"unknown method":    {post(1, id, `{"provider":"stripe","method":"shells"}`), 422, problem.PaymentNotOffered},
		"need not be paid":  {post(1, unpaid, stripe), 409, problem.NotPayable},
		"with a key":        {post(1, id, stripe, "Idempotency-Key", "k"), 400, problem.MalformedRequest},
		"cannot be undone":  {cancel(1, unpaid), 409, problem.NotCancellable},
		"another's cancel":  {cancel(2, id), 404, problem.OrderNotFound},
		"a buyer's refund":  {w.Send("PUT", refund, `{"note":"x"}`, fields(1)...), 403, problem.Forbidden},
		"refund of nothing": {w.Manage("PUT", refund, `{"note":"x"}`), 404, problem.OrderNotFound},
		"refund, no note":   {w.Manage("PUT", refund, `{}`), 422, problem.InvalidRefund},
		"refund below zero": {w.Manage("PUT", refund, `{"note":"x","amount":-1}`), 422, problem.InvalidRefund},
		"refund of odd":     {w.Manage("PUT", refund, `{"note":"x","odd":1}`), 422, problem.InvalidRefund},
	} {
		if test.reply.Status != test.status {
			t.Errorf("%s:", what)
		}
		apitest.WantProblem(t, test.reply, test.status, test.code)
	}

	// The provider is down: the same request goes on when it is back.
	w.Must(w.pay.SetFaults(pay.Faults{Faults: []pay.Fault{{Provider: pay.Stripe, Kind: pay.Trouble}}}))
	apitest.WantProblem(t, post(1, id, stripe), 503, problem.ProviderUnavailable)
	w.Must(w.pay.SetFaults(pay.Faults{}))
	attempts, err := w.shop.till.OfOrder(t.Context(), mustID(t, id))
	w.Must(err)
	if again := w.begin(1, id, pay.Stripe); len(attempts) != 1 || again.Payment != attempts[0].Number {
		t.Errorf("after the outage: %+v, before %+v", again, attempts)
	}
	w.mustAddUp()
}

func mustID(t *testing.T, text string) order.OrderID {
	t.Helper()
	id, err := order.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestCancelByBuyer: at once without an attempt that may yet be paid, and when that is closed with one.
func TestCancelByBuyer(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	cancel := func(id string, want order.Status) {
		t.Helper()
		r := w.Send("POST", "/api/orders/"+id+"/cancel", "", "Authorization", w.Bearer(1))
		if r.Status != 200 || r.Body != fmt.Sprintf(`{"order_id":%q,"status":%q}`, id, want) {
			t.Errorf("cancelled: %v, want %s", r, want)
		}
	}
	p, id := w.held(1, "EUR")
	w.WantLevel(p.ID, 8, 0, 0)
	cancel(id, order.Cancelled)
	w.WantLevel(p.ID, 10, 0, 0)
	cancel(id, order.Cancelled)

	p, id = w.held(1, "EUR")
	attempt := w.begin(1, id, pay.Stripe)
	cancel(id, order.Closing)
	w.Must(w.shop.till.Sweep(t.Context(), attempt.Payment))
	due, err := w.Ledger.Due(t.Context())
	w.Must(err)
	if _, err := w.Ledger.Expire(t.Context(), p.ID, due[p.ID]); err != nil {
		t.Fatal(err)
	}
	cancel(id, order.Cancelled)
	if _, err := w.pay.Act("pay", pay.Stripe, attempt.Payment, ""); err == nil {
		t.Error("it can be paid after it was cancelled")
	}
	w.mustAddUp()
}

// TestForgedNotices: what no provider has signed gets the provider's negative answer, and leaves no trace in MySQL.
func TestForgedNotices(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	_, id := w.held(1, "EUR")
	attempt := w.begin(1, id, pay.Stripe)
	var events int
	count := func() int {
		t.Helper()
		w.Must(w.DB.GetContext(t.Context(), &events, `SELECT COUNT(*) FROM payment_events`))
		return events
	}
	post := func(provider, contentType, body string) (int, string) {
		t.Helper()
		response, err := http.Post(w.URL+"/webhooks/"+provider, contentType, strings.NewReader(body))
		w.Must(err)
		defer response.Body.Close()
		var text bytes.Buffer
		_, err = text.ReadFrom(response.Body)
		w.Must(err)
		return response.StatusCode, text.String()
	}

	const form = "application/x-www-form-urlencoded"
	for _, test := range []struct{ provider, contentType, body string }{
		{"ecpay", form, "MerchantID=3002607&MerchantTradeNo=" + attempt.Payment + "&RtnCode=1&CheckMacValue=00"},
		{"ecpay", form, ""},
		{"ecpay", form, "%zz=&;;"},
		{"ecpay", "application/json", `{"RtnCode":1}`},
		{"alipay", form, "out_trade_no=" + attempt.Payment + "&trade_status=TRADE_SUCCESS&sign=AAAA&sign_type=RSA2"},
		{"alipay", form, strings.Repeat("a=1&", 20_000/4)},
		{"paypal", "application/json", `{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}`},
		{"stripe", "application/json", `{"id":"evt_1","type":"checkout.session.completed"}`},
		{"stripe", "application/json", "\xff\xfe{"},
	} {
		status, answer := post(test.provider, test.contentType, test.body)
		if answer == "1|OK" || answer == "success" || status == 200 && answer == "" {
			t.Errorf("%s takes %.60q: %d %q", test.provider, test.body, status, answer)
		}
	}
	if status, _ := post("ecpay", form, strings.Repeat("a", maxNoticeBytes+1)); status != 413 {
		t.Errorf("an oversized notice: %d", status)
	}
	if status, _ := post("bank", form, ""); status != 404 {
		t.Errorf("of no provider: %d", status)
	}
	if r := w.Send("GET", "/webhooks/ecpay", ""); r.Status != 405 {
		t.Errorf("GET: %v", r)
	}

	// A thousand at once, from one address.
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			for range 50 {
				post("ecpay", form, "MerchantID=3002607&MerchantTradeNo="+attempt.Payment+"&RtnCode=1&CheckMacValue=00")
			}
		})
	}
	group.Wait()
	w.Must(w.pay.Forge(pay.Stripe, attempt.Payment))
	w.Eventually("the forged notice has come", func() bool {
		c := w.pay.Counts()
		return c.Forged > 0 && c.Pending == 0
	})
	if got := w.status(id); got != order.AwaitingPayment || count() != 0 {
		t.Errorf("the order is %s, and %d events are stored", got, events)
	}
	w.act("pay", attempt)
	w.completed(id)
	if w.pay.Counts().ForgedTaken != 0 {
		t.Error("a forged notice was taken")
	}
	w.mustAddUp()
}

// TestWalletOverHTTP: points are bought by a provider, and listed.
func TestWalletOverHTTP(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	var account userBody
	w.register("ada@example.org").Read(t, &account)
	user := account.UserID
	post := func(body string) apitest.Reply {
		t.Helper()
		return w.Send("POST", "/api/wallet/topups", body, "Authorization", w.Bearer(user), "Content-Type",
			"application/json")
	}
	r := post(`{"points":150,"provider":"stripe"}`)
	var attempt paymentBody
	r.Read(w, &attempt)
	if r.Status != 201 || attempt.Points != 150 || attempt.Amount != 300 || attempt.Currency != "EUR" {
		t.Fatalf("top-up: %v", r)
	}
	w.open(attempt)
	w.act("pay", attempt)
	w.Eventually("the points are there", func() bool {
		return w.Get(user, "/api/wallet").Body == `{"balance":150,"earned":150,"spent":0}`
	})
	for i := range walletPage + 1 {
		_, _, err := wallet.New(w.DB).TopUp(t.Context(), user, 1, fmt.Sprint("gift ", i))
		w.Must(err)
	}
	var page struct {
		Entries    []map[string]any
		NextCursor string `json:"next_cursor"`
	}
	w.Get(user, "/api/wallet/ledger").Read(w, &page)
	if len(page.Entries) != walletPage || page.NextCursor == "" {
		t.Errorf("a page of %d entries, next %q", len(page.Entries), page.NextCursor)
	}
	next := page.NextCursor
	page.NextCursor = ""
	w.Get(user, "/api/wallet/ledger?cursor="+next).Read(w, &page)
	if len(page.Entries) != 2 || page.NextCursor != "" || page.Entries[1]["points"] != 150.0 {
		t.Errorf("the second page: %+v", page)
	}
	apitest.WantProblem(t, w.Get(user, "/api/wallet/ledger?cursor=x"), 400, problem.MalformedRequest)

	for body, code := range map[string]problem.Code{
		`{"points":0,"provider":"stripe"}`:       problem.InvalidTopUp,
		`{"points":-5,"provider":"stripe"}`:      problem.InvalidTopUp,
		`{"points":1000001,"provider":"stripe"}`: problem.InvalidTopUp,
		`{"points":1.5,"provider":"stripe"}`:     problem.InvalidTopUp,
		`{"points":"1","provider":"stripe"}`:     problem.InvalidTopUp,
		`{"points":5}`:                           problem.PaymentNotOffered,
		`{"points":5,"provider":"ecpay"}`:        problem.PaymentNotOffered,
	} {
		apitest.WantProblem(t, post(body), 422, code)
	}
	w.mustAddUp()
}

// TestPaymentsOutage: without MySQL nothing is lost, and each is told to come again.
func TestPaymentsOutage(t *testing.T) {
	t.Parallel()
	w := newPayWorld(t)
	_, id := w.held(1, "EUR")
	attempt := w.begin(1, id, pay.Stripe)
	w.MySQL.Cut()
	w.act("pay", attempt)
	apitest.WantProblem(t, w.Get(1, "/api/wallet"), 503, problem.PaymentsUnavailable)
	w.Heal()
	w.completed(id)
	w.mustAddUp()
}
