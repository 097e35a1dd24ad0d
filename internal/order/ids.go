package order

import (
	"strconv"
	"time"

	"github.com/google/uuid"
)

// A product that is split has its units in buckets. A bucket is a product of its own in everything that counts units:
// it has a row in MySQL, keys and a slot in Redis, and orders. Clients see the product as a whole and no bucket.

// OrderID is the id of an order: a UUIDv7 (RFC 9562), so that ids sort by the time of their making.
type OrderID uuid.UUID

// NewID makes the id of a new order, unique without coordination.
func NewID() OrderID { return OrderID(uuid.Must(uuid.NewV7())) }

// ParseID reads an order's id in any of the forms that a UUID has.
func ParseID(text string) (OrderID, error) {
	id, err := uuid.Parse(text)
	return OrderID(id), err
}

// UserID is the id of an account, from 1 on.
type UserID int64

// ProductID is the id of a product as clients know it, from 1 to MaxProductID.
type ProductID int64

// StockID is the id under which units are counted: that of a product, or of one of its buckets.
type StockID int64

const (
	// MaxBuckets is the most buckets of a product.
	MaxBuckets = 64
	// MaxProductID is the highest id of a product. Ids of buckets are above it, and below 2^53, so that JSON and Lua
	// hold them exactly.
	MaxProductID = 1<<bucketShift - 1

	bucketShift = 40
)

// Stock is the id under which the product itself counts units: all of them, unless it is split.
func (id ProductID) Stock() StockID { return StockID(id) }

// Bucket is the id of one of the product's buckets, which count from 1.
func (id ProductID) Bucket(n int) StockID { return id.Stock() + StockID(n)<<bucketShift }

// Buckets are the ids of the first n buckets of the product, in ascending order.
func (id ProductID) Buckets(n int64) []StockID {
	ids := make([]StockID, n)
	for i := range ids {
		ids[i] = id.Bucket(i + 1)
	}
	return ids
}

// Bucket is the number of the bucket that the id stands for, or 0 if it is one of a product.
func (id StockID) Bucket() int {
	if n := id >> bucketShift; n >= 1 && n <= MaxBuckets {
		return int(n)
	}
	return 0
}

// Product is the id of the product whose units are counted under the id.
func (id StockID) Product() ProductID {
	if id.Bucket() == 0 {
		return ProductID(id)
	}
	return ProductID(id & MaxProductID)
}

// BucketFor is the bucket, of n, from which a user buys. It is the user's for good, whichever process asks: the units
// that a user has and the idempotency keys are then counted in one place.
func BucketFor(user UserID, n int64) int {
	// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014) spreads ids that follow one another.
	h := uint64(user) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return int(h%uint64(n)) + 1
}

// StockIDs are the ids under which the units of a product are: its own, or those of its buckets.
func (p Product) StockIDs() []StockID {
	if p.Buckets == 0 || p.ID.Bucket() > 0 {
		return []StockID{p.ID}
	}
	return p.ID.Product().Buckets(p.Buckets)
}

// MadeAt is when the id was made by the clock of its maker, to the millisecond, or zero if it is no UUIDv7.
func (id OrderID) MadeAt() time.Time {
	if uuid.UUID(id).Version() != 7 {
		return time.Time{}
	}
	return time.Unix(uuid.UUID(id).Time().UnixTime())
}

// FirstID is the least id that can be made at a time, to the millisecond, or later.
func FirstID(t time.Time) (id OrderID) {
	ms := uint64(max(t.UnixMilli(), 0))
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id
}

// String is the id as RFC 9562 writes it.
func (id OrderID) String() string { return uuid.UUID(id).String() }

// MarshalText writes the id as String does.
func (id OrderID) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }

// UnmarshalText reads what MarshalText has written, and the other forms of a UUID.
func (id *OrderID) UnmarshalText(text []byte) error { return (*uuid.UUID)(id).UnmarshalText(text) }

// The ids of users, products and stock as decimal text.

func (id UserID) String() string    { return strconv.FormatInt(int64(id), 10) }
func (id ProductID) String() string { return strconv.FormatInt(int64(id), 10) }
func (id StockID) String() string   { return strconv.FormatInt(int64(id), 10) }

// MarshalBinary makes the id an argument of a command for Redis.
func (id UserID) MarshalBinary() ([]byte, error) { return []byte(id.String()), nil }

// MarshalBinary makes the id an argument of a command for Redis.
func (id StockID) MarshalBinary() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalBinary reads the id from an answer of Redis.
func (id *StockID) UnmarshalBinary(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 64)
	*id = StockID(n)
	return err
}
