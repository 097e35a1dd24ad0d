package main

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/account"
)

const (
	// bansInterval is how often the bans are read, so that a new one holds on every edge within a second.
	bansInterval = 500 * time.Millisecond
	// bansTimeout bounds one reading.
	bansTimeout = 3 * time.Second
)

// bans knows who is kept out, so that nobody has to be asked for a request.
type bans struct {
	accounts *account.Accounts
	current  atomic.Pointer[banList]
}

// banList is what one reading found; it is not changed afterwards. Its size is bounded by account.MaxBans.
type banList struct {
	users    map[int64]time.Time // end of the ban, zero if it has none
	prefixes map[netip.Prefix]time.Time
	lengths  map[int][]int // of the prefixes, by the bits of an address: 32 or 128
}

func newBans(accounts *account.Accounts) *bans {
	b := &bans{accounts: accounts}
	b.current.Store(&banList{})
	return b
}

// poll reads the bans. If that fails, those that are known still hold.
func (b *bans) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bansTimeout)
	defer cancel()
	all, err := b.accounts.Bans(ctx, time.Now())
	if err != nil {
		return err
	}
	list := &banList{users: map[int64]time.Time{}, prefixes: map[netip.Prefix]time.Time{}, lengths: map[int][]int{}}
	for _, ban := range all {
		if ban.UserID != 0 {
			list.users[ban.UserID] = ban.ExpiresAt
			continue
		}
		list.prefixes[ban.Prefix] = ban.ExpiresAt
		bits := ban.Prefix.Addr().BitLen()
		if !slices.Contains(list.lengths[bits], ban.Prefix.Bits()) {
			list.lengths[bits] = append(list.lengths[bits], ban.Prefix.Bits())
		}
	}
	b.current.Store(list)
	return nil
}

// user tells whether a user is kept out.
func (b *bans) user(id int64) bool {
	until, banned := b.current.Load().users[id]
	return banned && holds(until)
}

// address tells whether an address, unmapped, is kept out.
func (b *bans) address(addr netip.Addr) bool {
	list := b.current.Load()
	for _, bits := range list.lengths[addr.BitLen()] {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if until, banned := list.prefixes[prefix]; banned && holds(until) {
			return true
		}
	}
	return false
}

func holds(until time.Time) bool { return until.IsZero() || time.Now().Before(until) }

// admit lets requests through whose client is not banned and does not ask too often, and tells how often it may ask.
// What is refused for its address is not counted for its network, or one client could shut out its neighbours.
func (e *Edge) admit(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return e.screened(next, func(ctx *fasthttp.RequestCtx, client netip.Prefix) bool {
		return e.addresses.allow(ctx, client) && e.mayFromNetwork(ctx, client)
	})
}

// admitAside is admit for what is no part of the API: it counts there, and tells nothing.
func (e *Edge) admitAside(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return e.screened(next, func(ctx *fasthttp.RequestCtx, client netip.Prefix) bool {
		return e.addresses.allowSilently(ctx, client) && e.mayFromNetwork(ctx, client)
	})
}

// admitProbe is admit for the probes of load balancers, which have a share of their own: a crowd behind the same
// address must not make an edge look dead.
func (e *Edge) admitProbe(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return e.screened(next, e.probes.allowSilently)
}

// screened lets requests through that screen lets through.
func (e *Edge) screened(next fasthttp.RequestHandler, may func(*fasthttp.RequestCtx,
	netip.Prefix) bool) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if e.screen(ctx, may) {
			next(ctx)
		}
	}
}

// screen reports whether the client is known and not banned, and may ask now. If not, it answers the request.
func (e *Edge) screen(ctx *fasthttp.RequestCtx, may func(*fasthttp.RequestCtx, netip.Prefix) bool) bool {
	client, ok := e.proxies.client(ctx)
	if !ok {
		sendProblem(ctx, malformedRequest, e.proxies.field+
			" names no client: each proxy must add an address, with or without a port.")
		return false
	}
	if e.bans.address(client) {
		sendProblem(ctx, banned, "")
		return false
	}
	address, ok := counted(client)
	return !ok || may(ctx, address)
}

// mayFromNetwork counts a request for the network of an IPv6 client's address. If there were too many it answers the
// request and returns false.
func (e *Edge) mayFromNetwork(ctx *fasthttp.RequestCtx, client netip.Prefix) bool {
	if !client.Addr().Is6() {
		return true
	}
	network, err := client.Addr().Prefix(networkBits6)
	return err != nil || e.networks.allowSilently(ctx, network)
}
