package stock

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/internal/notice"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/localstack/stacktest"
	"stampede/lua"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Redis|stacktest.RedisCluster) }

// scriptTests hold for a single server and for a Cluster alike. On a Cluster they also show that each
// call stays in one slot, since the server refuses a call whose keys do not.
var scriptTests = []struct {
	name string
	run  func(*testing.T, *shop)
}{
	{"load", testLoad},
	{"load out of date", testLoadStale},
	{"numbers beyond 2^53", testLargeNumbers},
	{"restock", testRestock},
	{"restock before load", testRestockNotLoaded},
	{"return", testReturn},
	{"return before load", testReturnNotLoaded},
	{"return of what is not settled", testReturnBeforeSettle},
	{"level", testLevel},
	{"products and counts", testProductsAndCounts},
	{"reserve", testReserve},
	{"reserve not loaded", testReserveNotLoaded},
	{"reserve refuses", testReserveRefuses},
	{"reserve batch", testReserveBatch},
	{"reserve after a refusal under the same key", testReserveRefusedKey},
	{"reserve window", testReserveWindow},
	{"replay by order id", testReplayByOrderID},
	{"replay by key", testReplayByKey},
	{"replay outlives the sale", testReplayOutlivesTheSale},
	{"replay within a call", testReplayWithinCall},
	{"points", testPoints},
	{"points and money under one key", testPointsAndMoney},
	{"no price in points", testNoPointsPrice},
	{"cancel", testCancel},
	{"cancel too late", testCancelTooLate},
	{"cancel leaves another order's key", testCancelForeignKey},
	{"cancel after loss", testCancelAfterLoss},
	{"settle reserved", testSettleReserved},
	{"settle twice in a call", testSettleTwiceInCall},
	{"settle without reservation", testSettleWithoutReservation},
	{"settle leaves a mark", testSettleMark},
	{"settle not loaded", testSettleNotLoaded},
	{"claim", testClaim},
	{"claim pages", testClaimPages},
	{"acknowledge", testAcknowledge},
	{"pending", testPending},
	{"reservations of an older program", testOlderReservations},
	{"notices", testNotices},
	{"load across a loss", testLoadAcrossLoss},
	{"look", testLook},
	{"correct", testCorrect},
	{"lower", testLower},
	{"pause", testPause},
	{"unload", testUnload},
	{"load meets forget", testLoadMeetsForget},
	{"forget", testForget},
	{"readmit", testReadmit},
	{"largest calls", testLargestCalls},
	{"configure", testConfigure},
	{"configure not loaded", testConfigureNotLoaded},
	{"configure and load in every order", testConfigureInEveryOrder},
	{"off sale", testOffSale},
	{"price of the first time", testPriceOfTheFirstTime},
	{"limit set later", testLimitSetLater},
	{"transfer", testTransfer},
	{"transfer made", testTransferMoved},
	{"transfer lost", testTransferLost},
	{"other buckets", testOtherBuckets},
	{"find products", testFindProducts},
	{"counts", testCounts},
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for _, test := range scriptTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, openShop(t, stacktest.RedisURL(t)))
		})
	}
}

// It is not parallel, as the Cluster has only one database.
func TestScriptsOnCluster(t *testing.T) {
	url := stacktest.RedisClusterURL(t)
	for _, test := range scriptTests {
		t.Run(test.name, func(t *testing.T) { test.run(t, openShop(t, url)) })
	}
}

// shop is a product that is the test's own, in a Redis that may hold others.
type shop struct {
	*Stock
	product order.Product
	keys    productKeys
}

func openShop(t testing.TB, url string) *shop {
	t.Helper()
	rdb, err := redis.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return newShop(New(rdb))
}

// newShop sells another product in the same Redis.
func newShop(s *Stock) *shop {
	p := order.Product{ID: order.StockID(1 + rand.Int64N(1<<40)), Price: 1999, Currency: "EUR", Stock: 10, Version: 5,
		Revision: 3, State: order.OnSale}
	return &shop{Stock: s, product: p, keys: keysOf(p.ID)}
}

