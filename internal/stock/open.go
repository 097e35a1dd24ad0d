package stock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Open makes a client for a URL such as redis://user:password@host:6379/0, or rediss:// for TLS.
// Several hosts, comma-separated, mean Redis Cluster. It does not connect. Errors hold no password.
//
// The client never repeats a script by itself: one whose answer was lost may have been carried out, and
// only the caller knows whether repeating it is safe.
func Open(rawURL string) (*Stock, error) {
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
	return &Stock{rdb: client{redis.NewUniversalClient(opts)}}, nil
}

func parseURL(rawURL string) (*redis.UniversalOptions, error) {
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
	single, err := redis.ParseURL(scheme + "://" + user + hosts + path)
	if err != nil {
		if strings.Contains(rawURL, "@") {
			// The error may quote any part of the URL, and where a part ends is what is wrong.
			return nil, errors.New(want)
		}
		return nil, fmt.Errorf("%s: %w", want, err)
	}

	opts := &redis.UniversalOptions{
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
func init() { redis.SetLogger(logger{}) }

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
