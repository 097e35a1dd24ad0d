package stock

import (
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrNotLoaded says that Redis does not know the product's stock: load it from MySQL.
	ErrNotLoaded = errors.New("product is not loaded")
	// ErrStale says that the row to load is older than what Redis has heard of, each time it was read.
	ErrStale = errors.New("stock is out of date")
)

// NotExecuted reports whether the call that returned err has certainly changed nothing: no connection was
// made, or the server refused the command before it ran.
func NotExecuted(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	if errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrClosed) {
		return true
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "NOAUTH", "WRONGPASS",
		"NOPERM", "MISCONF", "BUSY", "TRYAGAIN", "NOREPLICAS", "MOVED", "ASK"} {
		if strings.HasPrefix(reply.Error(), prefix) {
			return true
		}
	}
	return false
}

// Rejected reports whether Redis works but could not carry out the call that returned err, for what its keys hold.
// Calls for other products are not concerned.
func Rejected(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !errors.Is(err, redis.Nil) && !NotExecuted(err)
}

// full reports whether a call was refused since Redis has no memory left.
func full(err error) bool { return redis.HasErrorPrefix(err, "OOM") }
