// Package stock keeps the units on sale in Redis: available, reserved, and counted per buyer. Every
// change is one call of a script in lua/, which does all of it or nothing, for many orders at once.
package stock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
	"stampede/lua"
)

const (
	// MaxBatch is the most orders one call takes: Lua can unpack some thousand values, and a script
	// must not hold up the other clients of a single-threaded server for long.
	MaxBatch = 500
	// StatusTTL is how long a decided order's status is kept: as long as a retry leads to the order.
	StatusTTL = order.IdempotencyLifetime
	// PendingTTL is how long the status of an order is kept that is not decided: longer than SQS can keep its message,
	// which is 14 days (Amazon SQS quotas). A lost order is sent again from its status, so that this must not be gone
	// before.
	PendingTTL = 15 * 24 * time.Hour

	// maxLoads bounds how often a product is read anew when its row changes while it is loaded.
	maxLoads = 5

	dialTimeout = 2 * time.Second
	// ioTimeout bounds one command. A script of MaxBatch orders takes a few milliseconds.
	ioTimeout = 3 * time.Second
	// connLifetime bounds a connection, which after a fail-over may point at a replica.
	connLifetime = 5 * time.Minute
)

var (
	// ErrNotLoaded says that Redis does not know the product's stock: load it from MySQL.
	ErrNotLoaded = errors.New("product is not loaded")
	// ErrStale says that the row to load is older than what Redis has heard of, each time it was read.
	ErrStale = errors.New("stock is out of date")
)

var (
	loadScript     = newScript("load")
	reserveScript  = newScript("reserve")
	cancelScript   = newScript("cancel")
	settleScript   = newScript("settle")
	acceptScript   = newScript("accept")
	restockScript  = newScript("restock")
	claimScript    = newScript("claim")
	readmitScript  = newScript("readmit")
	pauseScript    = newScript("pause")
	correctScript  = newScript("correct")
	lowerScript    = newScript("lower")
	unloadScript   = newScript("unload")
	transferScript = newScript("transfer")
	reportScript   = newScript("report")
	fleetScript    = newScript("fleet")
	putScript      = newScript("put")

	rememberScript = newScript("remember")

	configureScript = newScript("configure")
)

// putText is the text of putScript, for pipelines, which cannot fall back on it when Redis does not know the script's
// hash.
var putText = lua.Script("put")

// scriptNames names the scripts by what a call of one says: its hash, or its text the first time.
var scriptNames = make(map[string]string)

// callNames are what calls of scripts are called in metrics, where it is not the name of the script.
var callNames = map[string]string{"transfer": "lend"}

func newScript(name string) *redis.Script {
	text := lua.Script(name)
	s := redis.NewScript(text)
	scriptNames[s.Hash()], scriptNames[text] = name, name
	return s
}

// Stock is a connection to Redis. It is safe for concurrent use.
type Stock struct {
	rdb client
}

// client is a connection to Redis that sends each script call once. A Cluster client repeats a command
// whose answer it has lost, whatever MaxRetries says, unless the command itself forbids it. It still
// follows redirections: a node that redirects has not carried the command out.
type client struct{ redis.UniversalClient }

// Observe has f called after each call, with its name (that of the script, or of the command, or "pipeline"), how long
// it took and how it ended. It is called before the connection is used.
func (s *Stock) Observe(f func(call string, took time.Duration, err error)) {
	s.rdb.AddHook(observer(f))
}

// PoolStats are those of the pool of connections, for those who watch it.
func (s *Stock) PoolStats() *redis.PoolStats { return s.rdb.PoolStats() }

// observer is a hook of the client that measures.
type observer func(call string, took time.Duration, err error)

func (observer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (o observer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmd)
		name := cmd.Name()
		if setsUp(name) {
			return err
		}
		if args := cmd.Args(); (name == "evalsha" || name == "eval") && len(args) > 1 {
			if text, ok := args[1].(string); ok && scriptNames[text] != "" {
				script := scriptNames[text]
				name = cmp.Or(callNames[script], script)
			}
		}
		o(name, time.Since(start), failure(err))
		return err
	}
}

