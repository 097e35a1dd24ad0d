// Package access decides who is let in, for every server that faces the public: tokens and the sessions they belong to,
// bans, limits, who the client behind proxies is, and which other sites' pages may use the API. It answers from memory,
// and keeps up with MySQL and with notices by itself.
package access

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"stampede/internal/config"
	"stampede/internal/loop"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/redis"
	"stampede/internal/token"
)

// Guard decides who is let in. Its fields are set before it is used.
type Guard struct {
	Tokens   *token.Keeper
	Sessions *Sessions
	Bans     *Bans
	Proxies  Proxies
	Origins  Origins

	users     *Limiter[order.UserID]
	addresses *Limiter[netip.Prefix]
	networks  *Limiter[netip.Prefix]
	probes    *Limiter[netip.Prefix]
}

// New makes a guard with the default limits, who trusts no proxy.
func New(db *mysql.DB, rdb *redis.Client, tokens *token.Keeper) *Guard {
	g := &Guard{
		Tokens: tokens, Sessions: newSessions(rdb, db), Bans: newBans(db), Proxies: Proxies{Field: xForwardedFor},
	}
	if err := g.Limit(defaultUserLimit, defaultAddressLimit); err != nil {
		panic(err) // the defaults are valid
	}
	return g
}

// Limit sets how often a user and an address may ask: requests per second and burst, such as "50/500", or "off".
func (g *Guard) Limit(user, address string) (err error) {
	tooMany := func(from string) string { return "There are too many requests from this " + from + "." }
	if g.users, err = NewLimiter[order.UserID]("user", user, tooMany("user")); err != nil {
		return err
	}
	if g.addresses, err = NewLimiter[netip.Prefix]("address", address, tooMany("address")); err != nil {
		return err
	}
	if g.networks, err = NewLimiter[netip.Prefix]("network", address, tooMany("network")); err != nil {
		return err
	}
	g.networks.scale(networkShare)
	g.probes, err = NewLimiter[netip.Prefix]("address", probeLimit, tooMany("address"))
	return err
}

// Settings are the variables of the environment that say who is let in.
type Settings struct{ secret, trusted, field, origins, user, address *string }

// Declare declares them.
func Declare(vars *config.Set) *Settings {
	return &Settings{
		secret: vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes; to rotate: new,old",
			token.CheckSecret),
		trusted: vars.String("TRUSTED_PROXIES", noProxies,
			"ranges of addresses, comma-separated, whose word on who the client is is believed", checkProxies),
		field: vars.String("FORWARDED_FIELD", xForwardedFor,
			"the header field in which they say so: X-Forwarded-For, or Forwarded (RFC 7239)", checkForwardedField),
		origins: vars.String("CORS_ORIGINS", noOrigins,
			"origins of other sites, comma-separated, whose pages may use the API", checkOrigins),
		user: vars.String("RATE_LIMIT_USER", defaultUserLimit,
			"requests per second and burst of one user; off for no limit", CheckLimit),
		address: vars.String("RATE_LIMIT_ADDRESS", defaultAddressLimit,
			"the same of one client address (IPv6: its /64)", CheckLimit),
	}
}

