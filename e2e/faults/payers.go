package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// This file and money.go judge payments from outside: like load.go and check.go they import nothing of Stampede.

const (
	// merchant is the user who gives money back.
	merchant = 1_000_000
	// maxTries bounds how often a buyer repeats what got no answer, and maxTryPause how far apart: for some 15 s.
	maxTries    = 20
	maxTryPause = 900 * time.Millisecond
	// maxPayPause bounds how long a buyer thinks before he begins to pay.
	maxPayPause = 2 * time.Second
	// decisionWait is for how long each look at an order waits for its decision.
	decisionWait = "2s"
)

// wish is what a buyer means to do about an order that must be paid.
type wish string

// The wishes of buyers.
const (
	paysOnce  wish = "pays"          // at once
	paysTwice wish = "pays twice"    // by two providers at the same time
	paysLate  wish = "pays late"     // when the order's time is over
	leaves    wish = "leaves"        // the provider's page, without having paid
	forgets   wish = "forgets"       // the order
	cancels   wish = "cancels"       // the order; some pay at the same time
	sendsBack wish = "sends it back" // and gets the money back from staff
)

// wishes are how many of a hundred buyers have which, in the order in which they are drawn.
type wishes []struct {
	wish
	share int
}

var usualWishes = wishes{
	{paysOnce, 48}, {paysTwice, 12}, {paysLate, 12}, {leaves, 9}, {forgets, 4}, {cancels, 10}, {sendsBack, 5},
}

// purchase is what a buyer does about an accepted order, with what he was told.
type purchase struct {
	order, body string
	user        int64
	wish        wish
	pause, late time.Duration // before he pays, and after the order's time is over
	comesBack   bool          // from the provider's page to the shop's
	races       bool          // he pays while he cancels
	opens       bool          // the page that he then leaves
	inParts     bool          // the money comes back in two parts
	providers   []string      // at which he pays, in this order

	mu       sync.Mutex
	attempts []attempt
	// cancelled is when he asked for the order to be cancelled, and ended when its time to pay was let pass; zero if
	// that was not done. Both are from before the request, and what was paid before them was paid in time.
	cancelled, ended time.Time
	refunds          []staffRefund
}

// attempt is one to pay, as the shop has told the buyer.
type attempt struct {
	number, provider string
	page             page
}

type page struct {
	URL  string
	Form map[string]string
}

// staffRefund is money that staff was asked to give back, in minor units.
type staffRefund struct {
	number string
	amount int64
	units  bool // the units come back as well
	status int  // of the last answer, or 0
}

// payers are the buyers of products that must be paid.
type payers struct {
	front, provider, secret string // addresses of the shop and of what plays the providers
	// pass lets the time of an order to be paid pass. It is repeated if it fails.
	pass func(ctx context.Context, order string) error

	client    *http.Client
	mu        sync.Mutex
	purchases []*purchase
}

// plan decides what each buyer does about an order that is accepted.
func (p *payers) plan(intents []*intent, sold []product, usual wishes, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, in := range intents {
		in.then = &purchase{
			user: in.user, pause: time.Duration(rng.Int64N(int64(maxPayPause))),
			late: time.Duration(rng.Int64N(int64(time.Second))), comesBack: rng.IntN(100) < 30,
			races: rng.IntN(100) < 50, opens: rng.IntN(100) < 60, inParts: rng.IntN(100) < 50,
		}
		pick := rng.IntN(100)
		for _, w := range usual {
			if pick -= w.share; pick < 0 {
				in.then.wish = w.wish
				break
			}
		}
		i := slices.IndexFunc(sold, func(p product) bool { return p.id == in.product })
		offered := slices.Clone(sold[i].providers)
		rng.Shuffle(len(offered), func(i, j int) { offered[i], offered[j] = offered[j], offered[i] })
		in.then.providers = offered
	}
}

