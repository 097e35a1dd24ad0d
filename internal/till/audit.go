package till

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Money is what has become of the money of one currency, in its minor units.
type Money struct {
	Currency string `db:"currency"`
	// Taken is all that providers took, and Completed what has paid orders and points. The rest goes back.
	Taken     int64 `db:"taken"`
	Completed int64 `db:"completed"`
	// Refunded went back, Due is still to go back, and ByHand is for an operator to give back: of what completed
	// nothing, and of what staff gives back.
	Refunded int64 `db:"refunded"`
	Due      int64 `db:"due"`
	ByHand   int64 `db:"by_hand"`
	// Staff is what staff gives back of what was completed; it is in Refunded, Due and ByHand as well.
	Staff int64 `db:"staff"`
}

// Adds reports whether everything that was taken has completed something or goes back.
func (m Money) Adds() bool { return m.Taken+m.Staff == m.Completed+m.Refunded+m.Due+m.ByHand }

// Audit is what an audit of payments has found.
type Audit struct {
	Money []Money
	// Payments are those that were taken, and PaidByPoints the orders that points have paid.
	Payments, PaidByPoints int64
	// Problems name the first payments, orders and refunds that do not add up, which are none.
	Problems []string
}

// maxProblems bounds how many of each kind an audit names.
const maxProblems = 20

// auditQueries find what contradicts promise P9 or P12, each by a name in hexadecimal or as text.
var auditQueries = []struct{ what, query string }{
	{"payment %s was taken, and has neither completed its order nor goes back, or both",
		`SELECT p.number FROM payments p LEFT JOIN holds h ON h.order_id = p.order_id
			LEFT JOIN refunds r ON r.number = p.number AND r.attempt = p.number AND r.amount = p.amount
				AND r.currency = p.currency AND r.reason IN ('late', 'second')
		WHERE p.state = 'paid' AND p.order_id IS NOT NULL
			AND COALESCE(h.paid_by = p.number, 0) = (r.number IS NOT NULL)`},
	{"order %s is completed without a payment of its price",
		`SELECT LOWER(HEX(h.order_id)) FROM holds h
			LEFT JOIN payments p ON p.number = h.paid_by AND p.order_id = h.order_id AND p.state = 'paid'
			LEFT JOIN orders o ON o.id = h.order_id
		WHERE h.state IN ('completed', 'refunded') AND h.paid_by <> 'points' AND (p.number IS NULL
			OR o.id IS NOT NULL AND (p.amount <> o.unit_price * o.quantity OR p.currency <> o.currency))`},
	{"payment %s is paid, and no event says so",
		`SELECT p.number FROM payments p LEFT JOIN payment_events e ON e.provider = p.provider AND e.number = p.number
			AND e.kind = 'paid' AND e.event_key = ''
		WHERE (p.state = 'paid') <> (e.number IS NOT NULL)`},
	{"order %s counts other attempts that may yet be paid than it has",
		`SELECT LOWER(HEX(h.order_id)) FROM holds h LEFT JOIN (
				SELECT order_id, COUNT(*) AS live FROM payments WHERE state IN ('created', 'open') GROUP BY order_id
			) AS p ON p.order_id = h.order_id
		WHERE h.attempts <> COALESCE(p.live, 0)`},
	{"order %s gives back more than it has cost, or is refunded and does not give back all",
		`SELECT LOWER(HEX(h.order_id)) FROM holds h
			LEFT JOIN (SELECT order_id, SUM(amount) AS amount,
					SUM(CASE state WHEN 'done' THEN amount ELSE 0 END) AS done
				FROM refunds WHERE reason = 'staff' GROUP BY order_id) AS r ON r.order_id = h.order_id
			LEFT JOIN payments p ON p.number = h.paid_by
			LEFT JOIN wallet_ledger w ON h.paid_by = 'points' AND w.user_id = h.user_id AND w.type = 'spend'
				AND w.ref = h.order_id
		WHERE (r.order_id IS NOT NULL OR h.state = 'refunded')
			AND (COALESCE(r.amount, 0) > COALESCE(p.amount, -w.delta, 0)
				OR (h.state = 'refunded') <> (COALESCE(r.done, 0) = COALESCE(p.amount, -w.delta, 0)))`},
	{"the points of payment %s are not in the wallet",
		`SELECT p.number FROM payments p LEFT JOIN wallet_ledger w ON w.user_id = p.user_id AND w.type = 'topup'
			AND w.ref = p.number AND w.delta = p.points
		WHERE p.order_id IS NULL AND (p.state = 'paid') <> (w.ref IS NOT NULL)`},
	{"order %s is completed by points that nobody has spent, or by others than it costs",
		`SELECT LOWER(HEX(h.order_id)) FROM holds h
			LEFT JOIN wallet_ledger w ON w.user_id = h.user_id AND w.type = 'spend' AND w.ref = h.order_id
			LEFT JOIN orders o ON o.id = h.order_id
		WHERE h.paid_by = 'points' AND (w.ref IS NULL OR o.id IS NOT NULL AND -w.delta <> o.unit_price * o.quantity)`},
	{"points were spent on order %s, which they did not complete",
		`SELECT LOWER(HEX(w.ref)) FROM wallet_ledger w LEFT JOIN holds h ON h.order_id = w.ref AND h.paid_by = 'points'
		WHERE w.type = 'spend' AND h.order_id IS NULL`},
	{"the points of refund %s are not in a wallet",
		`SELECT r.number FROM refunds r LEFT JOIN wallet_ledger w ON w.type = 'refund' AND w.ref = r.number
			AND w.delta = r.amount
		WHERE r.attempt IS NULL AND w.ref IS NULL`},
}

