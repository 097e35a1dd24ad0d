package order

import "testing"

func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, product := range []StockID{1, 7, MaxProductID} {
		if product.Bucket() != 0 || product.Product().Stock() != product {
			t.Errorf("product %d is taken for bucket %d of %d", product, product.Bucket(), product.Product())
		}
		ids := product.Product().Buckets(MaxBuckets)
		for i, id := range ids {
			if id.Bucket() != i+1 || id.Product() != product.Product() || id <= MaxProductID || id >= 1<<53 {
				t.Errorf("id %d of bucket %d of product %d is taken for bucket %d of %d", id, i+1, product,
					id.Bucket(), id.Product())
			}
			if i > 0 && id <= ids[i-1] {
				t.Errorf("bucket %d is not behind the one before it", i+1)
			}
		}
	}
	for _, other := range []StockID{ProductID(1).Bucket(MaxBuckets + 1), 1 << 62, -1} {
		if other.Bucket() != 0 || other.Product().Stock() != other {
			t.Errorf("%d is taken for a bucket", other)
		}
	}
}

// The bucket of a user must be the same in every version of the program: what was bought is counted there.
func TestBucketFor(t *testing.T) {
	t.Parallel()
	for user, want := range map[UserID]int{1: 2, 2: 7, 3: 6, 1 << 40: 2} {
		if got := BucketFor(user, 8); got != want {
			t.Errorf("user %d buys from bucket %d, want %d", user, got, want)
		}
	}
	const users, buckets = 64_000, 64
	var counts [buckets + 1]int
	for user := range int64(users) {
		counts[BucketFor(UserID(user+1), buckets)]++
	}
	for bucket, n := range counts[1:] {
		if n < users/buckets*8/10 || n > users/buckets*12/10 {
			t.Errorf("bucket %d has %d users of %d", bucket+1, n, users)
		}
	}
}
