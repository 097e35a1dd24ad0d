package stock

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// scanner is a command of Redis that reads a collection by pages.
type scanner func(ctx context.Context, key string, cursor uint64, match string, count int64) *goredis.ScanCmd

// pages visits a collection page by page. What is in it all the time is visited, maybe twice.
func pages(ctx context.Context, scan scanner, key string, visit func([]string) error) error {
	return pagesFrom(ctx, scan, key, 0, visit)
}

// pagesFrom is pages from a cursor on, which is 0 at the first page.
func pagesFrom(ctx context.Context, scan scanner, key string, cursor uint64, visit func([]string) error) error {
	for {
		page, next, err := scan(ctx, key, cursor, "", lookPage).Result()
		if err != nil {
			return err
		}
		if err := visit(page); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// hashPages visits the fields of a hash with their values, like pages.
func (s *Stock) hashPages(ctx context.Context, key string, visit func(field, value string) error) error {
	return pages(ctx, s.rdb.HScan, key, func(page []string) error { return visitFields(page, visit) })
}

// visitFields visits the fields of one page of a hash.
func visitFields(page []string, visit func(field, value string) error) error {
	for i := 0; i+1 < len(page); i += 2 {
		if err := visit(page[i], page[i+1]); err != nil {
			return fmt.Errorf("%q: %w", page[i], err)
		}
	}
	return nil
}

// scanPage is about how many keys a call looks at, which takes a server less than a millisecond.
const scanPage = 2 * MaxBatch
