package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

const (
	// auditRows is how many rows of the ledger one statement of the audit is to read, so that it can tell how far it
	// is.
	auditRows = 500_000
	// auditPace is how long one statement that reads orders is to take.
	auditPace = time.Second
	// maxAuditSlice bounds the time whose orders one statement reads.
	maxAuditSlice = 10 * 365 * 24 * time.Hour
)

// readRows sums up orders and ledger, both at once if everything is read and two connections see the same.
func (a *auditor) readRows(ctx context.Context) error {
	if !a.books.since.IsZero() {
		return inOrder(ctx, a.readOrders, a.readHeads, a.readLedger)
	}
	err := a.noteHeads(ctx, `SELECT product_id, MAX(version) AS version FROM stock_ledger GROUP BY product_id`)
	if err != nil {
		return err
	}
	if a.ledgerTx == a.tx {
		return inOrder(ctx, a.readLedger, a.readOrders)
	}
	parts := a.parts()
	ended := make(chan error, 1)
	go func() { ended <- a.readParts(ctx, parts) }()
	return errors.Join(a.readOrders(ctx), <-ended)
}

// readProducts reads the products. Those that are not in the table are known by the books, the orders and the ledger.
func (a *auditor) readProducts(ctx context.Context) error {
	var products []productFacts
	err := a.tx.SelectContext(ctx, &products, `SELECT id AS product_id, name, stock, version, buckets, counted,
		limit_ceiling FROM products`)
	if err != nil {
		return err
	}
	for _, p := range products {
		a.of(p.StockID).productFacts = p
	}

	for id, row := range a.books.rows {
		a.of(id).head = row.Version
	}
	return nil
}

// readHeads reads where the ledger ends, of the products that are not as in the books: a look at each product would
// read most pages of the ledger. It comes after the orders, which change a product as well.
func (a *auditor) readHeads(ctx context.Context) error {
	var changed []order.StockID
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		base, known := a.books.rows[id]
		f := a.findings[id]
		if !known || f.touched || f.Version != base.Version || f.Stock != base.Balance || !f.Name.Valid {
			changed = append(changed, id)
		}
	}
	for chunk := range slices.Chunk(changed, mysql.MaxInList) {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = id
		}
		const last = ` UNION ALL (SELECT product_id, version FROM stock_ledger FORCE INDEX (PRIMARY)
			WHERE product_id = ? ORDER BY version DESC LIMIT 1)`
		if err := a.noteHeads(ctx, strings.Repeat(last, len(chunk))[len(" UNION ALL "):], args...); err != nil {
			return err
		}
	}
	return nil
}

// noteHeads runs a query of last versions.
func (a *auditor) noteHeads(ctx context.Context, query string, args ...any) error {
	var heads []struct {
		StockID order.StockID `db:"product_id"`
		Version int64         `db:"version"`
	}
	if err := a.tx.SelectContext(ctx, &heads, query, args...); err != nil {
		return err
	}
	for _, head := range heads {
		a.of(head.StockID).head = head.Version
	}
	return nil
}

// versions is a part of a product's ledger.
type versions struct {
	stockID     order.StockID
	after, upTo int64
}

// readLedger sums up the rows of the ledger that the books do not have.
func (a *auditor) readLedger(ctx context.Context) error { return a.readParts(ctx, a.parts()) }

// parts are what the books do not have of the ledger.
func (a *auditor) parts() (parts []versions) {
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		f := a.findings[id]
		base := a.books.rows[id]
		if f.head == base.Version && f.Version == base.Version && f.Stock == base.Balance {
			continue
		}
		for after := base.Version; after < f.head; after += auditRows {
			parts = append(parts, versions{id, after, min(after+auditRows, f.head)})
		}
	}
	return parts
}

// argsOf are what a statement says of each part: product, version after which it begins, and last version.
func argsOf(parts []versions) []any {
	args := make([]any, 0, 3*len(parts))
	for _, p := range parts {
		args = append(args, p.stockID, p.after, p.upTo)
	}
	return args
}

func (a *auditor) readParts(ctx context.Context, parts []versions) error {
	var done int64
	for len(parts) > 0 {
		// As many parts as make a statement, one at least.
		n, rows := 0, int64(0)
		for n < len(parts) && n < mysql.MaxInList && (n == 0 || rows < auditRows) {
			rows += parts[n].upTo - parts[n].after
			n++
		}
		read, err := a.sumLedger(ctx, parts[:n])
		if err != nil {
			return err
		}
		done += read
		a.progress("stock_ledger", done)
		parts = parts[n:]
	}
	return nil
}

