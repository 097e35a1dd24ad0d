package stock

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"stampede/internal/failpoint"
	"stampede/internal/order"
)

// completedKept is for how long completed orders are kept at least, and half of how long at most. A replica of MySQL
// that lags by more loses orders of which nobody knows any more what they were.
const completedKept = 10 * time.Minute

// Settled says what settling has moved, in units.
type Settled struct {
	// GivenBack counts units of failed orders that are for sale again.
	GivenBack int64
	// TakenOut counts units of completed orders whose reservation Redis had lost.
	TakenOut int64
	// Spared counts orders that SettleLeft has passed over.
	Spared int64
}

// Settle clears the reservations of up to MaxBatch decided orders of one product. Fresh decisions
// must be all those of one commit, whose version counts for all, and may be settled as fresh once: if the
// outcome of a call is unknown, repeat it by SettleAgain. Otherwise settling again changes nothing.
func (s *Stock) Settle(ctx context.Context, stockID order.StockID, decisions []order.Decision) (Settled, error) {
	var version, made int64
	var last order.OrderID
	for i := range decisions {
		d := &decisions[i]
		version = max(version, d.Version)
		if d.Fresh && d.Status.TookUnits() {
			made++
			last = d.ID
		}
	}

	if made == 0 || made > version {
		return s.settle(ctx, stockID, version, decisions)
	}
	return s.settle(ctx, stockID, fmt.Sprintf("%d %d %s", version, version-made, last), decisions)
}

// SettleAgain is Settle for decisions that may have been settled by a call without an answer: none counts as fresh.
func (s *Stock) SettleAgain(ctx context.Context, stockID order.StockID, decisions []order.Decision) (Settled, error) {
	again := slices.Clone(decisions)
	for i := range again {
		again[i].Fresh = false
	}
	return s.Settle(ctx, stockID, again)
}

// SettleLeft is Settle for decisions, none of them fresh, that were read some time ago: it passes over orders that are
// in the outbox, since they may be about to be decided anew.
func (s *Stock) SettleLeft(ctx context.Context, stockID order.StockID, decisions []order.Decision) (Settled, error) {
	return s.settle(ctx, stockID, argSpare, decisions)
}

func (s *Stock) settle(
	ctx context.Context, stockID order.StockID, version any, decisions []order.Decision,
) (Settled, error) {
	k := keysOf(stockID)
	args := append(make([]any, 0, 2+5*len(decisions)), version, completedKept.Milliseconds())
	for i := range decisions {
		d := &decisions[i]
		args = append(args, d.ID.String(), int64(d.UserID), d.Quantity, bit(d.Status.TookUnits()), bit(d.Fresh))
	}

	reply, err := s.rdb.Run(ctx, failpoint.Settle, settleScript, settleKeys(k, k.reserved), args...).Slice()
	if err != nil {
		return Settled{}, fmt.Errorf("settle orders of product %d: %w", stockID, err)
	}
	if len(reply) != 3 {
		return Settled{}, fmt.Errorf("settle orders of product %d: reply has %d elements", stockID, len(reply))
	}

	var d decoder
	settled := Settled{GivenBack: d.Int(reply[0]), TakenOut: d.Int(reply[1]), Spared: d.Int(reply[2])}
	return settled, d.Err
}

// settleKeys are the keys of settle.lua, for orders or for transfers.
func settleKeys(k productKeys, reserved string) []string {
	return []string{k.stock, reserved, k.bought, k.sale, k.outbox, k.settled, k.completed[0], k.completed[1]}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Completed visits the orders of a product, or of a bucket, that were completed in the last minutes, some at a time.
// One that a program before message version 2 has reserved is left out.
func (s *Stock) Completed(ctx context.Context, stockID order.StockID, visit func([]order.Order) error) error {
	k := keysOf(stockID)
	for _, key := range []string{k.completed[0], k.completed[1], k.kept[0], k.kept[1]} {
		for start := int64(0); ; start += lookPage {
			page, err := s.rdb.LRange(ctx, key, start, start+lookPage-1).Result()
			if err != nil {
				return fmt.Errorf("read completed orders of product %d: %w", stockID, err)
			}
			if len(page) == 0 {
				break
			}

			var orders []order.Order
			for _, line := range page {
				text, kept, _ := strings.Cut(line, " ")
				id, err := order.ParseID(text)
				if err != nil {
					return fmt.Errorf("read completed orders of product %d: %w", stockID, err)
				}
				r, err := parseReservation(stockID, id, kept)
				if err != nil {
					return fmt.Errorf("read completed order %s: %w", id, err)
				}
				if r.batch != "" {
					orders = append(orders, r.order)
				}
			}
			if err := visit(orders); err != nil {
				return err
			}
		}
	}
	return nil
}
