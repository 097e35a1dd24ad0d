package stock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// lookPage is how many fields or members a call asks for: Redis serves nobody else meanwhile. Of a hash of 400,000
// these cost it 0.6 ms on two shared processors, and all at once 150 ms.
const lookPage = 500

// Look is all that Redis holds of a product, but for what its buyers have.
type Look struct {
	// Loaded is false if Redis does not know the product's stock.
	Loaded    bool
	Available int64
	// Reserved are the units of the orders that are reserved.
	Reserved map[uuid.UUID]int64
	// Outbox are the orders that are in the outbox.
	Outbox map[uuid.UUID]bool
	// Lent are the units that are on their way to other buckets, or being taken out.
	Lent map[Loan]int64
	// Version is the product's version in MySQL of which Redis knows for sure that the stock holds it, and
	// Revision the one of its settings.
	Version, Revision int64
	// Seen is the newest version in MySQL of which Redis has heard, before anything else was read. Who reads an older
	// one in MySQL after that sees that commits are lost. LostCommits is true if that was noted before.
	Seen        int64
	LostCommits bool
	// Restocks are the ids of those that were applied after it was loaded.
	Restocks map[string]bool
	// Now is the time by the clock of Redis.
	Now time.Time
	// Still is true if nothing has moved while it was read, so that it is of one moment. Otherwise what came or went
	// meanwhile may be in it or not; what was there all the time is.
	Still bool

	epoch   string
	changes int64
	counted int64 // the number of changes at which what the buyers have was compared with MySQL
}

// SameAs reports whether nothing has moved between two looks, and while they were taken.
func (l Look) SameAs(other Look) bool {
	return l.Still && other.Still && l.epoch == other.epoch && l.changes == other.changes
}

// Look reads a product, in many small calls.
func (s *Stock) Look(ctx context.Context, productID int64) (Look, error) {
	l, err := s.look(ctx, keysOf(productID))
	if err != nil {
		return Look{}, fmt.Errorf("look at product %d: %w", productID, err)
	}
	return l, nil
}

func (s *Stock) look(ctx context.Context, k productKeys) (Look, error) {
	l := Look{Reserved: map[uuid.UUID]int64{}, Outbox: map[uuid.UUID]bool{}, Lent: map[Loan]int64{},
		Restocks: map[string]bool{}}

	// The settings come first: a restock that is newer than the version is then found among the restocks, if it was
	// applied.
	if err := s.readSale(ctx, k, &l); err != nil {
		return l, err
	}
	err := s.hashPages(ctx, k.reserved, func(text, units string) error {
		id, err := uuid.Parse(text)
		if err == nil {
			l.Reserved[id], err = strconv.ParseInt(units, 10, 64)
		}
		return err
	})
	if err != nil {
		return l, fmt.Errorf("reservations: %w", err)
	}
	err = s.hashPages(ctx, k.lent, func(name, units string) error {
		loan, err := parseLoan(name)
		if err == nil {
			l.Lent[loan], err = strconv.ParseInt(units, 10, 64)
		}
		return err
	})
	if err != nil {
		return l, fmt.Errorf("loans: %w", err)
	}
	err = s.hashPages(ctx, k.outbox, func(text, _ string) error {
		if id, err := uuid.Parse(text); err == nil { // the relay complains of any other
			l.Outbox[id] = true
		}
		return nil
	})
	if err != nil {
		return l, fmt.Errorf("outbox: %w", err)
	}
	err = pages(ctx, s.rdb.SScan, k.settled, func(members []string) error {
		for _, member := range members {
			if id, ok := strings.CutPrefix(member, restockMark); ok {
				l.Restocks[id] = true
			}
		}
		return nil
	})
	if err != nil {
		return l, fmt.Errorf("restocks: %w", err)
	}

	now := Look{}
	if err := s.readSale(ctx, k, &now); err != nil {
		return l, err
	}
	l.Still = l.epoch == now.epoch && l.changes == now.changes && l.Loaded == now.Loaded
	return l, nil
}

// readSale reads what is not a collection.
func (s *Stock) readSale(ctx context.Context, k productKeys, l *Look) error {
	var available *redis.StringCmd
	var sale *redis.SliceCmd
	var now *redis.TimeCmd
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		sale = p.HMGet(ctx, k.sale, fieldVersion, fieldRevision, fieldChanges, fieldCounted, fieldSeen,
			fieldLostCommits, fieldEpoch)
		available = p.Get(ctx, k.stock)
		now = p.Time(ctx)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}

	l.Now = now.Val()
	var d decoder
	var lost int64
	numbers := []*int64{&l.Version, &l.Revision, &l.changes, &l.counted, &l.Seen, &lost}
	for i, field := range sale.Val() {
		switch {
		case field == nil:
		case i < len(numbers):
			*numbers[i] = d.int(field)
		default:
			l.epoch = d.text(field)
		}
	}
	l.LostCommits = lost > 0
	if l.Loaded = available.Err() == nil; l.Loaded {
		l.Available = d.int(available.Val())
	}
	return d.err
}