// Guard makes a guard by the settings.
func (s *Settings) Guard(db *mysql.DB, rdb *redis.Client) (g *Guard, err error) {
	g = New(db, rdb, token.NewKeeper(*s.secret))
	g.Proxies.Field = *s.field
	if g.Proxies.Trusted, err = parseProxies(*s.trusted); err != nil {
		return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	if g.Origins, err = parseOrigins(*s.origins); err != nil {
		return nil, fmt.Errorf("CORS_ORIGINS: %w", err)
	}
	if err = g.Limit(*s.user, *s.address); err != nil {
		return nil, fmt.Errorf("RATE_LIMIT_USER, RATE_LIMIT_ADDRESS: %w", err)
	}
	return g, nil
}

// Load learns from MySQL who is out. It comes before the first request, so that no token is taken whose session ended
// before this process started.
func (g *Guard) Load(ctx context.Context) {
	if err := g.Sessions.poll(ctx); err != nil {
		slog.Warn("load ended sessions: it is not known which have ended before", "error", err)
	}
	if err := g.Bans.poll(ctx); err != nil {
		slog.Warn("load bans: it is not known who is banned", "error", err)
	}
}

// Keep learns from MySQL which sessions end and who is banned, until ctx ends.
func (g *Guard) Keep(ctx context.Context) {
	var polls sync.WaitGroup
	polls.Go(func() {
		keepUp(ctx, endedInterval, g.Sessions.poll, "load ended sessions: they are known from notices only")
	})
	polls.Go(func() { keepUp(ctx, bansInterval, g.Bans.poll, "load bans: new ones are not known") })
	polls.Wait()
}

// keepUp calls poll again and again until ctx ends. Of several failures in a row it logs the first.
func keepUp(ctx context.Context, interval time.Duration, poll func(context.Context) error, complaint string) {
	failing := false
	loop.Every(ctx, interval, func(ctx context.Context) {
		err := poll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			slog.Warn(complaint, "error", err)
		}
		failing = err != nil
	})
}

// User returns whose valid token a request bears, by its Authorization, and counts the request as the user's. Otherwise
// it returns why the request is refused.
func (g *Guard) User(answer Header, authorization []byte) (*token.Claims, *problem.Error) {
	who, ok := g.Identify(authorization)
	if !ok {
		return nil, problem.New(problem.Unauthenticated,
			"Send Authorization: Bearer with a token that has not expired.")
	}
	if g.Bans.User(who.UserID) {
		return nil, problem.New(problem.Banned, "")
	}
	if err := g.users.Allow(answer, who.UserID); err != nil {
		return nil, err
	}
	return who, nil
}

// Identify returns whose valid token a request bears, by its Authorization (RFC 6750, section 2.1), if it bears one.
func (g *Guard) Identify(authorization []byte) (who *token.Claims, ok bool) {
	scheme, raw, _ := bytes.Cut(authorization, []byte(" "))
	if !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil, false
	}
	who, err := g.Tokens.Verify(bytes.TrimSpace(raw), time.Now())
	return who, err == nil && !g.Sessions.HaveEnded(who.SessionID)
}

// MayManage reports whether a user may see and change what is not public of products.
func MayManage(who *token.Claims) bool { return who.Role == token.Merchant || who.Role == token.Admin }

// Purpose is what a request is for, as far as its counting depends on that.
type Purpose int

const (
	// API is a request whose client is told how many more it may make.
	API Purpose = iota
	// Aside is any other that counts with those.
	Aside
	// Webhook is a notice of a server that signs it. It does not count: many come from few addresses.
	Webhook
	// Probe is of a load balancer, which has a share of its own: a crowd behind the same address must not make a
	// server look dead.
	Probe
)

// Screen lets a request through, unless its client is not known, is banned, or asks too often: then it returns why it
// is refused. Remote is where it came from, and lines are those of a header field, in order.
//
// What is refused for its address is not counted for its network, or one client could shut out its neighbours.
func (g *Guard) Screen(answer Header, remote netip.Addr, lines func(field string) []string,
	purpose Purpose) *problem.Error {
	client, ok := g.Proxies.Client(remote, lines)
	if !ok {
		return problem.New(problem.MalformedRequest,
			g.Proxies.Field+" names no client: each proxy must add an address, with or without a port.")
	}
	if g.Bans.Address(client) {
		return problem.New(problem.Banned, "")
	}
	address, ok := Counted(client)
	if !ok {
		return nil
	}

	var err *problem.Error
	switch purpose {
	case Webhook:
		return nil
	case Probe:
		return g.probes.AllowSilently(address)
	case Aside:
		err = g.addresses.AllowSilently(address)
	default:
		err = g.addresses.Allow(answer, address)
	}
	if err != nil || !client.Is6() {
		return err
	}
	network, _ := client.Prefix(networkBits6)
	return g.networks.AllowSilently(network)
}
