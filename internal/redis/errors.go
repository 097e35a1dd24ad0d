package redis

import (
	"errors"
	"net"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// NotExecuted reports whether the call that returned err has certainly changed nothing: no connection was
// made, or the server refused the command before it ran.
func NotExecuted(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	if errors.Is(err, goredis.ErrPoolTimeout) || errors.Is(err, goredis.ErrClosed) {
		return true
	}
	var reply goredis.Error
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
	var reply goredis.Error
	return errors.As(err, &reply) && !errors.Is(err, goredis.Nil) && !NotExecuted(err)
}
