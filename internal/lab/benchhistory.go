package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack"
)

const (
	// historyLimit bounds a whole run. Nearly all of it is for making ten million orders, on a slow disk.
	historyLimit = 40 * time.Minute
	// historyUsers have bought the orders, and buy those that are measured.
	historyUsers = 1_000_000
	// historyPerProduct is how many orders each product has.
	historyPerProduct = 100
	// historyMonths is for how long things were sold, up to an hour before the tables were made.
	historyMonths = 12
	// historyChunk is how many orders one statement makes.
	historyChunk = 100_000
	// historyBatch and historyCallers are how the worker decides: so many orders in a transaction, and so many at once.
	historyBatch   = 500
	historyCallers = 4
	// historyReads is how many reads of a kind are measured at a time.
	historyReads = 1_000
	// historyNew is how many orders are new to the audit.
	historyNew = 10_000
	// poolShare is how many times as large as the buffer pool the tables are.
	poolShare = 4
)

// historyTitle begins the names of the measures, by which --only finds them.
const historyTitle = "history: "

// historyMeasures are what is measured with orders that were decided before, each against tables without any.
func historyMeasures() []measure {
	const over = "empty tables"
	return []measure{
		{name: historyTitle + "orders/s decided, without limit and keys", figure: "decide/full",
			baseline: "decide/empty", over: over, bar: .85},
		{name: historyTitle + "orders/s decided, with limit and keys", figure: "decide keyed/full",
			baseline: "decide keyed/empty", over: over, bar: .85},
		{name: historyTitle + "seconds of an audit, 10,000 orders new", figure: "audit/new", bar: 2, atMost: true},
		{name: historyTitle + "orders/s of an audit of all", figure: "audit/all", bar: 300_000,
			explained: "with-ten-million-orders-behind-it"},
		{name: historyTitle + "ms of a page of a user's orders", figure: "page/full", baseline: "page/empty",
			over: over, bar: 20, atMost: true},
		{name: historyTitle + "ms of an order by id", figure: "order/full", baseline: "order/empty", over: over,
			bar: 20, atMost: true},
		{name: historyTitle + "ms of a product with what it sold", figure: "product/full", baseline: "product/empty",
			over: over, bar: 20, atMost: true},
	}
}

// History measures what orders that were decided long ago cost those that come.
type History struct {
	Only     *regexp.Regexp // of measures, by their name or baseline
	Orders   int64          // that were decided before
	Duration time.Duration  // of each measurement
	Rounds   int            // how often each is measured
	Dir      string         // where the tables are kept
}

// Measures reports whether anything that is measured has such a name or baseline.
func (c *History) Measures() bool { return len(c.chosen()) > 0 }

func (c *History) chosen() (all []measure) {
	for _, m := range historyMeasures() {
		if m.matches(c.Only) {
			all = append(all, m)
		}
	}
	return all
}

func (c *History) dir() string { return filepath.Join(c.Dir, fmt.Sprintf("history-%d", c.Orders)) }

// preparedFile says of which time the tables are, once they are complete.
func (c *History) preparedFile() string { return filepath.Join(c.dir(), "prepared") }

// Prepared reports whether the tables are there already.
func (c *History) Prepared() bool {
	_, err := os.Stat(c.preparedFile())
	return err == nil
}

// Run makes the tables unless they are there, measures, prints, and reports whether every bar was met.
func (c *History) Run(ctx context.Context) (met bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, historyLimit)
	defer cancel()
	show := newProgress(os.Stderr)
	start := time.Now()
	if !c.Prepared() {
		if err := c.prepare(ctx, show); err != nil {
			return false, fmt.Errorf("make the tables in %s: %w", c.dir(), err)
		}
	}

	found, err := c.measure(ctx, show)
	if err != nil {
		return false, err
	}
	report := BenchReport{
		StartedAt: start.UTC().Truncate(time.Second), TookS: time.Since(start).Round(time.Second).Seconds(), OK: true,
		Rounds: c.Rounds, DurationS: c.Duration.Seconds(),
		Machine: machine(),
	}
	for _, m := range c.chosen() {
		result := m.judge(found, nil)
		report.OK = report.OK && result.Met
		report.Measures = append(report.Measures, result)
	}
	report.print(os.Stdout)
	return report.OK, nil
}