// Load loads a row as it was read at this moment, once.
func (s *shop) Load(ctx context.Context, p order.Product) (bool, error) {
	epoch, err := s.epoch(ctx, p.ID)
	if err != nil {
		return false, err
	}
	return s.loadRow(ctx, p, epoch)
}

// load puts the product on sale after change, which may be nil.
func (s *shop) load(t testing.TB, change func(*order.Product)) {
	t.Helper()
	if change != nil {
		change(&s.product)
	}
	if loaded, err := s.Load(t.Context(), s.product); err != nil || !loaded {
		t.Fatalf("Load = %v, %v", loaded, err)
	}
}

func ask(userID order.UserID, quantity int64, key string) Request {
	return Request{OrderID: order.NewID(), UserID: userID, Quantity: quantity, IdempotencyKey: key}
}

// asks makes n requests for one unit, each of another user and with a key of its own.
func asks(n int) []Request {
	requests := make([]Request, n)
	for i := range requests {
		requests[i] = ask(order.UserID(i+1), 1, "key-"+strconv.Itoa(i))
	}
	return requests
}

func (s *shop) reserve(t testing.TB, requests ...Request) []Reservation {
	t.Helper()
	_, results, err := s.Reserve(t.Context(), s.product.ID, 0, requests)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// order reserves one order and returns it.
func (s *shop) order(t testing.TB, userID order.UserID, quantity int64, key string) order.Order {
	t.Helper()
	result := s.reserve(t, ask(userID, quantity, key))[0]
	if result.Outcome != Reserved {
		t.Fatalf("the order is not reserved: %+v", result)
	}
	return result.Order
}

func outcomes(results []Reservation) []Outcome {
	all := make([]Outcome, len(results))
	for i := range results {
		all[i] = results[i].Outcome
	}
	return all
}

func (s *shop) cancel(t testing.TB, orders ...order.Order) []bool {
	t.Helper()
	cancelled, err := s.Cancel(t.Context(), s.product.ID, orders)
	if err != nil {
		t.Fatal(err)
	}
	return cancelled
}

func (s *shop) settle(t testing.TB, decisions ...order.Decision) Settled {
	t.Helper()
	settled, err := s.Settle(t.Context(), s.product.ID, decisions)
	if err != nil {
		t.Fatal(err)
	}
	return settled
}

func (s *shop) claim(t testing.TB, minAge time.Duration) []order.Order {
	t.Helper()
	var all []order.Order
	for cursor := uint64(0); ; {
		batches, next, err := s.Claim(t.Context(), s.product.ID, minAge, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			all = append(all, b.Orders...)
		}
		if cursor = next; cursor == 0 {
			return all
		}
	}
}

// fresh is a decision that was made just now, in a commit that made this version.
func fresh(o order.Order, status order.Status, version int64) order.Decision {
	return order.Decision{Record: order.Record{Order: o, Status: status}, Fresh: true, Version: version}
}

// again is a decision that was read from MySQL.
func again(o order.Order, status order.Status) order.Decision {
	return order.Decision{Record: order.Record{Order: o, Status: status}}
}

// contents is all that Redis holds of a product.
type contents struct {
	stock        string            // empty if absent
	reserved     map[string]string // units by order
	bought, sale map[string]string
	outbox       map[string]string // by order: 'reserved_at claimed_at user quantity unit_price key'
	settled      []string
	idem         map[string]string // by user and key
}

func (s *shop) contents(t testing.TB) contents {
	t.Helper()
	hash := func(key string) map[string]string { return must(s.rdb.HGetAll(t.Context(), key).Result())(t) }
	c := contents{
		reserved: map[string]string{}, outbox: map[string]string{},
		bought: hash(s.keys.bought), sale: hash(s.keys.sale),
		settled: must(s.rdb.SMembers(t.Context(), s.keys.settled).Result())(t), idem: map[string]string{},
	}
	batches := hash(s.keys.outbox)
	for id, text := range hash(s.keys.reserved) {
		r := must(parseReservation(s.product.ID, must(order.ParseID(id))(t), text))(t)
		c.reserved[id] = strconv.FormatInt(r.units, 10)
		if entry, ok := batches[r.batch]; ok {
			f := strings.SplitN(entry, " ", 3)
			if !slices.Contains(strings.Fields(f[2]), id) {
				t.Errorf("order %s says that it is in batch %s, which is %q", id, r.batch, entry)
			}
			c.outbox[id] = fmt.Sprint(f[0], " ", f[1], " ", r.order.UserID, " ", r.units, " ", keptPrice(r.order), " ",
				r.order.IdempotencyKey)
		}
	}
	slices.Sort(c.settled)
	delete(c.sale, "epoch")
	delete(c.sale, "changes")
	// The versions of these tests are made up; the worker's tests look at what tells that MySQL has lost commits.
	delete(c.sale, "seen_by")
	delete(c.sale, "lost_commits")
	if s.exists(t, s.keys.stock) {
		c.stock = must(s.rdb.Get(t.Context(), s.keys.stock).Result())(t)
	}
	for _, key := range s.keys.idem {
		for field, record := range hash(key) {
			user, kept, _ := strings.Cut(field, ":")
			c.idem[user+":"+unpackKey(kept)] = record
		}
	}
	return c
}

func (s *shop) exists(t testing.TB, key string) bool {
	return must(s.rdb.Exists(t.Context(), key).Result())(t) == 1
}

func (s *shop) scan(t testing.TB, pattern string) []string {
	t.Helper()
	var keys []string
	for cursor := uint64(0); ; {
		page, next := must2(s.rdb.Scan(t.Context(), cursor, pattern, 1000).Result())(t)
		keys = append(keys, page...)
		if cursor = next; cursor == 0 {
			return keys
		}
	}
}

// dump is every byte that Redis holds of the product.
func (s *shop) dump(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range s.scan(t, "*{"+strconv.FormatInt(int64(s.product.ID), 10)+"}*") {
		if key == s.keys.sale { // without what counts calls and not orders
			all[key] = fmt.Sprint(s.contents(t).sale)
			continue
		}
		all[key] = must(s.rdb.Dump(t.Context(), key).Result())(t)
	}
	return all
}

// unchanged runs f and fails if it has changed anything of the product.
func (s *shop) unchanged(t testing.TB, what string, f func()) {
	t.Helper()
	before := s.dump(t)
	f()
	if after := s.dump(t); !maps.Equal(before, after) {
		t.Errorf("%s has changed the keys from\n%q to\n%q", what, before, after)
	}
}

// batchOf is the name of the batch in which an order was reserved.
func (s *shop) batchOf(t testing.TB, id order.OrderID) string {
	t.Helper()
	text := must(s.rdb.HGet(t.Context(), s.keys.reserved, id.String()).Result())(t)
	return must(parseReservation(s.product.ID, id, text))(t).batch
}

// acknowledge takes the batches of orders out of the outbox.
func (s *shop) acknowledge(t testing.TB, orders ...order.Order) {
	t.Helper()
	var batches []string
	for _, o := range orders {
		batches = append(batches, s.batchOf(t, o.ID))
	}
	if err := s.Acknowledge(t.Context(), s.product.ID, batches); err != nil {
		t.Fatal(err)
	}
}

// age makes the batch of an order older, and its claim if it has one.
func (s *shop) age(t testing.TB, id order.OrderID, by time.Duration) {
	t.Helper()
	batch := s.batchOf(t, id)
	entry := must(s.rdb.HGet(t.Context(), s.keys.outbox, batch).Result())(t)
	f := strings.SplitN(entry, " ", 3)
	for i := range 2 {
		if ms := must(strconv.ParseInt(f[i], 10, 64))(t); ms > 0 {
			f[i] = strconv.FormatInt(ms-by.Milliseconds(), 10)
		}
	}
	if err := s.rdb.HSet(t.Context(), s.keys.outbox, batch, strings.Join(f, " ")).Err(); err != nil {
		t.Fatal(err)
	}
}

// flush makes Redis forget the product, and what else a Cluster holds.
func (s *shop) flush(t testing.TB) {
	t.Helper()
	if err := s.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func (s *shop) now(t testing.TB) time.Time {
	t.Helper()
	return must(s.rdb.Time(t.Context()).Result())(t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must2[T, U any](v T, u U, err error) func(testing.TB) (T, U) {
	return func(t testing.TB) (T, U) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v, u
	}
}

// equal compares what prints alike, which for maps and slices is what is wanted: nil is empty.
func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s: got\n\t%s, want\n\t%s", what, g, w)
	}
}

// background is for calls that outlive a test's context.
var background = context.Background()

// TestWordsOfScripts: the scripts and this package call the same fields and arguments by the same names, and have each
// in one place.
func TestWordsOfScripts(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"CURRENCY": fieldCurrency, "VERSION": fieldVersion,
		"BORN": fieldBorn, "REVISION": fieldRevision, "SEEN": fieldSeen,
		"LOST_COMMITS": fieldLostCommits, "EPOCH": fieldEpoch, "CHANGES": fieldChanges, "COUNTED": fieldCounted,
		"OFF_SALE": string(order.OffSale), "NOTICES": notice.Channel, "RESTOCK_MARK": restockMark,
		"RETURN_MARK": returnMark,
		"SPARE":       argSpare, "WHOLE": argWhole, "POINTS": pointsMark,
	}
	prelude := lua.Script("put")
	found := map[string]string{}
	constants := regexp.MustCompile(`(?m)^local ([A-Z_, ]+) = ('[a-z_:', ]+')$`)
	for _, line := range constants.FindAllStringSubmatch(prelude, -1) {
		words := strings.Split(line[2], ", ")
		for i, name := range strings.Split(line[1], ", ") {
			found[name] = strings.Trim(words[i], "'")
		}
	}
	for name, word := range want {
		if found[name] != word {
			t.Errorf("the scripts have %s = %q, want %q", name, found[name], word)
		}
	}
	scripts := must(filepath.Glob("../../lua/*.lua"))(t)
	for _, file := range scripts {
		name := strings.TrimSuffix(filepath.Base(file), ".lua")
		if name == "prelude" {
			continue
		}
		text := comments.ReplaceAllString(lua.Script(name), "")
		for constant, word := range found {
			if strings.Count(text, "'"+word+"'") != 1 {
				t.Errorf("%s.lua has '%s', which is %s in prelude.lua", name, word, constant)
			}
		}
	}
}

