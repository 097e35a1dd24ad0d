package board

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"stampede/internal/order"
	"stampede/internal/redis"
)

var (
	reportScript = redis.NewScript("report")
	fleetScript  = redis.NewScript("fleet")
)

// fleetKey is a hash in Redis: id of a process → time and text of the report that it gave of itself last.
const fleetKey = "fleet"

// reportKept is for how long Redis keeps the report of a process that gives no more.
const reportKept = time.Minute

// writeReport leaves what a process says of itself for others to read, in the place of what it said before. An empty
// report says that the process ends.
func writeReport(ctx context.Context, rdb *redis.Client, process, report string) error {
	err := reportScript.Run(ctx, rdb, []string{fleetKey}, process, report, reportKept.Milliseconds()).Err()
	if err != nil {
		return fmt.Errorf("report on process %s: %w", process, err)
	}
	return nil
}

// readReports reads what processes have reported within a time, by the clock of Redis.
func readReports(ctx context.Context, rdb *redis.Client, maxAge time.Duration) ([]string, error) {
	reports, err := fleetScript.Run(ctx, rdb, []string{fleetKey}, maxAge.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("read the reports of the processes: %w", err)
	}
	return reports, nil
}

// olderAge is how old a report may be for its process to count as running.
const olderAge = 10 * time.Second

// keysVersion is the message version since which idempotency records are where they are.
const keysVersion = 2

// Older counts the running workers that are of a program before the present message version, and cannot read what this
// program sends; and the programs before version 2, which know nothing of where it keeps idempotency records.
func Older(ctx context.Context, rdb *redis.Client) (workers, keepers int, err error) {
	reports, err := readReports(ctx, rdb, olderAge)
	if err != nil {
		return 0, 0, err
	}
	for _, text := range reports {
		var r report
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			continue
		}
		if r.MessageVersion < order.MessageVersion && r.Role != "edge" {
			workers++
		}
		if r.MessageVersion < keysVersion {
			keepers++
		}
	}
	return workers, keepers, nil
}