// serve does what a buyer does who has an order, to its end.
func (p *payers) serve(ctx context.Context, in *intent, orderID string) {
	b := in.then
	b.order = orderID
	p.mu.Lock()
	p.purchases = append(p.purchases, b)
	p.mu.Unlock()

	if b.wish == forgets || sleep(ctx, b.pause) != nil || p.await(ctx, b, "pending") != "awaiting_payment" {
		return
	}
	switch b.wish {
	case paysOnce:
		p.pay(ctx, b, p.begin(ctx, b, 0))
	case paysTwice:
		first, second := p.begin(ctx, b, 0), p.begin(ctx, b, 1)
		var both sync.WaitGroup
		both.Go(func() { p.pay(ctx, b, first) })
		p.pay(ctx, b, second)
		both.Wait()
	case paysLate:
		a := p.begin(ctx, b, 0)
		p.open(ctx, a)
		p.end(ctx, b)
		_ = sleep(ctx, b.late)
		p.pay(ctx, b, a)
	case leaves:
		if a := p.begin(ctx, b, 0); b.opens {
			p.open(ctx, a)
		}
		p.end(ctx, b)
	case cancels:
		p.cancel(ctx, b)
	case sendsBack:
		p.pay(ctx, b, p.begin(ctx, b, 0))
		if p.await(ctx, b, "awaiting_payment") == "completed" {
			p.sendBack(ctx, b)
		}
	}
}

// repeat asks until done reports that the answer is final, or too often. The status is 0 if there was no answer.
func repeat(ctx context.Context, ask func() (status int, raw []byte, err error),
	done func(status int, raw []byte) bool) {
	pause := minPause / 2
	for range maxTries {
		status, raw, err := ask()
		if err != nil {
			status = 0
		}
		if done(status, raw) || sleep(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, maxTryPause)
	}
}

// final reports whether a client need not repeat what was answered so.
func final(status int) bool {
	return status != 0 && status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// send makes one request, with the token of a user unless that is 0.
func (p *payers) send(ctx context.Context, method, address string, user int64, role, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, err
	}
	req.GetBody = nil // see load.order
	req.Header.Set("Content-Type", "application/json")
	if user != 0 {
		req.Header.Set("Authorization", "Bearer "+accessToken(p.secret, user, role))
	}
	return p.do(req)
}

func (p *payers) do(req *http.Request) (int, []byte, error) {
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, raw, err
}

// await waits until an order is in another state than one, and returns it; it is empty if that took too long.
func (p *payers) await(ctx context.Context, b *purchase, state string) (now string) {
	repeat(ctx, func() (int, []byte, error) {
		return p.send(ctx, http.MethodGet, p.front+"/api/orders/"+b.order+"?wait="+decisionWait, b.user, "", "")
	}, func(status int, raw []byte) bool {
		var fields struct{ Status string }
		if status == http.StatusOK && json.Unmarshal(raw, &fields) == nil && fields.Status != state {
			now = fields.Status
			b.body = string(raw)
		}
		return now != ""
	})
	return now
}

// begin begins an attempt at a provider of the buyer's choice, or returns nil.
func (p *payers) begin(ctx context.Context, b *purchase, choice int) (begun *attempt) {
	body := fmt.Sprintf(`{"provider":%q}`, b.providers[choice])
	repeat(ctx, func() (int, []byte, error) {
		return p.send(ctx, http.MethodPost, p.front+"/api/orders/"+b.order+"/payments", b.user, "", body)
	}, func(status int, raw []byte) bool {
		var fields struct {
			Payment string
			Page    page
		}
		if status == http.StatusCreated && json.Unmarshal(raw, &fields) == nil {
			begun = &attempt{fields.Payment, b.providers[choice], fields.Page}
			b.mu.Lock()
			b.attempts = append(b.attempts, *begun)
			b.mu.Unlock()
		}
		return final(status)
	})
	return begun
}

