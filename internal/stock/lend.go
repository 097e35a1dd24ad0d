package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
)

// Loan is units of a bucket that are on their way to another, or those of a product that are being taken out of it.
type Loan struct {
	// Move is the id of the move, a UUIDv7.
	Move uuid.UUID
	// Receiver is the id of the bucket to which they go, and 0 if they are taken out.
	Receiver int64
}

// name is what a loan is called in lent:{p}. It is no order's id, whoever takes it for one.
func (l Loan) name() string {
	return "move:" + l.Move.String() + ":" + strconv.FormatInt(l.Receiver, 10)
}

func parseLoan(name string) (l Loan, err error) {
	f := strings.Split(name, ":")
	if len(f) != 3 || f[0] != "move" {
		return l, fmt.Errorf("loan %q is no move", name)
	}
	if l.Move, err = uuid.Parse(f[1]); err != nil {
		return l, fmt.Errorf("loan %q: %w", name, err)
	}
	if l.Receiver, err = strconv.ParseInt(f[2], 10, 64); err != nil {
		return l, fmt.Errorf("loan %q: %w", name, err)
	}
	return l, nil
}

// Lend takes up to so many available units out of a bucket and returns how many: 0 if there are none to be had, or the
// sale is paused. They stay lent until SettleLoan. Repeating a call returns what the first did. After an error for
// which NotExecuted is false they may be lent.
func (s *Stock) Lend(ctx context.Context, donor, units int64, l Loan) (int64, error) {
	k := keysOf(donor)
	n, err := s.run(ctx, failpoint.Lend, transferScript, []string{k.stock, k.lent, k.sale}, l.name(), units).Int64()
	if err != nil {
		return 0, fmt.Errorf("lend units of bucket %d: %w", donor, err)
	}
	return max(n, 0), nil
}

// errPaused: nothing is lent while a sale is paused.
var errPaused = errors.New("the sale is paused for a moment")

// LendWhole is Lend of a product, but for a loan that must be whole: it reports false if there are fewer units, and
// then has changed nothing. A pause is an error, and so is a product that is not loaded.
func (s *Stock) LendWhole(ctx context.Context, productID, units int64, l Loan) (bool, error) {
	k := keysOf(productID)
	n, err := s.run(ctx, failpoint.Lend, transferScript, []string{k.stock, k.lent, k.sale}, l.name(), units,
		argWhole).Int64()
	switch {
	case err != nil:
	case n == -1:
		err = ErrNotLoaded
	case n < 0:
		err = errPaused
	}
	if err != nil {
		return false, fmt.Errorf("lend units of product %d: %w", productID, err)
	}
	return n > 0, nil
}

// SettleLoan clears a loan that MySQL has decided. If the units were moved, version is the one that the move made in
// the donor; otherwise it is 0 and they are for sale again. It follows Settle in everything: a fresh decision may be
// settled as fresh once, by who made it, and otherwise settling again changes nothing.
func (s *Stock) SettleLoan(ctx context.Context, donor, units, version int64, l Loan, fresh bool) error {
	k := keysOf(donor)
	err := s.run(ctx, failpoint.Lent, settleScript, []string{k.stock, k.lent, k.bought, k.sale, k.outbox, k.settled},
		version, l.name(), 0, units, bit(version > 0), bit(fresh)).Err()
	if err != nil {
		return fmt.Errorf("settle a loan of bucket %d: %w", donor, err)
	}
	return nil
}

// Shelf is what a bucket has to give.
type Shelf struct {
	// Loaded is false if Redis does not know the bucket's stock.
	Loaded    bool
	Available int64
	// Loans counts the moves under way from it.
	Loans int64
}

// Shelves reads what buckets have to give, by id, each at a moment of its own.
func (s *Stock) Shelves(ctx context.Context, ids []int64) (map[int64]Shelf, error) {
	stocks, loans := make([]*redis.StringCmd, len(ids)), make([]*redis.IntCmd, len(ids))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			k := keysOf(id)
			// In this order, so that units which are lent in between are seen twice and not missed. Those that arrive
			// in between can be missed: who finds nothing looks again.
			stocks[i] = p.Get(ctx, k.stock)
			loans[i] = p.HLen(ctx, k.lent)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("look at buckets: %w", err)
	}
	shelves := make(map[int64]Shelf, len(ids))
	for i, id := range ids {
		available, err := stocks[i].Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("look at bucket %d: %w", id, err)
		}
		shelves[id] = Shelf{Loaded: err == nil, Available: available, Loans: loans[i].Val()}
	}
	return shelves, nil
}
