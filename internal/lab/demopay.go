package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"stampede/internal/audit"
	"stampede/internal/order"
	"stampede/internal/till"
	"stampede/internal/token"
	"stampede/internal/wallet"
	"stampede/localstack/pay"
)

const (
	// payBuyers is how many buyers come to a sale that is paid, and payAtOnce how many of them at the same time.
	payBuyers = 600
	payAtOnce = 64
	// payWithin is for how long they may pay: a little more than the minute that Alipay wants there to be.
	payWithin = order.MinPayWithin + 15*time.Second
	// lateBy is how long after that some of them pay.
	lateBy = 2 * time.Second
	// payWait bounds the wait for the last order to be paid, cancelled or refunded.
	payWait = 3 * time.Minute
	// demoPrice is what a unit costs in minor units, and demoPoints in points.
	demoPrice  = 12500
	demoPoints = 300
)

// PayDemo is a sale that is paid, in three currencies, to be judged.
type PayDemo struct {
	Size
	JSON bool // print the result as one JSON object, and not as tables
}

// market is a product of one currency, and the providers that its buyers pay by: the first, and a second one.
type market struct {
	currency      string
	first, second string
	product       order.Product
}

func newMarkets() []*market {
	return []*market{
		{currency: "TWD", first: pay.ECPay, second: pay.PayPal},
		{currency: "EUR", first: pay.Stripe, second: pay.PayPal},
		{currency: "CNY", first: pay.Alipay, second: pay.Stripe},
	}
}

// habit is how a buyer pays.
type habit string

// The habits of buyers.
const (
	paysAtOnce habit = "at once"
	paysLate   habit = "late"
	paysTwice  habit = "twice"
	paysNever  habit = "never"
	paysPoints habit = "by points"
)

// habitOf has 70 of 100 buyers pay at once, 10 late, 5 twice, 10 never, and 5 by points.
func habitOf(i int) habit {
	switch n := i % 20; {
	case n < 14:
		return paysAtOnce
	case n < 16:
		return paysLate
	case n < 17:
		return paysTwice
	case n < 19:
		return paysNever
	}
	return paysPoints
}

// PayResult is what a sale that was paid has come to.
type PayResult struct {
	Buyers int `json:"buyers"`
	// Orders are counted by how their buyers pay, and by what has become of them.
	Orders   map[habit]map[order.Status]int `json:"orders"`
	TooLate  int64                          `json:"too_late"` // payments that the providers did not take any more
	Money    []MoneyLine                    `json:"money"`
	Errors   map[string]int                 `json:"errors,omitempty"`
	Promises []Promise                      `json:"promises"`
	Audit    any                            `json:"audit"`
}

// MoneyLine is what has become of the money of one currency, in minor units, by the books of the shop, and what
// the providers took and gave back by their own.
type MoneyLine struct {
	till.Money
	TheyTook     int64 `json:"they_took"`
	TheyGaveBack int64 `json:"they_gave_back"`
}

// Promise is one promise of the shop with the check that a run made of it.
type Promise struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Check string `json:"check"`
	Kept  bool   `json:"kept"`
}

// Run runs the sale, prints what became of it, and reports whether all promises were kept.
func (c *PayDemo) Run(ctx context.Context) (kept bool, err error) {
	show := newProgress(os.Stderr)
	f, err := startFleet(ctx, c.Dir, "demo", show.step)
	keep := true // the logs of a run that went wrong
	defer func() {
		show.step("stopping")
		err = errors.Join(err, f.close(keep))
		if keep && f.dir != "" {
			show.step("logs and data are kept in " + f.dir)
		}
	}()
	if err != nil {
		return false, err
	}
	show.step(fmt.Sprintf("starting %d edge and %d worker processes, a shop, and the providers' stand-ins", c.Edges,
		c.Workers))
	if err := f.runAll(ctx, c.Size); err != nil {
		return false, err
	}
	show.step("watch it live: " + f.board())

	result, err := newPaySale(f).run(ctx, show)
	if err != nil {
		return false, err
	}
	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(result)
	} else {
		result.print(os.Stdout)
	}
	keep = result.Audit != "ok"
	return !keep, err
}

