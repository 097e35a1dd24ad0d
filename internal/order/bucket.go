package order

// A product that is split has its units in buckets. A bucket is a product of its own in everything that counts units:
// it has a row in MySQL, keys and a slot in Redis, and orders. Clients see the product as a whole and no bucket.

const (
	// MaxBuckets is the most buckets of a product.
	MaxBuckets = 64
	// MaxProductID is the highest id of a product. Ids of buckets are above it, and below 2^53, so that JSON and Lua
	// hold them exactly.
	MaxProductID = 1<<bucketShift - 1

	bucketShift = 40
)

// BucketID is the id of a product's bucket; buckets count from 1.
func BucketID(productID int64, bucket int) int64 { return productID + int64(bucket)<<bucketShift }

// BucketOf is the number of the bucket that an id stands for, or 0 if it is one of a product.
func BucketOf(id int64) int {
	if n := id >> bucketShift; n >= 1 && n <= MaxBuckets {
		return int(n)
	}
	return 0
}

// ProductOf is the id of the product to which a bucket belongs. The id of a product stays what it is.
func ProductOf(id int64) int64 {
	if BucketOf(id) == 0 {
		return id
	}
	return id & MaxProductID
}

// BucketIDs are the ids of the first n buckets of a product, in ascending order.
func BucketIDs(productID int64, n int64) []int64 {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = BucketID(productID, i+1)
	}
	return ids
}

// BucketFor is the bucket, of n, from which a user buys. It is the user's for good, whichever process asks: the units
// that a user has and the idempotency keys are then counted in one place.
func BucketFor(userID, n int64) int {
	// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014) spreads ids that follow one another.
	h := uint64(userID) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return int(h%uint64(n)) + 1
}

// StockIDs are the ids under which the units of a product are: its own, or those of its buckets.
func (p Product) StockIDs() []int64 {
	if p.Buckets == 0 || BucketOf(p.ID) > 0 {
		return []int64{p.ID}
	}
	return BucketIDs(p.ID, p.Buckets)
}
