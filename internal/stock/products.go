package stock

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
	"stampede/internal/redis"
)

// Products lists the ids of the products that are loaded.
func (s *Stock) Products(ctx context.Context) ([]order.StockID, error) {
	var ids []order.StockID
	members := s.rdb.SMembers(ctx, productsKey)
	err := members.Err()
	if err == nil { // ScanSlice takes a call that failed for an empty set
		err = members.ScanSlice(&ids)
	}
	if err != nil {
		return nil, fmt.Errorf("list loaded products: %w", err)
	}
	return ids, nil
}

// remember puts products into the set of those that are loaded, also if Redis is full.
func (s *Stock) remember(ctx context.Context, productIDs ...any) error {
	return rememberScript.Run(ctx, s.rdb, []string{productsKey}, productIDs...).Err()
}

// Unload forgets a product, unless anything has moved since the look or is on its way.
func (s *Stock) Unload(ctx context.Context, stockID order.StockID, l Look) (bool, error) {
	if !l.Still {
		return false, nil
	}
	k := keysOf(stockID)
	keys := []string{k.stock, k.reserved, k.bought, k.sale, k.outbox, k.settled, k.lent}
	n, err := unloadScript.Run(ctx, s.rdb, keys, l.epoch, l.changes).Int()
	if err == nil && n == 1 {
		err = s.ForgetUnloaded(ctx, stockID) // who dies before that leaves it to the next look
	}
	if err != nil {
		return false, fmt.Errorf("unload product %d: %w", stockID, err)
	}
	return n == 1, nil
}

// ForgetProduct takes a product that does not exist out of the set of those that are loaded. One that has orders on
// their way stays, so that they are relayed and decided.
func (s *Stock) ForgetProduct(ctx context.Context, stockID order.StockID) error {
	return s.forget(ctx, stockID, Level.onItsWay)
}

// ForgetUnloaded takes a product out of the set of those that are loaded, if it is not loaded and has nothing on its
// way.
func (s *Stock) ForgetUnloaded(ctx context.Context, stockID order.StockID) error {
	return s.forget(ctx, stockID, func(l Level) bool { return l.Loaded || l.onItsWay() })
}

// forget takes a product out of the set unless stays says that it belongs there.
func (s *Stock) forget(ctx context.Context, stockID order.StockID, stays func(Level) bool) error {
	level, err := s.Level(ctx, stockID)
	if err != nil || stays(level) {
		return err
	}
	if err := s.rdb.SRem(ctx, productsKey, stockID).Err(); err != nil {
		return fmt.Errorf("forget product %d: %w", stockID, err)
	}

	// The set and the product are on different masters of a Cluster, so who has loaded it since the look is seen only
	// now. Should this process die here, Load puts it back, or else SearchProducts.
	if level, err = s.Level(ctx, stockID); err != nil || !stays(level) {
		return err
	}
	return s.remember(ctx, stockID)
}

// FindProducts puts every product that is loaded into the set of them, which one master of a Cluster holds for all and
// may have lost. It looks at all that Redis knows, so it is for after a fail-over.
func (s *Stock) FindProducts(ctx context.Context) error {
	_, _, err := s.SearchProducts(ctx, "", math.MaxInt)
	return err
}

// SearchProducts does the same for at most so many pages of the keys of each server, and returns how many products were
// loaded and not in the set. It goes on where from says, which is what the last call returned, or empty; next is empty
// when every server was searched to its end.
func (s *Stock) SearchProducts(ctx context.Context, from string, pages int) (next string, found int64, err error) {
	var mu sync.Mutex
	var rest []string

	err = s.rdb.EachMaster(ctx, func(ctx context.Context, c *goredis.Client) error {
		server, err := redis.RunID(ctx, c)
		if err != nil {
			return err
		}

		cursor, n, err := s.searchServer(ctx, c, cursorOf(from, server), pages)

		mu.Lock() // the masters of a Cluster are searched at the same time
		defer mu.Unlock()
		found += n
		if cursor != 0 {
			rest = append(rest, server+cursorMark+strconv.FormatUint(cursor, 10))
		}
		return err
	})
	if err != nil {
		return from, found, fmt.Errorf("look for loaded products: %w", err)
	}
	slices.Sort(rest)
	return strings.Join(rest, " "), found, nil
}

// cursorMark is between the name of a server and how far the search on it has come.
const cursorMark = "="

// cursorOf reads how far the search on a server has come. A server that was started again has another name, and no
// cursor is valid any more.
func cursorOf(text, server string) uint64 {
	for entry := range strings.FieldsSeq(text) {
		if rest, ok := strings.CutPrefix(entry, server+cursorMark); ok {
			cursor, _ := strconv.ParseUint(rest, 10, 64)
			return cursor
		}
	}
	return 0
}

// searchServer looks at some pages of the keys of a server.
func (s *Stock) searchServer(ctx context.Context, c *goredis.Client, cursor uint64,
	pages int) (next uint64, found int64, err error) {
	for range pages {
		var keys []string
		if keys, cursor, err = c.Scan(ctx, cursor, stockPrefix+"{*}", scanPage).Result(); err != nil {
			return 0, found, err
		}

		// A bucket is listed like a product.
		var ids []any
		for _, key := range keys {
			text := strings.TrimSuffix(strings.TrimPrefix(key, stockPrefix+"{"), "}")
			if id, err := strconv.ParseInt(text, 10, 64); err == nil {
				ids = append(ids, id)
			}
		}
		if len(ids) > 0 {
			n, err := rememberScript.Run(ctx, s.rdb, []string{productsKey}, ids...).Int64()
			if err != nil {
				return 0, found, err
			}
			found += n
		}

		if cursor == 0 {
			break
		}
	}
	return cursor, found, nil
}
