package access

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"stampede/internal/problem"
)

const (
	// defaultUserLimit lets a hasty buyer retry, and stops a script that does nothing else.
	defaultUserLimit = "50/500"
	// defaultAddressLimit is for an office or a mobile network behind one address.
	defaultAddressLimit = "1000/5000"
	// NoLimit is the value that switches a limit off.
	NoLimit = "off"
	// maxClients bounds the users or addresses that are counted at a time. Beyond it those that asked least
	// recently are forgotten, of whom the most tokens are left.
	maxClients = 65_536
	// addressBits6 is how much of an IPv6 address counts as one client, who commonly has that many to choose from.
	addressBits6 = 64
	// networkBits6 is how much of one counts as a network, and networkShare how many clients' worth a network may ask:
	// who rents a /48 has 65,536 clients' addresses.
	networkBits6 = 48
	networkShare = 8
	// probeLimit is how often one address may ask whether a server is healthy: a dozen load balancers each second.
	probeLimit = "20/200"
)

// limit is a rate that may be exceeded for a while.
type limit struct {
	perSecond rate.Limit // 0 is no limit
	burst     int
}

// parseLimit reads requests per second and burst, such as 50/500, or "off".
func parseLimit(text string) (limit, error) {
	if text == NoLimit {
		return limit{}, nil
	}
	const most = 1_000_000
	first, second, _ := strings.Cut(text, "/")
	perSecond, err := strconv.ParseFloat(first, 64)
	burst, err2 := strconv.Atoi(second)
	if errors.Join(err, err2) != nil || !(perSecond >= 0.01 && perSecond <= most) || burst < 1 || burst > most {
		return limit{}, fmt.Errorf("%q is neither requests per second and burst, such as 50/500, nor %s", text, NoLimit)
	}
	return limit{rate.Limit(perSecond), burst}, nil
}

// CheckLimit checks a limit in the configuration.
func CheckLimit(text string) error {
	_, err := parseLimit(text)
	return err
}

// Limiter keeps a token bucket for each client of a kind, as far as this process has seen them lately.
type Limiter[K comparable] struct {
	limit
	name    string
	detail  string
	policy  string
	clients *lru.Cache[K, *rate.Limiter]
}

// NewLimiter makes a limiter of requests per second and burst, such as "50/500", or "off". Clients are told of it by
// its name, and by the detail when they are refused.
func NewLimiter[K comparable](name, text, detail string) (*Limiter[K], error) {
	l, err := parseLimit(text)
	if err != nil {
		return nil, err
	}
	clients, err := lru.New[K, *rate.Limiter](maxClients)
	if err != nil {
		return nil, err
	}
	policy := fmt.Sprintf("%q;q=%d;w=%d", name, l.burst, seconds(float64(l.burst), l.perSecond))
	return &Limiter[K]{limit: l, name: name, detail: detail, policy: policy, clients: clients}, nil
}

// scale makes the limit so many times as large.
func (l *Limiter[K]) scale(times int) {
	l.perSecond, l.burst = l.perSecond*rate.Limit(times), l.burst*times
}

// Forget makes a client one that has not asked yet.
func (l *Limiter[K]) Forget(client K) {
	l.clients.Remove(client)
}

// Header is the header of an answer, of net/http or of fasthttp.
type Header interface {
	Get(name string) string
	Set(name, value string)
}

// Allow takes a token from a client's bucket and tells the client how many are left, in the fields of
// draft-ietf-httpapi-ratelimit-headers-10. If there is none it returns why the request is refused.
func (l *Limiter[K]) Allow(answer Header, client K) *problem.Error {
	if l.perSecond == 0 {
		return nil
	}
	allowed, left := l.take(client)
	state := make([]byte, 0, 64)
	state = append(state, '"')
	state = append(state, l.name...)
	state = append(state, `";r=`...)
	state = strconv.AppendInt(state, int64(left), 10)
	state = append(state, ";t="...)
	state = strconv.AppendInt(state, seconds(float64(l.burst)-left, l.perSecond), 10)
	addToList(answer, "RateLimit-Policy", l.policy)
	addToList(answer, "RateLimit", string(state))
	if !allowed {
		return l.refusal(left)
	}
	return nil
}

// AllowSilently is Allow without telling what is left.
func (l *Limiter[K]) AllowSilently(client K) *problem.Error {
	if l.perSecond == 0 {
		return nil
	}
	if allowed, left := l.take(client); !allowed {
		return l.refusal(left)
	}
	return nil
}

// take takes a token from a client's bucket, if there is one, and returns how many are left.
func (l *Limiter[K]) take(client K) (allowed bool, left float64) {
	bucket, ok := l.clients.Get(client)
	if !ok {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
		if first, ok, _ := l.clients.PeekOrAdd(client, bucket); ok {
			bucket = first
		}
	}
	now := time.Now()
	allowed = bucket.AllowN(now, 1)
	return allowed, max(bucket.TokensAt(now), 0)
}

// refusal is why a request that is one too many is refused.
func (l *Limiter[K]) refusal(left float64) *problem.Error {
	after := max(seconds(1-left, l.perSecond), 1)
	after += rand.Int64N(after/2 + 2) // or all that were refused together would be back together
	return &problem.Error{Code: problem.RateLimited, Detail: l.detail, RetryAfter: strconv.FormatInt(after, 10)}
}

// seconds is how long a bucket takes to get so many tokens, rounded up.
func seconds(tokens float64, perSecond rate.Limit) int64 {
	return int64(math.Ceil(tokens / float64(perSecond)))
}

// addToList appends a member to a header field that is a list (RFC 9651).
func addToList(answer Header, field, member string) {
	if before := answer.Get(field); before != "" {
		member = before + ", " + member
	}
	answer.Set(field, member)
}

// Counted is what of an address is counted as one client. There is none for loopback: behind it is a proxy on this
// machine that TRUSTED_PROXIES does not name, so that all clients look alike, or somebody who works on this machine.
func Counted(addr netip.Addr) (netip.Prefix, bool) {
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
