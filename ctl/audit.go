package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
)

const (
	// quietInterval is how often a system that is not quiet is looked at again.
	quietInterval = 100 * time.Millisecond
	// quietLooks is how often in a row it must look quiet: a message may be between two counters.
	quietLooks = 3
	// doubt is for how long nothing of a product must have changed for a difference to be believed: MySQL and Redis are
	// read one after the other, and a worker may be between its commit and its settle.
	doubt = time.Second
	// doubtOfSQS is that of reservations without a message. The counts of SQS may be a minute old (Amazon SQS Developer
	// Guide, "Available CloudWatch metrics"); those of an emulator are exact.
	doubtOfSQS = 75 * time.Second
	// maxLooks bounds how often a product whose numbers keep changing is looked at.
	maxLooks = 10
)

// parts are the three places that hold a sale.
type parts struct {
	db       *mysql.DB
	ledger   *ledger.Ledger
	accounts *account.Accounts
	stock    *stock.Stock
	queue    *queue.Queue
}

// newParts are the parts that are made of MySQL and Redis; needsAll adds the queue.
func newParts(db *mysql.DB, st *stock.Stock) parts {
	return parts{db: db, ledger: ledger.New(db), accounts: account.New(db), stock: st}
}

func (p parts) close() {
	p.stock.Close()
	p.db.Close()
}

// auditReport is what an audit found.
type auditReport struct {
	OK bool `json:"ok"`
	// Quiet is false while orders are on their way; conservation cannot be judged then.
	Quiet    bool           `json:"quiet"`
	Queue    queue.Depth    `json:"queue"`
	Products []productAudit `json:"products"`
	// Problems holds every problem of every product, and those of the system.
	Problems []string `json:"problems"`
}

// productAudit is what is in MySQL and in Redis of a product, and what does not fit. Of a split product it has the sums
// over its buckets.
type productAudit struct {
	ID             int64  `json:"product_id"`
	Name           string `json:"name"`
	Buckets        int64  `json:"buckets,omitempty"`
	Stock          int64  `json:"mysql_stock"`
	Initial        int64  `json:"initial"`
	Restocked      int64  `json:"restocked"`
	CompletedUnits int64  `json:"completed_units"`
	Completed      int64  `json:"completed_orders"`
	Failed         int64  `json:"failed_orders"`
	DecidedTwice   int64  `json:"decided_twice"`
	OverLimit      int64  `json:"users_over_limit"`
	// BucketsLoaded is how many of the buckets Redis has; Available is theirs.
	BucketsLoaded int64 `json:"buckets_loaded,omitempty"`
	// Loaded tells whether Redis has the product's stock; of a split product, that of any bucket.
	Loaded    bool     `json:"redis_loaded"`
	Available int64    `json:"redis_available"`
	Reserved  int64    `json:"redis_reserved"`
	Lent      int64    `json:"redis_lent"`
	Outbox    int64    `json:"redis_outbox"`
	Problems  []string `json:"problems"`
}

// audit checks promises P1, P3, P4, P5 and P7 (docs/design.md) for every product.
func (p parts) audit(ctx context.Context) (auditReport, error) {
	var report auditReport
	var err error
	if report.Queue, err = p.queue.Depth(ctx); err != nil {
		return report, err
	}
	products, err := p.ledger.Audit(ctx)
	if err != nil {
		return report, err
	}

	report.Quiet = report.Queue.Empty()
	var moving []int64
	for _, m := range products {
		level, err := p.stock.Level(ctx, m.ID)
		if err != nil {
			return report, err
		}
		a := booksOf(m)
		now := standing{level, m.Stock}
		if report.Queue.Empty() && (level.Moving || len(now.differences()) > 0) {
			// The books were read at one moment, and Redis at another.
			still, err := p.lookAgain(ctx, m.ID, &now)
			if err != nil {
				return report, err
			}
			if still {
				a.Problems = append(a.Problems, now.differences()...)
			} else {
				moving = append(moving, m.ID)
			}
		}
		a.Problems = append(a.Problems, p.excess(ctx, m.ID)...)
		level = now.level
		a.Loaded, a.Available, a.Reserved, a.Outbox, a.Lent = level.Loaded, level.Available, level.Reserved,
			level.Outbox, level.Lent
		report.add(a)
	}

	report.Problems = report.ofProducts()
	switch {
	case !report.Queue.Empty():
		report.Problems = append(report.Problems, fmt.Sprintf(
			"orders are on their way (%d messages wait, %d are being worked, %d are delayed), so that Redis and "+
				"MySQL cannot be compared: wait, or use --wait",
			report.Queue.Visible, report.Queue.InFlight, report.Queue.Delayed))
	case len(moving) > 0:
		report.Quiet = false
		report.Problems = append(report.Problems, fmt.Sprintf(
			"products %v changed with every look, so that Redis and MySQL cannot be compared: wait, or use --wait",
			moving))
	}
	report.OK = len(report.Problems) == 0
	return report, nil
}