// ledgerSums are over the rows of one reason, of one product or, where the reason is empty, over all of its rows.
type ledgerSums struct {
	StockID     order.StockID `db:"product_id"`
	Reason      string        `db:"reason"`
	Rows        int64         `db:"ledger_rows"`
	Delta       int64         `db:"delta"`
	LeastDelta  int64         `db:"least_delta"`
	MostDelta   int64         `db:"most_delta"`
	Zeros       int64         `db:"zeros"`
	MostVersion int64         `db:"most_version"`

	LeastBalance int64 `db:"least_balance"`
	Links        int64 `db:"links"`
	Orders       int64 `db:"orders"`
	Booked       int64 `db:"booked_sum"`
	Returned     int64 `db:"returned_sum"`
}

// sumLedger reads all rows in one go, in the order of the table, and then again, by their index, the few that are no
// orders: to tell reasons apart in all of them takes as long as all the rest.
func (a *auditor) sumLedger(ctx context.Context, parts []versions) (rows int64, err error) {
	args := argsOf(parts)
	var sums []ledgerSums
	err = a.ledgerTx.SelectContext(ctx, &sums, `SELECT product_id, COUNT(*) AS ledger_rows, SUM(delta) AS delta,
			MIN(balance) AS least_balance, SUM(`+sumOfLink+`) AS links, SUM(reason = 'order') AS orders,
			SUM(CASE WHEN reason = 'order' THEN `+sumOfBooked+` ELSE 0 END) AS booked_sum,
			MAX(CASE WHEN reason = 'order' THEN delta ELSE -1 END) AS most_delta
		FROM stock_ledger FORCE INDEX (PRIMARY)
		WHERE `+strings.Repeat(" OR product_id = ? AND version > ? AND version <= ?", len(parts))[4:]+`
		GROUP BY product_id`, args...)
	if err != nil {
		return 0, err
	}

	others := map[order.StockID]int64{} // rows that are no orders, and of which the reason is not known yet
	for _, s := range sums {
		f := a.of(s.StockID)
		f.rows += s.Rows
		f.delta += s.Delta
		f.links += s.Links - s.Rows*linkOffset
		f.sums.Booked += s.Orders
		f.sums.BookedSum += s.Booked
		f.oddLedger = f.oddLedger || s.LeastBalance < 0 || s.MostDelta >= 0
		rows += s.Rows
		if s.Rows > s.Orders {
			others[s.StockID] = s.Rows - s.Orders
		}
	}

	parts = slices.DeleteFunc(slices.Clone(parts), func(p versions) bool { return others[p.stockID] == 0 })
	if err := a.sumOthers(ctx, parts, others); err != nil {
		return 0, err
	}
	for id, n := range others {
		if n != 0 {
			a.of(id).oddLedger = true
		}
	}
	return rows, nil
}

// sumOthers sums up the rows of the ledger that are no orders, and takes them off those that are not known.
func (a *auditor) sumOthers(ctx context.Context, parts []versions, unknown map[order.StockID]int64) error {
	if len(parts) == 0 {
		return nil
	}
	const part = ` OR product_id = ? AND reason IN ('initial', 'restock', 'correction', 'move', 'split', 'return')
		AND version > ? AND version <= ?`
	args := argsOf(parts)
	var sums []ledgerSums
	err := a.ledgerTx.SelectContext(ctx, &sums, `SELECT product_id, reason, COUNT(*) AS ledger_rows,
			SUM(delta) AS delta, MIN(delta) AS least_delta, MAX(delta) AS most_delta, SUM(delta = 0) AS zeros,
			MAX(version) AS most_version, SUM(`+sumOfReturn+`) AS returned_sum
		FROM stock_ledger IGNORE INDEX (PRIMARY)
		WHERE `+strings.Repeat(part, len(parts))[4:]+` GROUP BY product_id, reason`, args...)
	if err != nil {
		return err
	}
	for _, s := range sums {
		f := a.of(s.StockID)
		unknown[s.StockID] -= s.Rows
		f.oddLedger = f.oddLedger || s.odd()
		switch s.Reason {
		case ledgerInitial:
			f.sums.Initials += s.Rows
			f.sums.Initial += s.Delta
		case ledgerRestock, ledgerCorrection:
			f.sums.Restocked += s.Delta
		case ledgerTransfer, ledgerSplit:
			f.sums.Moved += s.Delta
		case ledgerReturn:
			f.sums.ReturnedUnits += s.Delta
			f.sums.ReturnedSum += s.Returned
		}
	}
	return nil
}