// open opens the provider's page, as the buyer's browser does. At some providers that is what makes the attempt known.
func (p *payers) open(ctx context.Context, a *attempt) {
	if a == nil {
		return
	}
	repeat(ctx, func() (int, []byte, error) {
		form := url.Values{}
		for name, value := range a.page.Form {
			form.Set(name, value)
		}
		method := http.MethodGet
		if len(form) > 0 {
			method = http.MethodPost
		}
		req, err := http.NewRequestWithContext(ctx, method, a.page.URL, bytes.NewReader([]byte(form.Encode())))
		if err != nil {
			return 0, nil, err
		}
		if len(form) > 0 {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return p.do(req)
	}, func(status int, _ []byte) bool { return final(status) })
}

// pay pays an attempt, if there is one that the provider still takes, and may come back to the shop.
func (p *payers) pay(ctx context.Context, b *purchase, a *attempt) {
	if a == nil {
		return
	}
	p.open(ctx, a)
	p.asBuyer(ctx, "pay", a)
	if b.comesBack {
		repeat(ctx, func() (int, []byte, error) {
			return p.send(ctx, http.MethodGet, p.front+"/api/payments/"+a.number+"/return", 0, "", "")
		}, func(status int, _ []byte) bool { return final(status) })
	}
}

// asBuyer does something on the provider's page. What the provider does not take any more is not repeated.
func (p *payers) asBuyer(ctx context.Context, what string, a *attempt) {
	body := fmt.Sprintf(`{"provider":%q,"number":%q}`, a.provider, a.number)
	repeat(ctx, func() (int, []byte, error) {
		return p.send(ctx, http.MethodPost, p.provider+"/admin/"+what, 0, "", body)
	}, func(status int, _ []byte) bool { return status != 0 })
}

// end lets the order's time to be paid pass.
func (p *payers) end(ctx context.Context, b *purchase) {
	b.mu.Lock()
	b.ended = time.Now()
	b.mu.Unlock()
	repeat(ctx, func() (int, []byte, error) {
		return http.StatusOK, nil, p.pass(ctx, b.order)
	}, func(status int, _ []byte) bool { return status != 0 })
}

// cancel cancels the order; the buyer may have an attempt, and even pay it meanwhile.
func (p *payers) cancel(ctx context.Context, b *purchase) {
	var paying sync.WaitGroup
	if b.opens {
		a := p.begin(ctx, b, 0)
		p.open(ctx, a)
		if b.races {
			paying.Go(func() { p.pay(ctx, b, a) })
		}
	}
	b.mu.Lock()
	b.cancelled = time.Now()
	b.mu.Unlock()
	repeat(ctx, func() (int, []byte, error) {
		return p.send(ctx, http.MethodPost, p.front+"/api/orders/"+b.order+"/cancel", b.user, "", "{}")
	}, func(status int, _ []byte) bool { return final(status) })
	paying.Wait()
}

// sendBack has staff give back what the order has cost, at once or in two parts, and put its units on sale again.
func (p *payers) sendBack(ctx context.Context, b *purchase) {
	var bought struct {
		Total int64 `json:"total_price"`
	}
	if err := json.Unmarshal([]byte(b.body), &bought); err != nil {
		return
	}
	name := b.order[len(b.order)-12:]
	parts := []staffRefund{{number: "staff" + name, amount: bought.Total, units: true}}
	if b.inParts {
		parts[0].amount = bought.Total / 2
		parts = append(parts, staffRefund{number: "rest" + name, amount: bought.Total - bought.Total/2})
	}
	for _, part := range parts {
		body := fmt.Sprintf(`{"amount":%d,"return_units":%t,"note":"It was sent back."}`, part.amount, part.units)
		repeat(ctx, func() (int, []byte, error) {
			return p.send(ctx, http.MethodPut, p.front+"/api/orders/"+b.order+"/refunds/"+part.number, merchant,
				"merchant", body)
		}, func(status int, _ []byte) bool {
			part.status = status
			return final(status)
		})
		b.mu.Lock()
		b.refunds = append(b.refunds, part)
		b.mu.Unlock()
	}
}