// paySale is a sale that is paid, while it runs.
type paySale struct {
	fleet   *fleet
	till    *till.Till
	wallets *wallet.Wallets
	client  *http.Client
	markets []*market

	done, tooLate atomic.Int64
	mu            sync.Mutex
	orders        map[order.OrderID]habit
	errors        map[string]int
}

func newPaySale(f *fleet) *paySale {
	return &paySale{
		fleet: f, till: &till.Till{DB: f.db}, wallets: wallet.New(f.db), markets: newMarkets(),
		client: &http.Client{Timeout: buyerPatience, Transport: &http.Transport{MaxIdleConnsPerHost: payAtOnce}},
		orders: map[order.OrderID]habit{}, errors: map[string]int{},
	}
}

func (s *paySale) run(ctx context.Context, show *progress) (*PayResult, error) {
	defer s.client.CloseIdleConnections()
	for _, m := range s.markets {
		var err error
		m.product, err = s.fleet.sale.Ledger.AddProduct(ctx, order.Product{
			Name: "Festival pass (" + m.currency + ")", Price: demoPrice, Currency: m.currency, Stock: payBuyers,
			LimitPerUser: 1, Payment: order.PaymentRequired, PayWithin: payWithin, PointsPrice: demoPoints,
		})
		if err != nil {
			return nil, err
		}
	}

	show.step(fmt.Sprintf("%d buyers order in 3 currencies: 70 of 100 pay at once, 10 late, 5 twice, 10 never, 5 by "+
		"points", payBuyers))
	room := make(chan struct{}, payAtOnce)
	var buyers, late sync.WaitGroup
	for i := range payBuyers {
		if ctx.Err() != nil {
			break
		}
		room <- struct{}{}
		buyers.Go(func() {
			defer func() { <-room }()
			s.note(s.buy(ctx, i, &late))
			show.show(s.done.Add(1), payBuyers, fmt.Sprintf("%d/%d buyers", s.done.Load(), payBuyers))
		})
	}
	buyers.Wait()

	show.step(fmt.Sprintf("waiting until nobody can pay any more: an order waits for %s", payWithin))
	late.Wait()
	if err := s.waitSettled(ctx, show); err != nil {
		return nil, err
	}
	show.step("auditing")
	return s.judge(ctx)
}

// note counts what went wrong for a buyer.
func (s *paySale) note(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errors[err.Error()]++
}

// buy is one buyer's visit. Who pays late does so when everybody else has.
func (s *paySale) buy(ctx context.Context, i int, late *sync.WaitGroup) error {
	m, pays, user := s.markets[i%len(s.markets)], habitOf(i/len(s.markets)), order.UserID(i+1)
	access, err := s.fleet.tokens.Sign(token.Claims{UserID: user}, time.Hour)
	if err != nil {
		return err
	}
	body := map[string]any{"product_id": m.product.ID, "quantity": 1}
	if pays == paysPoints {
		body["pay_with"] = "points"
		if _, _, err := s.wallets.TopUp(ctx, user, demoPoints+50, "gift of the demo"); err != nil {
			return err
		}
	}
	var placed struct {
		OrderID order.OrderID `json:"order_id"`
		Status  order.Status  `json:"status"`
	}
	if err := s.call(ctx, "POST", "/api/orders", access, body, http.StatusAccepted, &placed); err != nil {
		return err
	}
	s.mu.Lock()
	s.orders[placed.OrderID] = pays
	s.mu.Unlock()
	for placed.Status == order.Pending {
		path := fmt.Sprintf("/api/orders/%s?product_id=%d&wait=20s", placed.OrderID, m.product.ID)
		if err := s.call(ctx, "GET", path, access, nil, http.StatusOK, &placed); err != nil {
			return err
		}
	}

	switch pays {
	case paysAtOnce:
		act, err := s.begin(ctx, placed.OrderID, access, m.first)
		if err != nil {
			return err
		}
		return act()
	case paysTwice:
		first, err := s.begin(ctx, placed.OrderID, access, m.first)
		if err != nil {
			return err
		}
		second, err := s.begin(ctx, placed.OrderID, access, m.second)
		if err != nil {
			return err
		}
		return errors.Join(first(), second())
	case paysLate:
		act, err := s.begin(ctx, placed.OrderID, access, m.first)
		if err != nil {
			return err
		}
		late.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(payWithin + lateBy):
				if act() != nil {
					s.tooLate.Add(1)
				}
			}
		})
	}
	return nil
}