// odd reports whether there is a row whose change its reason does not allow, as readDetails counts them.
func (s *ledgerSums) odd() bool {
	bucket := s.StockID.Bucket() > 0
	switch s.Reason {
	case ledgerInitial:
		return s.LeastDelta < 0 || s.Rows != 1 || s.MostVersion != 1
	case ledgerRestock:
		return s.LeastDelta < 0 || s.Zeros > 0 && !bucket
	case ledgerCorrection:
		return s.MostDelta >= 0
	case ledgerReturn:
		return s.LeastDelta <= 0
	case ledgerSplit:
		return s.Zeros > 0
	case ledgerTransfer:
		return s.Zeros > 0 || !bucket
	}
	return true
}

// readOrders sums up the orders that the books do not have: those that were decided since, or slice after slice of the
// time in which their ids were made.
func (a *auditor) readOrders(ctx context.Context) error {
	first := a.books.firstID()
	if !a.books.since.IsZero() {
		_, err := a.sumOrders(ctx, "orders FORCE INDEX (orders_decided)", `decided_at >= ? AND id >= ?`,
			a.books.since, mysql.UUID(first))
		return err
	}

	var done int64
	for slice := time.Hour; ; {
		// What lies between two sales is skipped.
		var ids []mysql.UUID
		err := a.tx.SelectContext(ctx, &ids, `SELECT id FROM orders WHERE id >= ? ORDER BY id LIMIT 1`,
			mysql.UUID(first))
		if err != nil || len(ids) == 0 || !a.reads(order.OrderID(ids[0])) {
			return err
		}

		start := time.Now()
		end, more := sliceEnd(order.OrderID(ids[0]), slice)
		if !a.reads(end) {
			end, more = order.FirstID(time.UnixMilli(millis(a.before)-1)), false
			copy(end[6:], uuid.Max[6:])
		}
		rows, err := a.sumOrders(ctx, "orders FORCE INDEX (PRIMARY)", `id >= ? AND id <= ?`, ids[0], mysql.UUID(end))
		if err != nil {
			return err
		}
		done += rows
		if a.progress("orders", done); !more {
			return nil
		}

		first = order.FirstID(time.UnixMilli(millis(end) + 1))
		switch took := time.Since(start); {
		case took < auditPace/2:
			slice *= 2
		case took > 2*auditPace:
			slice = max(slice/4, time.Second)
		}
	}
}

// reads reports whether orders of an id are read.
func (a *auditor) reads(id order.OrderID) bool {
	return a.before == (order.OrderID{}) || bytes.Compare(id[:], a.before[:]) < 0
}

// millis is the time in an id, of whatever version it is.
func millis(id order.OrderID) int64 { return int64(binary.BigEndian.Uint64(id[:8]) >> 16) }

// sliceEnd is the last id of a slice of time that begins with an id, and whether there can be any after it.
func sliceEnd(first order.OrderID, slice time.Duration) (end order.OrderID, more bool) {
	ms := millis(first) + slice.Milliseconds()
	if ms >= 1<<48-1 || slice > maxAuditSlice {
		return order.OrderID(uuid.Max), false
	}
	end = order.FirstID(time.UnixMilli(ms))
	copy(end[6:], uuid.Max[6:])
	return end, true
}

