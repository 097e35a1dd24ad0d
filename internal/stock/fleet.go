package stock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// reportKept is for how long Redis keeps the report of a process that gives no more.
const reportKept = time.Minute

// Report leaves what a process says of itself for others to read, in the place of what it said before. An empty
// report says that the process ends. No product depends on it.
func (s *Stock) Report(ctx context.Context, process, report string) error {
	return s.report(ctx, process, report, reportKept)
}

func (s *Stock) report(ctx context.Context, process, report string, kept time.Duration) error {
	if err := reportScript.Run(ctx, s.rdb, []string{fleetKey}, process, report, kept.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("report on process %s: %w", process, err)
	}
	return nil
}

// Reports reads what processes have reported within a time, by the clock of Redis.
func (s *Stock) Reports(ctx context.Context, maxAge time.Duration) ([]string, error) {
	reports, err := fleetScript.Run(ctx, s.rdb, []string{fleetKey}, maxAge.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("read the reports of the processes: %w", err)
	}
	return reports, nil
}

// Count is how much Redis holds of a product, to look at it often.
type Count struct {
	// Loaded is false if Redis does not know the product's stock; Available is then 0.
	Loaded    bool
	Available int64
	// Reservations counts orders.
	Reservations int64
}

// Counts reads several products, each at its own moment, at a cost that does not depend on how many orders they have.
func (s *Stock) Counts(ctx context.Context, productIDs []int64) (map[int64]Count, error) {
	available := make([]*redis.StringCmd, len(productIDs))
	reserved := make([]*redis.IntCmd, len(productIDs))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range productIDs {
			k := keysOf(id)
			available[i], reserved[i] = p.Get(ctx, k.stock), p.HLen(ctx, k.reserved)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("count units: %w", err)
	}
	counts := make(map[int64]Count, len(productIDs))
	for i, id := range productIDs {
		units, err := available[i].Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("count units of product %d: %w", id, err)
		}
		counts[id] = Count{Loaded: err == nil, Available: units, Reservations: reserved[i].Val()}
	}
	return counts, nil
}
