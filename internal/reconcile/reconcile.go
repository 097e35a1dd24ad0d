// Package reconcile finds where Redis and MySQL differ about a product, says why, and repairs it while the
// sale goes on. What is on its way is left alone: nothing is changed on a guess.
//
// Like buckets it ties two other internal packages together, since worker and ctl both need it.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"stampede/internal/buckets"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/stock"
)

// Cause is why Redis differs from MySQL.
type Cause string

// The causes, in the order in which they are looked for.
const (
	// LostCommits: Redis has seen a newer version of the product than MySQL has, or MySQL has counted on from before
	// it. A fail-over to a replica that lags has lost commits. Only an operator can say what holds, until when nothing
	// is repaired.
	LostCommits Cause = "lost_commits"
	// Settings: a change of the product's settings has not reached Redis.
	Settings Cause = "missed_settings"
	// Restock: a restock has not reached Redis, or units from another bucket have not.
	Restock Cause = "missed_restock"
	// Move: units were lent to another bucket, or to be taken out, and that was not finished. Its edge has died.
	Move Cause = "unfinished_move"
	// Unsettled: orders are decided, and still reserved or in the outbox.
	Unsettled Cause = "unsettled"
	// Lost: orders have been reserved for long, and nobody has them who could decide them.
	Lost Cause = "lost"
	// Stock: the units available are not what MySQL says. What made them so is over, such as a worker that died
	// between commit and settle while Redis lost its data, or a fail-over to a replica that lagged.
	Stock Cause = "wrong_stock"
	// Bought: buyers count as having more units than their orders have, so that they are refused units that they may
	// buy. A redrive was interrupted, or somebody has written to Redis.
	Bought Cause = "wrong_bought"
	// Status: orders are decided, and their buyers are shown that they are pending. A fail-over forgets states.
	Status Cause = "stale_status"
	// Ended: the sale is long over, and Redis still holds the product.
	Ended Cause = "ended"
)

// Causes are all of them.
var Causes = []Cause{LostCommits, Settings, Restock, Move, Unsettled, Lost, Stock, Bought, Status, Ended}

const (
	// StaleAge is how old an order must be to be settled here: until then it is left to the worker that has it.
	StaleAge = 2 * time.Minute
	// LoanAge is how old a move between buckets, or a correction, must be to be finished here, or cancelled: an edge
	// gives up after some seconds.
	LoanAge = 10 * time.Second
	// LostAge is how old an undecided order must be to be sent again: older than a message becomes by all the
	// redeliveries of a poison one.
	LostAge = 30 * time.Minute
	// EndedAge is how long a product stays loaded after the end of its sale.
	EndedAge = 24 * time.Hour

	// doubt is how long a difference must have stood, with nothing moving, to be believed.
	doubt = time.Second
	// maxLooks bounds how often a product is looked at, each time because something was repaired or has moved.
	maxLooks = 5
	// pauseLength is how long a sale stays paused if nobody ends the pause.
	pauseLength = 10 * time.Second
	// pauseDeadline bounds the attempts under a pause, and pausedWait is the wait between two.
	pauseDeadline = 8 * time.Second
	pausedWait    = 50 * time.Millisecond
)

// Finding is a difference.
type Finding struct {
	Cause Cause `json:"cause"`
	// Orders are the orders concerned, of settings and restocks the number of those that were missed, of what buyers
	// have the number of buyers.
	Orders int `json:"count"`
	// Units are the units that are reserved in vain, missed by a restock, or available though they must not be; the
	// last may be negative.
	Units int64 `json:"units"`
	// Repaired reports whether it was repaired, and not only found.
	Repaired bool `json:"repaired"`
}

// Report says how a product stands after it was reconciled.
type Report struct {
	ProductID int64 `json:"product_id"`
	// Bucket is the number of the bucket, of a product that is split.
	Bucket int `json:"bucket,omitempty"`
	// Loaded reports whether Redis has the product; if not there is nothing to compare.
	Loaded    bool  `json:"redis_loaded"`
	Available int64 `json:"redis_available"`
	Reserved  int64 `json:"redis_reserved"`
	Lent      int64 `json:"redis_lent"`
	Stock     int64 `json:"mysql_stock"`
	// Busy reports whether the units could not be compared, since orders were on their way. With a pause they can be.
	Busy     bool      `json:"busy"`
	Findings []Finding `json:"findings"`
}

