package lab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/payment"
	"stampede/internal/payment/ecpay"
	"stampede/internal/reconcile"
	"stampede/internal/till"
)

const (
	// unpaidOrders expire together, and expireLimit bounds how long that may take.
	unpaidOrders = 100_000
	expireLimit  = time.Minute
	// payConns are the notices that come at the same time, as in a rush, or the transactions of two rows.
	payConns = 64
	// paidPerS is how many payments are made ready to be recorded for each second: more than there can be.
	paidPerS = 12_000
	// returnTries is how often a unit comes back, and returnLimit how long an edge may take to sell it.
	returnTries = 20
	returnLimit = 5 * time.Second
	// benchPrice is what an order costs that is paid: 300 Taiwan dollars.
	benchPrice = 30_000
)

// paymentMeasures are those of orders that must be paid.
func paymentMeasures() []measure {
	return []measure{
		{name: "unpaid orders/s that expire together, cancelled and on sale again", figure: "expire",
			baseline: "drain", over: "orders/s drained", bar: .5, explained: "orders-that-must-be-paid"},
		{name: "signed notices/s recorded", figure: "record", baseline: "two rows", over: "transactions of two rows",
			bar: .5},
		{name: "ms from a unit that came back to 202 on another edge, at most", figure: "returned", bar: 250,
			atMost: true},
	}
}

func paymentProbes() []probe {
	return []probe{
		{name: "expire", once: true, needs: "drain", run: probeExpire},
		{name: "record", run: probeRecord},
		{name: "two rows", run: probeTwoRows},
		{name: "returned", once: true, run: probeReturned},
	}
}

// heldOrders puts a product on sale whose orders must be paid, and has orders of it decided and settled.
func (s *side) heldOrders(ctx context.Context, n int) (order.Product, []order.Order, error) {
	if err := errors.Join(s.reset(ctx), s.truncate(ctx)); err != nil {
		return order.Product{}, nil, err
	}
	p, err := s.sale.Ledger.AddProduct(ctx, order.Product{
		Name: "Festival pass", Price: benchPrice, Currency: "TWD", Stock: int64(n), Payment: order.PaymentRequired,
	})
	if err == nil {
		err = s.load(ctx, p.ID)
	}
	if err != nil {
		return p, nil, err
	}

	orders := make([]order.Order, n)
	for i := range orders {
		orders[i] = order.Order{
			ID: order.NewID(), UserID: order.UserID(i%benchUsers + 1), StockID: p.ID, Quantity: 1,
			UnitPrice: benchPrice, ReservedAt: time.Now(),
		}
	}
	for from := 0; from < n; from += ledger.MaxBatch {
		decisions, err := s.sale.Ledger.Decide(ctx, p.ID, orders[from:min(from+ledger.MaxBatch, n)])
		if err == nil {
			_, err = s.sale.Stock.Settle(ctx, p.ID, decisions)
		}
		if err != nil {
			return p, nil, err
		}
	}
	return p, orders, nil
}