func (o observer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		if len(cmds) > 0 && setsUp(cmds[0].Name()) {
			return err
		}
		o("pipeline", time.Since(start), failure(err))
		return err
	}
}

// setsUp reports whether a command is one with which the client begins a connection. It tries some that a server need
// not know, and if a connection cannot be set up the call that needs it fails.
func setsUp(command string) bool { return command == "hello" || command == "client" }

// failure is err, unless it only says that a key, or a script, is not there yet.
func failure(err error) error {
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}

// once is a command that is not repeated.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

func (c client) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return c.once(ctx, "eval", script, keys, args)
}

func (c client) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return c.once(ctx, "evalsha", sha, keys, args)
}

func (c client) once(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	_ = c.Process(ctx, once{cmd}) // cmd holds the error
	return cmd
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

// Close closes the connections.
func (s *Stock) Close() error { return s.rdb.Close() }

// Ping asks whether Redis answers; of a Cluster, whether any master does.
func (s *Stock) Ping(ctx context.Context) error {
	cluster, ok := s.rdb.UniversalClient.(*redis.ClusterClient)
	if !ok {
		return s.rdb.Ping(ctx).Err()
	}
	var answered atomic.Bool
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		err := c.Ping(ctx).Err()
		if err == nil {
			answered.Store(true)
		}
		return err
	})
	if answered.Load() {
		return nil
	}
	return err
}

// IsPartlyUp reports whether Redis is a Cluster of which some master answers. What fails then need not fail for the
// products of all.
func (s *Stock) IsPartlyUp(ctx context.Context) bool {
	_, ok := s.rdb.UniversalClient.(*redis.ClusterClient)
	return ok && s.Ping(ctx) == nil
}

// NotExecuted reports whether the call that returned err has certainly changed nothing: no connection was
// made, or the server refused the command before it ran.
func NotExecuted(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	if errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrClosed) {
		return true
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "NOAUTH", "WRONGPASS",
		"NOPERM", "MISCONF", "BUSY", "TRYAGAIN", "NOREPLICAS", "MOVED", "ASK"} {
		if strings.HasPrefix(reply.Error(), prefix) {
			return true
		}
	}
	return false
}

// Rejected reports whether Redis works but could not carry out the call that returned err, for what its keys hold.
// Calls for other products are not concerned.
func Rejected(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !errors.Is(err, redis.Nil) && !NotExecuted(err)
}

// full reports whether a call was refused since Redis has no memory left.
func full(err error) bool { return redis.HasErrorPrefix(err, "OOM") }

// run calls a script, between the failpoints of a step.
func (s *Stock) run(ctx context.Context, step failpoint.Step, script *redis.Script, keys []string,
	args ...any) *redis.Cmd {
	if err := failpoint.Before(step); err != nil {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	cmd := script.Run(ctx, s.rdb, keys, args...)
	if cmd.Err() == nil {
		if err := failpoint.After(step); err != nil {
			cmd.SetErr(err)
		}
	}
	return cmd
}

// Load brings a product to Redis with the stock, version and settings that read finds in MySQL. It reports
// whether this call loaded it; if it was loaded before, nothing changes. A row that turns out to be out of
// date is read again, a few times; after that the error is ErrStale.
func (s *Stock) Load(ctx context.Context, productID int64,
	read func(context.Context) (order.Product, error)) (bool, error) {
	if _, err := read(ctx); err != nil {
		return false, err // so that a product which somebody has made up leaves nothing in Redis
	}
	for attempt := 1; ; attempt++ {
		epoch, err := s.epoch(ctx, productID)
		if err != nil {
			return false, err
		}
		p, err := read(ctx)
		if err != nil {
			return false, err
		}
		loaded, err := s.loadRow(ctx, p, epoch)
		if !errors.Is(err, ErrStale) || attempt == maxLoads {
			return loaded, err
		}
	}
}

// epoch is the word that Redis has for a product for as long as it keeps its data, made now if there is none.
func (s *Stock) epoch(ctx context.Context, productID int64) (string, error) {
	var epoch *redis.StringCmd
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		key := keysOf(productID).sale
		p.HSetNX(ctx, key, fieldEpoch, rand.Text())
		epoch = p.HGet(ctx, key, fieldEpoch)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("begin to load product %d: %w", productID, err)
	}
	return epoch.Val(), nil
}

