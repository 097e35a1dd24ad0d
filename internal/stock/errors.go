package stock

import (
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

var (
	// ErrNotLoaded says that Redis does not know the product's stock: load it from MySQL.
	ErrNotLoaded = errors.New("product is not loaded")
	// ErrStale says that the row to load is older than what Redis has heard of, each time it was read.
	ErrStale = errors.New("stock is out of date")
)

// full reports whether a call was refused since Redis has no memory left.
func full(err error) bool { return goredis.HasErrorPrefix(err, "OOM") }
