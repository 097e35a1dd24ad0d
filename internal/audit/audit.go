// Package audit checks the promises of docs/design.md in what Redis, the queue and MySQL hold of a sale.
package audit

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
)

const (
	// doubt is for how long nothing of a product must have changed for a difference to be believed: MySQL and Redis are
	// read one after the other, and a worker may be between its commit and its settle.
	doubt = time.Second
	// doubtOfSQS is that of reservations without a message. The counts of SQS may be a minute old (Amazon SQS Developer
	// Guide, "Available CloudWatch metrics"); those of an emulator are exact.
	doubtOfSQS = 75 * time.Second
	// maxLooks bounds how often a product whose numbers keep changing is looked at.
	maxLooks = 10
)

// Sale is the three places that hold a sale.
type Sale struct {
	DB     *mysql.DB
	Ledger *ledger.Ledger // of the same database
	Stock  *stock.Stock
	Queue  *queue.Queue
}

// Report is what an audit found.
type Report struct {
	OK bool `json:"ok"`
	// Quiet is false while orders are on their way; conservation cannot be judged then.
	Quiet    bool        `json:"quiet"`
	Queue    queue.Depth `json:"queue"`
	Products []Product   `json:"products"`
	// Returning are orders whose units MySQL has taken back, and Redis not yet.
	Returning int64 `json:"returning_orders,omitempty"`
	// Money is what has become of what was paid, of each currency.
	Money []Money `json:"money"`
	// Compared says of each promise what was looked at.
	Compared []Comparison `json:"compared"`
	// Problems holds every problem of every product, and those of the system.
	Problems []string `json:"problems"`

	payments payments
}

// Product is what is in MySQL and in Redis of a product, and what does not fit. Of a split product it has the sums
// over its buckets.
type Product struct {
	ID             order.StockID `json:"product_id"`
	Name           string        `json:"name"`
	Buckets        int64         `json:"buckets,omitempty"`
	Stock          int64         `json:"mysql_stock"`
	Initial        int64         `json:"initial"`
	Restocked      int64         `json:"restocked"`
	CompletedUnits int64         `json:"completed_units"`
	Completed      int64         `json:"completed_orders"`
	Failed         int64         `json:"failed_orders"`
	// Held are those of the completed orders that must be paid, and Cancelled those of them that were not. Returned are
	// the units that were taken back.
	Held         int64 `json:"held_orders,omitempty"`
	Cancelled    int64 `json:"cancelled_orders,omitempty"`
	Returned     int64 `json:"returned_units,omitempty"`
	DecidedTwice int64 `json:"decided_twice"`
	OverLimit    int64 `json:"users_over_limit"`
	// BucketsLoaded is how many of the buckets Redis has; Available is theirs.
	BucketsLoaded int64 `json:"buckets_loaded,omitempty"`
	// Loaded reports whether Redis has the product's stock; of a split product, that of any bucket.
	Loaded     bool     `json:"redis_loaded"`
	Available  int64    `json:"redis_available"`
	Reserved   int64    `json:"redis_reserved"`
	InTransfer int64    `json:"redis_lent"`
	Outbox     int64    `json:"redis_outbox"`
	Problems   []string `json:"problems"`
}

// Audit checks promises P1, P3, P4, P5 and P7 (docs/design.md) for every product, and P9, P10 and P12 for all payments.
func (s Sale) Audit(ctx context.Context) (Report, error) {
	var report Report
	var err error
	if report.Queue, err = s.Queue.Depth(ctx); err != nil {
		return report, err
	}
	if report.Returning, err = s.returning(ctx); err != nil {
		return report, err
	}
	products, err := s.Ledger.Audit(ctx)
	if err != nil {
		return report, err
	}

	report.Quiet = report.Queue.Empty() && report.Returning == 0
	var moving []order.StockID
	for _, m := range products {
		level, err := s.Stock.Level(ctx, m.ID)
		if err != nil {
			return report, err
		}

		a := booksOf(m)
		now := standing{level, m.Stock}
		if report.Quiet && (level.Moving || len(now.differences()) > 0) {
			// The books were read at one moment, and Redis at another.
			still, err := s.lookAgain(ctx, m.ID, &now)
			if err != nil {
				return report, err
			}
			if still {
				a.Problems = append(a.Problems, now.differences()...)
			} else {
				moving = append(moving, m.ID)
			}
		}

		a.Problems = append(a.Problems, s.Excess(ctx, m.ID)...)
		level = now.level
		a.Loaded, a.Available, a.Reserved, a.Outbox, a.InTransfer = level.Loaded, level.Available, level.Reserved,
			level.Outbox, level.InTransfer
		report.add(a)
	}

	report.Problems = report.ofProducts()
	if err := report.addPayments(ctx, s.DB); err != nil {
		return report, err
	}
	report.compare(true)
	switch {
	case !report.Queue.Empty():
		report.Problems = append(report.Problems, fmt.Sprintf(
			"orders are on their way (%d messages wait, %d are being worked, %d are delayed), so that Redis and "+
				"MySQL cannot be compared: wait, or use --wait",
			report.Queue.Visible, report.Queue.InFlight, report.Queue.Delayed))
	case report.Returning > 0:
		report.Problems = append(report.Problems, fmt.Sprintf(
			"the units of %d orders are being put on sale again, so that Redis and MySQL cannot be compared: wait, or "+
				"use --wait", report.Returning))
	case len(moving) > 0:
		report.Quiet = false
		report.Problems = append(report.Problems, fmt.Sprintf(
			"products %v changed with every look, so that Redis and MySQL cannot be compared: wait, or use --wait",
			moving))
	}
	report.OK = len(report.Problems) == 0
	return report, nil
}