// loadRow loads a row that was read after the epoch was.
func (s *Stock) loadRow(ctx context.Context, p order.Product, epoch string) (bool, error) {
	// The set comes first: a product that is loaded must be known to relay and reconcile, also if this process dies.
	if err := s.rdb.SAdd(ctx, productsKey, p.ID).Err(); err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}
	k := keysOf(p.ID)
	n, err := s.run(ctx, failpoint.Load, loadScript, []string{k.stock, k.sale},
		p.Stock, p.Version, p.Price, p.Currency, millis(p.StartsAt), millis(p.EndsAt), p.LimitPerUser,
		string(p.State), p.Revision, epoch, p.Buckets).Int()
	if err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}
	if n < 0 {
		return false, fmt.Errorf("load product %d: %w", p.ID, ErrStale)
	}
	// And again: who has seen it as not loaded before may have taken it out of the set meanwhile.
	if err := s.remember(ctx, p.ID); err != nil {
		return false, fmt.Errorf("load product %d: %w", p.ID, err)
	}
	return n == 1, nil
}

// Configure brings the settings of a product, as MySQL has them after a change, to Redis, and with those of a split
// product its buckets. It reports whether they hold there by this call: if not, the product is not loaded, or newer
// settings hold. Repeating it is harmless, and needed if the answer is an error.
func (s *Stock) Configure(ctx context.Context, p order.Product) (bool, error) {
	holds, err := s.configureRow(ctx, p.ID, p)
	for _, id := range p.StockIDs() {
		if id != p.ID && err == nil {
			_, err = s.configureRow(ctx, id, p)
		}
	}
	return holds, err
}

func (s *Stock) configureRow(ctx context.Context, id int64, p order.Product) (bool, error) {
	k := keysOf(id)
	n, err := configureScript.Run(ctx, s.rdb, []string{k.stock, k.sale}, p.Revision, p.Price, p.Currency,
		millis(p.StartsAt), millis(p.EndsAt), p.LimitPerUser, string(p.State), p.Buckets).Int()
	if err != nil {
		return false, fmt.Errorf("configure product %d: %w", id, err)
	}
	return n == 1, nil
}

// Restock adds units that MySQL has put on sale under a version and a restock id, once. It reports
// whether this call added them; it does not if the loaded stock holds them already.
func (s *Stock) Restock(ctx context.Context, productID, units, version int64, id string) (bool, error) {
	k := keysOf(productID)
	n, err := s.run(ctx, failpoint.Restock, restockScript, []string{k.stock, k.sale, k.settled}, units, version,
		id).Int()
	if err != nil {
		return false, fmt.Errorf("restock product %d: %w", productID, err)
	}
	return n == 1, nil
}

// Products lists the ids of the products that are loaded.
func (s *Stock) Products(ctx context.Context) ([]int64, error) {
	var ids []int64
	members := s.rdb.SMembers(ctx, productsKey)
	err := members.Err()
	if err == nil { // ScanSlice takes a call that failed for an empty set
		err = members.ScanSlice(&ids)
	}
	if err != nil {
		return nil, fmt.Errorf("list loaded products: %w", err)
	}
	return ids, nil
}

// Level is what Redis holds of a product.
type Level struct {
	// Loaded is false if Redis does not know the product's stock; Available is then 0.
	Loaded    bool
	Available int64
	// Reserved counts units, Reservations and Outbox count orders.
	Reserved, Reservations, Outbox int64
	// Lent counts units that are on their way to other buckets.
	Lent int64
	// Version is the version of the product's row in MySQL at the time of loading.
	Version int64
	// Moving says that these numbers are of several moments: a busy product has more reservations than are read at one.
	Moving bool
}

// maxReads bounds how often a read is repeated since something has moved meanwhile. Redis carries out a pipeline at
// one go unless it arrives in parts, so that hardly any is repeated at all.
const maxReads = 20