// comments are those of a script.
var comments = regexp.MustCompile(`(?m)--.*$`)

// TestOutcomesOfScripts: the scripts and this package call the same outcomes by the same numbers.
func TestOutcomesOfScripts(t *testing.T) {
	t.Parallel()
	names := map[string]Outcome{
		"RESERVED": Reserved, "REPLAYED": Replayed, "SOLD_OUT": SoldOut, "LIMIT_EXCEEDED": LimitExceeded,
		"NOT_STARTED": NotStarted, "ENDED": Ended,
		"IDEMPOTENCY_MISMATCH": IdempotencyMismatch, "NOT_ON_SALE": NotOnSale, "PAUSED": Paused,
		"OTHER_BUCKETS": OtherBuckets, "NO_POINTS_PRICE": NoPointsPrice,
	}
	found := map[string]Outcome{}
	constants := regexp.MustCompile(`(?m)^local ([A-Z_, ]+) = ([-\d, ]+)$`)
	for _, line := range constants.FindAllStringSubmatch(lua.Script("reserve"), -1) {
		numbers := strings.Split(line[2], ", ")
		for i, name := range strings.Split(line[1], ", ") {
			n, err := strconv.Atoi(numbers[i])
			if err != nil {
				t.Fatal(err)
			}
			found[name] = Outcome(n)
		}
	}
	if !maps.Equal(found, names) {
		t.Errorf("the scripts have %v, want %v", found, names)
	}
}