// begin begins an attempt to pay by a provider, and opens its page. Who calls act pays there as a buyer does.
func (s *paySale) begin(ctx context.Context, id order.OrderID, access, provider string) (act func() error, err error) {
	var attempt struct {
		Payment string
		Page    struct {
			URL  string
			Form map[string]string
		}
	}
	err = s.call(ctx, "POST", fmt.Sprintf("/api/orders/%s/payments", id), access,
		map[string]any{"provider": provider}, http.StatusCreated, &attempt)
	if err == nil {
		err = s.openPage(ctx, attempt.Page.URL, attempt.Page.Form)
	}
	what := "pay"
	if provider == pay.PayPal { // where a buyer approves, and we take the money
		what = "approve"
	}
	return func() error {
		_, err := s.fleet.pay.Act(what, provider, attempt.Payment, "")
		return err
	}, err
}

// openPage opens the page where a buyer pays.
func (s *paySale) openPage(ctx context.Context, address string, form map[string]string) error {
	method, values := http.MethodGet, url.Values{}
	for name, value := range form {
		method = http.MethodPost
		values.Set(name, value)
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader([]byte(values.Encode())))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("a page to pay answers %d", response.StatusCode)
	}
	return nil
}

// call makes a request of the front door, and reads its answer.
func (s *paySale) call(
	ctx context.Context, method, path, access string, body map[string]any, want int, into any,
) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, s.fleet.door.URL+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+access)
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != want {
		var problem struct{ Code string }
		_ = json.Unmarshal(answer, &problem)
		return fmt.Errorf("%s: %d %s", method, response.StatusCode, problem.Code)
	}
	return json.Unmarshal(answer, into)
}

// waitSettled waits until every order is paid, cancelled or failed, and every refund is made or an operator's.
func (s *paySale) waitSettled(ctx context.Context, show *progress) error {
	ctx, cancel := context.WithTimeout(ctx, payWait)
	defer cancel()
	if err := s.fleet.sale.WaitQuiet(ctx, drainWait, func(audit.Look) {}); err != nil {
		return err
	}
	for {
		open, err := s.till.Open(ctx)
		if err != nil {
			return err
		}
		if open == (till.OpenCount{}) {
			return nil
		}
		show.show(0, 0, fmt.Sprintf("%d orders are not paid, %d refunds are due, %d units are on their way to Redis",
			open.Orders, open.Refunds, open.Returns))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d orders, %d refunds and %d returned units were not settled in time", open.Orders,
				open.Refunds, open.Returns)
		case <-time.After(show.interval()):
		}
	}
}

// judge compares what buyers did with the books of the shop and those of the providers.
func (s *paySale) judge(ctx context.Context) (*PayResult, error) {
	r := &PayResult{
		Buyers: payBuyers, TooLate: s.tooLate.Load(), Errors: s.errors, Orders: map[habit]map[order.Status]int{},
	}
	report, err := s.fleet.sale.Audit(ctx)
	if err != nil {
		return nil, err
	}
	paid, err := s.till.Audit(ctx)
	if err != nil {
		return nil, err
	}
	wallets, err := s.wallets.Audit(ctx)
	if err != nil {
		return nil, err
	}
	records, err := s.fleet.sale.Ledger.Decided(ctx, keys(s.orders))
	if err != nil {
		return nil, err
	}
	statuses := map[order.Status]int{}
	for id, pays := range s.orders {
		status := records[id].Status
		if r.Orders[pays] == nil {
			r.Orders[pays] = map[order.Status]int{}
		}
		r.Orders[pays][status]++
		statuses[status]++
	}
	r.Money = s.money(paid.Money)

	check := func(id, name string, kept bool, format string, args ...any) {
		r.Promises = append(r.Promises, Promise{id, name, fmt.Sprintf(format, args...), kept})
	}
	check("P2", "a 202 is kept", len(records) == len(s.orders), "%d accepted, %d decided", len(s.orders), len(records))
	check("P4", "conservation", report.OK, "%d problems in stock, ledger and Redis", len(report.Problems))
	adds := !slices.ContainsFunc(r.Money, func(m MoneyLine) bool { return !m.fits() })
	check("P9", "money adds up", adds && len(paid.Problems) == 0,
		"%d currencies: taken = completed + refunded + by hand, as the providers say", len(r.Money))
	check("P10", "unpaid units come back", statuses[order.AwaitingPayment]+statuses[order.Closing] == 0 &&
		r.Orders[paysNever][order.Cancelled] == count(r.Orders[paysNever]),
		"%d orders were not paid, %d cancelled in all", count(r.Orders[paysNever]), statuses[order.Cancelled])
	check("P12", "points conserve",
		len(wallets) == 0 && r.Orders[paysPoints][order.Completed] == count(r.Orders[paysPoints]),
		"%d orders paid by points, %d wallets do not add up", r.Orders[paysPoints][order.Completed], len(wallets))

	broken := slices.Concat(report.Problems, paid.Problems)
	for _, p := range r.Promises {
		if !p.Kept {
			broken = append(broken, fmt.Sprintf("%s %s: %s", p.ID, p.Name, p.Check))
		}
	}
	r.Audit = "ok"
	if len(broken) > 0 || len(s.errors) > 0 {
		r.Audit = broken
	}
	return r, nil
}