// excess says by how much the buyers of a product count as having more than they have by their orders. Of a product
// that is busy nothing can be said.
func (p parts) excess(ctx context.Context, id int64) (problems []string) {
	r := reconcile.Reconciler{Redis: p.stock, MySQL: p.ledger}
	report, err := r.Product(ctx, id)
	for _, f := range report.Findings {
		if f.Cause == reconcile.Bought {
			problems = append(problems, fmt.Sprintf(
				"%d buyers count as having %d units more than their orders have, and are refused as many", f.Orders,
				f.Units))
		}
	}
	if err != nil { // what else is wrong with it is for the audit to say
		problems = append(problems, fmt.Sprintf("what buyers have could not be compared with their orders: %v", err))
	}
	return problems
}

// standing is what Redis holds of a product beside its stock in MySQL. Two that are equal, with time in between, say
// that nothing has moved.
type standing struct {
	level stock.Level
	stock int64
}

// lookAgain looks at a product that differs until it does not differ any more, or nothing has changed for as long as a
// difference must stand. It reports false if the product kept changing; now is then the last look.
func (p parts) lookAgain(ctx context.Context, id int64, now *standing) (still bool, err error) {
	since := time.Now()
	for looks := 0; looks < maxLooks; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(quietInterval):
		}
		next, err := p.standing(ctx, id)
		if err != nil {
			return false, err
		}
		if next != *now || next.level.Moving {
			*now, since = next, time.Now()
			looks++
		}
		if !now.level.Moving && len(now.differences()) == 0 || time.Since(since) >= now.doubt() {
			return true, nil
		}
	}
	return false, nil
}

// standing reads a product in MySQL and then in Redis. A difference that comes of what happens in between does not
// last.
func (p parts) standing(ctx context.Context, id int64) (s standing, err error) {
	stocks, err := p.ledger.Stocks(ctx, []int64{id})
	if err != nil {
		return s, err
	}
	s.stock = stocks[id]
	s.level, err = p.stock.Level(ctx, id)
	return s, err
}

// doubt is for how long the standing must have lasted for its differences to be believed.
func (s standing) doubt() time.Duration {
	emulated := os.Getenv("AWS_ENDPOINT_URL_SQS") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	if !emulated && (s.level.Reservations > 0 || s.level.Outbox > 0) {
		return doubtOfSQS
	}
	return doubt
}

// booksOf is what MySQL alone says of a product.
func booksOf(m ledger.ProductAudit) productAudit {
	return productAudit{
		ID: m.ID, Name: m.Name, Stock: m.Stock, Initial: m.Initial, Restocked: m.Restocked,
		CompletedUnits: m.CompletedUnits, Completed: m.CompletedOrders, Failed: m.FailedOrders,
		DecidedTwice: m.DecidedTwice, OverLimit: m.UsersOverLimit, Buckets: m.Buckets,
		Problems: append([]string{}, m.Problems...),
	}
}

// ofProducts lists the problems of all products.
func (r *auditReport) ofProducts() []string {
	all := []string{}
	for _, a := range r.Products {
		for _, problem := range a.Problems {
			all = append(all, fmt.Sprintf("product %d: %s", a.ID, problem))
		}
	}
	return all
}

// add adds a product or, to the product that it belongs to, a bucket. A product comes before its buckets, if it exists.
func (r *auditReport) add(a productAudit) {
	bucket, whole := order.BucketOf(a.ID), order.ProductOf(a.ID)
	i := slices.IndexFunc(r.Products, func(p productAudit) bool { return p.ID == whole })
	if bucket == 0 || i < 0 {
		r.Products = append(r.Products, a)
		return
	}
	p := &r.Products[i]
	p.Stock += a.Stock
	p.Initial += a.Initial
	p.Restocked += a.Restocked
	p.CompletedUnits += a.CompletedUnits
	p.Completed += a.Completed
	p.Failed += a.Failed
	p.DecidedTwice += a.DecidedTwice
	p.Loaded = p.Loaded || a.Loaded
	if a.Loaded && int64(bucket) <= p.Buckets {
		p.BucketsLoaded++
	}
	p.Available += a.Available
	p.Reserved += a.Reserved
	p.Lent += a.Lent
	p.Outbox += a.Outbox
	for _, problem := range a.Problems {
		p.Problems = append(p.Problems, fmt.Sprintf("bucket %d: %s", bucket, problem))
	}
}

