package stock

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Pause keeps new orders of a product from being reserved for a time, or ends that if the time is 0.
func (s *Stock) Pause(ctx context.Context, productID int64, length time.Duration) error {
	if err := pauseScript.Run(ctx, s.rdb, []string{keysOf(productID).sale}, length.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("pause product %d: %w", productID, err)
	}
	return nil
}

// Correct sets the units available of a product to what they must be by a version of the product in MySQL,
// which was read after the look. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) Correct(ctx context.Context, productID int64, l Look, available, version int64) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(productID)
	n, err := correctScript.Run(ctx, s.rdb, []string{k.stock, k.sale}, l.epoch, l.changes, available, version).Int()
	if err != nil {
		return false, fmt.Errorf("correct product %d: %w", productID, err)
	}
	return n == 1, nil
}

// Bought visits the units that buyers have of a product, reserved ones included, by user and some at a time. A user may
// be visited twice.
func (s *Stock) Bought(ctx context.Context, productID int64, visit func(map[int64]int64) error) error {
	err := pages(ctx, s.rdb.HScan, keysOf(productID).bought, func(page []string) error {
		bought := make(map[int64]int64, len(page)/2)
		var d decoder
		for i := 0; i+1 < len(page); i += 2 {
			bought[d.int(page[i])] = d.int(page[i+1])
		}
		if d.err != nil || len(bought) == 0 {
			return d.err
		}
		return visit(bought)
	})
	if err != nil {
		return fmt.Errorf("read what buyers have of product %d: %w", productID, err)
	}
	return nil
}

// LowerBought sets what buyers have of a product to what they have in MySQL, which was read after the look; all says
// that every other buyer was compared. It reports false, and changes nothing, if anything has moved since the look.
func (s *Stock) LowerBought(ctx context.Context, productID int64, l Look, bought map[int64]int64,
	all bool) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(productID)
	args := append(make([]any, 0, 3+2*len(bought)), l.epoch, l.changes, bit(all))
	for user, units := range bought {
		args = append(args, user, units)
	}
	n, err := lowerScript.Run(ctx, s.rdb, []string{k.bought, k.sale}, args...).Int()
	if err != nil {
		return false, fmt.Errorf("lower what buyers have of product %d: %w", productID, err)
	}
	return n == 1, nil
}

// NoteLostCommits notes that MySQL has lost commits of a product, so that it is known when MySQL has counted on.
func (s *Stock) NoteLostCommits(ctx context.Context, productID int64) error {
	if err := s.rdb.HSet(ctx, keysOf(productID).sale, fieldLostCommits, 1).Err(); err != nil {
		return fmt.Errorf("note that commits of product %d are lost: %w", productID, err)
	}
	return nil
}

// AcceptVersion makes the version of a product that MySQL has, read after the look, the newest that Redis has seen, and
// forgets that commits were lost. It reports false, and changes nothing, if Redis has seen another one since the look.
func (s *Stock) AcceptVersion(ctx context.Context, productID int64, l Look, version int64) (bool, error) {
	n, err := acceptScript.Run(ctx, s.rdb, []string{keysOf(productID).sale}, l.Seen, version).Int()
	if err != nil {
		return false, fmt.Errorf("accept the version of product %d in MySQL: %w", productID, err)
	}
	return n == 1, nil
}

// ComparedBy reads the servers by whose data a product was last compared with MySQL while its sale was paused, as
// Servers names them. Who has lost the product's data has lost this as well.
func (s *Stock) ComparedBy(ctx context.Context, productID int64) (servers string, err error) {
	servers, err = s.rdb.HGet(ctx, keysOf(productID).sale, fieldComparedBy).Result()
	if err != nil && !errors.Is(err, goredis.Nil) {
		return "", fmt.Errorf("read who has compared product %d: %w", productID, err)
	}
	return servers, nil
}

// SetComparedBy notes what ComparedBy reads.
func (s *Stock) SetComparedBy(ctx context.Context, productID int64, servers string) error {
	if err := s.rdb.HSet(ctx, keysOf(productID).sale, fieldComparedBy, servers).Err(); err != nil {
		return fmt.Errorf("note that product %d was compared: %w", productID, err)
	}
	return nil
}