// Reconciler reconciles products.
type Reconciler struct {
	Redis *stock.Stock
	MySQL *ledger.Ledger
	// Send puts orders on the queue that may be there already. Without it lost orders are found only.
	Send func(context.Context, []order.Order) error
	// Apply repairs what is found.
	Apply bool
	// Pause pauses the sale for the moment that it takes to compare it, whatever is on its way.
	Pause bool
	// AcceptMySQL has what MySQL says hold where it has lost commits, with Apply and Pause.
	AcceptMySQL bool
	// Drained says that queue and dead-letter queue were seen empty some minutes ago and all the time since: no message
	// has an order that is older.
	Drained bool
	// StaleAge, LoanAge and LostAge are what the constants of these names say, unless they are set.
	StaleAge, LoanAge, LostAge time.Duration
}

// Product reconciles one product, or one bucket of a product.
func (r *Reconciler) Product(ctx context.Context, productID int64) (report Report, err error) {
	report = Report{ProductID: order.ProductOf(productID), Bucket: order.BucketOf(productID), Findings: []Finding{}}
	deadline := time.Now().Add(pauseDeadline)
	if r.Pause && r.Apply {
		if err := r.Redis.Pause(ctx, productID, pauseLength); err != nil {
			return report, err
		}
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			err = errors.Join(err, r.Redis.Pause(end, productID, 0))
		}()
	}
	for looks := 1; ; looks++ {
		moved, err := r.look(ctx, productID, &report)
		if err != nil || !moved {
			return report, err
		}
		if r.Pause && r.Apply {
			if time.Now().After(deadline) {
				report.Busy = true
				return report, nil
			}
			if err := sleep(ctx, pausedWait); err != nil {
				return report, err
			}
		} else if looks == maxLooks {
			report.Busy = true
			return report, nil
		}
	}
}

// look compares a product once. It returns true if something was repaired or has moved, so that the product must
// be looked at again.
func (r *Reconciler) look(ctx context.Context, productID int64, report *Report) (again bool, err error) {
	l, err := r.Redis.Look(ctx, productID)
	if err != nil {
		return false, err
	}
	ids := slices.Collect(maps.Keys(l.Reserved))
	for id := range l.Outbox {
		if _, ok := l.Reserved[id]; !ok {
			ids = append(ids, id)
		}
	}
	if !r.Pause {
		// Nothing is said of younger orders, and a rush has very many of them.
		youngest := min(cmp.Or(r.StaleAge, StaleAge), cmp.Or(r.LostAge, LostAge))
		ids = slices.DeleteFunc(ids, func(id uuid.UUID) bool { return !older(l, id, youngest) })
	}
	snapshot, err := r.MySQL.Snapshot(ctx, productID, ids)
	if err != nil {
		return false, err
	}
	report.Loaded, report.Available, report.Stock = l.Loaded, l.Available, snapshot.Product.Stock
	report.Reserved, report.Lent, report.Busy = 0, 0, false
	for _, units := range l.Reserved {
		report.Reserved += units
	}
	for _, units := range l.Lent {
		report.Lent += units
	}
	if l.LostCommits || l.Seen > snapshot.Product.Version {
		return r.lostCommits(ctx, l, snapshot, report)
	}
	if !l.Loaded {
		return false, nil
	}
	for _, step := range []func(context.Context, stock.Look, ledger.Snapshot) (Finding, error){
		r.settings, r.restocks, r.loans, r.unsettled, r.lost,
	} {
		f, err := step(ctx, l, snapshot)
		if err != nil {
			return false, err
		}
		if f.Orders > 0 {
			report.add(f)
			again = again || f.Repaired
		}
	}
	if again {
		return true, nil
	}
	return r.units(ctx, l, snapshot, report)
}

