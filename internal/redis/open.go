// Package redis is the connection to Redis, one server or a Cluster, for all packages that keep something in it: a
// client that sends each call of a script once, the scripts by their names, locks, and what servers are asked.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	dialTimeout = 2 * time.Second
	// ioTimeout bounds one command. The longest script takes a few milliseconds.
	ioTimeout = 3 * time.Second
	// connLifetime bounds a connection, which after a fail-over may point at a replica.
	connLifetime = 5 * time.Minute
)

// Client is a connection to Redis that sends each script call once. It is safe for concurrent use.
type Client struct{ goredis.UniversalClient }

// Open makes a client for a URL such as redis://user:password@host:6379/0, or rediss:// for TLS.
// Several hosts, comma-separated, mean Redis Cluster. It does not connect. Errors hold no password.
//
// The client never repeats a script by itself: one whose answer was lost may have been carried out, and
// only the caller knows whether repeating it is safe.
func Open(rawURL string) (*Client, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	opts.MaxRetries = -1
	opts.ContextTimeoutEnabled = true
	opts.DialTimeout = dialTimeout
	opts.DialerRetries = 1 // the default of five makes every call to a server that is gone take ten seconds
	opts.ReadTimeout = ioTimeout
	opts.WriteTimeout = ioTimeout
	opts.ConnMaxLifetime = connLifetime
	return &Client{goredis.NewUniversalClient(opts)}, nil
}

func parseURL(rawURL string) (*goredis.UniversalOptions, error) {
	const want = "want redis://user:password@host:port/db or rediss://…, several hosts comma-separated, reserved " +
		"characters in the password percent-encoded"
	scheme, rest, _ := strings.Cut(rawURL, "://")
	if scheme != "redis" && scheme != "rediss" || strings.Contains(rest, "#") {
		return nil, errors.New(want)
	}

	hosts, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		hosts, path = rest[:i], rest[i:]
	}
	user, hosts := cutUser(hosts)
	hosts, more, cluster := strings.Cut(hosts, ",")

	// The first host, with all the rest of the URL, is a URL that the client itself can read.
	single, err := goredis.ParseURL(scheme + "://" + user + hosts + path)
	if err != nil {
		if strings.Contains(rawURL, "@") {
			// The error may quote any part of the URL, and where a part ends is what is wrong.
			return nil, errors.New(want)
		}
		return nil, fmt.Errorf("%s: %w", want, err)
	}

	opts := &goredis.UniversalOptions{
		Addrs: []string{single.Addr}, DB: single.DB,
		Username: single.Username, Password: single.Password,
		TLSConfig: single.TLSConfig, PoolSize: single.PoolSize,
	}
	if !cluster {
		return opts, nil
	}

	if single.DB != 0 {
		return nil, errors.New("a cluster has no databases but 0")
	}
	opts.IsClusterMode = true
	for _, addr := range strings.Split(more, ",") {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("host %q: want host:port", addr)
		}
		opts.Addrs = append(opts.Addrs, addr)
	}
	return opts, nil
}

// cutUser cuts the hosts of a URL after "user:password@". A password may hold an @.
func cutUser(s string) (user, hosts string) {
	i := strings.LastIndexByte(s, '@') + 1
	return s[:i], s[i:]
}

// The client's own log lines, most of them about connections that the caller hears of as an error, go where the
// program's lines go, but without their text: an error of Redis may repeat a command with all that is in it.
func init() { goredis.SetLogger(logger{}) }

type logger struct{}

func (logger) Printf(ctx context.Context, _ string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			slog.DebugContext(ctx, "redis: the client met a failure", "kind", fmt.Sprintf("%T", err))
			return
		}
	}
	slog.DebugContext(ctx, "redis: the client has something to say")
}
