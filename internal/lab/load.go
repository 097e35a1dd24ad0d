package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/order"
	"stampede/internal/token"
)

const (
	// maxBuyersAtOnce bounds the requests under way. Buyers who find no room come late, and the delay
	// counts as their latency.
	maxBuyersAtOnce = 2_000
	// maxLoadConns bounds the connections to one edge.
	maxLoadConns = 512
	// buyerPatience is how long a buyer waits for an answer.
	buyerPatience = 30 * time.Second
	// Of the accepted buyers, each retryEvery-th repeats the request as a client does whose answer got
	// lost, and each greedyEvery-th tries to buy a second time.
	retryEvery  = 10
	greedyEvery = 25
)

// load is a crowd of buyers in an open model: each comes at an appointed time, whether or not the ones
// before were served.
type load struct {
	urls     []string
	tokens   *token.Keeper
	stockID  order.StockID
	quantity int64
	buyers   int
	rate     float64 // buyers per second

	sent, accepted, soldOut, failed atomic.Int64
	visits                          []visit // by buyer; each is written by the one whose it is

	mu        sync.Mutex
	orders    []order.OrderID // that were promised by a 202
	errors    map[string]int
	retries   int // repeated requests
	sameOrder int // repeated requests that were answered with the same order
	greedy    int // second orders of buyers who have all that they may
	refused   int // of those, refused for the limit
	duration  time.Duration
}

// run sends all buyers and returns when each has an answer.
func (l *load) run(ctx context.Context) {
	l.errors, l.visits = map[string]int{}, make([]visit, l.buyers)
	client := &fasthttp.Client{
		MaxConnsPerHost: maxLoadConns, MaxConnWaitTimeout: buyerPatience,
		ReadTimeout: buyerPatience, WriteTimeout: buyerPatience,
		// A request is sent once: it is the edge that is on trial, not the client.
		MaxIdemponentCallAttempts: 1,
	}
	defer client.CloseIdleConnections()

	room := make(chan struct{}, maxBuyersAtOnce)
	var buyers sync.WaitGroup
	start := time.Now()
	for i := range l.buyers {
		due := start.Add(l.due(i))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}

		if ctx.Err() != nil {
			break
		}
		room <- struct{}{}
		l.sent.Add(1)
		buyers.Go(func() {
			defer func() { <-room }()
			l.buy(client, i, due)
		})
	}

	buyers.Wait()
	l.duration = time.Since(start)
}

// due is when a buyer comes, from the begin of the sale on.
func (l *load) due(i int) time.Duration {
	return time.Duration(float64(i) / l.rate * float64(time.Second))
}

// buy is one buyer's visit.
func (l *load) buy(client *fasthttp.Client, i int, due time.Time) {
	userID := order.UserID(i) + 1
	access, err := l.tokens.Sign(token.Claims{UserID: userID}, time.Hour)
	if err != nil {
		l.fail(err.Error())
		return
	}

	url := l.urls[i%len(l.urls)] + "/api/orders"
	visit := &l.visits[i]
	visit.sent = time.Since(due)
	status, a, err := l.order(client, url, access, fmt.Sprintf("buyer-%d", userID))
	visit.latency = time.Since(due)

	switch {
	case err != nil:
		l.fail(err.Error())
		return
	case status == fasthttp.StatusAccepted && a.OrderID != (order.OrderID{}):
		l.accepted.Add(1)
		visit.outcome = accepted
	case a.Code == "sold_out":
		l.soldOut.Add(1)
		visit.outcome = refused
		return
	default:
		l.fail(fmt.Sprintf("%d %s", status, a.Code))
		return
	}

	l.mu.Lock()
	l.orders = append(l.orders, a.OrderID)
	l.mu.Unlock()

	if i%retryEvery == 0 {
		again, b, err := l.order(client, url, access, fmt.Sprintf("buyer-%d", userID))
		l.mu.Lock()
		l.retries++
		if err == nil && again == status && b == a {
			l.sameOrder++
		}
		l.mu.Unlock()
	}

	if i%greedyEvery == 0 {
		_, b, err := l.order(client, url, access, fmt.Sprintf("buyer-%d-again", userID))
		l.mu.Lock()
		l.greedy++
		if err == nil && b.Code == "limit_exceeded" {
			l.refused++
		}
		l.mu.Unlock()
	}
}

// reply is what a buyer reads of an answer.
type reply struct {
	OrderID    order.OrderID `json:"order_id"`
	Quantity   int64         `json:"quantity"`
	TotalPrice int64         `json:"total_price"`
	Code       string        `json:"code"`
}

func (l *load) order(client *fasthttp.Client, url, access, key string) (status int, r reply, err error) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(url)
	req.Header.SetMethod(fasthttp.MethodPost)
	req.Header.SetContentType("application/json")
	req.Header.Set(fasthttp.HeaderAuthorization, "Bearer "+access)
	req.Header.Set("Idempotency-Key", key)
	req.SetBodyString(fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, l.stockID, l.quantity))
	if err := client.Do(req, resp); err != nil {
		return 0, r, err
	}
	if err := json.Unmarshal(resp.Body(), &r); err != nil {
		return resp.StatusCode(), r, fmt.Errorf("%d with a body that is no JSON: %w", resp.StatusCode(), err)
	}
	return resp.StatusCode(), r, nil
}

func (l *load) fail(what string) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[what]++
}

// percentile is the latency in milliseconds below which a share of the answers came, by the nearest rank.
func percentile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(share*float64(len(sorted))), len(sorted)-1)
	return milliseconds(sorted[i])
}