// lostCommits notes that MySQL has lost commits of a product, or accepts it. Redis was read first, and hears of a
// version only when it is committed, so that MySQL cannot have an older one for another reason.
func (r *Reconciler) lostCommits(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (again bool, err error) {
	f := Finding{Cause: LostCommits, Orders: int(max(l.Seen-s.Product.Version, 1))}
	switch {
	case r.AcceptMySQL && r.Apply:
		f.Repaired, err = r.Redis.AcceptVersion(ctx, s.Product.ID, l, s.Product.Version)
		if err != nil || !f.Repaired {
			return true, err
		}
	case r.Apply && !l.LostCommits:
		err = r.Redis.NoteLostCommits(ctx, s.Product.ID)
	}
	report.add(f)
	return f.Repaired, err
}

// LostCommits reports whether MySQL has lost commits of the product, and nobody has accepted it.
func (r *Report) LostCommits() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Cause == LostCommits && !f.Repaired })
}

// add puts a finding into the report, together with those of the same cause.
func (r *Report) add(f Finding) {
	for i := range r.Findings {
		if known := &r.Findings[i]; known.Cause == f.Cause {
			if known.Repaired || f.Repaired { // what was found before was repaired, so this is more of it
				known.Orders, known.Units = known.Orders+f.Orders, known.Units+f.Units
			}
			known.Repaired = f.Repaired
			return
		}
	}
	r.Findings = append(r.Findings, f)
}

// settings brings a change to Redis that it has missed.
func (r *Reconciler) settings(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Settings}
	if missed := s.Product.Revision - l.Revision; missed > 0 {
		f.Orders, f.Repaired = int(missed), r.Apply
	}
	if !f.Repaired {
		return f, nil
	}
	_, err := r.Redis.Configure(ctx, s.Product)
	return f, err
}

// restocks brings restocks to Redis that it has missed.
func (r *Reconciler) restocks(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Restock}
	if s.Product.Version <= l.Version {
		return f, nil
	}
	for after := l.Version; ; {
		page, err := r.MySQL.Restocks(ctx, s.Product.ID, after)
		if err != nil {
			return f, err
		}
		for _, restock := range page {
			if l.Restocks[restock.ID] {
				continue
			}
			if r.Apply {
				if _, err := r.Redis.Restock(ctx, s.Product.ID, restock.Units, restock.Version,
					restock.ID); err != nil {
					return f, err
				}
			}
			f.Orders, f.Units, f.Repaired = f.Orders+1, f.Units+restock.Units, r.Apply
		}
		if len(page) < mysql.MaxPage {
			return f, nil
		}
		after = page[len(page)-1].Version
	}
}

// loans finishes moves to other buckets and corrections: as MySQL has decided, and those that it has not decided are
// cancelled.
func (r *Reconciler) loans(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Move}
	for loan, units := range l.Lent {
		if !r.Pause && !older(l, loan.Move, cmp.Or(r.LoanAge, LoanAge)) {
			continue
		}
		if r.Apply {
			move := ledger.Move{ID: loan.Move, Donor: s.Product.ID, Receiver: loan.Receiver, Units: units}
			decided, err := r.MySQL.CancelMove(ctx, move)
			if err != nil {
				return f, err
			}
			decided.Fresh = false // its edge may come yet
			if err := (buckets.Mover{Redis: r.Redis, MySQL: r.MySQL}).Finish(ctx, decided); err != nil {
				return f, err
			}
		}
		f.Orders, f.Units, f.Repaired = f.Orders+1, f.Units+units, r.Apply
	}
	return f, nil
}

