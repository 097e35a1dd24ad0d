package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestNotExecuted(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{refused, true},
		{fmt.Errorf("reserve: %w", refused), true},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, false},
		{io.EOF, false},
		{context.DeadlineExceeded, false},
		{context.Canceled, false},
		{goredis.ErrPoolTimeout, true},
		{goredis.ErrClosed, true},
		{goredis.Nil, false},
		{errors.New("LOADING says somebody else"), false},
		{reply("LOADING Redis is loading the dataset in memory"), true},
		{fmt.Errorf("reserve: %w", reply("READONLY You can't write against a read only replica.")), true},
		{reply("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), true},
		{reply("CLUSTERDOWN The cluster is down"), true},
		{reply("OOM command not allowed when used memory > 'maxmemory'."), true},
		{reply("NOAUTH Authentication required."), true},
		{reply("WRONGPASS invalid username-password pair or user is disabled."), true},
		{reply("NOPERM this user has no permissions to run the 'evalsha' command"), true},
		{reply("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."),
			true},
		{reply("BUSY Redis is busy running a script."), true},
		{reply("TRYAGAIN Multiple keys request during rehashing of slot"), true},
		{reply("NOREPLICAS Not enough good replicas to write."), true},
		{reply("MOVED 3999 127.0.0.1:6381"), true},
		{reply("ASK 3999 127.0.0.1:6381"), true},
		{reply("ERR Error running script"), false},
		{reply("WRONGTYPE Operation against a key holding the wrong kind of value"), false},
		{reply("UNKILLABLE Sorry the script already executed write commands"), false},
	} {
		if got := NotExecuted(test.err); got != test.want {
			t.Errorf("NotExecuted(%v) = %v", test.err, got)
		}
	}
}
