package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"stampede/internal/board"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/internal/stock"
)

const (
	// upgradeInterval is how often an edge looks for programs before the present message version.
	upgradeInterval = 2 * time.Second
	// oldKeysMark is a key in Redis that is there as long as programs before version 2 may have left idempotency
	// records which are alive, and oldKeysKept is for how long after the last of them was seen.
	oldKeysMark = "older-programs"
	oldKeysKept = order.IdempotencyLifetime + time.Hour
)

// upgrade is what lets edges and workers of the version before and of this one run side by side. An older worker would
// make dead letters of what this edge sends, so that this one takes no orders until there is none; the older edges go
// on meanwhile. As long as an edge before version 2 may have written idempotency records, they are read, and written as
// well, as it does.
type upgrade struct {
	redis *redis.Client
	stock *stock.Stock
	// done says that no older worker was found. It stays so: if one is started later, that is its operator's fault, and
	// to stop selling would not mend it.
	done    atomic.Bool
	workers atomic.Int32 // older ones, when they were last looked for; below 0 before the first look
}

// look looks for older programs.
func (u *upgrade) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, upgradeInterval)
	defer cancel()
	if err := u.try(ctx); err != nil && ctx.Err() == nil {
		slog.Warn("upgrade: whether programs of an older version run cannot be found out now", "error", err)
	}
}

func (u *upgrade) try(ctx context.Context) error {
	workers, keepers, err := board.Older(ctx, u.redis)
	if err != nil {
		return err
	}
	if keepers > 0 {
		if err := u.redis.Set(ctx, oldKeysMark, "", oldKeysKept).Err(); err != nil {
			return err
		}
	}
	marks, err := u.redis.Exists(ctx, oldKeysMark).Result()
	if err != nil {
		return err
	}
	u.stock.KeepOldKeys.Store(marks > 0)

	switch u.workers.Store(int32(workers)); {
	case workers > 0 && u.done.Load():
		slog.Error("upgrade: a worker of an older version was started; stop it, since it makes dead letters of "+
			"new orders", "workers", workers)
	case workers == 0:
		u.done.Store(true)
	}
	return nil
}

// ready says why no orders can be taken yet.
func (u *upgrade) ready() error {
	switch n := u.workers.Load(); {
	case u.done.Load():
		return nil
	case n < 0:
		return errors.New("whether workers of an older version run is not known yet")
	default:
		return fmt.Errorf("%d workers of an older version run, which cannot read the messages of this one: orders are "+
			"taken when they are replaced", n)
	}
}
