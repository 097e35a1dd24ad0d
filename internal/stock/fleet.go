package stock

import (
	"context"
	"fmt"
	"time"
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