// moneyQuery adds up what has become of the money of each currency. What does not fit its attempt was taken as well: it
// is on the operator's list, and nowhere else.
const moneyQuery = `SELECT currency, SUM(taken) AS taken, SUM(completed) AS completed, SUM(refunded) AS refunded,
		SUM(due) AS due, SUM(by_hand) AS by_hand, SUM(staff) AS staff
	FROM (
		SELECT p.currency, p.amount AS taken,
			CASE WHEN p.order_id IS NULL OR h.paid_by = p.number THEN p.amount ELSE 0 END AS completed,
			0 AS refunded, 0 AS due, 0 AS by_hand, 0 AS staff
		FROM payments p LEFT JOIN holds h ON h.order_id = p.order_id WHERE p.state = 'paid'
		UNION ALL
		SELECT currency, CASE reason WHEN 'mismatch' THEN amount ELSE 0 END, 0,
			CASE state WHEN 'done' THEN amount ELSE 0 END, CASE state WHEN 'due' THEN amount ELSE 0 END,
			CASE state WHEN 'manual' THEN amount ELSE 0 END, CASE reason WHEN 'staff' THEN amount ELSE 0 END
		FROM refunds WHERE attempt IS NOT NULL
	) AS moves GROUP BY currency ORDER BY currency`

// Audit compares payments with the orders and wallets that they have paid, and with refunds, in one snapshot: each
// payment ends as one completed purchase or one refund (P9), and points spent belong to a completed order (P12).
func (t *Till) Audit(ctx context.Context) (audit Audit, err error) {
	err = t.DB.Snapshot(ctx, func(tx *sqlx.Tx) error {
		audit = Audit{}
		err := tx.QueryRowxContext(ctx, `SELECT (SELECT COUNT(paid_at) FROM payments),
			(SELECT COUNT(*) FROM holds WHERE paid_by = 'points')`).Scan(&audit.Payments, &audit.PaidByPoints)
		if err != nil {
			return err
		}
		if err := tx.SelectContext(ctx, &audit.Money, moneyQuery); err != nil {
			return err
		}
		for _, m := range audit.Money {
			if !m.Adds() {
				audit.Problems = append(audit.Problems, fmt.Sprintf("money of %s does not add up: %+v", m.Currency, m))
			}
		}
		for _, check := range auditQueries {
			var names []string
			if err := tx.SelectContext(ctx, &names, check.query+` LIMIT ?`, maxProblems); err != nil {
				return err
			}
			for _, name := range names {
				audit.Problems = append(audit.Problems, fmt.Sprintf(check.what, name))
			}
		}
		return nil
	})
	if err != nil {
		return Audit{}, fmt.Errorf("audit payments: %w", err)
	}
	return audit, nil
}