// Level reads what Redis holds of a product, at one moment, or as Moving. It is no transaction, since a Redis that is
// full refuses even one that only reads, and reads no more than a page at a time, since Redis serves nobody else
// meanwhile: it reads again if the number of changes has moved. The outbox does not count.
func (s *Stock) Level(ctx context.Context, productID int64) (Level, error) {
	for range maxReads {
		level, err := s.readLevel(ctx, keysOf(productID))
		if err != nil {
			return Level{}, fmt.Errorf("read stock of product %d: %w", productID, err)
		}
		if !level.Moving || level.Reservations > lookPage {
			return level, nil
		}
	}
	return Level{}, fmt.Errorf("read stock of product %d: it has moved each time that it was read", productID)
}

func (s *Stock) readLevel(ctx context.Context, k productKeys) (Level, error) {
	var (
		before, after  *redis.SliceCmd
		stock, version *redis.StringCmd
		reserved, lent *redis.ScanCmd
		outbox         *redis.IntCmd
	)
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		before = p.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		stock = p.Get(ctx, k.stock)
		version = p.HGet(ctx, k.sale, fieldVersion)
		outbox = p.HLen(ctx, k.outbox)
		reserved = p.HScan(ctx, k.reserved, 0, "", lookPage)
		lent = p.HScan(ctx, k.lent, 0, "", lookPage)
		after = p.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return Level{}, err
	}

	level := Level{Loaded: stock.Err() == nil, Outbox: outbox.Val()}
	if level.Loaded {
		if level.Available, err = stock.Int64(); err != nil {
			return Level{}, err
		}
		level.Version, _ = version.Int64()
	}
	orders, more, err := s.sumPages(ctx, k.reserved, reserved)
	if err != nil {
		return Level{}, fmt.Errorf("reservations: %w", err)
	}
	moves, moreMoves, err := s.sumPages(ctx, k.lent, lent)
	if err != nil {
		return Level{}, fmt.Errorf("loans: %w", err)
	}
	level.Reserved, level.Reservations, level.Lent = orders.units, orders.fields, moves.units

	if more || moreMoves { // the other pages were read later
		after = s.rdb.HMGet(ctx, k.sale, fieldEpoch, fieldChanges)
		if err := after.Err(); err != nil {
			return Level{}, err
		}
	}
	level.Moving = !slices.Equal(before.Val(), after.Val())
	return level, nil
}

// sum is what the fields of a hash have together.
type sum struct{ fields, units int64 }

// sumPages adds up the values of a hash of which the first page is read already, and reports whether there were more.
func (s *Stock) sumPages(ctx context.Context, key string, first *redis.ScanCmd) (total sum, more bool, err error) {
	page, cursor := first.Val()
	seen := make(map[string]struct{}, len(page)/2) // a page may have what another had
	add := func(field, value string) error {
		if _, twice := seen[field]; twice {
			return nil
		}
		seen[field] = struct{}{}
		n, err := strconv.ParseInt(value, 10, 64)
		total.units += n
		return err
	}
	if err = visitFields(page, add); err == nil && cursor != 0 {
		err = pagesFrom(ctx, s.rdb.HScan, key, cursor, func(page []string) error { return visitFields(page, add) })
	}
	total.fields = int64(len(seen))
	return total, cursor != 0, err
}

// Available reads the units available of several products; a product that is not loaded is left out. With an error it
// returns those that it could read.
func (s *Stock) Available(ctx context.Context, productIDs []int64) (available map[int64]int64, err error) {
	cmds := make([]*redis.StringCmd, len(productIDs))
	_, _ = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		for i, id := range productIDs {
			cmds[i] = p.Get(ctx, keysOf(id).stock)
		}
		return nil
	})
	available = make(map[int64]int64, len(productIDs))
	for i, cmd := range cmds {
		n, failed := cmd.Int64()
		switch {
		case failed == nil:
			available[productIDs[i]] = n
		case !errors.Is(failed, redis.Nil) && err == nil:
			err = fmt.Errorf("read available units of product %d: %w", productIDs[i], failed)
		}
	}
	return available, err
}

// millis is a time in milliseconds since the epoch, 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the opposite of millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
