package stock

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/google/uuid"

	"stampede/internal/order"
)

// newBatch names an entry of the outbox, in 11 letters that no other entry has: of 64 random bits, among the few
// thousand entries that there may be at a time.
func newBatch() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// packedUUID is before the 16 bytes of an idempotency key that is a UUID. No key of a client begins with it.
const packedUUID = "\x00"

// packKey is an idempotency key as Redis keeps it. Most are UUIDs in their canonical form, of which a reservation and
// an idempotency record have one each.
func packKey(key string) string {
	id, err := uuid.Parse(key)
	if err != nil || id.String() != key {
		return key
	}
	return packedUUID + string(id[:])
}

func unpackKey(kept string) string {
	if text, ok := strings.CutPrefix(kept, packedUUID); ok && len(text) == len(uuid.UUID{}) {
		return uuid.UUID([]byte(text)).String()
	}
	return kept
}

// reservation is what reserved:{p} has of an order.
type reservation struct {
	units int64
	// batch is the entry of the outbox in which the order was put. It is empty, like all but the units, if a program
	// before message version 2 has reserved it.
	batch string
	order order.Order
}

// parseReservation reads 'units user unit_price reserved_at batch key', as reserve.lua writes it.
func parseReservation(stockID order.StockID, id order.OrderID, text string) (r reservation, err error) {
	f := strings.SplitN(text, " ", 6)
	if r.units, err = strconv.ParseInt(f[0], 10, 64); err != nil || len(f) == 1 {
		return r, err
	}
	if len(f) < 5 {
		return r, fmt.Errorf("reservation %q has %d fields", text, len(f))
	}

	var d decoder
	r.batch = f[4]
	r.order = order.Order{
		ID: id, StockID: stockID, Quantity: r.units, UserID: order.UserID(d.Int(f[1])),
		ReservedAt: fromMillis(d.Int(f[3])),
	}
	r.order.UnitPrice, r.order.Points = d.price(f[2])
	if len(f) == 6 {
		r.order.IdempotencyKey = unpackKey(f[5])
	}
	return r, d.Err
}

// Pending is what Redis holds of some orders of a product.
type Pending struct {
	// Records are those of the orders that are reserved, in the order of the ids that were asked for, and nil for
	// others.
	Records []*order.Record
	// Buckets is the number of buckets of the product, 0 for none.
	Buckets int64
}

// Pending reads those orders of a product, or of a bucket, that are not decided, up to MaxBatch. It knows nothing of
// one that a program before message version 2 has reserved.
func (s *Stock) Pending(ctx context.Context, stockID order.StockID, ids []order.OrderID) (Pending, error) {
	all, err := s.PendingIn(ctx, []order.StockID{stockID}, ids)
	if err != nil {
		return Pending{}, err
	}
	return all[0], nil
}

// PendingIn is Pending for several products, in one round trip. The answers are in the order of the products.
func (s *Stock) PendingIn(ctx context.Context, stockIDs []order.StockID, ids []order.OrderID) ([]Pending, error) {
	if len(ids) == 0 {
		return make([]Pending, len(stockIDs)), nil
	}
	fields := make([]string, len(ids))
	for i, id := range ids {
		fields[i] = id.String()
	}
	reserved, sales := make([]*goredis.SliceCmd, len(stockIDs)), make([]*goredis.SliceCmd, len(stockIDs))
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, stockID := range stockIDs {
			k := keysOf(stockID)
			reserved[i] = p.HMGet(ctx, k.reserved, fields...)
			sales[i] = p.HMGet(ctx, k.sale, fieldCurrency, fieldBuckets)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %d orders: %w", len(ids), err)
	}

	all := make([]Pending, len(stockIDs))
	for i, stockID := range stockIDs {
		all[i], err = readPending(stockID, ids, reserved[i].Val(), sales[i].Val())
		if err != nil {
			return nil, fmt.Errorf("read orders of product %d: %w", stockID, err)
		}
	}
	return all, nil
}

func readPending(stockID order.StockID, ids []order.OrderID, reserved, sale []any) (Pending, error) {
	pending := Pending{Records: make([]*order.Record, len(ids))}
	if len(reserved) != len(ids) || len(sale) != 2 {
		return pending, errors.New("a reply has the wrong length")
	}
	currency, _ := sale[0].(string)
	if buckets, ok := sale[1].(string); ok {
		var d decoder
		if pending.Buckets = d.Int(buckets); d.Err != nil {
			return pending, d.Err
		}
	}

	for i, value := range reserved {
		text, ok := value.(string)
		if !ok {
			continue
		}
		r, err := parseReservation(stockID, ids[i], text)
		if err != nil {
			return pending, err
		}
		if r.batch != "" {
			pending.Records[i] = &order.Record{
				Order: r.order, Currency: r.order.PricedIn(currency), Status: order.Pending,
			}
		}
	}
	return pending, nil
}
