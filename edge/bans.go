package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/store"
)

const (
	// bansInterval is how often the bans are read, so that a new one holds on every edge within a second.
	bansInterval = 500 * time.Millisecond
	// bansTimeout bounds one reading.
	bansTimeout = 3 * time.Second
	// maxForwarded bounds the addresses of X-Forwarded-For that are looked at, from the right.
	maxForwarded = 32
)

// bans knows who is kept out, so that nobody has to be asked for a request.
type bans struct {
	store   *store.Store
	current atomic.Pointer[banList]
}

// banList is what one reading found; it is not changed afterwards. Its size is bounded by the store.
type banList struct {
	users    map[int64]time.Time // end of the ban, zero if it has none
	prefixes map[netip.Prefix]time.Time
	lengths  map[int][]int // of the prefixes, by the bits of an address: 32 or 128
}

func newBans(db *store.Store) *bans {
	b := &bans{store: db}
	b.current.Store(&banList{})
	return b
}

// poll reads the bans. If that fails, those that are known still hold.
func (b *bans) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bansTimeout)
	defer cancel()
	all, err := b.store.Bans(ctx, time.Now())
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

// proxies are the ranges of addresses whose word on who the client is can be trusted.
type proxies []netip.Prefix

// noProxies is the value of TRUSTED_PROXIES that trusts nobody.
const noProxies = "none"

// parseProxies reads ranges such as 10.0.0.0/8, comma-separated, or "none".
func parseProxies(text string) (proxies, error) {
	if text == noProxies {
		return nil, nil
	}
	var p proxies
	for part := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is not a range of addresses such as 10.0.0.0/8", part)
		}
		p = append(p, prefix.Masked())
	}
	return p, nil
}

func (p proxies) trust(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// client is the address of the client: the nearest one that is no trusted proxy. X-Forwarded-For is read
// from the right, where each proxy adds whom it heard the request from, and no further than proxies are
// trusted; what stands before may be made up.
func (p proxies) client(ctx *fasthttp.RequestCtx) netip.Addr {
	addr := unmapped(ctx.RemoteAddr())
	if !p.trust(addr) {
		return addr
	}
	fields := ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor)
	for i, seen := len(fields)-1, 0; i >= 0; i-- {
		hops := strings.Split(string(fields[i]), ",")
		for j := len(hops) - 1; j >= 0; j-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[j]))
			if seen++; err != nil || seen > maxForwarded {
				return addr
			}
			if addr = hop.Unmap().WithZone(""); !p.trust(addr) {
				return addr
			}
		}
	}
	return addr
}

func unmapped(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(tcp.IP)
	return a.Unmap()
}

// checkProxies is parseProxies as a check of the configuration.
func checkProxies(text string) error {
	_, err := parseProxies(text)
	return err
}

// admit lets requests through whose client is not banned and does not ask too often.
func (e *Edge) admit(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		client := e.proxies.client(ctx)
		if e.bans.address(client) {
			sendProblem(ctx, banned, "")
			return
		}
		if client, ok := counted(client); ok && !e.addresses.allow(ctx, client) {
			return
		}
		next(ctx)
	}
}