// probeExpire has many orders wait, and their time be over at the same moment. It takes the time until Redis has all
// units again.
func probeExpire(ctx context.Context, b *bench) (figures, error) {
	p, _, err := b.heldOrders(ctx, unpaidOrders)
	if err != nil {
		return nil, err
	}
	worker, err := b.startWorker(ctx)
	if worker != nil {
		b.later(func() { _ = worker.Kill() })
	}
	defer b.cleanUp()
	if err != nil {
		return nil, err
	}

	past := mysql.Now().Add(-time.Second)
	if _, err := b.db.ExecContext(ctx, `UPDATE holds SET pay_by = ?, due_at = ?`, past, past); err != nil {
		return nil, err
	}
	begin := time.Now()
	b.mark()
	for {
		level, err := b.sale.Stock.Level(ctx, p.ID)
		switch {
		case err != nil:
			return nil, err
		case level.Available == unpaidOrders:
			took := time.Since(begin)
			b.mark()
			return figures{"expire": unpaidOrders / took.Seconds()}, nil
		case time.Since(begin) > expireLimit:
			return nil, fmt.Errorf("%d of %d units were back after %s", level.Available, unpaidOrders, expireLimit)
		}
		wait(ctx, drainLook)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// probeRecord reads signed notices of ECPay and records them, each of an order of its own, as a shop does.
func probeRecord(ctx context.Context, b *bench) (figures, error) {
	n := int(paidPerS * b.o.duration.Seconds())
	_, orders, err := b.heldOrders(ctx, n)
	if err != nil {
		return nil, err
	}
	client := &ecpay.Client{Keys: ecpay.Keys{ // ECPay's public ones
		Merchant: "3002607", HashKey: "pwFHCqoQZGmho4w6", HashIV: "EkRm7iFT261dpevs",
	}}
	db := b.fleet.db
	shop := &till.Till{DB: db, Providers: []payment.Provider{client}, Front: "http://127.0.0.1:1", TestMode: true}
	if err := b.beginPayments(ctx, orders); err != nil {
		return nil, err
	}
	bodies := make([][]byte, n)
	for i := range bodies {
		form := url.Values{
			"MerchantID": {client.Keys.Merchant}, "MerchantTradeNo": {benchNumber(i)}, "RtnCode": {"1"},
			"RtnMsg": {"paid"}, "TradeNo": {strconv.Itoa(i)}, "TradeAmt": {strconv.Itoa(benchPrice / 100)},
			"PaymentDate": {"2026/11/28 18:00:05"}, "PaymentType": {"Credit_CreditCard"}, "SimulatePaid": {"0"},
			"PaymentTypeChargeFee": {"8"}, "TradeDate": {"2026/11/28 18:00:00"},
		}
		form.Set("CheckMacValue", client.Keys.Sign(form))
		bodies[i] = []byte(form.Encode())
	}

	perSecond, err := b.inParallel(ctx, n, func(ctx context.Context, i int) error {
		notice, err := client.ReadNotice(ctx, nil, bodies[i])
		if err != nil {
			return err
		}
		outcome, err := shop.Record(ctx, client.Name(), notice, till.FromNotice, bodies[i])
		if err == nil && outcome != till.OutcomeCompleted {
			err = fmt.Errorf("a notice was recorded as %s", outcome)
		}
		return err
	})
	return figures{"record": perSecond}, err
}

// benchNumber is the number of an attempt.
func benchNumber(i int) string { return fmt.Sprintf("BENCH%015d", i) }

// beginPayments writes an attempt for each order, as the shop does when it is paid.
func (s *side) beginPayments(ctx context.Context, orders []order.Order) error {
	for from := 0; from < len(orders); from += ledger.MaxBatch {
		text := []byte(`INSERT INTO payments (number, provider, method, user_id, order_id, amount, currency, item,
			state, fee, expires_at, created_at, tries) VALUES `)
		for i := from; i < min(from+ledger.MaxBatch, len(orders)); i++ {
			text = fmt.Appendf(text, "('%s','ecpay','',%d,x'%x',%d,'TWD','Festival pass','open',"+
				"0,NOW(3) + INTERVAL 1 HOUR,NOW(6),0),", benchNumber(i), orders[i].UserID, orders[i].ID[:], benchPrice)
		}
		if _, err := s.db.ExecContext(ctx, string(text[:len(text)-1])); err != nil {
			return err
		}
	}
	_, err := s.db.ExecContext(ctx, `UPDATE holds SET attempts = 1`)
	return err
}

// inParallel calls f for 0 to n-1 in order, by payConns at the same time, for as long as a measurement lasts, and
// returns how often a second that succeeded.
func (b *bench) inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) (float64, error) {
	var next, done atomic.Int64
	errs := make([]error, payConns)
	var all sync.WaitGroup
	b.mark()
	begin := time.Now()
	end := begin.Add(b.o.duration)
	for conn := range errs {
		all.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[conn] = f(ctx, i); errs[conn] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	b.mark()
	return float64(done.Load()) / took.Seconds(), errors.Join(errs...)
}

// probeTwoRows writes two rows in each transaction, of about what a payment writes, and looks at nothing.
func probeTwoRows(ctx context.Context, b *bench) (figures, error) {
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS bench_events (id VARBINARY(32) PRIMARY KEY, body BLOB)`,
		`CREATE TABLE IF NOT EXISTS bench_orders (id VARBINARY(32) PRIMARY KEY, state VARCHAR(16))`,
		`TRUNCATE TABLE bench_events`, `TRUNCATE TABLE bench_orders`,
	} {
		if _, err := b.db.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	body := make([]byte, 400)
	perSecond, err := b.inParallel(ctx, 1<<30, func(ctx context.Context, i int) error {
		tx, err := b.db.BeginTxx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // after a commit it does nothing
		_, err = tx.ExecContext(ctx, `INSERT INTO bench_events (id, body) VALUES (?, ?)`, []byte(benchNumber(i)), body)
		if err == nil {
			_, err = tx.ExecContext(ctx, `INSERT INTO bench_orders (id, state) VALUES (?, 'paid')`,
				[]byte(benchNumber(i)))
		}
		if err != nil {
			return err
		}
		return tx.Commit()
	})
	return figures{"two rows": perSecond}, err
}

// probeReturned has an edge refuse orders of the last unit, which somebody holds, until that is cancelled elsewhere,
// and takes the time until the edge sells it: the longest of some tries.
func probeReturned(ctx context.Context, b *bench) (figures, error) {
	var longest time.Duration
	for range returnTries {
		p, orders, err := b.heldOrders(ctx, 1)
		if err != nil {
			return nil, err
		}
		request := b.requests(p.ID)[:1]
		l := rawLoad{addr: b.edge, conns: 1, requests: request}
		if counts, err := l.count(ctx, 2); err != nil || counts.only(fasthttp.StatusConflict) != nil {
			return nil, errors.Join(err, counts.only(fasthttp.StatusConflict)) // which the edge remembers now
		}

		begin := time.Now()
		returned, _, err := b.sale.Ledger.CancelOrder(ctx, orders[0].ID, ledger.ByBuyer)
		if err == nil {
			_, err = reconcile.Return(ctx, b.sale.Stock, b.sale.Ledger, p.ID, returned)
		}
		if err != nil {
			return nil, err
		}
		for {
			counts, err := l.count(ctx, 1)
			if err != nil {
				return nil, err
			}
			if counts.only(fasthttp.StatusAccepted) == nil {
				break
			}
			if time.Since(begin) > returnLimit {
				return nil, fmt.Errorf("a unit that came back was not sold within %s", returnLimit)
			}
		}
		longest = max(longest, time.Since(begin))
	}
	return figures{"returned": milliseconds(longest)}, nil
}