// historyServer starts the server that holds the tables, with a buffer pool of so many bytes.
func (c *History) server(ctx context.Context, pool int64, more ...string) (*localstack.MariaDB, error) {
	return localstack.StartMariaDB(ctx, localstack.MariaDBOptions{Dir: c.dir(), Args: append([]string{
		"--innodb-buffer-pool-size=" + strconv.FormatInt(pool, 10), "--innodb-log-file-size=512M",
	}, more...)})
}

// prepare makes the tables of a year.
func (c *History) prepare(ctx context.Context, show *progress) (err error) {
	if err := os.RemoveAll(c.dir()); err != nil {
		return err
	}
	server, err := c.server(ctx, 1<<30, "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	db, err := c.migrated(ctx, server, "full")
	if err != nil {
		return err
	}
	defer db.Close()

	// As if it had been migrated with what it sold.
	end := time.Now().Add(-time.Hour).UTC()
	first := end.AddDate(0, -historyMonths, 0)
	if err := db.DivideMonths(ctx, first); err != nil {
		return err
	}
	products := c.Orders / historyPerProduct
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO product_ids SELECT seq FROM seq_1_to_%d`, products),
		fmt.Sprintf(`INSERT INTO products (id, name, description, price, currency, stock, limit_per_user, limit_ceiling,
				state, revision, version, counted, created_at)
			SELECT seq, CONCAT('thing ', seq), '', 1999, 'EUR', 1000, 0, 0, 'on_sale', 1, %d, 1, '%s'
			FROM seq_1_to_%d`, historyPerProduct+1, first.Format(time.DateTime), products),
		fmt.Sprintf(`INSERT INTO stock_ledger SELECT seq, 1, %d, %d, 'initial', 'initial', '%s' FROM seq_1_to_%d`,
			historyPerProduct+1000, historyPerProduct+1000, first.Format(time.DateTime), products),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	for n := int64(0); n < c.Orders; n += historyChunk {
		show.show(n, c.Orders, "making orders, once")
		if err := insertHistory(ctx, db, n, min(n+historyChunk, c.Orders), c.Orders, first, end); err != nil {
			return err
		}
	}
	return os.WriteFile(c.preparedFile(), []byte(end.Format(time.RFC3339)), 0o644)
}

// migrated makes a database with a current schema.
func (c *History) migrated(ctx context.Context, server *localstack.MariaDB, name string) (*mysql.DB, error) {
	if err := server.CreateDatabase(ctx, name); err != nil {
		return nil, err
	}
	db, err := mysql.Open(server.DSN(name) + "?readTimeout=10m")
	if err != nil {
		return nil, err
	}
	_, err = db.Migrate(ctx)
	return db, err
}

// insertHistory makes orders from one to another of so many between two times, each of a user of its own choice, and
// their rows in the ledger.
func insertHistory(ctx context.Context, db *mysql.DB, from, to, of int64, first, end time.Time) error {
	ms := fmt.Sprintf("%d + seq * %d", first.UnixMilli(), max(end.Sub(first).Milliseconds()/of, 1))
	id := fmt.Sprintf(`UNHEX(CONCAT(LPAD(HEX(%s), 12, '0'), '7', LPAD(HEX(seq %% 4096), 3, '0'), '8',
		LPAD(HEX(CRC32(seq)), 15, '0')))`, ms)
	at := fmt.Sprintf(`'1970-01-01' + INTERVAL (%s) * 1000 MICROSECOND`, ms)
	product := fmt.Sprintf("seq DIV %d + 1", historyPerProduct)
	place := fmt.Sprintf("seq MOD %d", historyPerProduct)
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO orders (id, user_id, product_id, quantity, unit_price, currency, status, reserved_at,
				decided_at, version)
			SELECT %s, CRC32(seq) %% %d + 1, %s, 1, 1999, 'EUR', 'completed', %s, %s, %s + 2 FROM seq_%d_to_%d`,
			id, historyUsers, product, at, at, place, from, to-1),
		fmt.Sprintf(`INSERT INTO stock_ledger SELECT %s, %s + 2, -1, %d - (%s), 'order', %s, %s FROM seq_%d_to_%d`,
			product, place, historyPerProduct+999, place, id, at, from, to-1),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// measure starts a server whose buffer pool holds a quarter of the tables, cold, and measures everything on it.
func (c *History) measure(ctx context.Context, show *progress) (found map[string][]float64, err error) {
	size, err := sizeOf(filepath.Join(c.dir(), "data", "full"))
	if err != nil {
		return nil, err
	}
	show.step(fmt.Sprintf("%d orders take %d MB; the buffer pool has %d MB", c.Orders, size>>20, size/poolShare>>20))
	server, err := c.server(ctx, size/poolShare)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	h := historyBench{History: c, found: map[string][]float64{}}
	if h.full, err = mysql.Open(server.DSN("full") + "?readTimeout=10m"); err != nil {
		return nil, err
	}
	defer h.full.Close()
	if err := h.clean(ctx); err != nil {
		return nil, fmt.Errorf("delete what the last run has added: %w", err)
	}
	if err := server.DropDatabase(ctx, "empty"); err != nil {
		return nil, err
	}
	if h.empty, err = c.migrated(ctx, server, "empty"); err != nil {
		return nil, err
	}
	defer h.empty.Close()

	if slices.ContainsFunc(c.chosen(), func(m measure) bool { return probeOf(m.figure) == "audit" }) {
		show.step("auditing")
		if err := h.audit(ctx); err != nil {
			return nil, err
		}
	}
	for round := range c.Rounds {
		show.show(int64(round), int64(c.Rounds), fmt.Sprintf("round %d of %d", round+1, c.Rounds))
		if err := h.round(ctx); err != nil {
			return nil, err
		}
	}
	return h.found, h.clean(ctx)
}

// historyBench is a History while it measures.
type historyBench struct {
	*History
	full, empty *mysql.DB
	found       map[string][]float64
	decided     [2][]order.OrderID // some of the last round, in the full tables and in the empty ones
}

// clean deletes what a run has added to the tables that are kept.
func (h *historyBench) clean(ctx context.Context) error {
	text, err := os.ReadFile(h.preparedFile())
	if err != nil {
		return err
	}
	end, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if _, err := h.full.Migrate(ctx); err != nil {
		return err
	}
	id := order.FirstID(end.Add(time.Minute))
	products := h.Orders / historyPerProduct
	for _, statement := range []string{
		fmt.Sprintf(`DELETE FROM orders WHERE id >= x'%x'`, id[:]),
		fmt.Sprintf(`DELETE FROM stock_ledger WHERE product_id > %d`, products),
		fmt.Sprintf(`DELETE FROM products WHERE id > %d`, products),
		`TRUNCATE TABLE order_keys`, `TRUNCATE TABLE bought`, `TRUNCATE TABLE books`, `TRUNCATE TABLE marks`,
	} {
		if _, err := h.full.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// audit measures an audit of everything, and then one of orders that are new.
func (h *historyBench) audit(ctx context.Context) error {
	books := ledger.New(h.full)
	run := func(all bool) (took time.Duration, err error) {
		start := time.Now()
		audits, err := books.AuditBooks(ctx, ledger.AuditOptions{All: all})
		for _, a := range audits {
			if len(a.Problems) > 0 {
				return 0, fmt.Errorf("product %d: %q", a.ID, a.Problems)
			}
		}
		return time.Since(start), err
	}
	took, err := run(true)
	if err != nil {
		return err
	}
	h.found["audit/all"] = []float64{float64(h.Orders) / took.Seconds()}

	const each = 100
	for range historyNew / each {
		product, err := addSold(ctx, books, 0)
		if err == nil {
			_, err = books.Decide(ctx, product.ID, historyOrders(product.ID, each, false))
		}
		if err != nil {
			return err
		}
	}
	took, err = run(false)
	h.found["audit/new"] = []float64{took.Seconds()}
	return err
}

// round measures everything else once, in the full tables and in the empty ones by turns.
func (h *historyBench) round(ctx context.Context) error {
	for i, db := range []*mysql.DB{h.full, h.empty} {
		books, name := ledger.New(db), [2]string{"/full", "/empty"}[i]
		for _, keyed := range []bool{false, true} {
			perS, err := h.decide(ctx, books, keyed, &h.decided[i])
			if err != nil {
				return err
			}
			figure := map[bool]string{false: "decide", true: "decide keyed"}[keyed] + name
			h.found[figure] = append(h.found[figure], perS)
		}

		reads, err := h.reads(ctx, books, i)
		if err != nil {
			return err
		}
		for figure, read := range reads {
			start := time.Now()
			for range historyReads {
				if err := read(); err != nil {
					return err
				}
			}
			took := float64(time.Since(start).Microseconds()) / 1000 / historyReads
			h.found[figure+name] = append(h.found[figure+name], took)
		}
	}
	return nil
}

// reads are what is read of random old orders, users and products or, in the tables that were empty, of new ones.
func (h *historyBench) reads(ctx context.Context, books *ledger.Ledger, i int) (map[string]func() error, error) {
	products, ids := h.Orders/historyPerProduct, h.decided[i]
	if i == 0 { // a few from everywhere
		ids = nil
		for range historyReads {
			var id mysql.UUID
			err := h.full.GetContext(ctx, &id, `SELECT ref FROM stock_ledger WHERE product_id = ? AND version = ?`,
				1+rand.Int64N(products), 2+rand.Int64N(historyPerProduct))
			if err != nil {
				return nil, err
			}
			ids = append(ids, order.OrderID(id))
		}
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	} else {
		var last order.ProductID
		if err := h.empty.GetContext(ctx, &last, `SELECT MAX(id) FROM products`); err != nil {
			return nil, err
		}
		products = int64(last)
	}
	return map[string]func() error{
		"page": func() error {
			_, err := books.Orders(ctx, order.UserID(1+rand.Int64N(historyUsers)), order.OrderID{}, 20)
			return err
		},
		"order": func() error {
			_, err := books.Order(ctx, ids[rand.IntN(len(ids))])
			return err
		},
		"product": func() error {
			_, err := books.Sales(ctx, []order.ProductID{order.ProductID(1 + rand.Int64N(products))})
			return err
		},
	}, nil
}

// decide measures how many orders are decided a second of a product that nobody has bought, by users who have.
func (h *historyBench) decide(ctx context.Context, books *ledger.Ledger, keyed bool,
	sample *[]order.OrderID) (perS float64, err error) {
	limit := int64(0)
	if keyed {
		limit = 1_000
	}
	product, err := addSold(ctx, books, limit)
	if err != nil {
		return 0, err
	}
	var decided atomic.Int64
	errs := make([]error, historyCallers)
	var all sync.WaitGroup
	start := time.Now()
	for i := range errs {
		all.Go(func() {
			for time.Since(start) < h.Duration && errs[i] == nil {
				orders := historyOrders(product.ID, historyBatch, keyed)
				if _, errs[i] = books.Decide(ctx, product.ID, orders); errs[i] == nil && i == 0 {
					*sample = []order.OrderID{orders[0].ID, orders[historyBatch-1].ID}
				}
				decided.Add(historyBatch)
			}
		})
	}
	all.Wait()
	return float64(decided.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

func addSold(ctx context.Context, books *ledger.Ledger, limit int64) (order.Product, error) {
	return books.AddProduct(ctx, order.Product{
		Name: "new", Price: 1999, Currency: "EUR", Stock: ledger.MaxStock, LimitPerUser: limit,
	})
}

// historyOrders are orders of users of all times.
func historyOrders(stockID order.StockID, n int, keyed bool) []order.Order {
	orders := make([]order.Order, n)
	for i := range orders {
		orders[i] = order.Order{
			ID: order.NewID(), UserID: order.UserID(1 + rand.Int64N(historyUsers)), StockID: stockID, Quantity: 1,
			UnitPrice: 1999, ReservedAt: time.Now(),
		}
		if keyed {
			orders[i].IdempotencyKey = orders[i].ID.String()
		}
	}
	return orders
}

// sizeOf adds up the files of a directory.
func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}