// scanner is a command of Redis that reads a collection by pages.
type scanner func(ctx context.Context, key string, cursor uint64, match string, count int64) *redis.ScanCmd

// pages visits a collection page by page. What is in it all the time is visited, maybe twice.
func pages(ctx context.Context, scan scanner, key string, visit func([]string) error) error {
	return pagesFrom(ctx, scan, key, 0, visit)
}

// pagesFrom is pages from a cursor on, which is 0 at the first page.
func pagesFrom(ctx context.Context, scan scanner, key string, cursor uint64, visit func([]string) error) error {
	for {
		page, next, err := scan(ctx, key, cursor, "", lookPage).Result()
		if err != nil {
			return err
		}
		if err := visit(page); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// hashPages visits the fields of a hash with their values, like pages.
func (s *Stock) hashPages(ctx context.Context, key string, visit func(field, value string) error) error {
	return pages(ctx, s.rdb.HScan, key, func(page []string) error { return visitFields(page, visit) })
}

// visitFields visits the fields of one page of a hash.
func visitFields(page []string, visit func(field, value string) error) error {
	for i := 0; i+1 < len(page); i += 2 {
		if err := visit(page[i], page[i+1]); err != nil {
			return fmt.Errorf("%q: %w", page[i], err)
		}
	}
	return nil
}

// Correct sets the units available of a product to what they must be by a version of the product in MySQL,
// which was read after the look. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) Correct(ctx context.Context, productID int64, l Look, available, version int64) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(productID)
	n, err := correctScript.Run(ctx, s.rdb, []string{k.stock, k.sale}, l.epoch, l.changes, available, version).Int()
	if err != nil {
		return false, fmt.Errorf("correct product %d: %w", productID, err)
	}
	return n == 1, nil
}

// NoteLostCommits notes that MySQL has lost commits of a product, so that it is known when MySQL has counted on.
func (s *Stock) NoteLostCommits(ctx context.Context, productID int64) error {
	if err := s.rdb.HSet(ctx, keysOf(productID).sale, fieldLostCommits, 1).Err(); err != nil {
		return fmt.Errorf("note that commits of product %d are lost: %w", productID, err)
	}
	return nil
}

// AcceptVersion makes the version of a product that MySQL has, read after the look, the newest that Redis has seen, and
// forgets that commits were lost. It reports false, and changes nothing, if Redis has seen another one since the look.
func (s *Stock) AcceptVersion(ctx context.Context, productID int64, l Look, version int64) (bool, error) {
	n, err := acceptScript.Run(ctx, s.rdb, []string{keysOf(productID).sale}, l.Seen, version).Int()
	if err != nil {
		return false, fmt.Errorf("accept the version of product %d in MySQL: %w", productID, err)
	}
	return n == 1, nil
}

// Counted reports whether nothing has moved since LowerBought was told that all buyers have been compared.
func (l Look) Counted() bool { return l.Still && l.counted == l.changes }

// Bought visits the units that buyers have of a product, reserved ones included, by user and some at a time. A user may
// be visited twice.
func (s *Stock) Bought(ctx context.Context, productID int64, visit func(map[int64]int64) error) error {
	err := pages(ctx, s.rdb.HScan, keysOf(productID).bought, func(page []string) error {
		bought := make(map[int64]int64, len(page)/2)
		var d decoder
		for i := 0; i+1 < len(page); i += 2 {
			bought[d.int(page[i])] = d.int(page[i+1])
		}
		if d.err != nil || len(bought) == 0 {
			return d.err
		}
		return visit(bought)
	})
	if err != nil {
		return fmt.Errorf("read what buyers have of product %d: %w", productID, err)
	}
	return nil
}

// LowerBought sets what buyers have of a product to what they have in MySQL, which was read after the look; all says
// that every other buyer was compared. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) LowerBought(ctx context.Context, productID int64, l Look, bought map[int64]int64,
	all bool) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(productID)
	args := append(make([]any, 0, 3+2*len(bought)), l.epoch, l.changes, bit(all))
	for user, units := range bought {
		args = append(args, user, units)
	}
	n, err := lowerScript.Run(ctx, s.rdb, []string{k.bought, k.sale}, args...).Int()
	if err != nil {
		return false, fmt.Errorf("lower what buyers have of product %d: %w", productID, err)
	}
	return n == 1, nil
}