// unsettled settles orders that are decided. They are not fresh: who has decided them may come yet.
func (r *Reconciler) unsettled(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Unsettled}
	var decisions, dead []order.Decision
	for id, record := range s.Decided {
		if !r.Pause && !older(l, id, cmp.Or(r.StaleAge, StaleAge)) {
			continue
		}
		d := order.Decision{Record: record}
		if record.FailedReason == order.DeadLetter {
			dead = append(dead, d)
		} else {
			decisions = append(decisions, d)
		}
		f.Orders, f.Units = f.Orders+1, f.Units+l.Reserved[id]
	}
	if !r.Apply {
		return f, nil
	}
	var err error
	for batch := range slices.Chunk(decisions, stock.MaxBatch) {
		if _, err = r.Redis.Settle(ctx, s.Product.ID, batch); err == nil {
			err = r.Redis.WriteDecided(ctx, records(batch))
		}
		if err != nil {
			return f, err
		}
		f.Repaired = true
	}
	for batch := range slices.Chunk(dead, stock.MaxBatch) {
		settled, err := r.Redis.SettleLeft(ctx, s.Product.ID, batch)
		if err == nil && settled.Spared == 0 { // or some are being redriven, and whoever decides them shows that
			err = r.Redis.WriteDecided(ctx, records(batch))
		}
		if err != nil {
			return f, err
		}
		f.Repaired = f.Repaired || settled.Spared < int64(len(batch))
	}
	return f, nil
}

func records(decisions []order.Decision) []order.Record {
	records := make([]order.Record, len(decisions))
	for i := range decisions {
		records[i] = decisions[i].Record
	}
	return records
}

// lost sends orders again that should have been decided long ago. If they are on the queue after all, they are
// decided once all the same. The order itself is in its state for its buyer. Where that is lost as well nobody knows
// whose order it was; its units are given back once no message can have it.
func (r *Reconciler) lost(ctx context.Context, l stock.Look, s ledger.Snapshot) (Finding, error) {
	f := Finding{Cause: Lost}
	var ids []uuid.UUID
	for id, units := range l.Reserved {
		if _, decided := s.Decided[id]; !decided && !l.Outbox[id] && older(l, id, cmp.Or(r.LostAge, LostAge)) {
			ids = append(ids, id)
			f.Orders, f.Units = f.Orders+1, f.Units+units
		}
	}
	if !r.Apply || r.Send == nil {
		return f, nil
	}
	for batch := range slices.Chunk(ids, stock.MaxBatch) {
		records, err := r.Redis.Statuses(ctx, batch)
		if err != nil {
			return f, err
		}
		var orders []order.Order
		var gone []order.Decision
		for i, record := range records {
			if record == nil {
				if r.Drained || older(l, batch[i], stock.PendingTTL) {
					unknown := order.Order{ID: batch[i], ProductID: s.Product.ID, Quantity: l.Reserved[batch[i]]}
					gone = append(gone, order.Decision{Record: order.Record{Order: unknown, Status: order.Failed}})
				}
				continue
			}
			first, err := r.Redis.TryLock(ctx, "resend:"+record.ID.String(), cmp.Or(r.LostAge, LostAge))
			if err != nil {
				return f, err
			}
			if first { // or it was sent not long ago
				orders = append(orders, record.Order)
			}
		}
		if len(gone) > 0 {
			if _, err := r.Redis.SettleLeft(ctx, s.Product.ID, gone); err != nil {
				return f, err
			}
			slog.Error("reconcile: orders are lost, with their messages and states; their units are for sale again",
				"product", s.Product.ID, "orders", len(gone), "first", gone[0].ID)
			f.Repaired = true
		}
		if len(orders) == 0 {
			continue
		}
		if err := r.Send(ctx, orders); err != nil {
			return f, err
		}
	}
	return f, nil // what was sent is repaired when it is decided
}

