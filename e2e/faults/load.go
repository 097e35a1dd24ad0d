package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// This file and check.go judge Stampede from outside: they import nothing of it.

const (
	// patience is how long a client waits for an answer: longer than the edge tries to reach the queue.
	patience = 20 * time.Second
	// maxAttempts and maxPause bound how often, and how far apart, a client repeats a request that got no
	// answer, or one that says to come back: for some 25 s in all.
	maxAttempts = 12
	minPause    = 200 * time.Millisecond
	maxPause    = 3 * time.Second
	// maxUnderWay bounds the buyers who are at it at the same time.
	maxUnderWay = 4_000
	// users is how many buyers there are; each comes several times, so that limits bite.
	users = 300
)

// product is what a run has on sale, and what has been done to it by hand.
type product struct {
	id, stock, limit, price int64
	restocked               int64
	weight                  int // share of the orders, in percent
	buckets                 int // over which the units are spread, or 0

	currency  string   // of the price; empty is euros
	providers []string // at which an order of it must be paid, and can be; empty if it need not
}

// rows are the ids under which MySQL and Redis keep the product: its own, and those of its buckets, which
// docs/design.md says.
func (p product) rows() []int64 {
	ids := []int64{p.id}
	for bucket := range p.buckets {
		ids = append(ids, p.id+int64(bucket+1)<<40)
	}
	return ids
}

// products are sold in every run: one that lasts, one that sells out, one with a limit, one that is restocked.
func products(orders int) []product {
	n := int64(orders)
	return []product{
		{id: 1, stock: 2 * n, price: 100, weight: 30},
		{id: 2, stock: n / 10, price: 200, weight: 25},
		{id: 3, stock: n, limit: 3, price: 300, weight: 25},
		{id: 4, stock: n / 20, price: 400, weight: 20},
	}
}

// paidProducts are sold in the runs with payments: one for each currency that the providers take, of which one lasts,
// one has a limit, and one sells out, so that what comes back is bought again.
//
// While ECPay settles it gives nothing back, for longer than a run lasts: it is not among them then.
func paidProducts(orders int, now time.Time) []product {
	n := int64(orders)
	byCard := []string{"ecpay", "paypal", "stripe"}
	if ecpaySettles(now) {
		byCard = byCard[1:]
	}
	return []product{
		{id: 1, stock: 2 * n, price: 10_000, weight: 45, currency: "TWD",
			providers: byCard},
		{id: 2, stock: n, limit: 3, price: 990, weight: 30, currency: "CNY", providers: []string{"alipay", "stripe"}},
		{id: 3, stock: n / 5, price: 250, weight: 25, currency: "USD", providers: []string{"paypal", "stripe"}},
	}
}

// ecpaySettles reports whether ECPay settles, from 20:15 to 20:30 in Taipei, or will within a run.
func ecpaySettles(now time.Time) bool {
	minute := now.UTC().Hour()*60 + now.UTC().Minute()
	const from, to = 12*60 + 15, 12*60 + 30 // eight hours before Taipei's
	return minute >= from-int(runLimit.Minutes()) && minute < to
}

// intent is an order that a buyer wants to place once, with all answers that the buyer got.
type intent struct {
	user, product, quantity int64
	key                     string    // Idempotency-Key, or empty
	then                    *purchase // what its buyer does when it is accepted; nil if it need not be paid

	mu      sync.Mutex
	answers []answer
}

// answer is what came back from one request.
type answer struct {
	edge      int
	sent, got time.Duration // since the start of the load
	status    int           // 0 if there was no answer
	body      string
	orderID   string // of an accepted order, or of one whose outcome is unknown
	code      string // of a problem
	err       string
}

// load is a crowd in an open model: each buyer comes at an appointed time, whether or not the others were served.
type load struct {
	urls     []string
	secret   string
	orders   int
	duration time.Duration
	products []product
	keyless  bool    // nobody sends an idempotency key
	payers   *payers // serve the buyers whose orders are accepted; nil if nothing must be paid

	rng *rand.Rand

	intents            []*intent
	accepted, requests atomic.Int64
	start              time.Time // of the appointments
}