// Pause keeps new orders of a product from being reserved for a time, or ends that if the time is 0.
func (s *Stock) Pause(ctx context.Context, productID int64, length time.Duration) error {
	if err := pauseScript.Run(ctx, s.rdb, []string{keysOf(productID).sale}, length.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("pause product %d: %w", productID, err)
	}
	return nil
}

// Unload forgets a product, unless anything has moved since the look or is on its way.
func (s *Stock) Unload(ctx context.Context, productID int64, l Look) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(productID)
	keys := []string{k.stock, k.reserved, k.bought, k.sale, k.outbox, k.settled, k.lent}
	n, err := unloadScript.Run(ctx, s.rdb, keys, l.epoch, l.changes).Int()
	if err == nil && n == 1 {
		err = s.ForgetUnloaded(ctx, productID) // who dies before that leaves it to the next look
	}
	if err != nil {
		return false, fmt.Errorf("unload product %d: %w", productID, err)
	}
	return n == 1, nil
}

// Readmit reserves the units of an order anew that failed and is to be decided again; the order is then in
// the outbox, claimed for the caller to send. The outcome is Reserved, Replayed if it was reserved already,
// or why not. It returns ErrNotLoaded if Redis does not have the product.
func (s *Stock) Readmit(ctx context.Context, o order.Order) (Outcome, error) {
	k := keysOf(o.ProductID)
	n, err := readmitScript.Run(ctx, s.rdb, []string{k.stock, k.reserved, k.bought, k.sale, k.outbox},
		o.ID.String(), o.UserID, o.Quantity, o.UnitPrice, o.IdempotencyKey).Int()
	switch {
	case err != nil:
		return 0, fmt.Errorf("reserve order %s anew: %w", o.ID, err)
	case n == 0:
		return 0, ErrNotLoaded
	}
	return Outcome(n), nil
}

// TryLock makes the caller the only one, for a time, who does what the name says. It is no guarantee: what is
// done under it must bear being done by two.
func (s *Stock) TryLock(ctx context.Context, name string, length time.Duration) (bool, error) {
	// Redis takes no time of 0 ms.
	n, err := putScript.Run(ctx, s.rdb, []string{lockKey(name)}, "", max(length.Milliseconds(), 1), 1).Int()
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	return n == 1, nil
}

