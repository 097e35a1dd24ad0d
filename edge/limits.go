package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

	"stampede/internal/account"
	"stampede/internal/password"
)

const (
	// defaultUserLimit lets a hasty buyer retry, and stops a script that does nothing else.
	defaultUserLimit = "50/500"
	// defaultAddressLimit is for an office or a mobile network behind one address.
	defaultAddressLimit = "1000/5000"
	// defaultPasswordLimit is for the same office or network: each request that it lets through costs a hash, of which
	// one processor makes some thirty in a second.
	defaultPasswordLimit = "5/50"
	// guessLimit is how often a password may be tried at one account from one address: a person who tries all that they
	// ever had is done after ten, and a machine gets 360 an hour.
	guessLimit = "0.1/10"
	// maxHashesPerAddress is how many of the places for hashes the clients of one address hold at a time, running or
	// waiting: an eighth of the queue, so that everybody else waits for a few of theirs at most.
	maxHashesPerAddress = password.MaxWaiting / 8
	// noLimit is the value that switches a limit off.
	noLimit = "off"
	// maxBuckets bounds the users or addresses that are counted at a time. Beyond it those that asked least
	// recently are forgotten, whose buckets are the fullest.
	maxBuckets = 65_536
	// addressBits6 is how much of an IPv6 address counts as one client, who commonly has that many to choose from.
	addressBits6 = 64
	// networkBits6 is how much of one counts as a network, and networkShare how many clients' worth a network may ask:
	// who rents a /48 has 65,536 clients' addresses.
	networkBits6 = 48
	networkShare = 8
	// probeLimit is how often one address may ask whether the edge is healthy: a dozen load balancers each second.
	probeLimit = "20/200"
)

// limit is a rate that may be exceeded for a while.
type limit struct {
	perSecond rate.Limit // 0 is no limit
	burst     int
}

// parseLimit reads requests per second and burst, such as 50/500, or "off".
func parseLimit(text string) (limit, error) {
	if text == noLimit {
		return limit{}, nil
	}
	const most = 1_000_000
	first, second, _ := strings.Cut(text, "/")
	perSecond, err := strconv.ParseFloat(first, 64)
	burst, err2 := strconv.Atoi(second)
	if errors.Join(err, err2) != nil || !(perSecond >= 0.01 && perSecond <= most) || burst < 1 || burst > most {
		return limit{}, fmt.Errorf("%q is neither requests per second and burst, such as 50/500, nor %s", text, noLimit)
	}
	return limit{rate.Limit(perSecond), burst}, nil
}

// checkLimit is parseLimit as a check of the configuration.
func checkLimit(text string) error {
	_, err := parseLimit(text)
	return err
}

// limiter keeps a token bucket for each client of a kind, as far as this edge has seen them lately.
type limiter[K comparable] struct {
	limit
	name    string
	detail  string
	policy  string
	buckets *lru.Cache[K, *rate.Limiter]
}

// newLimiter makes a limiter that clients are told of by a name.
func newLimiter[K comparable](name, text string) (*limiter[K], error) {
	l, err := parseLimit(text)
	if err != nil {
		return nil, err
	}
	buckets, err := lru.New[K, *rate.Limiter](maxBuckets)
	if err != nil {
		return nil, err
	}
	policy := fmt.Sprintf("%q;q=%d;w=%d", name, l.burst, seconds(float64(l.burst), l.perSecond))
	detail := "There are too many requests from this " + name + "."
	return &limiter[K]{limit: l, name: name, detail: detail, policy: policy, buckets: buckets}, nil
}

// forget fills a client's bucket.
func (l *limiter[K]) forget(client K) {
	l.buckets.Remove(client)
}

// allow takes a token from a client's bucket and tells the client how many are left, in the fields of
// draft-ietf-httpapi-ratelimit-headers-10. If there is none it answers the request and returns false.
func (l *limiter[K]) allow(ctx *fasthttp.RequestCtx, client K) bool {
	if l.perSecond == 0 {
		return true
	}
	allowed, left := l.take(client)
	state := make([]byte, 0, 64)
	state = append(state, '"')
	state = append(state, l.name...)
	state = append(state, `";r=`...)
	state = strconv.AppendInt(state, int64(left), 10)
	state = append(state, ";t="...)
	state = strconv.AppendInt(state, seconds(float64(l.burst)-left, l.perSecond), 10)
	addToList(ctx, "RateLimit-Policy", l.policy)
	addToList(ctx, "RateLimit", string(state))
	if !allowed {
		l.refuse(ctx, left)
	}
	return allowed
}