// returning counts orders whose units MySQL has taken back, and Redis not yet: those that workers do not put on sale in
// a moment.
func (s Sale) returning(ctx context.Context) (orders int64, err error) {
	for deadline := time.Now().Add(doubt); ; {
		if orders, err = s.Ledger.CountReturning(ctx); err != nil || orders == 0 || time.Now().After(deadline) {
			return orders, err
		}
		select {
		case <-ctx.Done():
			return orders, ctx.Err()
		case <-time.After(quietInterval):
		}
	}
}

// Excess says by how much the buyers of a product count as having more than they have by their orders. Of a product
// that is busy nothing can be said.
func (s Sale) Excess(ctx context.Context, id order.StockID) (problems []string) {
	r := reconcile.Reconciler{Redis: s.Stock, MySQL: s.Ledger}
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
func (s Sale) lookAgain(ctx context.Context, id order.StockID, now *standing) (still bool, err error) {
	since := time.Now()
	for looks := 0; looks < maxLooks; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(quietInterval):
		}

		next, err := s.standing(ctx, id)
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
func (s Sale) standing(ctx context.Context, id order.StockID) (standing, error) {
	stocks, err := s.Ledger.Stocks(ctx, []order.StockID{id})
	if err != nil {
		return standing{}, err
	}
	level, err := s.Stock.Level(ctx, id)
	return standing{level, stocks[id]}, err
}

// doubt is for how long the standing must have lasted for its differences to be believed.
func (s standing) doubt() time.Duration {
	emulated := os.Getenv("AWS_ENDPOINT_URL_SQS") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	if !emulated && (s.level.Reservations > 0 || s.level.Outbox > 0) {
		return doubtOfSQS
	}
	return doubt
}

// Books checks what MySQL alone can prove, wherever its rows are: a restored backup has no Redis and no queue. It
// begins with the last checkpoint, unless the options say otherwise, and leaves one behind if all is well.
func Books(ctx context.Context, db *mysql.DB, options ledger.AuditOptions) (Report, error) {
	var report Report
	products, err := ledger.New(db).AuditBooks(ctx, options)
	if err != nil {
		return report, err
	}
	for _, m := range products {
		report.add(booksOf(m))
	}
	report.Problems = report.ofProducts()
	if err := report.addPayments(ctx, db); err != nil {
		return report, err
	}
	report.compare(false)
	report.OK = len(report.Problems) == 0
	return report, nil
}

// booksOf is what MySQL alone says of a product.
func booksOf(m ledger.ProductAudit) Product {
	return Product{
		ID: m.ID, Name: m.Name, Stock: m.Stock, Initial: m.Initial, Restocked: m.Restocked,
		CompletedUnits: m.CompletedUnits, Completed: m.CompletedOrders, Failed: m.FailedOrders,
		Held: m.HeldOrders, Cancelled: m.CancelledOrders, Returned: m.ReturnedUnits,
		DecidedTwice: m.DecidedTwice, OverLimit: m.UsersOverLimit, Buckets: m.Buckets,
		Problems: append([]string{}, m.Problems...),
	}
}

// ofProducts lists the problems of all products.
func (r *Report) ofProducts() []string {
	all := []string{}
	for _, a := range r.Products {
		for _, problem := range a.Problems {
			all = append(all, fmt.Sprintf("product %d: %s", a.ID, problem))
		}
	}
	return all
}

// add adds a product or, to the product that it belongs to, a bucket. A product comes before its buckets, if it exists.
func (r *Report) add(a Product) {
	bucket, whole := a.ID.Bucket(), a.ID.Product()
	i := slices.IndexFunc(r.Products, func(p Product) bool { return p.ID == whole.Stock() })
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
	p.Held += a.Held
	p.Cancelled += a.Cancelled
	p.Returned += a.Returned
	p.DecidedTwice += a.DecidedTwice
	p.Loaded = p.Loaded || a.Loaded
	if a.Loaded && int64(bucket) <= p.Buckets {
		p.BucketsLoaded++
	}

	p.Available += a.Available
	p.Reserved += a.Reserved
	p.InTransfer += a.InTransfer
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
	if level.InTransfer > 0 {
		problems = append(problems, fmt.Sprintf("%d units are lent by moves to other buckets, or by corrections, "+
			"that were not finished", level.InTransfer))
	}
	if held := level.Available + level.Reserved + level.InTransfer; level.Loaded && held != s.stock {
		problems = append(problems, fmt.Sprintf("redis has %d available + %d reserved + %d lent = %d units, "+
			"mysql has %d",
			level.Available, level.Reserved, level.InTransfer, held, s.stock))
	}
	return problems
}