// units compares the units available with what they must be: MySQL's stock less what is reserved and undecided.
// That can be said only while nothing moves: the sale is quiet or paused.
func (r *Reconciler) units(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (again bool, err error) {
	quiet := len(l.Reserved) == 0 && len(l.Outbox) == 0 && len(l.Lent) == 0
	if !quiet && !(r.Pause && r.Apply) {
		report.Busy = true
		return false, nil
	}
	if !l.Still {
		return true, nil // the sums are of no moment
	}
	if len(l.Lent) > 0 {
		return true, nil // it was lent before the pause, and will be finished
	}
	id := s.Product.ID
	must := s.Product.Stock
	for order, units := range l.Reserved {
		if _, decided := s.Decided[order]; decided {
			return true, nil // it is younger than StaleAge
		}
		must -= units
	}
	if quiet && !(r.Apply && l.Counted()) {
		if moved, err := r.bought(ctx, l, s, report); err != nil || moved {
			return moved, err
		}
	}
	if wrong := l.Available - must; wrong != 0 {
		if !r.Pause {
			if err := sleep(ctx, doubt); err != nil {
				return false, err
			}
			if now, err := r.Redis.Look(ctx, id); err != nil || !now.SameAs(l) {
				return true, err
			}
		}
		if !r.Apply {
			report.add(Finding{Cause: Stock, Orders: 1, Units: wrong})
			return false, nil
		}
		set, err := r.Redis.Correct(ctx, id, l, must, s.Product.Version)
		if err != nil || !set {
			return true, err
		}
		report.add(Finding{Cause: Stock, Orders: 1, Units: wrong, Repaired: true})
		report.Available = must
		return false, nil
	}
	if ends := s.Product.EndsAt; quiet && !ends.IsZero() && l.Now.Sub(ends) > EndedAge {
		f := Finding{Cause: Ended, Orders: 1}
		if r.Apply {
			if f.Repaired, err = r.Redis.Unload(ctx, id, l); err != nil {
				return false, err
			}
			report.Loaded = !f.Repaired
		}
		report.add(f)
	}
	return false, nil
}

// errMoved ends the comparison of what buyers have.
var errMoved = errors.New("something has moved")

// bought compares what the buyers of a quiet product have with their orders. A count may be too low, since Redis begins
// anew when it loads a product: MySQL judges by the orders. One that is too high refuses a buyer for ever.
func (r *Reconciler) bought(ctx context.Context, l stock.Look, s ledger.Snapshot,
	report *Report) (moved bool, err error) {
	id := s.Product.ID
	f := Finding{Cause: Bought}
	lower := func(bought map[int64]int64, all bool) error {
		if !r.Apply {
			return nil
		}
		set, err := r.Redis.LowerBought(ctx, id, l, bought, all)
		if err == nil && !set {
			err = errMoved
		}
		return err
	}

	err = r.Redis.Bought(ctx, id, func(counts map[int64]int64) error {
		has, err := r.MySQL.Bought(ctx, id, slices.Collect(maps.Keys(counts)))
		if err != nil {
			return err
		}
		wrong := make(map[int64]int64)
		for user, units := range counts {
			if excess := units - has[user]; excess > 0 {
				wrong[user] = has[user]
				f.Orders, f.Units = f.Orders+1, f.Units+excess
			}
		}
		if len(wrong) == 0 {
			return nil
		}
		return lower(wrong, false)
	})
	if err == nil {
		err = lower(nil, true)
	}
	if errors.Is(err, errMoved) {
		return true, nil
	}
	if err != nil || f.Orders == 0 {
		return false, err
	}
	if f.Repaired = r.Apply; !f.Repaired {
		// Nobody but the script has seen that nothing moved meanwhile.
		if now, err := r.Redis.Look(ctx, id); err != nil || !now.SameAs(l) {
			return true, err
		}
	}
	report.add(f)
	return false, nil
}

// Statuses shows buyers the decisions of orders that Redis has as pending. It looks at all that Redis knows, so it is
// for after a fail-over.
func (r *Reconciler) Statuses(ctx context.Context) (Finding, error) {
	f := Finding{Cause: Status}
	var mu sync.Mutex // the servers of a Cluster are visited at the same time
	err := r.Redis.States(ctx, order.Pending, func(pending []order.Record) error {
		ids := make([]uuid.UUID, len(pending))
		for i := range pending {
			ids[i] = pending[i].ID
		}
		decided, err := r.MySQL.Decided(ctx, ids)
		if err != nil || len(decided) == 0 {
			return err
		}
		mu.Lock()
		f.Orders += len(decided)
		mu.Unlock()
		if !r.Apply {
			return nil
		}
		return r.Redis.WriteDecided(ctx, slices.Collect(maps.Values(decided)))
	})
	f.Repaired = r.Apply && err == nil && f.Orders > 0
	return f, err
}

// older reports whether an order was older than an age when Redis was looked at, by the time in its id and the clock of
// Redis, which is the same for all workers.
func older(l stock.Look, id uuid.UUID, age time.Duration) bool {
	return l.Now.Sub(time.Unix(id.Time().UnixTime())) > age
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