// differences are what must not be between Redis and MySQL when no order is on its way.
func (s standing) differences() (problems []string) {
	level := s.level
	if level.Reservations > 0 {
		problems = append(problems, fmt.Sprintf("%d units in %d orders are reserved though no order is on its way",
			level.Reserved, level.Reservations))
	}
	if level.Outbox > 0 {
		problems = append(problems, fmt.Sprintf("%d orders are in the outbox", level.Outbox))
	}
	if level.Lent > 0 {
		problems = append(problems, fmt.Sprintf("%d units are lent by moves to other buckets, or by corrections, "+
			"that were not finished", level.Lent))
	}
	if held := level.Available + level.Reserved + level.Lent; level.Loaded && held != s.stock {
		problems = append(problems, fmt.Sprintf("redis has %d available + %d reserved + %d lent = %d units, "+
			"mysql has %d",
			level.Available, level.Reserved, level.Lent, held, s.stock))
	}
	return problems
}

// look is how busy the system is.
type look struct {
	queue queue.Depth
	// available, reserved, lent and outbox are summed up over the loaded products.
	available, reserved, lent, outbox int64
}

func (l look) quiet() bool {
	return l.queue.Empty() && l.reserved == 0 && l.lent == 0 && l.outbox == 0
}

func (p parts) look(ctx context.Context) (l look, err error) {
	if l.queue, err = p.queue.Depth(ctx); err != nil {
		return l, err
	}
	products, err := p.stock.Products(ctx)
	if err != nil {
		return l, err
	}
	for _, id := range products {
		level, err := p.stock.Level(ctx, id)
		if err != nil {
			return l, err
		}
		l.available += level.Available
		l.reserved += level.Reserved
		l.lent += level.Lent
		l.outbox += level.Outbox
	}
	return l, nil
}

// waitQuiet returns when the system has looked quiet several times in a row, or after wait. It calls
// tell with every look.
func (p parts) waitQuiet(ctx context.Context, wait time.Duration, tell func(look)) error {
	deadline := time.Now().Add(wait)
	for quiet := 0; quiet < quietLooks && time.Now().Before(deadline); {
		l, err := p.look(ctx)
		if err != nil {
			return err
		}
		tell(l)
		if quiet++; !l.quiet() {
			quiet = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietInterval):
		}
	}
	return nil
}

type auditCmd struct {
	Wait time.Duration `placeholder:"DURATION" help:"How long to wait for orders that are on their way, such as 30s."`
	jsonFlag
	needsAll
}

func (c *auditCmd) Run(ctx context.Context) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.waitQuiet(ctx, c.Wait, func(look) {}); err != nil {
		return err
	}
	report, err := p.audit(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(report); err != nil {
			return err
		}
	} else {
		report.print()
	}
	if !report.OK {
		return errBroken
	}
	return nil
}

// auditBooksCmd checks what MySQL alone can prove, wherever its rows are: a restored backup has no Redis and no queue.
type auditBooksCmd struct{ needsMySQL }

func (c *auditBooksCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	products, err := ledger.New(db).Audit(ctx)
	if err != nil {
		return err
	}
	var report auditReport
	for _, m := range products {
		report.add(booksOf(m))
	}
	report.Problems = report.ofProducts()
	report.OK = len(report.Problems) == 0

	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "product\tinitial\trestocked\tcompleted\tmysql stock\torders\tfailed\t")
	for _, a := range report.Products {
		fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", a.ID, a.Initial, a.Restocked, a.CompletedUnits, a.Stock,
			a.Completed+a.Failed, a.Failed)
	}
	tab.Flush()
	fmt.Println()
	report.printVerdict()
	if !report.OK {
		return errBroken
	}
	return nil
}

// available is what Redis has, and of how many buckets if it is not all of them.
func (a productAudit) available() string {
	if a.Loaded && a.BucketsLoaded < a.Buckets {
		return fmt.Sprintf("%d in %d of %d buckets", a.Available, a.BucketsLoaded, a.Buckets)
	}
	return orDash(a.Loaded, a.Available)
}

// print writes the report as a table and a list of problems.
func (r auditReport) print() {
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "product\tinitial\trestocked\tcompleted\tmysql stock\tredis "+
		"available\treserved\toutbox\torders\tfailed\t")
	for _, a := range r.Products {
		fmt.Fprintf(tab, "%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t\n", a.ID, a.Initial, a.Restocked, a.CompletedUnits,
			a.Stock,
			a.available(), a.Reserved, a.Outbox, a.Completed+a.Failed, a.Failed)
	}
	tab.Flush()
	fmt.Printf("\nqueue: %d waiting, %d being worked, %d delayed; dead letters: %d\n", r.Queue.Visible,
		r.Queue.InFlight, r.Queue.Delayed, r.Queue.Dead)
	r.printVerdict()
}

func (r auditReport) printVerdict() {
	if r.OK {
		fmt.Println("audit: ok")
		return
	}
	fmt.Println("audit: FAILED")
	for _, problem := range r.Problems {
		fmt.Println("  -", problem)
	}
}