// money sets the books of the providers beside those of the shop.
func (s *paySale) money(ours []till.Money) []MoneyLine {
	lines := make([]MoneyLine, len(ours))
	books := s.fleet.pay.Books()
	for i := range ours {
		lines[i].Money = ours[i]
		for _, p := range books.Payments {
			if p.Currency == ours[i].Currency {
				lines[i].TheyTook += p.Amount
			}
		}
		for _, r := range books.Refunds {
			if r.Currency == ours[i].Currency {
				lines[i].TheyGaveBack += r.Amount
			}
		}
	}
	return lines
}

// fits reports whether the money adds up, to the last minor unit, and as the providers have it.
func (m MoneyLine) fits() bool {
	return m.Adds() && m.Taken == m.TheyTook && m.Refunded == m.TheyGaveBack
}

func keys(orders map[order.OrderID]habit) []order.OrderID {
	ids := make([]order.OrderID, 0, len(orders))
	for id := range orders {
		ids = append(ids, id)
	}
	return ids
}

func count(orders map[order.Status]int) (n int) {
	for _, some := range orders {
		n += some
	}
	return n
}

// print writes the result as tables that line up.
func (r *PayResult) print(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "buyers pay\torders\tcompleted\tcancelled\trefunded\tfailed\tother\t")
	for _, pays := range []habit{paysAtOnce, paysLate, paysTwice, paysNever, paysPoints} {
		o := r.Orders[pays]
		known := o[order.Completed] + o[order.Cancelled] + o[order.Refunded] + o[order.Failed]
		fmt.Fprintf(tab, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", pays, count(o), o[order.Completed], o[order.Cancelled],
			o[order.Refunded], o[order.Failed], count(o)-known)
	}
	tab.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(tab, "money\ttaken\tcompleted\trefunded\tby hand\tproviders took\tgave back\t")
	for _, m := range r.Money {
		money := func(amount int64) string { text, _ := order.Decimal(amount, m.Currency); return text }
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", m.Currency, money(m.Taken), money(m.Completed),
			money(m.Refunded), money(m.ByHand+m.Due), money(m.TheyTook), money(m.TheyGaveBack))
	}
	tab.Flush()
	fmt.Fprintln(w)
	left := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(left, "promise\t\tcheck\tresult")
	for _, p := range r.Promises {
		verdict := "kept"
		if !p.Kept {
			verdict = "BROKEN"
		}
		fmt.Fprintf(left, "%s\t%s\t%s\t%s\n", p.ID, p.Name, p.Check, verdict)
	}
	left.Flush()
	fmt.Fprintf(w, "\n%d payments came too late for their provider to take them\n", r.TooLate)
	for what, n := range r.Errors {
		fmt.Fprintf(w, "error, %d times: %s\n", n, what)
	}
	if r.Audit == "ok" {
		fmt.Fprintln(w, "audit: ok")
		return
	}
	fmt.Fprintln(w, "audit: FAILED")
	for _, problem := range r.Audit.([]string) {
		fmt.Fprintln(w, "  -", problem)
	}
}