// Unlock ends what TryLock began before its time is over.
func (s *Stock) Unlock(ctx context.Context, name string) error {
	if err := s.rdb.Del(ctx, lockKey(name)).Err(); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

// Servers names the processes that hold the data, as one word. It changes when one of them is started again
// or gives way to a replica, and data may have been lost.
func (s *Stock) Servers(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var ids []string
	ask := func(ctx context.Context, c *redis.Client) error {
		id, err := runID(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	}
	if err := s.eachMaster(ctx, ask); err != nil {
		return "", fmt.Errorf("ask for the servers of Redis: %w", err)
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), nil
}

// runID names the process of a server.
func runID(ctx context.Context, c *redis.Client) (string, error) {
	info, err := c.InfoMap(ctx, "server").Result()
	return info["Server"]["run_id"], err
}

// ComparedBy reads the servers by whose data a product was last compared with MySQL while its sale was paused, as
// Servers names them. Who has lost the product's data has lost this as well.
func (s *Stock) ComparedBy(ctx context.Context, productID int64) (servers string, err error) {
	servers, err = s.rdb.HGet(ctx, keysOf(productID).sale, fieldComparedBy).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read who has compared product %d: %w", productID, err)
	}
	return servers, nil
}

// SetComparedBy notes what ComparedBy reads.
func (s *Stock) SetComparedBy(ctx context.Context, productID int64, servers string) error {
	if err := s.rdb.HSet(ctx, keysOf(productID).sale, fieldComparedBy, servers).Err(); err != nil {
		return fmt.Errorf("note that product %d was compared: %w", productID, err)
	}
	return nil
}

// ForgetProduct takes a product that does not exist out of the set of those that are loaded. One that has orders on
// their way stays, so that they are relayed and decided.
func (s *Stock) ForgetProduct(ctx context.Context, productID int64) error {
	return s.forget(ctx, productID, Level.onItsWay)
}

// ForgetUnloaded takes a product out of the set of those that are loaded, if it is not loaded and has nothing on its
// way.
func (s *Stock) ForgetUnloaded(ctx context.Context, productID int64) error {
	return s.forget(ctx, productID, func(l Level) bool { return l.Loaded || l.onItsWay() })
}

// forget takes a product out of the set unless stays says that it belongs there.
func (s *Stock) forget(ctx context.Context, productID int64, stays func(Level) bool) error {
	level, err := s.Level(ctx, productID)
	if err != nil || stays(level) {
		return err
	}
	if err := s.rdb.SRem(ctx, productsKey, productID).Err(); err != nil {
		return fmt.Errorf("forget product %d: %w", productID, err)
	}

	// The set and the product are on different masters of a Cluster, so who has loaded it since the look is seen only
	// now. Should this process die here, Load puts it back, or else SearchProducts.
	if level, err = s.Level(ctx, productID); err != nil || !stays(level) {
		return err
	}
	return s.remember(ctx, productID)
}

// onItsWay reports whether something is to come of what Redis holds.
func (l Level) onItsWay() bool { return l.Reservations > 0 || l.Outbox > 0 || l.Lent > 0 }

// remember puts products into the set of those that are loaded, also if Redis is full.
func (s *Stock) remember(ctx context.Context, productIDs ...any) error {
	return rememberScript.Run(ctx, s.rdb, []string{productsKey}, productIDs...).Err()
}

// FindProducts puts every product that is loaded into the set of them, which one master of a Cluster holds for all and
// may have lost. It looks at all that Redis knows, so it is for after a fail-over.
func (s *Stock) FindProducts(ctx context.Context) error {
	_, _, err := s.SearchProducts(ctx, "", math.MaxInt)
	return err
}

// SearchProducts does the same for at most so many pages of the keys of each server, and returns how many products were
// loaded and not in the set. It goes on where from says, which is what the last call returned, or empty; next is empty
// when every server was searched to its end.
func (s *Stock) SearchProducts(ctx context.Context, from string, pages int) (next string, found int64, err error) {
	var mu sync.Mutex
	var rest []string
	err = s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		server, err := runID(ctx, c)
		if err != nil {
			return err
		}
		cursor, n, err := s.searchServer(ctx, c, cursorOf(from, server), pages)
		mu.Lock()
		defer mu.Unlock()
		found += n
		if cursor != 0 {
			rest = append(rest, server+cursorMark+strconv.FormatUint(cursor, 10))
		}
		return err
	})
	if err != nil {
		return from, found, fmt.Errorf("look for loaded products: %w", err)
	}
	slices.Sort(rest)
	return strings.Join(rest, " "), found, nil
}

// cursorMark is between the name of a server and how far the search on it has come.
const cursorMark = "="

// cursorOf reads how far the search on a server has come. A server that was started again has another name, and no
// cursor is valid any more.
func cursorOf(text, server string) uint64 {
	for entry := range strings.FieldsSeq(text) {
		if rest, ok := strings.CutPrefix(entry, server+cursorMark); ok {
			cursor, _ := strconv.ParseUint(rest, 10, 64)
			return cursor
		}
	}
	return 0
}

// searchServer looks at some pages of the keys of a server.
func (s *Stock) searchServer(ctx context.Context, c *redis.Client, cursor uint64,
	pages int) (next uint64, found int64, err error) {
	for range pages {
		var keys []string
		if keys, cursor, err = c.Scan(ctx, cursor, stockPrefix+"{*}", scanPage).Result(); err != nil {
			return 0, found, err
		}
		var ids []any
		for _, key := range keys {
			text := strings.TrimSuffix(strings.TrimPrefix(key, stockPrefix+"{"), "}")
			if id, err := strconv.ParseInt(text, 10, 64); err == nil {
				ids = append(ids, id)
			}
		}
		if len(ids) > 0 {
			n, err := rememberScript.Run(ctx, s.rdb, []string{productsKey}, ids...).Int64()
			if err != nil {
				return 0, found, err
			}
			found += n
		}
		if cursor == 0 {
			break
		}
	}
	return cursor, found, nil
}

// scanPage is about how many keys a call looks at, which takes a server less than a millisecond.
const scanPage = 2 * MaxBatch

// scan visits all keys of a pattern, some at a time; of a Cluster its masters at the same time. Keys that come or go
// meanwhile may be left out, and some may be visited twice.
func (s *Stock) scan(ctx context.Context, pattern string, visit func(keys []string) error) error {
	return s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := c.Scan(ctx, cursor, pattern, scanPage).Result()
			if err != nil {
				return err
			}
			if err := visit(keys); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
}

// eachMaster calls f with each server that holds data, of a Cluster with all at once.
func (s *Stock) eachMaster(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch c := s.rdb.UniversalClient.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, f)
	case *redis.Client:
		return f(ctx, c)
	}
	return fmt.Errorf("no way to ask a %T for its servers", s.rdb.UniversalClient)
}
