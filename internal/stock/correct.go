package stock

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// Pause keeps new orders of a product from being reserved for a time, or ends that if the time is 0.
func (s *Stock) Pause(ctx context.Context, stockID order.StockID, length time.Duration) error {
	if err := pauseScript.Run(ctx, s.rdb, []string{keysOf(stockID).sale}, length.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("pause product %d: %w", stockID, err)
	}
	return nil
}

// Correct sets the units available of a product to what they must be by a version of the product in MySQL,
// which was read after the look. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) Correct(ctx context.Context, stockID order.StockID, l Look, available, version int64) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(stockID)
	n, err := correctScript.Run(ctx, s.rdb, []string{k.stock, k.sale}, l.epoch, l.changes, available, version).Int()
	if err != nil {
		return false, fmt.Errorf("correct product %d: %w", stockID, err)
	}
	return n == 1, nil
}

// Bought visits the units that buyers have of a product, reserved ones included, by user and some at a time. A user may
// be visited twice.
func (s *Stock) Bought(ctx context.Context, stockID order.StockID, visit func(map[order.UserID]int64) error) error {
	err := pages(ctx, s.rdb.HScan, keysOf(stockID).bought, func(page []string) error {
		bought := make(map[order.UserID]int64, len(page)/2)
		var d decoder
		for i := 0; i+1 < len(page); i += 2 {
			bought[order.UserID(d.Int(page[i]))] = d.Int(page[i+1])
		}
		if d.Err != nil || len(bought) == 0 {
			return d.Err
		}
		return visit(bought)
	})
	if err != nil {
		return fmt.Errorf("read what buyers have of product %d: %w", stockID, err)
	}
	return nil
}

// LowerBought sets what buyers have of a product to what they have in MySQL, which was read after the look; all says
// that every other buyer was compared. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) LowerBought(ctx context.Context, stockID order.StockID, l Look, bought map[order.UserID]int64,
	all bool) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(stockID)
	args := append(make([]any, 0, 3+2*len(bought)), l.epoch, l.changes, bit(all))
	for user, units := range bought {
		args = append(args, user, units)
	}
	n, err := lowerScript.Run(ctx, s.rdb, []string{k.bought, k.sale}, args...).Int()
	if err != nil {
		return false, fmt.Errorf("lower what buyers have of product %d: %w", stockID, err)
	}
	return n == 1, nil
}

// NoteLostCommits notes that MySQL has lost commits of a product, so that it is known when MySQL has counted on.
func (s *Stock) NoteLostCommits(ctx context.Context, stockID order.StockID) error {
	if err := s.rdb.HSet(ctx, keysOf(stockID).sale, fieldLostCommits, 1).Err(); err != nil {
		return fmt.Errorf("note that commits of product %d are lost: %w", stockID, err)
	}
	return nil
}

// keptLength is for how long completed orders are kept once MySQL was found to have lost commits, of which an operator
// is to say what becomes of them.
const keptLength = 7 * 24 * time.Hour

// KeepCompleted keeps the orders that were completed lately, unless those of an earlier moment are kept already.
func (s *Stock) KeepCompleted(ctx context.Context, stockID order.StockID) error {
	k := keysOf(stockID)
	for i, key := range k.completed {
		n, err := s.rdb.Exists(ctx, key).Result()
		if err == nil && n == 1 {
			err = s.rdb.RenameNX(ctx, key, k.kept[i]).Err()
		}
		if err == nil {
			err = s.rdb.Expire(ctx, k.kept[i], keptLength).Err()
		}
		if err != nil {
			return fmt.Errorf("keep completed orders of product %d: %w", stockID, err)
		}
	}
	return nil
}

// AcceptVersion makes the version of a product that MySQL has, read after the look, the newest that Redis has seen, and
// forgets that commits were lost. It reports false, and changes nothing, if Redis has seen another one since the look.
func (s *Stock) AcceptVersion(ctx context.Context, stockID order.StockID, l Look, version int64) (bool, error) {
	n, err := acceptScript.Run(ctx, s.rdb, []string{keysOf(stockID).sale}, l.Seen, version).Int()
	if err != nil {
		return false, fmt.Errorf("accept the version of product %d in MySQL: %w", stockID, err)
	}
	if n == 0 {
		return false, nil
	}
	k := keysOf(stockID)
	return true, s.rdb.Unlink(ctx, k.kept[0], k.kept[1]).Err()
}

// ComparedBy reads the servers by whose data a product was last compared with MySQL while its sale was paused, as
// Servers names them. Who has lost the product's data has lost this as well.
func (s *Stock) ComparedBy(ctx context.Context, stockID order.StockID) (servers string, err error) {
	servers, err = s.rdb.HGet(ctx, keysOf(stockID).sale, fieldComparedBy).Result()
	if err != nil && !errors.Is(err, goredis.Nil) {
		return "", fmt.Errorf("read who has compared product %d: %w", stockID, err)
	}
	return servers, nil
}

// SetComparedBy notes what ComparedBy reads.
func (s *Stock) SetComparedBy(ctx context.Context, stockID order.StockID, servers string) error {
	if err := s.rdb.HSet(ctx, keysOf(stockID).sale, fieldComparedBy, servers).Err(); err != nil {
		return fmt.Errorf("note that product %d was compared: %w", stockID, err)
	}
	return nil
}