// plan decides what each buyer wants.
func (l *load) plan(seed uint64) {
	l.rng = rand.New(rand.NewPCG(seed, 1))
	for i := range l.orders {
		in := &intent{user: 1 + l.rng.Int64N(users), quantity: 1 + l.rng.Int64N(2)}
		pick := l.rng.IntN(100)
		for _, p := range l.products {
			if pick -= p.weight; pick < 0 {
				in.product = p.id
				break
			}
		}
		if l.rng.IntN(100) < 85 && !l.keyless {
			in.key = fmt.Sprintf("key-%d", i)
		}
		l.intents = append(l.intents, in)
	}
}

// run sends all buyers, and returns when each has a final answer or has given up.
func (l *load) run(ctx context.Context) {
	client := &http.Client{Timeout: patience,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	defer client.CloseIdleConnections()
	room := make(chan struct{}, maxUnderWay)
	var buyers sync.WaitGroup
	for i, in := range l.intents {
		due := l.start.Add(time.Duration(int64(l.duration) * int64(i) / int64(l.orders)))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		if ctx.Err() != nil {
			break
		}
		edge := l.rng.IntN(len(l.urls))
		careful, hasty := l.rng.IntN(100) < 5, l.rng.IntN(100) < 3
		room <- struct{}{}
		buyers.Go(func() {
			defer func() { <-room }()
			var twice sync.WaitGroup
			if hasty && in.key != "" { // a double click
				twice.Go(func() { l.buy(ctx, client, in, edge+1) })
			}
			if l.buy(ctx, client, in, edge) && careful && in.key != "" {
				l.buy(ctx, client, in, edge+1) // a client that did not get to see the answer
			}
			twice.Wait()
			if id := in.accepted(); l.payers != nil && id != "" {
				l.payers.serve(ctx, in, id)
			}
		})
	}
	buyers.Wait()
}

// accepted is the order that the buyer was told of, or empty.
func (in *intent) accepted() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, a := range in.answers {
		if a.status == http.StatusAccepted {
			return a.orderID
		}
	}
	return ""
}

// buy asks until there is a final answer, and reports whether that is an accepted order. Without a key a
// request is sent once, since its repetition would be another order.
func (l *load) buy(ctx context.Context, client *http.Client, in *intent, edge int) bool {
	pause := minPause
	for attempt := 1; ; attempt++ {
		a := l.order(ctx, client, in, (edge+attempt)%len(l.urls))
		in.mu.Lock()
		in.answers = append(in.answers, a)
		in.mu.Unlock()
		if a.status == http.StatusAccepted {
			l.accepted.Add(1)
			return true
		}
		if !open(a) || in.key == "" || attempt == maxAttempts {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// open tells that an answer does not say what became of the order for good.
func open(a answer) bool {
	return a.status == 0 || a.status >= 500 || a.status == http.StatusTooManyRequests
}

func (l *load) order(ctx context.Context, client *http.Client, in *intent, edge int) (a answer) {
	l.requests.Add(1)
	a.edge, a.sent = edge, time.Since(l.start)
	defer func() { a.got = time.Since(l.start) }()
	body := fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, in.product, in.quantity)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.urls[edge]+"/api/orders",
		bytes.NewReader([]byte(body)))
	if err != nil {
		a.err = err.Error()
		return a
	}
	// Go's client repeats a request with this header by itself if a kept connection fails. It is the edge that
	// is on trial, and every request is to be in the record; without GetBody it cannot.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+accessToken(l.secret, in.user, ""))
	if in.key != "" {
		req.Header.Set("Idempotency-Key", in.key)
	}
	resp, err := client.Do(req)
	if err != nil {
		a.err = err.Error()
		return a
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		a.err = err.Error() // an answer in part is none
		return a
	}
	a.status, a.body = resp.StatusCode, string(raw)
	var fields struct {
		OrderID string `json:"order_id"`
		Code    string `json:"code"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		a.err = "not JSON: " + err.Error()
	}
	a.orderID, a.code = fields.OrderID, fields.Code
	return a
}

// accessToken makes an access token as anybody could who has the secret (RFC 7515, RFC 7519). The role may be empty.
func accessToken(secret string, user int64, role string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":"%d","role":%q,"exp":%d}`, user, role, time.Now().Add(time.Hour).Unix()))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