// allowSilently is allow without telling what is left.
func (l *limiter[K]) allowSilently(ctx *fasthttp.RequestCtx, client K) bool {
	if l.perSecond == 0 {
		return true
	}
	allowed, left := l.take(client)
	if !allowed {
		l.refuse(ctx, left)
	}
	return allowed
}

// take takes a token from a client's bucket, if there is one, and returns how many are left.
func (l *limiter[K]) take(client K) (allowed bool, left float64) {
	bucket, ok := l.buckets.Get(client)
	if !ok {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
		if first, ok, _ := l.buckets.PeekOrAdd(client, bucket); ok {
			bucket = first
		}
	}
	now := time.Now()
	allowed = bucket.AllowN(now, 1)
	return allowed, max(bucket.TokensAt(now), 0)
}

// refuse answers a request that is one too many.
func (l *limiter[K]) refuse(ctx *fasthttp.RequestCtx, left float64) {
	sendProblem(ctx, rateLimited, l.detail)
	after := max(seconds(1-left, l.perSecond), 1)
	after += rand.Int64N(after/2 + 2) // or all that were refused together would be back together
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.FormatInt(after, 10))
}

// seconds is how long a bucket takes to get so many tokens, rounded up.
func seconds(tokens float64, perSecond rate.Limit) int64 {
	return int64(math.Ceil(tokens / float64(perSecond)))
}

// addToList appends a member to a header field that is a list (RFC 9651).
func addToList(ctx *fasthttp.RequestCtx, field, member string) {
	if before := ctx.Response.Header.Peek(field); len(before) > 0 {
		member = string(before) + ", " + member
	}
	ctx.Response.Header.Set(field, member)
}

// counted is what of an address is counted as one client. There is none for loopback: behind it is a proxy on this
// machine that TRUSTED_PROXIES does not name, so that all clients look alike, or somebody who works on this machine.
func counted(addr netip.Addr) (netip.Prefix, bool) {
	if !addr.IsValid() || addr.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = addressBits6
	}
	prefix, err := addr.Prefix(bits)
	return prefix, err == nil
}

// guess is a try to log in, as far as tries are counted together: by the account's address, of which a hash keeps the
// key short whatever a client sends, and by where the client is. Tries from elsewhere are counted apart, so that who
// guesses does not lock the owner out.
type guess struct {
	email [sha256.Size]byte
	from  netip.Prefix
}

func newGuess(email string, from netip.Prefix) guess {
	key, err := account.NormalizeEmail(email)
	if err != nil {
		key = email
	}
	return guess{sha256.Sum256([]byte(key)), from}
}

// shares count the places for hashes that the clients of each address hold.
type shares struct {
	mu   sync.Mutex
	held map[netip.Prefix]int
}

// take takes a place of an address's share and reports whether there was one.
func (s *shares) take(from netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[from] >= maxHashesPerAddress {
		return false
	}
	s.held[from]++
	return true
}

func (s *shares) giveBack(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[from]--; s.held[from] == 0 {
		delete(s.held, from)
	}
}

// forPassword lets requests through that cost a hash, as far as the client's address has not had its share of them: by
// the second, and of the places at a time.
func (e *Edge) forPassword(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		client, _ := e.proxies.client(ctx)
		from, ok := counted(client)
		if !ok {
			next(ctx)
			return
		}
		if !e.passwordLimit.allow(ctx, from) {
			return
		}
		if !e.hashShares.take(from) {
			sendBusy(ctx)
			return
		}
		defer e.hashShares.giveBack(from)
		next(ctx)
	}
}

// sendBusy answers a request for which there is no place to hash a password. That is the doing of those who ask, and no
// error of the edge.
func sendBusy(ctx *fasthttp.RequestCtx) {
	sendProblem(ctx, rateLimited, "Too many passwords are being checked; nothing was done.")
	setRetryTime(ctx)
}

// mayGuess counts a try at an account's password. If there were too many it answers the request and returns false.
func (e *Edge) mayGuess(ctx *fasthttp.RequestCtx, email string) (try guess, ok bool) {
	client, _ := e.proxies.client(ctx)
	from, _ := counted(client)
	try = newGuess(email, from)
	return try, e.guesses.allow(ctx, try)
}
