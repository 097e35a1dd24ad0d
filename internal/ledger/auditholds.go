package ledger

import (
	"context"
	"fmt"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

const (
	// overdueAge is how long after its time to pay an order may still await its payment: for as long as no worker is
	// there to cancel it.
	overdueAge = time.Hour
	// closingAge is the same of one that is closing: some providers close nothing, and tell of payments for days after
	// an attempt has expired (ECPay's barcodes for three).
	closingAge = 4 * 24 * time.Hour
)

// holdSums are over what has become of the orders of one product that must be paid.
type holdSums struct {
	holds, sum                 int64 // all of them; sum is sumOfHeld
	cancelled                  int64
	returnedUnits, returnedSum int64 // of those whose units were taken back
	returnedBuyers             int64 // of these the users and units, as orderSums.BuyersSum
	oddHolds, lateHolds        int64
}

// holdsFit reports whether the holds are those of the orders, and their units those of the ledger.
func (f *findings) holdsFit() bool {
	all := f.all()
	return f.holds == all.Held && f.sum == all.HeldSum && f.oddHolds == 0 && f.lateHolds == 0 &&
		f.returnedUnits == f.sums.ReturnedUnits && f.returnedSum == f.sums.ReturnedSum
}

func (f *findings) holdProblems(problem func(bool, string, ...any)) {
	all := f.all()
	problem(f.holds != all.Held || f.sum != all.HeldSum,
		"%d orders must be paid, but what has become of them is known of %d, or of others", all.Held, f.holds)
	problem(f.returnedUnits != f.sums.ReturnedUnits || f.returnedSum != f.sums.ReturnedSum,
		"the ledger has taken back %d units, but %d are those of cancelled or refunded orders, or of others",
		f.sums.ReturnedUnits, f.returnedUnits)
	problem(f.oddHolds > 0, "orders whose state is unknown, or does not fit what was paid and taken back: %d",
		f.oddHolds)
	problem(f.lateHolds > 0, "orders that still await their payment %s after their time to pay, or are closing after "+
		"%s: %d", overdueAge, closingAge, f.lateHolds)
}

// readHolds sums up all holds: they change until they are over, so that no checkpoint has them.
func (a *auditor) readHolds(ctx context.Context) error {
	var rows []struct {
		StockID        order.StockID `db:"product_id"`
		Holds          int64         `db:"holds"`
		Sum            int64         `db:"held_sum"`
		Cancelled      int64         `db:"cancelled"`
		ReturnedUnits  int64         `db:"returned_units"`
		ReturnedSum    int64         `db:"returned_sum"`
		ReturnedBuyers int64         `db:"returned_buyers"`
		Odd            int64         `db:"odd"`
		Late           int64         `db:"late"`
	}
	err := a.tx.SelectContext(ctx, &rows, `SELECT product_id, COUNT(*) AS holds, SUM(`+sumOfHeld+`) AS held_sum,
			SUM(state = 'cancelled') AS cancelled,
			SUM(CASE WHEN returned_version = 0 THEN 0 ELSE quantity END) AS returned_units,
			SUM(CASE WHEN returned_version = 0 THEN 0 ELSE `+sumOfHeld+` END) AS returned_sum,
			SUM(CASE WHEN returned_version = 0 THEN 0 ELSE quantity * `+sumOfBuyer+` END) AS returned_buyers,
			SUM(CASE WHEN state IN ('awaiting_payment', 'closing')
					THEN returned_version <> 0 OR paid_by IS NOT NULL
				WHEN state = 'completed' THEN paid_by IS NULL
				WHEN state = 'cancelled' THEN returned_version = 0 OR paid_by IS NOT NULL
				WHEN state = 'refunded' THEN paid_by IS NULL ELSE 1 END) AS odd,
			SUM(state = 'awaiting_payment' AND pay_by < ? OR state = 'closing' AND pay_by < ?) AS late
		FROM holds GROUP BY product_id`, mysql.Now().Add(-overdueAge), mysql.Now().Add(-closingAge))
	if err != nil {
		return err
	}
	for _, row := range rows {
		a.of(row.StockID).holdSums = holdSums{
			holds: row.Holds, sum: row.Sum, cancelled: row.Cancelled, returnedUnits: row.ReturnedUnits,
			returnedSum: row.ReturnedSum, returnedBuyers: row.ReturnedBuyers, oddHolds: row.Odd, lateHolds: row.Late,
		}
	}
	return nil
}

// CountOverdue counts the orders that should have been cancelled or completed long ago, which the audit finds late.
func (l *Ledger) CountOverdue(ctx context.Context) (orders int64, err error) {
	now := mysql.Now()
	err = l.db.GetContext(ctx, &orders, `SELECT
		(SELECT COUNT(*) FROM holds FORCE INDEX (holds_due) WHERE state = 'awaiting_payment' AND due_at < ?) +
		(SELECT COUNT(*) FROM holds FORCE INDEX (holds_due) WHERE state = 'closing' AND pay_by < ?)`,
		now.Add(-overdueAge), now.Add(-closingAge))
	if err != nil {
		return 0, fmt.Errorf("count orders that are overdue: %w", err)
	}
	return orders, nil
}