// sumOrders sums up the orders of a condition.
func (a *auditor) sumOrders(ctx context.Context, table, where string, args ...any) (rows int64, err error) {
	var sums []struct {
		StockID order.StockID `db:"product_id"`
		Kind    int64         `db:"kind"`
		Orders  int64         `db:"orders"`
		Units   int64         `db:"units"`
		Sum     int64         `db:"order_sum"`
		Buyers  int64         `db:"buyers"`
	}
	// What the orders are grouped by is one number, which takes half as long as several columns.
	const completed, failed, reasoned, fresh, held = 1, 2, 4, 8, 16
	err = a.tx.SelectContext(ctx, &sums, `SELECT product_id, (status = 'completed') + 2 * (status = 'failed')
				+ 4 * (failed_reason IS NOT NULL) + 8 * (decided_at >= ? AND id >= ?) + 16 * (status = 'held') AS kind,
			COUNT(*) AS orders, SUM(quantity) AS units,
			SUM(`+sumOfOrder+`) AS order_sum, SUM(quantity * `+sumOfBuyer+`) AS buyers
		FROM `+table+` WHERE `+where+` GROUP BY product_id, kind`,
		append([]any{a.until, mysql.UUID(a.kept)}, args...)...)
	if err != nil {
		return 0, err
	}

	for _, s := range sums {
		f := a.of(s.StockID)
		var add orderSums
		switch s.Kind &^ fresh {
		case completed, completed | reasoned:
			add = orderSums{Completed: s.Orders, Units: s.Units, CompletedSum: s.Sum, BuyersSum: s.Buyers}
			f.oddOrders = f.oddOrders || s.Kind&reasoned != 0
		case held, held | reasoned:
			add = orderSums{
				Completed: s.Orders, Units: s.Units, CompletedSum: s.Sum, BuyersSum: s.Buyers,
				Held: s.Orders, HeldSum: s.Sum,
			}
			f.oddOrders = f.oddOrders || s.Kind&reasoned != 0
		case failed, failed | reasoned:
			add.Failed = s.Orders
			f.oddOrders = f.oddOrders || s.Kind&reasoned == 0
		default:
			f.oddOrders = true
		}
		if s.Kind&fresh != 0 {
			f.fresh.add(add)
		} else {
			f.sums.orderSums.add(add)
		}
		f.touched = true
		rows += s.Orders
	}
	return rows, nil
}

// readRedrives takes failures into account whose rows are gone, since an operator has taken them back. A checkpoint
// counts every failure of before its time, whether its row is there or not: so what was taken back since is what is
// taken off. There are few.
func (a *auditor) readRedrives(ctx context.Context) error {
	var rows []struct {
		StockID order.StockID `db:"product_id"`
		Known   int64         `db:"known"`
		Sums    int64         `db:"sums"`
	}
	err := a.tx.SelectContext(ctx, &rows, `SELECT product_id, COALESCE(SUM(failed_at < ?), 0) AS known,
			COALESCE(SUM(failed_at < ?), 0) AS sums FROM redrives WHERE order_id >= ? GROUP BY product_id`,
		mysql.Later(a.books.since, time.Unix(0, 0)), a.until, mysql.UUID(a.kept))
	if err != nil {
		return err
	}
	for _, row := range rows {
		f := a.of(row.StockID)
		// Of those that the books count as failed, and of those that the next checkpoint will.
		f.sums.Failed += row.Sums - row.Known
		f.takenBack = row.Sums
	}
	return nil
}

// readBought compares what is counted for limits with the orders of the products that have new ones. A product that is
// not counted up to its version has no limit, or will be when its next order is decided.
func (a *auditor) readBought(ctx context.Context) error {
	var ids []order.StockID
	for _, id := range slices.Sorted(maps.Keys(a.findings)) {
		if f := a.findings[id]; f.Name.Valid && f.Counted == f.Version && (f.touched || a.books.since.IsZero()) {
			ids = append(ids, id)
		}
	}

	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT b.product_id, SUM(b.units) AS units,
				SUM(b.units * `+sumOfBuyer+`) AS buyers,
				SUM(p.limit_ceiling > 0 AND b.units > p.limit_ceiling) AS over_limit
			FROM bought AS b FORCE INDEX (PRIMARY) JOIN products AS p ON p.id = b.product_id
			WHERE b.product_id IN (?) GROUP BY b.product_id`, chunk)
		if err != nil {
			return err
		}
		type boughtSums struct {
			StockID order.StockID `db:"product_id"`
			Units   int64         `db:"units"`
			Buyers  int64         `db:"buyers"`
			Over    int64         `db:"over_limit"`
		}
		var sums []boughtSums
		if err := a.tx.SelectContext(ctx, &sums, query, args...); err != nil {
			return err
		}

		counted := map[order.StockID]boughtSums{}
		for _, s := range sums {
			counted[s.StockID] = s
		}
		for _, id := range chunk {
			f, s := a.findings[id], counted[id]
			all := f.all()
			f.OverLimit = s.Over
			f.Miscounted = s.Units != all.Units-f.returnedUnits || s.Buyers != all.BuyersSum-f.returnedBuyers
		}
	}
	return nil
}
